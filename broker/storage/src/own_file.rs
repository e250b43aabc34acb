//! The frame around files of our own: what kind it is, which version, how long, and a CRC over all of it.
//!
//! Such a file is written aside, synced, renamed and, where it matters, its directory synced, so that a reader finds
//! the old one, the new one or none. One that does not hold together is treated as absent and said so; byte table in
//! `broker/docs/format.md`.

use std::io::{self, IoSlice};
use std::path::Path;

use crate::files::{Access, FileLayer};

const FRAME_BYTES: usize = 16;
/// No file of ours comes near this; a length above it is damage.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Which of our files it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Kind {
    /// The first four bytes.
    pub(crate) magic: [u8; 4],
    /// The version that is written; only this one is read.
    pub(crate) version: u16,
}

/// Puts the frame around `body`.
pub(crate) fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + body.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Takes the frame off; `None` if it is another kind or damaged.
pub(crate) fn unframe(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    let (head, body) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let stored = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
    let good = head[..4] == kind.magic
        && head[4..6] == kind.version.to_be_bytes()
        && length as usize == body.len()
        && stored == checksum(bytes);
    good.then_some(body)
}

/// CRC-32 of everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[FRAME_BYTES..]);
    hasher.finalize()
}

/// Reads a whole file; `None` if there is none.
pub(crate) fn load(files: &dyn FileLayer, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{len} bytes are too many for this file"),
        ));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.pread(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Whether a file is to be durable when it is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Durable {
    /// It is, when the call returns.
    Yes,
    /// Its bytes are, its name may still be that of the old file after a power cut. A failed sync of a directory is
    /// final, so what does not need one should not ask for one.
    Contents,
    /// It is replaced at once for every other reader, and lost or empty after a power cut.
    No,
}

/// Replaces a file as a whole.
pub(crate) fn store(files: &dyn FileLayer, path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = Path::new(&aside);
    let file = files.open(aside, Access::Create)?;
    file.set_len(0)?;
    file.pwritev(&[IoSlice::new(bytes)], 0)?;
    if durable != Durable::No {
        file.fdatasync()?;
    }
    drop(file);
    files.rename(aside, path)?;
    match (durable, path.parent()) {
        (Durable::Yes, Some(dir)) => files.sync_dir(dir),
        _ => Ok(()),
    }
}

/// Reads numbers from the body of a file; every method is `None` at its end.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: *b"TEST", version: 3 };

    #[test]
    fn a_frame_with_any_bit_flipped_is_refused() {
        let bytes = frame(KIND, b"body");
        assert_eq!(unframe(KIND, &bytes), Some(&b"body"[..]));

        for bit in 0..bytes.len() * 8 {
            // Two bytes after the version are padding, and covered all the same.
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unframe(KIND, &bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_refused() {
        let bytes = frame(KIND, b"body");

        for len in 0..bytes.len() {
            assert_eq!(unframe(KIND, &bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(unframe(Kind { version: 4, ..KIND }, &bytes), None);
    }
}
