//! Looking after a repository.

mod alone;
mod check;
mod doctor;
mod forget;
mod prune;
mod repair;
mod retention;

pub use check::{CheckOptions, CheckReport, Damage, ReadData, check};
pub use doctor::{DoctorReport, Finding, Severity, Subject, doctor};
pub use forget::{ForgetOptions, ForgetReport, forget, plan_forget};
pub use prune::{PruneOptions, PruneReport, prune};
pub use repair::{HeadOutcome, Loss, RepairOptions, RepairReport, RepairedHead, repair};
pub use retention::{Bucket, Cause, Doubt, ForgetPlan, KeepRules, Planned, Protection, Reason, Scope, Verdict};
