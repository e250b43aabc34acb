//! What a control record says: how a transaction ended.
//!
//! Kafka's `ControlRecordType.java` and `EndTransactionMarker.java`: the key is a version and a type, the value a
//! version and the coordinator's epoch. Types other than these two belong to KRaft's own log.

use crate::Record;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndOfTransaction {
    /// Its records do not count.
    Abort,
    /// Its records count.
    Commit,
}

impl EndOfTransaction {
    /// What the record of a control batch says; `None` if it is about something else.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        // Later versions may only add to the end of the key.
        let [_, _, high, low, ..] = record.key? else { return None };
        match i16::from_be_bytes([*high, *low]) {
            0 => Some(Self::Abort),
            1 => Some(Self::Commit),
            _ => None,
        }
    }
}
