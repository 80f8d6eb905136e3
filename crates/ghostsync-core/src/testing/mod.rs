//! Tools for tests of this crate and of others.

pub mod cabinet;
pub mod conformance;
pub mod fault;
pub mod loopback;
pub mod operation;
pub mod recording;
pub mod restless;
pub mod tree;
