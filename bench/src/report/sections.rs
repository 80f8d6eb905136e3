//! The tables of the page: one section for each campaign.

use std::path::Path;

use super::quoted;
use super::table::{Table, cell, grouped, mebibytes, seconds, times};
use crate::curve::{FLOOR, floor_series, sizes};
use crate::history::{SERIES, SNAPSHOTS};
use crate::line::{BYTES_PER_SECOND, ROUND_TRIP};
use crate::peers::{self, Step};
use crate::results::{Campaign, Medium, Results, Sample, Scenario};
use crate::store::StoreKind;
use crate::trees::Tree;

/// All sections.
pub fn tables(results: &Results) -> String {
    results.campaigns.iter().map(section).collect()
}

/// How each peer was run.
pub(super) fn settings() -> String {
    let all = peers::all(Path::new("ghostsync"));
    all.iter().map(|peer| format!("- **{}**: {}\n", peer.name(), peer.settings())).collect()
}

/// The README's: the one picture and the one table.
pub(super) fn readme(results: &Results) -> String {
    let Some(campaign) = quoted(results, Tree::Docs) else { return String::new() };
    let mut text = "![Seconds of ghostsync and its peers, for three trees](docs/benchmarks.svg)\n\n".to_owned();
    text += &format!(
        "Seconds for `docs`, {} entries of {} MB in memory, {} cores, medians of {} runs; in brackets how many times \
         ghostsync's. [docs/benchmarks.md](docs/benchmarks.md) has what else was measured.\n\n",
        grouped(campaign.entries),
        campaign.bytes / 1_000_000,
        campaign.machine.cores,
        campaign.runs(),
    );
    text + &times_table(campaign, true).text()
}

fn section(campaign: &Campaign) -> String {
    let mut text = format!("\n## {}\n\n{}\n", title(campaign), facts(campaign));
    match campaign.key.scenario {
        Scenario::Steps => {
            text += &format!("\n{}", times_table(campaign, false).text());
            text += &format!("\n{}", costs_table(campaign).text());
            let line = line_table(campaign);
            if !line.is_empty() {
                text += &format!("\n{}", line.text());
            }
            text += &requests(campaign);
            text += &lost(campaign);
        }
        Scenario::History => text += &format!("\n{}", history_table(campaign).text()),
        Scenario::Curve => text += &format!("\n{}", curve_table(campaign).text()),
    }
    text
}

fn title(campaign: &Campaign) -> String {
    let medium = match campaign.key.medium {
        Medium::Tmpfs => "in memory (tmpfs)".to_owned(),
        Medium::Disk => format!("on disk ({})", campaign.machine.file_system),
    };
    let tree = campaign.key.tree.name();
    match (campaign.key.scenario, campaign.key.store) {
        (Scenario::History, _) => format!("`{tree}`: the newest of {SNAPSHOTS} snapshots"),
        (Scenario::Curve, _) => {
            let sizes = sizes(campaign);
            let [from, to] = [sizes.first(), sizes.last()].map(|files| grouped(files.copied().unwrap_or_default()));
            format!("`{tree}`: from {from} to {to} files")
        }
        (_, StoreKind::Local) => format!("`{tree}` {medium}"),
        (_, StoreKind::Garage) => format!("`{tree}` {medium}, over the line to Garage"),
        (_, StoreKind::Ceph) => format!("`{tree}` {medium}, over the line to Ceph"),
    }
}

fn facts(campaign: &Campaign) -> String {
    let machine = &campaign.machine;
    let versions: Vec<&str> = campaign.versions.values().map(String::as_str).collect();
    let scale = if campaign.scale < 1.0 { format!(" Scale {}.", campaign.scale) } else { String::new() };
    format!(
        "{} entries, {} MB: {}. {}, {}; load before: {:.2}.{scale} {}, {} cores, {} GiB, Linux {}. {}.",
        grouped(campaign.entries),
        grouped(campaign.bytes / 1_000_000),
        campaign.key.tree.describes(),
        medians(campaign.runs()),
        campaign.finished,
        campaign.load_before,
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        versions.join("; "),
    )
}

fn medians(runs: u32) -> String {
    if runs == 1 { "One run, no medians".to_owned() } else { format!("Medians of {runs} runs") }
}

/// The series that are peers, in the order of the tables.
fn in_order(campaign: &Campaign) -> Vec<&'static str> {
    let measured = campaign.series();
    let all = peers::all(Path::new("ghostsync"));
    all.iter().map(|peer| peer.name()).filter(|name| measured.contains(name)).collect()
}

fn shown(name: &str) -> String {
    if name == "ghostsync" { "**ghostsync**".to_owned() } else { name.to_owned() }
}

fn times_table(campaign: &Campaign, with_stored: bool) -> Table {
    let mut header = vec!["seconds".to_owned()];
    header.extend(Step::ALL.iter().map(|step| step.title().to_owned()));
    if with_stored {
        header.push("stored MiB".to_owned());
    }
    let mut table = Table::new(header);
    for name in in_order(campaign) {
        let mut row = vec![shown(name)];
        for step in Step::ALL {
            let ours = campaign.seconds("ghostsync", step);
            row.push(cell(campaign.seconds(name, step), |value| match ours {
                Some(ours) if name != "ghostsync" => format!("{} ({})", seconds(value), times(value / ours)),
                _ => seconds(value),
            }));
        }
        if with_stored {
            row.push(cell(stored(campaign, name, Step::First), mebibytes));
        }
        table.row(row);
    }
    table
}

fn stored(campaign: &Campaign, name: &str, step: Step) -> Option<f64> {
    campaign.median(name, step, |sample| sample.stored_bytes.map(|bytes| bytes as f64))
}

/// What the step of 1 % changed added to what is stored.
pub(super) fn added(campaign: &Campaign, name: &str) -> Option<f64> {
    Some(stored(campaign, name, Step::Changed)? - stored(campaign, name, Step::Unchanged)?)
}

fn costs_table(campaign: &Campaign) -> Table {
    const STEPS: [(Step, &str); 3] =
        [(Step::First, "first"), (Step::Unchanged, "unchanged"), (Step::Restore, "restore")];
    let mut header = vec!["CPU seconds, peak and stored MiB".to_owned()];
    header.extend(STEPS.map(|(_, title)| format!("CPU {title}")));
    header.extend(STEPS.map(|(_, title)| format!("peak {title}")));
    header.extend(["stored", "added by 1 %"].map(str::to_owned));
    let mut table = Table::new(header);
    for name in in_order(campaign) {
        let mut row = vec![shown(name)];
        for (step, _) in STEPS {
            row.push(cell(campaign.median(name, step, |sample| Some(sample.taken.cpu_seconds)), seconds));
        }
        for (step, _) in STEPS {
            row.push(cell(campaign.median(name, step, |sample| Some(sample.taken.peak_bytes as f64)), mebibytes));
        }
        row.push(cell(stored(campaign, name, Step::First), mebibytes));
        row.push(cell(added(campaign, name), mebibytes));
        table.row(row);
    }
    table
}

/// What went over the line, and how long that takes at least: the bytes at its bandwidth, and ten round trips.
fn line_table(campaign: &Campaign) -> Table {
    const STEPS: [Step; 4] = [Step::First, Step::Unchanged, Step::Changed, Step::Restore];
    let mut header = vec!["requests, MiB over the line, × the bound".to_owned()];
    header.extend(STEPS.map(|step| step.title().to_owned()));
    let mut table = Table::new(header);
    'peers: for name in in_order(campaign) {
        let mut row = vec![shown(name)];
        for step in STEPS {
            let requests = campaign.median(name, step, |sample| Some(sample.traffic.as_ref()?.requests as f64));
            let Some(requests) = requests else { continue 'peers };
            let bytes = campaign.median(name, step, carried).unwrap_or(0.0);
            let bound = over_bound(campaign, name, step);
            row.push(format!("{requests:.0}, {}, {}", mebibytes(bytes), cell(bound, times)));
        }
        table.row(row);
    }
    table
}

/// The bytes in the direction that the step is about.
fn carried(sample: &Sample) -> Option<f64> {
    let traffic = sample.traffic.as_ref()?;
    Some(if sample.step.restores() { traffic.received_bytes } else { traffic.sent_bytes } as f64)
}

/// How many times the bound a step took.
pub(super) fn over_bound(campaign: &Campaign, name: &str, step: Step) -> Option<f64> {
    campaign.median(name, step, |sample| {
        let bound = carried(sample)? / BYTES_PER_SECOND + 10.0 * ROUND_TRIP.as_secs_f64();
        Some(sample.taken.seconds / bound)
    })
}

/// The requests of ghostsync to a local store: what they would be to another.
fn requests(campaign: &Campaign) -> String {
    if campaign.key.store != StoreKind::Local {
        return String::new();
    }
    let count = |step: &Step| {
        let requests = campaign.median("ghostsync", *step, |sample| sample.requests.map(|requests| requests as f64))?;
        Some(format!("{} {requests:.0}", step.title()))
    };
    let counts: Vec<String> = Step::ALL.iter().filter_map(count).collect();
    if counts.is_empty() { String::new() } else { format!("\nRequests of ghostsync: {}.\n", counts.join(", ")) }
}

/// What did not come back, where anything did not.
fn lost(campaign: &Campaign) -> String {
    let mut text = String::new();
    for (name, lost) in &campaign.lost {
        let words = lost.words();
        if !words.is_empty() {
            text += &format!("\nNot brought back as they were by {name}: {}.\n", words.join(", "));
        }
    }
    text
}

fn history_table(campaign: &Campaign) -> Table {
    let mut table = Table::new(["restored", "seconds", "× fresh", "requests", "stored MiB"]);
    let fresh = campaign.seconds(SERIES[0], Step::Restore);
    for (series, what) in SERIES.into_iter().zip([
        "the only snapshot".to_owned(),
        format!("the newest of {SNAPSHOTS}"),
        "the newest, after forgetting, draining and pruning".to_owned(),
    ]) {
        let value = campaign.seconds(series, Step::Restore);
        table.row(vec![
            what,
            cell(value, seconds),
            cell(value.zip(fresh).map(|(value, fresh)| value / fresh), |ratio| format!("{ratio:.2}")),
            cell(campaign.median(series, Step::Restore, |sample| sample.requests.map(|count| count as f64)), |count| {
                format!("{count:.0}")
            }),
            cell(stored(campaign, series, Step::Restore), mebibytes),
        ]);
    }
    table
}

fn curve_table(campaign: &Campaign) -> Table {
    const STEPS: [Step; 3] = [Step::First, Step::Unchanged, Step::Restore];
    let mut header = vec!["files".to_owned()];
    header.extend(STEPS.map(|step| format!("{}, s", step.title())));
    header.push(format!("{FLOOR}, s"));
    header.extend(STEPS.map(|step| format!("{}, µs each", step.title())));
    header.push(format!("{FLOOR}, µs each"));
    header.extend(STEPS.map(|step| format!("{}, peak MiB", step.title())));
    let mut table = Table::new(header);
    for files in sizes(campaign) {
        let series = files.to_string();
        let mut times = STEPS.map(|step| campaign.seconds(&series, step)).to_vec();
        times.push(campaign.seconds(&floor_series(files), Step::First));
        let mut row = vec![grouped(files)];
        row.extend(times.iter().map(|time| cell(*time, seconds)));
        row.extend(times.iter().map(|time| cell(*time, |time| format!("{:.1}", time / files as f64 * 1e6))));
        row.extend(STEPS.map(|step| cell(peak(campaign, &series, step), mebibytes)));
        table.row(row);
    }
    table
}

/// The median of the peak memory.
pub(super) fn peak(campaign: &Campaign, series: &str, step: Step) -> Option<f64> {
    campaign.median(series, step, |sample| Some(sample.taken.peak_bytes as f64))
}
