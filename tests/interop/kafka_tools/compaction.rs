//! A topic is compacted in the background, and Kafka's tools read what is left: the latest record of each key at its old
//! offset, in segments and indexes that they find sound.

use anyhow::ensure;

use super::{Session, has};
use crate::harness::dump_log::{self, segment_files};
use crate::harness::kafka_tools::Tool::{ConsoleConsumer, ConsoleProducer, Topics};
use crate::harness::wait;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafkas_tools_read_a_topic_that_was_compacted() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    if !session.target.is_ours() {
        return Ok(());
    }
    let create = "--create --topic compacted --partitions 1 --config cleanup.policy=compact --config segment.ms=1 \
                  --config min.cleanable.dirty.ratio=0.01";
    session.run(Topics, create)?;
    // Each run is another producer, and a later one begins another segment.
    for codec in CODECS {
        let input = format!("k1\t{codec} one\nk2\t{codec} two\nk3\tNULL\n");
        produce(&mut session, codec, &input)?;
    }
    produce(&mut session, "none", "last\tin the active segment\n")?;
    let Some(broker) = session.target.broker() else { return Ok(()) };
    let partition = broker.data().join("compacted-0");
    wait::until("the sealed segments to be one", || Ok(segment_files(&partition, &["log"])?.len() == 2))?;

    let consume = "--topic compacted --from-beginning --max-messages 4 --property print.key=true --property \
                   print.offset=true";
    let expected = "Offset:12\tk1\tzstd one\nOffset:13\tk2\tzstd two\nOffset:14\tk3\tnull\n\
                    Offset:15\tlast\tin the active segment\n";
    let printed = session.run(ConsoleConsumer, consume)?;
    ensure!(printed == expected, "the console consumer printed:\n{printed}");

    let Some(broker) = session.target.broker() else { return Ok(()) };
    broker.kill()?;
    let dump = dump_log::deep(&segment_files(&partition, &["log", "index", "timeindex"])?)?;
    // That offsets are missing is what compaction is about.
    let complaints = dump.complaints();
    ensure!(complaints.iter().all(|line| line.contains("Non-consecutive offsets in")), "{complaints:#?}");
    ensure!(dump.records() == 4, "{} records are left", dump.records());
    let indexes = segment_files(&partition, &["index", "timeindex"])?;
    let sanity = dump_log::sanity(&indexes)?;
    ensure!(sanity.complaints().is_empty(), "{:#?}", sanity.complaints());
    broker.restart()?;
    ensure!(session.run(ConsoleConsumer, consume)? == expected, "after a kill it reads the same");
    Ok(())
}

#[test]
fn a_record_without_a_key_is_refused_where_the_topic_is_compacted() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let name = session.target.name("keys");
    session
        .run(Topics, &format!("--create --topic {name} --partitions 1 --config cleanup.policy=compact"))?;
    for codec in CODECS {
        let words = format!("--topic {name} --compression-codec {codec}");
        let said = session.run_with_input(ConsoleProducer, &words, "no key\n")?;
        has(&said.err, "InvalidRecordException")?;
    }
    Ok(())
}

fn produce(session: &mut Session, codec: &str, input: &str) -> anyhow::Result<()> {
    let words = format!(
        "--topic compacted --compression-codec {codec} --property parse.key=true --property null.marker=NULL"
    );
    let said = session.run_with_input(ConsoleProducer, &words, input)?;
    ensure!(said.exit == 0 && said.err.is_empty(), "the console producer said {said:?}");
    Ok(())
}
