//! What breaks, and that nothing acknowledged is lost by it; what hostile clients do, and that nobody else is hurt.
//!
//! One driver (`campaign`) sets producers, consumers and a group to work, one fault is done to the broker, and one check
//! (`history` and `group_history`) holds the log against what everybody was told. `HIGHWATER_TRIALS` says how often:
//! `pr` (the default), `nightly`, `release`, or a number. Every trial prints its seed, `HIGHWATER_SEED` repeats it, and a
//! trial that fails keeps its data, the broker's log and the clients' log and says where.
//!
//! The T-numbers in names are those of `broker/docs/reliability.md`.

mod administrator;
pub(crate) mod batches;
mod bombs;
mod campaign;
pub(crate) mod client;
mod clock_jumps;
mod connections;
mod consumer;
mod controls;
mod crowded_disk;
mod crowds;
mod damage;
mod failed_sync;
mod failing_disk;
mod full_disk;
pub(crate) mod gate;
mod greed;
pub(crate) mod group_calls;
mod group_history;
mod group_journal;
mod groups;
mod grown;
mod harm;
pub(crate) mod history;
mod io_errors;
mod judge;
mod kills;
mod layout;
mod lost_answers;
mod lost_commits;
mod machine_kills;
mod member;
mod memory_limit;
pub(crate) mod mounts;
mod observer;
mod overload;
mod pauses;
mod power_cuts;
mod producer;
mod quotas;
pub(crate) mod random;
pub(crate) mod reader;
pub(crate) mod setting;
mod slow_clients;
mod slow_disk;
mod starts;
mod trials;
