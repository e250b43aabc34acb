//! What threads share, by one name for the product and for the models of `cargo xtask nightly loom`.
//!
//! As in `broker/storage/src/sync.rs`: the product has the real atomics and locks, a model has loom's.

#[cfg(all(test, highwater_loom))]
#[path = "../storage/src/sync/model.rs"]
mod model;

#[cfg(all(test, highwater_loom))]
pub(crate) use model::*;
#[cfg(not(all(test, highwater_loom)))]
pub(crate) use {
    parking_lot::Mutex,
    std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering, fence},
};
