//! What the broker does, seen from its clients.

mod bad_input;
mod cli;
mod connection;
mod groups;
mod lifecycle;
mod long_poll;
mod recreated;
