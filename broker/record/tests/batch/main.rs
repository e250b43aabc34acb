//! What the record crate promises about whole batches: they come back as they were built, real clients' batches are
//! read, hostile ones are refused in bounded memory.

mod golden;
mod hostile;
mod legacy;
mod records;
mod round_trip;
mod support;
mod thin;
mod validate;
