//! Load generator, roofline and micro benches.
