//! Receive buffers that are used again.
//!
//! A fresh megabyte from the allocator costs as much in page faults as writing it to the log does, so frames too
//! large for a connection's own small buffer are received into buffers from this pool and go back when the last
//! slice of the frame is dropped. The pool keeps a bounded number of bytes.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Sizes of pooled buffers grow by factors of four from here.
const CLASS_BYTES_MIN: usize = 64 * 1024;
const CLASSES: usize = 4;
/// How many bytes of unused buffers are kept in all.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A pool of receive buffers, shared by all connections.
#[derive(Default)]
pub(crate) struct BufferPool {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

/// A buffer of fixed length that returns to its pool when the last reference is dropped.
pub(crate) struct PooledBuffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A buffer of at least `len` bytes, with arbitrary contents.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> PooledBuffer {
        let bytes = match class_of(len) {
            Some(class) => {
                let mut kept = self.kept.lock();
                let reused = kept.classes[class].pop();
                kept.bytes -= reused.as_ref().map_or(0, Vec::len);
                drop(kept);
                reused.unwrap_or_else(|| vec![0; class_bytes(class)])
            }
            None => vec![0; len],
        };
        PooledBuffer { bytes, pool: Arc::clone(self) }
    }
}

impl PooledBuffer {
    /// The whole buffer, which may be longer than what was asked for.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `len` bytes as shared, immutable bytes.
    pub(crate) fn freeze(self, len: usize) -> Bytes {
        Bytes::from_owner(self).slice(..len)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let Some(class) = class_of(bytes.len()).filter(|class| class_bytes(*class) == bytes.len()) else {
            return;
        };
        let mut kept = self.pool.kept.lock();
        if kept.bytes + bytes.len() <= KEPT_BYTES_MAX {
            kept.bytes += bytes.len();
            kept.classes[class].push(bytes);
        }
    }
}

const fn class_bytes(class: usize) -> usize {
    CLASS_BYTES_MIN << (2 * class)
}

fn class_of(len: usize) -> Option<usize> {
    (0..CLASSES).find(|class| len <= class_bytes(*class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_its_last_slice_is_gone() {
        let pool = Arc::new(BufferPool::default());
        let mut first = pool.take(100_000);
        first.as_mut()[0] = 42;
        let slice = first.freeze(100_000);
        let tail = slice.slice(99_999..);
        drop(slice);
        assert_eq!(pool.kept.lock().bytes, 0);

        drop(tail);

        assert_eq!(pool.kept.lock().bytes, 256 * 1024);
        assert_eq!(pool.take(200_000).as_mut()[0], 42);
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_bytes() {
        let pool = Arc::new(BufferPool::default());
        let many: Vec<_> = (0..100).map(|_| pool.take(1 << 20)).collect();

        drop(many);

        assert_eq!(pool.kept.lock().bytes, KEPT_BYTES_MAX);
    }

    #[test]
    fn a_huge_frame_is_not_kept() {
        let pool = Arc::new(BufferPool::default());

        drop(pool.take(50 << 20));

        assert_eq!(pool.kept.lock().bytes, 0);
    }
}
