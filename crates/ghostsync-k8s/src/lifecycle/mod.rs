//! What `sync` does next: pure. An event and the time go in, actions come out; there is no I/O here, and no clock.
//!
//! One job runs at a time: the begin, a look at the head, a pass over the directory, maintenance. Its end is an event
//! like any other. What must hold:
//!
//! - a change is followed by a pass: when the directory has been quiet, or has been changing for too long, which is
//!   soon while passes are quick, and later while they are not;
//! - whatever the watch has seen, everything is listed now and then, and at once when the watch lost something;
//! - a store that cannot be reached is tried again, ever more slowly, and never ends anything;
//! - a branch that is another's is never written to again: what is edited is kept on forks, ever more rarely;
//! - SIGTERM stops what runs, and makes the final snapshot: what is small first, then everything, until the deadline;
//!   where it comes before the begin has ended well, that comes first: a branch that an earlier process of this pod gave
//!   back is claimed again, and what was edited since is saved there and not on a fork.
//!
//! Time is counted from the start of the process, by a clock that never jumps.

mod action;
mod event;

use std::time::Duration;

pub use action::{Action, Cause, Pass};
pub use event::{Began, Event, Looked, Passed};

/// A directory that is never quiet is saved so many times as long after its first change as a pass takes: a third of the
/// time at most goes into passes. What one costs, in reading, requests and bytes, is in the time that it takes.
const SHARE: u32 = 3;
/// Without a watch a listing is followed by the next after so many times what it took, but not later than the interval.
const UNWATCHED_SHARE: u32 = 10;
/// How long before the end of the grace period the program ends by itself, so that somebody hears why.
const MARGIN: Duration = Duration::from_secs(1);
/// What is left at least after SIGTERM, whenever it comes: the kubelet gives two seconds.
const FLOOR: Duration = Duration::from_millis(1500);
/// How long a job that was told to stop may take.
const STOPPING: Duration = Duration::from_millis(400);
/// How long the first failure is waited after.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long the final snapshot waits after a failure: there is nothing to be gained by patience.
const FINAL_PAUSE: Duration = Duration::from_millis(250);
/// How long after the first fork another may be made; twice as long after each.
const FORK_PAUSE: Duration = Duration::from_secs(15);
/// How rare forks become at most.
const MAX_FORK_PAUSE: Duration = Duration::from_secs(600);

/// How often and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at the head, and between two attempts of what failed.
    pub interval: Duration,
    /// A changed directory is saved when it has been quiet for so long …
    pub quiet: Duration,
    /// … or was changed so long ago, while passes are quick …
    pub min_wait: Duration,
    /// … and so long ago, however slow they are.
    pub max_wait: Duration,
    /// Between two passes whatever the watch has seen.
    pub rescan: Duration,
    /// From the beginning of the pod's end to its SIGKILL.
    pub grace: Duration,
    /// Between two runs of maintenance, if it is asked for.
    pub maintain: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Begin,
    Look,
    Pass(Pass),
    Maintain,
}

/// Changes that no pass has begun after.
#[derive(Debug, Clone, Copy)]
struct Dirty {
    first: Duration,
    last: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Ending {
    deadline: Duration,
    /// Everything small is in the branch: the next step is the whole.
    small_is_saved: bool,
    /// When the job that ran at the deadline was told to stop.
    stopped: Option<Duration>,
}

/// Where `sync` stands.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    timing: Timing,
    job: Option<Job>,
    began: Option<Began>,
    is_watched: bool,
    dirty: Option<Dirty>,
    last_change: Option<Duration>,
    /// How long after its first change a directory that is never quiet is saved.
    wait: Duration,
    /// When the pass that runs, or ran last, began.
    pass_began: Duration,
    unsynced_since: Option<Duration>,
    /// A pass is wanted now, because somebody said so.
    asked: bool,
    /// A pass is wanted as soon as it may be tried.
    wanted: bool,
    look_at: Duration,
    rescan_at: Duration,
    maintain_at: Option<Duration>,
    failures: u32,
    not_before: Duration,
    /// Once fenced: how often the directory was kept on a fork.
    forks: Option<u32>,
    terminating_since: Option<Duration>,
    app_may_write: bool,
    ending: Option<Ending>,
    has_ended: bool,
}

impl Lifecycle {
    /// The start.
    #[must_use]
    pub fn new(timing: Timing, now: Duration) -> Self {
        Self {
            timing,
            job: None,
            began: None,
            is_watched: true,
            dirty: None,
            last_change: None,
            wait: timing.min_wait.min(timing.max_wait),
            pass_began: now,
            unsynced_since: None,
            asked: false,
            wanted: false,
            look_at: now + timing.interval,
            rescan_at: now + timing.rescan,
            // A pod may live for less than the time between two runs.
            maintain_at: timing.maintain.map(|every| now + every.min(Duration::from_secs(3600))),
            failures: 0,
            not_before: now,
            forks: None,
            terminating_since: None,
            app_may_write: false,
            ending: None,
            has_ended: false,
        }
    }

    /// Takes an event, and tells what is to be done.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.has_ended && self.ending.is_none() {
            return actions;
        }
        match event {
            Event::Changed => self.changed(now),
            Event::Overflowed => {
                self.changed(now);
                self.wanted = true;
            }
            Event::Unwatched => {
                self.is_watched = false;
                self.wanted = true;
            }
            Event::Asked => self.asked = true,
            Event::Terminating => {
                self.terminating_since.get_or_insert(now);
                self.asked = true;
            }
            Event::AppMayWrite => {
                self.terminating_since.get_or_insert(now);
                self.app_may_write = true;
            }
            Event::AppGone => self.app_may_write = false,
            Event::Terminate => self.terminate(now, &mut actions),
            Event::Began(began) => self.began(began, now),
            Event::Looked(looked) => self.looked(looked, now),
            Event::Passed(passed) => self.passed(passed, now),
            Event::Maintained => {
                self.job = None;
                self.maintain_at = self.timing.maintain.map(|every| now + every);
            }
            Event::Tick => {}
        }
        actions.extend(self.next(now));
        actions
    }

    /// When something is due, if nothing happens before. A job that runs tells its end by itself.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        if self.has_ended {
            return None;
        }
        if let Some(ending) = &self.ending {
            let patience = ending.stopped.map_or(ending.deadline, |stopped| stopped + STOPPING);
            let retry = self.final_pass_at(ending).filter(|_| self.job.is_none());
            return Some(retry.map_or(patience, |retry| retry.min(patience)));
        }
        if self.job.is_some() {
            return None;
        }
        if !self.has_begun() {
            return Some(self.not_before);
        }
        let look = self.forks.is_none().then_some(self.look_at);
        [Some(self.pass_at()), look, self.maintain_at].into_iter().flatten().min()
    }

    /// Since when something has been changed that would be lost now.
    #[must_use]
    pub fn unsynced_since(&self) -> Option<Duration> {
        self.unsynced_since
    }

    /// Whether the begin has ended well: the receipt holds, and the branch was ours.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.began == Some(Began::Ready)
    }

    /// Whether changes are told, all of them: otherwise listings find them.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Whether the branch is another's.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.forks.is_some()
    }

    /// Since when the pod is being ended.
    #[must_use]
    pub fn terminating_since(&self) -> Option<Duration> {
        self.terminating_since
    }

    /// Until when the final snapshot is tried, once SIGTERM has come.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.ending.map(|ending| ending.deadline)
    }

    /// When something changed last.
    #[must_use]
    pub fn last_change(&self) -> Option<Duration> {
        self.last_change
    }

    fn changed(&mut self, now: Duration) {
        let first = self.dirty.map_or(now, |dirty| dirty.first);
        self.dirty = Some(Dirty { first, last: now });
        self.last_change = Some(now);
        self.unsynced_since.get_or_insert(now);
    }

    fn terminate(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.ending.is_some() {
            return;
        }
        let since = *self.terminating_since.get_or_insert(now);
        let deadline = (since + self.timing.grace).saturating_sub(MARGIN).max(now + FLOOR);
        self.ending = Some(Ending { deadline, small_is_saved: false, stopped: None });
        self.not_before = now;
        // A begin is short, and the final snapshot needs it.
        if self.job.is_some_and(|job| job != Job::Begin) {
            actions.push(Action::Stop);
        }
    }

    /// Whether it is known whose the branch is.
    fn has_begun(&self) -> bool {
        matches!(self.began, Some(Began::Ready | Began::Fenced))
    }

    fn began(&mut self, began: Began, now: Duration) {
        self.job = None;
        self.began = Some(began);
        match began {
            // What was edited before the watch began is found by a pass alone.
            Began::Ready => self.wanted = true,
            Began::Fenced => {
                self.forks = Some(0);
                self.wanted = true;
            }
            Began::Refused | Began::NotYet => {
                // It would be refused again.
                self.has_ended = began == Began::Refused && self.ending.is_some();
                return self.pause(now);
            }
        }
        self.failures = 0;
        self.not_before = now;
    }

    fn looked(&mut self, looked: Looked, now: Duration) {
        self.job = None;
        self.look_at = now + self.timing.interval;
        self.wanted |= looked == Looked::Moved;
    }

    fn passed(&mut self, passed: Passed, now: Duration) {
        let job = self.job.take();
        let took = now.saturating_sub(self.pass_began);
        // Every pass looks at the head: the next look may wait twice as long, so that there is one request an interval.
        self.look_at = now + if self.is_watched { self.timing.interval * 2 } else { self.unwatched_wait(took) };
        if !matches!(passed, Passed::NotYet | Passed::Stopped) {
            self.failures = 0;
            self.not_before = now;
            self.wait = self.wait_after(took);
        }
        match passed {
            Passed::Saved { complete } => {
                let was_small = matches!(job, Some(Job::Pass(Pass { small_first: true, .. })));
                if complete || !was_small {
                    self.unsynced_since = self.dirty.map(|dirty| dirty.first);
                }
                if let Some(ending) = &mut self.ending {
                    // One that began before SIGTERM says nothing about what came since.
                    let was_final = matches!(job, Some(Job::Pass(Pass { cause: Cause::Final, .. })));
                    let was_last = matches!(job, Some(Job::Pass(Pass { release: true, .. })));
                    ending.small_is_saved |= was_final;
                    self.has_ended = was_last && (complete || !was_small);
                }
            }
            Passed::Refused { kept } => {
                if kept {
                    self.unsynced_since = self.dirty.map(|dirty| dirty.first);
                } else {
                    self.rescan_at = self.rescan_at.min(now + self.timing.interval);
                }
                self.kept_aside(job, kept);
            }
            Passed::Fenced => {
                let forks = self.forks.get_or_insert(0);
                let pause = FORK_PAUSE.saturating_mul(1_u32.checked_shl(*forks).unwrap_or(u32::MAX));
                *forks = forks.saturating_add(1);
                // The last one may follow at once, also where this one was begun before SIGTERM.
                if self.ending.is_none() {
                    self.not_before = now + pause.min(MAX_FORK_PAUSE);
                }
                self.unsynced_since = self.dirty.map(|dirty| dirty.first);
                self.kept_aside(job, true);
            }
            Passed::NotYet => {
                self.wanted = true;
                self.pause(now);
            }
            Passed::Stopped => self.wanted = true,
        }
    }

    /// A final snapshot that does not come to the branch is the end: but a first step that is kept aside has only what
    /// is small, and is followed by the whole.
    fn kept_aside(&mut self, job: Option<Job>, kept: bool) {
        let (Some(ending), Some(Job::Pass(pass @ Pass { cause: Cause::Final, .. }))) = (&mut self.ending, job) else {
            return;
        };
        ending.small_is_saved = true;
        self.has_ended = !(kept && pass.small_first);
    }

    /// How long to wait after a pass that took so long. One that was slow, because it had a large file to store, says
    /// little about the next: the wait grows by steps, and falls at once.
    fn wait_after(&self, took: Duration) -> Duration {
        let grown = took.saturating_mul(SHARE).min(self.wait.saturating_mul(2));
        grown.max(self.timing.min_wait).min(self.timing.max_wait)
    }

    /// How long until everything is listed again where nobody tells what changes.
    fn unwatched_wait(&self, took: Duration) -> Duration {
        took.saturating_mul(UNWATCHED_SHARE).max(self.timing.min_wait).min(self.timing.interval)
    }

    fn pause(&mut self, now: Duration) {
        if self.ending.is_some() {
            self.not_before = now + FINAL_PAUSE;
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause.min(self.timing.interval);
    }

    /// When the next pass is due.
    fn pass_at(&self) -> Duration {
        if self.asked {
            return Duration::ZERO;
        }
        let wanted = if self.wanted { Duration::ZERO } else { self.rescan_at };
        let unwatched = if self.is_watched { wanted } else { self.look_at };
        let dirty = self.dirty.map_or(wanted, |dirty| self.due(dirty));
        wanted.min(unwatched).min(dirty).max(self.not_before)
    }

    fn due(&self, dirty: Dirty) -> Duration {
        (dirty.last + self.timing.quiet).min(dirty.first + self.wait)
    }

    /// When the next step of the final snapshot is due; while the app may still write, that is when there is something
    /// new, and at last when it has been quiet.
    fn final_pass_at(&self, ending: &Ending) -> Option<Duration> {
        if ending.stopped.is_some() {
            return None;
        }
        if !ending.small_is_saved || !self.app_may_write {
            return Some(self.not_before);
        }
        let quiet = self.quiet_at(ending);
        Some(self.dirty.map_or(quiet, |dirty| self.due(dirty).min(quiet)).max(self.not_before))
    }

    /// When the last step may be made: nobody writes any more, or there is no more time.
    fn quiet_at(&self, ending: &Ending) -> Duration {
        let quiet = self.last_change.map_or(Duration::ZERO, |last| last + self.timing.quiet);
        quiet.min(ending.deadline.saturating_sub(MARGIN))
    }

    fn next(&mut self, now: Duration) -> Option<Action> {
        if self.has_ended && self.job.is_none() {
            // Said once.
            let said = self.ending.take().is_some();
            return said.then_some(Action::End);
        }
        if let Some(ending) = self.ending {
            return self.next_of_end(ending, now);
        }
        if self.job.is_some() {
            return None;
        }
        let job = match self.began {
            None | Some(Began::Refused | Began::NotYet) => (now >= self.not_before).then_some(Job::Begin)?,
            Some(Began::Ready | Began::Fenced) if now >= self.pass_at() => {
                let cause = match (self.asked, self.dirty) {
                    (true, _) => Cause::Asked,
                    (false, Some(_)) if !self.wanted && now < self.rescan_at => Cause::Change,
                    (false, _) => Cause::Rescan,
                };
                Job::Pass(self.begin_pass(cause, false, false, now))
            }
            Some(_) if self.forks.is_none() && now >= self.look_at => Job::Look,
            Some(_) if self.forks.is_none() && self.maintain_at.is_some_and(|at| now >= at) => Job::Maintain,
            Some(_) => return None,
        };
        self.job = Some(job);
        Some(match job {
            Job::Begin => Action::Begin,
            Job::Look => Action::Look,
            Job::Pass(pass) => Action::Pass(pass),
            Job::Maintain => Action::Maintain,
        })
    }

    fn next_of_end(&mut self, mut ending: Ending, now: Duration) -> Option<Action> {
        let is_over = now >= ending.deadline;
        match (self.job, ending.stopped) {
            (Some(_), None) if is_over => {
                ending.stopped = Some(now);
                self.ending = Some(ending);
                Some(Action::Stop)
            }
            (Some(_), Some(stopped)) if now < stopped + STOPPING => None,
            (Some(_), None) => None,
            (_, Some(_)) | (None, None) if is_over => {
                self.has_ended = true;
                self.job = None;
                self.ending = None;
                Some(Action::End)
            }
            (None, None) if !self.has_begun() && now >= self.not_before => {
                self.job = Some(Job::Begin);
                Some(Action::Begin)
            }
            (None, _) if self.has_begun() && self.final_pass_at(&ending).is_some_and(|at| now >= at) => {
                let is_last = !self.app_may_write || now >= self.quiet_at(&ending);
                let pass = self.begin_pass(Cause::Final, !ending.small_is_saved, is_last, now);
                self.job = Some(Job::Pass(pass));
                Some(Action::Pass(pass))
            }
            _ => None,
        }
    }

    fn begin_pass(&mut self, cause: Cause, small_first: bool, release: bool, now: Duration) -> Pass {
        self.asked = false;
        self.wanted = false;
        self.dirty = None;
        self.pass_began = now;
        self.rescan_at = now + self.timing.rescan;
        Pass { cause, small_first, release }
    }
}

#[cfg(test)]
mod tests;
