//! Real clients agree with the broker, and Apache Kafka's tools with its files.

mod auto_create;
mod codecs;
mod definitions;
mod golden;
mod kafka_tools;
mod lines;
mod matrix;
mod restart;
mod segments;
mod shippers;
