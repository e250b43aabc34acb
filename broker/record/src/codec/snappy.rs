//! Snappy as Kafka carries it: blocks in xerial framing, or one raw block.
//!
//! The framing is that of `org.xerial.snappy.SnappyOutputStream`: eight bytes of magic, version 1, compatible with
//! version 1, then blocks of a big-endian size and a raw snappy block each, made of 32 KiB of input. Not Google's
//! framing format.

use std::io::{self, Read};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: u32 = 1;
/// Magic, version, compatible version.
const PREFIX_BYTES: usize = MAGIC.len() + 8;
const BLOCK_BYTES: usize = 32 << 10;
/// No element of snappy makes more: a copy of three bytes makes at most 64.
const EXPANSION_MAX: usize = 22;

/// Decodes block by block.
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    position: usize,
    limit: usize,
    left: usize,
}

impl<'a> Decoder<'a> {
    /// `output_bytes_max` bounds the memory of a block as well: a block that claims more is not decoded.
    pub(super) fn new(compressed: &'a [u8], output_bytes_max: usize) -> Self {
        let framed = compressed.len() >= PREFIX_BYTES && compressed.starts_with(&MAGIC);
        let rest = if framed { &compressed[PREFIX_BYTES..] } else { compressed };
        Self { rest, framed, block: Vec::new(), position: 0, limit: output_bytes_max, left: output_bytes_max }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take_block(&mut self) -> io::Result<&'a [u8]> {
        if !self.framed {
            return Ok(std::mem::take(&mut self.rest));
        }
        let refuse = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some((size, rest)) = self.rest.split_first_chunk() else {
            return Err(refuse(format!("{} bytes are too few for a block size", self.rest.len())));
        };
        let size = u32::from_be_bytes(*size) as usize;
        let Some((block, rest)) = rest.split_at_checked(size) else {
            return Err(refuse(format!("a block claims {size} bytes, there are {}", rest.len())));
        };
        self.rest = rest;
        Ok(block)
    }

    fn decode_block(&mut self) -> io::Result<()> {
        let block = self.take_block()?;
        let claimed = snap::raw::decompress_len(block)?;
        let possible = block.len().saturating_mul(EXPANSION_MAX);
        if claimed > possible {
            let text = format!("a block of {} bytes claims {claimed}, at most {possible} fit", block.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.left = self.left.checked_sub(claimed).ok_or_else(|| super::cap_error(self.limit))?;
        self.block.resize(claimed, 0);
        self.position = 0;
        snap::raw::Decoder::new().decompress(block, &mut self.block)?;
        Ok(())
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // An empty block is legal, so that one block may not be enough.
        while self.position == self.block.len() && !self.rest.is_empty() {
            self.decode_block()?;
        }
        let count = (&self.block[self.position..]).read(buffer)?;
        self.position += count;
        Ok(count)
    }
}

/// Appends `plain` in xerial framing.
pub(super) fn encode(plain: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&VERSION.to_be_bytes());
    output.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(BLOCK_BYTES) {
        let start = output.len() + 4;
        output.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let size = encoder.compress(block, &mut output[start..])?;
        output[start - 4..start].copy_from_slice(&(size as u32).to_be_bytes());
        output.truncate(start + size);
    }
    Ok(())
}
