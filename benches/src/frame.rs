//! The few Kafka frames that the benches need, as bytes by hand.
//!
//! One fixed version each, none of them flexible: Produce 7, Fetch 11, CreateTopics 4. Field orders are those of
//! Kafka's message definitions (`ProduceRequest.json` and its like). The broker's own codec is not used, so that the
//! generator stays cheap and a mistake cannot cancel itself out.

use anyhow::{Context, Result, bail, ensure};

/// Produce, Fetch and CreateTopics as numbered on the wire.
pub(crate) const PRODUCE: i16 = 0;
pub(crate) const FETCH: i16 = 1;
pub(crate) const CREATE_TOPICS: i16 = 19;

/// Bytes of the length in front of a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
const CORRELATION_AT: usize = LENGTH_BYTES + 4;
const CLIENT_ID: &str = "highwater-benches";
const REQUEST_TIMEOUT_MS: i32 = 30_000;
const ERROR_TOPIC_EXISTS: i16 = 36;

/// One partition of one topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// What to fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchSpec {
    pub(crate) offset: i64,
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
}

/// A frame under construction: the length is filled in last.
pub(crate) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    /// A request with header version 1 and correlation id 0.
    pub(crate) fn request(api_key: i16, api_version: i16) -> Self {
        let mut frame = Self(vec![0; LENGTH_BYTES]);
        frame.i16(api_key).i16(api_version).i32(0).string(CLIENT_ID);
        frame
    }

    /// A response with header version 0.
    pub(crate) fn response(correlation: i32) -> Self {
        let mut frame = Self(vec![0; LENGTH_BYTES]);
        frame.i32(correlation);
        frame
    }

    pub(crate) fn i8(&mut self, value: i8) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i16(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Short strings only: topic names and configs.
    pub(crate) fn string(&mut self, value: &str) -> &mut Self {
        self.i16(value.len() as i16).raw(value.as_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The frame, with `bytes_after` more to follow that are not in it.
    pub(crate) fn finish(self, bytes_after: usize) -> Vec<u8> {
        let mut bytes = self.0;
        let length = (bytes.len() - LENGTH_BYTES + bytes_after) as i32;
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

/// Puts a correlation id into a finished request.
pub(crate) fn set_correlation(request: &mut [u8], correlation: i32) {
    request[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
}

/// Produce v7 of one batch with acks=all.
pub(crate) fn produce(target: Target<'_>, batch: &[u8]) -> Vec<u8> {
    let mut frame = FrameWriter::request(PRODUCE, 7);
    frame.i16(-1).i16(-1).i32(REQUEST_TIMEOUT_MS);
    frame.i32(1).string(target.topic).i32(1).i32(target.partition);
    frame.i32(batch.len() as i32).raw(batch);
    frame.finish(0)
}

/// Fetch v11 of one partition without a session.
pub(crate) fn fetch(target: Target<'_>, spec: FetchSpec) -> Vec<u8> {
    let mut frame = FrameWriter::request(FETCH, 11);
    frame.i32(-1).i32(spec.max_wait_ms).i32(spec.min_bytes).i32(spec.max_bytes);
    // Isolation level: read uncommitted. Session 0 with epoch -1: none.
    frame.i8(0).i32(0).i32(-1);
    frame.i32(1).string(target.topic).i32(1).i32(target.partition);
    // Leader epoch unknown, log start of a follower: none.
    frame.i32(-1).i64(spec.offset).i64(-1).i32(spec.max_bytes);
    frame.i32(0).string("");
    frame.finish(0)
}

/// Fetch v11 that opens a session over the first `partitions` partitions of a topic, from their beginning.
pub(crate) fn open_session(topic: &str, partitions: i32, max_bytes: i32) -> Vec<u8> {
    let mut frame = FrameWriter::request(FETCH, 11);
    frame.i32(-1).i32(0).i32(1).i32(max_bytes).i8(0).i32(0).i32(0);
    frame.i32(1).string(topic).i32(partitions);
    for partition in 0..partitions {
        frame.i32(partition).i32(-1).i64(0).i64(-1).i32(max_bytes);
    }
    frame.i32(0).string("");
    frame.finish(0)
}

/// Fetch v11 that goes on with a session and changes nothing.
pub(crate) fn poll_session(session: (i32, i32), max_wait_ms: i32, max_bytes: i32) -> Vec<u8> {
    let mut frame = FrameWriter::request(FETCH, 11);
    frame.i32(-1).i32(max_wait_ms).i32(1).i32(max_bytes).i8(0).i32(session.0).i32(session.1);
    frame.i32(0).i32(0).string("");
    frame.finish(0)
}

/// CreateTopics v4 of one topic.
pub(crate) fn create_topic(topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Vec<u8> {
    let mut frame = FrameWriter::request(CREATE_TOPICS, 4);
    frame.i32(1).string(topic).i32(partitions).i16(1).i32(0);
    frame.i32(configs.len() as i32);
    for (key, value) in configs {
        frame.string(key).string(value);
    }
    frame.i32(REQUEST_TIMEOUT_MS).i8(0);
    frame.finish(0)
}

/// Reads a frame's body front to back. Everything is checked against what is left.
pub(crate) struct FrameReader<'a>(&'a [u8]);

impl<'a> FrameReader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let left = self.0.len();
        let (front, rest) = self
            .0
            .split_at_checked(count)
            .with_context(|| format!("a frame ends {left} bytes on, {count} are needed"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A string; null reads as empty.
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        std::str::from_utf8(self.take(length)?).context("a string is not UTF-8")
    }

    /// Bytes with their length in front; null reads as empty.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.take(length)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.0.len()
    }

    /// An array that must have exactly one element, as the requests here ask.
    pub(crate) fn one(&mut self, what: &str) -> Result<()> {
        let count = self.i32()?;
        ensure!(count == 1, "{count} {what}s in a frame, 1 was expected");
        Ok(())
    }
}

fn header<'a>(body: &'a [u8], correlation: i32) -> Result<FrameReader<'a>> {
    let mut reader = FrameReader::new(body);
    let answered = reader.i32()?;
    ensure!(answered == correlation, "answer {answered} came where {correlation} was due");
    Ok(reader)
}

fn check_error(code: i16, api: &str) -> Result<()> {
    if code != 0 {
        bail!("{api} was answered with Kafka error {code}");
    }
    Ok(())
}

/// Offset of the first record of a Produce v7 that was acknowledged.
pub(crate) fn produced(body: &[u8], correlation: i32) -> Result<i64> {
    let mut reader = header(body, correlation)?;
    reader.one("topic")?;
    reader.string()?;
    reader.one("partition")?;
    reader.i32()?;
    check_error(reader.i16()?, "Produce")?;
    reader.i64()
}

/// What a Fetch v11 brought.
#[derive(Debug)]
pub(crate) struct Fetched<'a> {
    pub(crate) high_watermark: i64,
    pub(crate) records: &'a [u8],
}

/// Reads a Fetch v11 answer of one partition. Without a session it names its partition even if it brings nothing.
pub(crate) fn fetched(body: &[u8], correlation: i32) -> Result<Fetched<'_>> {
    let mut reader = header(body, correlation)?;
    reader.i32()?;
    check_error(reader.i16()?, "Fetch")?;
    reader.i32()?;
    reader.one("topic")?;
    reader.string()?;
    reader.one("partition")?;
    reader.i32()?;
    check_error(reader.i16()?, "Fetch")?;
    let high_watermark = reader.i64()?;
    reader.take(16)?;
    let aborted_count = reader.i32()?.max(0) as usize;
    reader.take(aborted_count.saturating_mul(16))?;
    reader.i32()?;
    Ok(Fetched { high_watermark, records: reader.bytes()? })
}

/// The session of a Fetch v11 answer and how many topics it speaks of.
pub(crate) fn session(body: &[u8], correlation: i32) -> Result<(i32, i32)> {
    let mut reader = header(body, correlation)?;
    reader.i32()?;
    check_error(reader.i16()?, "Fetch")?;
    Ok((reader.i32()?, reader.i32()?))
}

/// Checks a CreateTopics v4 answer. A topic that exists already will do.
pub(crate) fn topic_created(body: &[u8], correlation: i32) -> Result<()> {
    let mut reader = header(body, correlation)?;
    reader.i32()?;
    reader.one("topic")?;
    let topic = reader.string()?;
    let code = reader.i16()?;
    let message = reader.string()?;
    let is_there = code == 0 || code == ERROR_TOPIC_EXISTS;
    ensure!(is_there, "topic {topic} was not created, Kafka error {code}: {message}");
    Ok(())
}

#[cfg(test)]
mod tests;
