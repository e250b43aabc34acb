//! Fetch (key 1): reads record batches, waiting for them if asked to.
//!
//! Versions 4 to 18, flexible from 12.
//! Source: `FetchRequest.json` and `FetchResponse.json` of Apache Kafka 4.1.
//!
//! Version 7 adds fetch sessions (KIP-227), 9 leader epochs (KIP-320), 12 the check for divergence, 13
//! topic ids (KIP-516), 15 the replica state (KIP-903), 16 the node endpoints (KIP-951), 17 directory ids
//! (KIP-853), 18 the follower's high watermark (KIP-1166).

use highwater_wire::{Records, Str, Uuid, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// What to read.
    FetchRequest "4-18", flexible "12+" {
        /// The cluster that the client believes to be in, or null.
        cluster_id: Option<Str>, "12+", nullable "12+", tag 0 "12+", ignorable true;
        /// The follower that fetches, or -1 for a consumer.
        replica_id: i32, "0-14", default -1;
        /// The same from version 15 on, with the follower's epoch.
        replica_state: ReplicaState, "15+", tag 1 "15+";
        /// Milliseconds to wait for `min_bytes`.
        max_wait_ms: i32, "0+";
        /// Bytes that make the wait end.
        min_bytes: i32, "0+";
        /// Most bytes of records in the answer; a first batch may exceed it (KIP-74).
        max_bytes: i32, "3+", default i32::MAX, ignorable true;
        /// 0 reads everything below the high watermark, 1 only what committed transactions and others
        /// wrote.
        isolation_level: i8, "4+", ignorable true;
        /// The fetch session, or 0 for none.
        session_id: i32, "7+", ignorable true;
        /// The request's number in its session; 0 opens one, -1 is sessionless.
        session_epoch: i32, "7+", default -1, ignorable true;
        /// The topics to read.
        topics: Vec<FetchTopic>, "0+";
        /// Partitions to take out of the session.
        forgotten_topics_data: Vec<ForgottenTopic>, "7+";
        /// Where the consumer stands.
        rack_id: Str, "11+", ignorable true;
    }

    /// The follower that fetches.
    ReplicaState {
        /// The follower that fetches, or -1 for a consumer.
        replica_id: i32, "15+", default -1;
        /// The follower's broker epoch, or -1.
        replica_epoch: i64, "15+", default -1;
    }

    /// What to read of one topic.
    FetchTopic {
        /// The topic's name.
        topic: Str, "0-12", ignorable true;
        /// The topic's id.
        topic_id: Uuid, "13+", ignorable true;
        /// The partitions to read.
        partitions: Vec<FetchPartition>, "0+";
    }

    /// What to read of one partition.
    FetchPartition {
        /// The partition.
        partition: i32, "0+";
        /// The leader epoch that the client knows, or -1 to skip the check.
        current_leader_epoch: i32, "9+", default -1, ignorable true;
        /// The first offset wanted.
        fetch_offset: i64, "0+";
        /// The epoch of the last record that the client has, or -1.
        last_fetched_epoch: i32, "12+", default -1;
        /// The follower's first offset; -1 from consumers.
        log_start_offset: i64, "5+", default -1, ignorable true;
        /// Most bytes of this partition; a first batch may exceed it (KIP-74).
        partition_max_bytes: i32, "0+";
        /// The follower's log directory.
        replica_directory_id: Uuid, "17+", tag 0 "17+", ignorable true;
        /// The high watermark that the follower knows, -1 if it knows none, `i64::MAX` if it does not say.
        high_watermark: i64, "18+", tag 1 "18+", default i64::MAX, ignorable true;
    }

    /// Partitions that the session should forget.
    ForgottenTopic {
        /// The topic's name.
        topic: Str, "7-12", ignorable true;
        /// The topic's id.
        topic_id: Uuid, "13+", ignorable true;
        /// The partitions to take out.
        partitions: Vec<i32>, "7+";
    }

    /// What was read.
    FetchResponse "4-18", flexible "12+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "1+", ignorable true;
        /// An error of the request as a whole, or 0.
        error_code: i16, "7+", ignorable true;
        /// The fetch session, or 0 for none.
        session_id: i32, "7+";
        /// What was read, per topic.
        responses: Vec<FetchableTopicResponse>, "0+";
        /// Addresses of the leaders named in this answer.
        node_endpoints: Vec<NodeEndpoint>, "16+", tag 0 "16+";
    }

    /// What was read of one topic.
    FetchableTopicResponse {
        /// The topic's name.
        topic: Str, "0-12", ignorable true;
        /// The topic's id.
        topic_id: Uuid, "13+", ignorable true;
        /// What was read, per partition.
        partitions: Vec<PartitionData>, "0+";
    }

    /// What was read of one partition.
    PartitionData {
        /// The partition.
        partition_index: i32, "0+";
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The end of what consumers may read.
        high_watermark: i64, "0+";
        /// Below it no transaction is open; -1 if unknown.
        last_stable_offset: i64, "4+", default -1, ignorable true;
        /// The first offset of the log, or -1 if unknown.
        log_start_offset: i64, "5+", default -1, ignorable true;
        /// Where the client's log and this one part, if they do.
        diverging_epoch: EpochEndOffset, "12+", tag 0 "12+";
        /// The leader to turn to, after NOT_LEADER_OR_FOLLOWER or a fenced epoch (KIP-951).
        current_leader: LeaderIdAndEpoch, "12+", tag 1 "12+";
        /// The snapshot to fetch instead, for the metadata quorum.
        snapshot_id: SnapshotId, "12+", tag 2 "12+";
        /// Transactions in these records that were aborted; null unless committed reads were asked for.
        aborted_transactions: Option<Vec<AbortedTransaction>>, "4+", nullable "4+", ignorable true;
        /// The replica to read from instead, or -1.
        preferred_read_replica: i32, "11+", default -1;
        /// The record batches.
        records: Records, "0+", nullable "0+";
    }

    /// The end of an epoch in one partition.
    EpochEndOffset {
        /// The largest epoch that both may share, or -1.
        epoch: i32, "12+", default -1;
        /// Where that epoch ended, or -1.
        end_offset: i64, "12+", default -1;
    }

    /// A partition's leader.
    LeaderIdAndEpoch {
        /// The leader, or -1 if unknown.
        leader_id: i32, "12+", default -1;
        /// Its epoch, or -1 if unknown.
        leader_epoch: i32, "12+", default -1;
    }

    /// A snapshot of the metadata log.
    SnapshotId {
        /// The offset after the snapshot, or -1.
        end_offset: i64, "0+", default -1;
        /// The epoch of the snapshot, or -1.
        epoch: i32, "0+", default -1;
    }

    /// A transaction that was aborted.
    AbortedTransaction {
        /// The producer that aborted.
        producer_id: i64, "4+";
        /// The first offset of the transaction.
        first_offset: i64, "4+";
    }

    /// A broker's address.
    NodeEndpoint {
        /// The broker's id.
        node_id: i32, "16+";
        /// The host to connect to.
        host: Str, "16+";
        /// The port to connect to.
        port: i32, "16+";
        /// Where the broker stands, or null.
        rack: Option<Str>, "16+", nullable "16+";
    }
}

impl ApiRequest for FetchRequest {
    const KEY: ApiKey = ApiKey::Fetch;
    type Response = FetchResponse;
}

impl ApiResponse for FetchResponse {
    const KEY: ApiKey = ApiKey::Fetch;
}
