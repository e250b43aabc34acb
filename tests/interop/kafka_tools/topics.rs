//! `kafka-topics` creates, lists, describes, grows and deletes topics.

use anyhow::ensure;

use super::{Session, has, has_line};
use crate::harness::kafka_tools::Tool::Topics;

#[test]
fn kafka_topics_leads_a_topic_through_its_life() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let name = session.target.name("life");
    let create = format!("--create --topic {name} --partitions 3 --config max.message.bytes=2000000");

    has_line(&session.run(Topics, &create)?, &format!("Created topic {name}."))?;
    has(&session.refused(Topics, &create)?, "TopicExistsException")?;
    session.run(Topics, &format!("{create} --if-not-exists"))?;
    session.until(Topics, "--list", |printed| printed.lines().any(|line| line == name))?;
    is_described(&mut session, &name, 3)?;

    session.run(Topics, &format!("--alter --topic {name} --partitions 5"))?;
    let describe = format!("--describe --topic {name}");
    session.until(Topics, &describe, |printed| printed.contains("PartitionCount: 5\t"))?;
    is_described(&mut session, &name, 5)?;
    let fewer = session.refused(Topics, &format!("--alter --topic {name} --partitions 4"))?;
    has(&fewer, "InvalidPartitionsException")?;

    for trouble in ["--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"]
    {
        let printed = session.run(Topics, &format!("--describe {trouble}"))?;
        ensure!(printed.is_empty(), "{trouble} prints {printed}");
    }
    has(&session.run(Topics, "--describe --topics-with-overrides")?, &format!("Topic: {name}\t"))?;

    session.run(Topics, &format!("--delete --topic {name}"))?;
    session.until(Topics, "--list", |printed| printed.lines().all(|line| line != name))?;
    let gone = session.refused(Topics, &format!("--delete --topic {name}"))?;
    has(&gone, &format!("Topic '{name}' does not exist as expected"))
}

#[test]
fn kafka_topics_is_told_why_a_topic_cannot_be_created() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let refusals = [
        ("--create --topic a+b", "InvalidTopicException"),
        ("--create --topic none --partitions 0", "must be greater than 0"),
        ("--create --topic copies --replication-factor 40000", "replication"),
        ("--create --topic odd --config max.message.bytes=many", "max.message.bytes"),
        ("--create --topic odd --config no.such.config=1", "no.such.config"),
    ];
    for (words, why) in refusals {
        has(&session.refused(Topics, words)?, why)?;
    }
    Ok(())
}

fn is_described(session: &mut Session, name: &str, partitions: usize) -> anyhow::Result<()> {
    let node = session.node()?;
    let printed = session.run(Topics, &format!("--describe --topic {name}"))?;
    has(&printed, &format!("PartitionCount: {partitions}\tReplicationFactor: 1\tConfigs: "))?;
    has(&printed, "max.message.bytes=2000000")?;
    for partition in 0..partitions {
        let led = format!("Partition: {partition}\tLeader: {node}\tReplicas: {node}\tIsr: {node}\t");
        has(&printed, &led)?;
    }
    Ok(())
}
