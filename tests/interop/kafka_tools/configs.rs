//! `kafka-configs` shows and changes what topics, brokers and clients are set to.

use anyhow::ensure;

use super::{Session, has, has_line};
use crate::harness::kafka_tools::Tool::Configs;

#[test]
fn kafka_configs_shows_and_changes_a_topic() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let name = session.create("configured", 1)?;
    let of_topic = format!("--entity-type topics --entity-name {name}");
    let describe = format!("--describe {of_topic}");
    let own = "max.message.bytes=4194304 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=4194304, \
               DEFAULT_CONFIG:message.max.bytes=1048588}";

    session.until(Configs, &describe, |printed| printed.lines().any(|line| line.trim() == own))?;
    let all = session.run(Configs, &format!("{describe} --all"))?;
    for default in ["cleanup.policy=delete ", "compression.type=producer ", "segment.bytes=1073741824 "] {
        has(&all, default)?;
    }

    let add = "--add-config segment.ms=3600000,segment.bytes=1048576";
    let done = format!("Completed updating config for topic {name}.");
    has_line(&session.run(Configs, &format!("--alter {of_topic} {add}"))?, &done)?;
    session.until(Configs, &describe, |printed| {
        ["max.message.bytes=4194304 ", "segment.ms=3600000 ", "segment.bytes=1048576 "]
            .iter()
            .all(|set| printed.contains(set))
    })?;
    has_line(&session.run(Configs, &format!("--alter {of_topic} --delete-config segment.ms"))?, &done)?;
    session.until(Configs, &describe, |printed| !printed.contains("segment.ms=3600000"))?;

    for nonsense in ["segment.ms=nonsense", "segment.bytes=-5", "no.such.config=1"] {
        let refusal = session.refused(Configs, &format!("--alter {of_topic} --add-config {nonsense}"))?;
        has(&refusal, nonsense.split('=').next().unwrap_or_default())?;
    }
    has(&session.run(Configs, &describe)?, "segment.bytes=1048576 ")
}

#[test]
fn kafka_configs_shows_a_broker() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let node = session.node()?;
    let describe = format!("--describe --entity-type brokers --entity-name {node}");

    let changed = session.run(Configs, &describe)?;
    let all = session.run(Configs, &format!("{describe} --all"))?;

    ensure!(changed.trim() == format!("Dynamic configs for broker {node} are:"), "{changed}");
    has_line(&all, &format!("All configs for broker {node} are:"))?;
    for (name, value) in [("auto.create.topics.enable", "true"), ("num.partitions", "1")] {
        has(&all, &format!("{name}={value} sensitive=false"))?;
    }
    Ok(())
}

#[test]
fn kafka_configs_sets_and_lifts_the_quotas_of_clients() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let client = session.target.name("client");
    let of_client = format!("--entity-type clients --entity-name {client}");
    let everyone = "--entity-type clients --entity-default";
    let alter = |whom: &str, what: &str| format!("--alter {whom} {what}");

    let own = session.run(Configs, &alter(&of_client, "--add-config producer_byte_rate=1048576"))?;
    has_line(&own, &format!("Completed updating config for client {client}."))?;
    session.run(Configs, &alter(everyone, "--add-config consumer_byte_rate=2097152"))?;
    let shown = format!("Quota configs for client-id '{client}' are producer_byte_rate=1048576.0");
    let default = "Quota configs for the default client-id are consumer_byte_rate=2097152.0";
    for (whom, line) in [(of_client.as_str(), shown.as_str()), (everyone, default)] {
        session.until(Configs, &format!("--describe {whom}"), |printed| printed.trim() == line)?;
    }

    session.run(Configs, &alter(&of_client, "--delete-config producer_byte_rate"))?;
    session.run(Configs, &alter(everyone, "--delete-config consumer_byte_rate"))?;
    for whom in [of_client.as_str(), everyone] {
        session.until(Configs, &format!("--describe {whom}"), |printed| printed.trim().is_empty())?;
    }
    Ok(())
}
