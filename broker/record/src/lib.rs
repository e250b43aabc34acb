//! Offsets, epochs, topic names and the v2 record batch: view, verify, iterate, build, compress.
