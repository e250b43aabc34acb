//! `segment info`: what segments are like, on one screen.
//!
//! Every header is read. Of the records a sample is decoded, evenly over the files, or all with `--full`; the output
//! says which. Damage is counted and stepped over.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, Result};
use highwater_record::TimestampMs;
use highwater_storage::{Crcs, DamageKind, Piece, SalvageScan};
use serde_json::{Map, Value, json};

use super::files::{PartitionFiles, SegmentFile};
use super::parallel::{self, Sink};
use super::progress::Progress;
use super::stats::{ProducerStats, Stats};
use crate::failure::PROBLEMS;
use crate::output::{OutputFormat, Rows, note};
use crate::time;

/// Bytes of batches that are decoded for a sample.
const SAMPLE_BYTES: u64 = 64 << 20;
/// Producers that are shown in the table.
const PRODUCERS_SHOWN: usize = 5;

/// How many batches are decoded: every one, or every so many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sampling(NonZero<u64>);

impl Sampling {
    /// Everything.
    pub(super) const FULL: Self = Self(NonZero::<u64>::MIN);

    /// As many batches of `bytes` as are worth the time.
    pub(super) fn of(bytes: u64) -> Self {
        Self(NonZero::new(bytes.div_ceil(SAMPLE_BYTES)).unwrap_or(NonZero::<u64>::MIN))
    }
}

/// Counts and prints.
pub(super) fn run(partitions: &[PartitionFiles], is_full: bool, output: OutputFormat) -> Result<ExitCode> {
    let bytes = partitions.iter().flat_map(|partition| &partition.segments).map(SegmentFile::bytes).sum();
    let sampling = if is_full { Sampling::FULL } else { Sampling::of(bytes) };
    let stats = count(partitions, sampling, time::now())?;
    let object = object(&stats, partitions, sampling);
    match output {
        OutputFormat::Table => screen(&object).print(output)?,
        OutputFormat::Json => crate::output::print_line(&serde_json::to_string_pretty(&object)?)?,
        OutputFormat::Jsonl => crate::output::print_line(&object.to_string())?,
    }
    if stats.damages > 0 || stats.decoded.failed > 0 {
        note("there is damage; `highwater segment verify` names it");
        return Ok(ExitCode::from(PROBLEMS));
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts the segments of all partitions.
pub(super) fn count(partitions: &[PartitionFiles], sampling: Sampling, now: TimestampMs) -> Result<Stats> {
    let pieces: Vec<(&PartitionFiles, &SegmentFile)> = (partitions.iter())
        .flat_map(|partition| partition.segments.iter().map(move |segment| (partition, segment)))
        .collect();
    let progress = Progress::new("read", pieces.iter().map(|(_, segment)| segment.bytes()).sum());
    let work = |(partition, segment): &(&PartitionFiles, &SegmentFile), sink: &Sink<Stats>| {
        let is_live = partition.owner.is_some() && segment.next_base.is_none();
        let counted = segment_stats(segment, is_live, sampling, now);
        let counted = counted.with_context(|| format!("read {}", segment.path.display()))?;
        progress.add(counted.bytes);
        let _ = sink.put(counted);
        Ok(())
    };
    let mut stats = Stats::default();
    parallel::in_order(&pieces, parallel::cores(), work, |_, counted| {
        stats.merge(&counted);
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    Ok(stats)
}

fn segment_stats(
    segment: &SegmentFile,
    is_live: bool,
    sampling: Sampling,
    now: TimestampMs,
) -> Result<Stats> {
    let mut scan = SalvageScan::open(&segment.path, segment.base, segment.next_base, Crcs::Left)?;
    let mut stats = Stats { segments: 1, bytes: scan.end_position(), ..Stats::default() };
    let mut expected = segment.base;
    while let Some(piece) = scan.next() {
        let batch = match piece? {
            Piece::Good(batch) => batch,
            Piece::Damaged(damage) => {
                let is_tail = damage.kind != DamageKind::Middle;
                let is_preallocated = damage.kind == DamageKind::ZeroTail && segment.next_base.is_none();
                if !(is_tail && is_live || is_preallocated) {
                    stats.damage(&damage);
                }
                expected = damage.to.max(damage.from);
                continue;
            }
        };
        let header = &batch.header;
        if header.base_offset > expected {
            stats.gap(header.base_offset.since(expected));
        }
        expected = header.next_offset();
        let is_sampled = stats.batches % sampling.0 == 0;
        stats.header(&batch, now);
        if is_sampled || header.attributes.is_control() {
            match scan.read(&batch) {
                Ok(whole) if header.attributes.is_control() => stats.markers(&whole),
                Ok(whole) => stats.records(&whole),
                Err(_) => stats.decoded.failed += 1,
            }
        }
    }
    if let Some(next) = segment.next_base.filter(|next| *next > expected) {
        stats.gap(next.since(expected));
    }
    Ok(stats)
}

/// The counts as JSON: names are stable, nothing is a string that is a number.
pub(super) fn object(stats: &Stats, partitions: &[PartitionFiles], sampling: Sampling) -> Value {
    let decoded = &stats.decoded;
    let ratio = decoded.decoded_bytes as f64 / decoded.stored_bytes as f64;
    let sizes: Map<String, Value> = (stats.sizes.iter().enumerate())
        .filter(|(_, count)| **count > 0)
        .map(|(class, count)| (format!("<{}", 1u64 << class), json!(count)))
        .collect();
    let producers: Vec<Value> =
        stats.producers.iter().map(|(id, producer)| producer_object(*id, producer)).collect();
    let moment = |timestamp: Option<TimestampMs>| json!(timestamp.map(time::readable));
    json!({
        "partitions": partitions.len(),
        "segments": stats.segments,
        "bytes": stats.bytes,
        "batches": stats.batches,
        "records": stats.records,
        "batch_bytes": sizes,
        "codecs": stats.codecs,
        "decoded": {
            "which": if sampling == Sampling::FULL { "all batches".to_owned() } else { format!("every {}th batch", sampling.0) },
            "batches": decoded.batches,
            "failed": decoded.failed,
            "records": decoded.records,
            "stored_bytes": decoded.stored_bytes,
            "decoded_bytes": decoded.decoded_bytes,
            "compression_ratio": ratio.is_finite().then_some((ratio * 1000.0).round() / 1000.0),
            "distinct_keys_about": decoded.keys.estimate(),
            "null_keys": decoded.null_keys,
            "null_values": decoded.null_values,
            "records_with_headers": decoded.with_headers,
            "headers": decoded.headers,
        },
        "first_ts": moment(stats.times.first),
        "last_ts": moment(stats.times.last),
        "batches_back_in_time": stats.times.backwards,
        "largest_step_back_ms": stats.times.largest_step_ms,
        "batches_in_the_future": stats.times.future,
        "offset_gaps": stats.gaps,
        "offsets_in_gaps": stats.gap_offsets,
        "transactional_batches": stats.transactional,
        "control_batches": stats.control,
        "commit_markers": stats.commits,
        "abort_markers": stats.aborts,
        "damages": stats.damages,
        "damaged_bytes": stats.damaged_bytes,
        "producers": producers,
        "batches_of_more_producers": stats.more_producers,
    })
}

fn producer_object(id: i64, producer: &ProducerStats) -> Value {
    json!({
        "id": id,
        "epoch_min": producer.epochs.map(|epochs| epochs.0),
        "epoch_max": producer.epochs.map(|epochs| epochs.1),
        "sequence_first": producer.sequences.map(|sequences| sequences.0),
        "sequence_last": producer.sequences.map(|sequences| sequences.1),
        "batches": producer.batches,
        "transactional": producer.is_transactional,
    })
}

/// The same for people: a line for each, maps and lists in one.
fn screen(object: &Value) -> Rows {
    let mut rows = Rows::new(&["what", "value"]);
    let pairs = |map: &Map<String, Value>| {
        map.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("  ")
    };
    for (name, value) in object.as_object().into_iter().flatten() {
        let text = match value {
            Value::Object(map) if name == "decoded" => {
                for (name, value) in map {
                    rows.push(vec![json!(format!("decoded {}", name.replace('_', " "))), value.clone()]);
                }
                continue;
            }
            Value::Object(map) => json!(pairs(map)),
            Value::Array(producers) => {
                for producer in producers.iter().take(PRODUCERS_SHOWN) {
                    rows.push(vec![json!("producer"), json!(producer.as_object().map(pairs))]);
                }
                json!(producers.len())
            }
            other => other.clone(),
        };
        rows.push(vec![json!(name.replace('_', " ")), text]);
    }
    rows
}
