//! The console tools carry records, `kafka-get-offsets` finds them, `kafka-delete-records` cuts them off, and
//! `kafka-log-dirs` knows how much room they take.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Session, has_line};
use crate::harness::kafka_tools::Tool::{
    ConsoleConsumer, ConsoleProducer, DeleteRecords, GetOffsets, LogDirs,
};

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_console_tools_carry_keys_headers_and_tombstones_in_every_codec() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = session.create(&format!("console-{codec}"), 1)?;
        let produce = format!(
            "--topic {topic} --compression-codec {codec} --property parse.key=true --property parse.headers=true \
             --property null.marker=NULL"
        );
        let input = "a:1,b:2\tk1\tvalue one\na:3\tk2\tNULL\nNULL\tk3\tvalue three\n";
        let said = session.run_with_input(ConsoleProducer, &produce, input)?;
        ensure!(said.exit == 0 && said.err.is_empty(), "the console producer said {said:?}");

        let consume = format!(
            "--topic {topic} --from-beginning --max-messages 3 --property print.key=true --property \
             print.headers=true --property print.partition=true --property print.offset=true"
        );
        let printed = session.run(ConsoleConsumer, &consume)?;
        let expected = "Partition:0\tOffset:0\ta:1,b:2\tk1\tvalue one\nPartition:0\tOffset:1\ta:3\tk2\tnull\n\
                        Partition:0\tOffset:2\tNO_HEADERS\tk3\tvalue three\n";
        ensure!(printed == expected, "in {codec} the console consumer printed:\n{printed}");
    }
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_console_consumer_reads_a_partition_from_an_offset_and_a_group_goes_on_where_it_was()
-> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let topic = session.create("lines", 1)?;
    session.produce(&topic, &["zero", "one", "two", "three"])?;

    let from = format!("--topic {topic} --partition 0 --offset 2 --max-messages 2");
    ensure!(session.run(ConsoleConsumer, &from)? == "two\nthree\n");
    let group = format!("--topic {topic} --group {topic} --from-beginning --max-messages");
    ensure!(session.run(ConsoleConsumer, &format!("{group} 3"))? == "zero\none\ntwo\n");
    ensure!(session.run(ConsoleConsumer, &format!("{group} 1"))? == "three\n");
    Ok(())
}

#[test]
fn kafka_get_offsets_finds_the_ends_and_the_latest_time() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let topic = session.create("ends", 3)?;
    let produce = format!("--topic {topic} --property parse.key=true --property key.separator=:");
    // One key, so one partition.
    let said = session.run_with_input(ConsoleProducer, &produce, "k:zero\nk:one\n")?;
    ensure!(said.exit == 0 && said.err.is_empty(), "the console producer said {said:?}");

    let latest = session.run(GetOffsets, &format!("--topic {topic}"))?;
    let full = latest.lines().find(|line| line.ends_with(":2")).context("a partition has two records")?;
    let partition = full.split(':').nth(1).context("a line names a partition")?.to_owned();
    let others = (0..3).filter(|other| other.to_string() != partition);
    let with = |ours: &str, others_too: bool| {
        let other = |other| format!("{topic}:{other}:0");
        let mut lines: Vec<_> = others.clone().filter(|_| others_too).map(other).collect();
        lines.push(format!("{topic}:{partition}:{ours}"));
        lines.sort();
        lines.join("\n") + "\n"
    };
    let expected = [
        ("latest", with("2", true)),
        ("-1", with("2", true)),
        ("-2", with("0", true)),
        // The earliest offset on this broker's own disk (KIP-405), and what lies in a remote store: nothing.
        ("-4", with("0", true)),
        ("-5", String::new()),
        // Partitions that hold no such record are left out.
        ("-3", with("1", false)),
        ("1700000000000", with("0", false)),
        ("4000000000000", String::new()),
    ];
    for (time, lines) in expected {
        let printed = session.run(GetOffsets, &format!("--topic {topic} --time {time}"))?;
        ensure!(printed == lines, "--time {time} prints\n{printed}instead of\n{lines}");
    }
    let one = session.run(GetOffsets, &format!("--topic-partitions {topic}:{partition}"))?;
    ensure!(one == with("2", false), "{one}");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_delete_records_cuts_off_what_nobody_reads_again() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let topic = session.create("cut", 1)?;
    session.produce(&topic, &["zero", "one", "two", "three"])?;
    let mut delete = |offset: i64| {
        let json = format!(
            r#"{{"partitions":[{{"topic":"{topic}","partition":0,"offset":{offset}}}],"version":1}}"#
        );
        let file = session.file("delete.json", &json)?;
        session.run(DeleteRecords, &format!("--offset-json-file {}", file.display()))
    };

    has_line(&delete(3)?, &format!("partition: {topic}-0\tlow_watermark: 3"))?;
    // Nothing comes back, and nothing goes that is not there yet.
    has_line(&delete(1)?, &format!("partition: {topic}-0\tlow_watermark: 3"))?;
    super::has(&delete(5)?, "OffsetOutOfRangeException")?;
    has_line(&delete(-1)?, &format!("partition: {topic}-0\tlow_watermark: 4"))?;

    session.produce(&topic, &["four"])?;
    let earliest = session.run(GetOffsets, &format!("--topic {topic} --time -2"))?;
    ensure!(earliest == format!("{topic}:0:4\n"), "{earliest}");
    let read = session.run(ConsoleConsumer, &format!("--topic {topic} --from-beginning --max-messages 1"))?;
    ensure!(read == "four\n", "{read}");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_log_dirs_tells_the_bytes_of_each_partition() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let topic = session.create("sized", 1)?;
    session.produce(&topic, &["a record"])?;

    let printed = session.run(LogDirs, &format!("--describe --topic-list {topic}"))?;

    let json = printed.lines().find(|line| line.starts_with('{')).context("the answer is JSON")?;
    let answer: Value = serde_json::from_str(json)?;
    let directory = &answer["brokers"][0]["logDirs"][0];
    let partition = &directory["partitions"][0];
    ensure!(directory["error"].is_null(), "{answer}");
    ensure!(partition["partition"] == format!("{topic}-0"), "{answer}");
    // A batch header and the record in it.
    ensure!(partition["size"] == 61 + 15, "{answer}");
    ensure!(partition["offsetLag"] == 0 && partition["isFuture"] == false, "{answer}");
    Ok(())
}
