//! What administrators ask for: settings, partitions, where logs begin, and what the broker says of itself.

mod cluster;
mod configs;
mod partitions;
mod records;
mod retention;
mod topics;

use std::collections::BTreeMap;

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
};

use highwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use crate::faults::client::Connection;
use crate::harness::served::Served;

/// The timestamp that asks ListOffsets for the start.
const EARLIEST: i64 = -2;
/// The resource type of topics.
const TOPIC: i8 = 2;
/// The resource type of brokers.
const BROKER: i8 = 4;

/// A broker and an administrator's connection to it.
struct Admin {
    served: Served,
    connection: Connection,
}

impl Admin {
    fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let served = Served::start(flags)?;
        let connection = served.connect()?;
        Ok(Self { served, connection })
    }

    /// A broker with a topic `t` of as many partitions.
    fn with_topic(partitions: i32) -> anyhow::Result<Self> {
        let mut admin = Self::start(&[])?;
        admin.connection.create_topic("t", partitions, &[])?;
        Ok(admin)
    }

    /// Connects again, after the broker was started again.
    fn reconnect(&mut self) -> anyhow::Result<()> {
        self.connection = self.served.connect()?;
        Ok(())
    }

    /// What DescribeConfigs says of one resource, with every detail.
    fn describe(&mut self, kind: i8, name: &str) -> anyhow::Result<DescribeConfigsResult> {
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: true,
        };
        let response = self.connection.call(4, &request)?;
        response.results.into_iter().next().context("the answer names the resource")
    }

    /// The settings of a topic by name.
    fn settings(&mut self, topic: &str) -> anyhow::Result<BTreeMap<String, DescribeConfigsResourceResult>> {
        let described = self.describe(TOPIC, topic)?;
        assert_eq!(named(described.error_code), ErrorCode::None, "{:?}", described.error_message);
        Ok(described.configs.into_iter().map(|config| (config.name.to_string(), config)).collect())
    }

    /// The value of one setting of a topic.
    fn setting(&mut self, topic: &str, name: &str) -> anyhow::Result<String> {
        let config = self.settings(topic)?.remove(name).with_context(|| format!("{name} is described"))?;
        Ok(config.value.map(String::from).unwrap_or_default())
    }

    /// Where partition 0 of a topic begins for consumers.
    fn earliest(&mut self, topic: &str) -> anyhow::Result<i64> {
        let partition = ListOffsetsPartition { timestamp: EARLIEST, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
        let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
        let response = self.connection.call(7, &request)?;
        let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        Ok(found.context("the answer names the partition")?.offset)
    }

    /// How many segments partition 0 of the topic `t` has.
    fn segments(&self) -> anyhow::Result<usize> {
        let names = std::fs::read_dir(self.served.broker.data().join("t-0"))?.filter_map(Result::ok);
        Ok(names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log")).count())
    }
}

/// The answer to what was done without a word.
fn done() -> (ErrorCode, String) {
    (ErrorCode::None, String::new())
}

fn named(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
