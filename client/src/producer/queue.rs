//! The batches of one partition that are not yet in flight: one open, the others closed, in their order.
//!
//! Filled by callers, emptied by the partition's sender. This file knows no broker.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use highwater_record::{BatchBuilder, NewRecord, TopicPartition};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::{
    Delivery, Outcome, PartitionSummary, ProduceError, ProducerConfig, RECORD_OVERHEAD_BYTES, SendError,
    lock, record_bytes,
};

/// The batches that wait, and what became of those before them.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    open: Option<Batch>,
    closed: VecDeque<Batch>,
    finishing: bool,
    given_up: Option<ProduceError>,
    summary: PartitionSummary,
}

/// A batch without a sequence.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) builder: BatchBuilder,
    pub(super) born: Instant,
    pub(super) receipt: Receipt,
}

/// Who is told about a batch, and what it holds of the buffer.
#[derive(Debug)]
pub(super) struct Receipt {
    records: u32,
    done: watch::Sender<Option<Outcome>>,
    permit: OwnedSemaphorePermit,
}

/// What a sender finds.
#[derive(Debug)]
pub(super) enum Next {
    /// A batch to send.
    Batch(Box<Batch>),
    /// Nothing before this time, unless it is woken.
    Later(Instant),
    /// Nothing, unless it is woken.
    Nothing,
    /// Nothing any more.
    End,
}

impl Queue {
    pub(super) fn new(partition: TopicPartition) -> Self {
        let summary =
            PartitionSummary { partition, records: 0, first: None, last: None, failed: 0, error: None };
        let state = State { open: None, closed: VecDeque::new(), finishing: false, given_up: None, summary };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    pub(super) fn partition(&self) -> TopicPartition {
        lock(&self.state).summary.partition.clone()
    }

    /// Puts a record into the open batch, or into a new one if it is full.
    pub(super) fn append(
        &self,
        record: &NewRecord<'_>,
        permit: OwnedSemaphorePermit,
        config: &ProducerConfig,
    ) -> Result<Delivery, SendError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.given_up {
            return Err(SendError::Failed(error.clone()));
        }
        let size = record_bytes(record) - RECORD_OVERHEAD_BYTES;
        let is_full = |batch: &Batch| batch.builder.plain_bytes().saturating_add(size) > config.batch_bytes;
        if state.open.as_ref().is_some_and(is_full) {
            state.close();
        }
        // It is refused if its timestamp is too far from the first one's.
        let joined = match &mut state.open {
            Some(open) => open.builder.append(record).is_ok(),
            None => false,
        };
        let receipt = match &mut state.open {
            Some(open) if joined => {
                open.receipt.permit.merge(permit);
                None
            }
            _ => Some(Receipt::new(permit)),
        };
        if let Some(receipt) = receipt {
            let mut builder = BatchBuilder::new(config.codec);
            builder.append(record)?;
            state.close();
            state.open = Some(Batch { builder, born: Instant::now(), receipt });
        }
        let partition = state.summary.partition.clone();
        let open = state.open.as_mut().expect("a batch is open since the record is in it");
        let delivery = open.receipt.add(partition);
        let full = open.builder.plain_bytes() >= config.batch_bytes;
        if full {
            state.close();
        }
        drop(state);
        if !joined || full {
            self.wake.notify_one();
        }
        Ok(delivery)
    }

    /// Lets the open batch go without waiting for more.
    pub(super) fn close_batch(&self) {
        lock(&self.state).close();
        self.wake.notify_one();
    }

    /// Lets everything go and says that nothing follows.
    pub(super) fn finish(&self) {
        let mut state = lock(&self.state);
        state.close();
        state.finishing = true;
        drop(state);
        self.wake.notify_one();
    }

    /// The next batch, if one is due at `now`.
    pub(super) fn next(&self, now: Instant, linger: Duration) -> Next {
        let mut state = lock(&self.state);
        if let Some(batch) = state.closed.pop_front() {
            return Next::Batch(Box::new(batch));
        }
        match state.open.take() {
            Some(batch) if batch.born + linger <= now => Next::Batch(Box::new(batch)),
            Some(batch) => {
                let due = batch.born + linger;
                state.open = Some(batch);
                Next::Later(due)
            }
            None if state.finishing => Next::End,
            None => Next::Nothing,
        }
    }

    /// Returns when something changed since the last time.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells those who wait for a batch, and counts it.
    pub(super) fn complete(&self, receipt: Receipt, outcome: Outcome) {
        let mut state = lock(&self.state);
        state.count(&receipt, &outcome);
        drop(state);
        receipt.done.send_replace(Some(outcome));
        drop(receipt.permit);
    }

    /// Gives up: everything that waits fails with `error`, and whatever follows.
    pub(super) fn give_up(&self, error: &ProduceError) {
        let mut state = lock(&self.state);
        state.close();
        state.given_up = Some(error.clone());
        let waiting = std::mem::take(&mut state.closed);
        for batch in &waiting {
            state.count(&batch.receipt, &Err(error.clone()));
        }
        drop(state);
        for batch in waiting {
            batch.receipt.done.send_replace(Some(Err(error.clone())));
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        lock(&self.state).summary.error.is_some()
    }

    pub(super) fn summary(&self) -> PartitionSummary {
        lock(&self.state).summary.clone()
    }
}

impl State {
    fn close(&mut self) {
        self.closed.extend(self.open.take());
    }

    fn count(&mut self, receipt: &Receipt, outcome: &Outcome) {
        let summary = &mut self.summary;
        match outcome {
            Ok(base) => {
                let last = base.map(|base| base.advance(u64::from(receipt.records).saturating_sub(1)));
                summary.records += u64::from(receipt.records);
                summary.first = summary.first.or(*base);
                summary.last = summary.last.max(last);
            }
            Err(error) => {
                summary.failed += u64::from(receipt.records);
                summary.error.get_or_insert_with(|| error.clone());
            }
        }
    }
}

impl Receipt {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { records: 0, done: watch::Sender::new(None), permit }
    }

    /// The receipt of one more record.
    fn add(&mut self, partition: TopicPartition) -> Delivery {
        let index = self.records;
        self.records += 1;
        Delivery { partition, index, batch: self.done.subscribe() }
    }

    /// How many records it is for.
    pub(super) const fn records(&self) -> u32 {
        self.records
    }
}
