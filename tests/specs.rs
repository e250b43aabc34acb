//! What the broker does, seen from its clients.

mod bad_input;
mod lifecycle;
