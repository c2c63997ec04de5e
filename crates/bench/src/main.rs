//! Measures shoal beside its peers.
fn main() {}
