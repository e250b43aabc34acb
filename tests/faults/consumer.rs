//! A consumer that is assigned all partitions and reads them as they grow, through restarts.
//!
//! It keeps every record in the order in which it was given; what a broker gives that was not asked for is kept too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use highwater_protocol::api::fetch::PartitionData;

use super::client::{Connection, is_lost_connection};
use super::gate::{Gate, STUCK};
use super::history::Placed;
use super::reader::{placed, split};

/// One consumer.
pub(crate) struct Consumer {
    address: SocketAddr,
    topic: String,
    gate: Arc<Gate>,
    offsets: Vec<i64>,
    polled: Vec<Placed>,
    progressed_at: Instant,
}

impl Consumer {
    /// A consumer that has read nothing.
    pub(crate) fn new(address: SocketAddr, topic: &str, partitions: i32, gate: Arc<Gate>) -> Self {
        let offsets = vec![0; partitions as usize];
        let topic = topic.to_owned();
        Self { address, topic, gate, offsets, polled: Vec::new(), progressed_at: Instant::now() }
    }

    /// Reads until it has read all that there will be, or the campaign is abandoned; what it was given.
    pub(crate) fn run(mut self) -> anyhow::Result<Vec<Placed>> {
        let read = self.read_through_restarts();
        if read.is_err() {
            self.gate.fail();
        }
        read.context("consumer").map(|()| self.polled)
    }

    fn read_through_restarts(&mut self) -> anyhow::Result<()> {
        while !self.gate.has_read_all(&self.offsets) {
            let incarnation = self.gate.incarnation();
            let connected = Connection::watched(self.address, &self.gate);
            let reached = connected.is_ok();
            match connected.and_then(|connection| self.read_on(connection)) {
                Ok(()) => {}
                Err(error) if is_lost_connection(&error) => {
                    if (!reached || self.gate.is_dark()) && !self.gate.wait_past(incarnation, STUCK) {
                        bail!("the broker is not reachable and was not started again within {STUCK:?}");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_on(&mut self, mut connection: Connection) -> io::Result<()> {
        self.progressed_at = Instant::now();
        while !self.gate.has_read_all(&self.offsets) {
            self.gate.wait_while_frozen();
            let wanted: Vec<(i32, i64)> = (0..).zip(self.offsets.iter().copied()).collect();
            for data in connection.poll(&self.topic, &wanted)? {
                self.take(data).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            if !self.gate.is_read_out() {
                self.progressed_at = Instant::now();
            } else if self.progressed_at.elapsed() > STUCK {
                let sentence = format!("nothing more than {:?} came for {STUCK:?}: stuck", self.offsets);
                return Err(io::Error::new(io::ErrorKind::TimedOut, sentence));
            }
        }
        Ok(())
    }

    /// Keeps what came from one partition.
    fn take(&mut self, data: PartitionData) -> anyhow::Result<()> {
        // While a partition recovers, or after a crash that took it back, there is nothing to see. What was seen
        // before is compared in the end.
        if data.error_code != 0 {
            return Ok(());
        }
        let offset =
            self.offsets.get_mut(data.partition_index as usize).context("a partition of the topic")?;
        for batch in split(data.records.bytes().cloned().unwrap_or_default())? {
            // A batch that holds the offset may begin before it. One that ends before it was not asked for.
            let next = batch.header().next_offset().get();
            let wanted = if next > *offset { *offset } else { 0 };
            let records = placed(&batch, data.partition_index)?;
            self.polled.extend(records.into_iter().filter(|record| record.offset >= wanted));
            *offset = next;
            self.progressed_at = Instant::now();
        }
        Ok(())
    }
}
