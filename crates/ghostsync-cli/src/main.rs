//! The command `ghostsync`.
fn main() {}
