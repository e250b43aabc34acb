//! The settings of topics, in one table that parsing, describing and messages share, and those of the broker.
//!
//! A row says what a setting is called, what its values are, which setting of the broker gives its default, what
//! setting it does, and what it does in a sentence. Knows no protocol but the numbers of DescribeConfigs.

use highwater_storage::Ratio;

use crate::broker::NODE_ID;
use crate::cleaner;
use crate::config::{Config, Listen};
use crate::topic_config::{Cleanup, TopicConfig, number, number_u32, replicas};

/// What the values of a setting are, with Kafka's numbers (`DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i8)]
pub(crate) enum ValueType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What setting a key does.
pub(crate) enum Rule {
    /// It changes what the broker does.
    Takes {
        /// Checks a value and takes it; the error is a sentence.
        set: fn(&mut TopicConfig, &str, &str, &Config) -> Result<(), String>,
        /// The value in force, as Kafka writes it.
        shown: fn(&TopicConfig, &Config) -> String,
    },
    /// Nothing, but other values than the one that holds are accepted too, because clients set them by habit.
    Accepts {
        /// The value that holds.
        so: &'static str,
        /// Checks a value; the error is a sentence.
        check: fn(&str, &str, &Config) -> Result<(), String>,
    },
    /// Nothing: only the value that holds anyway is accepted.
    Says {
        /// That value.
        so: &'static str,
        /// Why there is no other.
        why: &'static str,
    },
}

/// A setting of topics.
pub(crate) struct TopicKey {
    pub(crate) name: &'static str,
    pub(crate) value: ValueType,
    /// The broker's setting that the default comes from (`ServerTopicConfigSynonyms.java`), if there is one.
    pub(crate) broker_name: Option<&'static str>,
    pub(crate) rule: Rule,
    pub(crate) documentation: &'static str,
}

impl TopicKey {
    /// The value of topics that do not set one.
    pub(crate) fn default_value(&self, broker: &Config) -> String {
        match self.rule {
            Rule::Takes { shown, .. } => shown(&TopicConfig::default(), broker),
            Rule::Accepts { so, .. } | Rule::Says { so, .. } => so.to_owned(),
        }
    }

    /// Whether setting it changes what the broker does.
    pub(crate) const fn takes_effect(&self) -> bool {
        matches!(self.rule, Rule::Takes { .. })
    }

    /// Whether there is one value only.
    pub(crate) const fn is_fixed(&self) -> bool {
        matches!(self.rule, Rule::Says { .. })
    }
}

/// The setting of that name.
pub(crate) fn topic_key(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

/// Kafka's default of the flush settings: never.
fn or_never(value: Option<u64>) -> String {
    value.unwrap_or(NEVER).to_string()
}

/// The largest number stands for never in the flush settings.
const NEVER: u64 = i64::MAX as u64;

fn unless_never(value: u64) -> Option<u64> {
    (value < NEVER).then_some(value)
}

/// Kafka's value for no limit in the retention settings.
const UNLIMITED: &str = "-1";

fn or_unlimited(key: &str, value: &str) -> Result<Option<u64>, String> {
    if value.trim() == UNLIMITED {
        return Ok(None);
    }
    number(key, value, 0, NEVER)
        .map(Some)
        .map_err(|sentence| format!("{sentence}, or {UNLIMITED} for no limit"))
}

fn shown_unlimited(limit: Option<u64>) -> String {
    limit.map_or_else(|| UNLIMITED.to_owned(), |limit| limit.to_string())
}

/// The setting that says what an acknowledgement waits for.
pub(crate) const DURABILITY: &str = "durability";

/// Every setting that a topic can have, by name.
pub(crate) const TOPIC_KEYS: &[TopicKey] = &[
    TopicKey {
        name: "cleanup.policy",
        value: ValueType::List,
        broker_name: Some("log.cleanup.policy"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.cleanup = Cleanup::parse(key, value)?;
                Ok(())
            },
            shown: |config, _| config.cleanup.name().to_owned(),
        },
        documentation: "How old records go: with `compact` only the latest record of each key stays, and records need a \
                        key; with `delete` segments go by retention.ms and retention.bytes.",
    },
    TopicKey {
        name: "compression.type",
        value: ValueType::String,
        broker_name: Some("compression.type"),
        rule: Rule::Says { so: "producer", why: "batches are stored as they arrive" },
        documentation: "How batches are compressed: as their producer did it.",
    },
    TopicKey {
        name: "delete.retention.ms",
        value: ValueType::Long,
        broker_name: Some("log.cleaner.delete.retention.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.compaction.delete_retention_ms = number(key, value, 0, NEVER)?;
                Ok(())
            },
            shown: |config, _| config.compaction.delete_retention_ms.to_string(),
        },
        documentation: "Milliseconds that a tombstone stays in a compacted topic after the pass that first met it: who \
                        reads the topic from its start within that time sees every deletion.",
    },
    TopicKey {
        name: DURABILITY,
        value: ValueType::String,
        broker_name: Some(DURABILITY),
        rule: Rule::Takes {
            set: |config, _, value, _| {
                config.durability = Some(value.parse().map_err(|error| format!("{error}"))?);
                Ok(())
            },
            shown: |config, broker| config.durability.unwrap_or(broker.durability).to_string(),
        },
        documentation: "What an acknowledgement waits for: `fsync` for stable storage, `interval=<ms>` for a write that \
                        reaches stable storage at least this often, `os` for a write.",
    },
    TopicKey {
        name: "flush.messages",
        value: ValueType::Long,
        broker_name: Some("log.flush.interval.messages"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.flush_messages = unless_never(number(key, value, 1, NEVER)?);
                Ok(())
            },
            shown: |config, _| or_never(config.flush_messages),
        },
        documentation: "Any number but the largest makes every acknowledgement wait for stable storage. It never weakens \
                        the durability.",
    },
    TopicKey {
        name: "flush.ms",
        value: ValueType::Long,
        broker_name: Some("log.flush.interval.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.flush_ms = unless_never(number(key, value, 0, NEVER)?);
                Ok(())
            },
            shown: |config, _| or_never(config.flush_ms),
        },
        documentation: "Records reach stable storage at least this often, in milliseconds; 0 before each \
                        acknowledgement. It never weakens the durability.",
    },
    TopicKey {
        name: "index.interval.bytes",
        value: ValueType::Int,
        broker_name: Some("log.index.interval.bytes"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.index_interval_bytes = number_u32(key, value, 0, i32::MAX as u32)?;
                Ok(())
            },
            shown: |config, _| config.index_interval_bytes.to_string(),
        },
        documentation: "Bytes of batches between two index entries, from the next segment on.",
    },
    TopicKey {
        name: "max.compaction.lag.ms",
        value: ValueType::Long,
        broker_name: Some("log.cleaner.max.compaction.lag.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.compaction.max_lag_ms = number(key, value, 1, NEVER)?;
                Ok(())
            },
            shown: |config, _| config.compaction.max_lag_ms.to_string(),
        },
        documentation: "Milliseconds after which a record of a compacted topic waits no longer for compaction, whatever \
                        part of the log is dirty.",
    },
    TopicKey {
        name: "max.message.bytes",
        value: ValueType::Int,
        broker_name: Some("message.max.bytes"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.message_bytes_max = number_u32(key, value, 61, i32::MAX as u32)?;
                Ok(())
            },
            shown: |config, _| config.message_bytes_max.to_string(),
        },
        documentation: "Largest batch that is accepted, in bytes as it is stored, with its header.",
    },
    TopicKey {
        name: "message.timestamp.type",
        value: ValueType::String,
        broker_name: Some("log.message.timestamp.type"),
        rule: Rule::Takes {
            set: |config, key, value, _| config.set_timestamp_type(key, value),
            shown: |config, _| config.timestamp_type_name().to_owned(),
        },
        documentation: "Whose clock stamps records: `CreateTime` the producer's, `LogAppendTime` the broker's.",
    },
    TopicKey {
        name: "min.cleanable.dirty.ratio",
        value: ValueType::Double,
        broker_name: Some("log.cleaner.min.cleanable.ratio"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                let ratio = value.trim().parse().ok().and_then(Ratio::new);
                let wrong = || format!("{key} is {value:?}; it must be a number from 0 to 1");
                config.compaction.dirty_ratio_min = ratio.ok_or_else(wrong)?;
                Ok(())
            },
            shown: |config, _| format!("{:?}", config.compaction.dirty_ratio_min.get()),
        },
        documentation: "Part of a compacted log that must be new, not compacted yet, before a pass is worth its while.",
    },
    TopicKey {
        name: "min.compaction.lag.ms",
        value: ValueType::Long,
        broker_name: Some("log.cleaner.min.compaction.lag.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.compaction.min_lag_ms = number(key, value, 0, NEVER)?;
                Ok(())
            },
            shown: |config, _| config.compaction.min_lag_ms.to_string(),
        },
        documentation: "Milliseconds that a record of a compacted topic is left alone for, by its timestamp.",
    },
    TopicKey {
        name: "min.insync.replicas",
        value: ValueType::Int,
        broker_name: Some("min.insync.replicas"),
        rule: Rule::Accepts {
            so: "1",
            check: |key, value, broker| replicas(key, number(key, value, 1, i32::MAX as u64)?, broker),
        },
        documentation: "Replicas that must have a record before it is acknowledged. There is one, whatever the number.",
    },
    TopicKey {
        name: "preallocate",
        value: ValueType::Boolean,
        broker_name: Some("log.preallocate"),
        rule: Rule::Says {
            so: "false",
            why: "segments are always allocated ahead, without growing their size",
        },
        documentation: "Whether segment files have their full size from the start.",
    },
    TopicKey {
        name: "remote.storage.enable",
        value: ValueType::Boolean,
        broker_name: None,
        rule: Rule::Says { so: "false", why: "there is no tiered storage" },
        documentation: "Whether old segments move to other storage.",
    },
    TopicKey {
        name: "retention.bytes",
        value: ValueType::Long,
        broker_name: Some("log.retention.bytes"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.retention.bytes = or_unlimited(key, value)?;
                Ok(())
            },
            shown: |config, _| shown_unlimited(config.retention.bytes),
        },
        documentation: "The oldest segments of a partition go while the others have at least so many bytes; -1 for no \
                        limit. Only with the cleanup policy `delete`.",
    },
    TopicKey {
        name: "retention.ms",
        value: ValueType::Long,
        broker_name: Some("log.retention.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.retention.age_ms = or_unlimited(key, value)?;
                Ok(())
            },
            shown: |config, _| shown_unlimited(config.retention.age_ms),
        },
        documentation: "Milliseconds after which a segment goes, from its newest record or from its last append, whichever \
                        is earlier; -1 for no limit. Only with the cleanup policy `delete`.",
    },
    TopicKey {
        name: "segment.bytes",
        value: ValueType::Int,
        broker_name: Some("log.segment.bytes"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.segment_bytes = number_u32(key, value, 1 << 20, i32::MAX as u32)?;
                Ok(())
            },
            shown: |config, _| config.segment_bytes.to_string(),
        },
        documentation: "Largest size of a segment file, in bytes.",
    },
    TopicKey {
        name: "segment.index.bytes",
        value: ValueType::Int,
        broker_name: Some("log.index.size.max.bytes"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.index_bytes_max = number_u32(key, value, 4, i32::MAX as u32)?;
                Ok(())
            },
            shown: |config, _| config.index_bytes_max.to_string(),
        },
        documentation: "Largest size of an index file, in bytes; a full one starts a new segment.",
    },
    TopicKey {
        name: "segment.ms",
        value: ValueType::Long,
        broker_name: Some("log.roll.ms"),
        rule: Rule::Takes {
            set: |config, key, value, _| {
                config.segment_ms = number(key, value, 1, NEVER)?;
                Ok(())
            },
            shown: |config, _| config.segment_ms.to_string(),
        },
        documentation: "Milliseconds after which a segment takes no more batches, by the time of its records.",
    },
    TopicKey {
        name: "unclean.leader.election.enable",
        value: ValueType::Boolean,
        broker_name: Some("unclean.leader.election.enable"),
        rule: Rule::Says { so: "false", why: "one broker holds no elections" },
        documentation: "Whether a replica that lacks records may lead.",
    },
];

/// A setting of the broker that is not only the default of a setting of topics. All are given at the start.
pub(crate) struct BrokerKey {
    pub(crate) name: &'static str,
    pub(crate) value: ValueType,
    /// The value in force, as Kafka writes it; `None` if there is none.
    pub(crate) shown: fn(&Config) -> Option<String>,
    pub(crate) documentation: &'static str,
}

/// Every such setting, by name.
pub(crate) const BROKER_KEYS: &[BrokerKey] = &[
    BrokerKey {
        name: "accept.replication.as.one",
        value: ValueType::Boolean,
        shown: |broker| Some(broker.accept_replication_as_one.to_string()),
        documentation: "Whether more than one replica may be asked for and counts as one.",
    },
    BrokerKey {
        name: "advertised.listeners",
        value: ValueType::List,
        shown: |broker| broker.advertise.as_ref().map(|at| format!("PLAINTEXT://{}:{}", at.host, at.port)),
        documentation: "The address that clients are told; without one, the address that they reached.",
    },
    BrokerKey {
        name: "auto.create.topics.enable",
        value: ValueType::Boolean,
        shown: |broker| Some(broker.auto_create_topics.to_string()),
        documentation: "Whether topics are created when a client asks for them.",
    },
    BrokerKey {
        name: "broker.id",
        value: ValueType::Int,
        shown: |_| Some(NODE_ID.to_string()),
        documentation: "The id of this broker.",
    },
    BrokerKey {
        name: "default.replication.factor",
        value: ValueType::Int,
        shown: |_| Some("1".to_owned()),
        documentation: "Replicas of a topic that is created without a number: there is one broker.",
    },
    BrokerKey {
        name: DURABILITY,
        value: ValueType::String,
        shown: |broker| Some(broker.durability.to_string()),
        documentation: "What an acknowledgement waits for on topics that do not say so themselves.",
    },
    BrokerKey {
        name: "fetch.max.bytes",
        value: ValueType::Int,
        shown: |broker| Some(broker.fetch_bytes_max.to_string()),
        documentation: "Most record bytes in one fetch response.",
    },
    BrokerKey {
        name: "group.initial.rebalance.delay.ms",
        value: ValueType::Int,
        shown: |broker| Some(broker.initial_rebalance_delay.as_millis().to_string()),
        documentation: "How long a group without members waits for more of them before its first rebalance completes, in \
                        milliseconds.",
    },
    BrokerKey {
        name: "listeners",
        value: ValueType::List,
        shown: |broker| Some(listeners(broker)),
        documentation: "The addresses that the broker listens on.",
    },
    BrokerKey {
        name: "log.cleaner.backoff.ms",
        value: ValueType::Long,
        shown: |_| Some(cleaner::BACKOFF.as_millis().to_string()),
        documentation: "Milliseconds between two looks at which compacted logs are dirty.",
    },
    BrokerKey {
        name: "log.cleaner.dedupe.buffer.size",
        value: ValueType::Long,
        shown: |_| Some(cleaner::MAP_BYTES_MAX.to_string()),
        documentation: "Most bytes that a pass takes to note keys; it takes no more than it needs.",
    },
    BrokerKey {
        name: "log.cleaner.enable",
        value: ValueType::Boolean,
        shown: |_| Some("true".to_owned()),
        documentation: "Whether compacted topics are compacted.",
    },
    BrokerKey {
        name: "log.cleaner.io.max.bytes.per.second",
        value: ValueType::Double,
        shown: |_| Some(format!("{:?}", cleaner::BYTES_PER_SECOND as f64)),
        documentation: "Bytes that compaction reads and writes in a second, at most.",
    },
    BrokerKey {
        name: "log.cleaner.threads",
        value: ValueType::Int,
        shown: |_| Some("1".to_owned()),
        documentation: "Logs that are compacted at once.",
    },
    BrokerKey {
        name: "log.dirs",
        value: ValueType::List,
        shown: |broker| Some(broker.data.display().to_string()),
        documentation: "The directory that holds all data.",
    },
    BrokerKey {
        name: "log.retention.check.interval.ms",
        value: ValueType::Long,
        shown: |broker| Some(broker.retention_check_interval.as_millis().to_string()),
        documentation: "How often topics are looked through for segments that are too old or too many, in milliseconds.",
    },
    BrokerKey {
        name: "node.id",
        value: ValueType::Int,
        shown: |_| Some(NODE_ID.to_string()),
        documentation: "The id of this broker.",
    },
    BrokerKey {
        name: "num.partitions",
        value: ValueType::Int,
        shown: |broker| Some(broker.partitions_default.to_string()),
        documentation: "Partitions of a topic that is created without a number.",
    },
    BrokerKey {
        name: "partitions.max",
        value: ValueType::Int,
        shown: |broker| Some(broker.partitions_max.to_string()),
        documentation: "Most partitions that all topics may have together.",
    },
    BrokerKey {
        name: "socket.request.max.bytes",
        value: ValueType::Int,
        shown: |broker| Some(broker.frame_bytes_max().to_string()),
        documentation: "Largest request, in bytes.",
    },
];

/// The addresses to listen on as Kafka writes them.
fn listeners(broker: &Config) -> String {
    let addresses = match &broker.listen {
        Listen::Loopback => vec!["127.0.0.1:9092".to_owned(), "[::1]:9092".to_owned()],
        Listen::Exactly(addresses) => addresses.iter().map(ToString::to_string).collect(),
    };
    addresses.iter().map(|address| format!("PLAINTEXT://{address}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_rise_and_occur_once() {
        let names: Vec<_> = TOPIC_KEYS.iter().map(|key| key.name).collect();

        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
        let names: Vec<_> = BROKER_KEYS.iter().map(|key| key.name).collect();
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
    }

    #[test]
    fn every_default_can_be_set_and_is_shown_again() {
        let broker = Config::new("data".into());
        for key in TOPIC_KEYS {
            let default = key.default_value(&broker);
            let mut config = TopicConfig::default();

            config.set(key.name, &default, &broker).unwrap();

            if let Rule::Takes { shown, .. } = key.rule {
                assert_eq!(shown(&config, &broker), default, "{}", key.name);
            }
        }
    }
}
