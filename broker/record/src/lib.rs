//! The words of a log: offsets, epochs, topic names, the v2 record batch, and the messages that came before it.
//!
//! No I/O, no clock, no protocol. Everything that reads bytes treats them as hostile: errors are values, and
//! nothing is allocated by a length that the bytes claim.

#![forbid(unsafe_code)]

mod batch;
mod builder;
mod codec;
mod control;
mod header;
mod ids;
mod legacy;
mod read;
mod record;
mod thin;
mod topic;
mod validate;
mod varint;

pub use batch::{Batch, BatchError, patch};
pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use codec::{
    CodecError, DecodeLimits, Decoder, RATIO_FREE_BYTES, ZSTD_WINDOW_LOG_MAX, compress, decompress,
};
pub use control::EndOfTransaction;
pub use header::{
    Attributes, BatchHeader, CRC_START, Codec, Crc32c, HEADER_BYTES, HeaderError, LENGTH_PREFIX_BYTES, MAGIC,
    Producer, TimestampType, crc32c,
};
pub use ids::{LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TimestampMs};
pub use legacy::{LegacyEntry, LegacyError, LegacyFault, MessageFormat, up_convert};
pub use read::{ReadError, RecordsBuf};
pub use record::{Headers, Record, RecordError, RecordFault, Records};
pub use thin::{ThinError, Thinned};
pub use topic::{TOPIC_NAME_BYTES_MAX, TopicId, TopicIdError, TopicName, TopicNameError, TopicPartition};
pub use validate::{Compressed, Keys, ProduceError, ProduceRules, needs_decompression, validate};
