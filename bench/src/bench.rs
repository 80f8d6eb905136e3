//! What all scenarios share: where things lie, and how one command is measured.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Outcome, Tried};
use crate::machine::{self, Machine};
use crate::measure::{Stopwatch, shown};
use crate::peers::{LOCAL, Peer, Place, Repository, Step, version_of};
use crate::results::{Campaign, Key, Medium, Sample};
use crate::store::{Bucket, Store};
use crate::walk::{Kind, stored_bytes, walk};

/// Memory that is left for programs.
const SPARE_BYTES: u64 = 4 << 30;

/// What an entry takes of a file system in memory besides its content, about.
const ENTRY_BYTES: u64 = 2 << 10;

/// What most programs here take for themselves.
const PROGRAM_BYTES: u64 = 128 << 20;

/// The settings of all campaigns.
pub struct Bench {
    pub project: PathBuf,
    pub ghostsync: PathBuf,
    pub tmpfs: PathBuf,
    pub disk: PathBuf,
    pub results: PathBuf,
    pub runs: u32,
    pub scale: f64,
    pub limit_seconds: u64,
}

/// One campaign's folder, emptied before and removed after it.
pub struct Workplace {
    pub folder: PathBuf,
    medium: Medium,
    stopwatch: Stopwatch,
}

impl Bench {
    /// An empty folder on `medium`.
    pub fn workplace(&self, medium: Medium) -> Outcome<Workplace> {
        let parent = if medium == Medium::Tmpfs { &self.tmpfs } else { &self.disk };
        fs::create_dir_all(parent).on("create the folder", parent)?;
        let folder = parent.canonicalize().on("find", parent)?.join("work");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).on("create the folder", &folder)?;
        let stopwatch = Stopwatch { folder: folder.clone(), limit_seconds: self.limit_seconds };
        Ok(Workplace { folder, medium, stopwatch })
    }

    /// A campaign without samples yet; says so if the machine is busy.
    pub fn campaign(&self, key: Key, source: &Path, workplace: &Workplace, peers: &[&dyn Peer]) -> Outcome<Campaign> {
        let load_before = machine::load()?;
        let machine = Machine::look(key.medium, &workplace.folder)?;
        if load_before > 0.5 {
            eprintln!("bench: the machine is not quiet (load {load_before}): the figures will not be worth much");
        }
        let found = walk(source)?;
        let mut versions = std::collections::BTreeMap::new();
        for peer in peers.iter().filter(|peer| peer.name() != LOCAL) {
            versions.insert(peer.name().to_owned(), version_of(*peer)?);
        }
        if let Some(version) = versions.get_mut("ghostsync") {
            version.push_str(&format!(" ({})", self.commit()));
        }
        Ok(Campaign {
            key,
            scale: self.scale,
            finished: String::new(),
            machine,
            load_before,
            entries: found.len() as u64,
            bytes: found.iter().filter(|found| found.kind == Kind::File).map(|found| found.size_bytes).sum(),
            versions,
            lost: std::collections::BTreeMap::new(),
            samples: Vec::new(),
        })
    }

    /// The commit that is measured, and whether the checkout differs from it.
    fn commit(&self) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.project).args(["describe", "--always", "--dirty", "--exclude=*"]);
        match git.output() {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            _ => "no git".to_owned(),
        }
    }
}

impl Workplace {
    /// Places for a peer: in `folder` of this workplace, or in `bucket`.
    pub fn place(&self, source: &Path, name: &str, bucket: Option<&Bucket>) -> Outcome<Place> {
        let folder = self.folder.join(name);
        let place = Place {
            source: source.to_owned(),
            repository: match bucket {
                None => Repository::Folder(folder.join("repository")),
                Some(bucket) => Repository::Bucket(bucket.clone(), name.to_owned()),
            },
            target: folder.join("restored"),
            homes: folder.join("homes"),
        };
        for step in [Step::First, Step::Restore] {
            fs::create_dir_all(place.home(step)).on("create the folder", &folder)?;
        }
        Ok(place)
    }

    /// Removes everything of a peer.
    pub fn clear(&self, name: &str) -> Outcome<()> {
        let folder = self.folder.join(name);
        fs::remove_dir_all(&folder).on("remove", &folder)
    }

    /// Runs a command that is not measured for the report.
    pub fn run(&self, command: &Command) -> Outcome<()> {
        self.stopwatch.run(command).map(drop)
    }

    /// Measures `step` of `peer`, if it can do that.
    pub fn measure(
        &self,
        peer: &dyn Peer,
        step: Step,
        place: &Place,
        store: Option<&Store>,
    ) -> Outcome<Option<Sample>> {
        let Some(command) = peer.command(step, place) else { return Ok(None) };
        let store = store.filter(|_| matches!(place.repository, Repository::Bucket(..)));
        self.level(step, place)?;
        if let Some(store) = store {
            store.line.take_traffic();
        }
        let (taken, printed) = self.stopwatch.run(&command)?;
        let traffic = store.map(|store| store.line.take_traffic());
        let stored_bytes = match &place.repository {
            Repository::Folder(folder) => Some(stored_bytes(folder)?),
            Repository::Bucket(..) => None,
        };
        eprintln!("bench: {:>8.3} s  {:<15} {:<16} {}", taken.seconds, peer.name(), step.title(), shown(&command));
        Ok(Some(Sample {
            series: peer.name().to_owned(),
            step,
            run: 0,
            requests: traffic.as_ref().map(|traffic| traffic.requests).or_else(|| peer.requests(&printed)),
            taken,
            stored_bytes,
            traffic,
        }))
    }

    /// The same ground for everybody: nothing left to write from what ran before, everything that is read in memory, and
    /// memory to write to.
    fn level(&self, step: Step, place: &Place) -> Outcome<()> {
        if self.medium == Medium::Tmpfs {
            return self.touch_memory(&place.source);
        }
        rustix::fs::sync();
        match &place.repository {
            Repository::Folder(folder) if step.restores() => warm(folder),
            Repository::Bucket(..) if step.restores() => Ok(()),
            _ => warm(&place.source),
        }
    }

    /// Writes to as much memory as a copy of a tree takes, and frees it: the host of a virtual machine hands memory out
    /// when it is written to, and takes back what has been free for a while. Whoever comes next would pay for that.
    fn touch_memory(&self, source: &Path) -> Outcome<()> {
        let found = walk(source)?;
        let pages: u64 = found.iter().map(|found| found.size_bytes.next_multiple_of(4096)).sum();
        let wanted = pages + ENTRY_BYTES * found.len() as u64 + PROGRAM_BYTES;
        let most = wanted.min(machine::available_bytes()?.saturating_sub(SPARE_BYTES));
        let path = self.folder.join("touched");
        let mut file = fs::File::create(&path).on("create", &path)?;
        let piece = vec![1; 1 << 20];
        for _ in 0..most / piece.len() as u64 {
            file.write_all(&piece).on("write", &path)?;
        }
        fs::remove_file(&path).on("remove", &path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Reads everything below `root`, or the file `root`.
fn warm(root: &Path) -> Outcome<()> {
    if root.is_file() {
        return read(root);
    }
    for found in walk(root)? {
        if found.kind == Kind::File {
            read(&root.join(found.path))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Outcome<()> {
    let mut file = fs::File::open(path).on("open", path)?;
    std::io::copy(&mut file, &mut std::io::sink()).on("read", path).map(drop)
}

/// The peers of these names.
pub fn named<'a>(all: &'a [Box<dyn Peer>], names: &[String]) -> Outcome<Vec<&'a dyn Peer>> {
    let find = |name: &String| {
        let found = all.iter().find(|peer| peer.name() == name).map(AsRef::as_ref);
        found.ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|peer| peer.name()).collect();
            Failure::new(format!("no peer is called {name}; there are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// Now, as the results say it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
