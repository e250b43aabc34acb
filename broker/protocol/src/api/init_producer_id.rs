//! InitProducerId (key 22): hands out producer ids and epochs.
//!
//! Versions 0 to 5, flexible from 2.
//! Source: `InitProducerIdRequest.json` and `InitProducerIdResponse.json` of Apache Kafka 4.1.
//!
//! Version 3 can bump the epoch of a known producer (KIP-360). Version 6 is marked unstable in Kafka 4.1
//! and its fields (KIP-939) are left out.

use highwater_wire::{Str, messages};

use crate::{ApiKey, ApiRequest, ApiResponse};

messages! {
    /// Who wants a producer id.
    InitProducerIdRequest "0-5", flexible "2+" {
        /// The transactional id, or null outside transactions.
        transactional_id: Option<Str>, "0+", nullable "0+";
        /// Milliseconds after which an idle transaction is aborted.
        transaction_timeout_ms: i32, "0+";
        /// The producer's id, or -1.
        producer_id: i64, "3+", default -1;
        /// The producer's epoch, or -1.
        producer_epoch: i16, "3+", default -1;
    }

    /// A producer id and its epoch.
    InitProducerIdResponse "0-5", flexible "2+" {
        /// Milliseconds for which the client was held back by a quota; 0 if it was not.
        throttle_time_ms: i32, "0+", ignorable true;
        /// What went wrong, or 0.
        error_code: i16, "0+";
        /// The producer's id, or -1.
        producer_id: i64, "0+", default -1;
        /// The producer's epoch.
        producer_epoch: i16, "0+";
    }
}

impl ApiRequest for InitProducerIdRequest {
    const KEY: ApiKey = ApiKey::InitProducerId;
    type Response = InitProducerIdResponse;
}

impl ApiResponse for InitProducerIdResponse {
    const KEY: ApiKey = ApiKey::InitProducerId;
}
