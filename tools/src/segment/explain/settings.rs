//! The settings of topics that decide how long segments stay: from our own metadata, offline, or Kafka's defaults.
//!
//! What the command line gives comes last and counts. Settings that decide nothing here are passed over if they are the
//! topic's, and refused if they are given.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use highwater_record::TimestampType;
use highwater_storage::{CompactionConfig, DiskFiles, LogConfig, MetaLog, Ratio, Retention};

use crate::failure::Failure;

/// Kafka's defaults of what decides here.
const DEFAULTS: [(&str, &str); 9] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "604800000"),
    ("retention.bytes", "-1"),
    ("segment.ms", "604800000"),
    ("segment.bytes", "1073741824"),
    ("min.compaction.lag.ms", "0"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("delete.retention.ms", "86400000"),
];

/// The settings of one topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, String>,
    /// What the topic's own metadata or the command line says.
    pub(super) chosen: Vec<&'static str>,
}

/// The settings of the topics of a data directory, as they were set; empty where it is not ours.
pub(super) fn topics(data: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let entries = MetaLog::peek(&DiskFiles, data).unwrap_or_default();
    let topic = |key: &[u8], value: &[u8]| {
        let name = std::str::from_utf8(key).ok()?.strip_prefix("topic/")?.to_owned();
        let record: serde_json::Value = serde_json::from_slice(value).ok()?;
        let configs = record["configs"].as_object()?.iter();
        let configs = configs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Some((name, configs.collect()))
    };
    entries.iter().filter_map(|(key, value)| topic(key, &value.bytes)).collect()
}

impl Settings {
    /// A topic's settings, and those of the command line.
    pub(super) fn new(topic: Option<&BTreeMap<String, String>>, given: &[String]) -> Result<Self> {
        let values = DEFAULTS.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let mut settings = Self { values, chosen: Vec::new() };
        for (key, value) in topic.into_iter().flatten() {
            settings.set(key, value);
        }
        for pair in given {
            let known = DEFAULTS.map(|(key, _)| key).join(", ");
            let set = pair.split_once('=').is_some_and(|(key, value)| settings.set(key.trim(), value.trim()));
            if !set {
                let message = format!("-c {pair:?}: it must be KEY=VALUE, where KEY is one of {known}");
                return Err(Failure::usage(message).into());
            }
        }
        settings.retention()?;
        settings.log()?;
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &str) -> bool {
        let Some((known, _)) = DEFAULTS.iter().find(|(known, _)| *known == key) else { return false };
        self.values.insert(known, value.to_owned());
        if !self.chosen.contains(known) {
            self.chosen.push(known);
        }
        true
    }

    /// The value of a setting.
    pub(super) fn value(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N> {
        let wrong = || Failure::usage(format!("{key} is {:?}; it must be a number", self.value(key)));
        self.value(key).parse().map_err(|_| wrong().into())
    }

    fn limit(&self, key: &str) -> Result<Option<u64>> {
        if self.value(key) == "-1" { Ok(None) } else { self.number(key).map(Some) }
    }

    fn has_policy(&self, policy: &str) -> bool {
        self.value("cleanup.policy").split(',').any(|named| named.trim() == policy)
    }

    /// Whether the topic is compacted.
    pub(super) fn is_compacted(&self) -> bool {
        self.has_policy("compact")
    }

    /// What is kept; everything if the topic is only compacted.
    pub(super) fn retention(&self) -> Result<Retention> {
        if self.is_compacted() && !self.has_policy("delete") {
            return Ok(Retention::default());
        }
        Ok(Retention { age_ms: self.limit("retention.ms")?, bytes: self.limit("retention.bytes")? })
    }

    /// What a log of the topic is like.
    pub(super) fn log(&self) -> Result<LogConfig> {
        let ratio = self.number("min.cleanable.dirty.ratio").ok().and_then(Ratio::new);
        let compaction = CompactionConfig {
            min_lag_ms: self.number("min.compaction.lag.ms")?,
            max_lag_ms: self.number("max.compaction.lag.ms")?,
            dirty_ratio_min: ratio
                .ok_or_else(|| Failure::usage("min.cleanable.dirty.ratio must be a number from 0 to 1"))?,
            delete_retention_ms: self.number("delete.retention.ms")?,
        };
        let compaction = Some(compaction).filter(|_| self.is_compacted());
        let max_lag_ms = compaction.map_or(u64::MAX, |compaction| compaction.max_lag_ms);
        Ok(LogConfig {
            segment_bytes: self.number("segment.bytes")?,
            segment_ms: self.number::<u64>("segment.ms")?.min(max_lag_ms),
            index_interval_bytes: 4096,
            index_bytes_max: 10 << 20,
            timestamp_type: TimestampType::CreateTime,
            writeback: false,
            producer_expiry_ms: u64::MAX,
            compaction,
            topic_id: None,
        })
    }
}
