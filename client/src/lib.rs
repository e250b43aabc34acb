//! The Rust client: the permanent Kafka transport.
