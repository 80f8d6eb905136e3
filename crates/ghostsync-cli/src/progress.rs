//! Progress of long commands: bars on a terminal, plain lines elsewhere, JSON lines where a program asked for them.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ghostsync_core::observer::{Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::args::ProgressWhen;
use crate::config::{Settings, Verbosity};
use crate::render::{self, human};

/// How often a line is printed where bars cannot be.
const QUIET_LINE: Duration = Duration::from_secs(10);
/// How often when lines were asked for.
const WANTED_LINE: Duration = Duration::from_secs(1);

/// Shows what a backup, restore or check is doing.
pub(crate) struct Shown {
    form: Form,
    figures: Mutex<Figures>,
}

enum Form {
    Nothing,
    Bar(ProgressBar),
    Lines { every: Duration, wanted: bool },
    Json,
}

#[derive(Debug, Clone)]
struct Figures {
    entries: u64,
    planned: Option<(u64, u64)>,
    files: u64,
    bytes: u64,
    transferred: u64,
    started: Instant,
    /// When the work that the rate is about began.
    planned_at: Option<Instant>,
    shown: Instant,
}

impl Shown {
    /// Begins to show progress in the form that was asked for.
    pub(crate) fn start(settings: &Settings) -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal();
        let quiet = settings.log.value == Verbosity::Quiet;
        let form = match settings.progress.value {
            ProgressWhen::Never => Form::Nothing,
            ProgressWhen::Always if settings.json => Form::Json,
            ProgressWhen::Auto if quiet => Form::Nothing,
            ProgressWhen::Auto | ProgressWhen::Always if terminal => Form::Bar(bar()),
            ProgressWhen::Auto => Form::Lines { every: QUIET_LINE, wanted: false },
            ProgressWhen::Always => Form::Lines { every: WANTED_LINE, wanted: true },
        };
        Arc::new(Self { form, figures: Mutex::new(Figures::begin()) })
    }

    /// Shows the last figures, and takes the bars away.
    pub(crate) fn finish(&self) {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.form {
            Form::Nothing | Form::Lines { wanted: false, .. } => {}
            Form::Bar(bar) => bar.finish_and_clear(),
            Form::Lines { wanted: true, .. } => render::message(&figures.line()),
            Form::Json => figures.print_json(),
        }
    }
}

impl Observer for Shown {
    fn progress(&self, news: Progress) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = figures.take(news);
        let (every, at_once) = match &self.form {
            Form::Nothing => return,
            Form::Bar(bar) => return figures.draw(bar, planned),
            Form::Lines { every, wanted } => (*every, planned && *wanted),
            Form::Json => (WANTED_LINE, planned),
        };
        if !at_once && figures.shown.elapsed() < every {
            return;
        }
        figures.shown = Instant::now();
        if matches!(self.form, Form::Json) {
            figures.print_json();
        } else {
            render::message(&figures.line());
        }
    }
}

impl Figures {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            entries: 0,
            planned: None,
            files: 0,
            bytes: 0,
            transferred: 0,
            started: now,
            planned_at: None,
            shown: now,
        }
    }

    /// Adds news; tells whether the plan has just become known.
    fn take(&mut self, news: Progress) -> bool {
        match news {
            Progress::Listed { entries } => self.entries = entries,
            Progress::Planned { files, bytes } => {
                self.planned = Some((files, bytes));
                self.planned_at.get_or_insert_with(Instant::now);
                return true;
            }
            Progress::Advanced { files, bytes } => {
                self.files += files;
                self.bytes = self.bytes.saturating_add(bytes);
            }
            Progress::Transferred { bytes } => self.transferred += bytes,
            // News of a later library that this program has no words for.
            _ => {}
        }
        false
    }

    fn draw(&self, bar: &ProgressBar, planned: bool) {
        match self.planned {
            Some((files, bytes)) => {
                if planned {
                    bar.set_style(working_style());
                    bar.reset_eta();
                }
                bar.set_length(bytes);
                bar.set_position(self.bytes);
                let transferred = human::bytes(self.transferred);
                bar.set_message(format!("{}/{files} files, {transferred} transferred,", self.files));
            }
            None => bar.set_message(format!("{} listed", human::count(self.entries, "entry", "entries"))),
        }
    }

    /// Bytes of content per second since the plan was known, and seconds left; `None` before anything is known.
    fn rate(&self) -> (Option<u64>, Option<u64>) {
        let Some((_, planned)) = self.planned else { return (None, None) };
        let seconds = self.planned_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        if seconds < 0.001 || self.bytes == 0 {
            return (None, None);
        }
        let rate = self.bytes as f64 / seconds;
        let left = planned.saturating_sub(self.bytes) as f64 / rate;
        (Some(rate as u64), Some(left.ceil() as u64))
    }

    fn line(&self) -> String {
        let Some((files, bytes)) = self.planned else {
            return format!("{} listed", human::count(self.entries, "entry", "entries"));
        };
        let (rate, left) = self.rate();
        let rate = rate.map(|rate| format!(", {}/s", human::bytes(rate))).unwrap_or_default();
        let left = left.map(|left| format!(", {left} s left")).unwrap_or_default();
        let (done, planned) = (human::bytes(self.bytes), human::bytes(bytes));
        format!("{}/{files} files, {done} of {planned}{rate}{left}", self.files)
    }

    fn print_json(&self) {
        let (rate, left) = self.rate();
        let line = json!({"progress": {
            "entries": self.entries,
            "files": self.files,
            "planned_files": self.planned.map(|(files, _)| files),
            "bytes": self.bytes,
            "planned_bytes": self.planned.map(|(_, bytes)| bytes),
            "transferred_bytes": self.transferred,
            "bytes_per_second": rate,
            "seconds_left": left,
            "seconds": self.started.elapsed().as_secs_f64(),
        }});
        // A reader that went away is noticed when the result is printed.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.set_style(style("{spinner} {msg} {elapsed}"));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn working_style() -> ProgressStyle {
    style("{bar:25} {bytes}/{total_bytes} {msg} {bytes_per_sec} {eta} left")
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, and a test draws them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_add_up() {
        let mut figures = Figures::begin();
        assert!(!figures.take(Progress::Listed { entries: 5 }));
        assert_eq!(figures.line(), "5 entries listed");
        assert!(figures.take(Progress::Planned { files: 4, bytes: 4096 }));
        figures.take(Progress::Advanced { files: 1, bytes: 1024 });
        figures.take(Progress::Advanced { files: 1, bytes: 1024 });
        assert!(figures.line().starts_with("2/4 files, 2.0 KiB of 4.0 KiB"), "{}", figures.line());
    }

    #[test]
    fn the_rate_counts_from_the_plan() {
        let mut figures = Figures::begin();
        assert_eq!(figures.rate(), (None, None));
        figures.take(Progress::Planned { files: 4, bytes: 4000 });
        figures.planned_at = figures.started.checked_sub(Duration::from_secs(10));
        figures.take(Progress::Advanced { files: 1, bytes: 1000 });
        let (rate, left) = figures.rate();
        assert!(rate.is_some_and(|rate| (90..=100).contains(&rate)), "{rate:?}");
        assert!(left.is_some_and(|left| (30..=34).contains(&left)), "{left:?}");
    }

    #[test]
    fn the_templates_are_valid() {
        for template in ["{spinner} {msg} {elapsed}", "{bar:25} {bytes}/{total_bytes} {msg} {bytes_per_sec} {eta} left"]
        {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
