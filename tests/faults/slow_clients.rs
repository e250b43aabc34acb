//! Clients that hold a connection and give nothing: each is closed in time, and a producer goes on beside them.
//!
//! The full count is `HIGHWATER_SLOW=5000`. The deadlines themselves take 40 s, so that one test waits for them all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use highwater_protocol::api::ProduceResponse;
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use highwater_protocol::wire::Str;
use highwater_protocol::{decode_response, encode_request};

use crate::harness::broker::{Broker, Options};
use crate::harness::process::anonymous_bytes;
use crate::harness::wait;

use super::batches::plain_batch;
use super::client::{Connection, PRODUCE_VERSION, answers_of, produce_request};
use super::setting::{count, say};

const TOPIC: &str = "patient";
const FETCH_VERSION: i16 = 12;
/// How often a slow client sends a byte.
const BEAT: Duration = Duration::from_secs(1);
/// All slow clients are gone by then: the longest deadline is 30 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);
/// A slow upload that must live: it takes longer than any deadline at three times the least rate.
const UPLOAD_BYTES: usize = 120 << 10;
const UPLOAD_BYTES_PER_BEAT: usize = 3 << 10;
/// What slow clients may cost each while they last.
const SLOW_BYTES_MAX: u64 = 40 << 10;

/// What a client does instead of sending a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Says nothing at all.
    Silent,
    /// Sends the bytes of a small frame one by one.
    SmallFrame,
    /// Claims a large frame and sends its bytes one by one.
    LargeFrame,
    /// Sends the head of an HTTP request byte by byte.
    Http,
}

const MANNERS: [Manner; 4] = [Manner::Silent, Manner::SmallFrame, Manner::LargeFrame, Manner::Http];

struct SlowClient {
    manner: Manner,
    stream: TcpStream,
    /// The bytes that it has to send; it goes on with the last one.
    script: Vec<u8>,
    sent: usize,
    closed: bool,
}

impl SlowClient {
    fn connect(address: SocketAddr, manner: Manner) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        // A frame that begins like a Metadata request.
        let script = match manner {
            Manner::Silent => Vec::new(),
            Manner::SmallFrame => b"\x00\x00\x10\x00\x00\x03\x00\x09".to_vec(),
            Manner::LargeFrame => b"\x01\x00\x00\x00\x00\x03\x00\x09".to_vec(),
            Manner::Http => b"GET /livez HTTP/1.1\r\nX: y".to_vec(),
        };
        Ok(Self { manner, stream, script, sent: 0, closed: false })
    }

    /// Sends the next byte and looks whether the broker has had enough.
    fn beat(&mut self) {
        let lost = |error: &std::io::Error| error.kind() != ErrorKind::WouldBlock;
        if let Some(last) = self.script.last() {
            let byte = self.script.get(self.sent).unwrap_or(last);
            self.closed |= self.stream.write(&[*byte]).is_err_and(|error| lost(&error));
            self.sent += 1;
        }
        self.closed |= match self.stream.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => lost(&error),
        };
    }
}

/// What became of the slow clients.
struct Closed {
    /// When the last one was.
    last: Duration,
    /// When the last silent one was.
    last_silent: Duration,
}

/// Beats until all are closed.
fn wear_out(mut clients: Vec<SlowClient>, began: Instant) -> anyhow::Result<Closed> {
    let mut closed = Closed { last: Duration::ZERO, last_silent: Duration::ZERO };
    while !clients.is_empty() {
        clients.iter_mut().for_each(SlowClient::beat);
        if clients.iter().any(|client| client.closed && matches!(client.manner, Manner::Silent)) {
            closed.last_silent = began.elapsed();
        }
        clients.retain(|client| !client.closed);
        closed.last = began.elapsed();
        let left: Vec<Manner> = clients.iter().map(|client| client.manner).take(5).collect();
        ensure!(closed.last < CLOSED_WITHIN, "{} are open after {CLOSED_WITHIN:?}: {left:?}", clients.len());
        wait::beat(BEAT);
    }
    Ok(closed)
}

/// Sends one large produce request slowly, but not too slowly. The offset that it got.
fn upload_slowly(address: SocketAddr) -> anyhow::Result<i64> {
    let request = produce_request(TOPIC, [(1, plain_batch(0, UPLOAD_BYTES))]);
    let frame = encode_request(1, None, PRODUCE_VERSION, &request)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(BEAT))?;
    for part in frame.chunks(UPLOAD_BYTES_PER_BEAT) {
        stream.write_all(part).context("the broker has closed a slow upload")?;
        // Waits a beat, since nothing is to be read; but for the last part, whose answer may be early.
        match stream.peek(&mut [0]) {
            Ok(count) => ensure!(count > 0, "the broker has closed a slow upload"),
            Err(error) => ensure!(error.kind() == ErrorKind::WouldBlock, "a slow upload ended: {error}"),
        }
    }
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let frame = crate::harness::wire::read_frame(&mut stream)?.context("a slow upload is not answered")?;
    let (_, response) =
        decode_response::<ProduceResponse>(bytes::Bytes::from(frame).slice(4..), PRODUCE_VERSION)?;
    let answer = answers_of(response).pop().context("the answer names the partition")?;
    ensure!(answer.error_code == 0, "a slow upload is refused: {answer:?}");
    Ok(answer.base_offset)
}

/// Batches a second over about `time`.
fn pace(producer: &mut Connection, time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut batches = 0;
    while began.elapsed() < time {
        let answer = producer.produce(TOPIC, 0, plain_batch(batches, 1000))?;
        ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
        batches += 1;
    }
    Ok(f64::from(batches) / began.elapsed().as_secs_f64())
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn slow_clients_are_closed_in_time_and_a_slow_upload_is_not() -> anyhow::Result<()> {
    let slow = count("HIGHWATER_SLOW", 300)? as usize;
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let address = broker.address();
    let mut producer = Connection::open(address)?;
    producer.create_topic(TOPIC, 2, &[])?;
    pace(&mut producer, Duration::from_secs(1))?;
    let alone = pace(&mut producer, Duration::from_secs(3))?;
    let before = anonymous_bytes(broker.pid())?;

    let upload = std::thread::spawn(move || upload_slowly(address));
    let began = Instant::now();
    let clients = MANNERS.iter().cycle().take(slow).map(|manner| SlowClient::connect(address, *manner));
    let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
    let worn_out = std::thread::spawn(move || wear_out(clients, began));
    let beside = pace(&mut producer, Duration::from_secs(8))?;
    let each = anonymous_bytes(broker.pid())?.saturating_sub(before) / slow as u64;
    let closed = worn_out.join().map_err(|_| anyhow!("the slow clients panicked"))??;
    let uploaded = upload.join().map_err(|_| anyhow!("the upload panicked"))??;

    say(&format!(
        "{slow} slow clients: closed within {:?}, silent ones within {:?}; {each} bytes each; a producer made {alone:.0} \
         batches a second alone and {beside:.0} beside them ({:.0} %)",
        closed.last,
        closed.last_silent,
        100.0 * beside / alone
    ));
    ensure!(uploaded == 0, "the slow upload is at offset {uploaded}");
    ensure!(each < SLOW_BYTES_MAX, "a slow client costs {each} bytes");
    ensure!(closed.last_silent < closed.last, "silent clients are closed no earlier than others");
    ensure!(beside > alone / 10.0, "a producer makes {beside} batches a second, alone it made {alone}");
    Ok(())
}

/// Asks for everything.
fn greedy_fetch() -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: i32::MAX, ..FetchPartition::default() };
    let topic = FetchTopic { topic: Str::from(TOPIC), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { min_bytes: 1, max_bytes: i32::MAX, topics: vec![topic], ..FetchRequest::default() }
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn greedy_clients_that_never_read_cost_little_and_are_closed() -> anyhow::Result<()> {
    const GREEDY: usize = 200;
    const GROWTH_BYTES_MAX: u64 = 32 << 20;
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&directory.path().join("data")))?;
    let address = broker.address();
    let mut producer = Connection::open(address)?;
    producer.create_topic(TOPIC, 1, &[])?;
    for counter in 0..32 {
        producer.produce(TOPIC, 0, plain_batch(counter, 1_000_000))?;
    }
    let before = anonymous_bytes(broker.pid())?;
    let connections = || crate::harness::metrics::metric(address, "highwater_connections");

    let greedy = (0..GREEDY).map(|_| {
        let mut connection = Connection::open(address)?;
        // More requests than one: the second must wait until the first is answered.
        for _ in 0..10 {
            connection.send(FETCH_VERSION, &greedy_fetch())?;
        }
        anyhow::Ok(connection)
    });
    let greedy = greedy.collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let mut largest = 0;
    // The page that tells is read over a connection of its own.
    while connections()? > 2 {
        largest = largest.max(anonymous_bytes(broker.pid())?);
        pace(&mut producer, Duration::from_millis(200))?;
        ensure!(began.elapsed() < CLOSED_WITHIN, "{} are connected after {CLOSED_WITHIN:?}", connections()?);
    }

    let grown = largest.saturating_sub(before);
    say(&format!(
        "{} greedy clients cost {} KiB and are gone after {:?}",
        greedy.len(),
        grown >> 10,
        began.elapsed()
    ));
    ensure!(grown < GROWTH_BYTES_MAX, "{} greedy clients cost {grown} bytes", greedy.len());
    Ok(())
}
