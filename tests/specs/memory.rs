//! The memory budget, seen from clients: whoever wants memory that is not there waits, and gets its turn.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use highwater_protocol::api::join_group::JoinGroupRequestProtocol;
use highwater_protocol::api::{FetchResponse, JoinGroupRequest, JoinGroupResponse, ProduceResponse};
use highwater_protocol::wire::Str;
use highwater_protocol::{ErrorCode, SIZE_PREFIX_BYTES, decode_response, encode_request};
use highwater_record::{BatchBuilder, Codec, NewRecord, TimestampMs};
use tempfile::TempDir;

use crate::faults::batches::plain_batch;
use crate::faults::client::{Connection, PRODUCE_VERSION, answers_of, produce_request};
use crate::faults::setting::say;
use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::metric;
use crate::harness::process::{anonymous_bytes, resident_peak_bytes};
use crate::harness::wait;
use crate::harness::wire::read_frame;

const TOPIC: &str = "memory";
const FETCH_VERSION: i16 = 12;
const MIB: u64 = 1 << 20;
/// How long whoever waits for memory is willing to.
const PATIENCE: Duration = Duration::from_secs(240);
/// Whoever dawdles with memory that others wait for is gone by then.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);

struct Served {
    _directory: TempDir,
    broker: Broker,
}

impl Served {
    /// A broker with a budget of `mib` MiB, and a topic whose batches may be large.
    fn start(mib: u64, partitions: i32) -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        let options = Options::new(&directory.path().join("data"));
        let broker = Broker::start(options.flags(&["--durability", "os", "--memory", &format!("{mib}MiB")]))?;
        let large = [("max.message.bytes", "33554432")];
        Connection::open(broker.address())?.create_topic(TOPIC, partitions, &large)?;
        Ok(Self { _directory: directory, broker })
    }

    fn address(&self) -> SocketAddr {
        self.broker.address()
    }

    fn read(&self, name: &str) -> anyhow::Result<u64> {
        metric(self.address(), &format!("highwater_memory_{name}"))
    }
}

/// The frame of a produce request with one batch, with its length.
fn produce_frame(partition: i32, value_bytes: usize) -> anyhow::Result<Bytes> {
    let request = produce_request(TOPIC, [(partition, plain_batch(0, value_bytes))]);
    Ok(encode_request(1, None, PRODUCE_VERSION, &request)?)
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Waits for the answer to a produce request with one batch.
fn acknowledged(stream: &mut TcpStream) -> anyhow::Result<i64> {
    let frame = read_frame(stream)?.context("the broker hung up")?;
    let body = Bytes::from(frame).slice(SIZE_PREFIX_BYTES..);
    let (_, response) = decode_response::<ProduceResponse>(body, PRODUCE_VERSION)?;
    let answer = answers_of(response).pop().context("the answer names the partition")?;
    ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
    Ok(answer.base_offset)
}

/// What a broker held at most while something went on.
#[derive(Default, Debug)]
struct Held {
    used: u64,
    anonymous: u64,
    waiting: u64,
}

/// Watches a broker until `done`.
fn watch(served: &Served, done: &AtomicBool) -> anyhow::Result<Held> {
    let mut held = Held::default();
    while !done.load(Ordering::Acquire) {
        held.used = held.used.max(served.read("used_bytes")?);
        held.waiting = held.waiting.max(served.read("waiting")?);
        held.anonymous = held.anonymous.max(anonymous_bytes(served.broker.pid())?);
    }
    Ok(held)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn a_hundred_requests_of_16_mib_all_succeed_within_64_mib() -> anyhow::Result<()> {
    const CONNECTIONS: i64 = 100;
    const BUDGET_MIB: u64 = 64;
    let mut served = Served::start(BUDGET_MIB, 1)?;
    let frame = produce_frame(0, 16 << 20)?;
    let began = Instant::now();
    let done = AtomicBool::new(false);

    let (offsets, held) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&served, &done));
        let producers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = connect(served.address())?;
                    stream.write_all(&frame)?;
                    acknowledged(&mut stream)
                })
            })
            .collect();
        let offsets: Vec<_> = producers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        anyhow::Ok((offsets, watching.join().map_err(|_| anyhow!("the watcher panicked"))??))
    })?;
    let took = began.elapsed();

    let offsets = offsets.into_iter().map(|offset| offset.map_err(|_| anyhow!("a producer panicked"))?);
    let mut offsets = offsets.collect::<anyhow::Result<Vec<i64>>>()?;
    offsets.sort_unstable();
    assert_eq!(offsets, (0..CONNECTIONS).collect::<Vec<_>>());
    let (budget, peak) = (served.read("budget_bytes")?, served.read("peak_bytes")?);
    say(&format!(
        "{CONNECTIONS} requests of 16 MiB in {took:?} within {BUDGET_MIB} MiB: used {} MiB at most, anonymous {} MiB, \
         resident {} MiB; up to {} waited",
        peak / MIB,
        held.anonymous / MIB,
        resident_peak_bytes(served.broker.pid())? / MIB,
        held.waiting
    ));
    assert_eq!(budget, BUDGET_MIB * MIB);
    ensure!(held.waiting > 0, "nobody had to wait: this test shows nothing");
    ensure!(peak > 16 * MIB && peak <= budget, "{peak} bytes were used at most, of {budget}");
    ensure!(held.used <= peak, "more was in use than the peak: {held:?}");
    ensure!(held.anonymous < budget * 11 / 10, "the process held {held:?}");
    wait::until("everything to be given back", || Ok(served.read("used_bytes")? == 0))?;
    served.broker.terminate()?;
    let log = served.broker.log();
    ensure!(log.contains("memory budget: 64 MiB (--memory), requests of up to 20 MiB"), "{log}");
    ensure!(log.contains("resident at most (VmHWM), of a budget of 64 MiB"), "{log}");
    Ok(())
}

/// Asks for everything there is in every partition.
fn greedy_fetch(partitions: i32) -> FetchRequest {
    let all = (0..partitions).map(|partition| FetchPartition {
        partition,
        partition_max_bytes: i32::MAX,
        ..FetchPartition::default()
    });
    let topic = FetchTopic { topic: Str::from(TOPIC), partitions: all.collect(), ..FetchTopic::default() };
    FetchRequest { min_bytes: 1, max_bytes: i32::MAX, topics: vec![topic], ..FetchRequest::default() }
}

#[test]
fn a_thousand_greedy_fetches_stay_within_the_budget() -> anyhow::Result<()> {
    const FETCHES: usize = 1000;
    const PARTITIONS: i32 = 100;
    const BUDGET_MIB: u64 = 64;
    let served = Served::start(BUDGET_MIB, PARTITIONS)?;
    let mut producer = Connection::open(served.address())?;
    for partition in 0..PARTITIONS {
        let answer = producer.produce(TOPIC, partition, plain_batch(0, 10_000))?;
        ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
    }
    let request = encode_request(1, None, FETCH_VERSION, &greedy_fetch(PARTITIONS))?;
    let done = AtomicBool::new(false);

    let (bytes, held) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&served, &done));
        let fetch = || {
            let mut streams = Vec::new();
            for _ in 0..FETCHES {
                let mut stream = connect(served.address())?;
                stream.write_all(&request)?;
                streams.push(stream);
            }
            let mut bytes = 0;
            for mut stream in streams {
                let frame = read_frame(&mut stream)?.context("the broker hung up on a fetch")?;
                let body = Bytes::from(frame).slice(SIZE_PREFIX_BYTES..);
                let (_, response) = decode_response::<FetchResponse>(body, FETCH_VERSION)?;
                for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
                    ensure!(data.error_code == 0, "a greedy fetch fails: {data:?}");
                    bytes += data.records.bytes().map_or(0, |records| records.len());
                }
            }
            Ok(bytes)
        };
        let fetched = fetch();
        done.store(true, Ordering::Release);
        let held = watching.join().map_err(|_| anyhow!("the watcher panicked"))??;
        anyhow::Ok((fetched?, held))
    })?;

    let (budget, peak) = (served.read("budget_bytes")?, served.read("peak_bytes")?);
    let resident = resident_peak_bytes(served.broker.pid())?;
    say(&format!(
        "{FETCHES} fetches of {PARTITIONS} partitions got {} MiB: used {} KiB at most, anonymous {} MiB, resident {} MiB",
        bytes as u64 / MIB,
        peak >> 10,
        held.anonymous / MIB,
        resident / MIB
    ));
    // Every fetch got every partition: what leaves by sendfile costs nothing.
    ensure!(bytes >= FETCHES * PARTITIONS as usize * 10_000, "only {bytes} bytes were fetched");
    ensure!(peak <= budget, "{peak} bytes were used at most, of {budget}");
    ensure!(resident < budget * 11 / 10, "the process held {resident} bytes, of {budget}");
    wait::until("everything to be given back", || Ok(served.read("used_bytes")? == 0))
}

/// Sends most of a large frame at once, and from then on too little to be done in time and too much to be a trickle.
struct Dawdler {
    stream: TcpStream,
    closed: bool,
}

impl Dawdler {
    const FRAME_BYTES: u32 = 4_000_000;
    const AT_ONCE: usize = 1_500_000;
    const BEAT_BYTES: usize = 3 << 10;

    fn begin(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = connect(address)?;
        stream.write_all(&Self::FRAME_BYTES.to_be_bytes())?;
        stream.write_all(&[0, 0, 0, 9])?;
        stream.write_all(&vec![0; Self::AT_ONCE])?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, closed: false })
    }

    fn beat(&mut self) {
        let sent = self.stream.write(&[0; Self::BEAT_BYTES]);
        self.closed |= sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
    }
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn who_dawdles_with_memory_that_others_wait_for_is_closed_and_small_requests_never_wait() -> anyhow::Result<()>
{
    let served = Served::start(32, 2)?;
    let address = served.address();
    let began = Instant::now();
    let mut dawdlers = (0..2).map(|_| Dawdler::begin(address)).collect::<anyhow::Result<Vec<_>>>()?;
    wait::until("a dawdler that waits for the other", || Ok(served.read("waiting")? == 1))?;

    // Fits no small buffer, and what it needs on the way is taken.
    let medium = thread::spawn(move || {
        let mut stream = connect(address)?;
        stream.write_all(&produce_frame(1, 300_000)?)?;
        acknowledged(&mut stream)?;
        anyhow::Ok(began.elapsed())
    });
    let mut small = Connection::open(address)?;
    let (mut beats, mut batches, mut slowest) = (0_u32, 0_u32, Duration::ZERO);
    while !medium.is_finished() {
        ensure!(began.elapsed() < PATIENCE, "a request of 300 KB waits for ever");
        let sent = Instant::now();
        let answer = small.produce(TOPIC, 0, plain_batch(batches, 100))?;
        ensure!(answer.error_code == 0, "a small batch is refused: {answer:?}");
        batches += 1;
        slowest = slowest.max(sent.elapsed());
        // A beat is a second; between beats the small producer goes on.
        if began.elapsed() >= Duration::from_secs(1) * beats {
            dawdlers.iter_mut().for_each(Dawdler::beat);
            beats += 1;
        }
    }
    let waited = medium.join().map_err(|_| anyhow!("the medium producer panicked"))??;

    say(&format!(
        "a request of 300 KB beside two dawdlers took {waited:?}; {batches} small ones, {slowest:?} at most"
    ));
    ensure!(waited < CLOSED_WITHIN, "a request of 300 KB was held up for {waited:?}");
    wait::until("a dawdler to be closed", || {
        dawdlers.iter_mut().for_each(Dawdler::beat);
        Ok(dawdlers.iter().any(|dawdler| dawdler.closed))
    })?;
    let log = served.broker.log();
    ensure!(log.contains("while others were waiting for the memory that it held"), "{log}");
    Ok(())
}

#[test]
fn what_members_of_groups_bring_stays_within_the_budget() -> anyhow::Result<()> {
    const MEMBERS: usize = 100;
    const BUDGET_MIB: u64 = 64;
    /// Joins at once, without an id.
    const JOIN_VERSION: i16 = 3;
    let served = Served::start(BUDGET_MIB, 1)?;
    let join = |number: usize| JoinGroupRequest {
        group_id: Str::from(format!("group{number}")),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: vec![7; 900_000].into() }],
        ..JoinGroupRequest::default()
    };

    let joining = (0..MEMBERS).map(|number| {
        let mut connection = Connection::open_patient(served.address())?;
        connection.send(JOIN_VERSION, &join(number))?;
        Ok(connection)
    });
    let mut joining = joining.collect::<anyhow::Result<Vec<_>>>()?;
    let (mut joined, mut refused) = (0, 0);
    for connection in &mut joining {
        let (_, answer) = connection.receive::<JoinGroupResponse>(JOIN_VERSION)?;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => joined += 1,
            Some(ErrorCode::CoordinatorNotAvailable) => refused += 1,
            _ => anyhow::bail!("a member is answered {}", answer.error_code),
        }
    }

    let resident = resident_peak_bytes(served.broker.pid())?;
    say(&format!(
        "{joined} members of 900 KB joined, {refused} were refused: {} MiB resident of {BUDGET_MIB}",
        resident / MIB
    ));
    ensure!(joined > 0 && refused > 0, "{joined} joined, {refused} were refused");
    ensure!(resident < BUDGET_MIB * MIB * 11 / 10, "the process held {resident} bytes");
    let log = served.broker.log();
    ensure!(log.contains("refused a member: ") && log.contains("a sixteenth of --memory"), "{log}");
    Ok(())
}

/// Records with keys that zstd makes less than half as large, and no smaller than a hundredth.
fn zstd_batch(value_bytes: usize) -> anyhow::Result<Bytes> {
    let mut state = 1_u64;
    let digits = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'0' + u8::try_from((state >> 33) % 10).unwrap_or_default()
    });
    let value: Vec<u8> = digits.take(value_bytes).collect();
    let mut builder = BatchBuilder::new(Codec::Zstd);
    let record =
        NewRecord { timestamp: TimestampMs(1), key: Some(b"key"), value: Some(&value), headers: &[] };
    builder.append(&record)?;
    Ok(builder.build()?)
}

#[test]
fn compressed_batches_get_into_compacted_topics_with_the_least_budget() -> anyhow::Result<()> {
    const COMPACTED: &str = "compacted";
    let served = Served::start(32, 1)?;
    let mut producer = Connection::open(served.address())?;
    let settings = [("cleanup.policy", "compact"), ("max.message.bytes", "33554432")];
    producer.create_topic(COMPACTED, 1, &settings)?;

    let taken = producer.produce(COMPACTED, 0, zstd_batch(2 << 20)?)?;
    let refused = producer.produce(COMPACTED, 0, zstd_batch(4 << 20)?)?;

    ensure!(taken.error_code == 0, "a batch of 2 MiB is refused: {taken:?}");
    assert_eq!(refused.error_code, ErrorCode::MessageTooLarge.code());
    let sentence = refused.error_message.context("a refusal has a sentence")?;
    ensure!(sentence.contains("2621440 bytes, the most that fits a memory budget of 32 MiB"), "{sentence}");
    ensure!(sentence.contains("larger --memory"), "{sentence}");
    Ok(())
}

#[test]
fn a_request_that_no_budget_of_this_size_has_room_for_is_refused_with_the_flag_to_change()
-> anyhow::Result<()> {
    let served = Served::start(32, 1)?;

    let left = connect(served.address())?.write_all(&produce_frame(0, 5 << 20)?);

    wait::until("a line in the log", || {
        Ok(served.broker.log().contains("larger than 4 MiB, the most that fits a memory budget of 32 MiB"))
    })?;
    ensure!(served.broker.log().contains("larger --memory"), "{left:?}: {}", served.broker.log());
    acknowledged_small(&served)
}

fn acknowledged_small(served: &Served) -> anyhow::Result<()> {
    let mut stream = connect(served.address())?;
    stream.write_all(&produce_frame(0, 3 << 20)?)?;
    acknowledged(&mut stream).map(drop)
}

#[test]
fn a_budget_that_is_too_small_is_refused_with_the_least_one_and_why() -> anyhow::Result<()> {
    let directory = TempDir::new()?;

    let started = Broker::start(Options::new(&directory.path().join("data")).flags(&["--memory", "1KiB"]));

    let refusal = format!("{:#}", started.map(drop).expect_err("a budget of 1 KiB is accepted"));
    ensure!(refusal.contains("1 KiB is too small, it must be at least 32 MiB"), "{refusal}");
    ensure!(refusal.contains("--memory"), "{refusal}");
    Ok(())
}

#[test]
fn the_log_says_who_chose_the_budget() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let log = |name: &str, flags: &[&str], environment: &[(&str, &str)]| -> anyhow::Result<String> {
        let mut options = Options::new(&directory.path().join(name)).flags(flags);
        options
            .environment
            .extend(environment.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        Ok(Broker::start(options)?.log())
    };
    let environment = [("HIGHWATER_MEMORY", "80MiB")];

    let told = log("environment", &[], &environment)?;
    ensure!(told.contains("memory budget: 80 MiB (HIGHWATER_MEMORY), requests"), "{told}");
    let told = log("both", &["--memory", "96MiB"], &environment)?;
    ensure!(told.contains("memory budget: 96 MiB (--memory), requests"), "{told}");
    let told = log("neither", &[], &[])?;
    ensure!(
        told.contains(" (by default, a quarter of the machine's memory or of its control group's"),
        "{told}"
    );
    Ok(())
}
