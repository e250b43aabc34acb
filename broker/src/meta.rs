//! What the broker must remember besides records: cluster id, incarnation, topics, log starts, lost ranges, producer ids,
//! quotas.
//!
//! Typed access to the metadata store (design D6). Values are JSON, so that `segment cat` shows them readable. Every
//! change is durable when its call returns; the calls block on the disk and belong on the blocking pool or a thread
//! of their own, never on the reactor. Knows no protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::ErrorCode;
use highwater_record::{LeaderEpoch, Offset, PartitionId, ProducerId, TopicId, TopicName};
use highwater_storage::{MetaStore, QuarantinedRange, TransactError, Transaction};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;
use crate::disk::UnderWay;
use crate::quotas::{Entity, Limits};

const CLUSTER_ID: &str = "cluster/id";
const INCARNATION: &str = "incarnation";
const PRODUCER_ID_NEXT: &str = "producer-id/next";
const TOPICS: &str = "topic/";
const DELETED: &str = "deleted/";
const GRAVES: &str = "grave/";
const QUOTAS: &str = "quota/";
const LOG_STARTS: &str = "log-start/";
const QUARANTINE: &str = "quarantine/";

/// Producer ids are taken from the store this many at a time (Kafka: `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
const PRODUCER_ID_BLOCK: i64 = 1000;

/// A topic as the store keeps it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TopicRecord {
    /// The topic id in Kafka's text form.
    pub(crate) id: String,
    /// How many partitions it has.
    pub(crate) partitions: u32,
    /// The configs that were set, as they were given.
    pub(crate) configs: BTreeMap<String, String>,
}

/// A deleted topic whose files may still be there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Tombstone {
    /// The name it had.
    pub(crate) name: String,
    /// How many partitions it had.
    pub(crate) partitions: u32,
}

/// Offsets of a partition that are lost, as the store keeps them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LostRecord {
    /// The first offset that is lost.
    pub(crate) from: i64,
    /// The first one after them.
    pub(crate) to: i64,
    /// The file, without the directories above.
    pub(crate) file: String,
    /// Where in it the damage begins.
    pub(crate) position: u64,
    /// What is wrong.
    pub(crate) cause: String,
}

impl LostRecord {
    /// What is kept of a range.
    pub(crate) fn of(range: &QuarantinedRange) -> Self {
        let file = range.path.file_name().map(|name| name.to_string_lossy().into_owned());
        Self {
            from: range.from.get(),
            to: range.to.get(),
            file: file.unwrap_or_default(),
            position: range.position,
            cause: range.cause.clone(),
        }
    }
}

/// Why the metadata cannot be read or changed.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] TransactError),
    /// What is known of the metadata may be less than what it was, so nothing is built on it.
    #[error("{reason}")]
    ReadOnly {
        /// What is wrong, where, and how to go on.
        reason: String,
    },
    /// A value is not what this version writes.
    #[error("metadata entry {key:?} is not readable: {cause}")]
    Value {
        /// The entry.
        key: String,
        /// Why not.
        cause: String,
    },
    /// A counter reached its end.
    #[error("metadata counter {key:?} is exhausted at {value}")]
    Exhausted {
        /// The counter.
        key: &'static str,
        /// Its last value.
        value: i64,
    },
}

impl MetadataError {
    /// The code that a client is told who wanted to change something.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::ReadOnly { .. } | Self::Store(TransactError::Damaged(_)) => ErrorCode::PolicyViolation,
            _ => ErrorCode::KafkaStorageError,
        }
    }
}

/// Typed metadata.
pub(crate) struct Metadata {
    store: Box<dyn MetaStore>,
    under_way: Arc<UnderWay>,
    /// Why nothing may be changed, if nothing may.
    read_only: OnceLock<String>,
}

impl Metadata {
    /// Wraps a store. Its writes are noted in `under_way`.
    pub(crate) fn new(store: Box<dyn MetaStore>, under_way: Arc<UnderWay>) -> Self {
        Self { store, under_way, read_only: OnceLock::new() }
    }

    /// Refuses every change from here on, with this reason.
    pub(crate) fn freeze(&self, reason: String) {
        // The first reason stands.
        let _ = self.read_only.set(reason);
    }

    /// Why nothing may be changed, if nothing may.
    pub(crate) fn read_only(&self) -> Option<&str> {
        self.read_only.get().map(String::as_str)
    }

    /// The cluster id, made at the first start. One that was lost is made up for as long as nothing may be changed.
    pub(crate) fn cluster_id(&self) -> Result<String, MetadataError> {
        if let Some(id) = self.read::<String>(CLUSTER_ID)? {
            return Ok(id);
        }
        let id = new_topic_id().to_string();
        if self.read_only().is_some() {
            return Ok(id);
        }
        self.write(Transaction::new().put(CLUSTER_ID, encode(&id)))?;
        Ok(id)
    }

    /// Starts a new incarnation of the broker: the leader epoch of everything that it appends (design D5).
    pub(crate) fn next_incarnation(&self) -> Result<LeaderEpoch, MetadataError> {
        let current = self.read::<i32>(INCARNATION)?;
        let next = current.map_or(Some(0), |epoch| epoch.checked_add(1)).and_then(LeaderEpoch::new);
        let exhausted =
            || MetadataError::Exhausted { key: INCARNATION, value: current.unwrap_or_default().into() };
        let next = next.ok_or_else(exhausted)?;
        self.write(Transaction::new().put(INCARNATION, encode(&next.get())))?;
        Ok(next)
    }

    /// The incarnation before this start, if there was one.
    pub(crate) fn incarnation(&self) -> Result<Option<LeaderEpoch>, MetadataError> {
        Ok(self.read::<i32>(INCARNATION)?.and_then(LeaderEpoch::new))
    }

    /// Takes a block of producer ids that nobody else gets.
    pub(crate) fn producer_id_block(&self) -> Result<Range<i64>, MetadataError> {
        let first = self.read::<i64>(PRODUCER_ID_NEXT)?.unwrap_or(0);
        let next = first.checked_add(PRODUCER_ID_BLOCK);
        let next = next.ok_or(MetadataError::Exhausted { key: PRODUCER_ID_NEXT, value: first })?;
        self.write(Transaction::new().put(PRODUCER_ID_NEXT, encode(&next)))?;
        Ok(first..next)
    }

    /// Every topic.
    pub(crate) fn topics(&self) -> Result<Vec<(TopicName, TopicRecord)>, MetadataError> {
        let entries = self.store.range(TOPICS.as_bytes());
        entries
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8_lossy(&key).into_owned();
                let name = key.strip_prefix(TOPICS).unwrap_or(&key);
                let name = TopicName::new(name).map_err(|e| unreadable(&key, e))?;
                Ok((name, decode(&key, &value.bytes)?))
            })
            .collect()
    }

    /// Adds a topic that does not exist yet. Its name rests no longer.
    pub(crate) fn create_topic(&self, name: &TopicName, record: &TopicRecord) -> Result<(), MetadataError> {
        let key = format!("{TOPICS}{name}");
        let created = Transaction::new().expect(key.clone(), None).put(key, encode(record));
        self.write(created.delete(format!("{GRAVES}{name}")))
    }

    /// Changes a topic that exists.
    pub(crate) fn update_topic(&self, name: &TopicName, record: &TopicRecord) -> Result<(), MetadataError> {
        self.write(Transaction::new().put(format!("{TOPICS}{name}"), encode(record)))
    }

    /// Replaces a topic by its tombstone, forgets where its logs begin and lets its name rest, in one transaction.
    pub(crate) fn delete_topic(&self, name: &TopicName, record: &TopicRecord) -> Result<(), MetadataError> {
        let tombstone = Tombstone { name: name.to_string(), partitions: record.partitions };
        let tombstone_key = format!("{DELETED}{}", record.id);
        let mut transaction = Transaction::new()
            .delete(format!("{TOPICS}{name}"))
            .put(tombstone_key, encode(&tombstone))
            .put(format!("{GRAVES}{name}"), encode(&record.id));
        for kind in [LOG_STARTS, QUARANTINE] {
            for (key, _) in self.store.range(format!("{kind}{}/", record.id).as_bytes()) {
                transaction = transaction.delete(key);
            }
        }
        self.write(transaction)
    }

    /// The names of deleted topics that rest.
    pub(crate) fn graves(&self) -> Result<Vec<TopicName>, MetadataError> {
        let entries = self.store.range(GRAVES.as_bytes());
        let name = |key: &[u8]| {
            let key = String::from_utf8_lossy(key).into_owned();
            TopicName::new(key.strip_prefix(GRAVES).unwrap_or(&key)).map_err(|error| unreadable(&key, error))
        };
        entries.into_iter().map(|(key, _)| name(&key)).collect()
    }

    /// Forgets names that have rested long enough.
    pub(crate) fn forget_graves(&self, names: &[TopicName]) -> Result<(), MetadataError> {
        let forgotten = names.iter().map(|name| format!("{GRAVES}{name}"));
        self.write(forgotten.fold(Transaction::new(), |transaction, key| transaction.delete(key)))
    }

    /// Keeps where logs begin, in one transaction. One that begins later already is left alone.
    pub(crate) fn advance_log_starts(
        &self,
        starts: impl IntoIterator<Item = (TopicId, PartitionId, Offset)>,
    ) -> Result<(), MetadataError> {
        let mut transaction = Transaction::new();
        for (id, partition, start) in starts {
            if self.log_start(id, partition)?.is_none_or(|kept| kept < start) {
                transaction = transaction.put(log_start_key(id, partition), encode(&start.get()));
            }
        }
        self.write(transaction)
    }

    /// Where a log begins at least, if that was kept. The log itself may begin later.
    pub(crate) fn log_start(
        &self,
        id: TopicId,
        partition: PartitionId,
    ) -> Result<Option<Offset>, MetadataError> {
        Ok(self.read::<i64>(&log_start_key(id, partition))?.and_then(Offset::new))
    }

    /// Keeps which offsets of a partition are lost; none forgets what was kept.
    pub(crate) fn set_lost(
        &self,
        id: TopicId,
        partition: PartitionId,
        lost: &[LostRecord],
    ) -> Result<(), MetadataError> {
        let key = format!("{QUARANTINE}{id}/{partition}");
        let transaction = Transaction::new();
        self.write(match lost {
            [] => transaction.delete(key),
            lost => transaction.put(key, encode(&lost)),
        })
    }

    /// The offsets of a partition that were found lost.
    pub(crate) fn lost(&self, id: TopicId, partition: PartitionId) -> Result<Vec<LostRecord>, MetadataError> {
        Ok(self.read(&format!("{QUARANTINE}{id}/{partition}"))?.unwrap_or_default())
    }

    /// The end of the metadata's own log.
    pub(crate) fn end(&self) -> i64 {
        self.store.end().get()
    }

    /// Deleted topics whose files may still be there.
    pub(crate) fn tombstones(&self) -> Result<Vec<(TopicId, Tombstone)>, MetadataError> {
        let entries = self.store.range(DELETED.as_bytes());
        entries
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8_lossy(&key).into_owned();
                let id =
                    key.strip_prefix(DELETED).unwrap_or(&key).parse().map_err(|e| unreadable(&key, e))?;
                Ok((id, decode(&key, &value.bytes)?))
            })
            .collect()
    }

    /// Forgets a tombstone once its files are gone.
    pub(crate) fn bury(&self, id: TopicId) -> Result<(), MetadataError> {
        self.write(Transaction::new().delete(format!("{DELETED}{id}")))
    }

    /// Every quota.
    pub(crate) fn quotas(&self) -> Result<BTreeMap<Entity, Limits>, MetadataError> {
        let entries = self.store.range(QUOTAS.as_bytes());
        entries
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8_lossy(&key).into_owned();
                let entity = key.strip_prefix(QUOTAS).and_then(Entity::from_key);
                let entity = entity.ok_or_else(|| unreadable(&key, "not an entity"))?;
                let mut limits = Limits::default();
                for (name, rate) in decode::<BTreeMap<String, f64>>(&key, &value.bytes)? {
                    limits.set(&name, Some(rate)).map_err(|sentence| unreadable(&key, sentence))?;
                }
                Ok((entity, limits))
            })
            .collect()
    }

    /// Stores what `quotas` says about each of `changed`, in one transaction; nothing said is a quota removed.
    pub(crate) fn store_quotas(
        &self,
        quotas: &BTreeMap<Entity, Limits>,
        changed: &BTreeSet<Entity>,
    ) -> Result<(), MetadataError> {
        let mut transaction = Transaction::new();
        for entity in changed {
            let key = format!("{QUOTAS}{}", entity.to_key());
            transaction = match quotas.get(entity).filter(|limits| !limits.is_empty()) {
                Some(limits) => transaction.put(key, encode(&limits.values().collect::<BTreeMap<_, _>>())),
                None => transaction.delete(key),
            };
        }
        self.write(transaction)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, MetadataError> {
        self.store.get(key.as_bytes()).map(|value| decode(key, &value.bytes)).transpose()
    }

    fn write(&self, transaction: Transaction) -> Result<(), MetadataError> {
        if let Some(reason) = self.read_only.get() {
            return Err(MetadataError::ReadOnly { reason: reason.clone() });
        }
        let _under_way = self.under_way.begin(Instant::now());
        self.store.transact(transaction, clock::now())?;
        Ok(())
    }
}

fn log_start_key(id: TopicId, partition: PartitionId) -> String {
    format!("{LOG_STARTS}{id}/{partition}")
}

/// A random topic id (UUID version 4), as Kafka makes them.
pub(crate) fn new_topic_id() -> TopicId {
    TopicId::new(uuid::Uuid::new_v4().into_bytes()).expect("a version 4 UUID has bits set")
}

/// Hands out producer ids from durable blocks.
pub(crate) struct ProducerIds {
    block: parking_lot::Mutex<Range<i64>>,
}

impl ProducerIds {
    /// No block yet.
    pub(crate) fn new() -> Self {
        Self { block: parking_lot::Mutex::new(0..0) }
    }

    /// The next id, if the block at hand has one and nobody is taking a new block.
    pub(crate) fn at_hand(&self) -> Option<ProducerId> {
        self.block.try_lock()?.next().and_then(ProducerId::new)
    }

    /// The next id; takes a new block from the store when needed, which blocks on the disk.
    pub(crate) fn take(&self, metadata: &Metadata) -> Result<ProducerId, MetadataError> {
        let mut block = self.block.lock();
        if block.is_empty() {
            *block = metadata.producer_id_block()?;
        }
        let id = block.next().and_then(ProducerId::new);
        id.ok_or(MetadataError::Exhausted { key: PRODUCER_ID_NEXT, value: block.end })
    }
}

/// The partitions of a topic, by number.
pub(crate) fn partition_ids(count: u32) -> impl Iterator<Item = PartitionId> {
    (0..count).filter_map(|number| i32::try_from(number).ok().and_then(PartitionId::new))
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    let value = serde_json::to_vec(value).expect("metadata values are plain structs, numbers and strings");
    Bytes::from(value)
}

fn decode<T: for<'a> Deserialize<'a>>(key: &str, value: &[u8]) -> Result<T, MetadataError> {
    serde_json::from_slice(value).map_err(|e| unreadable(key, e))
}

fn unreadable(key: &str, cause: impl std::fmt::Display) -> MetadataError {
    MetadataError::Value { key: key.to_owned(), cause: cause.to_string() }
}
