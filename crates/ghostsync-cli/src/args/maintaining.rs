//! What the commands take that keep a repository sound and small.

use clap::Args;
use ghostsync_core::guard::{Cap, PlanId};
use ghostsync_core::maintain::ReadData;

use crate::values::{Size, Span};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Read all content, put every file together, and compare it with its hash
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Read and verify a part of the stored blocks: a percentage, another choice on every run, or the N-th of M parts
    #[arg(long, value_name = "P%|N/M", value_parser = parse_subset, conflicts_with = "read_data")]
    pub(crate) read_data_subset: Option<ReadData>,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Read all content to find what is damaged, not only whether packs are there and long enough
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Refuse to replace a head of which more is lost: a number, or a percentage of its files
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub(crate) max_delete: Cap,
    /// Let one refused plan pass, as the refusal printed it
    #[arg(long = "override", value_name = "PLAN-ID")]
    pub(crate) override_plan: Option<PlanId>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// How packs are deleted.
#[derive(Debug, Args)]
pub(crate) struct PruneHowArgs {
    /// Wait so long after snapshots were forgotten, so that whoever restores one of them comes to an end
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) grace: Span,
    /// Fence backups that have uploaded nothing for so long
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) session_idle: Span,
    /// The most bytes in packs, less than half of which is needed, that later backups are to store again
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(crate) max_rewrite: Size,
    /// Promise that no other process writes to the repository until this has ended; needed in commit mode detect alone
    #[arg(long)]
    pub(crate) exclusive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    /// Only snapshots of this branch; may be repeated [default: every branch but forks and quarantine]
    #[arg(long, value_name = "BRANCH")]
    pub(crate) branch: Vec<String>,
    /// Snapshots of every branch, of forks and quarantine too
    #[arg(long, conflicts_with = "branch")]
    pub(crate) all: bool,
    /// Keep what writers may be building on: the newest snapshot of each hour for so long, and all of 10 minutes
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) protect: Span,
    /// Then prune
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What is kept of each branch; one of these is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct KeepArgs {
    /// Keep the N newest snapshots of a branch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the N newest hours that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_hourly: Option<u32>,
    /// The same for days, in the zone of this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_daily: Option<u32>,
    /// The same for weeks, which begin on Monday
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_weekly: Option<u32>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_monthly: Option<u32>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep every snapshot that is not older than this, counted from the newest of its branch
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_within: Option<Span>,
    /// Keep every snapshot with this tag: KEY=VALUE, or KEY with any value; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = crate::values::parse_tag_pattern)]
    pub(crate) keep_tag: Vec<(String, Option<String>)>,
}

fn parse_subset(text: &str) -> Result<ReadData, String> {
    let wrong = || format!("not a part: {text:?}; write 10% or 1/5");
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
        return percent.map(ReadData::Percent).ok_or_else(wrong);
    }
    let (n, m) = text.split_once('/').ok_or_else(wrong)?;
    let (n, m): (u32, u32) = (n.parse().map_err(|_| wrong())?, m.parse().map_err(|_| wrong())?);
    if (1..=m).contains(&n) { Ok(ReadData::Part { n, m }) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn parts_of_a_check() {
        assert_eq!(parse_subset("10%"), Ok(ReadData::Percent(10)));
        assert_eq!(parse_subset("2/5"), Ok(ReadData::Part { n: 2, m: 5 }));
        for text in ["", "0%", "101%", "0/5", "6/5", "5", "a/b"] {
            assert!(parse_subset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn forgetting_needs_a_rule() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for rule in
            ["--keep-last 1", "--keep-daily 7 --keep-yearly 1", "--keep-within 30d", "--keep-tag a --keep-tag b=1"]
        {
            assert!(parse(&format!("ghostsync forget {rule} --all --dry-run")), "{rule}");
        }
        for line in ["", " --all", " --branch main --protect 0", " --keep-last 0", " --keep-tag =1"] {
            assert!(!parse(&format!("ghostsync forget{line}")), "{line}");
        }
        assert!(!parse("ghostsync forget --keep-last 1 --all --branch main"));
    }
}
