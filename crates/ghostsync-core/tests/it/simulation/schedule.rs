//! Decides, from a seed, what happens next: which request is answered and how, who starts, who is killed, what that
//! was given up long ago arrives now.
//!
//! One process runs at a time: after each answer the schedule waits until that process asks for something again or
//! has ended, so that the order of requests is the schedule, whatever its threads do. Where a process has several
//! requests in flight (a pack of content and one of pages; the head and what may lie above it; the reads of a restore
//! and of a prune), they are all there before one of them is answered.

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use ghostsync_core::ErrorKind;
use ghostsync_core::backup::BackupOutcome;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::Scope;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, tag};
use ghostsync_core::store::{Store, keys};
use jiff::{SignedDuration, Timestamp};

use super::actors::{Actor, Ended, Habits, Job, NAMES, Role, SETTLE_TIME, SimulatedClock, Stage, Writer, difference};
use super::ledger::is_log;
use super::random::Random;
use super::store::{
    Answer, Creates, Process, Request, Shared, Waiting, Write, asks_for_commit, exists, generic, is_data_pack, is_pack,
};
use crate::restoring::quick_folder;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) creates: Creates,
    /// So many jobs are started.
    pub(super) jobs: usize,
}

/// How often what happened.
pub(super) type Tally = BTreeMap<&'static str, u64>;

/// A rule that did not hold, and what had happened.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) violation: String,
    pub(super) trace: Vec<String>,
}

/// At most so many processes at a time.
const MAX_RUNNING: usize = 4;
/// How often each of the actors does something, compared with the others: one line is taken for the whole simulation.
const POPULATIONS: [[usize; 7]; 6] = [
    [4, 4, 0, 0, 5, 0, 2],
    [1, 1, 4, 4, 4, 0, 2],
    [2, 2, 2, 2, 4, 0, 2],
    [3, 5, 3, 0, 5, 0, 2],
    [4, 4, 0, 0, 4, 4, 2],
    [2, 2, 2, 2, 3, 3, 2],
];

/// The same where few people do few things again and again, so that rare orders of them come: two that back up and one
/// that forgets and prunes, or two that do, or two holders.
const NARROW_POPULATIONS: [[usize; 7]; 3] = [[6, 6, 0, 0, 6, 0, 1], [0, 1, 6, 6, 2, 0, 1], [4, 3, 0, 0, 5, 5, 1]];

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Done, and a copy arrives later.
    Twice,
    /// Not done, and an error says so.
    Failed,
    /// Not done, and the answer says that something is there already.
    Exists,
    /// Done, and an error says that it was not.
    AnswerLost,
    /// Not done now, with an error, and done later.
    Late,
}

pub(super) struct Simulation {
    shared: Shared,
    random: Random,
    _folder: tempfile::TempDir,
    actors: Vec<Actor>,
    population: [usize; 7],
    /// Whoever is about to commit is in the others' way more often than not.
    is_narrow: bool,
    jobs_left: usize,
    step: u64,
    tick: SignedDuration,
    /// Of a hundred requests, so many may go wrong at all.
    trouble: usize,
    habits: Habits,
    /// The log has so many more commits when it all begins.
    long_log: usize,
    versions: u64,
    tally: Tally,
}

/// Simulates a repository's life, from one seed.
pub(super) fn simulate(setting: Setting) -> Result<(Tally, Vec<String>), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut simulation = Simulation::new(setting);
        let ended = simulation.run().await;
        simulation.kill_all().await;
        let trace = std::mem::take(&mut simulation.shared.lock().trace);
        match ended {
            Ok(()) => Ok((simulation.tally, trace)),
            Err(violation) => Err(Failure { violation, trace }),
        }
    })
}

impl Simulation {
    fn new(setting: Setting) -> Self {
        let mut random = Random::new(setting.seed);
        let folder = quick_folder();
        // In the order of the populations.
        let actors = [
            ("plain", Role::Plain { cache: false }),
            ("cached", Role::Plain { cache: true }),
            ("pod-a", Role::Holder),
            ("pod-b", Role::Holder),
            ("keeper-a", Role::Keeper),
            ("keeper-b", Role::Keeper),
            ("person", Role::Person),
        ];
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
        // Three lives of eight, whatever else their seeds decide.
        let narrow = NARROW_POPULATIONS.get(Random::new(!setting.seed).below(8));
        // Where two prune, there is something to move.
        let leaves_ends = narrow.is_some_and(|people| people[4].min(people[5]) > 0);
        let tick = SignedDuration::from_secs(*random.pick(&[1, 60, 20_000, 200_000]));
        Self {
            shared: Shared::new(setting.creates, now),
            actors: actors.iter().map(|(name, role)| Actor::new(name, *role, folder.path())).collect(),
            _folder: folder,
            population: *narrow.unwrap_or(random.pick(&POPULATIONS)),
            is_narrow: narrow.is_some(),
            jobs_left: if leaves_ends { setting.jobs * 3 / 2 } else { setting.jobs },
            step: 0,
            tick,
            trouble: *random.pick(&[20, 50, 100]),
            habits: Habits { contents: *random.pick(&[0, 6, 12]), leaves_ends, cap: *random.pick(&[50, 100]) },
            long_log: if random.chance(15) { 40 + random.below(40) } else { 0 },
            versions: 0,
            tally: Tally::new(),
            random,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    async fn run(&mut self) -> Result<(), String> {
        self.begin().await?;
        self.shared.lock().is_direct = false;
        while self.jobs_left > 0 || !self.running().is_empty() {
            self.take_step().await?;
            let violation = self.shared.lock().violation.take();
            if let Some(violation) = violation {
                return Err(violation);
            }
        }
        self.end().await
    }

    /// A repository with a first snapshot, without trouble.
    async fn begin(&mut self) -> Result<(), String> {
        for name in ["a", "b", "e/f"] {
            self.versions += 1;
            let version = self.versions;
            self.actors[0].write(name, version);
            self.actors[1].write(name, version + if self.habits.contents == 0 { 100 } else { 0 });
        }
        self.versions += 200;
        let setup = self.new_process(0, None);
        let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
        let store = Store::new(std::sync::Arc::new(self.shared.store(setup)), "simulated");
        let repository = Repository::create(store, create, OpenOptions::default()).await;
        let repository = repository.map_err(|error| error.to_string())?;
        // Whoever has a cache keeps a head that is emptied one day.
        for actor in [0, 1] {
            let wip_every = Duration::MAX;
            self.finish_at_once(actor, Job::BackUp { exclusive: false, release: false, wip_every }).await?;
        }
        let first = self.shared.lock().ledger.newest().snapshots[0].id;
        for number in 0..self.long_log {
            let tags = [("number".to_owned(), number.to_string())];
            tag(&repository, first, &tags, &[], "setup").await.map_err(|error| error.to_string())?;
        }
        if self.habits.leaves_ends { self.leave_an_end().await } else { Ok(()) }
    }

    /// Of a pack with six files the last two are needed, by a snapshot that is held and no head: a prune moves them.
    async fn leave_an_end(&mut self) -> Result<(), String> {
        let (start, end) = NAMES.split_at(4);
        let mut made = Vec::new();
        for names in [&NAMES[..], start, end, &start[..1], &start[..1]] {
            for name in names {
                self.versions += 1;
                self.actors[0].write(name, self.versions);
            }
            let wip_every = Duration::MAX;
            self.finish_at_once(0, Job::BackUp { exclusive: false, release: false, wip_every }).await?;
            made.extend(self.shared.lock().ledger.newest().head("main").map(|head| head.id));
        }
        let [person, keeper] = [Role::Person, Role::Keeper].map(|role| self.first(role));
        self.finish_at_once(person, Job::Hold(made[1], true)).await?;
        self.finish_at_once(keeper, Job::Forget { last: 1, scope: Scope::All }).await
    }

    /// The first actor with a role.
    fn first(&self, role: Role) -> usize {
        self.actors.iter().position(|actor| actor.role == role).expect("there is one")
    }

    /// Does a job while every request is answered at once; it must succeed.
    async fn finish_at_once(&mut self, actor: usize, job: Job) -> Result<(), String> {
        let process = self.start(actor, job);
        self.until_ended(process).await;
        let error =
            self.shared.lock().processes[process].ended.as_ref().and_then(|ended| Some(ended.error()?.to_string()));
        self.shared.lock().violation.take().map_or(Ok(()), Err)?;
        if let Some(error) = error {
            return Err(format!("an error without trouble: {error}"));
        }
        self.ended(process)
    }

    /// Tells whether any process but this one prunes.
    fn another_prunes(&self, but: Option<usize>) -> bool {
        let hub = self.shared.lock();
        self.running().into_iter().any(|process| Some(process) != but && hub.processes[process].prunes)
    }

    /// Tells whether a prune asks for its commit.
    fn is_about_to_prune(&self) -> bool {
        let hub = self.shared.lock();
        hub.creates(None).into_iter().any(|process| hub.processes[process].prunes)
    }

    fn running(&self) -> Vec<usize> {
        self.actors.iter().filter_map(|actor| actor.running).collect()
    }

    async fn take_step(&mut self) -> Result<(), String> {
        self.step += 1;
        let (waiting, late, is_unsure, creates, is_awake) = {
            let mut hub = self.shared.lock();
            hub.now += self.tick;
            let step = self.step;
            let of = |hub: &super::store::Hub, waiting: &Waiting| hub.processes[waiting.process].stalled_until <= step;
            let waiting = hub.waiting.iter().filter(|waiting| of(&hub, waiting)).count();
            let is_unsure = hub
                .waiting
                .iter()
                .any(|waiting| hub.processes[waiting.process].is_unsure && asks_for_commit(&waiting.request));
            let creates = !hub.creates(None).is_empty();
            let is_awake = !hub.creates(Some(step)).is_empty();
            (waiting, hub.late.len(), is_unsure, creates, is_awake)
        };
        // Only for a hint does a client wait no longer than some seconds: its fate is decided before any time passes.
        let hint = self.shared.lock().hint();
        if hint.is_some() {
            return self.serve(hint).await;
        }
        let is_narrow = creates && self.is_narrow;
        let running = self.running().len();
        let may_start = self.jobs_left > 0 && running < MAX_RUNNING;
        if waiting == 0 && !may_start && late == 0 {
            // Whoever is left was asleep for long.
            for process in &mut self.shared.lock().processes {
                process.stalled_until = 0;
            }
            return Ok(());
        }
        let joins = self.is_narrow && self.is_about_to_prune();
        let weights = [
            (if may_start { if running < 2 || joins { 12 } else { 4 } } else { 0 }, 0),
            (if waiting > 0 { 60 } else { 0 }, 1),
            (
                if late == 0 {
                    0
                } else if is_narrow {
                    10
                } else {
                    3
                },
                2,
            ),
            (if waiting == 0 { 0 } else { usize::from(self.trouble > 20) + 2 * usize::from(is_awake) }, 3),
            (
                if running < 2 || waiting == 0 {
                    0
                } else if is_narrow {
                    10
                } else {
                    1
                },
                4,
            ),
            (if is_unsure { 5 } else { 0 }, 5),
        ];
        let mut at = self.random.below(weights.iter().map(|(weight, _)| weight).sum());
        let chosen = weights.iter().find(|(weight, _)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        match chosen.map(|(_, choice)| *choice) {
            Some(0) => self.start_something().await,
            Some(1) => self.serve(None).await,
            Some(2) => self.land(),
            Some(3) => self.kill_one().await,
            Some(4) => self.stall(),
            _ => self.pass_deadlines().await,
        }
    }

    // Who starts.

    async fn start_something(&mut self) -> Result<(), String> {
        let joins = self.is_narrow && self.is_about_to_prune();
        let weight = |actor: usize| match &self.actors[actor] {
            Actor { running: Some(_), .. } => 0,
            // Two prunes at once: the second looks while the first is about to commit.
            Actor { role: Role::Keeper, .. } if joins => 9 * self.population[actor],
            _ => self.population[actor],
        };
        let idle: Vec<usize> = (0..self.actors.len()).flat_map(|actor| vec![actor; weight(actor)]).collect();
        let tries_again: Vec<usize> = idle.iter().copied().filter(|actor| self.actors[*actor].tries_again).collect();
        // Whoever was cut short tries again soon, before all that it had sent has arrived.
        let soon = !tries_again.is_empty() && self.random.chance(60);
        let actor = *self.random.pick(if soon { &tries_again } else { &idle });
        let Some(job) = self.next_job(actor) else { return Ok(()) };
        self.jobs_left -= 1;
        if matches!(job, Job::Prune { .. }) && self.another_prunes(None) {
            self.count("prunes at once");
        }
        let process = self.start(actor, job);
        self.quiet(process, 0, false).await;
        self.ended(process)
    }

    fn next_job(&mut self, actor: usize) -> Option<Job> {
        let forgets = if self.is_narrow && self.is_about_to_prune() { 15 } else { 45 };
        let random = &mut self.random;
        let tick = Duration::from_millis(u64::try_from(self.tick.as_millis()).ok()?);
        // Without a wait there is a step after each entry.
        let wip_every = *random.pick(&[Duration::MAX, Duration::ZERO, tick * 10]);
        let wip_every = if self.habits.leaves_ends { Duration::MAX } else { wip_every };
        match (self.actors[actor].role, self.actors[actor].stage) {
            (Role::Plain { .. }, _) => {
                self.edit(actor);
                Some(Job::BackUp { exclusive: false, release: false, wip_every })
            }
            (Role::Holder, Stage::Begins) => {
                if random.chance(50) {
                    self.actors[actor].replace_source();
                }
                Some(Job::Claim)
            }
            (Role::Holder, Stage::HasClaimed) => Some(Job::Restore),
            (Role::Holder, Stage::HasRestored) if random.chance(8) => Some(Job::Release),
            (Role::Holder, Stage::HasRestored) => {
                let (exclusive, release) = (random.chance(60), random.chance(20));
                self.edit(actor);
                Some(Job::BackUp { exclusive, release, wip_every })
            }
            (Role::Keeper, _) if random.chance(forgets) => Some(Job::Forget {
                // What is moved is what older snapshots than a head and its parent need.
                last: 1 + random.below(if self.habits.leaves_ends { 4 } else { 2 }) as u32,
                scope: if random.chance(50) { Scope::All } else { Scope::default() },
            }),
            (Role::Keeper, _) => {
                let idle: &[u32] = if self.is_narrow { &[0, 1_000_000] } else { &[0, 0, 0, 5, 20, 60, 1_000_000] };
                let (grace, session_idle) = (tick * *random.pick(&[0, 0, 0, 20]), tick * *random.pick(idle));
                Some(Job::Prune { grace, session_idle })
            }
            (Role::Person, _) => match random.below(10) {
                0 => Some(Job::Promote(self.any_snapshot(true)?)),
                1..4 => {
                    let is_held = self.random.chance(50);
                    Some(Job::Hold(self.any_snapshot(false)?, is_held))
                }
                _ => Some(Job::Read(self.any_snapshot(false)?)),
            },
        }
    }

    fn edit(&mut self, actor: usize) {
        let again = std::mem::take(&mut self.actors[actor].tries_again);
        if !(again && self.random.chance(70)) {
            self.actors[actor].edit(&mut self.random, self.habits, &mut self.versions);
        }
    }

    /// A retained snapshot; `aside`: of a fork, if there is one.
    fn any_snapshot(&mut self, aside: bool) -> Option<SnapshotId> {
        let newest = self.shared.lock().ledger.newest();
        let all: Vec<_> = newest.snapshots.iter().collect();
        let forks: Vec<_> = all.iter().copied().filter(|snapshot| snapshot.onto.is_some()).collect();
        let from = if aside && !forks.is_empty() { forks } else { all };
        (!from.is_empty()).then(|| self.random.pick(&from).id)
    }

    fn new_process(&mut self, actor: usize, job: Option<&Job>) -> usize {
        let doing = job.map_or("sets up", doing);
        let who = &self.actors[actor];
        let mut hub = self.shared.lock();
        let process = hub.processes.len();
        let name = format!("{process} {} {doing}", who.name);
        let writer = Writer {
            process,
            actor,
            name: name.clone(),
            owner: who.owner(),
            receipt: who.last_receipt(),
            content: who.content.clone(),
            cap: self.habits.cap,
            may_repeat: who.has_journal(),
            backs_up: matches!(job, Some(Job::BackUp { .. })),
            ends_by_error: matches!(job, Some(Job::Restore | Job::Read(_))),
        };
        let deletions_before = hub.ledger.deletions;
        hub.processes.push(Process {
            name,
            writer,
            is_alive: true,
            ended: None,
            stalled_until: 0,
            is_unsure: false,
            coming: 0,
            newest_read: 0,
            prunes: matches!(job, Some(Job::Prune { .. })),
            deletions_before,
        });
        process
    }

    fn start(&mut self, actor: usize, job: Job) -> usize {
        let process = self.new_process(actor, Some(&job));
        let (shared, clock) = (self.shared.clone(), SimulatedClock(self.shared.clone()));
        let job = self.actors[actor].job(job, shared.store(process), clock, self.habits);
        self.actors[actor].running = Some(process);
        let mut hub = self.shared.lock();
        let line = format!("{:>4} {} starts", self.step, hub.processes[process].name);
        hub.say(line);
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(job).catch_unwind().await;
            shared.end(process, ended.unwrap_or(Ended::Killed));
        });
        process
    }

    // What becomes of requests.

    /// Decides about one request: that of this process, or of any.
    async fn serve(&mut self, of: Option<usize>) -> Result<(), String> {
        let (waiting, plain) = {
            let mut hub = self.shared.lock();
            let step = self.step;
            let mut processes: Vec<usize> = hub.waiting.iter().map(|waiting| waiting.process).collect();
            processes.retain(|process| hub.processes[*process].stalled_until <= step);
            processes.sort_unstable();
            processes.dedup();
            let process = match of {
                Some(process) => process,
                None => *self.random.pick(&processes),
            };
            let mut of_process: Vec<(String, u64)> = Vec::new();
            for at in 0..hub.waiting.len() {
                if hub.waiting[at].process == process {
                    let (request, number) = (hub.waiting[at].request.clone(), hub.waiting[at].number);
                    of_process.push((hub.describe(&request), number));
                }
            }
            of_process.sort();
            let (plain, number) = self.random.pick(&of_process).clone();
            let at = hub.waiting.iter().position(|waiting| waiting.number == number).expect("it waits");
            (hub.waiting.remove(at), plain)
        };
        self.count("requests");
        let process = waiting.process;
        let fate = self.fate(&waiting);
        let (answer, moves, sleeps, moved) = {
            let mut hub = self.shared.lock();
            if let Request::Write(Write::Create(key, _)) = &waiting.request
                && hub.creates == Creates::Racing
                && !waiting.has_looked
                && !hub.objects.contains(key)
            {
                let line = format!("{:>4} {} {plain}: looked, nothing there", self.step, hub.processes[process].name);
                hub.say(line);
                let mut waiting = waiting;
                waiting.has_looked = true;
                hub.waiting.push(waiting);
                return Ok(());
            }
            let (before, moves_before) = (hub.ledger.commits.len(), hub.ledger.moves);
            let answer = decide(&mut hub, &waiting, fate);
            let shown = match &answer {
                Answer::Failed(error) => short(error),
                _ => "ok".to_owned(),
            };
            let makes = if hub.ledger.commits.len() > before { ", commits" } else { "" };
            let line = format!("{:>4} {} {plain}: {fate:?}, {shown}{makes}", self.step, hub.processes[process].name);
            hub.say(line);
            if is_create(&waiting.request) {
                hub.processes[process].is_unsure = !matches!(answer, Answer::Done);
            }
            let reads_log = matches!(&waiting.request, Request::Get { key, .. } if is_log(key));
            if reads_log && matches!(answer, Answer::Got(_)) {
                hub.processes[process].is_unsure = false;
            }
            let sleeps = reads_log && hub.processes[process].is_unsure;
            let has_others = hub.waiting.iter().any(|other| other.process == process);
            let moves = !has_others || moves_at_once(&waiting.request, &answer);
            (answer, moves, sleeps, hub.ledger.moves > moves_before)
        };
        if moved && self.another_prunes(Some(process)) {
            self.count("moved while another pruned");
        }
        let (since, asked) = (waiting.number, waiting.request.clone());
        let since = self.shared.lock().waiting.iter().map(|other| other.number).max().unwrap_or(0).max(since);
        waiting.answer(answer);
        if moves {
            self.quiet(process, since, sleeps).await;
        }
        if self.is_narrow && !is_create(&asked) {
            self.wait_for_the_other(process);
        }
        self.ended(process)
    }

    /// In a narrow life, a prune that is about to commit stands still until another may have looked, more often than not.
    fn wait_for_the_other(&mut self, process: usize) {
        let mut hub = self.shared.lock();
        let commits = hub.processes[process].prunes && hub.creates(None).contains(&process);
        if commits && self.random.chance(60) {
            hub.processes[process].stalled_until = self.step + 40 + self.random.below(80) as u64;
        }
    }

    fn fate(&mut self, waiting: &Waiting) -> Fate {
        use Fate::{AnswerLost, Done, Exists, Failed, Late, Twice};
        let is_unsure = self.shared.lock().processes[waiting.process].is_unsure;
        let table: &[(usize, Fate)] = match &waiting.request {
            Request::Get { .. } if is_unsure => &[(25, Failed)],
            Request::Get { .. } | Request::List(_) => &[(3, Failed)],
            Request::Write(Write::Create(..)) => &[(14, AnswerLost), (10, Failed), (8, Exists), (14, Late), (6, Twice)],
            Request::Write(Write::Put(key, _)) if is_pack(key) => {
                &[(5, Twice), (3, Failed), (3, AnswerLost), (3, Late)]
            }
            Request::Write(Write::Put(key, _)) if *key == keys::head() => &[(10, Failed), (20, Late), (10, Twice)],
            Request::Write(Write::Put(..)) => &[(2, Failed)],
            Request::Write(Write::Delete(_)) => &[(8, Twice), (4, Failed), (4, AnswerLost), (6, Late)],
        };
        if !self.random.chance(self.trouble) {
            return Done;
        }
        let mut at = self.random.below(100);
        for (percent, fate) in table {
            if at < *percent {
                return *fate;
            }
            at -= percent;
        }
        Done
    }

    fn land(&mut self) -> Result<(), String> {
        let mut hub = self.shared.lock();
        let commits: Vec<usize> =
            hub.late.iter().enumerate().filter(|(_, write)| is_log(write.key())).map(|(at, _)| at).collect();
        let at = match self.is_narrow && !commits.is_empty() {
            true => *self.random.pick(&commits),
            false => self.random.below(hub.late.len()),
        };
        let write = hub.late.remove(at);
        let before = hub.ledger.commits.len();
        hub.write(&write);
        let makes = if hub.ledger.commits.len() > before { ", commits" } else { "" };
        let line = format!("{:>4} late: {}{makes}", self.step, hub.describe(&Request::Write(write)));
        hub.say(line);
        drop(hub);
        self.count(if makes.is_empty() { "writes that were late" } else { "commits that were late" });
        Ok(())
    }

    fn stall(&mut self) -> Result<(), String> {
        let (running, creates) = (self.running(), self.shared.lock().creates(None));
        // Whoever is about to commit may find another world when it wakes up.
        let process = *self.random.pick(if creates.is_empty() { &running } else { &creates });
        let most = *self.random.pick(&[200, 200, 600]);
        let long = 20 + self.random.below(most) as u64;
        let mut hub = self.shared.lock();
        hub.processes[process].stalled_until = self.step + long;
        let line = format!("{:>4} {} sleeps for {long} steps", self.step, hub.processes[process].name);
        hub.say(line);
        Ok(())
    }

    async fn pass_deadlines(&mut self) -> Result<(), String> {
        let line = format!("{:>4} deadlines pass", self.step);
        self.shared.lock().say(line);
        tokio::time::advance(SETTLE_TIME * 2).await;
        Ok(())
    }

    async fn kill_one(&mut self) -> Result<(), String> {
        let running = self.running();
        let creates = self.shared.lock().creates(Some(self.step));
        // Best at the worst of times, and not because it sleeps for long.
        let process = *self.random.pick(if creates.is_empty() { &running } else { &creates });
        self.kill(process).await;
        self.count("killed");
        Ok(())
    }

    /// Ends a process. Its requests in flight are done now, or later, or never.
    async fn kill(&mut self, process: usize) {
        let waiting = {
            let mut hub = self.shared.lock();
            hub.processes[process].is_alive = false;
            let line = format!("{:>4} {} is killed", self.step, hub.processes[process].name);
            hub.say(line);
            hub.take_waiting(process)
        };
        for waiting in waiting {
            self.give_up(&waiting.request);
            waiting.answer(Answer::Killed);
        }
        self.until_ended(process).await;
        let actor = self.actors.iter_mut().find(|actor| actor.running == Some(process)).expect("it ran");
        actor.running = None;
        actor.tries_again = true;
    }

    fn give_up(&mut self, request: &Request) {
        let Request::Write(write) = request else { return };
        let mut hub = self.shared.lock();
        match self.random.below(5) {
            0 => drop(hub.write(write)),
            1..4 => hub.late.push(write.clone()),
            _ => {}
        }
    }

    async fn kill_all(&mut self) {
        for process in self.running() {
            self.kill(process).await;
        }
    }

    // Waiting.

    /// Waits until a process asks for something that it had not asked for before, or has ended.
    async fn quiet(&self, process: usize, since: u64, sleeps: bool) {
        loop {
            if self.shared.lock().is_quiet(process, since) {
                return;
            }
            if sleeps {
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                if !self.shared.lock().is_quiet(process, since) {
                    tokio::time::advance(Duration::from_secs(6)).await;
                }
            } else {
                self.shared.news().await;
            }
        }
    }

    async fn until_ended(&self, process: usize) {
        while self.shared.lock().processes[process].ended.is_none() {
            self.shared.news().await;
        }
    }

    // What must hold of how a process ended.

    fn ended(&mut self, process: usize) -> Result<(), String> {
        let ended = {
            let mut hub = self.shared.lock();
            let Some(ended) = hub.processes[process].ended.take() else { return Ok(()) };
            hub.processes[process].is_alive = false;
            ended
        };
        let left = self.shared.lock().take_waiting(process);
        for waiting in left {
            self.give_up(&waiting.request);
        }
        let kind = ended.error().map(ghostsync_core::Error::kind);
        let at = self.actors.iter().position(|actor| actor.running == Some(process)).expect("it ran");
        let name = {
            let mut hub = self.shared.lock();
            let name = hub.processes[process].name.clone();
            let how = ended.error().map_or_else(|| "well".to_owned(), |error| format!("with {}", error.kind().name()));
            let line = format!("{:>4} {name} ends {how}", self.step);
            hub.say(line);
            name
        };
        self.actors[at].running = None;
        self.actors[at].tries_again = kind.is_some();
        let deleted_meanwhile = {
            let hub = self.shared.lock();
            hub.ledger.deletions > hub.processes[process].deletions_before
        };
        match kind {
            Some(ErrorKind::Corrupt) if !deleted_meanwhile => return Err(format!("{name} takes it for corrupt")),
            // Somebody has promoted it already.
            Some(ErrorKind::Invalid) if matches!(ended, Ended::Change(_)) => {}
            Some(ErrorKind::Internal | ErrorKind::Invalid | ErrorKind::LocalIo) => {
                return Err(format!("{name} fails: {}", ended.error().map(ToString::to_string).unwrap_or_default()));
            }
            Some(ErrorKind::Unknown) => self.count("unknown"),
            Some(ErrorKind::Fenced) => self.count("fenced"),
            _ => {}
        }
        self.outcome(at, process, &ended).map_err(|violation| format!("{violation}: {name}"))?;
        let mut hub = self.shared.lock();
        if kind != Some(ErrorKind::Unknown) {
            hub.ledger.close(|writer| writer.process == process);
        }
        let settles = matches!(&ended, Ended::Backup(Ok(report)) if report.outcome != BackupOutcome::Forked);
        if settles && self.actors[at].has_cache() {
            // I6: with a journal, what an earlier run has sent is settled by the next one.
            hub.ledger.settle(|writer| writer.actor == at && writer.backs_up);
        }
        Ok(())
    }

    /// I3: what was said is what is in the log. I7: what was restored is what was backed up.
    fn outcome(&mut self, at: usize, process: usize, ended: &Ended) -> Result<(), String> {
        let made: Vec<(u64, String)> = {
            let hub = self.shared.lock();
            hub.ledger.commits_of(process).map(|commit| (commit.seq, commit.op["kind"].to_string())).collect()
        };
        let steps = made.iter().filter(|(_, kind)| kind.contains("wip")).count();
        *self.tally.entry("steps").or_default() += steps as u64;
        if self.shared.lock().ledger.sessions_with_packs(process) > 1 + steps {
            self.count("begun anew");
        }
        let made_snapshot = made.iter().any(|(_, kind)| kind.contains("backup") || kind.contains("fork"));
        match ended {
            Ended::Backup(Ok(report)) => {
                let is_in_log = report.snapshot.is_some_and(|id| self.shared.lock().ledger.contents.contains_key(&id));
                if !is_in_log {
                    return Err("I3: the snapshot is not in the log".to_owned());
                }
                match report.outcome {
                    BackupOutcome::Done if !made_snapshot => return Err("I3: done, by no commit".to_owned()),
                    BackupOutcome::Unchanged if made_snapshot => return Err("I3: unchanged, by a commit".to_owned()),
                    _ => {}
                }
                self.count(match report.outcome {
                    BackupOutcome::Done => "backed up",
                    BackupOutcome::Forked => "forked",
                    _ => "unchanged",
                });
                if self.actors[at].role == Role::Holder {
                    let is_released = self.shared.lock().ledger.newest().branches["main"]
                        .holder
                        .as_ref()
                        .is_some_and(|holder| holder.owner == self.actors[at].name && holder.released);
                    if report.outcome == BackupOutcome::Forked || is_released {
                        self.actors[at].stage = Stage::Begins;
                    }
                }
            }
            Ended::Backup(Err(error)) => {
                if error.kind() != ErrorKind::Unknown && made_snapshot {
                    return Err(format!("I3: {error}, but it is in the log"));
                }
                if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Refused) {
                    self.count("refused, or in conflict");
                    if error.kind() == ErrorKind::Refused {
                        // Somebody looks, and puts back what was lost.
                        self.actors[at].take_back();
                        self.actors[at].tries_again = false;
                    }
                    if self.actors[at].role == Role::Holder {
                        self.actors[at].stage = Stage::Begins;
                    }
                }
            }
            Ended::Claim(Ok(claim)) => {
                if !made.iter().any(|(seq, kind)| *seq == claim.epoch && kind.contains("claim")) {
                    return Err("I3: the claim is not in the log".to_owned());
                }
                self.count("claimed");
                self.actors[at].stage = Stage::HasClaimed;
            }
            Ended::Restore(Ok(report)) => {
                let id = report.snapshot.ok_or("a restore of nothing")?;
                let content = self.shared.lock().ledger.contents[&id].clone();
                let is_holder = self.actors[at].role == Role::Holder;
                let directory = if is_holder { self.actors[at].source() } else { self.actors[at].home.join("back") };
                if let Some(difference) = difference(&directory, &content) {
                    return Err(format!("I7: {difference}"));
                }
                self.count("restored");
                if is_holder {
                    self.actors[at].content = content;
                    self.actors[at].stage = Stage::HasRestored;
                }
            }
            Ended::Prune(Ok(report)) => {
                for (what, count) in [("packs draining", report.draining_packs), ("emptied", report.emptied_commits)] {
                    *self.tally.entry(what).or_default() += count;
                }
            }
            Ended::Change(Ok(Some(seq))) if !made.iter().any(|(made, _)| made == seq) => {
                return Err("I3: the change is not in the log".to_owned());
            }
            Ended::Claim(Err(error)) | Ended::Change(Err(error)) | Ended::Prune(Err(error))
                if error.kind() != ErrorKind::Unknown =>
            {
                // A prune may fail after it has committed.
                let is_prune = matches!(ended, Ended::Prune(_));
                if !is_prune && !made.is_empty() {
                    return Err(format!("I3: {error}, but it is in the log"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is still on its way arrives, or never does. Then prunes without trouble delete all garbage (I8), and every
    /// snapshot comes back (I1, I7).
    async fn end(&mut self) -> Result<(), String> {
        while !self.shared.lock().late.is_empty() {
            if self.random.chance(30) {
                self.shared.lock().late.pop();
            } else {
                self.land()?;
            }
        }
        self.shared.lock().is_direct = true;
        let [reader, keeper] = [Role::Person, Role::Keeper].map(|role| self.first(role));
        for _ in 0..3 {
            self.finish_at_once(keeper, Job::Prune { grace: Duration::ZERO, session_idle: Duration::ZERO }).await?;
        }
        let (garbage, snapshots, deletions, moves) = {
            let hub = self.shared.lock();
            let needs = hub.ledger.all_needs();
            let garbage = hub.objects.packs().find(|key| !needs.contains(*key)).cloned();
            (garbage, hub.ledger.newest().snapshots, hub.ledger.deletions, hub.ledger.moves)
        };
        if let Some(garbage) = garbage {
            return Err(format!("I8: {garbage} is garbage, and stays"));
        }
        *self.tally.entry("packs deleted").or_default() += deletions;
        *self.tally.entry("snapshots moved").or_default() += moves;
        for snapshot in snapshots {
            self.finish_at_once(reader, Job::Read(snapshot.id)).await?;
            let back = self.actors[reader].home.join("back");
            fs::remove_dir_all(back).expect("removed");
        }
        Ok(())
    }
}

impl super::store::Hub {
    /// The processes that ask for a commit right now; of those alone that are awake at a step.
    fn creates(&self, awake_at: Option<u64>) -> Vec<usize> {
        let is_awake = |process: &usize| awake_at.is_none_or(|step| self.processes[*process].stalled_until <= step);
        let creates = self.waiting.iter().filter(|waiting| is_create(&waiting.request)).map(|waiting| waiting.process);
        creates.filter(is_awake).collect()
    }

    /// A process that waits for the hint to be written.
    fn hint(&self) -> Option<usize> {
        let is_hint = |request: &Request| matches!(request, Request::Write(write) if *write.key() == keys::head());
        self.waiting.iter().find(|waiting| is_hint(&waiting.request)).map(|waiting| waiting.process)
    }

    fn is_quiet(&self, process: usize, since: u64) -> bool {
        if self.processes[process].ended.is_some() {
            return true;
        }
        let of_process = || self.waiting.iter().filter(|waiting| waiting.process == process);
        // The pack of pages comes right after that of contents: both are in flight then.
        let alone = of_process().count() == 1 && of_process().all(|waiting| is_data_pack(&waiting.request));
        let all_are_there = self.processes[process].coming == 0;
        of_process().any(|waiting| waiting.number > since) && all_are_there && !alone
    }
}

/// Does a request, or not, and says what is said.
fn decide(hub: &mut super::store::Hub, waiting: &Waiting, fate: Fate) -> Answer {
    let failed = || Answer::Failed(generic("timed out"));
    let late = |hub: &mut super::store::Hub| {
        if let Request::Write(write) = &waiting.request {
            hub.late.push(write.clone());
        }
    };
    if let (true, Request::Write(Write::Create(key, bytes))) = (waiting.has_looked, &waiting.request) {
        if let Err(violation) = hub.put(key, bytes) {
            hub.violation.get_or_insert(violation);
        }
        return Answer::Done;
    }
    match fate {
        Fate::Done => hub.apply(&waiting.request),
        Fate::Twice => {
            late(hub);
            hub.apply(&waiting.request)
        }
        Fate::Failed => failed(),
        Fate::Exists => match &waiting.request {
            Request::Write(write) => Answer::Failed(exists(write.key())),
            _ => failed(),
        },
        Fate::AnswerLost => {
            hub.apply(&waiting.request);
            failed()
        }
        Fate::Late => {
            late(hub);
            failed()
        }
    }
}

/// Whether a process goes on although others of its requests are in flight.
fn moves_at_once(request: &Request, answer: &Answer) -> bool {
    let is_right = matches!(answer, Answer::Got(_) | Answer::Done)
        || matches!(answer, Answer::Failed(object_store::Error::NotFound { .. }));
    match request {
        // A prune fetches pages ahead, and asks again for what did not come.
        Request::Get { key, .. } if key.as_ref().ends_with(".meta") => false,
        _ => !is_right,
    }
}

/// A commit is asked for.
fn is_create(request: &Request) -> bool {
    matches!(request, Request::Write(Write::Create(key, _)) if is_log(key))
}

fn short(error: &object_store::Error) -> String {
    match error {
        object_store::Error::NotFound { .. } => "absent".to_owned(),
        object_store::Error::AlreadyExists { .. } => "exists".to_owned(),
        _ => "no answer".to_owned(),
    }
}

fn doing(job: &Job) -> &'static str {
    match job {
        Job::BackUp { release: true, .. } => "backs up and releases",
        Job::BackUp { .. } => "backs up",
        Job::Claim => "claims",
        Job::Release => "releases",
        Job::Restore => "restores",
        Job::Read(_) => "reads",
        Job::Forget { .. } => "forgets",
        Job::Prune { .. } => "prunes",
        Job::Promote(_) => "promotes",
        Job::Hold(..) => "marks a hold",
    }
}
