//! What the broker does, seen from its clients.

mod bad_input;
mod connection;
mod lifecycle;
mod long_poll;
