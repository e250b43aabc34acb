//! Which offsets are lost, kept in the metadata: a lost range is remembered although nothing but the damage shows it.
//!
//! Storage finds the ranges and serves around them; here they are written down when they become known, looked at again
//! after a start, and forgotten when what was damaged has been read or is no longer part of its log: a range that the
//! disk does not let anybody read is still lost. Their ends also keep a log from using an offset twice (`log_opener`).
//! Knows no protocol.

use highwater_record::Offset;
use highwater_storage::{FirstBatch, LogView, ReadError};
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::meta::{LostRecord, MetadataError};
use crate::partition::Partition;
use crate::topics::Topic;

/// How much is read at once to see whether a range is damaged still.
const PIECE_BYTES: u32 = 1 << 20;

/// The ranges of one partition that were read through since the start, so that what is not found lost of them is not.
#[derive(Default)]
pub(crate) struct Reread(Mutex<Vec<LostRecord>>);

impl Reread {
    fn note(&self, lost: LostRecord) {
        self.0.lock().push(lost);
    }

    fn has(&self, lost: &LostRecord) -> bool {
        self.0.lock().contains(lost)
    }
}

/// Writes down what was found since the last time. Blocks on the disk.
pub(crate) fn keep(broker: &Broker) {
    if broker.metadata.read_only().is_some() {
        return;
    }
    // A topic that is deleted meanwhile would leave its ranges behind.
    let _one_at_a_time = broker.topic_changes.lock();
    for topic in broker.topics.all() {
        for partition in &topic.partitions {
            if let Err(error) = keep_one(broker, &topic, partition) {
                tracing::error!(partition = %partition.id(), %error, "cannot write down which offsets are lost; it is tried again");
            }
        }
    }
}

fn keep_one(broker: &Broker, topic: &Topic, partition: &Partition) -> Result<(), MetadataError> {
    let Some(view) = partition.view_if_open() else { return Ok(()) };
    let kept = broker.metadata.lost(topic.id, partition.id().partition)?;
    if !view.is_damaged() && kept.is_empty() {
        return Ok(());
    }
    let mut lost: Vec<LostRecord> = view.quarantined().iter().map(LostRecord::of).collect();
    let (start, end) = (view.log_start().get(), view.end().offset.get());
    let covers = |found: &LostRecord, from, to| found.from <= from && to <= found.to;
    for unread in kept.iter().filter(|kept| !partition.reread.has(kept)) {
        let (from, to) = (unread.from.max(start), unread.to.min(end));
        if from < to && !lost.iter().any(|found| covers(found, from, to)) {
            lost.push(unread.clone());
        }
    }
    lost.sort_by_key(|lost| lost.from);
    if lost == kept {
        return Ok(());
    }
    for gone in kept.iter().filter(|kept| !lost.iter().any(|lost| kept.from < lost.to && lost.from < kept.to))
    {
        tracing::warn!(
            partition = %partition.id(), from = gone.from, to = gone.to, file = gone.file,
            "offsets that were lost are so no longer: their file can be read again, or the log begins after them"
        );
    }
    broker.metadata.set_lost(topic.id, partition.id().partition, &lost)
}

/// Reads every range that was kept, so that what is still damaged is known before somebody asks for it. Blocks on the
/// disk.
pub(crate) fn look_again(broker: &Broker) {
    for topic in broker.topics.all() {
        for partition in &topic.partitions {
            let kept = broker.metadata.lost(topic.id, partition.id().partition).unwrap_or_else(|error| {
                tracing::error!(partition = %partition.id(), %error, "cannot read which offsets were lost");
                Vec::new()
            });
            if kept.is_empty() {
                continue;
            }
            let Ok(view) = partition.open_view() else { continue };
            for lost in kept {
                match read_through(view, &lost) {
                    Ok(()) => partition.reread.note(lost),
                    Err(error) => {
                        tracing::warn!(
                            partition = %partition.id(), from = lost.from, to = lost.to, %error,
                            "cannot read what was lost; it is remembered, and the next start tries again"
                        );
                    }
                }
            }
        }
    }
}

/// Reads a range, whatever of it there is.
fn read_through(view: &LogView, lost: &LostRecord) -> Result<(), ReadError> {
    let bound = |raw| Offset::new(raw).unwrap_or_default();
    let (mut at, end) = (bound(lost.from).max(view.log_start()), bound(lost.to).min(view.end().offset));
    while at < end {
        at = match view.read(at, PIECE_BYTES, end, FirstBatch::Whole) {
            Ok(chunk) if chunk.next_offset > at => chunk.next_offset,
            Ok(_) => return Ok(()),
            Err(ReadError::Quarantined(range)) => range.to,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// How many ranges are lost, and offsets in them.
pub(crate) fn count(broker: &Broker) -> (usize, u64) {
    let (mut ranges, mut offsets) = (0, 0);
    for topic in broker.topics.all() {
        for view in topic.partitions.iter().filter_map(|partition| partition.view_if_open()) {
            if view.is_damaged() {
                let lost = view.quarantined();
                ranges += lost.len();
                offsets += lost.iter().map(|range| range.to.since(range.from)).sum::<u64>();
            }
        }
    }
    (ranges, offsets)
}
