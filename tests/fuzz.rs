//! Hostile bytes: random and mutated frames, in process and through sockets. Nothing may panic, abort, hang or grow.
//!
//! The full count is one command: `HIGHWATER_FRAMES=1000000 cargo test -p highwater-tests fuzz -- --nocapture`.

mod answers;
mod in_process;
mod mutation;
mod seeds;
mod sockets;
