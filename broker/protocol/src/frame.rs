//! Frames: a size of four bytes, and that many bytes.
//!
//! The size is checked before anything is allocated for the frame.

use thiserror::Error;

/// Length of the size that precedes every request and response.
pub const SIZE_PREFIX_BYTES: usize = 4;

/// Why a frame is not read. The connection is closed: what follows cannot be found.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FrameError {
    /// A size below zero.
    #[error("frame size {0} is negative")]
    Negative(i32),
    /// A size above the limit.
    #[error("frame of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The size claimed.
        size: usize,
        /// The largest size allowed.
        limit: usize,
    },
}

/// Length in bytes of the frame that follows `prefix`, at most `limit`.
///
/// # Errors
///
/// If the size is negative or above the limit.
pub fn frame_length(prefix: [u8; SIZE_PREFIX_BYTES], limit: usize) -> Result<usize, FrameError> {
    let size = i32::from_be_bytes(prefix);
    let length = usize::try_from(size).map_err(|_| FrameError::Negative(size))?;
    if length > limit {
        return Err(FrameError::TooLarge { size: length, limit });
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_be_as_long_as_the_limit() {
        assert_eq!(frame_length(100_i32.to_be_bytes(), 100), Ok(100));
        assert_eq!(
            frame_length(101_i32.to_be_bytes(), 100),
            Err(FrameError::TooLarge { size: 101, limit: 100 })
        );
        assert_eq!(frame_length([0xff; 4], 100), Err(FrameError::Negative(-1)));
    }
}
