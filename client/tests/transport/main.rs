//! The client against a broker by script: frames over a real socket, faults where the test wants them.

mod connection;
mod consumer;
mod peer;
mod producer;
