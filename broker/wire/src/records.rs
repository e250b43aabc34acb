//! The records of one partition in a message: bytes, or a promise of bytes that somebody else will send.

use bytes::Bytes;

/// Record batches as a field of a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Records {
    /// No records field at all; Kafka tells it apart from an empty one.
    #[default]
    Null,
    /// The batches themselves. Decoding yields a slice of the frame.
    Bytes(Bytes),
    /// `len` bytes that are not here: the encoder writes their length and leaves a [`crate::Cut`] at their
    /// place. Decoding never yields it.
    Deferred {
        /// Length of the batches in bytes.
        len: u32,
    },
}

impl Records {
    /// The bytes, if they are here and there are any.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Null | Self::Deferred { .. } => None,
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
