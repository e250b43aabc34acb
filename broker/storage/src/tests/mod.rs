//! Specs of the log as its callers see it, on simulated and on real files.

mod append;
mod contain;
mod damage;
mod faults;
mod given_up;
mod golden;
mod meta;
mod model;
mod recovery;
mod support;
mod time;
