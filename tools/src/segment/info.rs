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
use super::stats::{ProducerStats, RecordStats, Stats};
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
    let object = || object(&stats, partitions, sampling);
    match output {
        OutputFormat::Table => screen(facts(&stats, partitions, sampling)).print(output)?,
        OutputFormat::Json => crate::output::print_line(&serde_json::to_string_pretty(&object())?)?,
        OutputFormat::Jsonl => crate::output::print_line(&object().to_string())?,
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
    facts(stats, partitions, sampling).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The counts in the order of the screen.
fn facts(stats: &Stats, partitions: &[PartitionFiles], sampling: Sampling) -> Vec<(&'static str, Value)> {
    let sizes: Vec<Value> = (stats.sizes.iter().enumerate())
        .filter(|(_, count)| **count > 0)
        .map(|(class, count)| json!({"below": 1u64 << class, "batches": count}))
        .collect();
    let producer = |(id, producer): (&i64, &ProducerStats)| producer_object(*id, producer);
    let moment = |timestamp: Option<TimestampMs>| json!(timestamp.map(time::readable));
    let times = &stats.times;
    vec![
        ("partitions", json!(partitions.len())),
        ("segments", json!(stats.segments)),
        ("bytes", json!(stats.bytes)),
        ("batches", json!(stats.batches)),
        ("records", json!(stats.records)),
        ("batch_bytes", json!(sizes)),
        ("codecs", json!(stats.codecs)),
        ("first_ts", moment(times.first)),
        ("last_ts", moment(times.last)),
        ("batches_back_in_time", json!(times.backwards)),
        ("largest_step_back_ms", json!(times.largest_step_ms)),
        ("batches_in_the_future", json!(times.future)),
        ("offset_gaps", json!(stats.gaps)),
        ("offsets_in_gaps", json!(stats.gap_offsets)),
        ("damages", json!(stats.damages)),
        ("damaged_bytes", json!(stats.damaged_bytes)),
        ("transactional_batches", json!(stats.transactional)),
        ("control_batches", json!(stats.control)),
        ("commit_markers", json!(stats.commits)),
        ("abort_markers", json!(stats.aborts)),
        ("producers", stats.producers.iter().map(producer).collect()),
        ("batches_of_more_producers", json!(stats.more_producers)),
    ]
    .into_iter()
    .chain(decoded_facts(&stats.decoded, sampling))
    .collect()
}

/// What is known of records.
fn decoded_facts(decoded: &RecordStats, sampling: Sampling) -> [(&'static str, Value); 12] {
    let ratio = decoded.decoded_bytes as f64 / decoded.stored_bytes as f64;
    let which = match sampling {
        Sampling::FULL => "all batches".to_owned(),
        Sampling(step) => format!("one of {step} batches"),
    };
    [
        ("decoded", json!(which)),
        ("decoded_batches", json!(decoded.batches)),
        ("decoded_records", json!(decoded.records)),
        ("decode_failures", json!(decoded.failed)),
        ("stored_bytes", json!(decoded.stored_bytes)),
        ("decoded_bytes", json!(decoded.decoded_bytes)),
        ("compression_ratio", json!(ratio.is_finite().then_some((ratio * 1000.0).round() / 1000.0))),
        ("distinct_keys_about", json!(decoded.keys.estimate())),
        ("null_keys", json!(decoded.null_keys)),
        ("null_values", json!(decoded.null_values)),
        ("records_with_headers", json!(decoded.with_headers)),
        ("headers", json!(decoded.headers)),
    ]
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

/// The same for people: a line for each, maps in one.
fn screen(facts: Vec<(&'static str, Value)>) -> Rows {
    let mut rows = Rows::new(&["what", "value"]);
    let pairs = |map: &Map<String, Value>| {
        map.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("  ")
    };
    for (name, value) in facts {
        let what = json!(name.replace('_', " "));
        match value {
            Value::Object(map) => rows.push(vec![what, json!(pairs(&map))]),
            Value::Array(sizes) if name == "batch_bytes" => {
                let sizes = sizes.iter().map(|size| format!("<{}: {}", size["below"], size["batches"]));
                rows.push(vec![what, json!(sizes.collect::<Vec<_>>().join("  "))]);
            }
            Value::Array(producers) => {
                rows.push(vec![what, json!(producers.len())]);
                for producer in producers.iter().take(PRODUCERS_SHOWN) {
                    rows.push(vec![json!("producer"), json!(producer.as_object().map(pairs))]);
                }
            }
            value => rows.push(vec![what, value]),
        }
    }
    rows
}
