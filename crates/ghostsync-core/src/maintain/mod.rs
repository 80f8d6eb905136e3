//! Looking after a repository.

mod check;
pub use check::{CheckOptions, CheckReport, Damage, ReadData, check};
