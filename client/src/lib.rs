//! The Rust client: a small, permanent Kafka transport.
//!
//! A [`Client`] knows a cluster: it finds brokers and leaders, keeps connections, creates and deletes topics, looks at
//! groups and moves their offsets, and looks offsets up. A [`Producer`] sends records, a [`Consumer`] reads partitions by
//! offset. Both work against any broker that speaks Kafka's protocol from 2.1 on, since every API is used in the newest
//! version that both sides know.
//!
//! This crate knows neither storage nor the broker. What it leaves out: membership in consumer groups,
//! transactions (and so committed-only reads), TLS and SASL.
//!
//! Invariants:
//! 1. Reading never creates a topic.
//! 2. Nothing that a broker sends makes the client panic, or allocate more than the frame limit and the decoding
//!    limits allow.
//! 3. The order of the records of one partition is the order in which they were given to [`Producer::send`].

#![forbid(unsafe_code)]

mod address;
mod admin;
mod client;
mod cluster;
mod connection;
mod consumer;
mod error;
mod groups;
mod partitioner;
mod producer;
mod retry;

pub use address::{Address, AddressError, DEFAULT_PORT};
pub use admin::{
    CreateTopicsError, CreatedTopic, DeleteTopicsError, ListOffsetsError, NewTopic, OffsetQuery,
};
pub use client::{Client, ClientConfig, ClientError, Lane};
pub use cluster::{Cluster, PartitionInfo, TopicInfo};
pub use connection::{Connection, ConnectionConfig, Pending};
pub use consumer::{Consumer, ConsumerConfig, FetchError, FetchedBatch, FetchedPartition};
pub use error::{BrokerError, CallError, ConnectError, Fault};
pub use groups::{CommittedOffset, GroupError, GroupInfo, GroupListing, GroupMember};
pub use partitioner::{murmur2, partition_of_key};
pub use producer::{
    Acked, Acks, Delivery, OutgoingRecord, PartitionSummary, ProduceError, Producer, ProducerConfig,
    RetryObserver, SendError,
};
