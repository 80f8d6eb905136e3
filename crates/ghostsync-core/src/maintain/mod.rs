//! Looking after a repository.

mod check;
mod forget;
mod retention;

pub use check::{CheckOptions, CheckReport, Damage, ReadData, check};
pub use forget::{ForgetOptions, ForgetReport, forget, plan_forget};
pub use retention::{Bucket, Cause, Doubt, ForgetPlan, KeepRules, Planned, Protection, Reason, Scope, Verdict};
