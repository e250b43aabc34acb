//! The roofline: the smallest server that does what a broker cannot avoid. It is the ceiling that the broker's CPU is
//! compared with, in the same run.
//!
//! Produce: receive a frame, CRC-32C over the batch, the base offset patched in, one `pwrite` to a segment file that
//! rolls at 128 MiB, an acknowledgement. Fetch: find the position, `sendfile`. A blocking thread per connection and
//! nothing from outside but `sendfile` itself. It has no fsync, no index file, no recovery, no second topic, no
//! validation beyond the checksum, and trusts its only client.

mod log;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::SendFlags;

use crate::frame::{self, FrameReader, FrameWriter, LENGTH_BYTES};
use log::Log;

pub(crate) use log::SEGMENT_BYTES;

const PARTITIONS: usize = 64;
const FRAME_BYTES_MAX: usize = 64 << 20;

type Logs = Arc<Vec<Mutex<Log>>>;

/// Serves until the process is killed.
pub(crate) fn run(listen: SocketAddr, data: &Path) -> Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("create {}", data.display()))?;
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    let logs: Logs =
        Arc::new((0..PARTITIONS).map(|partition| Mutex::new(Log::new(data, partition))).collect());
    writeln!(io::stdout(), "highwater-roofline ready on {}", listener.local_addr()?)?;
    for stream in listener.incoming() {
        let (stream, logs) = (stream.context("accept a connection")?, Arc::clone(&logs));
        thread::spawn(move || {
            if let Err(error) = serve(&stream, &logs) {
                drop(writeln!(io::stderr(), "connection closed: {error:#}"));
            }
        });
    }
    Ok(())
}

fn serve(stream: &TcpStream, logs: &Logs) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let mut receiver = Receiver { stream, buffer: vec![0; 1 << 16], filled: 0 };
    while let Some(body) = receiver.next()? {
        let request = Request::read(body)?;
        match request.api_key {
            frame::PRODUCE => answer_produce(stream, logs, body, request.correlation, request.body_at)?,
            frame::FETCH => answer_fetch(stream, logs, &body[request.body_at..], request.correlation)?,
            frame::CREATE_TOPICS => answer_create(stream, &body[request.body_at..], request.correlation)?,
            other => bail!("the roofline does not speak API {other}"),
        }
    }
    Ok(())
}

/// Frames one after the other in one buffer that is never given back.
struct Receiver<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Receiver<'_> {
    /// The body of the next frame, or `None` if the client is done.
    ///
    /// A read asks for the frame and the length of the one after it, so that a pipelining client costs one system
    /// call per frame and no frame is moved.
    fn next(&mut self) -> Result<Option<&mut [u8]>> {
        while self.filled < LENGTH_BYTES {
            if !self.read_up_to(LENGTH_BYTES)? {
                return Ok(None);
            }
        }
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.buffer[..LENGTH_BYTES]);
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes, {FRAME_BYTES_MAX} are allowed");
        let end = LENGTH_BYTES + length;
        if self.buffer.len() < end + LENGTH_BYTES {
            self.buffer.resize(end + LENGTH_BYTES, 0);
        }
        while self.filled < end {
            ensure!(self.read_up_to(end + LENGTH_BYTES)?, "the client left within a frame");
        }
        // What was read of the next length goes to the front; this frame's length is known already.
        let ahead = self.filled - end;
        self.buffer.copy_within(end..self.filled, 0);
        self.filled = ahead;
        Ok(Some(&mut self.buffer[LENGTH_BYTES..end]))
    }

    fn read_up_to(&mut self, end: usize) -> Result<bool> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..end]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.filled += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error).context("receive"),
            }
        }
    }
}

struct Request {
    api_key: i16,
    correlation: i32,
    /// Where the request's own fields start.
    body_at: usize,
}

impl Request {
    fn read(body: &[u8]) -> Result<Self> {
        let mut reader = FrameReader::new(body);
        let (api_key, _version, correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
        reader.string()?;
        Ok(Self { api_key, correlation, body_at: body.len() - reader.remaining() })
    }
}

fn answer_produce(
    mut stream: &TcpStream,
    logs: &Logs,
    body: &mut [u8],
    correlation: i32,
    body_at: usize,
) -> Result<()> {
    let mut reader = FrameReader::new(&body[body_at..]);
    reader.string()?;
    reader.take(6)?;
    reader.one("topic")?;
    let topic = reader.string()?.to_owned();
    reader.one("partition")?;
    let partition = reader.i32()?;
    let size = reader.bytes()?.len();
    let batch_at = body.len() - reader.remaining() - size;
    let base_offset = lock(logs, partition)?.append(&mut body[batch_at..batch_at + size])?;
    let mut answer = FrameWriter::response(correlation);
    answer.i32(1).string(&topic).i32(1).i32(partition).i16(0).i64(base_offset).i64(-1).i64(0).i32(0);
    stream.write_all(&answer.finish(0)).context("send an acknowledgement")
}

fn answer_fetch(stream: &TcpStream, logs: &Logs, body: &[u8], correlation: i32) -> Result<()> {
    let mut reader = FrameReader::new(body);
    reader.take(12)?;
    let max_bytes = u64::try_from(reader.i32()?).unwrap_or(0);
    reader.take(9)?;
    reader.one("topic")?;
    let topic = reader.string()?;
    reader.one("partition")?;
    let partition = reader.i32()?;
    reader.i32()?;
    let (end_offset, range) = {
        let log = lock(logs, partition)?;
        (log.next_offset(), log.read(reader.i64()?, max_bytes))
    };
    let size = range.as_ref().map_or(0, |range| range.size);
    let mut answer = FrameWriter::response(correlation);
    answer.i32(0).i16(0).i32(0).i32(1).string(topic).i32(1).i32(partition).i16(0);
    answer.i64(end_offset).i64(end_offset).i64(0).i32(-1).i32(-1).i32(i32::try_from(size)?);
    send_more(stream, &answer.finish(size as usize))?;
    let Some(range) = range else { return Ok(()) };
    let (mut position, mut left) = (range.position, range.size as usize);
    while left > 0 {
        let sent =
            rustix::fs::sendfile(stream, &*range.file, Some(&mut position), left).context("sendfile")?;
        ensure!(sent > 0, "a segment is shorter than its index says");
        left -= sent;
    }
    Ok(())
}

/// Sends a header and tells the kernel that its records follow, so that both share a segment on the wire.
fn send_more(stream: &TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = rustix::net::send(stream, bytes, SendFlags::MORE).context("send a header")?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

fn answer_create(mut stream: &TcpStream, body: &[u8], correlation: i32) -> Result<()> {
    let mut reader = FrameReader::new(body);
    reader.one("topic")?;
    let mut answer = FrameWriter::response(correlation);
    answer.i32(0).i32(1).string(reader.string()?).i16(0).i16(-1);
    stream.write_all(&answer.finish(0)).context("answer CreateTopics")
}

fn lock(logs: &Logs, partition: i32) -> Result<std::sync::MutexGuard<'_, Log>> {
    let log = usize::try_from(partition).ok().and_then(|index| logs.get(index));
    let log = log.with_context(|| format!("partition {partition}, the roofline has {PARTITIONS}"))?;
    log.lock().ok().context("another connection panicked in this partition")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::batch::Batch;
    use crate::connection::Connection;
    use crate::load::{self, Place, Until};

    /// A roofline on a thread; it ends with the test process.
    fn start(data: &Path) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let logs: Logs = Arc::new((0..PARTITIONS).map(|p| Mutex::new(Log::new(data, p))).collect());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, logs) = (stream.unwrap(), Arc::clone(&logs));
                thread::spawn(move || serve(&stream, &logs));
            }
        });
        address
    }

    #[test]
    fn what_was_produced_comes_back() {
        let data = tempfile::tempdir().unwrap();
        let address = start(data.path());
        let batch = Batch::build(8192, 500).unwrap();
        let place = Place { address, topic: "bench", partitions: 2, connections: 4 };
        let goal = batch.bytes.len() as u64 * 40;

        Connection::open(address).unwrap().create_topic("bench", 2, 1 << 20).unwrap();
        let produced = load::produce(place, 5, &batch, Until::Bytes(goal)).unwrap();
        let consumed = load::consume(place, 64 << 10, Until::Bytes(goal)).unwrap();

        assert_eq!((produced.requests, produced.bytes), (40, goal));
        assert!(consumed.bytes >= goal);
        assert_eq!(produced.latencies.len(), 40);
    }

    #[test]
    fn a_load_ends_after_its_time() {
        let data = tempfile::tempdir().unwrap();
        let address = start(data.path());
        let batch = Batch::build(4096, 100).unwrap();
        let place = Place { address, topic: "bench", partitions: 1, connections: 1 };

        let outcome = load::produce(place, 1, &batch, Until::Elapsed(Duration::from_millis(50))).unwrap();

        assert!(outcome.requests > 0);
        assert!(outcome.elapsed >= Duration::from_millis(50));
    }

    #[test]
    fn a_batch_with_a_wrong_checksum_is_not_acknowledged() {
        let data = tempfile::tempdir().unwrap();
        let address = start(data.path());
        let mut batch = Batch::build(4096, 100).unwrap();
        *batch.bytes.last_mut().unwrap() ^= 1;
        let place = Place { address, topic: "bench", partitions: 1, connections: 1 };

        assert!(load::produce(place, 1, &batch, Until::Bytes(1)).is_err());
    }

    #[test]
    fn an_empty_topic_says_so() {
        let data = tempfile::tempdir().unwrap();
        let place = Place { address: start(data.path()), topic: "bench", partitions: 1, connections: 1 };

        let error = load::consume(place, 4096, Until::Bytes(1)).unwrap_err().to_string();

        assert_eq!(error, "bench-0 has nothing at offset 0; produce to it first");
    }
}
