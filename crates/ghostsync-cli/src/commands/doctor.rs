//! `doctor`: probes the store, the clock, the cache and the repository, and says what each finding means.

use ghostsync_core::Result;
use ghostsync_core::clock::SystemClock;
use ghostsync_core::maintain::{DoctorReport, Finding, Severity, doctor};
use ghostsync_core::store::open_url;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::hint;
use crate::render::human;

pub(super) async fn run(context: &mut Context) -> Result<Exit> {
    let store = open_url(context.settings.repo()?, &context.settings.store(), false)?;
    let report = context.interrupt.clone().unless_set(doctor(&store, &context.open_options(), &SystemClock)).await?;
    if context.output.is_json() {
        context.output.json(&document(&report))?;
    } else {
        for finding in &report.findings {
            for line in lines(finding) {
                context.output.line(line)?;
            }
        }
    }
    let held: Vec<Exit> = report.findings.iter().filter_map(|finding| finding.kind).map(Exit::of).collect();
    Ok(Exit::first_of(&held))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "good",
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Problem => "problem",
    }
}

fn lines(finding: &Finding) -> Vec<String> {
    let mut lines = vec![
        format!("{}: {}", word(finding.severity), human::plain(&finding.found)),
        format!("  means: {}", finding.meaning),
    ];
    lines.extend(hint::for_finding(finding).map(|advice| format!("  do: {advice}")));
    lines
}

fn document(report: &DoctorReport) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let mut fields = json!(finding);
            fields["advice"] = json!(hint::for_finding(finding));
            fields
        })
        .collect();
    let is_well = report.findings.iter().all(|finding| finding.severity < Severity::Problem);
    json!({
        "outcome": if is_well { "done" } else { "problems" },
        "possible_modes": report.possible_modes,
        "clock_ahead_seconds": report.clock_ahead_seconds,
        "probe": report.probe,
        "findings": findings,
    })
}
