//! The codecs of a batch, both ways: one streaming decoder with a hard cap, one encoder.
//!
//! What is written is what Kafka's Java client reads and writes itself: gzip at its default level, snappy in xerial
//! framing, LZ4 frames of independent 64 KiB blocks with the correct header checksum, zstd at level 3. What is read
//! is more: raw snappy, LZ4 frames with any block size and checksums, zstd with windows of up to 8 MiB.
//!
//! Invariants: no more than the cap ever leaves a [`Decoder`], and its own memory is bounded by the codec (a window
//! or a block), never by what the bytes claim. This file knows no records. An LZ4 frame that is cut between two blocks
//! is taken for its front: that records are missing is found by who counts them.

mod lz4;
mod snappy;

use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use thiserror::Error;

use crate::Codec;

/// Largest zstd window that is accepted, as a power of two: 8 MiB, what levels up to 19 use.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Up to this size of output the ratio does not matter: small batches of equal records compress a thousandfold.
pub const RATIO_FREE_BYTES: usize = 1 << 20;

/// Kafka: `CompressionType.GZIP.defaultLevel()`, which is zlib's own default.
const GZIP_LEVEL: u32 = 6;
/// Kafka: `CompressionType.ZSTD.defaultLevel()`.
const ZSTD_LEVEL: i32 = 3;
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// Output is read in pieces of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// How far decompression may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DecodeLimits {
    /// Most bytes of output.
    pub bytes_max: usize,
    /// Most bytes of output per byte of input, beyond [`RATIO_FREE_BYTES`].
    pub ratio_max: usize,
}

impl DecodeLimits {
    /// How far any batch of a log goes. What is taken to be compacted must be within what compaction and later readers
    /// decompress: a batch that they cannot read would keep its log from ever being compacted again.
    pub const STORED: Self = Self { bytes_max: 64 << 20, ratio_max: 1000 };

    /// Most bytes that `compressed_bytes` may become.
    pub fn output_bytes_max(&self, compressed_bytes: usize) -> usize {
        compressed_bytes.saturating_mul(self.ratio_max).max(RATIO_FREE_BYTES).min(self.bytes_max)
    }
}

/// Why compressed bytes do not become records.
#[derive(Debug, Error)]
pub enum CodecError {
    /// A codec number that Kafka has not given out.
    #[error("codec {number} is unknown, the known ones are 0 to 4")]
    Unknown {
        /// The number in the attributes.
        number: i16,
    },
    /// The output would pass the cap.
    #[error("{compressed} bytes of {codec} grow beyond the limit of {limit} bytes")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// Size of the input.
        compressed: usize,
        /// Most bytes of output for this input.
        limit: usize,
    },
    /// The codec refuses the bytes.
    #[error("not a {codec} stream: {source}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What it says.
        source: io::Error,
    },
    /// Bytes follow the end of the compressed stream.
    #[error("{bytes} bytes follow the end of the {codec} stream")]
    Trailing {
        /// The codec.
        codec: Codec,
        /// Bytes too many.
        bytes: usize,
    },
}

/// The output cap was met. Travels inside an [`io::Error`] out of [`Decoder::read`].
#[derive(Debug, Error)]
#[error("output passes the limit of {limit} bytes")]
struct CapError {
    limit: usize,
}

/// A streaming decoder. It fails with [`io::ErrorKind::InvalidData`] as soon as its output passes the cap.
pub struct Decoder<'a> {
    stream: Stream<'a>,
    limit: usize,
    left: usize,
    ended: bool,
}

enum Stream<'a> {
    None(&'a [u8]),
    Gzip(Box<MultiGzDecoder<&'a [u8]>>),
    Snappy(snappy::Decoder<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Decoder<'a> {
    /// A decoder of `compressed` whose output is capped at `output_bytes_max`.
    pub fn new(codec: Codec, compressed: &'a [u8], output_bytes_max: usize) -> io::Result<Self> {
        let stream = match codec {
            Codec::None => Stream::None(compressed),
            Codec::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(compressed))),
            Codec::Snappy => Stream::Snappy(snappy::Decoder::new(compressed, output_bytes_max)),
            Codec::Lz4 => {
                // The legacy and skippable frames that the library also reads are not part of Kafka's format.
                if !compressed.starts_with(&LZ4_MAGIC) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no LZ4 frame magic"));
                }
                Stream::Lz4(Box::new(FrameDecoder::new(compressed)))
            }
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Stream::Zstd(decoder)
            }
        };
        Ok(Self { stream, limit: output_bytes_max, left: output_bytes_max, ended: false })
    }

    /// Input that the decoder has not touched.
    fn rest(&self) -> &'a [u8] {
        match &self.stream {
            Stream::None(rest) => rest,
            Stream::Gzip(decoder) => decoder.get_ref(),
            Stream::Snappy(decoder) => decoder.rest(),
            Stream::Lz4(decoder) => decoder.get_ref(),
            Stream::Zstd(decoder) => decoder.get_ref(),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One byte beyond the cap is asked for: only then is it known to be passed.
        let wanted = buffer.len().min(self.left.saturating_add(1));
        // The LZ4 decoder would go on with a second frame.
        if wanted == 0 || self.ended {
            return Ok(0);
        }
        let buffer = &mut buffer[..wanted];
        let count = match &mut self.stream {
            Stream::None(rest) => rest.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Snappy(decoder) => decoder.read(buffer),
            Stream::Lz4(decoder) => decoder.read(buffer),
            Stream::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.ended = count == 0;
        self.left = self.left.checked_sub(count).ok_or_else(|| cap_error(self.limit))?;
        Ok(count)
    }
}

fn cap_error(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, CapError { limit })
}

/// Decodes all of `compressed`, which must be exactly one stream.
pub fn decompress(codec: Codec, compressed: &[u8], limits: DecodeLimits) -> Result<Vec<u8>, CodecError> {
    let limit = limits.output_bytes_max(compressed.len());
    let refuse = |source: io::Error| match source.downcast::<CapError>() {
        Ok(CapError { limit }) => CodecError::TooLarge { codec, compressed: compressed.len(), limit },
        Err(source) => CodecError::Corrupt { codec, source },
    };
    let mut decoder = Decoder::new(codec, compressed, limit).map_err(refuse)?;
    let mut output = vec![0; CHUNK_BYTES];
    let mut filled = 0;
    loop {
        // The buffer follows what came out, never what the input claims.
        if output.len() - filled < CHUNK_BYTES {
            output.resize(filled + CHUNK_BYTES.max(filled.min(limit - filled)), 0);
        }
        match decoder.read(&mut output[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refuse(error)),
        }
    }
    output.truncate(filled);
    match decoder.rest().len() {
        0 => Ok(output),
        bytes => Err(CodecError::Trailing { codec, bytes }),
    }
}

/// Decodes an LZ4 frame of message format 0, whatever the checksum of its header is.
pub(crate) fn decompress_lz4_of_v0(compressed: &[u8], limits: DecodeLimits) -> Result<Vec<u8>, CodecError> {
    decompress(Codec::Lz4, &lz4::with_right_checksum(compressed), limits)
}

/// Appends `plain`, encoded, to `output`. Fails only if the codec's library cannot get memory.
pub fn compress(codec: Codec, plain: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => output.extend_from_slice(plain),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(plain)?;
            encoder.finish()?;
        }
        Codec::Snappy => snappy::encode(plain, output)?,
        Codec::Lz4 => {
            // The Java client reads only independent blocks, and reserves memory for the largest block announced.
            let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, output);
            encoder.write_all(plain)?;
            encoder.finish()?;
        }
        // One call knows the size of all, so that the frame carries it and small batches get small windows.
        Codec::Zstd => output.extend_from_slice(&zstd::bulk::compress(plain, ZSTD_LEVEL)?),
    }
    Ok(())
}
