//! Tests of the whole: one binary, so that everything links once.
//!
//! `harness` starts brokers and installs what tests need; `specs` say what the broker does, `interop` that real
//! clients agree, `faults` that nothing acknowledged is lost, `fuzz` that hostile bytes do no harm.

mod harness;

mod faults;
mod fuzz;
mod interop;
mod specs;
