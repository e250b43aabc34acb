//! The indexes beside a segment: whether they agree with it.

use std::fs;

use super::files::SegmentFile;

/// What is true of an index.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum IndexState {
    /// Nobody has compared its entries.
    #[default]
    Unchecked,
    /// Every entry agrees with the segment.
    Good,
    /// There is no file.
    Missing,
    /// An entry does not agree, or the file is cut.
    Wrong,
}

impl IndexState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// What can be told of both indexes of a segment without its batches: that they are there, and made of whole entries.
pub(super) fn shapes(segment: &SegmentFile) -> [IndexState; 2] {
    [("index", 8), ("timeindex", 12)].map(|(extension, entry_bytes)| {
        match fs::metadata(segment.path.with_extension(extension)) {
            Err(_) => IndexState::Missing,
            Ok(metadata) if metadata.len() % entry_bytes == 0 => IndexState::Unchecked,
            Ok(_) => IndexState::Wrong,
        }
    })
}
