//! Kafka's primitive encodings and the declarative message macro.
