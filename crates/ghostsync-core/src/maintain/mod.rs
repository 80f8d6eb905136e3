//! Looking after a repository.

mod check;
mod doctor;
pub use check::{CheckOptions, CheckReport, Damage, ReadData, check};
pub use doctor::{DoctorReport, Finding, Severity, Subject, doctor};
