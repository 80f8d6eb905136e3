//! Holds manifests against every trap that they can show.
//!
//! Text goes in (plain YAML, or what kustomize and Helm print), findings come out, each with a patch that closes it. No
//! cluster is asked and no template is rendered: what a manifest does not show, such as values that come from a
//! ConfigMap, is taken as right.

pub mod command;
mod document;
mod finding;
mod node;
mod pod;
mod report;
mod rules;

pub use document::DocumentError;
pub use finding::{Finding, Severity};
pub use report::{Report, human};

use document::Object;
use pod::Pod;

/// One file, as it was named and read.
#[derive(Debug)]
pub struct Input {
    /// How messages name it.
    pub file: String,
    /// What it holds.
    pub text: String,
}

/// Every rule: its name, how bad a finding is, and what happens where the trap is open.
pub fn catalogue() -> impl Iterator<Item = (&'static str, Severity, &'static str)> {
    rules::all().map(|rule| (rule.id, rule.severity, rule.why))
}

/// Looks at every workload of `inputs` that ghostsync has a part in.
///
/// # Errors
/// [`DocumentError`] where a file is no YAML, or holds something that is no Kubernetes object.
pub fn lint(inputs: &[Input]) -> Result<Report, DocumentError> {
    let mut objects: Vec<Object> = Vec::new();
    for input in inputs {
        objects.extend(document::parse(&input.file, &input.text)?);
    }
    let mut report = Report::default();
    for object in &objects {
        let Some(pod) = Pod::of(object, &objects) else { continue };
        report.workloads += 1;
        for rule in rules::all() {
            let hits = (rule.find)(&pod).into_iter();
            report.findings.extend(hits.map(|hit| Finding::new(rule, hit, &pod)));
        }
    }
    Ok(report)
}
