//! A campaign: several producers and a consumer at work on one topic while the test breaks something.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow, bail};
use tempfile::TempDir;

use super::client::{Connection, is_lost_connection};
use super::gate::{Gate, Order, STUCK};
use super::history::{History, Placed, Verdict, check};
use super::producer::{Kind, Plan, Sent, Session};
use super::reader::{placed, read_all, split};

/// The topic of every campaign.
pub(crate) const TOPIC: &str = "campaign";
/// Its partitions.
const PARTITIONS: i32 = 4;
/// Largest size of a value, in bytes: segments of 1 MiB roll every few seconds.
const VALUE_BYTES_MAX: u64 = 2048;
/// The idempotent sessions; one plain session comes on top.
const IDEMPOTENT_SESSIONS: u32 = 3;

/// Producers and a consumer at work.
pub(crate) struct Campaign {
    pub(crate) gate: Arc<Gate>,
    address: SocketAddr,
    sessions: Vec<JoinHandle<anyhow::Result<Sent>>>,
    consumer: JoinHandle<anyhow::Result<Vec<Placed>>>,
}

impl Campaign {
    /// Creates the topic and sets everybody to work.
    pub(crate) fn start(address: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        Connection::open(address)?.create_topic(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")])?;
        let gate = Arc::new(Gate::new());
        let plan = Plan {
            address,
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            value_bytes_max: VALUE_BYTES_MAX,
        };
        let sessions = (0..=IDEMPOTENT_SESSIONS)
            .map(|id| {
                let kind = if id == 0 { Kind::Plain } else { Kind::Idempotent };
                let seed = seed.wrapping_mul(16).wrapping_add(u64::from(id));
                let session = Session::new(id, kind, plan.clone(), Arc::clone(&gate), seed);
                std::thread::spawn(move || session.run())
            })
            .collect();
        let watched = Arc::clone(&gate);
        let consumer = std::thread::spawn(move || {
            let seen = consume(address, &watched);
            if seen.is_err() {
                watched.fail();
            }
            seen
        });
        Ok(Self { gate, address, sessions, consumer })
    }

    /// Ends the work when all that was sent is acknowledged, and holds the log against what everybody knows.
    pub(crate) fn finish(self) -> anyhow::Result<Verdict> {
        let address = self.address;
        let history = self.end(Order::Finish)?;
        Ok(check(&history, &read_all(address, TOPIC, PARTITIONS)?))
    }

    /// Ends the work at once; what everybody knows.
    pub(crate) fn abandon(self) -> anyhow::Result<History> {
        self.end(Order::Abandon)
    }

    fn end(self, order: Order) -> anyhow::Result<History> {
        self.gate.give(order);
        let mut history = History { idempotent: (1..=IDEMPOTENT_SESSIONS).collect(), ..History::default() };
        for session in self.sessions {
            let sent = session.join().map_err(|_| anyhow!("a session panicked"))??;
            history.acked.extend(sent.acked);
            history.unknown.extend(sent.unknown);
        }
        // The consumer goes on until the producers have ended.
        self.gate.give(Order::Abandon);
        history.seen =
            self.consumer.join().map_err(|_| anyhow!("the consumer panicked"))?.context("consumer")?;
        Ok(history)
    }
}

/// Everything in the campaign's topic.
pub(crate) fn read_topic(address: SocketAddr) -> anyhow::Result<Vec<Placed>> {
    read_all(address, TOPIC, PARTITIONS)
}

/// Reads all partitions as they grow, through restarts, until the campaign is over; every record as it was seen.
fn consume(address: SocketAddr, gate: &Gate) -> anyhow::Result<Vec<Placed>> {
    let mut seen = Vec::new();
    let mut offsets = vec![0; PARTITIONS as usize];
    while gate.order() != Order::Abandon {
        let incarnation = gate.incarnation();
        let connected = Connection::open(address);
        let reached = connected.is_ok();
        match connected.and_then(|connection| consume_on(connection, gate, &mut offsets, &mut seen)) {
            Ok(()) => {}
            Err(error) if is_lost_connection(&error) => {
                if (!reached || gate.is_dark()) && !gate.wait_past(incarnation, STUCK) {
                    bail!("the broker is not reachable and was not started again within {STUCK:?}");
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(seen)
}

fn consume_on(
    mut connection: Connection,
    gate: &Gate,
    offsets: &mut [i64],
    seen: &mut Vec<Placed>,
) -> std::io::Result<()> {
    let invalid = |error: anyhow::Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    while gate.order() != Order::Abandon {
        for (partition, offset) in (0..).zip(offsets.iter_mut()) {
            let data = connection.fetch(TOPIC, partition, *offset)?;
            if gate.is_dark() {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            // While a partition recovers, or after a crash that took it back, there is nothing to see. What was
            // seen before is compared in the end.
            if data.error_code != 0 {
                continue;
            }
            for batch in split(data.records.bytes().cloned().unwrap_or_default()).map_err(invalid)? {
                let records = placed(&batch, partition).map_err(invalid)?;
                seen.extend(records.into_iter().filter(|record| record.offset >= *offset));
                *offset = batch.header().next_offset().get();
            }
        }
    }
    Ok(())
}

/// Runs one trial in a directory of its own, which is kept if the trial fails or its verdict is not clean.
pub(crate) fn trial(
    name: &str,
    seed: u64,
    body: impl FnOnce(&Path, u64) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    let directory = TempDir::with_prefix("highwater-trial-")?;
    let failure = match body(directory.path(), seed) {
        Ok(verdict) if verdict.is_clean() => return Ok(verdict),
        Ok(verdict) => verdict.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let kept = directory.keep();
    bail!("{name} with HIGHWATER_SEED={seed}: {failure}; the data directory is kept in {}", kept.display())
}
