//! Specs, golden files, interop clients and fault tests of the whole.
