//! Requests that ask for too much: partitions, names, producer ids, and what only a replica may see.
//!
//! The full counts are `HIGHWATER_NAMES=10000 HIGHWATER_PRODUCER_IDS=1000000`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData, ReplicaState};
use highwater_protocol::api::metadata::MetadataRequestTopic;
use highwater_protocol::api::{InitProducerIdRequest, MetadataRequest, ProduceResponse};
use highwater_protocol::wire::{Str, Uuid};
use highwater_record::{Codec, Producer, ProducerEpoch, ProducerId, Sequence, TopicName};
use tempfile::TempDir;

use crate::harness::broker::{Broker, Options};
use crate::harness::process::anonymous_bytes;
use crate::harness::served::Served;
use crate::harness::skip::or_skip;
use crate::harness::strace::{self, Tampering};
use crate::harness::wait;

use super::batches::{Stamped, batch_of, plain_batch};
use super::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request};
use super::history::Stamp;
use super::random::Random;
use super::setting::{count, say, seed};

const TOPIC: &str = "greed";
/// Partitions that one request may create.
const PARTITIONS_MAX: usize = 1000;

/// The names in a directory.
fn names_in(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

/// Asks for topics; the codes, and the sentence of the first.
fn create(connection: &mut Connection, topics: Vec<CreatableTopic>) -> anyhow::Result<(Vec<i16>, String)> {
    let asked = topics.len();
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..CreateTopicsRequest::default() };
    let answer = connection.call(7, &request)?;
    ensure!(answer.topics.len() == asked, "{} of {asked} topics are answered", answer.topics.len());
    let sentence = answer.topics.first().and_then(|topic| topic.error_message.as_ref());
    let sentence = sentence.map(|sentence| sentence.as_str().to_owned()).unwrap_or_default();
    Ok((answer.topics.into_iter().map(|topic| topic.error_code).collect(), sentence))
}

#[test]
fn a_request_for_too_many_partitions_is_refused_and_makes_nothing() -> anyhow::Result<()> {
    let served = Served::start(&[])?;
    let mut connection = served.connect()?;
    let before = names_in(served.broker.data())?;
    let assigned = CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: (0..=1000)
            .map(|partition_index| CreatableReplicaAssignment { partition_index, broker_ids: vec![1] })
            .collect(),
        ..topic("assigned", -1)
    };

    for (what, topics) in [
        ("a topic of a million partitions", vec![topic("wide", 1_000_000)]),
        ("a topic of 2^31 - 1 partitions", vec![topic("wide", i32::MAX)]),
        ("1001 partitions in two topics", vec![topic("first", 1000), topic("second", 1)]),
        ("1001 assignments", vec![assigned]),
        ("200000 topics", (0..200_000).map(|n| topic(&format!("t{n}"), 1)).collect()),
    ] {
        let began = Instant::now();
        let (codes, sentence) = create(&mut connection, topics)?;
        say(&format!("{what}: refused within {:?}: {sentence}", began.elapsed()));
        let policy = ErrorCode::PolicyViolation.code();
        ensure!(codes.iter().all(|code| *code == policy), "{what} is answered {}", name_of(codes[0]));
        ensure!(sentence.contains("one request may create 1000"), "{what} is refused with {sentence:?}");
    }
    // More topics than a request may have elements.
    let million = (0..1_000_000).map(|n| topic(&n.to_string(), 1)).collect();
    let hung_up = create(&mut served.connect()?, million);
    ensure!(hung_up.is_err(), "a million topics are answered {hung_up:?}");

    let metadata = connection.call(9, &MetadataRequest { topics: None, ..MetadataRequest::default() })?;
    ensure!(metadata.topics.is_empty(), "{} topics exist", metadata.topics.len());
    ensure!(
        names_in(served.broker.data())? == before,
        "the data directory holds {:?}",
        names_in(served.broker.data())?
    );
    ensure!(
        names_in(served.directory())?.len() == 2,
        "beside the data lie {:?}",
        names_in(served.directory())?
    );
    let (codes, _) = create(&mut connection, vec![topic("wide", PARTITIONS_MAX as i32)])?;
    ensure!(codes == [0], "a topic of {PARTITIONS_MAX} partitions is refused with {}", name_of(codes[0]));
    Ok(())
}

#[test]
fn one_metadata_request_creates_a_bounded_number_of_topics() -> anyhow::Result<()> {
    let served = Served::start(&["--durability", "os"])?;
    let mut connection = served.connect()?;
    let asked = |n| MetadataRequestTopic {
        name: Some(Str::from(format!("wanted-{n}"))),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some((0..PARTITIONS_MAX + 200).map(asked).collect()),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };

    let mut created = Vec::new();
    for _ in 0..2 {
        let answer = connection.call(9, &request)?;
        created.push(answer.topics.iter().filter(|topic| topic.error_code == 0).count());
    }

    assert_eq!(created, [PARTITIONS_MAX, PARTITIONS_MAX + 200]);
    Ok(())
}

/// A name that means harm, or might be legal.
fn hostile_name(random: &mut Random) -> String {
    const PIECES: [&str; 24] = [
        ".",
        "..",
        "/",
        "../",
        "..\\",
        "etc/passwd",
        "\0",
        "%2e%2e%2f",
        "a",
        "Z",
        "0",
        "_",
        "-",
        "-0",
        "é",
        "\u{202e}",
        "\n",
        " ",
        "~",
        "LOCK",
        "checkpoint",
        "__cluster_metadata",
        ".log",
        "x.5f5e1f00aaaa-delete",
    ];
    let mut name = match random.below(8) {
        0 => (*random.choose(&["", ".", "..", "LOCK", "__cluster_metadata", "__consumer_offsets", "-0"]))
            .to_owned(),
        1 => "n".repeat(245 + random.below(8) as usize),
        _ => String::new(),
    };
    for _ in 0..random.below(6) {
        name.push_str(random.choose::<&str>(&PIECES));
    }
    // Every other name is told apart from the others, so that legal ones are new ones.
    if random.below(2) == 0 { format!("{name}{}", random.below(1 << 32)) } else { name }
}

/// Kafka's rule, said once more.
fn is_legal(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal)
}

#[test]
fn no_name_makes_a_file_where_none_belongs() -> anyhow::Result<()> {
    let seed = seed()?;
    let mut random = Random::new(seed);
    let served = Served::start(&["--durability", "os"])?;
    let own = names_in(served.broker.data())?;
    let mut connection = served.connect()?;
    let invalid = ErrorCode::InvalidTopicException.code();
    let mut made: BTreeSet<TopicName> = BTreeSet::new();

    let names: Vec<String> =
        (0..count("HIGHWATER_NAMES", 2000)?).map(|_| hostile_name(&mut random)).collect();
    for (round, names) in names.chunks(50).enumerate() {
        let distinct: BTreeSet<&String> = names.iter().collect();
        let answers: Vec<(String, i16)> = if round % 2 == 0 {
            let topics = distinct.iter().map(|name| topic(name, 1)).collect();
            let (codes, _) = create(&mut connection, topics)?;
            distinct.into_iter().cloned().zip(codes).collect()
        } else {
            create_by_asking(&mut connection, &distinct)?
        };
        let asked: Vec<TopicName> = names.iter().filter_map(|name| TopicName::new(name).ok()).collect();
        for (name, code) in answers {
            let answered = || format!("seed {seed}: {name:?} is answered {}", name_of(code));
            if !is_legal(&name) {
                ensure!(code == invalid, answered());
                continue;
            }
            let topic = TopicName::new(&name)?;
            // Names that differ in a dot alone are refused, and so are the broker's own.
            let is_free = !topic.is_internal()
                && !made.iter().chain(&asked).any(|other| topic.collides_with(other))
                && !made.contains(&topic);
            ensure!(code == 0 || !is_free, answered());
            ensure!(code != 0 || !topic.is_internal(), answered());
            if code == 0 {
                // The first record makes the directory.
                let answer = connection.produce(&name, 0, plain_batch(0, 10))?;
                ensure!(answer.error_code == 0, "seed {seed}: a topic {name:?} takes no record: {answer:?}");
                made.insert(topic);
            }
        }
    }

    say(&format!("seed {seed}: {} names, {} of them made a topic", names.len(), made.len()));
    ensure!(
        names_in(served.directory())?.len() == 2,
        "beside the data lie {:?}",
        names_in(served.directory())?
    );
    ensure!(
        made.len() > names.len() / 20,
        "seed {seed}: {} names of {} made a topic",
        made.len(),
        names.len()
    );
    let made: BTreeSet<String> = made.iter().map(|topic| format!("{topic}-0")).collect();
    let expected: BTreeSet<String> = own.union(&made).cloned().collect();
    let found = names_in(served.broker.data())?;
    let strange: Vec<_> = found.difference(&expected).filter(|name| *name != "checkpoint").collect();
    ensure!(strange.is_empty(), "seed {seed}: the data directory holds {strange:?}");
    ensure!(made.is_subset(&found), "seed {seed}: topics without a directory");
    Ok(())
}

/// Creates topics by asking for their metadata; each name with its code.
fn create_by_asking(
    connection: &mut Connection,
    names: &BTreeSet<&String>,
) -> anyhow::Result<Vec<(String, i16)>> {
    let asked = |name: &&String| MetadataRequestTopic {
        name: Some(Str::from(name.as_str())),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(names.iter().map(asked).collect()),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let answer = connection.call(9, &request)?;
    let named = answer.topics.into_iter().map(|topic| {
        let name = topic.name.context("the answer names the topic")?;
        // The broker's own names are unknown to those who ask.
        let code = if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() && name.starts_with("__")
        {
            ErrorCode::InvalidTopicException.code()
        } else {
            topic.error_code
        };
        Ok((name.as_str().to_owned(), code))
    });
    named.collect()
}

#[test]
fn producer_ids_can_be_asked_for_without_end() -> anyhow::Result<()> {
    const IN_FLIGHT: u64 = 100;
    const GROWTH_BYTES_MAX: u64 = 8 << 20;
    let wanted = count("HIGHWATER_PRODUCER_IDS", 20_000)?;
    let served = Served::start(&["--durability", "os"])?;
    let mut connection = served.connect()?;
    connection.create_topic(TOPIC, 1, &[])?;
    connection.init_producer()?;
    let before = anonymous_bytes(served.broker.pid())?;

    let mut last = -1;
    for _ in 0..wanted.div_ceil(IN_FLIGHT) {
        for _ in 0..IN_FLIGHT {
            connection.send(4, &InitProducerIdRequest::default())?;
        }
        for _ in 0..IN_FLIGHT {
            let (_, answer) = connection.receive::<highwater_protocol::api::InitProducerIdResponse>(4)?;
            ensure!(answer.error_code == 0 && answer.producer_id > last, "after id {last} comes {answer:?}");
            last = answer.producer_id;
        }
    }
    let handed_out = anonymous_bytes(served.broker.pid())?.saturating_sub(before);
    // Each batch claims to be of another producer: the log remembers a bounded number of them.
    for id in 0..wanted as i64 {
        connection.send(PRODUCE_VERSION, &produce_request(TOPIC, [(0, first_batch(id))]))?;
        if id % IN_FLIGHT as i64 == 99 {
            for _ in 0..IN_FLIGHT {
                let (_, answer) = connection.receive::<ProduceResponse>(PRODUCE_VERSION)?;
                let answer = answers_of(answer).pop().context("the answer names the partition")?;
                ensure!(answer.error_code == 0, "the batch of producer {id} is refused: {answer:?}");
            }
        }
    }
    let grown = anonymous_bytes(served.broker.pid())?.saturating_sub(before);

    say(&format!(
        "{wanted} producer ids cost {} KiB, with a batch of each {} KiB",
        handed_out >> 10,
        grown >> 10
    ));
    ensure!(handed_out < GROWTH_BYTES_MAX, "{wanted} producer ids cost {handed_out} bytes");
    ensure!(grown < 2 * GROWTH_BYTES_MAX, "{wanted} producers cost {grown} bytes");
    Ok(())
}

fn first_batch(id: i64) -> bytes::Bytes {
    let producer = Producer {
        id: ProducerId::new(id).expect("ids of tests are not negative"),
        epoch: ProducerEpoch::new(0).expect("0 is an epoch"),
        base_sequence: Some(Sequence::ZERO),
    };
    let stamp = Stamp { session: 1, counter: id as u32 };
    batch_of(Codec::None, Some(producer), &[Stamped { key: 0, stamp, value_bytes: 10 }])
}

/// How long a sync takes in the test below, in microseconds.
const SYNC_US: u64 = 5_000_000;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn whoever_claims_to_be_a_replica_sees_what_a_consumer_sees() -> anyhow::Result<()> {
    if or_skip(strace::available())?.is_none() {
        return Ok(());
    }
    let directory = TempDir::new()?;
    let data = directory.path().canonicalize()?.join("data");
    let segment = data.join(format!("{TOPIC}-0/00000000000000000000.log"));
    let injection = format!("delay_enter={SYNC_US}");
    let (files, trace) = ([segment.clone()], Path::new("/dev/null"));
    let slow = Tampering { calls: "fsync,fdatasync", injection: &injection, files: &files, trace };
    let broker = Broker::start(Options::new(&data).under(slow.wrapper()))?;
    let mut producer = Connection::open(broker.address())?;
    let id = producer.create_topic(TOPIC, 1, &[])?;
    let mut replica = Connection::open(broker.address())?;

    for attempt in 0..10 {
        let first = producer.latest_offset(TOPIC, 0)?.context("the partition has an end")?;
        let began = Instant::now();
        let file_bytes = || std::fs::metadata(&segment).map_or(0, |file| file.len());
        let before = file_bytes();
        producer.send(PRODUCE_VERSION, &produce_request(TOPIC, [(0, plain_batch(attempt, 100))]))?;
        wait::until("the batch in the file", || Ok(file_bytes() > before))?;

        let seen = fetch_as_replica(&mut replica, id, first)?;
        let in_time = began.elapsed() < Duration::from_micros(SYNC_US);
        let (_, answer) = producer.receive::<ProduceResponse>(PRODUCE_VERSION)?;
        ensure!(answers_of(answer)[0].error_code == 0, "the batch is refused");
        if !in_time {
            continue;
        }
        for (version, data) in seen {
            ensure!(data.high_watermark == first, "a replica of version {version} is told {data:?}");
            let bytes = data.records.bytes().map_or(0, |bytes| bytes.len());
            ensure!(bytes == 0, "a replica of version {version} is given {bytes} bytes that are not durable");
        }
        for (version, data) in fetch_as_replica(&mut replica, id, first)? {
            ensure!(data.high_watermark == first + 1, "a replica of version {version} is told {data:?}");
            ensure!(data.records.bytes().is_some_and(|bytes| !bytes.is_empty()), "{version}: {data:?}");
        }
        return Ok(());
    }
    anyhow::bail!("ten times a sync was over before four fetches were")
}

/// What the versions with each form of the replica's id and of the topic's name are answered.
fn fetch_as_replica(
    connection: &mut Connection,
    topic_id: Uuid,
    fetch_offset: i64,
) -> anyhow::Result<Vec<(i16, PartitionData)>> {
    let fetch = |version: i16| {
        let partition =
            FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
        let (named, stated) = (version < 13, version >= 15);
        let topic = FetchTopic {
            topic: if named { Str::from(TOPIC) } else { Str::default() },
            topic_id: if named { Uuid::ZERO } else { topic_id },
            partitions: vec![partition],
        };
        let replica_state = ReplicaState { replica_id: 1, replica_epoch: 1 };
        let request = FetchRequest {
            replica_id: if stated { -1 } else { 1 },
            replica_state: if stated { replica_state } else { ReplicaState::default() },
            max_bytes: 1 << 20,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let answer = connection.call(version, &request)?;
        let data = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        Ok((version, data.context("the answer names the partition")?))
    };
    [4, 12, 14, 18].into_iter().map(fetch).collect()
}
