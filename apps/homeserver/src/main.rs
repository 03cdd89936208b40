//! The homeserver's entry point.
fn main() {}
