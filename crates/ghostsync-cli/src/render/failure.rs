//! How an error or a refusal is told: in words on stderr, and in fields with `--json`.

use std::ffi::OsString;

use ghostsync_core::guard::Refusal;
use ghostsync_core::{Error, ErrorKind};
use serde_json::{Map, Value, json};

use super::human;
use super::json::{ErrorFields, RefusalFields};
use crate::causes::with_causes;
use crate::hint;
use crate::shell;

/// What an outcome is called when there was an error.
pub(crate) fn outcome(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => "refused",
        ErrorKind::Conflict | ErrorKind::Fenced => "conflict",
        ErrorKind::Unknown => "unknown",
        ErrorKind::Interrupted => "interrupted",
        _ => "failed",
    }
}

/// The fields of an error.
pub(crate) fn error_fields(error: &Error, opened: bool) -> ErrorFields {
    ErrorFields {
        kind: error.kind().name(),
        message: with_causes(error),
        hint: hint::for_error(error, opened).map(str::to_owned),
    }
}

/// Lines for people about an error.
pub(crate) fn error_lines(error: &Error, opened: bool) -> Vec<String> {
    let mut lines = vec![format!("error: {}", human::plain(&with_causes(error)))];
    lines.extend(hint::for_error(error, opened).map(|hint| format!("hint: {hint}")));
    lines
}

/// The fields that a refusal adds to a document.
pub(crate) fn refusal_fields(refusal: &Refusal, command: Option<&[OsString]>) -> Map<String, Value> {
    let command = command.map(shell::quote);
    let mut fields = Map::new();
    fields.insert("refusal".into(), json!(RefusalFields::from(refusal)));
    fields.insert("plan".into(), json!(refusal.plan.map(|plan| plan.to_string())));
    fields.insert("command".into(), json!(command));
    fields
}

/// Lines for people about a refusal: the guard, the figures, the paths, what was not done, and how to go on.
pub(crate) fn refusal_lines(refusal: &Refusal, not_done: &str, command: Option<&[OsString]>) -> Vec<String> {
    let mut lines = vec![refusal.to_string()];
    match (refusal.actual, &refusal.limit) {
        (Some(actual), Some(limit)) => lines.push(format!("  found {actual}, the limit is {limit}")),
        (Some(actual), None) => lines.push(format!("  found {actual}")),
        (None, Some(limit)) => lines.push(format!("  the limit is {limit}")),
        (None, None) => {}
    }
    lines.extend(refusal.paths.iter().map(|path| format!("  {}", human::path(path))));
    let shown = refusal.paths.len() as u64;
    if let Some(actual) = refusal.actual.filter(|actual| *actual > shown && shown > 0) {
        lines.push(format!("  … and {} more", actual - shown));
    }
    lines.push(format!("not done: {not_done}"));
    lines.extend(command.map(|command| format!("if this is what you want: {}", shell::quote(command))));
    lines
}

#[cfg(test)]
mod tests {
    use ghostsync_core::guard::Guard;
    use ghostsync_core::tree_path::TreePath;

    use super::*;
    use crate::hint::Action;

    #[test]
    fn a_refusal_says_everything() {
        let refusal = Refusal {
            guard: Guard::MaxDelete,
            reason: "30 of 40 entries would be removed".into(),
            limit: Some("50%".into()),
            actual: Some(30),
            paths: vec![TreePath::parse("a").expect("valid"), TreePath::parse("b").expect("valid")],
            plan: Some("00000000000000ff".parse().expect("a plan")),
        };
        let action = Action::Backup { branch: "main".into(), restore: None };
        let words = ["ghostsync".into(), "backup".into(), "a dir".into()];
        let command = hint::going_on(&refusal, &action, &words);
        let text = refusal_lines(&refusal, &action.not_done(), command.as_deref()).join("\n");
        for part in [
            "\"max-delete\"",
            "found 30, the limit is 50%",
            "\n  a\n  b\n",
            "and 28 more",
            "not done: nothing was published: branch main",
            "ghostsync backup 'a dir' --override 00000000000000ff",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let fields = refusal_fields(&refusal, command.as_deref());
        assert_eq!(fields["plan"], "00000000000000ff");
        assert_eq!(fields["refusal"]["limit"], "50%");
        assert_eq!(fields["refusal"]["actual"], 30);
    }
}
