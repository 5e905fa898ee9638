//! The `wellspring` binary.
fn main() {}
