//! A place in a log, and a cell that lets many threads read one while a single thread moves it.

use highwater_record::Offset;

use crate::sync::{AtomicI64, AtomicU64, Ordering, fence, spin_loop};

/// A place in a log: the offset that comes next there, and a count of bytes that goes with it.
///
/// In the points of a whole log, `bytes` counts from the recovery point that the log was opened with; it grows with
/// each append, and the difference of two points is the number of log bytes between them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LogPoint {
    /// The first offset after this place.
    pub offset: Offset,
    /// Bytes before this place.
    pub bytes: u64,
}

/// A [`LogPoint`] that is read without a lock. Only one thread may store at a time.
///
/// A sequence lock over plain atomics: the number is odd while a store is under way, and a reader that saw it
/// change reads again.
#[derive(Debug)]
pub(crate) struct PointCell {
    sequence: AtomicU64,
    offset: AtomicI64,
    bytes: AtomicU64,
}

impl PointCell {
    pub(crate) fn new(point: LogPoint) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            offset: AtomicI64::new(point.offset.get()),
            bytes: AtomicU64::new(point.bytes),
        }
    }

    pub(crate) fn store(&self, point: LogPoint) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.offset.store(point.offset.get(), Ordering::Relaxed);
        self.bytes.store(point.bytes, Ordering::Relaxed);
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    pub(crate) fn load(&self) -> LogPoint {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let offset = self.offset.load(Ordering::Relaxed);
                let bytes = self.bytes.load(Ordering::Relaxed);
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    // Only offsets were stored, so the constructor cannot refuse.
                    return LogPoint { offset: Offset::new(offset).unwrap_or_default(), bytes };
                }
            }
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_reader_never_sees_half_of_a_point() {
        let cell = Arc::new(PointCell::new(LogPoint::default()));
        let reader = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                loop {
                    let point = cell.load();
                    assert_eq!(point.offset.get() as u64 * 3, point.bytes);
                    if point.bytes == 300_000 {
                        break;
                    }
                }
            })
        };

        for n in 0..=100_000 {
            cell.store(LogPoint { offset: Offset::ZERO.advance(n), bytes: n * 3 });
        }

        reader.join().unwrap();
    }
}
