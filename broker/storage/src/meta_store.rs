//! Where the broker keeps what it must not forget: topics, configurations, log starts, incarnations.
//!
//! A map from bytes to bytes in key order, changed by transactions that may expect versions. The trait does not know
//! what is stored. [`MetaLog`](crate::MetaLog) is the embedded store; one that is shared by brokers may follow.

use std::fmt::Debug;
use std::io;

use bytes::Bytes;
use highwater_record::TimestampMs;
use thiserror::Error;

use crate::meta_log::MetaDamage;

/// Names a transaction; later ones are larger.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub(crate) i64);

impl Version {
    /// The number, for logs and messages.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// A value, and the transaction that put it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetaValue {
    /// The bytes.
    pub bytes: Bytes,
    /// When they were put.
    pub version: Version,
}

/// What must be true for a transaction to happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expectation {
    /// The key in question.
    pub key: Bytes,
    /// The version that its value has; `None` if there must be no value.
    pub version: Option<Version>,
}

/// One change of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Sets a value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a value, if there is one.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    /// All of them must hold.
    pub expectations: Vec<Expectation>,
    /// In this order; for one key the last counts.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// A transaction that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an expectation.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Bytes>, version: Option<Version>) -> Self {
        self.expectations.push(Expectation { key: key.into(), version });
        self
    }

    /// Adds a value to set.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.changes.push(Change::Put { key: key.into(), value: value.into() });
        self
    }

    /// Adds a value to remove.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.changes.push(Change::Delete { key: key.into() });
        self
    }
}

/// Why a transaction did not happen.
#[derive(Debug, Error)]
pub enum TransactError {
    /// An expectation does not hold.
    #[error("{key:?} has version {actual:?}, {expected:?} was expected")]
    Conflict {
        /// The key.
        key: Bytes,
        /// What was expected.
        expected: Option<Version>,
        /// What is.
        actual: Option<Version>,
    },
    /// The store is damaged and takes no changes.
    #[error("the metadata is read-only: {0}")]
    Damaged(MetaDamage),
    /// There are too many bytes in it.
    #[error("the transaction has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of its keys and values.
        bytes: usize,
        /// The most that there may be.
        limit: usize,
    },
    /// It could not be made durable. It did not happen.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A durable, ordered map.
pub trait MetaStore: Debug + Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<MetaValue>;
    /// All values whose keys begin with `prefix`, in key order.
    fn range(&self, prefix: &[u8]) -> Vec<(Bytes, MetaValue)>;
    /// The end of the store's history: later than every transaction.
    fn end(&self) -> Version;
    /// Makes the changes if the expectations hold. They are durable when this returns.
    fn transact(&self, transaction: Transaction, now: TimestampMs) -> Result<Version, TransactError>;
}
