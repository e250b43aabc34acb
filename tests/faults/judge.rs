//! What a broker owes to those who read a data directory of which some files were harmed: every batch byte for byte, or
//! the news that it is lost, at its offsets and no others.
//!
//! What may be lost is told beforehand, as ranges of bytes in segment files. Whatever is lost must be named three
//! times: to the client that asks for its offsets, in the broker's log with the directory, and in the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::produce::PartitionProduceResponse;

use crate::harness::broker::Broker;
use crate::harness::metrics::metric;

use super::client::{Connection, name_of};
use super::grown::Grown;
use super::layout::{COMMITS, Laid};
use super::reader::split;

/// Where the leader epoch lies in a batch; no checksum covers it.
const EPOCH: Range<usize> = 12..16;

/// What harm has cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    batches: u64,
    offsets: u64,
    /// Batches that were served with a wrong leader epoch at the border of two epochs (ADR 18).
    epochs: u64,
    /// Trials in which the broker was read-only.
    read_only: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, more: Self) {
        self.batches += more.batches;
        self.offsets += more.offsets;
        self.epochs += more.epochs;
        self.read_only += more.read_only;
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} batches lost and named, {} served with another leader epoch, {} trials read-only",
            self.batches, self.epochs, self.read_only
        )
    }
}

/// A partition as it was before it was harmed.
struct Log {
    topic: String,
    index: i32,
    laid: Vec<Laid>,
    /// Batches that must not be served.
    lost: BTreeSet<usize>,
    /// Batches of which only the leader epoch was changed: they are lost, or served like that.
    doubtful: BTreeSet<usize>,
    /// Whether what producers had sent last was lost with the end of the log, so that they must begin anew.
    has_lost_producers: bool,
}

/// What must hold, and what was found.
pub(crate) struct Judge<'a> {
    grown: &'a Grown,
    logs: BTreeMap<String, Log>,
    /// The round of the batch that each partition gets next.
    round: u32,
    may_be_read_only: bool,
    /// Batches that were lost beforehand.
    lost_before: u64,
    pub(crate) losses: Losses,
}

impl<'a> Judge<'a> {
    /// Expects these batches; `round` is the first in which nothing was appended.
    pub(crate) fn new(
        grown: &'a Grown,
        partitions: BTreeMap<String, Vec<Laid>>,
        round: u32,
    ) -> anyhow::Result<Self> {
        let mut logs = BTreeMap::new();
        for (folder, laid) in partitions {
            let (topic, index) =
                folder.rsplit_once('-').context("a directory is named like its partition")?;
            let damaged = laid.iter().enumerate().filter(|(_, batch)| !batch.is_whole);
            let lost = damaged.map(|(index, _)| index).collect();
            let (topic, index) = (topic.to_owned(), index.parse()?);
            logs.insert(
                folder,
                Log { topic, index, laid, lost, doubtful: BTreeSet::new(), has_lost_producers: false },
            );
        }
        let lost_before = logs.values().map(|log: &Log| log.lost.len() as u64).sum();
        Ok(Self { grown, logs, round, may_be_read_only: false, lost_before, losses: Losses::default() })
    }

    /// Allows the broker to be read-only from now on.
    pub(crate) const fn allow_read_only(&mut self) {
        self.may_be_read_only = true;
    }

    /// Expects the batches to be lost that these bytes of a segment file belong to.
    pub(crate) fn expect_loss(&mut self, folder: &str, file: &Path, bytes: &Range<u64>) {
        let Some(log) = self.logs.get_mut(folder) else { return };
        for (index, laid) in log.laid.iter().enumerate().filter(|(_, laid)| laid.file == file) {
            let (hit, range) = (bytes, laid.range());
            let at_epoch = range.start + EPOCH.start as u64..range.start + EPOCH.end as u64;
            if at_epoch.start <= hit.start && hit.end <= at_epoch.end {
                log.doubtful.insert(index);
            } else if hit.start < range.end && range.start < hit.end {
                log.lost.insert(index);
            }
        }
    }

    /// Reads every partition, asks for what is named, appends to every partition and reads that.
    ///
    /// With `is_running` the harm was done under a broker that runs, which had read what groups commit before.
    pub(crate) fn examine(&mut self, broker: &Broker, is_running: bool) -> anyhow::Result<()> {
        let mut connection = Connection::open(broker.address())?;
        self.losses = Losses::default();
        let mut refused_count = 0;
        for (folder, log) in
            self.logs.iter().filter(|(folder, _)| !(is_running && folder.starts_with(COMMITS)))
        {
            let (served, refused) = log.read(&mut connection).with_context(|| folder.clone())?;
            self.losses += log.compare(&served, &refused).with_context(|| folder.clone())?;
            refused_count += refused.len() as u64;
        }
        self.losses.batches -= self.lost_before;
        let named = named_offsets(&broker.log());
        let counted = metric(broker.address(), "highwater_quarantined_offsets")?;
        ensure!(counted == refused_count, "{refused_count} offsets are refused, the metric says {counted}");
        for (folder, log) in
            self.logs.iter().filter(|(folder, _)| !(is_running && folder.starts_with(COMMITS)))
        {
            let named = named.get(folder);
            for offset in log.lost_offsets() {
                ensure!(
                    named.is_some_and(|named| named.contains(&offset)),
                    "the log does not name offset {offset} of {folder}"
                );
            }
        }
        self.ask_groups(&mut connection)?;
        if metric(broker.address(), "highwater_read_only")? == 1 {
            return self.be_refused(broker);
        }
        self.append(broker)
    }

    /// What groups have committed, or that it is lost.
    fn ask_groups(&self, connection: &mut Connection) -> anyhow::Result<()> {
        for (group, offset) in self.grown.commits() {
            let folder = format!("{COMMITS}-{}", partition_of(&group.name));
            let is_hit =
                self.logs.get(&folder).is_some_and(|log| !log.lost.is_empty() || !log.doubtful.is_empty());
            match group.committed(connection, &[0])? {
                Ok(found) if found == BTreeMap::from([(0, Some(offset))]) => {}
                Err(code) if is_hit && name_of(code) == "CORRUPT_MESSAGE" => {}
                other => bail!("{} has committed {offset}, and is told {other:?}", group.name),
            }
        }
        Ok(())
    }

    /// A read-only broker says so, and takes nothing.
    fn be_refused(&mut self, broker: &Broker) -> anyhow::Result<()> {
        ensure!(self.may_be_read_only, "the broker is read-only");
        ensure!(
            broker.log().contains("The broker is read-only"),
            "the log does not say that it is read-only"
        );
        self.losses.read_only = 1;
        for (folder, answer) in self.grown.send(broker, self.round)? {
            let code = name_of(answer.error_code);
            ensure!(code == "KAFKA_STORAGE_ERROR", "{folder} of a read-only broker answers {code}");
        }
        Ok(())
    }

    /// Sends the last batch of every partition again, and a new one.
    fn append(&mut self, broker: &Broker) -> anyhow::Result<()> {
        let mut connection = Connection::open(broker.address())?;
        let again = self.grown.batch(self.round - 1);
        for (folder, answer) in self.grown.send(broker, self.round - 1)? {
            let log = self.logs.get_mut(&folder).context("a log that is known")?;
            log.settle_again(&mut connection, &answer, &again)
                .with_context(|| format!("{folder}, sent again, answers {answer:?}"))?;
        }
        let (sent, plain) = (self.grown.batch(self.round), Grown::plain_batch(self.round));
        for (folder, answer) in self.grown.send(broker, self.round)? {
            let log = self.logs.get_mut(&folder).context("a log that is known")?;
            let is_out_of_order = answer.error_code == ErrorCode::OutOfOrderSequenceNumber.code();
            let (answer, sent) = if is_out_of_order && (log.is_lost_at_the_end() || log.has_lost_producers) {
                log.has_lost_producers = true;
                (connection.produce(&log.topic, log.index, plain.clone())?, &plain)
            } else {
                (answer, &sent)
            };
            log.take(&mut connection, answer.base_offset, sent)
                .with_context(|| format!("{folder} answers {answer:?}"))?;
        }
        self.round += 1;
        Ok(())
    }
}

impl Log {
    fn end(&self) -> i64 {
        self.laid.last().map_or(0, |last| last.header.next_offset().get())
    }

    fn is_lost_at_the_end(&self) -> bool {
        let last = self.laid.len().wrapping_sub(1);
        self.lost.contains(&last) || self.doubtful.contains(&last)
    }

    /// The offsets that must be refused.
    fn lost_offsets(&self) -> impl Iterator<Item = i64> {
        let lost = self.lost.iter().map(|index| &self.laid[*index].header);
        lost.flat_map(|header| header.base_offset.get()..header.next_offset().get())
    }

    /// Takes note of what the batch that was sent last is answered when it is sent again.
    fn settle_again(
        &mut self,
        connection: &mut Connection,
        answer: &PartitionProduceResponse,
        again: &Bytes,
    ) -> anyhow::Result<()> {
        let last = self.laid.last().context("a log has a batch")?.header.base_offset.get();
        if self.has_lost_producers {
            return Ok(());
        }
        if !self.is_lost_at_the_end() {
            ensure!(answer.error_code == 0 && answer.base_offset == last, "the batch is at {last}");
            return Ok(());
        }
        // Where it is lost it may be known still, be refused, or be appended once more.
        if answer.error_code == 0 && answer.base_offset == self.end() {
            return self.take(connection, answer.base_offset, again);
        }
        Ok(())
    }

    /// Every batch that is served, from the first offset to the end, and every offset that is refused.
    fn read(&self, connection: &mut Connection) -> anyhow::Result<(Vec<Bytes>, BTreeSet<i64>)> {
        let (mut served, mut refused, mut at) = (Vec::new(), BTreeSet::new(), 0);
        while at < self.end() {
            let data = connection.fetch(&self.topic, self.index, at)?;
            match name_of(data.error_code) {
                "NONE" => {}
                "CORRUPT_MESSAGE" => {
                    refused.insert(at);
                    at += 1;
                    continue;
                }
                other => bail!("a fetch from {at} is answered {other}"),
            }
            let batches = split(data.records.bytes().cloned().unwrap_or_default())?;
            ensure!(!batches.is_empty(), "nothing is served from {at} on, the end was {}", self.end());
            for batch in batches {
                let (base, next) = (batch.header().base_offset.get(), batch.header().next_offset().get());
                ensure!(base >= at, "a fetch from {at} gives offset {base}");
                at = next;
                served.push(batch.bytes().clone());
            }
        }
        Ok((served, refused))
    }

    /// Holds what was served and refused against what there was.
    fn compare(&self, served: &[Bytes], refused: &BTreeSet<i64>) -> anyhow::Result<Losses> {
        let mut served = served.iter().peekable();
        let (mut losses, mut free) =
            (Losses { offsets: refused.len() as u64, ..Losses::default() }, BTreeSet::new());
        for (index, laid) in self.laid.iter().enumerate() {
            let (base, next) = (laid.header.base_offset.get(), laid.header.next_offset().get());
            let is_served = served.next_if(|bytes| **bytes == laid.bytes).is_some();
            if self.lost.contains(&index) {
                ensure!(!is_served, "the damaged batch at {base} is served as it was");
            } else if self.doubtful.contains(&index) && !is_served {
                if served.next_if(|bytes| without_epoch(bytes) == without_epoch(&laid.bytes)).is_some() {
                    losses.epochs += 1;
                    continue;
                }
            } else {
                ensure!(is_served, "the batch at {base} is not served, or not as it was");
                continue;
            }
            losses.batches += 1;
            ensure!(
                (base..next).all(|offset| refused.contains(&offset)),
                "offsets of {base}..{next} are not refused: {refused:?}"
            );
            free.extend(base..next);
        }
        ensure!(served.next().is_none(), "more is served than there was");
        let wrong: Vec<&i64> = refused.difference(&free).collect();
        ensure!(wrong.is_empty(), "offsets {wrong:?} are refused, though nothing was done to them");
        Ok(losses)
    }

    /// Takes up a batch that was acknowledged at `base`, as it is served.
    fn take(&mut self, connection: &mut Connection, base: i64, sent: &Bytes) -> anyhow::Result<()> {
        ensure!(base == self.end(), "the end was {}", self.end());
        let data = connection.fetch(&self.topic, self.index, base)?;
        let mut batches = split(data.records.bytes().cloned().unwrap_or_default())?;
        ensure!(batches.len() == 1, "{} batches are served from {base} on", batches.len());
        let batch = batches.remove(0);
        // All but the two fields that a broker sets.
        let same = batch.bytes()[8..12] == sent[8..12] && batch.bytes()[16..] == sent[16..];
        ensure!(same && batch.header().base_offset.get() == base, "it is not served as it was sent");
        let (header, bytes) = (*batch.header(), batch.bytes().clone());
        self.laid.push(Laid { file: Default::default(), position: 0, header, bytes, is_whole: true });
        Ok(())
    }
}

fn without_epoch(bytes: &[u8]) -> (&[u8], &[u8]) {
    (&bytes[..EPOCH.start], &bytes[EPOCH.end..])
}

/// The offsets that a broker's log names as lost, by the directories of their partitions.
fn named_offsets(log: &str) -> BTreeMap<String, BTreeSet<i64>> {
    let mut named: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("are lost and quarantined")) {
        let range = || {
            let words = line.split_once("offsets ")?.1;
            let (from, rest) = words.split_once(" to ")?;
            let (to, _) = rest.split_once(' ')?;
            Some(from.parse::<i64>().ok()?..=to.parse::<i64>().ok()?)
        };
        let folder = line.split("file=").nth(1).and_then(|file| file.split('/').rev().nth(1));
        if let (Some(folder), Some(range)) = (folder, range()) {
            named.entry(folder.to_owned()).or_default().extend(range);
        }
    }
    named
}

/// Where a group's commits are: Java's `hashCode` modulo 50.
fn partition_of(group: &str) -> i32 {
    let hash = group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    (hash & i32::MAX) % 50
}
