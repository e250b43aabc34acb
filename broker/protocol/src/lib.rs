//! Kafka frames, headers and every message of every version the broker speaks.
