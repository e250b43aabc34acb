//! The client against a broker by script: frames over a real socket, faults where the test wants them.

#![expect(clippy::unwrap_used, reason = "a script that cannot be played has failed")]

mod connection;
mod consumer;
mod groups;
mod peer;
mod producer;
