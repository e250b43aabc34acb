//! Specs of the log as its callers see it, on simulated and on real files.

mod append;
mod compact;
mod compact_files;
mod compact_model;
mod contain;
mod counting;
mod damage;
mod faults;
mod given_up;
mod golden;
mod index;
mod kafka_gaps;
mod meta;
mod model;
mod outline;
mod pool;
mod read_only;
mod recovery;
mod residence;
mod retention;
mod salvage;
mod stress;
mod support;
mod time;
