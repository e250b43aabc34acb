//! Topics that come into being because a client names them.

use std::sync::Barrier;
use std::thread;

use anyhow::{Context, ensure};
use highwater_protocol::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponseTopic};

use crate::harness::broker::{Broker, Options};
use crate::harness::client;
use crate::harness::clients::{Client, Running};
use crate::harness::skip::or_skip;

const RACERS: usize = 16;

#[test]
fn sixteen_connections_that_name_a_new_topic_learn_one_id_and_its_leader() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&dir.path().join("data")))?;
    for round in 0..20 {
        let topic = format!("race-{round}");
        // Nobody waits for somebody who could not connect.
        let connections: Vec<_> = (0..RACERS)
            .map(|_| client::Client::connect(broker.address(), "racer"))
            .collect::<anyhow::Result<_>>()?;
        let (start, topic) = (&Barrier::new(RACERS), &topic);
        let answers = thread::scope(|scope| {
            let race = |mut connection| {
                move || {
                    start.wait();
                    described(&mut connection, topic)
                }
            };
            let racers: Vec<_> =
                connections.into_iter().map(|connection| scope.spawn(race(connection))).collect();
            let joined = racers.into_iter().map(|racer| racer.join().expect("a racer does not panic"));
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;

        for answer in &answers {
            assert_eq!(answer.error_code, 0, "{answer:?}");
            assert!(!answer.topic_id.is_zero(), "{answer:?}");
            assert_eq!(answer.topic_id, answers[0].topic_id);
            assert_eq!(answer.partitions.len(), 1);
            assert!(answer.partitions[0].leader_id >= 0, "{answer:?}");
        }
    }
    Ok(())
}

#[test]
fn sixteen_producers_that_race_to_a_new_topic_all_get_in() -> anyhow::Result<()> {
    if or_skip(Client::Kcat.install())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&dir.path().join("data")))?;
    let mut racers = Vec::new();
    for _ in 0..RACERS {
        let mut command = Client::Kcat.command().map_err(|why| anyhow::anyhow!("{why:?}"))?;
        command.args(["-P", "-E", "-b", &broker.bootstrap(), "-t", "race"]);
        command.stdin(std::process::Stdio::piped());
        racers.push(Running::spawn(command)?);
    }
    // Each is connected or about to be; only a record makes it ask for the topic.
    for (number, racer) in racers.iter_mut().enumerate() {
        racer.write(format!("racer {number}\n").as_bytes())?;
    }
    racers.into_iter().try_for_each(|racer| racer.finish().map(drop))?;

    let read = Client::Kcat.consume(&broker.bootstrap(), "race", 1, &dir.path().join("read"))?;
    let text = String::from_utf8(read.concat())?;
    let mut racers: Vec<_> =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(_, value)| value).collect();
    racers.sort_unstable();
    let mut expected: Vec<_> = (0..RACERS).map(|number| format!("racer {number}")).collect();
    expected.sort_unstable();
    assert_eq!(racers, expected);
    let directories = std::fs::read_dir(broker.data())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    assert_eq!(directories.iter().filter(|name| name.starts_with("race")).count(), 1, "{directories:?}");
    Ok(())
}

/// What the broker says of `topic`, which it may create.
fn described(connection: &mut client::Client, topic: &str) -> anyhow::Result<MetadataResponseTopic> {
    let asked = MetadataRequestTopic { name: Some(topic.into()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![asked]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let mut response = connection.call(12, &request)?;
    ensure!(response.topics.len() == 1, "{} topics instead of one", response.topics.len());
    response.topics.pop().context("there is one")
}
