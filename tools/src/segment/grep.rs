//! `segment grep`: the records that a pattern matches, on all cores, in the order of the log.
//!
//! Threads search pieces of segments and turn what they find into the text that is printed; the main thread prints it,
//! and decides about context. A batch without a match is neither parsed nor is its checksum compared, unless that is
//! asked for. Damage is said and passed over; it is a problem all the same. Memory: each thread holds a batch, and some
//! text that waits to be printed.

use std::collections::VecDeque;
use std::io::Write;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::files::PartitionFiles;
use super::hunt::{Found, Search, Text};
use super::internal::{DecodeMode, Decoders};
use super::matcher::{Matcher, Meaning, Part};
use super::parallel;
use super::pieces::{self, Piece};
use super::progress::Progress;
use super::span;
use crate::consume::SelectionArgs;
use crate::failure::{Failure, PROBLEMS};
use crate::output::{self, OutputFormat, Rows, note};
use crate::printer::{Printer, Style};

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
    /// Print keys and values of internal topics as objects, or as they are; -f has the bytes
    #[arg(long, value_enum, default_value_t = DecodeMode::Auto, value_name = "HOW")]
    decode: DecodeMode,
    /// Threads; all cores if it is not given
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

fn help() -> String {
    format!("{}\n\n{EXIT_CODES}", crate::consume::GRAMMAR)
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
    for partition in span::chosen(partitions, what, &spec)? {
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
        decoders: Decoders::new(args.decode),
        progress: has_bar.then(|| Progress::new("search", bytes)),
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
    fn new(printer: Printer<W>, search: &Search, left: Option<u64>) -> Self {
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
            Found::Damage { fault, is_followed } => {
                note(format_args!("{}: {fault}", piece.segment.path.display()));
                self.problems += u32::from(is_followed || !piece.may_change());
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
