//! Loom's atomics and locks under the names of the real ones, and a switch that weakens the orders they are used with.
//!
//! A model runs the product's own code. Its control runs the same code with one kind of order taken away, and must
//! fail: a model that does not see the difference proves nothing.

#![allow(dead_code, reason = "two crates have this file, and each needs a part of it")]

use std::cell::Cell;

pub(crate) use std::sync::atomic::Ordering;

/// Which orders are replaced by relaxed ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Without {
    /// None.
    Nothing,
    /// What a store releases.
    Release,
    /// What a load acquires.
    Acquire,
    /// Fences, which are left out.
    Fences,
}

thread_local! {
    // Loom runs all threads of a model on the thread that checks it.
    static WITHOUT: Cell<Without> = const { Cell::new(Without::Nothing) };
}

/// Tries every interleaving of `model`.
///
/// # Panics
/// If one of them fails.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_without(Without::Nothing, model);
}

/// Tries every interleaving in which threads are stopped at most `preemptions` times where they could go on, for a model
/// that has too many.
pub(crate) fn check_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    WITHOUT.set(Without::Nothing);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The same as [`check`] with orders taken away.
pub(crate) fn check_without(without: Without, model: impl Fn() + Send + Sync + 'static) {
    WITHOUT.set(without);
    loom::model::Builder::new().check(model);
}

fn weakened(order: Ordering) -> Ordering {
    match (WITHOUT.get(), order) {
        (Without::Release, Ordering::AcqRel) => Ordering::Acquire,
        (Without::Release, Ordering::Release) => Ordering::Relaxed,
        (Without::Acquire, Ordering::AcqRel) => Ordering::Release,
        (Without::Acquire, Ordering::Acquire) => Ordering::Relaxed,
        (_, order) => order,
    }
}

/// Lets another thread run: a model that only waits would never end.
pub(crate) fn spin_loop() {
    loom::hint::spin_loop();
}

/// A fence.
pub(crate) fn fence(order: Ordering) {
    if WITHOUT.get() != Without::Fences {
        loom::sync::atomic::fence(order);
    }
}

macro_rules! atomics {
    ($($name:ident: $value:ty, $($operation:ident),*;)*) => {$(
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }
            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.0.load(weakened(order))
            }
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, weakened(order));
            }
            $(pub(crate) fn $operation(&self, value: $value, order: Ordering) -> $value {
                self.0.$operation(value, weakened(order))
            })*
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, weakened(success), weakened(failure))
            }
            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.0.fetch_update(weakened(success), weakened(failure), update)
            }
        }
    )*};
}

atomics! {
    AtomicBool: bool, swap;
    AtomicU8: u8, swap;
    AtomicI64: i64, swap, fetch_add, fetch_sub;
    AtomicU64: u64, swap, fetch_add, fetch_sub;
    AtomicUsize: usize, swap, fetch_add, fetch_sub;
}

/// A lock that is used like one of `parking_lot`.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

/// The lock is held.
pub(crate) type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap()
    }
}
