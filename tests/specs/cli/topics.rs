//! The first minutes with the tools: lines in, lines out, topics made, shown and deleted.

use anyhow::ensure;
use serde_json::json;

use super::session::Session;

#[test]
fn a_thousand_lines_go_in_and_the_last_three_come_out() -> anyhow::Result<()> {
    let session = Session::start()?;

    let produced = session.succeeds("seq 1 1000 | highwater produce hello")?;
    let consumed = session.succeeds("highwater consume hello -o -3 -e")?;

    assert_eq!(produced.text()?, "", "the summary is for stderr");
    assert!(produced.stderr.contains("hello: 1000 records"), "{}", produced.stderr);
    assert_eq!((consumed.text()?, consumed.stderr.as_str()), ("998\n999\n1000\n", ""));
    session.prints("highwater consume hello -o 500:503", "501\n502\n503\n")?;
    session.prints("highwater consume hello -o start -n 2 -f '%o=%v;'", "0=1;1=2;")
}

#[test]
fn each_codec_keeps_the_lines() -> anyhow::Result<()> {
    let session = Session::start()?;
    let lines: String = (1..=1000).map(|number| format!("{number}\n")).collect();

    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        session.succeeds(&format!("seq 1 1000 | highwater produce {codec} -z {codec}"))?;
        session.prints(&format!("highwater consume {codec} -o start -e"), &lines)?;

        let segments = session.rows(&format!("highwater segment ls data/{codec}-0 --deep --output json"))?;
        assert_eq!(segments[0]["codec"], json!([codec]));
    }
    Ok(())
}

#[test]
fn topics_are_rows_for_people_and_json_for_programs() -> anyhow::Result<()> {
    let session = Session::start()?;
    let none = session.succeeds("highwater topic ls --output json")?;
    assert_eq!(none.text()?, "[]\n");

    let created = session.rows("highwater topic create orders -p 3 --output json")?;
    session.succeeds("seq 1 10 | highwater produce orders -p 1")?;

    assert_eq!((&created[0]["topic"], &created[0]["partitions"]), (&json!("orders"), &json!(3)));
    let table = session.succeeds("highwater topic ls")?;
    let table: Vec<Vec<&str>> = table.text()?.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(table[0], ["TOPIC", "PARTITIONS", "REPLICAS", "ID"]);
    assert_eq!(table[1][..3], ["orders", "3", "1"]);
    let listed = session.rows("highwater topic ls --output json")?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], created[0]["id"]);
    let described = session.rows("highwater topic describe orders --output json")?;
    let ends: Vec<_> = described.iter().map(|row| (&row["partition"], &row["records"])).collect();
    assert_eq!(ends, [(&json!(0), &json!(0)), (&json!(1), &json!(10)), (&json!(2), &json!(0))]);
    Ok(())
}

#[test]
fn a_name_that_is_nearly_right_gets_the_right_one_and_is_not_created() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("highwater topic create orders payments")?;
    let sentence = "topic \"ordres\" does not exist; did you mean \"orders\"?";

    session.fails("highwater topic describe ordres", 4, &[sentence])?;
    session.fails("highwater consume ordres -e", 4, &[sentence])?;
    session.fails("highwater topic rm ordres --yes", 4, &[sentence])?;
    session.fails("seq 1 3 | highwater produce ordres --no-create", 4, &[sentence])?;

    assert_eq!(session.rows("highwater topic ls --output json")?.len(), 2);
    Ok(())
}

#[test]
fn deleting_wants_a_yes_and_a_dry_run_deletes_nothing() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 10 | highwater produce orders")?;

    session.fails("highwater topic rm orders", 2, &["orders: 1 partitions, 10 records", "say --yes"])?;
    let rehearsed = session.rows("highwater topic rm orders --dry-run --output json")?;
    session.prints("highwater consume orders -o -1 -e", "10\n")?;
    let deleted = session.rows("highwater topic rm orders --yes --output json")?;

    assert_eq!(rehearsed, deleted);
    assert_eq!(deleted[0]["topic"], "orders");
    assert!(session.rows("highwater topic ls --output json")?.is_empty());
    session.fails("highwater consume orders -e", 4, &["does not exist"])?;
    Ok(())
}

#[test]
fn a_name_that_is_repeated_means_one_topic() -> anyhow::Result<()> {
    let session = Session::start()?;

    assert_eq!(session.rows("highwater topic create dup dup --output json")?.len(), 1);
    assert_eq!(session.rows("highwater topic rm dup dup --yes --output json")?.len(), 1);

    assert!(session.rows("highwater topic ls --output json")?.is_empty());
    Ok(())
}

#[test]
fn topics_are_deleted_all_or_none_and_never_the_brokers_own() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 10 | highwater produce orders")?;
    session.succeeds("highwater group seek job --to end --topic orders --yes")?;

    let own = ["nothing was deleted", "__consumer_offsets is the broker's own"];
    session.fails("highwater topic rm orders __consumer_offsets --dry-run", 1, &own)?;
    session.fails("highwater topic rm __consumer_offsets --yes", 1, &own)?;
    let both = ["nothing was deleted", "\"none\" does not exist", "\"neither\" does not exist"];
    let ran = session.fails("highwater topic rm orders none neither --yes", 4, &both)?;
    ensure!(!ran.stderr.contains("10 records"), "what is not deleted is listed: {}", ran.stderr);

    session.prints("highwater consume orders -o -1 -e", "10\n")
}

#[test]
fn a_name_of_the_brokers_own_is_not_asked_for() -> anyhow::Result<()> {
    let session = Session::start()?;

    let ran = session.fails("echo 1 | highwater produce __mine", 4, &["__mine", "choose another name"])?;

    ensure!(!ran.stderr.contains("topic create"), "creating it would be refused too: {}", ran.stderr);
    Ok(())
}

#[test]
fn a_negative_number_is_a_value_that_is_refused_and_no_unknown_flag() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("highwater topic create orders")?;

    session.fails("highwater topic create c3 -p -5", 2, &["'-5'", "is not in 1.."])?;
    session.fails("highwater consume orders -n -1", 2, &["'-1'", "--num"])?;
    session.fails("highwater consume orders -p -1 -e", 4, &["has partitions 0 to 0, not -1"])?;
    session.fails("echo 1 | highwater produce orders -p -1", 2, &["'-1'", "is not in 0.."])?;
    Ok(())
}

#[test]
fn what_lies_beyond_the_end_is_said() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("highwater topic create orders -p 3")?;
    session.succeeds("seq 1 10 | highwater produce orders -p 0")?;

    for line in ["-o 100:200", "-o 100 -e"] {
        let ran = session.succeeds(&format!("highwater consume orders -p 0 {line}"))?;
        let note = "partition orders-0 ends at 10: there is nothing from 100 on\n";
        assert_eq!((ran.text()?, ran.stderr.as_str()), ("", note), "{line}");
    }
    session.fails("highwater consume orders -o p7:3 -e", 4, &["has partitions 0 to 2, not 7"])?;
    let ended = session.succeeds("highwater consume orders -p 0 -o end -e")?;
    assert_eq!((ended.text()?, ended.stderr.as_str()), ("", ""));
    session.prints("highwater consume orders -o p0:8:200,p1:0:0,p2:0:0 -e", "9\n10\n")
}

#[test]
fn a_refused_topic_says_what_is_wrong_with_it() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("highwater topic create orders")?;

    session.fails(
        "highwater topic create orders",
        1,
        &["exists already", "highwater topic describe orders"],
    )?;
    session.fails(
        "highwater topic create logs -c max.message.bytes=large",
        1,
        &["INVALID_CONFIG", "max.message.bytes", "\"large\""],
    )?;
    session.fails(
        "highwater topic create logs -c sgment.bytes=1",
        1,
        &["INVALID_CONFIG", "segment.bytes"],
    )?;

    assert_eq!(session.rows("highwater topic ls --output json")?.len(), 1);
    Ok(())
}

#[test]
fn exit_codes_tell_wrong_usage_from_failure_and_from_what_is_not_there() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 10 | highwater produce orders")?;

    session.fails("highwater consume orders -o banana", 2, &["\"banana\" is not an offset"])?;
    session.fails("highwater consume 'no such topic'", 2, &["no such topic"])?;
    session.fails("highwater consume orders --offst 3", 2, &["--offset"])?;
    session.fails("highwater topic create", 2, &["NAME"])?;
    session.fails("highwater consume orders -o 500", 1, &["has offsets 0 to 10, not 500"])?;
    session.fails("highwater consume orders -p 7 -e", 4, &["has partitions 0 to 0, not 7"])?;
    session.fails("highwater segment ls nowhere", 4, &["nowhere does not exist"])?;
    session.fails("highwater produce orders nowhere", 1, &["nowhere"])?;
    Ok(())
}

#[test]
fn a_broker_that_is_not_there_is_a_sentence_with_its_address() -> anyhow::Result<()> {
    let mut session = Session::start()?;
    session.broker.terminate()?;
    let address = session.broker.bootstrap();

    for line in [
        "topic ls",
        "consume hello",
        "produce hello",
        "topic create hello",
        "group ls",
        "group describe job",
        "group seek job --to end --topic hello --yes",
        "group rm job --yes",
    ] {
        let ran = session.fails(
            &format!("highwater {line}"),
            1,
            &[&format!("cannot connect to {address}"), "HIGHWATER_BOOTSTRAP", "highwater serve"],
        )?;
        ensure!(ran.stdout.is_empty(), "{line} printed {:?}", ran.text());
    }
    session.fails(&format!("highwater topic ls --bootstrap {address}"), 1, &["comes from --bootstrap"])?;
    Ok(())
}

#[test]
fn a_reader_that_has_enough_ends_the_consumer_without_a_word() -> anyhow::Result<()> {
    let session = Session::start()?;
    session.succeeds("seq 1 100000 | highwater produce hello")?;

    // What is behind the pipe tells how the consumer ended; without -e it would wait for more.
    let line = "{ highwater consume hello; echo $? > code; } | head -1";
    let ran = session.succeeds(line)?;
    let code = std::fs::read_to_string(session.directory().join("code"))?;

    assert_eq!((ran.text()?, ran.stderr.as_str(), code.as_str()), ("1\n", "", "0\n"));
    let ran =
        session.succeeds("{ highwater segment cat data/hello-0 2>noise; echo $? > code; } | head -1")?;
    let code = std::fs::read_to_string(session.directory().join("code"))?;
    assert_eq!((ran.text()?, code.as_str()), ("1\n", "0\n"));
    Ok(())
}
