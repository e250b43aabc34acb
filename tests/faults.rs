//! What breaks, and that nothing acknowledged is lost by it; what hostile clients do, and that nobody else is hurt.
//!
//! The full counts are one command, those of hostile clients stand in their files:
//! `HIGHWATER_KILLS=50 HIGHWATER_CUTS=20 HIGHWATER_CONTROLS=10 HIGHWATER_MEMBERS=50 HIGHWATER_GROUP_SECONDS=300
//! cargo test -p highwater-tests faults -- --nocapture`.

pub(crate) mod batches;
mod bombs;
mod campaign;
pub(crate) mod client;
mod connections;
mod crowds;
mod failed_sync;
mod failing_disk;
mod full_disk;
mod gate;
mod greed;
pub(crate) mod group_calls;
mod group_campaign;
mod group_history;
mod group_journal;
pub(crate) mod history;
mod kills;
mod lost_commits;
mod member;
mod memory_limit;
pub(crate) mod mounts;
mod power_cuts;
mod producer;
mod quotas;
pub(crate) mod random;
pub(crate) mod reader;
pub(crate) mod setting;
mod slow_clients;
mod slow_disk;
