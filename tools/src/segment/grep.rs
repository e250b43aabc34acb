//! `segment grep`: the records that a pattern matches, on all cores, in the order of the log.
//!
//! Threads search pieces of segments and turn what they find into the text that is printed; the main thread prints it,
//! and decides about context. A batch without a match is neither parsed nor is its checksum compared, unless that is
//! asked for. Damage is said and passed over; it is a problem all the same. Memory: each thread holds a batch, and some
//! pieces of text of [`TEXT_BYTES`] that wait to be printed.

use std::collections::VecDeque;
use std::io::Write;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Result;
use highwater_record::{Codec, HEADER_BYTES, RecordsBuf};
use highwater_storage::{Damage, DamageKind, SalvageScan, ScanError, ScannedBatch};
use serde_json::json;

use super::files::PartitionFiles;
use super::internal::{DecodeMode, Decoder};
use super::matcher::{Matcher, Meaning, Part};
use super::parallel::{self, Sink};
use super::pieces::{self, Piece};
use super::progress::Progress;
use super::span::{self, LIMITS};
use crate::consume::SelectionArgs;
use crate::failure::{Failure, PROBLEMS};
use crate::output::{self, OutputFormat, Rows, note};
use crate::printer::{Printer, Style};
use crate::record_view::{LogState, RecordView};

const EXAMPLES: &str = "\
Examples:
  highwater segment grep 'timeout|refused' highwater-data        in every key and value
  highwater segment grep -F order-4711 /var/lib/kafka --topic orders --output jsonl
  highwater segment grep -i error highwater-data/logs-0 -o @-1h: -C 3
  highwater segment grep -F abc highwater-data --in headers --count
";
const EXIT_CODES: &str = "\
Exit codes: 0 found, 1 nothing found, as grep has it; 2 wrong usage, 3 damage met on the way, 4 no such files.
An error, such as a file that cannot be read, is 1 as well and says so.

The pattern is a regular expression of Rust's regex crate: (?i) ignores case, (?s) lets . match a newline, (?-u) matches
bytes, ^ and $ stand for the ends of the key, value or header.
";

/// Text that is handed over at a time.
const TEXT_BYTES: usize = 64 << 10;
/// Found none.
const NOTHING: u8 = 1;

/// The arguments of `segment grep`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = help())]
pub(super) struct GrepArgs {
    /// What to look for: a regular expression
    #[arg(value_name = "PATTERN")]
    pattern: String,
    #[command(flatten)]
    pub(super) paths: super::PathArgs,
    #[command(flatten)]
    pub(super) what: SelectionArgs,
    /// The pattern is text, not a regular expression
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Print the records that do not match
    #[arg(short = 'v', long)]
    invert_match: bool,
    /// Where to look, separated by commas
    #[arg(long = "in", value_enum, value_name = "PART", value_delimiter = ',', default_values = ["key", "value"])]
    parts: Vec<Part>,
    /// Print so many records after each that matches
    #[arg(short = 'A', long, value_name = "N", default_value_t = 0)]
    after_context: usize,
    /// Print so many records before each that matches
    #[arg(short = 'B', long, value_name = "N", default_value_t = 0)]
    before_context: usize,
    /// Print so many records before and after each that matches
    #[arg(short = 'C', long, value_name = "N", conflicts_with_all = ["after_context", "before_context"])]
    context: Option<usize>,
    /// Print how many match; with --output, a row per partition
    #[arg(long, conflicts_with = "format")]
    count: bool,
    /// Compare the checksum of every batch, not only of those that are printed
    #[arg(long)]
    verify: bool,
    /// Print keys and values of internal topics as objects, or as they are
    #[arg(long, value_enum, default_value_t = DecodeMode::Auto, value_name = "HOW")]
    decode: DecodeMode,
    /// Threads; all cores if it is not given
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

fn help() -> String {
    format!("{}\n\n{EXIT_CODES}", crate::consume::GRAMMAR)
}

/// What is to be done to each piece.
struct Search<'a> {
    matcher: Matcher,
    style: Style,
    before: usize,
    after: usize,
    counts_only: bool,
    verifies: bool,
    progress: Option<Progress>,
    args: &'a GrepArgs,
}

/// What comes of a piece, in parts.
enum Found {
    /// Records, printed ones and those around them.
    Text(Text),
    /// So many match.
    Count(u64),
    /// Something is damaged.
    Damage(String),
}

/// Records as text.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    /// Where each record ends, and whether it matches.
    records: Vec<(usize, bool)>,
    /// Whether records were left out before the first.
    is_apart: bool,
}

/// Searches.
pub(super) fn run(partitions: &[PartitionFiles], args: &GrepArgs) -> Result<ExitCode> {
    let (lines, outcome) = search(partitions, args, args.what.printer()?)?;
    lines.finish(outcome, args.what.output())
}

/// Prints what is found, and says why it ended.
pub(super) fn search<'a, W: Write>(
    partitions: &'a [PartitionFiles],
    args: &GrepArgs,
    printer: Printer<W>,
) -> Result<(Lines<'a, W>, Result<()>)> {
    let what = &args.what;
    if matches!(printer.style(), Style::Format(format) if format.counts_records()) {
        return Err(
            Failure::usage("-f: %i counts records as they are printed, grep finds them all at once").into()
        );
    }
    let spec = what.spec()?;
    let mut all = Vec::new();
    for partition in span::chosen(partitions, what)? {
        if let Some(range) = span::range(partition, &spec)? {
            all.extend(pieces::of(partition, &range)?);
        }
    }
    let bytes = all.iter().map(Piece::bytes).sum();
    // What is printed says enough; a bar would be in its way.
    let has_bar = args.count || !output::is_terminal();
    let meaning = Meaning {
        is_literal: args.fixed_strings,
        ignores_case: args.ignore_case,
        is_inverted: args.invert_match,
    };
    let search = Search {
        matcher: Matcher::new(&args.pattern, &meaning, &args.parts)?,
        style: printer.style().clone(),
        before: args.context.unwrap_or(args.before_context),
        after: args.context.unwrap_or(args.after_context),
        counts_only: args.count,
        verifies: args.verify,
        progress: has_bar.then(|| Progress::new("search", bytes)),
        args,
    };
    let mut lines = Lines::new(printer, &search, what.limit());
    let threads = args.threads.unwrap_or_else(parallel::cores);
    let outcome = parallel::in_order(
        &all,
        threads,
        |piece, sink| search.piece(piece, sink),
        |piece, found| lines.take(piece, found),
    );
    if let Some(progress) = &search.progress {
        progress.finish();
    }
    Ok((lines, outcome))
}

impl Search<'_> {
    fn piece(&self, piece: &Piece<'_>, sink: &Sink<Found>) -> Result<()> {
        // A clone has scratch memory of its own, which threads would otherwise pass around.
        let matcher = self.matcher.clone();
        let mut hunt = Hunt {
            search: self,
            matcher: &matcher,
            piece,
            decoder: Decoder::of(&piece.files.topic, self.args.decode),
            scan: piece.open()?,
            sink,
            text: Text::default(),
            count: 0,
            recent: VecDeque::new(),
            recent_records: 0,
            // The piece before may end with a match.
            after_left: self.after,
        };
        let _ = hunt.run()?;
        Ok(())
    }
}

/// The search of a piece.
struct Hunt<'a> {
    search: &'a Search<'a>,
    matcher: &'a Matcher,
    piece: &'a Piece<'a>,
    decoder: Option<Decoder>,
    scan: SalvageScan,
    sink: &'a Sink<Found>,
    text: Text,
    count: u64,
    /// Batches without a match that the next match may want as context.
    recent: VecDeque<ScannedBatch>,
    recent_records: usize,
    /// Records after the last match that are wanted as context.
    after_left: usize,
}

impl Hunt<'_> {
    fn run(&mut self) -> Result<ControlFlow<()>> {
        while let Some(step) = self.scan.next() {
            let flow = match step? {
                highwater_storage::Piece::Damaged(damage) => self.damage(&damage),
                highwater_storage::Piece::Good(batch) => {
                    if let Some(progress) = &self.search.progress {
                        progress.add(batch.header.size_bytes.into());
                    }
                    if self.piece.range.stop.is_some_and(|stop| batch.header.base_offset >= stop) {
                        break;
                    }
                    let is_before = batch.header.last_offset() < self.piece.range.start;
                    if is_before || batch.header.attributes.is_control() {
                        continue;
                    }
                    self.batch(&batch)?
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        if self.search.counts_only {
            return Ok(self.sink.put(Found::Count(self.count)));
        }
        // The next piece may begin with a match.
        if self.emit_recent()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(self.flush())
    }

    fn damage(&mut self, damage: &Damage) -> ControlFlow<()> {
        let Damage { from_position, to_position, cause, kind, .. } = damage;
        if matches!(kind, DamageKind::Beyond | DamageKind::ZeroTail) {
            return ControlFlow::Continue(());
        }
        self.say(format!("position {from_position}: {cause} (bytes up to {to_position} are not searched)"))
    }

    /// In the order of what was found before.
    fn say(&mut self, sentence: String) -> ControlFlow<()> {
        if self.flush().is_break() {
            return ControlFlow::Break(());
        }
        self.sink.put(Found::Damage(sentence))
    }

    fn batch(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        let is_plain = batch.header.attributes.codec() == Some(Codec::None);
        if is_plain && !self.search.verifies {
            let bytes = self.scan.bytes(batch)?;
            if !self.matcher.may_match(bytes.get(HEADER_BYTES..).unwrap_or_default()) {
                return self.pass(batch);
            }
        }
        let buffer = match self.read(batch)? {
            Ok(buffer) => buffer,
            Err(fault) => return Ok(self.say(fault)),
        };
        if !self.matcher.may_match(buffer.payload()) {
            return self.pass(batch);
        }
        let mut matching = Vec::new();
        for record in buffer.records() {
            match record {
                Ok(record) => matching.push(self.matcher.matches(&record)),
                Err(error) => return Ok(self.say(format!("position {}: {error}", batch.position))),
            }
        }
        if !matching.contains(&true) {
            return self.pass(batch);
        }
        if self.search.before > 0 && self.emit_recent()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let after_last = matching.iter().rev().take_while(|matches| !**matches).count();
        self.after_left = self.search.after.saturating_sub(after_last);
        Ok(self.emit(batch, &buffer, &matching))
    }

    /// The records of a batch whose checksum holds, or what is wrong with it.
    fn read(&self, batch: &ScannedBatch) -> Result<Result<RecordsBuf, String>> {
        match self.scan.read(batch) {
            Ok(whole) => {
                Ok(whole.decompress(LIMITS).map_err(|error| format!("position {}: {error}", batch.position)))
            }
            Err(error @ ScanError::Fault { .. }) => Ok(Err(error.to_string())),
            Err(error @ ScanError::Io { .. }) => Err(error.into()),
        }
    }

    /// A batch without a match: it may be context.
    fn pass(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        let records = batch.header.record_count as usize;
        let has_context = self.search.before + self.search.after > 0;
        if self.search.counts_only || !has_context || records == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if self.after_left > 0 {
            self.after_left = self.after_left.saturating_sub(records);
            return self.emit_context(batch);
        }
        self.recent.push_back(*batch);
        self.recent_records += records;
        while let Some(first) = self.recent.front()
            && self.recent_records - first.header.record_count as usize >= self.search.before
        {
            self.recent_records -= first.header.record_count as usize;
            self.recent.pop_front();
            if self.flush().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.text.is_apart = true;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn emit_recent(&mut self) -> Result<ControlFlow<()>> {
        self.recent_records = 0;
        while let Some(batch) = self.recent.pop_front() {
            if self.emit_context(&batch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands over a batch without a match.
    fn emit_context(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        Ok(match self.read(batch)? {
            Ok(buffer) => self.emit(batch, &buffer, &[]),
            Err(fault) => self.say(fault),
        })
    }

    /// Hands over the records of a batch: those that match, and if there is context, all.
    fn emit(&mut self, batch: &ScannedBatch, buffer: &RecordsBuf, matching: &[bool]) -> ControlFlow<()> {
        let has_context = self.search.before + self.search.after > 0;
        let range = &self.piece.range;
        for (index, record) in buffer.records().enumerate() {
            let Ok(record) = record else { break };
            let matches = matching.get(index).is_some_and(|matches| *matches);
            let is_wanted =
                record.offset >= range.start && range.stop.is_none_or(|stop| record.offset < stop);
            if !is_wanted || !(matches || has_context) {
                continue;
            }
            self.count += u64::from(matches);
            if self.search.counts_only {
                continue;
            }
            let view = RecordView {
                topic: &self.piece.files.topic,
                partition: self.piece.files.partition,
                record: &record,
                batch: &batch.header,
                log: LogState {
                    start: self.piece.files.segments[0].base.get(),
                    last_stable: -1,
                    high_watermark: -1,
                },
                decoded: self.decoder.as_ref().and_then(|decoder| decoder.decode(&record, false)),
            };
            self.search.style.write(&mut self.text.bytes, &view, 0);
            self.text.records.push((self.text.bytes.len(), matches));
            if self.text.bytes.len() >= TEXT_BYTES && self.flush().is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if self.text.records.is_empty() {
            return ControlFlow::Continue(());
        }
        self.sink.put(Found::Text(std::mem::take(&mut self.text)))
    }
}

/// What was found, put in line and printed.
pub(super) struct Lines<'a, W: Write> {
    pub(super) printer: Printer<W>,
    /// The piece before, to see where a partition ends.
    partition: Option<&'a PartitionFiles>,
    before_max: usize,
    after_max: usize,
    /// Records that a match may follow.
    before: VecDeque<Vec<u8>>,
    after_left: usize,
    /// Whether records were left out since the last that was printed.
    is_apart: bool,
    left: Option<u64>,
    pub(super) counts: Vec<(&'a PartitionFiles, u64)>,
    counts_only: bool,
    pub(super) problems: u32,
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(printer: Printer<W>, search: &Search<'_>, left: Option<u64>) -> Self {
        Self {
            printer,
            partition: None,
            before_max: search.before,
            after_max: search.after,
            before: VecDeque::new(),
            after_left: 0,
            is_apart: false,
            left,
            counts: Vec::new(),
            counts_only: search.counts_only,
            problems: 0,
        }
    }

    fn take(&mut self, piece: &Piece<'a>, found: Found) -> Result<ControlFlow<()>> {
        if !self.partition.is_some_and(|before| std::ptr::eq(before, piece.files)) {
            self.partition = Some(piece.files);
            self.set_apart();
            self.counts.push((piece.files, 0));
        }
        match found {
            Found::Damage(fault) => {
                note(format_args!("{}: {fault}", piece.segment.path.display()));
                self.problems += u32::from(!piece.may_change());
                self.set_apart();
                Ok(ControlFlow::Continue(()))
            }
            Found::Count(count) => Ok(self.add(count)),
            Found::Text(text) => self.print(&text),
        }
    }

    fn set_apart(&mut self) {
        self.before.clear();
        self.after_left = 0;
        self.is_apart = true;
    }

    fn add(&mut self, count: u64) -> ControlFlow<()> {
        let count = self.left.map_or(count, |left| left.min(count));
        self.left = self.left.map(|left| left - count);
        if let Some((_, sum)) = self.counts.last_mut() {
            *sum += count;
        }
        if self.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn print(&mut self, text: &Text) -> Result<ControlFlow<()>> {
        if text.is_apart {
            self.set_apart();
        }
        let mut begin = 0;
        for (end, matches) in &text.records {
            let record = &text.bytes[begin..*end];
            begin = *end;
            if *matches {
                if self.left == Some(0) {
                    return Ok(ControlFlow::Break(()));
                }
                self.print_match(record)?;
            } else if self.after_left > 0 {
                self.printer.put(record)?;
                self.after_left -= 1;
            } else {
                self.keep(record);
            }
            if self.left == Some(0) && self.after_left == 0 {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn print_match(&mut self, record: &[u8]) -> Result<()> {
        let has_context = self.before_max + self.after_max > 0;
        let is_for_people = matches!(self.printer.style(), Style::Values | Style::Readable { .. });
        if has_context && is_for_people && self.is_apart && self.printer.count() > 0 {
            self.printer.put_between(b"--\n")?;
        }
        self.is_apart = false;
        while let Some(before) = self.before.pop_front() {
            self.printer.put(&before)?;
        }
        self.printer.put(record)?;
        self.after_left = self.after_max;
        let _ = self.add(1);
        Ok(())
    }

    fn keep(&mut self, record: &[u8]) {
        self.before.push_back(record.to_vec());
        if self.before.len() > self.before_max {
            self.before.pop_front();
            self.is_apart = true;
        }
    }

    fn finish(mut self, outcome: Result<()>, output: Option<OutputFormat>) -> Result<ExitCode> {
        // JSON is closed whatever happened, so that it stays valid.
        if !self.counts_only {
            self.printer.finish()?;
        }
        outcome?;
        let total: u64 = self.counts.iter().map(|(_, count)| count).sum();
        match output {
            _ if !self.counts_only => {}
            None => {
                self.printer.put(format!("{total}\n").as_bytes())?;
                self.printer.flush()?;
            }
            Some(format) => {
                let mut rows = Rows::new(&["topic", "partition", "count"]);
                for (files, count) in &self.counts {
                    rows.push(vec![json!(files.topic), json!(files.partition), json!(count)]);
                }
                rows.print(format)?;
            }
        }
        Ok(match (self.problems, total) {
            (0, 0) => ExitCode::from(NOTHING),
            (0, _) => ExitCode::SUCCESS,
            _ => ExitCode::from(PROBLEMS),
        })
    }
}
