//! Bad input gets a sentence and loses nothing: after each of these the broker serves, and every record is there.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use highwater_protocol::api::produce::PartitionProduceResponse;
use highwater_protocol::api::{
    ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, ProduceResponse,
};
use highwater_protocol::wire::Str;
use highwater_protocol::{ApiKey, ErrorCode, decode_response, encode_request};
use highwater_record::{
    BatchBuilder, CRC_START, Codec, HEADER_BYTES, NewRecord, Producer, ProducerEpoch, ProducerId, Sequence,
    TimestampMs, crc32c,
};

use crate::faults::batches::plain_batch;
use crate::faults::client::{Connection, PRODUCE_VERSION, answers_of, name_of, produce_request};
use crate::faults::mounts::{Mount, can_mount};
use crate::faults::reader::read_all;
use crate::harness::broker::{Broker, Options};
use crate::harness::served::Served;
use crate::harness::skip::or_skip;

const TOPIC: &str = "records";
/// Where the CRC of a batch stands.
const CRC_AT: usize = CRC_START - 4;
/// Where the header of a batch has its count of records.
const RECORD_COUNT_AT: usize = 57;
/// The largest batch that the topic takes, in bytes.
const BATCH_BYTES_MAX: &str = "2000";

/// A broker with one topic and some records.
struct Target {
    served: Served,
    records: u32,
}

impl Target {
    fn start() -> anyhow::Result<Self> {
        let served = Served::start(&[])?;
        let topic = [("max.message.bytes", BATCH_BYTES_MAX)];
        served.connect()?.create_topic(TOPIC, 1, &topic)?;
        let mut target = Self { served, records: 0 };
        target.still_serves()?;
        Ok(target)
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        self.served.connect()
    }

    /// A good client writes the next record and reads them all.
    #[track_caller]
    fn still_serves(&mut self) -> anyhow::Result<()> {
        let answer = self.connect()?.produce(TOPIC, 0, plain_batch(self.records, 100))?;
        ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
        self.records += 1;
        let counters: Vec<u32> = read_all(self.served.address(), TOPIC, 1)?
            .iter()
            .filter_map(|record| record.stamp.map(|stamp| stamp.counter))
            .collect();
        ensure!(counters.iter().copied().eq(0..self.records), "{} records became {counters:?}", self.records);
        Ok(())
    }

    /// Sends a batch that must be refused with `code`; the sentence that came with it.
    #[track_caller]
    fn refused(&mut self, batch: Bytes, code: ErrorCode) -> anyhow::Result<String> {
        let answer: PartitionProduceResponse = self.connect()?.produce(TOPIC, 0, batch)?;
        ensure!(answer.error_code == code.code(), "answered {}: {answer:?}", name_of(answer.error_code));
        ensure!(answer.base_offset == -1, "a refused batch has an offset: {answer:?}");
        self.still_serves()?;
        Ok(answer.error_message.map(|message| message.as_str().to_owned()).unwrap_or_default())
    }

    /// Sends bytes that are no Kafka; what came back, as text.
    #[track_caller]
    fn says_to(&mut self, bytes: &[u8]) -> anyhow::Result<String> {
        let said = self.connect()?.send_and_listen(bytes)?;
        self.still_serves()?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Sends a frame that must end the connection, and not the broker.
    #[track_caller]
    fn hangs_up_on(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let said = self.connect()?.exchange_bytes(frame)?;
        ensure!(said.is_empty(), "a frame that must be refused is answered with {said:?}");
        self.still_serves()
    }
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text:?}");
    }
}

fn record_of(value: &[u8]) -> NewRecord<'_> {
    NewRecord { timestamp: TimestampMs(1), key: Some(b"0"), value: Some(value), headers: &[] }
}

/// A batch with the CRC that its damaged bytes give.
fn damaged(damage: impl FnOnce(&mut [u8])) -> Bytes {
    let mut batch = plain_batch(99, 100).to_vec();
    damage(&mut batch);
    let crc = crc32c(&batch[CRC_START..]);
    batch[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

fn built(builder: BatchBuilder) -> anyhow::Result<Bytes> {
    let producer =
        Producer { id: ProducerId::ZERO, epoch: ProducerEpoch::ZERO, base_sequence: Some(Sequence::ZERO) };
    let mut builder = builder.producer(producer);
    builder.append(&record_of(b"99-0-"))?;
    Ok(builder.build()?)
}

#[test]
fn a_batch_that_is_too_large_is_refused_with_both_numbers_and_the_setting() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let batch = plain_batch(99, 3000);
    let size = batch.len().to_string();

    let sentence = target.refused(batch, ErrorCode::MessageTooLarge)?;

    assert_says(&sentence, &[size.as_str(), BATCH_BYTES_MAX, "max.message.bytes", TOPIC]);
    Ok(())
}

#[test]
fn a_batch_with_a_wrong_checksum_is_refused_with_both_checksums() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let mut batch = plain_batch(99, 100).to_vec();
    let stored = u32::from_be_bytes(*batch[CRC_AT..].first_chunk().context("a batch has a CRC")?);
    let last = batch.len() - 1;
    batch[last] ^= 1;
    let computed = crc32c(&batch[CRC_START..]);

    let sentence = target.refused(batch.into(), ErrorCode::CorruptMessage)?;

    assert_says(&sentence, &[&format!("{stored:#010x}"), &format!("{computed:#010x}")]);
    Ok(())
}

#[test]
fn a_batch_whose_count_of_records_lies_is_refused() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    for count in [0, 2, 1000, i32::MAX] {
        let batch = damaged(|batch| {
            batch[RECORD_COUNT_AT..RECORD_COUNT_AT + 4].copy_from_slice(&count.to_be_bytes());
            // The last offset delta says the same, so that only the records themselves tell.
            batch[23..27].copy_from_slice(&(count - 1).max(0).to_be_bytes());
        });

        let sentence = target.refused(batch, ErrorCode::InvalidRecord)?;

        assert!(!sentence.is_empty(), "count {count} is refused without a sentence");
    }
    Ok(())
}

#[test]
fn a_record_whose_length_lies_is_refused() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let batch = damaged(|batch| batch[HEADER_BYTES] = 0x7e);

    let sentence = target.refused(batch, ErrorCode::InvalidRecord)?;

    assert_says(&sentence, &["record 0 of 1"]);
    Ok(())
}

#[test]
fn what_is_wrong_inside_a_record_is_refused_though_the_checksum_holds() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let batch_bytes = plain_batch(99, 100).len();
    // A record begins with its size in two bytes, its attributes, its timestamp and its offset; it ends with a count
    // of headers.
    let (offset_at, headers_at) = (HEADER_BYTES + 4, batch_bytes - 1);
    for (what, at, bytes, words) in [
        ("-1 headers", headers_at, &[0x01][..], "cannot be negative"),
        ("a header without a byte", headers_at, &[0x02], "claims 1 headers"),
        ("the offset of the next record", offset_at, &[0x02], "record 0 of 1"),
        ("an offset before the first", offset_at, &[0x01], "record 0 of 1"),
        ("a size of more than 32 bits", HEADER_BYTES, &[0xff; 10], "over-long varint"),
    ] {
        let batch = damaged(|batch| batch[at..at + bytes.len()].copy_from_slice(bytes));

        let sentence = target.refused(batch, ErrorCode::InvalidRecord).with_context(|| what)?;

        assert_says(&sentence, &[words]);
    }
    Ok(())
}

#[test]
fn a_request_whose_counts_lie_ends_its_connection_only() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    // Metadata 0 and 9 with counts of 2^31 - 1 and 2^32 - 2 topics.
    target.hangs_up_on(b"\x00\x00\x00\x0e\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff")?;
    target.hangs_up_on(
        b"\x00\x00\x00\x13\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x00\xff\xff\xff\xff\x0f\x00\x00\x00",
    )?;

    assert_says(
        &target.served.broker.log(),
        &["malformed Metadata request of version 0", "malformed Metadata request of version 9"],
    );
    Ok(())
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_is_sent() -> anyhow::Result<()> {
    let mut target = Target::start()?;

    // 117440512 bytes are announced, and none sent.
    target.hangs_up_on(b"\x07\x00\x00\x00")?;

    assert_says(&target.served.broker.log(), &["117440512", "104857600"]);
    Ok(())
}

#[test]
fn transactions_are_refused_until_they_exist() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let init = InitProducerIdRequest {
        transactional_id: Some(Str::from("t")),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let answer = target.connect()?.call(4, &init)?;
    ensure!(answer.error_code != 0 && answer.producer_id == -1, "a transactional id is accepted: {answer:?}");

    let mut request = produce_request(TOPIC, [(0, plain_batch(99, 10))]);
    request.transactional_id = Some(Str::from("t"));
    let response = target.connect()?.call(PRODUCE_VERSION, &request)?;
    let code = answers_of(response)[0].error_code;
    ensure!(code == ErrorCode::TransactionalIdAuthorizationFailed.code(), "answered {}", name_of(code));

    let transactional = built(BatchBuilder::new(Codec::None).transactional())?;
    let sentence = target.refused(transactional, ErrorCode::TransactionalIdAuthorizationFailed)?;
    assert_says(&sentence, &["transaction"]);
    let control = built(BatchBuilder::new(Codec::None).control())?;
    let sentence = target.refused(control, ErrorCode::InvalidRecord)?;
    assert_says(&sentence, &["control"]);
    Ok(())
}

#[test]
fn a_topic_or_partition_that_does_not_exist_is_named_as_unknown() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let mut connection = target.connect()?;

    for name in ["no-such-topic", "no/such topic", ""] {
        assert_eq!(connection.fetch(name, 0, 0)?.error_code, unknown, "{name:?}");
        assert_eq!(connection.produce(name, 0, plain_batch(99, 10))?.error_code, unknown, "{name:?}");
    }
    assert_eq!(connection.fetch(TOPIC, 7, 0)?.error_code, unknown);
    assert_eq!(connection.fetch(TOPIC, -1, 0)?.error_code, unknown);
    assert_eq!(connection.produce(TOPIC, 7, plain_batch(99, 10))?.error_code, unknown);
    assert_eq!(connection.fetch(TOPIC, 0, 1000)?.error_code, ErrorCode::OffsetOutOfRange.code());
    target.still_serves()
}

#[test]
fn api_versions_of_an_unknown_version_is_answered_in_version_0_with_error_35() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    // ApiVersions 99, correlation id 7, no client id.
    let frame = b"\x00\x00\x00\x0b\x00\x12\x00\x63\x00\x00\x00\x07\xff\xff\x00";

    let said = Bytes::from(target.connect()?.exchange_bytes(frame)?);

    let (correlation_id, answer) = decode_response::<ApiVersionsResponse>(said.slice(4..), 0)?;
    assert_eq!((correlation_id, answer.error_code), (7, ErrorCode::UnsupportedVersion.code()));
    let own = answer.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code());
    assert_eq!(own.map(|api| (api.min_version, api.max_version)), Some((0, 4)));
    target.still_serves()
}

#[test]
fn produce_below_version_3_is_listed_and_refused() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let listed = target.connect()?.call(0, &ApiVersionsRequest::default())?;
    let produce = listed.api_keys.iter().find(|api| api.api_key == ApiKey::Produce.code());
    assert_eq!(produce.map(|api| api.min_version), Some(0));

    for version in 0..3 {
        let frame = encode_request(1, None, 3, &produce_request(TOPIC, [(0, plain_batch(99, 10))]))?;
        let mut frame = frame.to_vec();
        frame[7] = version;
        target.hangs_up_on(&frame)?;
    }

    assert_says(&target.served.broker.log(), &["Produce is served in versions 3 to 13, not 2"]);
    Ok(())
}

#[test]
fn produce_with_a_strange_acks_is_refused() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let mut request = produce_request(TOPIC, [(0, plain_batch(99, 10))]);
    request.acks = 2;

    let response: ProduceResponse = target.connect()?.call(PRODUCE_VERSION, &request)?;

    assert_eq!(answers_of(response)[0].error_code, ErrorCode::InvalidRequiredAcks.code());
    target.still_serves()
}

#[test]
fn http_gets_health_metrics_and_a_404_that_helps() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n");

    for path in ["/", "/nothing"] {
        let said = target.says_to(get(path).as_bytes())?;
        assert_says(
            &said,
            &["404", &format!("There is no {path} here"), "Kafka clients", "/readyz", "/metrics"],
        );
    }
    for path in ["/livez", "/readyz"] {
        assert_says(&target.says_to(get(path).as_bytes())?, &["HTTP/1.1 200"]);
    }
    assert_says(&target.says_to(get("/metrics").as_bytes())?, &["HTTP/1.1 200", "# TYPE highwater_"]);
    let posted = b"POST /topics HTTP/1.1\r\nHost: broker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_says(&target.says_to(posted)?, &["405", "GET"]);
    Ok(())
}

#[test]
fn a_tls_hello_gets_an_alert_and_the_log_says_what_to_change() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";

    let said = target.connect()?.send_and_listen(hello)?;

    // A fatal alert: record type 21, level 2.
    assert_eq!((said.first(), said.get(5)), (Some(&21), Some(&2)), "{said:?}");
    assert_says(&target.served.broker.log(), &["speaks TLS", "security.protocol=PLAINTEXT"]);
    target.still_serves()
}

#[test]
fn an_http_2_preface_gets_a_goaway_with_a_sentence() -> anyhow::Result<()> {
    let mut target = Target::start()?;

    let said = target.says_to(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")?;

    assert_says(&said, &["gRPC is not served yet"]);
    assert_says(&target.served.broker.log(), &["HTTP/2 (gRPC)"]);
    Ok(())
}

#[test]
fn garbage_is_closed_and_noted() -> anyhow::Result<()> {
    let mut target = Target::start()?;

    for garbage in
        [&b"\xff\xfe\xfd\xfc"[..], b"\x00", b"\x00\x00\x00\x03\x01\x02\x03", b"\x80\x00\x00\x00", b"~~~~~~"]
    {
        let said = target.connect()?.exchange_bytes(garbage)?;
        ensure!(said.is_empty(), "garbage is answered with {said:?}");
        target.still_serves()?;
    }

    assert_says(
        &target.served.broker.log(),
        &["speaks neither Kafka nor HTTP", "request header is malformed"],
    );
    Ok(())
}

#[test]
fn a_port_in_use_is_a_sentence_and_the_data_is_untouched() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let port = target.served.broker.address().port();
    let elsewhere = target.served.directory().join("elsewhere");

    let second = Broker::start(Options { port, ..Options::new(&elsewhere) }).map(drop);

    let refusal = format!("{:#}", second.expect_err("the port is taken"));
    assert_says(&refusal, &[&port.to_string(), "another process has the port", "--listen"]);
    assert!(!elsewhere.exists(), "a broker without a port made a data directory");
    target.still_serves()
}

#[test]
fn a_second_broker_on_the_data_directory_changes_nothing() -> anyhow::Result<()> {
    let mut target = Target::start()?;

    let second = Broker::start(Options::new(target.served.broker.data())).map(drop);

    let refusal = format!("{:#}", second.expect_err("the data directory is taken"));
    assert_says(&refusal, &["is in use", "data"]);
    target.still_serves()?;
    target.served.kill()?;
    target.still_serves()
}

#[test]
fn a_read_only_data_directory_is_a_sentence_and_loses_nothing() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    let mut target = Target::start()?;
    let data = target.served.broker.data().to_owned();
    target.served.broker.kill()?;

    let mount = Mount::bind(&data)?;
    mount.make_read_only()?;
    let refused = Broker::start(Options::new(&data)).map(drop);
    drop(mount);

    let refusal = format!("{:#}", refused.expect_err("nothing can be written there"));
    assert_says(&refusal, &["Read-only file system", &data.display().to_string()]);
    target.served.broker.restart()?;
    target.still_serves()
}
