//! Fetch sessions (KIP-227): a consumer names its partitions once, and then sends and gets only what changed.

use anyhow::ensure;
use highwater_protocol::api::FetchResponse;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use highwater_protocol::wire::{Str, Uuid};

use crate::faults::batches::plain_batch;
use crate::faults::client::{Connection, name_of};
use crate::harness::served::Served;
use crate::harness::wait;

const TOPIC: &str = "followed";
/// The newest version that names topics.
const BY_NAME: i16 = 12;
const BY_ID: i16 = 17;
const MIB: i32 = 1 << 20;
/// Longer than any test runs: a fetch that is answered was answered for another reason.
const FOR_EVER_MS: i32 = 600_000;

/// A broker with a topic, and a consumer's connection.
struct Consumed {
    served: Served,
    consumer: Connection,
    topic_id: Uuid,
}

/// What an answer says of a partition: its number, the name of its error, its records' bytes, its high watermark.
type Said = (i32, &'static str, usize, i64);

/// A fetch of a session.
struct Poll {
    version: i16,
    session: (i32, i32),
    topics: Vec<FetchTopic>,
    forgotten: Vec<ForgottenTopic>,
    wait_ms: i32,
    bytes_min: i32,
    bytes_max: i32,
}

impl Poll {
    /// A fetch that asks for nothing new and does not wait.
    fn of(session: (i32, i32)) -> Self {
        let (topics, forgotten) = (Vec::new(), Vec::new());
        Self { version: BY_NAME, session, topics, forgotten, wait_ms: 0, bytes_min: 1, bytes_max: 8 * MIB }
    }

    /// A full fetch of partitions from offset 0.
    fn full(partitions: impl IntoIterator<Item = i32>) -> Self {
        Self::of((0, 0)).with(TOPIC, partitions.into_iter().map(|index| (index, 0)))
    }

    /// Asks for partitions of a topic from these offsets on.
    fn with(mut self, topic: &str, partitions: impl IntoIterator<Item = (i32, i64)>) -> Self {
        let partitions = asks(partitions);
        self.topics.push(FetchTopic { topic: Str::from(topic), partitions, ..FetchTopic::default() });
        self
    }

    /// The same by the topic's id.
    fn with_id(mut self, topic_id: Uuid, partitions: impl IntoIterator<Item = (i32, i64)>) -> Self {
        self.version = BY_ID;
        let partitions = asks(partitions);
        self.topics.push(FetchTopic { topic_id, partitions, ..FetchTopic::default() });
        self
    }

    fn without(mut self, partitions: impl IntoIterator<Item = i32>) -> Self {
        let partitions = partitions.into_iter().collect();
        self.forgotten.push(ForgottenTopic {
            topic: Str::from(TOPIC),
            partitions,
            ..ForgottenTopic::default()
        });
        self
    }

    fn version(self, version: i16) -> Self {
        Self { version, ..self }
    }

    fn waiting(self, bytes_min: i32) -> Self {
        Self { bytes_min, wait_ms: FOR_EVER_MS, ..self }
    }

    fn request(self) -> FetchRequest {
        FetchRequest {
            max_wait_ms: self.wait_ms,
            min_bytes: self.bytes_min,
            max_bytes: self.bytes_max,
            session_id: self.session.0,
            session_epoch: self.session.1,
            topics: self.topics,
            forgotten_topics_data: self.forgotten,
            ..FetchRequest::default()
        }
    }
}

fn asks(partitions: impl IntoIterator<Item = (i32, i64)>) -> Vec<FetchPartition> {
    let ask = |(partition, fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: MIB,
        ..FetchPartition::default()
    };
    partitions.into_iter().map(ask).collect()
}

impl Consumed {
    fn start(partitions: i32) -> anyhow::Result<Self> {
        let served = Served::start(&[])?;
        let mut consumer = served.connect()?;
        let topic_id = consumer.create_topic(TOPIC, partitions, &[])?;
        Ok(Self { served, consumer, topic_id })
    }

    fn poll(&mut self, poll: Poll) -> anyhow::Result<FetchResponse> {
        let version = poll.version;
        Ok(self.consumer.call(version, &poll.request())?)
    }

    /// A session over partitions that are empty and known; its id.
    fn session(&mut self, poll: Poll) -> anyhow::Result<i32> {
        let answer = self.poll(poll)?;
        ensure!(answer.error_code == 0 && answer.session_id > 0, "no session was opened: {answer:?}");
        Ok(answer.session_id)
    }

    fn produce(&self, partition: i32, value_bytes: usize) -> anyhow::Result<()> {
        let answer = self.served.connect()?.produce(TOPIC, partition, plain_batch(0, value_bytes))?;
        ensure!(answer.error_code == 0, "the batch was refused: {answer:?}");
        Ok(())
    }

    fn delete(&mut self) -> anyhow::Result<()> {
        self.served.connect()?.delete_topic(TOPIC)
    }

    fn metric(&self, name: &str) -> anyhow::Result<u64> {
        self.served.metric(name)
    }

    /// Sends a poll on a connection of its own and returns once `parked` fetches are parked.
    fn park(&self, poll: Poll, parked: u64) -> anyhow::Result<Connection> {
        let mut connection = self.served.connect()?;
        connection.send(poll.version, &poll.request())?;
        wait::until("a parked fetch", || Ok(self.metric("highwater_fetches_parked")? == parked))?;
        Ok(connection)
    }
}

/// What an answer says, in its order.
fn said(answer: &FetchResponse) -> Vec<Said> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let said = partitions.map(|data| {
        let bytes = data.records.bytes().map_or(0, |bytes| bytes.len());
        (data.partition_index, name_of(data.error_code), bytes, data.high_watermark)
    });
    said.collect()
}

/// The partitions of an answer, in its order.
fn numbers(answer: &FetchResponse) -> Vec<i32> {
    said(answer).into_iter().map(|(number, ..)| number).collect()
}

fn error(answer: &FetchResponse) -> (&'static str, i32, usize) {
    (name_of(answer.error_code), answer.session_id, answer.responses.len())
}

#[test]
fn an_incremental_answer_has_only_what_changed() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(3)?;
    let answer = consumed.poll(Poll::full(0..3))?;
    let id = answer.session_id;
    assert_eq!(said(&answer), [(0, "NONE", 0, 0), (1, "NONE", 0, 0), (2, "NONE", 0, 0)]);

    assert_eq!(said(&consumed.poll(Poll::of((id, 1)))?), []);
    consumed.produce(1, 100)?;
    let answer = consumed.poll(Poll::of((id, 2)))?;
    assert_eq!(answer.session_id, id);
    let [(1, "NONE", bytes, 1)] = said(&answer)[..] else { panic!("{answer:?}") };
    assert!(bytes > 100, "{bytes} bytes");

    // The client did not move on: the records are sent again. Then it does, and there is nothing to say.
    assert_eq!(numbers(&consumed.poll(Poll::of((id, 3)))?), [1]);
    assert_eq!(said(&consumed.poll(Poll::of((id, 4)).with(TOPIC, [(1, 1)]))?), []);
    assert_eq!(said(&consumed.poll(Poll::of((id, 5)))?), []);
    Ok(())
}

#[test]
fn a_session_parks_and_wakes_for_any_of_its_partitions() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(3)?;
    let id = consumed.session(Poll::full(0..3))?;

    let mut parked = consumed.park(Poll::of((id, 1)).waiting(1), 1)?;
    consumed.produce(2, 100)?;

    let (_, answer) = parked.receive::<FetchResponse>(BY_NAME)?;
    assert_eq!(numbers(&answer), [2]);
    assert_eq!(consumed.metric("highwater_fetch_wakes_total")?, 1);
    Ok(())
}

#[test]
fn a_session_wakes_at_its_least_number_of_bytes_over_all_partitions() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(3)?;
    let id = consumed.session(Poll::full(0..3))?;
    let mut parked = consumed.park(Poll::of((id, 1)).waiting(30_000), 1)?;

    for partition in [0, 1, 2] {
        consumed.produce(partition, 10_000)?;
    }

    let (_, answer) = parked.receive::<FetchResponse>(BY_NAME)?;
    assert_eq!(numbers(&answer), [0, 1, 2]);
    assert_eq!(consumed.metric("highwater_fetch_wakes_total")?, 1);
    Ok(())
}

#[test]
fn a_request_out_of_order_is_refused_and_moves_nothing() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let id = consumed.session(Poll::full([0]))?;

    for epoch in [2, 7, -2, i32::MAX] {
        let answer = consumed.poll(Poll::of((id, epoch)))?;
        assert_eq!(error(&answer), ("INVALID_FETCH_SESSION_EPOCH", 0, 0), "epoch {epoch}");
    }
    let answer = consumed.poll(Poll::of((id, 1)))?;
    assert_eq!(error(&answer), ("NONE", id, 0));
    let answer = consumed.poll(Poll::of((id, 1)))?;
    assert_eq!(error(&answer), ("INVALID_FETCH_SESSION_EPOCH", 0, 0), "an epoch serves once");
    Ok(())
}

#[test]
fn a_session_that_does_not_exist_is_refused() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;

    for session in [(1, 1), (0, 1), (-5, 3), (i32::MAX, i32::MAX)] {
        let answer = consumed.poll(Poll::of(session).with(TOPIC, [(0, 0)]))?;
        assert_eq!(error(&answer), ("FETCH_SESSION_ID_NOT_FOUND", 0, 0), "session {session:?}");
    }
    Ok(())
}

#[test]
fn the_final_epoch_opens_no_session_and_closes_the_one_it_names() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let sessionless = |session| Poll { session, ..Poll::full([0]) };

    assert_eq!(consumed.poll(sessionless((0, -1)))?.session_id, 0);
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 0);
    let id = consumed.session(Poll::full([0]))?;
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 1);
    let answer = consumed.poll(sessionless((id, -1)))?;

    assert_eq!((answer.session_id, numbers(&answer)), (0, vec![0]));
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 0);
    assert_eq!(error(&consumed.poll(Poll::of((id, 1)))?), ("FETCH_SESSION_ID_NOT_FOUND", 0, 0));
    Ok(())
}

#[test]
fn the_first_epoch_closes_the_session_it_names_and_opens_another() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(2)?;
    let first = consumed.session(Poll::full([0]))?;

    let second = consumed.session(Poll { session: (first, 0), ..Poll::full([1]) })?;

    assert_ne!(first, second);
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 1);
    assert_eq!(consumed.metric("highwater_fetch_session_partitions")?, 1);
    assert_eq!(error(&consumed.poll(Poll::of((first, 1)))?), ("FETCH_SESSION_ID_NOT_FOUND", 0, 0));
    assert_eq!(error(&consumed.poll(Poll::of((second, 1)))?), ("NONE", second, 0));
    Ok(())
}

#[test]
fn versions_before_sessions_have_none() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;

    let answer = consumed.poll(Poll::full([0]).version(6))?;

    assert_eq!(numbers(&answer), [0]);
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 0);
    Ok(())
}

#[test]
fn a_session_keeps_to_names_or_to_ids() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let by_name = consumed.session(Poll::full([0]))?;
    let topic_id = consumed.topic_id;
    let by_id = consumed.session(Poll::of((0, 0)).with_id(topic_id, [(0, 0)]))?;

    let answer = consumed.poll(Poll::of((by_name, 1)).version(BY_ID))?;
    assert_eq!(error(&answer), ("FETCH_SESSION_TOPIC_ID_ERROR", 0, 0));
    let answer = consumed.poll(Poll::of((by_id, 1)).version(BY_NAME))?;
    assert_eq!(error(&answer), ("FETCH_SESSION_TOPIC_ID_ERROR", 0, 0));

    consumed.produce(0, 100)?;
    assert_eq!(numbers(&consumed.poll(Poll::of((by_name, 1)))?), [0]);
    let answer = consumed.poll(Poll::of((by_id, 1)).version(BY_ID))?;
    assert_eq!(answer.responses.first().map(|topic| topic.topic_id), Some(topic_id));
    Ok(())
}

#[test]
fn forgotten_partitions_leave_and_the_last_one_closes_the_session() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(3)?;
    let id = consumed.session(Poll::full(0..3))?;

    consumed.poll(Poll::of((id, 1)).without([0, 2]))?;
    assert_eq!(consumed.metric("highwater_fetch_session_partitions")?, 1);
    for partition in 0..3 {
        consumed.produce(partition, 100)?;
    }
    assert_eq!(numbers(&consumed.poll(Poll::of((id, 2)))?), [1]);
    let answer = consumed.poll(Poll::of((id, 3)).without([1]))?;

    assert_eq!(error(&answer), ("NONE", 0, 0));
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 0);
    Ok(())
}

#[test]
fn partitions_that_had_records_wait_until_the_others_had_their_turn() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(3)?;
    let id = consumed.session(Poll::full(0..3))?;
    for partition in 0..3 {
        consumed.produce(partition, 1000)?;
        consumed.produce(partition, 1000)?;
    }
    // Room for one batch, which may exceed it.
    let narrow = |epoch| Poll { bytes_max: 100, ..Poll::of((id, epoch)) };
    let with_records = |answer: &FetchResponse| {
        let said = said(answer).into_iter();
        said.filter(|(_, _, bytes, _)| *bytes > 0).map(|(number, ..)| number).collect::<Vec<_>>()
    };

    let mut turns = Vec::new();
    for epoch in 1..=3 {
        turns.extend(with_records(&consumed.poll(narrow(epoch))?));
    }

    assert_eq!(turns, [0, 1, 2]);
    Ok(())
}

#[test]
fn an_error_is_told_until_it_is_over() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let id = consumed.session(Poll::full([0]).with("later", [(0, 0)]))?;
    let unknown = [(0, "UNKNOWN_TOPIC_OR_PARTITION", 0, -1)];

    assert_eq!(said(&consumed.poll(Poll::of((id, 1)).waiting(1))?), unknown);
    assert_eq!(said(&consumed.poll(Poll::of((id, 2)).waiting(1))?), unknown);
    consumed.served.connect()?.create_topic("later", 1, &[])?;

    assert_eq!(said(&consumed.poll(Poll::of((id, 3)))?), [(0, "NONE", 0, 0)]);
    assert_eq!(said(&consumed.poll(Poll::of((id, 4)))?), []);
    Ok(())
}

#[test]
fn a_deleted_topic_is_unknown_to_its_sessions_and_wakes_them() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(2)?;
    let by_name = consumed.session(Poll::full(0..2))?;
    let by_id = consumed.session(Poll::of((0, 0)).with_id(consumed.topic_id, [(0, 0), (1, 0)]))?;
    let stranger = Uuid::from_bytes([7; 16]);
    let of_nothing = consumed.session(Poll::of((0, 0)).with_id(stranger, [(0, 0)]))?;
    let mut named = consumed.park(Poll::of((by_name, 1)).waiting(1), 1)?;
    let mut identified = consumed.park(Poll::of((by_id, 1)).version(BY_ID).waiting(1), 2)?;

    consumed.delete()?;

    let gone = [(0, "UNKNOWN_TOPIC_OR_PARTITION", 0, -1), (1, "UNKNOWN_TOPIC_OR_PARTITION", 0, -1)];
    // The first partition that goes wakes the fetch; the others may be told of by the next one.
    let (_, answer) = named.receive::<FetchResponse>(BY_NAME)?;
    assert!(gone.starts_with(&said(&answer)) && !said(&answer).is_empty(), "{answer:?}");
    let (_, answer) = identified.receive::<FetchResponse>(BY_ID)?;
    assert!(gone.starts_with(&said(&answer)) && !said(&answer).is_empty(), "{answer:?}");
    assert_eq!(said(&consumed.poll(Poll::of((by_name, 2)))?), gone);
    assert_eq!(said(&consumed.poll(Poll::of((by_id, 2)).version(BY_ID))?), gone);
    let answer = consumed.poll(Poll::of((of_nothing, 1)).version(BY_ID))?;
    assert_eq!(said(&answer), [(0, "UNKNOWN_TOPIC_ID", 0, -1)]);
    // The client forgets them, as clients do, and hears no more of them.
    assert_eq!(error(&consumed.poll(Poll::of((by_name, 3)).without([0, 1]))?), ("NONE", 0, 0));
    Ok(())
}

#[test]
fn a_session_by_id_does_not_read_the_next_topic_of_that_name() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let by_name = consumed.session(Poll::full([0]))?;
    let by_id = consumed.session(Poll::of((0, 0)).with_id(consumed.topic_id, [(0, 0)]))?;
    consumed.delete()?;
    consumed.served.connect()?.create_topic(TOPIC, 1, &[])?;
    consumed.produce(0, 100)?;

    let answer = consumed.poll(Poll::of((by_id, 1)).version(BY_ID))?;
    assert_eq!(said(&answer), [(0, "INCONSISTENT_TOPIC_ID", 0, -1)]);
    let answer = consumed.poll(Poll::of((by_name, 1)))?;

    let [(0, "NONE", 1.., 1)] = said(&answer)[..] else { panic!("{answer:?}") };
    Ok(())
}

#[test]
fn a_session_that_nobody_polls_keeps_no_file_of_a_deleted_topic() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    consumed.produce(0, 100)?;
    let id = consumed.session(Poll::full([0]))?;
    assert_eq!(numbers(&consumed.poll(Poll::of((id, 1)))?), [0]);
    let files = std::path::PathBuf::from(format!("/proc/{}/fd", consumed.served.broker.pid()));
    let open_files = || {
        // A descriptor may be closed between the listing and the look at it.
        let names = std::fs::read_dir(&files)?.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        Ok::<_, anyhow::Error>(names.filter(|name| name.to_string_lossy().contains("followed-0")).count())
    };
    ensure!(open_files()? > 0, "the partition's files are open while it is there");

    consumed.delete()?;

    wait::until("the files to be closed", || Ok(open_files()? == 0))?;
    assert_eq!(consumed.metric("highwater_fetch_sessions")?, 1);
    Ok(())
}

#[test]
fn of_two_requests_of_a_session_at_once_the_later_one_goes_on() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let id = consumed.session(Poll::full([0]))?;
    let mut earlier = consumed.park(Poll::of((id, 1)).waiting(1), 1)?;

    let mut later = consumed.served.connect()?;
    later.send(BY_NAME, &Poll::of((id, 2)).waiting(1).request())?;

    let (_, answer) = earlier.receive::<FetchResponse>(BY_NAME)?;
    assert_eq!(error(&answer), ("INVALID_FETCH_SESSION_EPOCH", id, 0));
    consumed.produce(0, 100)?;
    let (_, answer) = later.receive::<FetchResponse>(BY_NAME)?;
    assert_eq!((answer.error_code, numbers(&answer)), (0, vec![0]));
    Ok(())
}

#[test]
fn a_session_outlives_its_connection() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    let id = consumed.session(Poll::full([0]))?;
    let parked = consumed.park(Poll::of((id, 1)).waiting(1), 1)?;
    drop(parked);
    wait::until("the fetch to be dropped", || Ok(consumed.metric("highwater_fetches_parked")? == 0))?;
    consumed.produce(0, 100)?;

    consumed.consumer = consumed.served.connect()?;

    assert_eq!(numbers(&consumed.poll(Poll::of((id, 2)))?), [0]);
    Ok(())
}

#[test]
fn a_session_that_outgrows_the_broker_is_given_up_and_full_fetches_are_served() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(1)?;
    // More partitions than all sessions together may have; most of them do not exist.
    let many = || Poll::full(0..200_001);

    let answer = consumed.poll(many())?;
    assert_eq!((answer.session_id, numbers(&answer).len()), (0, 200_001));
    let id = consumed.session(Poll::full([0]))?;
    let answer = consumed.poll(Poll { session: (id, 1), ..many() })?;

    assert_eq!(error(&answer), ("FETCH_SESSION_ID_NOT_FOUND", 0, 0));
    assert_eq!(consumed.metric("highwater_fetch_session_partitions")?, 0);
    Ok(())
}

#[test]
fn an_idle_poll_of_five_hundred_partitions_looks_at_none_of_them() -> anyhow::Result<()> {
    let mut consumed = Consumed::start(500)?;
    let id = consumed.session(Poll::full(0..500))?;
    // The first poll of a session looks at all of them once, since they were not watched before it.
    assert_eq!(said(&consumed.poll(Poll::of((id, 1)))?), []);
    let before = consumed.metric("highwater_fetch_partitions_read_total")?;

    for epoch in 2..50 {
        assert_eq!(said(&consumed.poll(Poll { wait_ms: 1, ..Poll::of((id, epoch)) })?), []);
    }
    assert_eq!(consumed.metric("highwater_fetch_partitions_read_total")?, before);
    consumed.produce(321, 100)?;
    assert_eq!(numbers(&consumed.poll(Poll::of((id, 50)))?), [321]);

    assert_eq!(consumed.metric("highwater_fetch_partitions_read_total")?, before + 1);
    Ok(())
}
