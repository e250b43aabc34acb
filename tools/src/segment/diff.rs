//! `segment diff`: what two partitions, or all partitions of two directories, hold that the other does not.
//!
//! Records are compared by what they say, whatever the codec and the batching. By offset both are walked side by side, a
//! batch of each in memory. By key the latest record of each key counts; keys are held in memory up to a bound, and if they
//! are more, the directories are read several times, for a share of the keys each. What cannot be read is a difference.

mod keys;
mod walk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::PathArgs;
use super::files::PartitionFiles;
use super::span;
use crate::failure::{Failure, PROBLEMS};
use crate::offset_spec::{OffsetSpec, Stop};
use crate::output::{OutputArgs, Rows, note};
use crate::resolve::Range;
use crate::time;
use walk::{Entry, RecordWalk};

const COLUMNS: &[&str] = &["topic", "partition", "offset", "what", "fields", "a", "b"];
/// Characters of a record that a row shows.
const PREVIEW_CHARS: usize = 40;

const EXAMPLES: &str = "\
Examples:
  highwater segment diff highwater-data/orders-0 salvaged/orders-0   exit 3 if they differ
  highwater segment diff replica-1 replica-2 --topic orders -o 1000: --output jsonl
  highwater segment diff before/users-0 after/users-0 --by key       the latest record of each key
";

#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = crate::consume::GRAMMAR)]
pub(super) struct DiffArgs {
    /// A data directory, partition directory or .log file
    a: PathBuf,
    /// What to compare it with
    b: PathBuf,
    /// Only this topic
    #[arg(short, long)]
    topic: Option<String>,
    /// What belongs together
    #[arg(long, value_enum, default_value_t = By::Offset)]
    by: By,
    /// Where to start and stop, as offsets of A, see below
    #[arg(short, long, value_name = "OFFSET", allow_hyphen_values = true, default_value = "start")]
    offset: Vec<String>,
    /// Print so many differences at most; all are counted
    #[arg(short, long = "num", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    num: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// What records belong together by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum By {
    /// Their offsets.
    Offset,
    /// Their keys: the latest record of each.
    Key,
}

/// Differences, of which some are shown.
pub(super) struct Differences {
    rows: Rows,
    rows_max: u64,
    missing: u64,
    extra: u64,
    different: u64,
    /// Records that were compared and are the same.
    same: u64,
    /// Records that `--by key` left out.
    keyless: u64,
    unreadable: u64,
}

impl Differences {
    const fn new(rows_max: u64) -> Self {
        let rows = Rows::new(COLUMNS);
        Self { rows, rows_max, missing: 0, extra: 0, different: 0, same: 0, keyless: 0, unreadable: 0 }
    }

    const fn count(&self) -> u64 {
        self.missing + self.extra + self.different + self.unreadable
    }

    /// Takes note of what two partitions have in one place; at least one of them has something.
    fn pair(&mut self, of: &PartitionFiles, a: Option<&Entry>, b: Option<&Entry>) {
        let (what, fields) = match (a, b) {
            (Some(a), Some(b)) => {
                let fields = a.differs_in(b);
                if fields.is_empty() {
                    self.same += 1;
                    return;
                }
                self.different += 1;
                ("different", fields)
            }
            (Some(_), None) => {
                self.missing += 1;
                ("missing", Vec::new())
            }
            _ => {
                self.extra += 1;
                ("extra", Vec::new())
            }
        };
        if self.count() > self.rows_max {
            return;
        }
        let offset = a.or(b).map(|entry| entry.offset.get());
        let shown =
            |entry: Option<&Entry>| entry.map_or(Value::Null, |entry| json!(entry.preview(PREVIEW_CHARS)));
        let fields = if fields.is_empty() { Value::Null } else { json!(fields) };
        self.rows.push(vec![
            json!(of.topic),
            json!(of.partition),
            json!(offset),
            json!(what),
            fields,
            shown(a),
            shown(b),
        ]);
    }
}

/// Compares.
pub(super) fn run(args: &DiffArgs) -> Result<ExitCode> {
    let spec = OffsetSpec::parse_all(&args.offset, time::now())
        .map_err(|error| Failure::usage(format!("-o: {error}")))?;
    let find =
        |path: &PathBuf| super::find(&PathArgs { paths: vec![path.clone()], topic: args.topic.clone() });
    let differences = compare(&find(&args.a)?, &find(&args.b)?, args.by, &spec, args.num.into())?;
    differences.rows.print(args.output.output)?;
    let Differences { missing, extra, different, same, keyless, unreadable, .. } = differences;
    note(format_args!("{same} the same, {different} different, {missing} missing in B, {extra} extra in B"));
    if keyless > 0 {
        note(format_args!("{keyless} records without a key were left out"));
    }
    if unreadable > 0 {
        note(format_args!("{unreadable} stretches are damaged; highwater segment repair says what is lost"));
    }
    let is_same = missing + extra + different + unreadable == 0;
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS) })
}

fn compare(
    a: &[PartitionFiles],
    b: &[PartitionFiles],
    by: By,
    spec: &OffsetSpec,
    rows_max: u64,
) -> Result<Differences> {
    let mut differences = Differences::new(rows_max);
    for (a, b) in pairs(a, b) {
        let of = a.or(b);
        let Some(of) = of else { continue };
        let Some(mut range) = span::range(of, spec)? else { continue };
        if let OffsetSpec::Range { stop: Stop::At(stop), .. } = spec {
            // B may reach further than A does.
            range.stop = Some(*stop);
        }
        match by {
            By::Offset => by_offset(of, [a, b], &range, &mut differences)?,
            By::Key => keys::compare(of, [a, b], &range, &mut differences)?,
        }
    }
    Ok(differences)
}

/// The partitions that belong together: the only ones, or those of one name.
fn pairs<'a>(
    a: &'a [PartitionFiles],
    b: &'a [PartitionFiles],
) -> Vec<(Option<&'a PartitionFiles>, Option<&'a PartitionFiles>)> {
    if let ([a], [b]) = (a, b) {
        return vec![(Some(a), Some(b))];
    }
    let same = |x: &PartitionFiles, y: &PartitionFiles| (&x.topic, x.partition) == (&y.topic, y.partition);
    let with = a.iter().map(|a| (Some(a), b.iter().find(|b| same(a, b))));
    let without = b.iter().filter(|b| !a.iter().any(|a| same(a, b))).map(|b| (None, Some(b)));
    with.chain(without).collect()
}

fn by_offset(
    of: &PartitionFiles,
    [a, b]: [Option<&PartitionFiles>; 2],
    range: &Range,
    differences: &mut Differences,
) -> Result<()> {
    let (mut a, mut b) = (RecordWalk::new(a, range), RecordWalk::new(b, range));
    let (mut left, mut right) = (a.next()?, b.next()?);
    loop {
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => left.offset.cmp(&right.offset),
        };
        let (takes_left, takes_right) = (order.is_le(), order.is_ge());
        differences.pair(of, left.as_ref().filter(|_| takes_left), right.as_ref().filter(|_| takes_right));
        if takes_left {
            left = a.next()?;
        }
        if takes_right {
            right = b.next()?;
        }
    }
    differences.unreadable += a.unreadable + b.unreadable;
    Ok(())
}

#[cfg(test)]
mod tests;
