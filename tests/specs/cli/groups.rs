//! Groups at the command line: listed, described with their lag, moved and deleted, and spared when they are in use.

use anyhow::ensure;
use highwater_protocol::ErrorCode;
use highwater_protocol::wire::Str;
use serde_json::{Value, json};

use super::session::Session;
use crate::faults::client::Connection;
use crate::faults::group_calls::Group;

/// A session with ten records in partition 0 of `orders` and four in partition 1.
fn with_orders() -> anyhow::Result<Session> {
    let session = Session::start()?;
    session.succeeds("highwater topic create orders -p 2")?;
    session.succeeds("seq 1 10 | highwater produce orders -p 0")?;
    session.succeeds("seq 1 4 | highwater produce orders -p 1")?;
    Ok(session)
}

/// What a group has committed and how much it has not read, of partitions 0 and 1.
fn places(session: &Session, group: &str) -> anyhow::Result<Vec<(Value, Value)>> {
    let rows = session.rows(&format!("highwater group describe {group} --output json"))?;
    Ok(rows.iter().map(|row| (row["committed"].clone(), row["lag"].clone())).collect())
}

fn both(first: (i64, i64), second: (i64, i64)) -> Vec<(Value, Value)> {
    [first, second].map(|(committed, lag)| (json!(committed), json!(lag))).into()
}

#[test]
fn a_group_is_moved_to_every_kind_of_place() -> anyhow::Result<()> {
    let session = with_orders()?;

    session.succeeds("highwater group seek job --to start --topic orders --yes")?;
    assert_eq!(places(&session, "job")?, both((0, 10), (0, 4)));
    // From now on the group knows its partitions.
    session.succeeds("highwater group seek job --to end --yes")?;
    assert_eq!(places(&session, "job")?, both((10, 0), (4, 0)));
    session.succeeds("highwater group seek job --to -3 --yes")?;
    assert_eq!(places(&session, "job")?, both((7, 3), (1, 3)));
    session.succeeds("highwater group seek job --to +2 --yes")?;
    assert_eq!(places(&session, "job")?, both((2, 8), (2, 2)));
    session.succeeds("highwater group seek job --to @-1h --yes")?;
    assert_eq!(places(&session, "job")?, both((0, 10), (0, 4)));
    session.succeeds("highwater group seek job --to 5 --topic orders:0 --yes")?;
    assert_eq!(places(&session, "job")?, both((5, 5), (0, 4)));

    session.succeeds("highwater group seek twin --to-group job --yes")?;
    assert_eq!(places(&session, "twin")?, both((5, 5), (0, 4)));
    session.succeeds("printf 'orders 0 9\\norders 1 3\\n' > offsets.txt")?;
    session.succeeds("highwater group seek job --to-file offsets.txt --yes")?;
    assert_eq!(places(&session, "job")?, both((9, 1), (3, 1)));
    session.fails(
        "highwater group seek job --to 11 --topic orders:0 --yes",
        1,
        &["offsets 0 to 10, not 11"],
    )?;
    assert_eq!(places(&session, "job")?, both((9, 1), (3, 1)));
    Ok(())
}

#[test]
fn a_rehearsal_and_a_question_that_nobody_answers_change_nothing() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek job --to 4 --topic orders:0 --yes")?;

    let rehearsed = session.rows("highwater group seek job --to end --dry-run --output json")?;
    session.fails("highwater group seek job --to end", 2, &["nothing was changed", "say --yes"])?;
    let listed = session.rows("highwater group rm job --dry-run --output json")?;
    session.fails("highwater group rm job", 2, &["nothing was deleted", "say --yes"])?;

    let shown = ["partition", "before", "after", "lag_before", "lag_after"].map(|name| &rehearsed[0][name]);
    assert_eq!(shown, [&json!(0), &json!(4), &json!(10), &json!(6), &json!(0)]);
    assert_eq!((rehearsed.len(), &listed[0]["offsets"]), (1, &json!(1)));
    assert_eq!(places(&session, "job")?, [(json!(4), json!(6))]);
    let moved = session.rows("highwater group seek job --to end --yes --output json")?;
    assert_eq!(moved, rehearsed, "what was rehearsed is what is done");
    Ok(())
}

#[test]
fn lag_is_counted_in_records_and_in_seconds() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek job --to 10 --topic orders:0 --yes")?;
    session.succeeds("highwater group seek job --to 1 --topic orders:1 --yes")?;

    let rows = session.rows("highwater group describe job --output json")?;

    let ends: Vec<_> = rows.iter().map(|row| (&row["topic"], &row["partition"], &row["end"])).collect();
    let orders = json!("orders");
    assert_eq!(ends, [(&orders, &json!(0), &json!(10)), (&orders, &json!(1), &json!(4))]);
    assert_eq!((&rows[0]["lag"], &rows[0]["lag_seconds"]), (&json!(0), &json!(0)));
    assert_eq!(rows[1]["lag"], 3);
    assert!(rows[1]["lag_seconds"].is_u64(), "{rows:?}");
    assert_eq!(rows[0]["member"], Value::Null);
    let described = session.succeeds("highwater group describe job")?;
    ensure!(described.stderr.contains("group job: Empty, 0 members"), "{}", described.stderr);
    ensure!(described.stderr.contains("lag 3"), "{}", described.stderr);
    Ok(())
}

#[test]
fn a_group_in_use_is_neither_moved_nor_deleted() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek job --to start --topic orders --yes")?;
    let group = Group { name: "job".into(), topic: "orders".into(), partitions: 2 };
    let mut connection = Connection::open(session.broker.address())?;
    let id = group.join(&mut connection, &Str::default())?.member_id;
    let joined = group.join(&mut connection, &id)?;
    let synced = group.sync(&mut connection, &joined)?;
    ensure!((joined.error_code, synced.error_code) == (0, 0), "{joined:?} {synced:?}");

    let beat = |connection: &mut Connection| group.beat(connection, &id, joined.generation_id);
    let refused = "group job has members (1: faults at ";
    session.fails("highwater group seek job --to end --yes", 1, &[refused, "cannot be moved"])?;
    ensure!(beat(&mut connection)? == ErrorCode::None.code(), "the member is not there any more");
    session.fails("highwater group rm job --yes", 1, &[refused, "cannot be deleted"])?;
    ensure!(beat(&mut connection)? == ErrorCode::None.code(), "the member is not there any more");
    let rows = session.rows("highwater group describe job --output json")?;
    assert_eq!((&rows[1]["committed"], &rows[1]["member"]), (&json!(0), &json!(id.as_str())));

    ensure!(group.leave(&mut connection, &id)? == ErrorCode::None.code(), "the member cannot leave");
    session.succeeds("highwater group seek job --to end --yes")?;
    assert_eq!(places(&session, "job")?, both((10, 0), (4, 0)));
    Ok(())
}

#[test]
fn groups_are_listed_until_they_are_deleted() -> anyhow::Result<()> {
    let session = with_orders()?;
    assert_eq!(session.succeeds("highwater group ls --output json")?.text()?, "[]\n");
    session.succeeds("highwater group seek orders-job --to end --topic orders --yes")?;
    session.succeeds("highwater group seek clicks-job --to-group orders-job --yes")?;

    let listed = session.rows("highwater group ls --output json")?;
    let deleted = session.rows("highwater group rm orders-job --yes --output json")?;

    let names: Vec<_> = listed.iter().map(|row| (&row["group"], &row["state"])).collect();
    let empty = json!("Empty");
    assert_eq!(names, [(&json!("clicks-job"), &empty), (&json!("orders-job"), &empty)]);
    assert_eq!((&deleted[0]["group"], &deleted[0]["offsets"]), (&json!("orders-job"), &json!(2)));
    assert_eq!(session.rows("highwater group ls --output json")?.len(), 1);
    session.fails("highwater group describe orders-job", 4, &["group \"orders-job\" does not exist"])?;
    Ok(())
}

#[test]
fn groups_are_changed_whether_or_not_anybody_reads_the_rows() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek job --to start --topic orders --yes")?;

    assert_eq!(session.unread("group seek job --to end --yes")?, Some(0));
    assert_eq!(places(&session, "job")?, both((10, 0), (4, 0)));
    let full = ["cannot write to stdout", "No space left"];
    session.fails("highwater group seek job --to start --yes > /dev/full", 1, &full)?;
    assert_eq!(places(&session, "job")?, both((0, 10), (0, 4)));

    session.succeeds("highwater group seek twin --to-group job --yes")?;
    assert_eq!(session.unread("group rm job --yes")?, Some(0));
    session.fails("highwater group rm twin --yes > /dev/full", 1, &full)?;
    assert!(session.rows("highwater group ls --output json")?.is_empty());
    Ok(())
}

#[test]
fn an_error_is_said_though_nobody_reads_the_rows() -> anyhow::Result<()> {
    let session = Session::start()?;

    assert_eq!(session.unread("group describe nobody --output json")?, Some(4));
    assert_eq!(session.unread("topic describe nothing --output json")?, Some(4));
    Ok(())
}

#[test]
fn a_name_that_is_repeated_means_one_group_and_an_empty_one_none() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek a1 --to end --topic orders --yes")?;
    session.succeeds("highwater group seek b1 --to-group a1 --yes")?;

    session.fails("highwater group seek '' --to end --topic orders --yes", 2, &["a value is required"])?;
    session.fails(
        "highwater group rm a1 nope b1 --yes",
        4,
        &["nothing was deleted", "\"nope\" does not exist"],
    )?;
    assert_eq!(session.rows("highwater group ls --output json")?.len(), 2);
    let deleted = session.rows("highwater group rm a1 a1 b1 --yes --output json")?;

    let names: Vec<_> = deleted.iter().map(|row| &row["group"]).collect();
    assert_eq!(names, [&json!("a1"), &json!("b1")]);
    assert!(session.rows("highwater group ls --output json")?.is_empty());
    Ok(())
}

#[test]
fn names_that_strangers_chose_cannot_take_the_terminal_over() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek \"$(printf 'a\\033[2Jb')\" --to end --topic orders --yes")?;

    let listed = session.succeeds("highwater group ls")?;

    ensure!(listed.text()?.contains("a\\u{1b}[2Jb"), "{:?}", listed.text()?);
    let exact = session.rows("highwater group ls --output json")?;
    assert_eq!(exact[0]["group"], "a\u{1b}[2Jb");
    Ok(())
}

#[test]
fn a_place_that_is_none_is_refused_with_what_to_say_instead() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek job --to 1 --topic orders:0 --topic orders --yes")?;
    assert_eq!(places(&session, "job")?, both((1, 9), (1, 3)), "a topic named whole stays whole");

    session.fails(
        "highwater group seek job --to p0:3,p1:4 --yes",
        2,
        &["a cursor of consume", "--to-file"],
    )?;
    session.fails("highwater group seek job --to 1:3 --yes", 2, &["--to 1:3 has an end"])?;
    session.succeeds("echo > nothing.txt")?;
    session.fails("highwater group seek job --to-file nothing.txt --yes", 2, &["it names no offset"])?;
    assert_eq!(places(&session, "job")?, both((1, 9), (1, 3)));
    Ok(())
}

#[test]
fn a_group_that_is_not_there_is_a_sentence_with_the_near_names() -> anyhow::Result<()> {
    let session = with_orders()?;
    session.succeeds("highwater group seek orders-job --to end --topic orders --yes")?;
    let sentence = "group \"order-job\" does not exist; did you mean \"orders-job\"?";

    session.fails("highwater group describe order-job", 4, &[sentence])?;
    session.fails("highwater group rm order-job --yes", 4, &[sentence])?;
    session.fails("highwater group seek new-job --to end --yes", 4, &["committed nothing", "--topic"])?;
    session.fails("highwater group seek new-job --to-group order-job --yes", 4, &[sentence])?;

    assert_eq!(session.rows("highwater group ls --output json")?.len(), 1);
    Ok(())
}
