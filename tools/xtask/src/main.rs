//! Development automation.

fn main() {}
