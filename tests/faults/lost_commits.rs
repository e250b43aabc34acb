//! A failed sync of the partition that holds a group: no commit that was acknowledged is lost, none that was refused
//! is seen, and the group goes on.

use anyhow::{Context as _, ensure};

use crate::harness::broker::{Broker, Options};
use crate::harness::skip::or_skip;
use crate::harness::strace;
use crate::harness::wait;

use super::client::{Connection, name_of};
use super::failed_sync::failing_syncs;
use super::group_calls::{Group, OUTSIDER};

const TOPIC: &str = "read";
/// The file that holds the group: Java's "group".hashCode() is 98629247, modulo 50.
const SEGMENT: &str = "__consumer_offsets-47/00000000000000000000.log";

fn group() -> Group {
    Group { name: "group".into(), topic: TOPIC.into(), partitions: 1 }
}

/// What committing an offset is answered.
fn commit(connection: &mut Connection, offset: i64) -> anyhow::Result<&'static str> {
    let answers = group().commit(connection, OUTSIDER, &[(0, offset)])?;
    Ok(name_of(*answers.get(&0).context("the answer names the partition")?))
}

/// What is committed, or why nobody says.
fn committed(connection: &mut Connection) -> anyhow::Result<Result<Option<i64>, &'static str>> {
    let answer = group().committed(connection, &[0])?;
    Ok(answer.map(|offsets| offsets[&0]).map_err(name_of))
}

#[test]
fn a_failed_sync_loses_no_commit_that_was_acknowledged() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path().canonicalize()?;
    let data = directory.join("data");
    let (files, trace) = ([data.join(SEGMENT)], directory.join("trace"));
    let mut broker = Broker::start(Options::new(&data).under(failing_syncs(&files, &trace).wrapper()))?;
    let mut connection = Connection::open(broker.address())?;
    connection.create_topic(TOPIC, 1, &[])?;

    let mut acknowledged = 0;
    let refused = loop {
        ensure!(acknowledged < 100, "no sync has failed in 100 commits");
        match commit(&mut connection, acknowledged + 1)? {
            "NONE" => acknowledged += 1,
            refused => break refused,
        }
    };
    ensure!(refused == "NOT_COORDINATOR", "the commit is answered {refused}");
    // Until the partition is loaded again nobody is told that nothing was committed.
    let mut found = None;
    wait::until("the group to be loaded again", || match committed(&mut connection)? {
        Ok(offset) => {
            found = offset;
            Ok(true)
        }
        Err(reason) => {
            ensure!(matches!(reason, "COORDINATOR_LOAD_IN_PROGRESS" | "NOT_COORDINATOR"), "{reason}");
            Ok(false)
        }
    })?;
    ensure!(found == Some(acknowledged), "{found:?} is committed, {acknowledged} was acknowledged last");
    for offset in acknowledged + 1..acknowledged + 6 {
        let answer = commit(&mut connection, offset)?;
        ensure!(answer == "NONE", "the group does not go on: {answer}\n{}", broker.log());
    }

    broker.kill()?;
    let broker = Broker::start(Options::new(&data))?;
    let found = committed(&mut Connection::open(broker.address())?)?;
    ensure!(found == Ok(Some(acknowledged + 5)), "after a restart: {found:?}");
    Ok(())
}
