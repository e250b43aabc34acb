//! What the broker does, seen from its clients.

mod admin;
mod bad_input;
mod cli;
mod connection;
mod damage;
mod deleted_topics;
mod fetch_sessions;
mod groups;
mod kafka_segments;
mod lifecycle;
mod long_poll;
mod memory;
mod quotas;
mod recreated;
