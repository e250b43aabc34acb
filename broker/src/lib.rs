//! The broker: the only place where network, protocol, storage and clocks meet.
//!
//! The straight path of a record is `listener` -> `connection` -> `dispatch` -> `handler/produce` ->
//! `Partition::append` -> the log, and back when it is durable. [`run`] is all that a program needs.

#![forbid(unsafe_code)]

mod broker;
mod buffers;
mod checkpointer;
mod clock;
mod config;
mod connection;
mod context;
mod dispatch;
mod groups;
mod handler;
mod http;
mod in_process;
mod inbound;
mod listener;
mod meta;
mod metrics;
mod outbound;
mod partition;
mod recovery;
mod server;
mod shutdown;
mod sync_scheduler;
mod topic_admin;
mod topic_config;
mod topics;
mod waiters;

pub use config::{Config, Durability, DurabilityError, Endpoint, EndpointError, Listen};
pub use in_process::{Exchange, InProcess};
pub use listener::ListenError;
pub use meta::MetadataError;
pub use server::{Ready, RunError, run, worker_threads};
