//! `highwater group seek`: moves the committed offsets of a group that has no members.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use highwater_client::{Client, CommittedOffset, GroupInfo};
use highwater_record::{Offset, PartitionId, TopicName, TopicPartition};
use serde_json::json;

use super::{explain, find, lag, refuse_if_in_use};
use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::confirm::confirm_shown;
use crate::failure::{self, Failure};
use crate::offset_spec::{OffsetSpec, Stop};
use crate::output::{OutputArgs, Rows, note};
use crate::{resolve, time};

const EXAMPLES: &str = "\
Examples:
  highwater group seek orders-job --to @-1h --dry-run       what would change
  highwater group seek orders-job --to start --yes          everything once more
  highwater group seek orders-job --to end --topic orders   skip what is there, of one topic
  highwater group seek orders-job --to -100 --topic orders:0,2
  highwater group seek new-job --to-group orders-job        where another group is
  highwater group seek orders-job --to-file offsets.txt     lines of TOPIC PARTITION OFFSET
";

#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["to", "to_group", "to_file"]))]
pub(super) struct SeekArgs {
    /// The group; one that does not exist yet is made
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    group: String,
    /// start, end, an offset, +N, -N or @TIME, as in `consume -o`
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    to: Option<String>,
    /// Where this other group is
    #[arg(long, value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    to_group: Option<String>,
    /// What this file says, in lines of TOPIC PARTITION OFFSET
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// Only this topic, or these partitions of it; may be given several times [default: all that are committed]
    #[arg(long = "topic", value_name = "TOPIC[:N,N]")]
    topics: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

/// The partitions that are chosen of each topic; `None` is all.
type Selection = BTreeMap<TopicName, Option<Vec<i32>>>;
/// Offsets by partition.
type Offsets = BTreeMap<TopicPartition, Offset>;

pub(super) async fn run(args: SeekArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let client = bootstrap.client();
    let group = client.describe_group(&args.group).await.map_err(|error| explain(&bootstrap, error))?;
    group.as_ref().map_or(Ok(()), |group: &GroupInfo| refuse_if_in_use(group, "be moved"))?;
    let before = committed(&client, &bootstrap, &args.group).await?;
    let after = target(&client, &bootstrap, &args, &before).await?;
    let shown = changes(&client, &args.group, &before, &after).await?.print(args.output.output);
    if args.dry_run {
        note("nothing was changed: --dry-run; run it again with --yes to change it");
        return failure::finish(shown, &[]);
    }
    if !args.yes {
        confirm_shown(&shown, "set these offsets", "nothing was changed")?;
    }
    let offsets = after.into_iter().map(|(partition, offset)| {
        (partition, CommittedOffset { offset, leader_epoch: None, metadata: String::new() })
    });
    let changed = client.commit_offsets(&args.group, &offsets.collect()).await;
    changed.map_err(|error| explain(&bootstrap, error))?;
    // Whether anybody reads the rows does not change what is done.
    failure::finish(shown, &[])
}

async fn committed(client: &Client, bootstrap: &Bootstrap, group: &str) -> Result<Offsets> {
    let committed = client.committed_offsets(group).await.map_err(|error| explain(bootstrap, error))?;
    Ok(committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect())
}

/// Where each partition is to be afterwards.
async fn target(
    client: &Client,
    bootstrap: &Bootstrap,
    args: &SeekArgs,
    before: &Offsets,
) -> Result<Offsets> {
    let selection = parse_selection(&args.topics)?;
    let mut after = match (&args.to, &args.to_group, &args.to_file) {
        (Some(to), _, _) => return by_spec(client, bootstrap, to, &selection, before).await,
        (_, Some(other), _) => {
            find(client, bootstrap, other).await?;
            committed(client, bootstrap, other).await?
        }
        (_, _, Some(file)) => {
            let text = fs::read_to_string(file)
                .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
            parse_file(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
        _ => return Err(Failure::usage("say where to: --to, --to-group or --to-file").into()),
    };
    if !selection.is_empty() {
        after.retain(|partition, _| {
            let chosen = selection.get(&partition.topic);
            chosen.is_some_and(|chosen| {
                chosen.as_ref().is_none_or(|ids| ids.contains(&partition.partition.get()))
            })
        });
    }
    if after.is_empty() {
        return Err(Failure::not_found("that names no committed offset, so there is nothing to set").into());
    }
    within_the_logs(client, &after).await?;
    Ok(after)
}

/// One specification for all partitions that are chosen: those of `--topic`, else those that are committed.
async fn by_spec(
    client: &Client,
    bootstrap: &Bootstrap,
    to: &str,
    selection: &Selection,
    before: &Offsets,
) -> Result<Offsets> {
    let spec = OffsetSpec::parse(to, time::now()).map_err(|error| Failure::usage(error.to_string()))?;
    match spec {
        OffsetSpec::Range { stop: Stop::Never, .. } => {}
        OffsetSpec::Range { .. } => {
            return Err(Failure::usage(format!("--to {to} has an end; a group seeks to one place")).into());
        }
        OffsetSpec::Cursor(_) => {
            let advice = "write the places into a file, as lines of TOPIC PARTITION OFFSET, for --to-file";
            return Err(Failure::usage(format!("--to {to} is a cursor of consume; {advice}")).into());
        }
    }
    let mut chosen = selection.clone();
    if chosen.is_empty() {
        for partition in before.keys() {
            let ids = chosen.entry(partition.topic.clone()).or_default();
            ids.get_or_insert_default().push(partition.partition.get());
        }
    }
    if chosen.is_empty() {
        let message = "the group has committed nothing: name the topics, for example --topic orders";
        return Err(Failure::not_found(message).into());
    }
    let mut after = Offsets::new();
    for (name, wanted) in &chosen {
        let topic = resolve::find_topic(client, bootstrap, name).await?;
        let ids = resolve::choose_partitions(&topic, wanted.as_deref().unwrap_or_default())?;
        let ranges = resolve::ranges(client, name, &ids, &spec, false).await?;
        let key = |id: PartitionId| TopicPartition { topic: name.clone(), partition: id };
        after.extend(ranges.into_iter().map(|(id, range)| (key(id), range.start)));
    }
    Ok(after)
}

/// An offset that is not in its log would make the group start over, or skip, when it comes back.
async fn within_the_logs(client: &Client, offsets: &Offsets) -> Result<()> {
    let partitions: BTreeSet<TopicPartition> = offsets.keys().cloned().collect();
    let ends = lag::ends(client, &partitions).await?;
    for (partition, offset) in offsets {
        match ends.get(partition) {
            None => {
                return Err(Failure::not_found(format!("partition {partition} does not exist")).into());
            }
            Some(ends) if *offset < ends.start || *offset > ends.end => {
                let message =
                    format!("partition {partition} has offsets {} to {}, not {offset}", ends.start, ends.end);
                return Err(Failure::failed(message).into());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

async fn changes(client: &Client, group: &str, before: &Offsets, after: &Offsets) -> Result<Rows> {
    let partitions: BTreeSet<TopicPartition> = after.keys().cloned().collect();
    let ends = lag::ends(client, &partitions).await?;
    let mut rows = Rows::new(&["group", "topic", "partition", "before", "after", "lag_before", "lag_after"]);
    for (partition, offset) in after {
        let was = before.get(partition).copied();
        let lag = |at: Offset| ends.get(partition).map(|ends| lag::records(at, *ends));
        rows.push(vec![
            json!(group),
            json!(partition.topic.as_str()),
            json!(partition.partition.get()),
            json!(was.map(Offset::get)),
            json!(offset.get()),
            json!(was.and_then(lag)),
            json!(lag(*offset)),
        ]);
    }
    Ok(rows)
}

/// `--topic orders --topic clicks:0,2`. A topic that is named whole stays whole.
fn parse_selection(topics: &[String]) -> Result<Selection, Failure> {
    let mut selection = Selection::new();
    for text in topics {
        let Some((name, numbers)) = text.split_once(':') else {
            selection.insert(resolve::topic_name(text)?, None);
            continue;
        };
        let refuse =
            |number| Failure::usage(format!("{text:?}: {number:?} is no partition; write {name}:0,2"));
        let numbers: Vec<i32> = numbers
            .split(',')
            .map(|number| number.parse().map_err(|_| refuse(number)))
            .collect::<Result<_, _>>()?;
        if let Some(chosen) = selection.entry(resolve::topic_name(name)?).or_insert_with(|| Some(Vec::new()))
        {
            chosen.extend(numbers);
        }
    }
    Ok(selection)
}

/// Lines of `TOPIC PARTITION OFFSET`, as rpk takes them; the error begins with the line's number, if it is about a line.
fn parse_file(text: &str) -> Result<Offsets, String> {
    let mut offsets = Offsets::new();
    if text.trim().is_empty() {
        return Err("it names no offset; write lines of TOPIC PARTITION OFFSET".to_owned());
    }
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parsed = match words[..] {
            [] => continue,
            [topic, partition, offset] => TopicName::new(topic).ok().and_then(|topic| {
                let partition = PartitionId::new(partition.parse().ok()?)?;
                Some((TopicPartition { topic, partition }, Offset::new(offset.parse().ok()?)?))
            }),
            _ => None,
        };
        let (partition, offset) =
            parsed.ok_or_else(|| format!("line {number}: {line:?} is not TOPIC PARTITION OFFSET"))?;
        if offsets.insert(partition, offset).is_some() {
            return Err(format!("line {number}: {line:?} names its partition a second time"));
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_offsets_is_read_line_by_line() {
        let offsets = parse_file("orders 0 12\n\n  orders   1 7\n").unwrap();

        let shown: Vec<String> =
            offsets.iter().map(|(partition, offset)| format!("{partition}={offset}")).collect();
        assert_eq!(shown, ["orders-0=12", "orders-1=7"]);
    }

    #[test]
    fn a_wrong_line_is_said_with_its_number() {
        assert!(parse_file("orders 0 12\norders x 1\n").unwrap_err().starts_with("line 2: \"orders x 1\""));
        assert!(parse_file("orders 0\n").unwrap_err().starts_with("line 1:"));
        assert!(parse_file("a 0 1\na 0 2\n").unwrap_err().contains("a second time"));
        assert!(parse_file("\n").unwrap_err().starts_with("it names no offset"));
    }

    #[test]
    fn topics_are_chosen_whole_or_by_partition() {
        let selection = parse_selection(&["a".to_owned(), "b:0,2".to_owned()]).unwrap();

        let shown: Vec<_> = selection.iter().map(|(name, ids)| (name.as_str(), ids.clone())).collect();
        assert_eq!(shown, [("a", None), ("b", Some(vec![0, 2]))]);
        assert!(parse_selection(&["b:x".to_owned()]).is_err());
        assert!(parse_selection(&["b:".to_owned()]).is_err());
    }

    #[test]
    fn a_topic_that_is_named_whole_stays_whole() {
        for texts in [["a:0", "a"], ["a", "a:0"]] {
            let selection = parse_selection(&texts.map(str::to_owned)).unwrap();

            assert_eq!(selection.values().collect::<Vec<_>>(), [&None], "{texts:?}");
        }
        let selection = parse_selection(&["a:0", "a:2"].map(str::to_owned)).unwrap();
        assert_eq!(selection.values().collect::<Vec<_>>(), [&Some(vec![0, 2])]);
    }
}
