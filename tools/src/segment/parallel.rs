//! Work on many pieces of files on all cores, with what comes of it in the order of the pieces.
//!
//! It knows nothing of segments. Memory is bounded whatever the pieces give: each may be a few results ahead of whoever
//! takes them, and at most one piece per thread is at work or waits to be taken.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
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
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (begun, started) = mpsc::channel();
        for _ in 0..threads.get().min(pieces.len()) {
            let (begun, next, is_over, work) = (begun.clone(), &next, &is_over, &work);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = pieces.get(index) else { return };
                    let (results, taken) = mpsc::sync_channel(AHEAD_RESULTS);
                    if begun.send((index, taken)).is_err() {
                        return;
                    }
                    let sink = Sink { results };
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

/// Takes the results of all pieces. When it returns nobody listens to any of them.
fn drain<P, R>(
    pieces: &[P],
    started: Receiver<(usize, Receiver<Result<R>>)>,
    take: &mut impl FnMut(&P, R) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate() {
        let results = loop {
            if let Some(results) = waiting.remove(&index) {
                break results;
            }
            // The threads are gone only if one of them panicked, and that panic goes on where they are joined.
            let Ok((begun, results)) = started.recv() else { return Ok(()) };
            waiting.insert(begun, results);
        };
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
