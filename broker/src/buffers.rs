//! Receive buffers for large frames: charged to the memory budget, and used again.
//!
//! A fresh megabyte from the system costs as much in page faults as writing it to the log does, so frames too large for
//! a connection's own small buffer are received into buffers from this pool and go back when the last slice of the
//! frame is dropped. The pool keeps a bounded number of bytes. Buffers are anonymous maps and no allocator's: one that is
//! not kept goes back to the system at once, and of one that is longer than what has arrived only the pages that were
//! touched are there.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};
use parking_lot::Mutex;

use crate::memory::{Charge, Memory, POOLED_BYTES_MAX};

/// Sizes of pooled buffers grow by factors of four from here.
const CLASS_BYTES_MIN: usize = 64 * 1024;
const CLASSES: usize = 4;
const _: () = assert!(class_bytes(CLASSES - 1) == POOLED_BYTES_MAX);

/// A pool of receive buffers, shared by all connections.
pub(crate) struct BufferPool {
    memory: Arc<Memory>,
    kept_bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    classes: [Vec<MmapMut>; CLASSES],
    bytes: usize,
}

/// The buffer of one large frame. It returns to its pool when the last reference is dropped.
pub(crate) struct FrameBuffer {
    /// Gone only while it is being dropped.
    bytes: Option<MmapMut>,
    /// How much of it is charged and may be filled.
    room: usize,
    charge: Charge,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A pool that keeps no more than the budget's share for it.
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        let kept_bytes_max = memory.kept_bytes_max();
        Self { memory, kept_bytes_max, kept: Mutex::default() }
    }

    /// The budget.
    pub(crate) const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// A buffer with room for at least `len` bytes, of [`POOLED_BYTES_MAX`] at most. Waits for the memory.
    pub(crate) async fn take(self: &Arc<Self>, len: usize) -> io::Result<FrameBuffer> {
        let class = class_of(len).unwrap_or(CLASSES - 1);
        let mut charge = self.memory.large_frame();
        self.memory.extend(&mut charge, class_bytes(class)).await;
        let bytes = Some(self.pooled(class)?);
        Ok(FrameBuffer { bytes, room: class_bytes(class), charge, pool: Arc::clone(self) })
    }

    /// A buffer of a class, with arbitrary contents.
    fn pooled(&self, class: usize) -> io::Result<MmapMut> {
        let mut kept = self.kept.lock();
        if let Some(reused) = kept.classes[class].pop() {
            kept.bytes -= reused.len();
            return Ok(reused);
        }
        drop(kept);
        fresh(class_bytes(class))
    }

    fn keep(&self, bytes: MmapMut) {
        let Some(class) = class_of(bytes.len()).filter(|class| class_bytes(*class) == bytes.len()) else {
            return;
        };
        let mut kept = self.kept.lock();
        if kept.bytes + bytes.len() <= self.kept_bytes_max {
            kept.bytes += bytes.len();
            kept.classes[class].push(bytes);
        }
    }
}

impl FrameBuffer {
    /// The part that may be filled.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        let room = self.room;
        self.bytes.as_mut().map_or(&mut [], |bytes| &mut bytes[..room])
    }

    /// How much may be filled.
    pub(crate) const fn room(&self) -> usize {
        self.room
    }

    /// Makes room for more of a frame of `length` bytes, at most as much again as there is. Waits for the memory.
    pub(crate) async fn grow(&mut self, length: usize) -> io::Result<()> {
        let wanted = length.min(self.room.saturating_mul(2));
        let (pool, mapped) = (Arc::clone(&self.pool), self.bytes.as_ref().map_or(0, |bytes| bytes.len()));
        if wanted <= mapped {
            pool.memory.extend(&mut self.charge, wanted - self.room).await;
            self.room = wanted;
            return Ok(());
        }
        // Both buffers are there while the bytes move.
        let class = class_of(wanted);
        let room = class.map_or(wanted, class_bytes);
        pool.memory.extend(&mut self.charge, room).await;
        let mut larger = match class {
            Some(class) => pool.pooled(class)?,
            // From here on the frame stays where it is; what has not arrived takes no memory.
            None => fresh(length)?,
        };
        let before = self.as_mut();
        larger[..before.len()].copy_from_slice(before);
        if let Some(bytes) = self.bytes.replace(larger) {
            pool.keep(bytes);
        }
        self.charge.give_back(std::mem::replace(&mut self.room, room) as u64);
        Ok(())
    }

    /// The first `len` bytes as shared, immutable bytes.
    pub(crate) fn freeze(self, len: usize) -> Bytes {
        Bytes::from_owner(self).slice(..len)
    }
}

impl AsRef<[u8]> for FrameBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[..self.room])
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            self.pool.keep(bytes);
        }
    }
}

fn fresh(len: usize) -> io::Result<MmapMut> {
    MmapOptions::new().len(len).no_reserve_swap().map_anon()
}

const fn class_bytes(class: usize) -> usize {
    CLASS_BYTES_MIN << (2 * class)
}

fn class_of(len: usize) -> Option<usize> {
    (0..CLASSES).find(|class| len <= class_bytes(*class))
}

#[cfg(test)]
mod tests {
    use crate::memory::MemorySize;

    use super::*;

    const KEPT_BYTES_MAX: usize = 64 << 20;

    fn pool() -> Arc<BufferPool> {
        let budget = MemorySize::new(6 << 30).unwrap();
        Arc::new(BufferPool::new(Arc::new(Memory::new(budget, 100 << 20))))
    }

    fn used(pool: &BufferPool) -> u64 {
        pool.memory.reading().used_bytes
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_once_its_last_slice_is_gone() {
        let pool = pool();
        let mut first = pool.take(100_000).await.unwrap();
        first.as_mut()[0] = 42;
        let slice = first.freeze(100_000);
        let tail = slice.slice(99_999..);
        drop(slice);
        assert_eq!((pool.kept.lock().bytes, used(&pool)), (0, 256 << 10));

        drop(tail);

        assert_eq!((pool.kept.lock().bytes, used(&pool)), (256 << 10, 0));
        assert_eq!(pool.take(200_000).await.unwrap().as_mut()[0], 42);
    }

    #[tokio::test]
    async fn the_pool_keeps_a_bounded_number_of_bytes() {
        let pool = pool();
        let mut many = Vec::new();
        for _ in 0..100 {
            many.push(pool.take(1 << 20).await.unwrap());
        }

        drop(many);

        assert_eq!(pool.kept.lock().bytes, KEPT_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_frame_that_grows_keeps_its_bytes_and_is_charged_for_what_it_has_room_for() {
        const LENGTH: usize = 50_000_000;
        let pool = pool();
        let mut frame = pool.take(1).await.unwrap();
        let mut filled = 0;
        while filled < LENGTH {
            let room = frame.room().min(LENGTH);
            (filled..room).for_each(|at| frame.as_mut()[at] = (at / 4096) as u8);
            filled = room;
            assert_eq!(used(&pool), (frame.room() as u64).next_multiple_of(1024));
            if filled < LENGTH {
                frame.grow(LENGTH).await.unwrap();
            }
        }

        let bytes = frame.freeze(LENGTH);

        assert!((0..LENGTH).all(|at| bytes[at] == (at / 4096) as u8));
        drop(bytes);
        // The small ones that it went through are kept, the huge one is not.
        assert_eq!(
            (pool.kept.lock().bytes, used(&pool)),
            ((64 << 10) + (256 << 10) + (1 << 20) + (4 << 20), 0)
        );
    }
}
