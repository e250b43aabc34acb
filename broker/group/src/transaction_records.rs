//! The records of `__transaction_state`, in Kafka's format, for whoever looks at a log.
//!
//! Key and value start with their version (`TransactionLogKey.json`, `TransactionLogValue.json`, Kafka 4.1). A version
//! that is not in here is named and left alone. Nothing here coordinates transactions.

use bytes::Bytes;
use highwater_wire::{Message, Reader, Str, messages};

use crate::ReplayError;

messages! {
    /// Which transactional id a record is about.
    TransactionLogKey "0", flexible "none" {
        /// The transactional id.
        transactional_id: Str, "0+";
    }

    /// The state of a transactional id.
    TransactionLogValue "0-1", flexible "1+" {
        /// The producer id in use.
        producer_id: i64, "0+";
        /// The producer id of the last transaction that ended, or -1.
        previous_producer_id: i64, "1+", tag 0 "1+", default -1, ignorable true;
        /// The newest producer id that the producer was sent, or -1.
        next_producer_id: i64, "1+", tag 1 "1+", default -1, ignorable true;
        /// The epoch of the producer id.
        producer_epoch: i16, "0+";
        /// How long a transaction may take, in milliseconds.
        transaction_timeout_ms: i32, "0+";
        /// The state, as a number of [`status_name`].
        transaction_status: i8, "0+";
        /// The partitions of the transaction.
        transaction_partitions: Option<Vec<PartitionsSchema>>, "0+", nullable "0+";
        /// When the state changed last, in milliseconds since the Unix epoch.
        transaction_last_update_timestamp_ms: i64, "0+";
        /// When the transaction began, in milliseconds since the Unix epoch; -1 if there is none.
        transaction_start_timestamp_ms: i64, "0+";
        /// The version of transactions that the client uses (KIP-890).
        client_transaction_version: i16, "1+", tag 2 "1+", ignorable true;
    }

    /// Partitions of one topic.
    PartitionsSchema {
        /// The topic.
        topic: Str, "0+";
        /// Its partitions.
        partition_ids: Vec<i32>, "0+";
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodedTransaction {
    /// A transactional id has a new state, or is forgotten.
    State {
        /// Which one.
        key: TransactionLogKey,
        /// The state; `None` is a tombstone.
        value: Option<TransactionLogValue>,
    },
    /// A version that is not known here.
    Unknown {
        /// The version that the key names.
        key_version: i16,
        /// The version that the value names, if that of the key is known.
        value_version: Option<i16>,
    },
}

/// Reads a record.
///
/// # Errors
///
/// If its versions are known and it does not have their form. Bytes after a value are ignored, as Kafka does.
pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<DecodedTransaction, ReplayError> {
    let mut key = Reader::new(key);
    let key_version = key.int16().map_err(ReplayError::Key)?;
    if !<TransactionLogKey as Message>::VERSIONS.contains(key_version) {
        return Ok(DecodedTransaction::Unknown { key_version, value_version: None });
    }
    let key = TransactionLogKey::read(&mut key, key_version).map_err(ReplayError::Key)?;
    let Some(value) = value else { return Ok(DecodedTransaction::State { key, value: None }) };
    let mut value = Reader::new(value);
    let version = value.int16().map_err(ReplayError::Version)?;
    if !<TransactionLogValue as Message>::VERSIONS.contains(version) {
        return Ok(DecodedTransaction::Unknown { key_version, value_version: Some(version) });
    }
    let value = TransactionLogValue::read(&mut value, version)
        .map_err(|source| ReplayError::Value { version, source })?;
    Ok(DecodedTransaction::State { key, value: Some(value) })
}

/// Kafka's name of a transaction's state (`TransactionState.java`); `None` for a number that it has not given out.
pub const fn status_name(status: i8) -> Option<&'static str> {
    Some(match status {
        0 => "Empty",
        1 => "Ongoing",
        2 => "PrepareCommit",
        3 => "PrepareAbort",
        4 => "CompleteCommit",
        5 => "CompleteAbort",
        6 => "Dead",
        7 => "PrepareEpochFence",
        _ => return None,
    })
}
