//! The tools that measure and verify get through.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Session, has};
use crate::harness::kafka_tools::Tool::{
    ConsumerPerformance, EndToEndLatency, ProducerPerformance, VerifiableConsumer, VerifiableProducer,
};
use crate::harness::kafka_tools::run_alone;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_verifiable_tools_count_the_same_records() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let topic = session.create("verified", 3)?;

    let bootstrap = session.target.bootstrap();
    let both = ["--bootstrap-server", &bootstrap, "--topic", &topic, "--max-messages", "500"];
    let sent = run_alone(VerifiableProducer, &both)?;
    let group = ["--group-id", &topic, "--reset-policy", "earliest"];
    let read = run_alone(VerifiableConsumer, &[&both[..], &group].concat())?;

    ensure!(sent.matches("\"producer_send_success\"").count() == 500, "{sent}");
    let events = read.lines().map(|line| Ok(serde_json::from_str(line)?));
    let events = events.collect::<anyhow::Result<Vec<Value>>>()?;
    let count = events.iter().filter_map(|event| event["count"].as_u64()).sum::<u64>();
    ensure!(count == 500, "{read}");
    let commits = events.iter().filter(|event| event["name"] == "offsets_committed");
    ensure!(commits.clone().count() > 0 && commits.clone().all(|event| event["success"] == true), "{read}");
    Ok(())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn the_performance_tools_get_through() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let (topic, bootstrap) = (session.create("measured", 1)?, session.target.bootstrap());

    let broker = format!("bootstrap.servers={bootstrap}");
    let shape = ["--num-records", "2000", "--record-size", "100", "--throughput", "-1", "--topic", &topic];
    let produce = [&shape[..], &["--producer-props", &broker]].concat();
    has(&session.tools.run(ProducerPerformance, &produce)?, "2000 records sent")?;
    let consumed = session.run(ConsumerPerformance, &format!("--topic {topic} --messages 2000"))?;
    let row = consumed.lines().last().context("the tool prints a row")?;
    ensure!(row.split(", ").nth(4) == Some("2000"), "{consumed}");
    let latency = [bootstrap.as_str(), &topic, "20", "1", "50"];
    has(&session.tools.run(EndToEndLatency, &latency)?, "Avg latency: ")
}
