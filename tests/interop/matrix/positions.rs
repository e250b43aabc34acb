//! A client reads from an offset, from a time, and as the only member of a group.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::records::{self, Line, ORDINARY};
use super::round_trip::PARTITIONS;
use super::{Cell, Subject};
use crate::harness::drivers::Answer;

/// Records in each partition that come first, and those that come later.
const FIRST: usize = 100;
const SECOND: usize = 20;

/// Reads a topic of ordinary records from an offset in its middle.
pub(super) fn by_offset(subject: &Subject<'_>, topic: &str) -> anyhow::Result<Cell> {
    let stored = subject.target.stored(topic, PARTITIONS)?;
    let start = i64::try_from(ORDINARY * 3 / 4)?;
    let expected: Vec<_> = stored.into_iter().filter(|line| line.offset >= Some(start)).collect();

    read_from(subject, topic, &format!("offset:{start}"), &expected)
}

/// Reads from the time of the first record that was sent after others.
pub(super) fn by_time(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("by-time", PARTITIONS)?;
    subject.must_produce(&topic, &records::numbered(PARTITIONS, 0, FIRST))?;
    subject.must_produce(&topic, &records::numbered(PARTITIONS, FIRST, SECOND))?;
    let stored = subject.target.stored(&topic, PARTITIONS)?;
    let later = |line: &&Line| line.offset >= Some(FIRST as i64);
    let start = stored.iter().filter(later).filter_map(|line| line.timestamp).min();
    let start = start.context("the second half is there")?;
    let earlier = stored.iter().filter(|line| !later(line)).filter_map(|line| line.timestamp).max();
    ensure!(earlier < Some(start), "there are records as late as {start} in the first half");
    let expected: Vec<_> = stored.iter().filter(later).cloned().collect();

    read_from(subject, &topic, &format!("time:{start}"), &expected)
}

fn read_from(subject: &Subject<'_>, topic: &str, from: &str, expected: &[Line]) -> anyhow::Result<Cell> {
    match subject.consume(topic, PARTITIONS, from)? {
        Err(reason) => Ok(Cell::Unsupported(vec![reason])),
        Ok(read) => records::check_same(expected, &read).context("what is read").map(|()| Cell::Done),
    }
}

/// Reads all there is as a group of one member, leaves, comes again, and goes on where it was.
pub(super) fn by_group(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("by-group", PARTITIONS)?;
    let group = subject.target.name("by-group");
    for (first, count) in [(0, FIRST), (FIRST, SECOND)] {
        subject.must_produce(&topic, &records::numbered(PARTITIONS, first, count))?;
        let until = format!("until={}", count * PARTITIONS);
        let (topic, group) = (format!("topic={topic}"), format!("group={group}"));
        let arguments = [topic.as_str(), group.as_str(), until.as_str()];
        match subject.driver.run("group", &subject.target.bootstrap(), &arguments)? {
            Answer::Unsupported(reason) => return Ok(Cell::Unsupported(vec![reason])),
            Answer::Done(lines) => check_member(&lines, first, count)?,
        }
    }
    Ok(Cell::Done)
}

/// The only member read each record of its turn once and in order, and committed all of them.
fn check_member(lines: &[Value], first: usize, count: usize) -> anyhow::Result<()> {
    let mut next = [first as u64; PARTITIONS];
    let mut committed = [first as u64; PARTITIONS];
    for line in lines {
        if let (Some(partition), Some(offset)) = (line["partition"].as_u64(), line["offset"].as_u64()) {
            let place = next.get_mut(partition as usize).context("the topic has that partition")?;
            ensure!(offset == *place, "{line} is printed where offset {place} belongs");
            *place += 1;
        }
        for (partition, offset) in line["committed"].as_object().into_iter().flatten() {
            let place = committed.get_mut(partition.parse::<usize>()?).context("the topic has that one")?;
            *place = offset.as_u64().context("a committed offset is a number")?;
        }
    }
    let end = [(first + count) as u64; PARTITIONS];
    ensure!(next == end, "the member read up to {next:?}, and not {end:?}");
    ensure!(committed == end, "the member committed {committed:?}, and not {end:?}");
    Ok(())
}
