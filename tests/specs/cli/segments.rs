//! The workbench on the files of a broker that runs: what is found in them, and how that is told to scripts.

use anyhow::Context as _;
use serde_json::json;

use super::session::Session;

#[test]
fn grep_ends_as_greps_do() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 1000 | highwater produce hello -z zstd")?;
    session.succeeds("seq 1001 2000 | highwater produce hello")?;

    session.prints(
        "highwater segment grep '^.?99$' data",
        "99\n199\n299\n399\n499\n599\n699\n799\n899\n999\n",
    )?;
    session
        .prints("highwater segment grep -F 1500 data -C 1 -f '%o=%v '", "1498=1499 1499=1500 1500=1501 ")?;
    session.prints("highwater segment grep 9 data/hello-0 --count -o 1000:", "271\n")?;
    let counts = session.rows("highwater segment grep 9 data --topic hello --count --output json")?;
    assert_eq!(counts, [json!({ "topic": "hello", "partition": 0, "count": 542 })]);
    assert_eq!(session.fails("highwater segment grep nothing data", 1, &[])?.stdout, b"");
    session.fails("highwater segment grep '(' data", 2, &["regex parse error"])?;
    session.fails("highwater segment grep 1 nowhere", 4, &["nowhere does not exist"])?;
    session.fails("highwater segment grep 1 data -f %i", 2, &["%i counts records"])?;
    Ok(())
}

#[test]
fn what_groups_committed_can_be_read_in_the_files() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 10 | highwater produce orders")?;
    session.succeeds("highwater group seek job --to 7 --topic orders --yes")?;

    let line = "highwater segment cat data --topic __consumer_offsets --output json";
    let records = session.rows(line)?;

    let commit = records.iter().find(|record| record["key"]["name"] == json!("OffsetCommit"));
    let commit = commit.context("a commit")?;
    assert_eq!(commit["key"]["data"], json!({ "group": "job", "topic": "orders", "partition": 0 }));
    assert_eq!(commit["value"]["data"]["offset"], json!(7));
    let raw = session.rows(&format!("{line} --decode raw"))?;
    assert!(raw.iter().all(|record| record["key"]["name"].is_null()), "{raw:?}");
    let people = session.succeeds("highwater segment cat data --topic __consumer_offsets --output table")?;
    assert!(
        people.text()?.contains("OffsetCommit group=job partition=0 topic=orders  =>"),
        "{}",
        people.text()?
    );
    Ok(())
}
