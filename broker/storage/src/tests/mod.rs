//! Specs of the log as its callers see it, on simulated and on real files.

mod append;
mod support;
