//! Batches, configurations and a log that is easy to open again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_record::{
    Attributes, Batch, BatchHeader, Codec, DecodeLimits, HEADER_BYTES, LeaderEpoch, Offset, Producer,
    ProducerEpoch, ProducerId, Sequence, TimestampMs, TimestampType,
};

use crate::{
    DiskFiles, FileLayer, FirstBatch, Log, LogCheckpoint, LogConfig, ReadError, Recovery, SimFiles,
    SyncOutcome,
};

/// As far as any batch of these tests goes.
pub(super) const DECODE_LIMITS: DecodeLimits = DecodeLimits::STORED;

pub(super) const NOW: TimestampMs = TimestampMs(1_000_000);

/// How many cases of a property are tried, as `HIGHWATER_TRIALS` says: `pr`, which is the default, `nightly`, `release`,
/// or a number.
pub(super) fn cases(pr: u32, nightly: u32, release: u32) -> u32 {
    match std::env::var("HIGHWATER_TRIALS").as_deref() {
        Err(_) | Ok("pr") => pr,
        Ok("nightly") => nightly,
        Ok("release") => release,
        Ok(number) => number.parse().expect("HIGHWATER_TRIALS is pr, nightly, release or a number"),
    }
}

pub(super) fn offset(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

pub(super) fn epoch(n: i32) -> LeaderEpoch {
    LeaderEpoch::new(n).unwrap()
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        segment_ms: 3_600_000,
        index_interval_bytes: 300,
        index_bytes_max: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        writeback: false,
        producer_expiry_ms: 86_400_000,
        compaction: None,
        topic_id: None,
    }
}

/// What a batch is made of. `len` is the size of each value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) count: u32,
    pub(super) len: usize,
    pub(super) fill: u8,
    pub(super) timestamp: i64,
    pub(super) producer: Option<(i64, i16, i32)>,
}

impl Default for Made {
    fn default() -> Self {
        Self { count: 1, len: 20, fill: b'v', timestamp: 1000, producer: None }
    }
}

/// An uncompressed batch as a client sends it: base offset 0, all records with the batch's timestamp.
pub(super) fn batch(made: Made) -> Batch {
    let mut records = Vec::new();
    for n in 0..made.count {
        let mut body = vec![0, 0];
        varint(&mut body, i64::from(n));
        varint(&mut body, -1);
        varint(&mut body, made.len as i64);
        body.extend(std::iter::repeat_n(made.fill, made.len));
        varint(&mut body, 0);
        varint(&mut records, body.len() as i64);
        records.extend(body);
    }
    let mut header = BatchHeader {
        base_offset: Offset::ZERO,
        size_bytes: (HEADER_BYTES + records.len()) as u32,
        leader_epoch: None,
        crc: 0,
        attributes: Attributes::new(Codec::None, TimestampType::CreateTime),
        last_offset_delta: made.count - 1,
        base_timestamp: TimestampMs(made.timestamp),
        max_timestamp: TimestampMs(made.timestamp),
        producer: made.producer.map(|(id, epoch, sequence)| Producer {
            id: ProducerId::new(id).unwrap(),
            epoch: ProducerEpoch::new(epoch).unwrap(),
            base_sequence: Sequence::new(sequence),
        }),
        record_count: made.count,
    };
    header.crc = header.compute_crc(&records);
    let mut bytes = BytesMut::from(&header.encode()[..]);
    bytes.extend_from_slice(&records);
    Batch::new(bytes.freeze()).unwrap()
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// `count` records with values of 20 bytes.
pub(super) fn records(count: u32) -> Batch {
    batch(Made { count, ..Made::default() })
}

/// A directory that a log lives in, on any file layer.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) files: Arc<dyn FileLayer>,
    pub(super) dir: PathBuf,
    pub(super) config: LogConfig,
    pub(super) known: Option<LogCheckpoint>,
}

impl Home {
    pub(super) fn sim() -> (Self, SimFiles) {
        let files = SimFiles::with_dir(Path::new("data"));
        (Self::on(Arc::new(files.clone()), Path::new("data")), files)
    }

    pub(super) fn disk(dir: &Path) -> Self {
        Self::on(Arc::new(DiskFiles), dir)
    }

    pub(super) fn on(files: Arc<dyn FileLayer>, data: &Path) -> Self {
        Self { files, dir: data.join("topic-0"), config: config(), known: None }
    }

    pub(super) fn open(&self) -> (Log, Recovery) {
        self.try_open().unwrap()
    }

    pub(super) fn try_open(&self) -> Result<(Log, Recovery), crate::OpenError> {
        Log::open(Arc::clone(&self.files), self.dir.clone(), self.config.clone(), self.known, NOW)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

pub(super) fn append(log: &mut Log, batch: &Batch) -> Offset {
    log.append(batch, epoch(1), NOW).unwrap().base_offset
}

/// Makes all of the log durable.
pub(super) fn sync(log: &mut Log) {
    if let Some(job) = log.begin_sync() {
        let result = job.run();
        assert!(matches!(log.finish_sync(job, result, epoch(1)), SyncOutcome::Durable(_)));
    }
}

/// All batches from `from` to the end, as a consumer would read them.
pub(super) fn read_all(log: &Log, from: Offset) -> Vec<Batch> {
    let view = log.view();
    let mut batches = Vec::new();
    let mut next = from;
    loop {
        let chunk = view.read(next, 1 << 20, Offset::MAX, FirstBatch::Whole).unwrap();
        if chunk.bytes == 0 {
            return batches;
        }
        assert!(chunk.next_offset > next);
        next = chunk.next_offset;
        let mut bytes = Vec::new();
        chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
        assert_eq!(bytes.len(), chunk.bytes as usize);
        batches.extend(split(bytes.into()));
    }
}

/// All batches that are not lost.
pub(super) fn read_all_readable(log: &Log) -> Vec<Batch> {
    let view = log.view();
    let (mut batches, mut next) = (Vec::new(), view.log_start());
    while next < view.end().offset {
        match view.read(next, 1 << 20, Offset::MAX, FirstBatch::Whole) {
            Ok(chunk) => {
                assert!(chunk.next_offset > next, "nothing at {next}");
                let mut bytes = Vec::new();
                chunk.ranges.iter().for_each(|range| range.copy_to(&mut bytes).unwrap());
                batches.extend(split(bytes.into()));
                next = chunk.next_offset;
            }
            Err(ReadError::Quarantined(range)) => next = range.to,
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    batches
}

/// The whole batches that bytes consist of.
pub(super) fn split(mut bytes: Bytes) -> Vec<Batch> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let size = BatchHeader::parse(&bytes).unwrap().size_bytes as usize;
        batches.push(Batch::new(bytes.split_to(size)).unwrap());
    }
    batches
}

/// First and last offset of each batch.
pub(super) fn spans(batches: &[Batch]) -> Vec<(i64, i64)> {
    batches.iter().map(|b| (b.header().base_offset.get(), b.header().last_offset().get())).collect()
}
