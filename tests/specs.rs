//! What the broker does, seen from its clients.

mod lifecycle;
