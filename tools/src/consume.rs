//! `highwater consume`: the records of a topic to stdout.
//!
//! On a terminal a line per record for people; elsewhere the value and a newline, as kcat and the console consumer
//! print it. `--output jsonl` loses nothing. Whatever ends the command early prints the cursor to go on from.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;
use highwater_client::{Client, Consumer, ConsumerConfig, FetchError, FetchedPartition, ListOffsetsError};
use highwater_record::{Offset, PartitionId, TopicName, TopicPartition};
use tokio::io::Interest;
use tokio::net::unix::pipe;

use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::failure::{Failure, INTERRUPTED};
use crate::format::Format;
use crate::offset_spec::{OffsetSpec, Start, Stop};
use crate::output::{self, OutputFormat, note};
use crate::printer::{Printer, Style};
use crate::record_view::{LogState, RecordView};
use crate::resolve::{self, Range};
use crate::time;

const EXAMPLES: &str = "\
Examples:
  highwater consume orders                            everything, then what comes
  highwater consume orders -o -10 -e                  the last ten records of each partition
  highwater consume orders -o @-1h:end --output jsonl the last hour, lossless
  highwater consume orders -o 100:200 -p 0 -f '%o %d{rfc3339} %k %v\\n'
";

/// The grammar of `-o` and the verbs of `-f`, for the end of the help.
pub(crate) const GRAMMAR: &str = "\
Offsets (-o):
  start, end          the first record, what comes next     +5, -10   after the start, before the end
  47, 47:, :47        from 47, from 47, until 47            10:20     from 10 until 20, or the end
  :end, 10:end        until the current end                 p0:5,p1:8 by partition (a resume cursor)
  @T, @:T, @T1:T2     by time: 13 digits are ms, 10 are s, 2026-11-20, 2026-11-20T10:00Z, -1h, end
  beginning, s@MS, e@MS                                     as in kcat
Format verbs (-f):
  %t topic  %p partition  %o offset  %k key  %v value  %d timestamp  %h{ %k=%v } headers  %e leader epoch
  %T %K %V %H lengths  %x %y producer  %a{compression} attributes  %[ %| %] log start, stable, end  %i count
  %v{hex} %v{base64} %o{big64} %d{rfc3339} %d{strftime[%F]}  \\t \\n \\xNN";

/// The arguments of `highwater consume`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = GRAMMAR)]
pub(crate) struct ConsumeArgs {
    /// The topic; it is never created by reading
    topic: String,
    #[command(flatten)]
    what: SelectionArgs,
    /// Stop at the end that there is now
    #[arg(short, long)]
    exit: bool,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

/// Which records, and how they are printed: the same for a topic and for files.
#[derive(Debug, clap::Args)]
pub(crate) struct SelectionArgs {
    /// Where to start and stop, see below
    #[arg(
        short,
        long = "offset",
        value_name = "OFFSET",
        allow_hyphen_values = true,
        default_value = "start"
    )]
    offset: Vec<String>,
    /// Only these partitions, separated by commas
    #[arg(short, long = "partition", value_name = "N", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) partitions: Vec<i32>,
    /// Stop after this many records; 0 is no limit
    #[arg(short, long = "num", value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    num: u64,
    /// Print each record by this format, see below
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "output")]
    format: Option<String>,
    /// Print rows for people, one JSON array, or one JSON object per line
    #[arg(long, value_enum, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

impl SelectionArgs {
    /// Where to start and stop.
    pub(crate) fn spec(&self) -> Result<OffsetSpec, Failure> {
        OffsetSpec::parse_all(&self.offset, time::now())
            .map_err(|error| Failure::usage(format!("-o: {error}")))
    }

    /// How many records at most, if there is a limit.
    pub(crate) const fn limit(&self) -> Option<u64> {
        if self.num == 0 { None } else { Some(self.num) }
    }

    /// How `--output` wants rows, if it is there.
    pub(crate) const fn output(&self) -> Option<OutputFormat> {
        self.output
    }

    /// How records look.
    pub(crate) fn style(&self) -> Result<Style, Failure> {
        Ok(match (&self.format, self.output) {
            (Some(text), _) => {
                let format = Format::parse(text).map_err(|error| Failure::usage(format!("-f: {error}")))?;
                Style::Format(format)
            }
            (None, Some(OutputFormat::Json)) => Style::Json,
            (None, Some(OutputFormat::Jsonl)) => Style::Jsonl,
            (None, Some(OutputFormat::Table)) => Style::Readable { coloured: output::is_coloured() },
            (None, None) if output::is_terminal() => Style::Readable { coloured: output::is_coloured() },
            (None, None) => Style::Values,
        })
    }

    /// The printer to stdout.
    pub(crate) fn printer(&self) -> Result<Printer<output::Stdout>, Failure> {
        Ok(Printer::new(output::Stdout::new(), self.style()?))
    }
}

/// Runs `highwater consume`.
pub(crate) async fn run(args: ConsumeArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let spec = args.what.spec()?;
    let printer = args.what.printer()?;
    let topic = resolve::topic_name(&args.topic)?;
    let client = bootstrap.client();
    let ranges = find_ranges(&client, &bootstrap, &topic, &args, &spec).await?;
    say_times(&spec, &ranges);
    let mut reading = Reading {
        consumer: Consumer::new(client, ConsumerConfig::default()),
        topic,
        cursor: ranges,
        left: args.what.limit(),
        printer,
    };
    reading.assign();
    let outcome = reading.run(&bootstrap).await;
    // JSON is closed whatever happened, so that it stays valid.
    let closed = reading.printer.finish();
    let is_unread = outcome.as_ref().is_err_and(output::is_closed);
    if !matches!(outcome, Ok(Ending::Done)) && closed.is_ok() && !is_unread {
        note(format_args!("resume with: {}", reading.resume()));
    }
    closed?;
    Ok(match outcome? {
        Ending::Done => ExitCode::SUCCESS,
        Ending::Interrupted => ExitCode::from(INTERRUPTED),
    })
}

async fn find_ranges(
    client: &Client,
    bootstrap: &Bootstrap,
    topic: &TopicName,
    args: &ConsumeArgs,
    spec: &OffsetSpec,
) -> Result<BTreeMap<PartitionId, Range>> {
    let info = resolve::find_topic(client, bootstrap, topic).await?;
    let partitions = resolve::choose_partitions(&info, &args.what.partitions)?;
    if let OffsetSpec::Cursor(cursor) = spec {
        // A slip in a number must not read another partition from its start.
        let named: Vec<i32> = cursor.keys().map(|partition| partition.get()).collect();
        resolve::choose_partitions(&info, &named)?;
    }
    resolve::ranges(client, topic, &partitions, spec, args.exit).await
}

/// Says which offsets a time was found at: seeking by time surprises when timestamps are out of order.
fn say_times(spec: &OffsetSpec, ranges: &BTreeMap<PartitionId, Range>) {
    let OffsetSpec::Range { start, stop } = spec else { return };
    if matches!(start, Start::Time(_)) || matches!(stop, Stop::Time(_)) {
        note(format_args!("by time: {}", cursor_text(ranges)));
    }
}

fn cursor_text(ranges: &BTreeMap<PartitionId, Range>) -> String {
    let text = |(partition, range): (&PartitionId, &Range)| match range.stop {
        Some(stop) => format!("p{partition}:{}:{stop}", range.start),
        None => format!("p{partition}:{}", range.start),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Why reading ended.
#[derive(Debug)]
enum Ending {
    Done,
    Interrupted,
}

struct Reading {
    consumer: Consumer,
    topic: TopicName,
    /// What is still to be printed.
    cursor: BTreeMap<PartitionId, Range>,
    left: Option<u64>,
    printer: Printer<output::Stdout>,
}

impl Reading {
    fn assign(&mut self) {
        for (partition, range) in &self.cursor {
            if range.stop.is_none_or(|stop| range.start < stop) {
                let partition = TopicPartition { topic: self.topic.clone(), partition: *partition };
                self.consumer.assign(partition, range.start);
            }
        }
    }

    async fn run(&mut self, bootstrap: &Bootstrap) -> Result<Ending> {
        let stdout = watch_stdout();
        while self.left != Some(0) && !self.consumer.positions().is_empty() {
            let fetched = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Ok(Ending::Interrupted),
                () = closed(stdout.as_ref()) => return Err(output::closed().into()),
                fetched = self.consumer.poll() => fetched.map_err(|error| explain_fetch(bootstrap, error))?,
            };
            for partition in &fetched {
                self.print(partition)?;
            }
            self.printer.flush()?;
        }
        Ok(Ending::Done)
    }

    fn print(&mut self, fetched: &FetchedPartition) -> Result<()> {
        let id = fetched.partition.partition;
        let Some(range) = self.cursor.get_mut(&id) else { return Ok(()) };
        let log = LogState {
            start: fetched.log_start,
            last_stable: fetched.last_stable_offset,
            high_watermark: fetched.high_watermark,
        };
        for batch in &fetched.batches {
            for record in batch.records() {
                let record = record?;
                if self.left == Some(0) || range.stop.is_some_and(|stop| record.offset >= stop) {
                    break;
                }
                self.printer.print(&RecordView {
                    topic: self.topic.as_str(),
                    partition: id.get(),
                    record: &record,
                    batch: batch.header(),
                    log,
                    decoded: None,
                })?;
                range.start = record.offset.advance(1);
                self.left = self.left.map(|left| left - 1);
            }
        }
        if self.left != Some(0) {
            // Offsets without a record, markers for example, are behind us too.
            range.start = range.start.max(range.stop.unwrap_or(Offset::MAX).min(fetched.next));
        }
        if range.stop.is_some_and(|stop| fetched.next >= stop) {
            self.consumer.unassign(&fetched.partition);
        }
        Ok(())
    }

    /// The arguments that go on where this command stopped.
    fn resume(&self) -> String {
        let rest = match self.left {
            None => String::new(),
            Some(left) => format!(" -n {left}"),
        };
        format!("-o {}{rest}", cursor_text(&self.cursor))
    }
}

/// What it means that a broker has lost records. How far the damage goes is not told by the protocol.
fn explain_lost(at: &TopicPartition, offset: Offset) -> Failure {
    let TopicPartition { topic, partition } = at;
    let next = offset.advance(1);
    Failure::failed(format!(
        "{at} has lost records from offset {offset} on: a file of the broker is damaged there (CORRUPT_MESSAGE)\n  \
         the broker's log names the file and the offsets; a copy of the file can be put back while the broker is stopped\n  \
         what lies behind, at this offset or a larger one:  highwater consume {topic} -p {partition} -o {next}"
    ))
}

fn explain_fetch(bootstrap: &Bootstrap, error: FetchError) -> anyhow::Error {
    match &error {
        FetchError::OutOfRange { requested, start, end, partition } => {
            let what = if requested < start {
                format!("offset {requested} is gone: {partition} starts at {start}")
            } else {
                format!("offset {requested} is not there: {partition} ends at {end}")
            };
            Failure::failed(format!("{what}\n  from the first record that is left:  -o start")).into()
        }
        FetchError::Lost { partition, offset } => explain_lost(partition, *offset).into(),
        FetchError::Client(error) | FetchError::ListOffsets(ListOffsetsError::Client(error)) => {
            bootstrap.explain(error)
        }
        _ => error.into(),
    }
}

/// Stdout as something whose end can be waited for, if it is a pipe or a terminal; files have no reader to lose.
fn watch_stdout() -> Option<pipe::Sender> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().ok()?;
    // Unchecked, since the checked way would make stdout non-blocking for everybody who has it.
    pipe::Sender::from_owned_fd_unchecked(stdout).ok()
}

/// Returns when nobody reads stdout any more.
async fn closed(stdout: Option<&pipe::Sender>) {
    // A wait that fails tells nothing; writing will.
    let is_closed = match stdout {
        Some(stdout) => stdout.ready(Interest::ERROR).await.is_ok_and(|ready| ready.is_error()),
        None => false,
    };
    if !is_closed {
        std::future::pending::<()>().await;
    }
}
