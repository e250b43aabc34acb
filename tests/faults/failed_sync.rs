//! A sync that fails is final: what waited for it is refused, its file is never synced again, and the partition goes
//! on in a new segment under a new leader epoch.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::produce::ProduceResponse;
use highwater_record::{Batch, BatchHeader, Codec, ProducerEpoch, ProducerId};

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};

use super::batches::{Stamped, batch_of};
use super::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request, producer_at};
use super::history::{History, Placed, Stamp, check};
use super::reader::{read_all, read_batches};

const TOPIC: &str = "syncs";
/// Requests in flight at once.
const ROUND: u32 = 3;
/// One idempotent session.
const SESSION: u32 = 1;

/// A producer that counts its records; sequence, counter and key order are the same.
struct Counting {
    connection: Connection,
    producer: (ProducerId, ProducerEpoch),
    history: History,
}

impl Counting {
    fn batch(&self, counter: u32) -> Bytes {
        let producer = producer_at(self.producer, counter as i32);
        let stamp = Stamp { session: SESSION, counter };
        batch_of(Codec::None, Some(producer), &[Stamped { key: 0, stamp, value_bytes: 100 }])
    }

    /// Sends these records, one request each, all in flight at once; those that were refused, with the codes.
    fn send(&mut self, counters: impl Iterator<Item = u32> + Clone) -> anyhow::Result<Vec<(u32, i16)>> {
        for counter in counters.clone() {
            let request = produce_request(TOPIC, [(0, self.batch(counter))]);
            self.connection.send(PRODUCE_VERSION, &request)?;
        }
        let mut refused = Vec::new();
        for counter in counters {
            let (_, response) = self.connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
            let answer = answers_of(response).pop().context("the answer names the partition")?;
            if answer.error_code != 0 {
                refused.push((counter, answer.error_code));
                continue;
            }
            let stamp = Some(Stamp { session: SESSION, counter });
            self.history.acked.push(Placed { partition: 0, offset: answer.base_offset, key: 0, stamp });
        }
        Ok(refused)
    }
}

#[test]
fn a_failed_sync_is_final_for_its_file_and_loses_nothing_acknowledged() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path().canonicalize()?;
    let data = directory.join("data");
    let first_segment = data.join(format!("{TOPIC}-0/00000000000000000000.log"));
    let trace = directory.join("trace");
    let fail = failing_syncs(std::slice::from_ref(&first_segment), &trace);
    let mut broker = Broker::start(Options::new(&data).under(fail.wrapper()))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[])?;
    let producer = connection.init_producer()?;
    let history = History { idempotent: HashSet::from([SESSION]), ..History::default() };
    let mut producer = Counting { connection, producer, history };

    let (failed_at, refused) = produce_until_refused(&mut producer)?;
    let acked_before = producer.history.acked.len();
    let codes: Vec<&str> = refused.iter().map(|(_, code)| name_of(*code)).collect();
    ensure!(refused[0].1 == ErrorCode::KafkaStorageError.code(), "the first answer is one of {codes:?}");
    let again =
        producer.send(refused.into_iter().map(|(counter, _)| counter).collect::<Vec<_>>().into_iter())?;
    ensure!(again.is_empty(), "what was refused is refused again: {again:?}");
    for round in 0..5 {
        let first = failed_at + ROUND * (round + 1);
        let refused = producer.send(first..first + ROUND)?;
        ensure!(refused.is_empty(), "the partition does not go on: {refused:?}\n{}", broker.log());
    }

    let trace = std::fs::read_to_string(&trace)?;
    let after_failure = trace.split_once("INJECTED").context("no failure was injected")?.1;
    ensure!(!after_failure.contains("sync("), "the file was synced after its failure:\n{trace}");
    check_epochs(&broker, acked_before as i64)?;
    let verdict = check(&producer.history, &read_all(broker.address(), TOPIC, 1)?);
    ensure!(verdict.is_clean(), "while it runs: {verdict}");
    broker.kill()?;
    let broker = Broker::start(Options::new(&data))?;
    let verdict = check(&producer.history, &read_all(broker.address(), TOPIC, 1)?);
    ensure!(verdict.is_clean(), "after a restart: {verdict}");
    ensure!(
        broker.data().join(format!("{TOPIC}-0/{acked_before:020}.log")).exists(),
        "there is no new segment"
    );
    Ok(())
}

/// Everything that goes wrong, goes wrong with these files. The count is per thread, which does not matter here: some
/// sync fails soon.
pub(super) const fn failing_syncs<'a>(files: &'a [PathBuf], trace: &'a Path) -> Tampering<'a> {
    Tampering { calls: "fsync,fdatasync", injection: "error=EIO:when=3", files, trace }
}

/// Sends round after round until answers are errors: the first counter of that round, and what was refused.
fn produce_until_refused(producer: &mut Counting) -> anyhow::Result<(u32, Vec<(u32, i16)>)> {
    for round in 0..100 {
        let first = round * ROUND;
        let refused = producer.send(first..first + ROUND)?;
        if !refused.is_empty() {
            return Ok((first, refused));
        }
    }
    anyhow::bail!("no sync has failed in 100 rounds")
}

/// From the first offset after the failure on, batches carry a larger leader epoch than before.
fn check_epochs(broker: &Broker, first_after: i64) -> anyhow::Result<()> {
    let batches = read_batches(broker.address(), TOPIC, 0)?;
    let (before, after): (Vec<&BatchHeader>, Vec<&BatchHeader>) =
        batches.iter().map(Batch::header).partition(|header| header.base_offset.get() < first_after);
    let last_before = before.iter().map(|header| header.leader_epoch).max();
    let first_after = after.iter().map(|header| header.leader_epoch).min();
    ensure!(last_before < first_after, "leader epochs {last_before:?} before, {first_after:?} after");
    Ok(())
}
