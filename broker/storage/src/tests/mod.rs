//! Specs of the log as its callers see it, on simulated and on real files.

mod append;
mod damage;
mod faults;
mod given_up;
mod golden;
mod meta;
mod model;
mod recovery;
mod retention;
mod support;
mod time;
