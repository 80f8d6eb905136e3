//! What the program says: JSON lines on stderr, one for each thing that happened.

use std::io::Write;

use ghostsync_cli::causes::with_causes;
use ghostsync_core::Error;
use ghostsync_core::clock::{Clock, SystemClock};
use serde_json::{Map, Value, json};

use crate::hint;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody should look at it.
    Warn,
    /// It did not work.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Writes one line. That nobody reads it is no failure.
pub fn line(level: Level, message: &str, fields: Value) {
    let mut document = Map::new();
    document.insert("time".into(), json!(SystemClock.now()));
    document.insert("level".into(), level.name().into());
    document.insert("message".into(), message.into());
    if let Value::Object(fields) = fields {
        document.extend(fields);
    }
    let _ = writeln!(std::io::stderr().lock(), "{}", Value::Object(document));
}

/// Writes a line without fields.
pub fn info(message: &str) {
    line(Level::Info, message, Value::Null);
}

/// Writes a line that somebody should look at.
pub fn warn(message: &str) {
    line(Level::Warn, message, Value::Null);
}

/// Writes what an error says, and what a person can do about it.
pub fn error(level: Level, what: &str, error: &Error) {
    line(level, &format!("{what}: {}", with_causes(error)), error_fields(error));
}

/// The fields of an error.
#[must_use]
pub fn error_fields(error: &Error) -> Value {
    let mut fields = json!({"error": {"kind": error.kind().name(), "hint": hint::for_error(error)}});
    if let Some(refusal) = error.refusal() {
        fields["refusal"] = refusal_fields(refusal);
    }
    fields
}

/// The fields of a refusal.
#[must_use]
pub fn refusal_fields(refusal: &ghostsync_core::guard::Refusal) -> Value {
    let paths: Vec<String> = refusal.paths.iter().map(ToString::to_string).collect();
    let plan = refusal.plan.map(|plan| plan.to_string());
    json!({"guard": refusal.guard.name(), "reason": refusal.reason, "limit": refusal.limit, "actual": refusal.actual,
        "paths": paths, "plan": plan})
}
