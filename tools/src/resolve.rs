//! From `-o` to offsets: asks the leaders for both ends of each log, and for times.

use std::collections::BTreeMap;

use anyhow::Result;
use highwater_client::{Client, ListOffsetsError, OffsetQuery, TopicInfo};
use highwater_record::{Offset, PartitionId, TopicName, TopicPartition};

use crate::failure::Failure;
use crate::offset_spec::{OffsetSpec, Start, Stop};
use crate::output::note;
use crate::suggest;

/// What is read of one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Range {
    /// The first offset.
    pub(crate) start: Offset,
    /// The first offset that is not read any more; `None` goes on for ever.
    pub(crate) stop: Option<Offset>,
}

/// Both ends of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ends {
    /// First offset.
    pub(crate) start: Offset,
    /// The offset that the next visible record gets.
    pub(crate) end: Offset,
}

/// The topic, or a sentence with the names that are near and exit code 4. Nothing is created.
pub(crate) async fn find_topic(
    client: &Client,
    bootstrap: &crate::bootstrap::Bootstrap,
    name: &TopicName,
) -> Result<TopicInfo> {
    let explain = |error| bootstrap.explain(&error);
    let described = client.describe(std::slice::from_ref(name)).await.map_err(explain)?;
    match described.topics.get(name) {
        Some(Ok(topic)) => Ok(topic.clone()),
        Some(Err(error)) if !error.is_unknown_topic() => {
            Err(Failure::failed(format!("topic {name}: {error}")).into())
        }
        _ => {
            let all = client.describe_all().await.map_err(explain)?;
            let names = all.topics.keys().filter(|topic| !topic.is_internal()).map(TopicName::as_str);
            let suggestion = suggest::sentence(name.as_str(), names);
            Err(Failure::not_found(format!("topic {:?} does not exist{suggestion}", name.as_str())).into())
        }
    }
}

/// A topic name from the command line.
pub(crate) fn topic_name(text: &str) -> Result<TopicName, Failure> {
    TopicName::new(text).map_err(|error| Failure::usage(format!("{text:?} is no topic: {error}")))
}

/// Names from the command line, each once: a name that is repeated means no more than a name.
pub(crate) fn distinct<T: Clone + PartialEq>(names: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(name) {
            distinct.push(name.clone());
        }
    }
    distinct
}

/// The partitions that are meant: all, or those of `-p`.
pub(crate) fn choose_partitions(topic: &TopicInfo, wanted: &[i32]) -> Result<Vec<PartitionId>, Failure> {
    if wanted.is_empty() {
        return Ok(topic.partitions.iter().map(|partition| partition.id).collect());
    }
    let find = |number: &i32| {
        PartitionId::new(*number).filter(|id| topic.partition(*id).is_some()).ok_or_else(|| {
            let last = topic.partitions.len().saturating_sub(1);
            Failure::not_found(format!("topic {} has partitions 0 to {last}, not {number}", topic.name))
        })
    };
    wanted.iter().map(find).collect()
}

/// Both ends of each partition.
pub(crate) async fn ends(
    client: &Client,
    topic: &TopicName,
    partitions: &[PartitionId],
) -> Result<BTreeMap<PartitionId, Ends>, ListOffsetsError> {
    let starts = query(client, topic, partitions, OffsetQuery::Earliest).await?;
    let ends = query(client, topic, partitions, OffsetQuery::Latest).await?;
    let both = |id: &PartitionId| {
        let start = starts.get(id).copied().flatten().unwrap_or(Offset::ZERO);
        let end = ends.get(id).copied().flatten().unwrap_or(start).max(start);
        (*id, Ends { start, end })
    };
    Ok(partitions.iter().map(both).collect())
}

async fn query(
    client: &Client,
    topic: &TopicName,
    partitions: &[PartitionId],
    query: OffsetQuery,
) -> Result<BTreeMap<PartitionId, Option<Offset>>, ListOffsetsError> {
    let key = |id: &PartitionId| TopicPartition { topic: topic.clone(), partition: *id };
    let queries = partitions.iter().map(|id| (key(id), query)).collect();
    let found = client.list_offsets(&queries).await?;
    Ok(found.into_iter().map(|(key, offset)| (key.partition, offset)).collect())
}

/// What is to be read of each partition. `exit` stops at the end that there is now.
pub(crate) async fn ranges(
    client: &Client,
    topic: &TopicName,
    partitions: &[PartitionId],
    spec: &OffsetSpec,
    exit: bool,
) -> Result<BTreeMap<PartitionId, Range>> {
    let ends = ends(client, topic, partitions).await?;
    let mut times = Times::default();
    if let OffsetSpec::Range { start, stop } = spec {
        if let Start::Time(time) = start {
            times.start = query(client, topic, partitions, OffsetQuery::AtTime(*time)).await?;
        }
        if let Stop::Time(time) = stop {
            times.stop = query(client, topic, partitions, OffsetQuery::AtTime(*time)).await?;
        }
    }
    let range = |(id, ends): (&PartitionId, &Ends)| -> Result<_> {
        let range = range_of(spec, *id, *ends, &times, exit);
        let range = range.map_err(|error| {
            Failure::failed(format!(
                "partition {topic}-{id} {error}\n  the first record that is left is at:  start\n  what comes next is at:  end"
            ))
        })?;
        if range.start > ends.end {
            let (start, end) = (range.start, ends.end);
            note(format_args!("partition {topic}-{id} ends at {end}: there is nothing from {start} on"));
        }
        Ok((*id, range))
    };
    ends.iter().map(range).collect()
}

/// The offsets that times were found at; none if no record is so late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Where to start.
    pub(crate) start: BTreeMap<PartitionId, Option<Offset>>,
    /// Where to stop.
    pub(crate) stop: BTreeMap<PartitionId, Option<Offset>>,
}

/// What `spec` means for a partition with these ends. The error is a sentence without its subject.
pub(crate) fn range_of(
    spec: &OffsetSpec,
    partition: PartitionId,
    ends: Ends,
    times: &Times,
    exit: bool,
) -> Result<Range, String> {
    let found = |times: &BTreeMap<_, _>| times.get(&partition).copied().flatten().unwrap_or(ends.end);
    let (start, stop) = match spec {
        OffsetSpec::Range { start, stop } => {
            let from = match start {
                Start::Beginning => ends.start,
                Start::End => ends.end,
                Start::AfterBeginning(count) => ends.start.advance(*count).min(ends.end),
                Start::BeforeEnd(count) => before(ends.end, *count).max(ends.start),
                Start::At(offset) => *offset,
                Start::Time(_) => found(&times.start),
            };
            // As with rpk, an end that is not reached yet is not waited for.
            let to = match stop {
                Stop::Never => None,
                Stop::End => Some(ends.end),
                Stop::At(offset) => Some((*offset).min(ends.end)),
                Stop::Time(_) => Some(found(&times.stop)),
            };
            (from, to)
        }
        OffsetSpec::Cursor(cursor) => match cursor.get(&partition) {
            Some((start, stop)) => (*start, *stop),
            None => (ends.start, None),
        },
    };
    // Whoever stops at the end does not wait for a later stop.
    let stop = if exit { Some(stop.unwrap_or(ends.end).min(ends.end)) } else { stop };
    // Records that are wanted and gone are never passed over in silence; an empty range wants none.
    let wants_some = stop.is_none_or(|stop| start < stop);
    if start < ends.start && wants_some || start > ends.end && stop.is_none() {
        return Err(format!("has offsets {} to {}, not {start}", ends.start, ends.end));
    }
    Ok(Range { start, stop })
}

fn before(offset: Offset, count: u64) -> Offset {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Offset::new(offset.get().saturating_sub(count)).unwrap_or(Offset::ZERO)
}

#[cfg(test)]
mod tests {
    use highwater_record::TimestampMs;

    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    /// The range in a log from 100 to 200, in which the time is found at 150.
    fn range(text: &str, exit: bool) -> Result<(i64, Option<i64>), String> {
        let spec = OffsetSpec::parse(text, TimestampMs(0)).unwrap();
        let found = BTreeMap::from([(PartitionId::ZERO, Some(at(150)))]);
        let times = Times { start: found, stop: BTreeMap::new() };
        let ends = Ends { start: at(100), end: at(200) };
        range_of(&spec, PartitionId::ZERO, ends, &times, exit)
            .map(|range| (range.start.get(), range.stop.map(Offset::get)))
    }

    #[test]
    fn words_and_distances_stay_inside_the_log() {
        assert_eq!(range("start", false), Ok((100, None)));
        assert_eq!(range("end", false), Ok((200, None)));
        assert_eq!(range("+5", false), Ok((105, None)));
        assert_eq!(range("+500", false), Ok((200, None)));
        assert_eq!(range("-10", false), Ok((190, None)));
        assert_eq!(range("-500", true), Ok((100, Some(200))));
        assert_eq!(range(":end", false), Ok((100, Some(200))));
    }

    #[test]
    fn an_end_that_is_not_reached_yet_is_not_waited_for() {
        assert_eq!(range("150:500", false), Ok((150, Some(200))));
        assert_eq!(range("150:160", false), Ok((150, Some(160))));
        assert_eq!(range("@-1h:@-1m", false), Ok((150, Some(200))));
    }

    #[test]
    fn records_that_are_gone_are_an_error_with_the_numbers() {
        assert_eq!(range("50", false), Err("has offsets 100 to 200, not 50".into()));
        assert_eq!(range("201", false), Err("has offsets 100 to 200, not 201".into()));
        assert_eq!(range("50:150", false), Err("has offsets 100 to 200, not 50".into()));
        assert_eq!(range("200", false), Ok((200, None)));
    }

    #[test]
    fn a_range_beyond_the_end_is_empty() {
        assert_eq!(range("300:400", false), Ok((300, Some(200))));
    }

    #[test]
    fn a_cursor_counts_for_its_partitions_alone() {
        assert_eq!(range("p0:120:130", false), Ok((120, Some(130))));
        assert_eq!(range("p1:120:130", false), Ok((100, None)));
        assert_eq!(range("p0:120:300", false), Ok((120, Some(300))));
        assert_eq!(range("p0:120:300", true), Ok((120, Some(200))));
    }
}
