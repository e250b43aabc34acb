//! Work on many pieces of files on all cores, with what comes of it in the order of the pieces.
//!
//! It knows nothing of segments. Memory is bounded whatever the pieces give: each may be a few results ahead of whoever
//! takes them, and two pieces per thread are at work or wait to be taken.

use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Results of a piece that wait to be taken.
const AHEAD_RESULTS: usize = 8;

/// Where a piece of work puts its results.
pub(super) struct Sink<R> {
    results: SyncSender<Result<R>>,
}

impl<R> Sink<R> {
    /// Hands a result over; waits while enough of them wait. To break means that nobody wants more.
    pub(super) fn put(&self, result: R) -> ControlFlow<()> {
        match self.results.send(Ok(result)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Threads that are worth having.
pub(super) fn cores() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Does `work` on each piece, on `threads` threads. `take` gets the results on this thread: in the order of the pieces, and
/// of a piece in the order that it gave them. The first error, of a piece or of `take`, ends it; so does a break.
pub(super) fn in_order<P: Sync, R: Send>(
    pieces: &[P],
    threads: NonZero<usize>,
    work: impl Fn(&P, &Sink<R>) -> Result<()> + Sync,
    mut take: impl FnMut(&P, R) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let (next, is_over) = (Mutex::new(0..pieces.len()), AtomicBool::new(false));
    thread::scope(|scope| {
        // Threads do not run through all pieces, however little each gives, while whoever takes the results is slow.
        let (begun, started) = mpsc::sync_channel(threads.get());
        for _ in 0..threads.get().min(pieces.len()) {
            let (begun, next, is_over, work) = (begun.clone(), &next, &is_over, &work);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed)
                    && let Some((piece, sink)) = begin(pieces, next, &begun)
                {
                    if let Err(error) = work(piece, &sink) {
                        // If nobody listens, it has ended already.
                        let _ = sink.results.send(Err(error));
                    }
                }
            });
        }
        drop(begun);
        let outcome = drain(pieces, started, &mut take);
        is_over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// The next piece, if there is one and its results are wanted. Pieces are begun in order, one at a time.
fn begin<'a, P, R>(
    pieces: &'a [P],
    next: &Mutex<Range<usize>>,
    begun: &SyncSender<Receiver<Result<R>>>,
) -> Option<(&'a P, Sink<R>)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let piece = pieces.get(next.next()?)?;
    let (results, taken) = mpsc::sync_channel(AHEAD_RESULTS);
    begun.send(taken).ok()?;
    Some((piece, Sink { results }))
}

/// Takes the results of all pieces. When it returns nobody listens to any of them.
fn drain<P, R>(
    pieces: &[P],
    started: Receiver<Receiver<Result<R>>>,
    take: &mut impl FnMut(&P, R) -> Result<ControlFlow<()>>,
) -> Result<()> {
    for (piece, results) in pieces.iter().zip(started) {
        for result in results {
            if take(piece, result?)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use anyhow::bail;

    use super::*;

    const THREADS: NonZero<usize> = NonZero::new(3).unwrap();

    /// Piece `n` gives `n` results.
    fn count(piece: &usize, sink: &Sink<usize>) -> Result<()> {
        for number in 0..*piece {
            if sink.put(number).is_break() {
                break;
            }
        }
        Ok(())
    }

    #[test]
    fn results_come_in_order_however_many_a_piece_gives() {
        let pieces = [100, 0, 3, 50, 1, 0, 7];
        let mut taken = Vec::new();
        in_order(&pieces, THREADS, count, |piece, number| {
            taken.push((*piece, number));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        let expected: Vec<_> = pieces.iter().flat_map(|n| (0..*n).map(move |number| (*n, number))).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn a_break_ends_the_pieces_that_are_at_work() {
        let mut taken = 0;
        in_order(&[usize::MAX; 4], THREADS, count, |_, _| {
            taken += 1;
            Ok(if taken == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
        assert_eq!(taken, 20);
    }

    #[test]
    fn pieces_that_give_little_are_not_all_done_ahead_of_a_slow_taker() {
        let (pieces, done) = ([1; 1000], AtomicUsize::new(0));
        let work = |piece: &usize, sink: &Sink<usize>| {
            done.fetch_add(1, Ordering::SeqCst);
            count(piece, sink)
        };
        let mut taken = 0;
        in_order(&pieces, THREADS, work, |_, _| {
            // Time for the others to run ahead.
            (0..100).for_each(|_| thread::yield_now());
            taken += 1;
            let ahead = done.load(Ordering::SeqCst) - taken;
            assert!(ahead <= 2 * THREADS.get(), "{ahead} after {taken}");
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(taken, pieces.len());
    }

    #[test]
    fn an_error_comes_after_what_the_piece_gave_before_it() {
        let fail = |piece: &usize, sink: &Sink<usize>| {
            count(piece, sink)?;
            bail!("piece {piece} fails")
        };
        let mut taken = Vec::new();
        let result = in_order(&[2, 5], THREADS, fail, |_, number| {
            taken.push(number);
            Ok(ControlFlow::Continue(()))
        });
        assert_eq!(result.unwrap_err().to_string(), "piece 2 fails");
        assert_eq!(taken, [0, 1]);
    }
}
