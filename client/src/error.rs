//! What can go wrong between the client and one broker.
//!
//! Two kinds that never mix: a [`CallError`] means that there is no answer, a [`BrokerError`] is an answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::wire::{DecodeError, EncodeError, Str, Versions};
use highwater_protocol::{ApiKey, ErrorCode, FrameError};
use thiserror::Error;

use crate::Address;

/// An error that the broker answered, by Kafka's name, with the broker's sentence if it sent one.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{}{}", self.name(), self.sentence())]
pub struct BrokerError {
    /// Kafka's number of the error.
    pub code: i16,
    /// What the broker says about it.
    pub message: Option<String>,
}

impl BrokerError {
    /// `None` if `code` says that all is well.
    pub fn from_answer(code: i16, message: Option<&Str>) -> Option<Self> {
        (code != 0).then(|| Self { code, message: message.map(|text| text.as_str().to_owned()) })
    }

    /// The same as a result.
    pub fn check(code: i16, message: Option<&Str>) -> Result<(), Self> {
        Self::from_answer(code, message).map_or(Ok(()), Err)
    }

    /// The error, if Kafka 4.1 knows it.
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::from_code(self.code)
    }

    /// Whether this is `code`.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == code.code()
    }

    /// Whether it says that the topic or the partition does not exist.
    pub fn is_unknown_topic(&self) -> bool {
        self.is(ErrorCode::UnknownTopicOrPartition) || self.is(ErrorCode::UnknownTopicId)
    }

    /// Whether it says that the broker does not serve the partition. Another one may; where there is one broker alone,
    /// nobody does.
    pub fn is_not_leader(&self) -> bool {
        self.is(ErrorCode::NotLeaderOrFollower)
    }

    /// Whether it says that a topic of this name exists already.
    pub fn is_existing_topic(&self) -> bool {
        self.is(ErrorCode::TopicAlreadyExists)
    }

    /// Whether it says that a batch is larger than the topic takes.
    pub fn is_too_large(&self) -> bool {
        self.is(ErrorCode::MessageTooLarge) || self.is(ErrorCode::RecordListTooLarge)
    }

    /// Whether the same request may succeed later, perhaps at another broker
    /// (Kafka: the subclasses of `RetriableException`).
    pub fn is_retriable(&self) -> bool {
        use ErrorCode as E;
        matches!(
            self.known(),
            Some(
                E::CorruptMessage
                    | E::UnknownTopicOrPartition
                    | E::LeaderNotAvailable
                    | E::NotLeaderOrFollower
                    | E::RequestTimedOut
                    | E::ReplicaNotAvailable
                    | E::NetworkException
                    | E::CoordinatorLoadInProgress
                    | E::CoordinatorNotAvailable
                    | E::NotCoordinator
                    | E::NotEnoughReplicas
                    | E::NotEnoughReplicasAfterAppend
                    | E::NotController
                    | E::KafkaStorageError
                    | E::FencedLeaderEpoch
                    | E::UnknownLeaderEpoch
                    | E::OffsetNotAvailable
                    | E::ThrottlingQuotaExceeded
                    | E::UnknownTopicId
            )
        )
    }

    fn name(&self) -> String {
        match self.known() {
            Some(code) => code.name().to_owned(),
            None => format!("error {}", self.code),
        }
    }

    fn sentence(&self) -> String {
        match &self.message {
            Some(message) => format!(": {message}"),
            None => String::new(),
        }
    }
}

/// Why a connection ended. Every request in flight gets the same one.
#[derive(Clone, Debug, Error)]
pub enum Fault {
    /// The broker hung up.
    #[error("the broker closed the connection")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The size of a frame makes no sense.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The bytes belong to another protocol.
    #[error("the port answers with {protocol}, not with Kafka's protocol")]
    OtherProtocol {
        /// What it seems to be.
        protocol: &'static str,
    },
    /// Answers come in the order of the requests; this one does not.
    #[error("the broker answered request {actual}, request {expected} is next")]
    Correlation {
        /// The oldest request without an answer.
        expected: i32,
        /// The number in the answer.
        actual: i32,
    },
}

/// Why a request has no answer.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// The connection ended before the answer. The request may have been carried out.
    #[error("{address}: {fault}")]
    Broken {
        /// The broker.
        address: Address,
        /// What ended it.
        fault: Fault,
    },
    /// No answer in time. The request may have been carried out.
    #[error("{address} did not answer {api} within {after:.0?}")]
    Timeout {
        /// The broker.
        address: Address,
        /// The request.
        api: ApiKey,
        /// How long it was waited for.
        after: Duration,
    },
    /// No version is known to both sides.
    #[error("{address} serves {api} in versions {}, this client needs {}", span(.theirs.as_ref()), span(Some(.ours)))]
    NoVersion {
        /// The broker.
        address: Address,
        /// The API.
        api: ApiKey,
        /// The versions of this client.
        ours: Versions,
        /// The versions of the broker, if it has the API at all.
        theirs: Option<Versions>,
    },
    /// The request cannot be expressed in the version that both sides know.
    #[error("{api} version {version} cannot express this request: {source}")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// Why not.
        source: EncodeError,
    },
    /// The answer is malformed.
    #[error("{address} sent a malformed {api} response of version {version}: {source}")]
    Decode {
        /// The broker.
        address: Address,
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl CallError {
    /// Whether the same request may succeed on another connection.
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Timeout { .. })
    }
}

/// Why there is no connection to a broker.
#[derive(Clone, Debug, Error)]
pub enum ConnectError {
    /// The name does not resolve, or nobody listens there.
    #[error("cannot connect to {address}: {source}")]
    Dial {
        /// The broker.
        address: Address,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Nobody answered in time.
    #[error("cannot connect to {address}: no answer within {after:.0?}")]
    Timeout {
        /// The broker.
        address: Address,
        /// How long it was tried.
        after: Duration,
    },
    /// The versions of the APIs could not be agreed on.
    #[error("cannot talk to {address}: {source}")]
    Negotiate {
        /// The broker.
        address: Address,
        /// Why not.
        source: Box<CallError>,
    },
    /// The broker refuses to name its APIs.
    #[error("cannot talk to {address}: {source}")]
    Refused {
        /// The broker.
        address: Address,
        /// What it answers.
        source: BrokerError,
    },
}

fn span(versions: Option<&Versions>) -> String {
    match versions {
        Some(versions) => format!("{} to {}", versions.min(), versions.max()),
        None => "no version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_error_has_kafkas_name_and_the_brokers_sentence() {
        let error = BrokerError { code: 10, message: Some("batch is 9 bytes, limit 8".into()) };

        assert_eq!(error.to_string(), "MESSAGE_TOO_LARGE: batch is 9 bytes, limit 8");
        assert_eq!(BrokerError { code: 6, message: None }.to_string(), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(BrokerError { code: 999, message: None }.to_string(), "error 999");
    }

    #[test]
    fn no_error_is_no_error() {
        assert_eq!(BrokerError::from_answer(0, None), None);
        assert!(!BrokerError { code: 10, message: None }.is_retriable());
        assert!(BrokerError { code: 6, message: None }.is_retriable());
    }
}
