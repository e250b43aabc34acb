//! Produce (key 0): appends record batches to partitions.
//!
//! Versions 3 to 13, flexible from 9.
//! Source: `ProduceRequest.json` and `ProduceResponse.json` of Apache Kafka 4.1.
//!
//! Versions 0 to 2 are advertised, since librdkafka looks for them (KAFKA-18659), and refused when they are
//! used. Version 4 may answer KAFKA_STORAGE_ERROR, 7 allows zstd, 10 names the current leader, 12 adds
//! partitions to a transaction implicitly (KIP-890), 13 names topics by id (KIP-516).

use highwater_wire::{Records, Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Batches to append.
    ProduceRequest "3-13", flexible "9+" {
        /// The transactional id, or null outside transactions.
        transactional_id: Option<Str>, "3+", nullable "3+";
        /// Who must have the records before the answer: 0 nobody (there is no answer), 1 the leader, -1 all
        /// in-sync replicas.
        acks: i16, "0+";
        /// Milliseconds to wait for the acknowledgements.
        timeout_ms: i32, "0+";
        /// The topics to append to.
        topic_data: Vec<TopicProduceData>, "0+";
    }

    /// Batches for one topic.
    TopicProduceData {
        /// The topic's name.
        name: Str, "0-12", ignorable true;
        /// The topic's id.
        topic_id: Uuid, "13+", ignorable true;
        /// The partitions to append to.
        partition_data: Vec<PartitionProduceData>, "0+";
    }

    /// A batch for one partition.
    PartitionProduceData {
        /// The partition.
        index: i32, "0+";
        /// One record batch.
        records: Records, "0+", nullable "0+";
    }

    /// Where the batches went.
    ProduceResponse "3-13", flexible "9+" {
        /// What happened, per topic.
        responses: Vec<TopicProduceResponse>, "0+";
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// Addresses of the leaders named in this answer.
        node_endpoints: Vec<NodeEndpoint>, "10+", tag 0 "10+";
    }

    /// Where the batches of one topic went.
    TopicProduceResponse {
        /// The topic's name.
        name: Str, "0-12", ignorable true;
        /// The topic's id.
        topic_id: Uuid, "13+", ignorable true;
        /// What happened, per partition.
        partition_responses: Vec<PartitionProduceResponse>, "0+";
    }

    /// Where the batch of one partition went.
    PartitionProduceResponse {
        /// The partition.
        index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The offset of the first record appended.
        base_offset: i64, "0+";
        /// The broker's time of the append if the topic uses LogAppendTime, else -1.
        log_append_time_ms: i64, "2+", default -1, ignorable true;
        /// The first offset of the log, or -1 if unknown.
        log_start_offset: i64, "5+", default -1, ignorable true;
        /// The records that made the broker refuse the batch.
        record_errors: Vec<BatchIndexAndErrorMessage>, "8+", ignorable true;
        /// Why the batch was refused, or null.
        error_message: Option<Str>, "8+", nullable "8+", ignorable true;
        /// The leader to turn to, after NOT_LEADER_OR_FOLLOWER or a fenced epoch (KIP-951).
        current_leader: LeaderIdAndEpoch, "10+", tag 0 "10+";
    }

    /// A record that was refused.
    BatchIndexAndErrorMessage {
        /// Position of the record in the batch.
        batch_index: i32, "8+";
        /// Why this record was refused, or null.
        batch_index_error_message: Option<Str>, "8+", nullable "8+";
    }

    /// A partition's leader.
    LeaderIdAndEpoch {
        /// The leader, or -1 if unknown.
        leader_id: i32, "10+", default -1;
        /// Its epoch, or -1 if unknown.
        leader_epoch: i32, "10+", default -1;
    }

    /// A broker's address.
    NodeEndpoint {
        /// The broker's id.
        node_id: i32, "10+";
        /// The host to connect to.
        host: Str, "10+";
        /// The port to connect to.
        port: i32, "10+";
        /// Where the broker stands, or null.
        rack: Option<Str>, "10+", nullable "10+";
    }
}

impl ApiRequest for ProduceRequest {
    const KEY: ApiKey = ApiKey::Produce;
    type Response = ProduceResponse;
}

impl ApiResponse for ProduceResponse {
    const KEY: ApiKey = ApiKey::Produce;
}
