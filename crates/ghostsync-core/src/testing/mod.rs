//! Tools for tests of this crate and of others.

pub mod cabinet;
pub mod tree;
