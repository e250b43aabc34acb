//! Walking the batches of a segment by their headers, without reading what is in them.
//!
//! The walk trusts no byte: each header must parse, fit before the limit and follow the batch before it. Bytes that are
//! quarantined already are stepped over. It does not compare CRCs; recovery, `verify` and `SegmentScan` do.

use std::io;
use std::ops::ControlFlow;

use highwater_record::{BatchHeader, HEADER_BYTES, HeaderError, LegacyError, Offset};
use thiserror::Error;

/// Bytes that are read at a time: many headers of small batches, and no more than one page.
const WINDOW_BYTES: usize = 4096;

/// Why bytes in a segment are not the batch that should be there.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum BatchFault {
    /// The header does not parse.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The bytes are an entry of an old message format, and it does not hold together; for the offline tools alone.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// The batch ends after the bytes do.
    #[error("the batch says it is {size_bytes} bytes long, there are {available}")]
    PastEnd {
        /// Size by the batch's length field.
        size_bytes: u32,
        /// Bytes up to the end of the file, or to where the next segment begins.
        available: u64,
    },
    /// The file ends where more batches had been.
    #[error("the file ends after {available} bytes, there was more")]
    Missing {
        /// Bytes in the file.
        available: u64,
    },
    /// The batch does not follow the one before it.
    #[error("base offset is {actual}, the batch before ends at {expected}")]
    OffsetOrder {
        /// Smallest offset that may come here.
        expected: Offset,
        /// Base offset that is there.
        actual: Offset,
    },
    /// The batch is of an earlier leader than the one before it.
    #[error("leader epoch is {actual}, the batch before has {before}")]
    EpochOrder {
        /// Epoch of the batch before.
        before: i32,
        /// Epoch that is there; -1 for none.
        actual: i32,
    },
    /// The checksum differs.
    #[error("checksum is {stored:#010x}, the bytes give {computed:#010x}")]
    Crc {
        /// CRC in the header.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
}

/// Why a walk ended early.
#[derive(Debug, Error)]
pub(crate) enum WalkError {
    #[error("position {}: {}", .0.position, .0.fault)]
    Fault(Box<Fault>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes that are not the batch that should be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Where the batch should begin.
    pub(crate) position: u64,
    /// Smallest offset that it may have.
    pub(crate) expected: Offset,
    pub(crate) fault: BatchFault,
    /// The batch before, which may be the one that lies.
    pub(crate) before: Option<Walked>,
}

/// A batch that a walk came by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    pub(crate) position: u64,
    /// Smallest offset that it could have had.
    pub(crate) expected: Offset,
    pub(crate) header: BatchHeader,
}

/// Reads bytes at a position: fills the buffer or stops at the end.
pub(crate) trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Where the quarantined bytes that `position` lies in end, and the offset that comes after them.
    fn skip(&self, _position: u64) -> Option<(u64, Offset)> {
        None
    }
}

/// Calls `visit` with position and header of each batch from `start` on that lies wholly below `limit`, until it
/// breaks. The first batch must not begin before `expected`.
pub(crate) fn walk<B>(
    source: &impl ReadAt,
    start: u64,
    limit: u64,
    mut expected: Offset,
    mut visit: impl FnMut(u64, &BatchHeader) -> ControlFlow<B>,
) -> Result<Option<B>, WalkError> {
    let mut window = [0; WINDOW_BYTES];
    let mut window_start = 0;
    let mut window_len = 0;
    let mut position = start;
    let mut before = None;
    while position < limit {
        if let Some((end, next)) = source.skip(position) {
            (position, expected, before) = (end, next, None);
            continue;
        }
        let available = limit - position;
        let wanted = available.min(HEADER_BYTES as u64);
        if position < window_start || position + wanted > window_start + window_len {
            let len = available.min(WINDOW_BYTES as u64) as usize;
            window_start = position;
            window_len = source.read_at(&mut window[..len], position)? as u64;
        }
        let bytes = &window[(position - window_start) as usize..window_len as usize];
        let header = checked_header(bytes, available, expected)
            .map_err(|fault| WalkError::Fault(Box::new(Fault { position, expected, fault, before })))?;
        if let ControlFlow::Break(value) = visit(position, &header) {
            return Ok(Some(value));
        }
        before = Some(Walked { position, expected, header });
        expected = header.next_offset();
        position += u64::from(header.size_bytes);
    }
    Ok(None)
}

/// The header at the front of `bytes`, if a batch of it fits and may come here.
pub(crate) fn checked_header(
    bytes: &[u8],
    available: u64,
    expected: Offset,
) -> Result<BatchHeader, BatchFault> {
    let header = BatchHeader::parse(bytes)?;
    if u64::from(header.size_bytes) > available {
        return Err(BatchFault::PastEnd { size_bytes: header.size_bytes, available });
    }
    if header.base_offset < expected || header.next_offset() <= header.base_offset {
        return Err(BatchFault::OffsetOrder { expected, actual: header.base_offset });
    }
    Ok(header)
}
