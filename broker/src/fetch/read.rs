//! Reading partitions for a fetch: whole batches as file ranges, up to the high watermark and within the limits.
//!
//! Knows neither sessions nor waiting. What is in memory is read where it is asked for; what the disk may have to be
//! waited for is read on the blocking pool.

use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::fetch::PartitionData;
use highwater_protocol::wire::Records;
use highwater_record::Offset;
use highwater_storage::{FileRange, FirstBatch, ReadError};

use super::set::{Ask, TopicKey};
use crate::memory::Memory;
use crate::metrics;
use crate::partition::Partition;

/// Up to here KAFKA_STORAGE_ERROR is not known and NOT_LEADER_OR_FOLLOWER stands for it.
const NO_STORAGE_ERROR_VERSION_MAX: i16 = 5;

/// One partition to read.
pub(crate) struct Wanted {
    pub(crate) slot: u32,
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
    pub(crate) ask: Ask,
    pub(crate) partition: Result<Arc<Partition>, ErrorCode>,
}

/// What was found in one partition.
pub(crate) struct Found {
    pub(crate) slot: u32,
    pub(crate) topic: TopicKey,
    pub(crate) data: PartitionData,
    /// What the deferred records of `data` stand for.
    pub(crate) ranges: Vec<FileRange>,
    /// Bytes that count towards the least number that the client waits for: those read, or the limit if it cut them.
    pub(crate) readable_bytes: u64,
    /// Whether a limit left something behind.
    pub(crate) cut: bool,
}

/// What one pass over partitions found.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) found: Vec<Found>,
    pub(crate) bytes: u64,
    pub(crate) readable_bytes: u64,
    pub(crate) failed: bool,
}

/// What shapes an answer besides the partitions.
#[derive(Clone, Copy)]
pub(crate) struct AnswerForm {
    pub(crate) version: i16,
    pub(crate) bytes_max: u32,
    pub(crate) read_committed: bool,
}

impl AnswerForm {
    /// What a failing disk is called in this version.
    const fn storage_error(self) -> ErrorCode {
        if self.version <= NO_STORAGE_ERROR_VERSION_MAX {
            ErrorCode::NotLeaderOrFollower
        } else {
            ErrorCode::KafkaStorageError
        }
    }
}

impl Found {
    /// Whether there are records.
    pub(crate) const fn has_records(&self) -> bool {
        matches!(self.data.records, Records::Deferred { .. })
    }

    /// Whether something is wrong with the partition.
    pub(crate) const fn failed(&self) -> bool {
        self.data.error_code != ErrorCode::None.code()
    }
}

/// Reads every partition: here if all is in memory, on the blocking pool if the disk may have to be waited for.
pub(crate) async fn read(wanted: Vec<Wanted>, form: AnswerForm, memory: &Memory) -> Reading {
    metrics::count_partitions_read(wanted.len());
    if wanted.iter().all(|wanted| is_hot(wanted, form)) {
        let reading = read_now(&wanted, form);
        if reading.found.iter().flat_map(|found| &found.ranges).all(FileRange::is_resident) {
            return reading;
        }
    }
    metrics::count_cold_fetch();
    let wanted: Arc<[Wanted]> = wanted.into();
    let _buffer = memory.cold_read().await;
    let pooled = tokio::task::spawn_blocking({
        let wanted = Arc::clone(&wanted);
        move || {
            let mut reading = read_now(&wanted, form);
            warm(&mut reading, form);
            reading
        }
    });
    pooled.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a read panicked");
        let found = wanted.iter().map(|wanted| {
            let mut found = nothing(wanted, form);
            fail(&mut found.data, ErrorCode::UnknownServerError);
            found
        });
        Reading { found: found.collect(), failed: true, ..Reading::default() }
    })
}

fn nothing(wanted: &Wanted, form: AnswerForm) -> Found {
    let data = PartitionData {
        partition_index: wanted.index,
        records: Records::Bytes(Bytes::new()),
        aborted_transactions: form.read_committed.then(Vec::new),
        ..PartitionData::default()
    };
    let (slot, topic) = (wanted.slot, wanted.topic.clone());
    Found { slot, topic, data, ranges: Vec::new(), readable_bytes: 0, cut: false }
}

fn is_hot(wanted: &Wanted, form: AnswerForm) -> bool {
    let (Ok(partition), Some(from)) = (&wanted.partition, Offset::new(wanted.ask.fetch_offset)) else {
        return true;
    };
    match partition.view_if_open() {
        Some(view) => view.is_hot(from, wanted.ask.bytes_max.min(form.bytes_max)),
        // Only what must be read is worth opening a log.
        None => partition.standing().map_or(true, |standing| !standing.has(from)),
    }
}

/// Brings every range into memory. What cannot be read is answered as an error of its partition alone.
fn warm(reading: &mut Reading, form: AnswerForm) {
    for found in &mut reading.found {
        let mut cold = found.ranges.iter().filter(|range| !range.is_resident());
        if let Err(error) = cold.try_for_each(FileRange::warm) {
            tracing::error!(partition = found.data.partition_index, %error, "cannot read from the disk");
            let lost: u64 = found.ranges.drain(..).map(|range| u64::from(range.len())).sum();
            fail(&mut found.data, form.storage_error());
            reading.bytes -= lost;
            reading.failed = true;
        }
    }
}

/// Reads every partition in order. The first batch of the answer may exceed the limits (KIP-74).
fn read_now(wanted: &[Wanted], form: AnswerForm) -> Reading {
    let mut reading = Reading { found: Vec::with_capacity(wanted.len()), ..Reading::default() };
    for wanted in wanted {
        let left = u64::from(form.bytes_max).saturating_sub(reading.bytes);
        let first = if reading.bytes == 0 { FirstBatch::Whole } else { FirstBatch::WithinLimit };
        let found = read_partition(wanted, u32::try_from(left).unwrap_or(u32::MAX), first, form);
        reading.bytes += found.ranges.iter().map(|range| u64::from(range.len())).sum::<u64>();
        reading.readable_bytes += found.readable_bytes;
        reading.failed |= found.failed();
        reading.found.push(found);
    }
    reading
}

fn read_partition(wanted: &Wanted, bytes_left: u32, first: FirstBatch, form: AnswerForm) -> Found {
    let mut found = nothing(wanted, form);
    match read_log(&mut found, wanted, bytes_left, first) {
        Ok(()) => {}
        Err(ErrorCode::KafkaStorageError) => fail(&mut found.data, form.storage_error()),
        Err(code) => fail(&mut found.data, code),
    }
    found
}

fn read_log(found: &mut Found, wanted: &Wanted, bytes_left: u32, first: FirstBatch) -> Result<(), ErrorCode> {
    let partition = wanted.partition.as_ref().map_err(|code| *code)?;
    let epoch = partition.leader_epoch().map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    crate::handler::check_epoch(epoch, wanted.ask.current_leader_epoch)?;
    let high_watermark = partition.high_watermark();
    found.data.high_watermark = high_watermark.get();
    found.data.last_stable_offset = high_watermark.get();
    let from = Offset::new(wanted.ask.fetch_offset);
    if partition.view_if_open().is_none() {
        let standing = partition.standing().map_err(|_| ErrorCode::NotLeaderOrFollower)?;
        if !from.is_some_and(|from| standing.has(from)) {
            found.data.log_start_offset = standing.log_start.get();
            // At the end there is nothing yet, which is no error.
            return if from == Some(standing.end) { Ok(()) } else { Err(ErrorCode::OffsetOutOfRange) };
        }
    }
    let view = partition.open_view().map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    found.data.log_start_offset = view.log_start().get();
    let from = from.ok_or(ErrorCode::OffsetOutOfRange)?;
    let bytes_max = wanted.ask.bytes_max.min(bytes_left);
    let chunk =
        view.read(from, bytes_max, high_watermark, first).map_err(|error| code_of(&error, partition))?;
    found.cut = chunk.next_offset < high_watermark;
    found.readable_bytes = u64::from(if found.cut { chunk.bytes.max(bytes_max) } else { chunk.bytes });
    if chunk.bytes > 0 {
        found.data.records = Records::Deferred { len: chunk.bytes };
        found.ranges = chunk.ranges;
    }
    Ok(())
}

/// An error says nothing else of its partition, as in Kafka.
fn fail(data: &mut PartitionData, code: ErrorCode) {
    data.error_code = code.code();
    data.high_watermark = -1;
    data.last_stable_offset = -1;
    data.log_start_offset = -1;
    data.records = Records::Bytes(Bytes::new());
}

fn code_of(error: &ReadError, partition: &Partition) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        // Not OFFSET_OUT_OF_RANGE, after which consumers jump silently, nor KAFKA_STORAGE_ERROR, which they repeat for
        // ever: this one reaches the application. The range itself was said loudly when it was found.
        ReadError::Quarantined(range) => {
            tracing::debug!(partition = %partition.id(), from = %range.from, to = %range.to, "refused a read");
            ErrorCode::CorruptMessage
        }
        // Deleted meanwhile: its files are gone.
        _ if partition.leader_epoch().is_err() => ErrorCode::NotLeaderOrFollower,
        _ => {
            tracing::error!(partition = %partition.id(), %error, "cannot read");
            ErrorCode::KafkaStorageError
        }
    }
}
