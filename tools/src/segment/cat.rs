//! `segment cat`: the records or the batches of segments, by the grammar and the formats of `consume`.
//!
//! Every batch whose records are printed has its checksum compared first. The first damage ends its partition, loudly:
//! a copy that has gaps is not to be taken for a whole one by mistake. `--skip-damaged` says what is lost and goes on. The
//! log is taken to begin where its files do: records below a log start that DeleteRecords moved are printed too.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use highwater_record::{Codec, EndOfTransaction, HEADER_BYTES, MessageFormat, RecordsBuf};
use highwater_storage::{Crcs, Damage, DamageKind, ScannedBatch};

use super::batches;
use super::files::{PartitionFiles, SegmentFile};
use super::hex;
use super::internal::{DecodeMode, Decoder, Decoders};
use super::isolation::Markers;
use super::span::{self, LIMITS};
use super::walk::{Step, Walk};
use crate::consume::SelectionArgs;
use crate::failure::PROBLEMS;
use crate::offset_spec::OffsetSpec;
use crate::output::note;
use crate::printer::Printer;
use crate::record_view::{LogState, RecordView};

const EXAMPLES: &str = "\
Examples:
  highwater segment cat highwater-data/orders-0 -o -10
  highwater segment cat highwater-data --topic orders -o @-1h: --output jsonl
  highwater segment cat highwater-data/orders-0/00000000000000000000.log -f '%o %k %v\\n'
  highwater segment cat /var/lib/kafka/__consumer_offsets-12      who committed what
  highwater segment cat /var/lib/kafka/orders-0 --batches         a row per batch, from its header
  highwater segment cat highwater-data/orders-0 -o 47 -n 1 --hex  the bytes of a record
";

/// The arguments of `segment cat`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = crate::consume::GRAMMAR)]
pub(super) struct CatArgs {
    #[command(flatten)]
    pub(super) paths: super::PathArgs,
    #[command(flatten)]
    pub(super) what: SelectionArgs,
    #[command(flatten)]
    pub(super) view: ViewArgs,
}

/// What is shown of the batches.
#[derive(Debug, clap::Args)]
pub(super) struct ViewArgs {
    /// Print a row per batch instead of its records; -n counts batches
    #[arg(long, conflicts_with_all = ["format", "isolation", "control"])]
    pub(super) batches: bool,
    /// Print the bytes of each record, or with --batches of each batch, with their positions in the file
    #[arg(long, conflicts_with_all = ["format", "output"])]
    pub(super) hex: bool,
    /// Print control records as well: how transactions ended
    #[arg(long)]
    pub(super) control: bool,
    /// Say what is damaged and go on behind it, instead of stopping there; exits 3 all the same
    #[arg(long)]
    pub(super) skip_damaged: bool,
    /// Records of which transactions: of all, as kafka-dump-log does, or as consumers with this setting see them
    #[arg(long, value_enum, default_value_t = Isolation::ReadUncommitted, value_name = "LEVEL")]
    pub(super) isolation: Isolation,
    /// Print keys and values of internal topics as objects, or as they are; -f has the bytes
    #[arg(long, value_enum, default_value_t = DecodeMode::Auto, value_name = "HOW")]
    pub(super) decode: DecodeMode,
}

/// Kafka's `isolation.level`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Isolation {
    /// All records
    ReadUncommitted,
    /// No records of aborted transactions, and none from the first open transaction on
    ReadCommitted,
}

/// Prints records or batches.
pub(super) fn run(partitions: &[PartitionFiles], args: &CatArgs) -> Result<ExitCode> {
    let what = &args.what;
    let spec = what.spec()?;
    let mut cat = Cat::new(what.printer()?, args);
    let mut outcome = Ok(());
    for partition in span::chosen(partitions, what, &spec)? {
        outcome = cat.partition(partition, &spec);
        if outcome.is_err() || cat.left == Some(0) {
            break;
        }
    }
    // JSON is closed whatever happened, so that it stays valid.
    cat.printer.finish()?;
    outcome?;
    Ok(if cat.problems > 0 { ExitCode::from(PROBLEMS) } else { ExitCode::SUCCESS })
}

/// Printing, and what came of it.
pub(super) struct Cat<'a, W: Write> {
    pub(super) printer: Printer<W>,
    view: &'a ViewArgs,
    decoders: Decoders,
    left: Option<u64>,
    pub(super) problems: u32,
}

/// A partition that is printed.
struct Printed<'a> {
    files: &'a PartitionFiles,
    decoder: Option<Arc<Decoder>>,
    /// Asked where only committed records are printed.
    markers: Option<Markers<'a>>,
}

/// What damage costs, in words.
fn lost(damage: &Damage) -> String {
    let Damage { from_position, to_position, from, to, cause, .. } = damage;
    let offsets = if to > from { format!(", offsets {from} to {}", to.get() - 1) } else { String::new() };
    format!("position {from_position}: {cause} (bytes up to {to_position}{offsets})")
}

/// The bytes of a record, and where they are.
struct RecordBytes<'a> {
    /// Where they begin among those of the batch's records.
    begin: usize,
    bytes: &'a [u8],
    /// Those of the message, if that is what is in the file.
    message: Option<&'a [u8]>,
}

/// How printing goes on after a batch.
enum Next {
    Batch,
    End,
    /// The batch is damaged. Whether a good one is known to follow.
    Damage {
        fault: String,
        is_followed: bool,
    },
}

impl Next {
    /// Of a batch of which only its checksum or its records tell.
    const fn damage(fault: String) -> Self {
        Self::Damage { fault, is_followed: false }
    }
}

impl<'a, W: Write> Cat<'a, W> {
    /// Nothing printed yet.
    pub(super) fn new(printer: Printer<W>, args: &'a CatArgs) -> Self {
        let decoders = Decoders::new(args.view.decode);
        Self { printer, view: &args.view, decoders, left: args.what.limit(), problems: 0 }
    }

    /// Prints a partition.
    pub(super) fn partition(&mut self, files: &PartitionFiles, spec: &OffsetSpec) -> Result<()> {
        let Some(range) = span::range(files, spec)? else { return Ok(()) };
        let is_committed = self.view.isolation == Isolation::ReadCommitted;
        let mut printed = Printed {
            files,
            decoder: self.decoders.of(&files.topic),
            markers: is_committed.then(|| Markers::new(files, range.start)),
        };
        let crcs = if self.view.skip_damaged { Crcs::Compared } else { Crcs::Left };
        let mut walk = Walk::new(files, range, crcs);
        while self.left != Some(0)
            && let Some(step) = walk.next()?
        {
            let (segment, next) = match step {
                Step::Damage(segment, damage) => {
                    let is_followed = damage.kind == DamageKind::Middle;
                    (segment, Next::Damage { fault: lost(&damage), is_followed })
                }
                Step::Batch(segment, batch) => {
                    let next = self.batch(&mut printed, &walk, segment, &batch);
                    (segment, next.with_context(|| format!("print {}", segment.path.display()))?)
                }
            };
            match next {
                Next::Batch => {}
                Next::End => return Ok(()),
                // What a broker is writing ends at a batch that is not whole yet.
                Next::Damage { is_followed, .. }
                    if files.may_change(segment)
                        && !is_followed
                        && !matches!(walk.next()?, Some(Step::Batch(..))) =>
                {
                    note(format_args!("{}: ends at a batch that is not whole yet", segment.path.display()));
                    walk.end();
                }
                Next::Damage { fault, .. } => {
                    self.say_damage(segment, &fault);
                    if !self.view.skip_damaged {
                        walk.end();
                    }
                }
            }
        }
        Ok(())
    }

    fn say_damage(&mut self, segment: &SegmentFile, fault: &str) {
        let path = segment.path.display();
        if self.view.skip_damaged {
            note(format_args!("{path}: {fault}; skipped"));
        } else {
            note(format_args!("{path}: {fault}; nothing after it is printed, --skip-damaged goes on"));
        }
        self.problems += 1;
    }

    fn batch(
        &mut self,
        printed: &mut Printed<'_>,
        walk: &Walk<'_>,
        segment: &SegmentFile,
        batch: &ScannedBatch,
    ) -> Result<Next> {
        if self.view.batches {
            return self.row(printed.files, walk, segment, batch);
        }
        let attributes = batch.header.attributes;
        if attributes.is_control() && !self.view.control {
            return Ok(Next::Batch);
        }
        if let Some(markers) = &mut printed.markers
            && attributes.is_transactional()
            && !attributes.is_control()
        {
            match markers.end_of(&batch.header)? {
                Some(EndOfTransaction::Commit) => {}
                Some(EndOfTransaction::Abort) => return Ok(Next::Batch),
                None => {
                    let at = batch.header.base_offset;
                    let PartitionFiles { topic, partition, .. } = printed.files;
                    note(format_args!(
                        "{topic}-{partition}: a transaction is open from offset {at} on: nothing after it is committed"
                    ));
                    return Ok(Next::End);
                }
            }
        }
        let whole = match walk.read(batch) {
            Ok(whole) => whole,
            Err(error) => return Ok(Next::damage(error.to_string())),
        };
        match whole.decompress(LIMITS) {
            Ok(records) => self.records(printed, walk, batch, &records),
            Err(error) => Ok(Next::damage(format!("position {}: {error}", batch.position))),
        }
    }

    fn records(
        &mut self,
        printed: &Printed<'_>,
        walk: &Walk<'_>,
        batch: &ScannedBatch,
        buffer: &RecordsBuf,
    ) -> Result<Next> {
        let files = printed.files;
        let payload = buffer.payload();
        let mut records = buffer.records();
        loop {
            let begin = payload.len() - records.rest_bytes();
            let record = match records.next() {
                None => return Ok(Next::Batch),
                Some(Ok(record)) => record,
                Some(Err(error)) => return Ok(Next::damage(format!("position {}: {error}", batch.position))),
            };
            let end = payload.len() - records.rest_bytes();
            if walk.is_before(record.offset) {
                continue;
            }
            if self.left == Some(0) || walk.is_behind(record.offset) {
                return Ok(Next::End);
            }
            let is_control = batch.header.attributes.is_control();
            let decoder = printed.decoder.as_ref();
            let view = RecordView {
                topic: &files.topic,
                partition: files.partition,
                record: &record,
                batch: &batch.header,
                log: LogState { start: files.segments[0].base.get(), last_stable: -1, high_watermark: -1 },
                decoded: decoder.and_then(|decoder| decoder.decode(&record, is_control)),
            };
            if self.view.hex {
                let message = (batch.format != MessageFormat::V2).then(|| walk.bytes(batch)).transpose()?;
                let bytes = &payload[begin..end];
                self.dump_record(&view, batch, RecordBytes { begin, bytes, message: message.as_deref() })?;
            } else {
                self.printer.print(&view)?;
            }
            self.left = self.left.map(|left| left - 1);
        }
    }

    /// The bytes of a record. Those of a compressed batch are nowhere in the file: their positions count from the first of
    /// its records. A message of an old format is a record, unless it is compressed; those in it are shown as a batch
    /// would have them.
    fn dump_record(
        &mut self,
        view: &RecordView<'_>,
        batch: &ScannedBatch,
        at: RecordBytes<'_>,
    ) -> Result<()> {
        let RecordBytes { begin, bytes, message } = at;
        let codec = batch.header.attributes.codec().unwrap_or(Codec::None);
        let (position, bytes, place) = match (codec, message) {
            (Codec::None, Some(message)) => (batch.position, message, String::new()),
            (Codec::None, None) => (batch.position + (HEADER_BYTES + begin) as u64, bytes, String::new()),
            (codec, message) => {
                let form = if message.is_some() { ", in the form of format v2" } else { "" };
                let place = format!(
                    "byte {begin} of the records of the {codec} batch at position {}{form}",
                    batch.position
                );
                (begin as u64, bytes, place)
            }
        };
        let place = if place.is_empty() { format!("position {position}") } else { place };
        let RecordView { topic, partition, record, .. } = view;
        let line = format!("{topic}-{partition}@{}  {place}, {} bytes\n", record.offset, bytes.len());
        let mut text = line.into_bytes();
        hex::dump(&mut text, position, bytes);
        Ok(self.printer.put(&text)?)
    }

    /// The row of a batch, or its bytes. A batch whose checksum fails has both.
    fn row(
        &mut self,
        files: &PartitionFiles,
        walk: &Walk<'_>,
        segment: &SegmentFile,
        batch: &ScannedBatch,
    ) -> Result<Next> {
        let checked = walk.read(batch);
        // Headers are all that a row needs, so a checksum that fails does not end the rows.
        if let Err(error) = &checked {
            note(format_args!("{}: {error}", segment.path.display()));
            self.problems += 1;
        }
        let mut text = Vec::new();
        if self.view.hex {
            let (at, size) = (batch.header.base_offset, batch.header.size_bytes);
            let state = if checked.is_ok() { "ok" } else { "bad" };
            let place = format!("{}-{}@{at}", files.topic, files.partition);
            let position = batch.position;
            text.extend_from_slice(
                format!("{place}  position {position}, {size} bytes, checksum {state}\n").as_bytes(),
            );
            let bytes = walk.bytes(batch)?;
            hex::dump_batch(&mut text, batch, &bytes);
        } else {
            let row = batches::row(files, segment, batch, checked.is_ok());
            let is_first = self.printer.count() == 0;
            batches::write(&mut text, self.printer.style(), is_first, &row);
        }
        self.printer.put(&text)?;
        self.left = self.left.map(|left| left - 1);
        Ok(Next::Batch)
    }
}
