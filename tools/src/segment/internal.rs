//! The records of internal topics as objects, with the names of Kafka's schemas and in the form that Kafka's own
//! `kafka-dump-log` prints: a type or version, and `data`.
//!
//! A type or version that `broker/group` does not read is named, and its bytes are printed as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use highwater_group::records::{
    self, Decoded, GroupMetadataValue, MemberMetadata, OffsetCommitValue, kind_name,
};
use highwater_group::transaction_records::{self, DecodedTransaction, TransactionLogValue, status_name};
use highwater_record::{EndOfTransaction, Record};
use serde_json::{Value, json};

use crate::output::note;
use crate::record_view::DecodedRecord;

/// Whether internal topics are decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum DecodeMode {
    /// By the topic's name
    Auto,
    /// Keys and values as bytes
    Raw,
}

/// The decoders of all topics. One for each, whatever has its records, says what it cannot decode once.
#[derive(Debug)]
pub(super) struct Decoders {
    mode: DecodeMode,
    by_topic: Mutex<BTreeMap<String, Option<Arc<Decoder>>>>,
}

impl Decoders {
    /// None of a topic yet.
    pub(super) const fn new(mode: DecodeMode) -> Self {
        Self { mode, by_topic: Mutex::new(BTreeMap::new()) }
    }

    /// The decoder of a topic, if its records or its markers are to be decoded.
    pub(super) fn of(&self, topic: &str) -> Option<Arc<Decoder>> {
        let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        let decoder =
            by_topic.entry(topic.to_owned()).or_insert_with(|| Decoder::of(topic, self.mode).map(Arc::new));
        decoder.clone()
    }
}

/// Decodes the records of one topic.
#[derive(Debug)]
pub(super) struct Decoder {
    topic: Topic,
    /// What was said of types that are not decoded, to say it once.
    said: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug)]
enum Topic {
    Offsets,
    Transactions,
    Metadata,
    /// Whose control records alone have a form that is known.
    Other,
}

impl Decoder {
    fn of(topic: &str, mode: DecodeMode) -> Option<Self> {
        let topic = match (mode, topic) {
            (DecodeMode::Raw, _) => return None,
            (DecodeMode::Auto, "__consumer_offsets") => Topic::Offsets,
            (DecodeMode::Auto, "__transaction_state") => Topic::Transactions,
            (DecodeMode::Auto, "__cluster_metadata") => Topic::Metadata,
            (DecodeMode::Auto, _) => Topic::Other,
        };
        Some(Self { topic, said: Mutex::default() })
    }

    /// What a record says; nothing if its bytes are all there is.
    pub(super) fn decode(&self, record: &Record<'_>, is_control: bool) -> Option<DecodedRecord> {
        if is_control {
            return decode_marker(record);
        }
        let key = || record.key.map(Bytes::copy_from_slice);
        let value = || record.value.map(Bytes::copy_from_slice);
        let decoded = match self.topic {
            Topic::Other => return None,
            Topic::Metadata => {
                self.say("records of __cluster_metadata are printed as bytes".to_owned(), "");
                return None;
            }
            Topic::Offsets => records::decode(key()?, value()).map(|decoded| self.group(decoded, record)),
            Topic::Transactions => {
                transaction_records::decode(key()?, value()).map(|decoded| self.transaction(decoded, record))
            }
        };
        match decoded {
            Ok(decoded) => Some(decoded),
            Err(error) => {
                self.say(
                    format!("offset {}: {error}; such records are printed as bytes", record.offset),
                    "malformed",
                );
                None
            }
        }
    }

    fn group(&self, decoded: Decoded, record: &Record<'_>) -> DecodedRecord {
        let named = |data: Value| {
            let kind = version_of(record.key);
            json!({ "type": kind, "name": kind.and_then(kind_name), "data": data })
        };
        let version = version_of(record.value);
        match decoded {
            Decoded::Offset { key, value } => DecodedRecord {
                key: named(json!({ "group": &*key.group, "topic": &*key.topic, "partition": key.partition })),
                value: versioned(version, value.map(|value| offset(&value, version))),
            },
            Decoded::Group { key, value } => DecodedRecord {
                key: named(json!({ "group": &*key.group })),
                value: versioned(version, value.map(|value| group(&value, version))),
            },
            Decoded::Unknown { kind, version } => {
                let name = kind_name(kind);
                let what = format!("type {kind} ({})", name.unwrap_or("unknown"));
                let of =
                    version.map_or_else(String::new, |version| format!(" with values of version {version}"));
                self.say(format!("records of {what}{of} are named and not decoded"), &what);
                let group = record.key.and_then(|key| records::group_of(Bytes::copy_from_slice(key)));
                DecodedRecord {
                    key: json!({ "type": kind, "name": name, "group": group.as_deref(), "raw": raw(record.key) }),
                    value: unread(record.value),
                }
            }
        }
    }

    fn transaction(&self, decoded: DecodedTransaction, record: &Record<'_>) -> DecodedRecord {
        let version = version_of(record.value);
        match decoded {
            DecodedTransaction::State { key, value } => DecodedRecord {
                key: json!({
                    "type": version_of(record.key),
                    "name": "TransactionLog",
                    "data": { "transactionalId": &*key.transactional_id },
                }),
                value: versioned(version, value.map(|value| transaction(&value, version))),
            },
            DecodedTransaction::Unknown { key_version, value_version } => {
                let what = match value_version {
                    Some(version) => format!("values of version {version}"),
                    None => format!("keys of version {key_version}"),
                };
                self.say(format!("records with {what} are not decoded"), &what);
                DecodedRecord {
                    key: json!({ "type": key_version, "name": null, "raw": raw(record.key) }),
                    value: unread(record.value),
                }
            }
        }
    }

    fn say(&self, sentence: String, what: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(what.to_owned()) {
            note(sentence);
        }
    }
}

fn decode_marker(record: &Record<'_>) -> Option<DecodedRecord> {
    let name = match EndOfTransaction::of(record)? {
        EndOfTransaction::Abort => "abort",
        EndOfTransaction::Commit => "commit",
    };
    let kind = if name == "abort" { 0 } else { 1 };
    let epoch = record.value.and_then(|value| value.get(2..6)?.try_into().ok()).map(i32::from_be_bytes);
    Some(DecodedRecord {
        key: json!({ "type": kind, "name": name, "data": {} }),
        value: versioned(version_of(record.value), Some(json!({ "coordinatorEpoch": epoch }))),
    })
}

fn version_of(bytes: Option<&[u8]>) -> Option<i16> {
    bytes?.first_chunk().copied().map(i16::from_be_bytes)
}

fn versioned(version: Option<i16>, data: Option<Value>) -> Value {
    data.map_or(Value::Null, |data| json!({ "version": version, "data": data }))
}

fn unread(value: Option<&[u8]>) -> Value {
    if value.is_none() { Value::Null } else { json!({ "version": version_of(value), "raw": raw(value) }) }
}

fn raw(bytes: Option<&[u8]>) -> Value {
    json!({ "b64": bytes.map(|bytes| STANDARD.encode(bytes)) })
}

/// Adds fields that only some versions have.
fn with(mut data: Value, fields: &[(bool, &str, Value)]) -> Value {
    for (is_there, name, value) in fields {
        if *is_there {
            data[*name] = value.clone();
        }
    }
    data
}

fn offset(value: &OffsetCommitValue, version: Option<i16>) -> Value {
    let version = version.unwrap_or_default();
    with(
        json!({
            "offset": value.offset,
            "metadata": &*value.metadata,
            "commitTimestamp": value.commit_timestamp,
        }),
        &[
            (version >= 3, "leaderEpoch", json!(value.leader_epoch)),
            (version == 1, "expireTimestamp", json!(value.expire_timestamp)),
            (version >= 4, "topicId", json!(value.topic_id.to_string())),
        ],
    )
}

fn group(value: &GroupMetadataValue, version: Option<i16>) -> Value {
    let version = version.unwrap_or_default();
    let members: Vec<Value> = value.members.iter().map(|each| member(each, version)).collect();
    with(
        json!({
            "protocolType": &*value.protocol_type,
            "generation": value.generation,
            "protocol": value.protocol.as_deref(),
            "leader": value.leader.as_deref(),
            "members": members,
        }),
        &[(version >= 2, "currentStateTimestamp", json!(value.current_state_timestamp))],
    )
}

fn member(member: &MemberMetadata, version: i16) -> Value {
    with(
        json!({
            "memberId": &*member.member_id,
            "clientId": &*member.client_id,
            "clientHost": &*member.client_host,
            "sessionTimeout": member.session_timeout,
            "subscription": STANDARD.encode(&member.subscription),
            "assignment": STANDARD.encode(&member.assignment),
        }),
        &[
            (version >= 3, "groupInstanceId", json!(member.group_instance_id.as_deref())),
            (version >= 1, "rebalanceTimeout", json!(member.rebalance_timeout)),
        ],
    )
}

fn transaction(value: &TransactionLogValue, version: Option<i16>) -> Value {
    let version = version.unwrap_or_default();
    let partitions = value.transaction_partitions.as_ref().map(|topics| {
        let topic = |topic: &transaction_records::PartitionsSchema| {
            json!({ "topic": &*topic.topic, "partitionIds": topic.partition_ids })
        };
        topics.iter().map(topic).collect::<Vec<_>>()
    });
    with(
        json!({
            "producerId": value.producer_id,
            "producerEpoch": value.producer_epoch,
            "transactionTimeoutMs": value.transaction_timeout_ms,
            "transactionStatus": value.transaction_status,
            "transactionStatusName": status_name(value.transaction_status),
            "transactionPartitions": partitions,
            "transactionLastUpdateTimestampMs": value.transaction_last_update_timestamp_ms,
            "transactionStartTimestampMs": value.transaction_start_timestamp_ms,
        }),
        &[
            (version >= 1, "previousProducerId", json!(value.previous_producer_id)),
            (version >= 1, "nextProducerId", json!(value.next_producer_id)),
            (version >= 1, "clientTransactionVersion", json!(value.client_transaction_version)),
        ],
    )
}
