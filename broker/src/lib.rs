//! The broker: the only place where network, protocol, storage and clocks meet.
//!
//! The straight path of a record is `listener` -> `connection` -> `dispatch` -> `handler/produce` ->
//! `Partition::append` -> the log, and back when it is durable. [`run`] is all that a program needs.

#![forbid(unsafe_code)]

mod answer_size;
mod append_meter;
mod broker;
mod buffers;
mod checkpointer;
mod cleaner;
mod clock;
mod config;
mod config_admin;
mod config_keys;
mod connection;
mod connection_limits;
mod context;
mod disk;
mod dispatch;
mod fetch;
mod graves;
mod groups;
mod handler;
mod http;
mod in_process;
mod inbound;
mod listener;
mod log_limit;
mod log_opener;
mod log_starts;
mod manifests;
mod memory;
mod meta;
mod metrics;
mod outbound;
mod partition;
mod progress;
mod quarantine;
mod quotas;
mod read_only;
mod recovery;
mod refusal;
mod retention;
mod server;
mod shutdown;
mod survey;
mod sync;
mod sync_scheduler;
mod topic_admin;
mod topic_change;
mod topic_config;
mod topics;
mod waiters;

pub use config::{Config, ConnectionLimits, Durability, DurabilityError, Endpoint, EndpointError, Listen};
pub use disk::{DiskReserve, DiskReserveError};
pub use in_process::{Exchange, InProcess};
pub use listener::ListenError;
pub use memory::{MemoryOrigin, MemorySize, MemorySizeError};
pub use meta::MetadataError;
pub use server::{Ready, RunError, run, worker_threads};
