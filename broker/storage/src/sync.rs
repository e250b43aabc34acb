//! What threads share, by one name for the product and for the models of `cargo xtask nightly loom`.
//!
//! The product has the atomics of the standard library and the locks of `parking_lot`; this file is their names and
//! costs nothing. A model has loom's, which try every order that memory may take.

#[cfg(all(test, highwater_loom))]
mod model;

#[cfg(all(test, highwater_loom))]
pub(crate) use model::*;
#[cfg(not(all(test, highwater_loom)))]
pub(crate) use {
    parking_lot::Mutex,
    std::hint::spin_loop,
    std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence},
};
