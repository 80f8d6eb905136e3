//! All findings, and how they are told to a person.

use std::fmt::Write;

use serde::Serialize;

use super::finding::{Finding, Severity};

/// What was found in all inputs together.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// How many workloads ghostsync has a part in.
    pub workloads: usize,
    /// What they have against them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are as bad as that.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// The report for a person; with the patches, ready for `kubectl patch --type=json` and kustomize, if `patches`.
pub fn human(report: &Report, patches: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let severity = finding.severity.name();
        let item = finding.item.map_or_else(String::new, |item| format!(", item {item}"));
        let _ = writeln!(text, "{severity}: {}: {}", finding.rule, finding.found);
        let _ = writeln!(
            text,
            "  at {} of {}/{} ({}, document {}{item})",
            finding.path, finding.kind, finding.name, finding.file, finding.document
        );
        let _ = writeln!(text, "  why: {}", finding.why);
        if patches {
            let _ = writeln!(text, "  patch:");
            for line in patch_yaml(finding).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
        text.push('\n');
    }
    let counts = [Severity::Problem, Severity::Warning, Severity::Note];
    let counts: Vec<_> = counts.iter().map(|severity| count(report.count(*severity), severity.name())).collect();
    let _ = writeln!(text, "{} in {}", counts.join(", "), count(report.workloads, "workload"));
    text
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn patch_yaml(finding: &Finding) -> String {
    // A patch is made of strings, numbers and lists: whatever fails here would be a defect of the serializer.
    serde_saphyr::to_string(&finding.patch).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
}
