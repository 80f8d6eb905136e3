//! The app of a pod: writes files and rows of a database at a random pace, and acknowledges each when it is durable.
//! After SIGTERM it takes no requests any more, and goes on writing for a while, with pauses, up to its last words.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Wrong;
use crate::content;
use crate::journal::{Journal, What};
use crate::random::Random;

/// What the app is told.
#[derive(Debug, Clone, Args)]
pub struct AppArgs {
    /// The volume
    #[arg(long)]
    pub dir: PathBuf,
    /// The folder in the volume that this pod writes to
    #[arg(long)]
    pub name: String,
    /// Where what is durable is noted, outside of the volume
    #[arg(long)]
    pub journal: PathBuf,
    /// Where it takes requests, until SIGTERM
    #[arg(long)]
    pub listen: SocketAddr,
    /// Writes per second, on average
    #[arg(long, default_value = "5")]
    pub rate: f64,
    /// The largest file, in KiB; most are small
    #[arg(long, default_value = "64")]
    pub max_kib: u64,
    /// Seconds for which it goes on writing after SIGTERM
    #[arg(long, default_value = "0")]
    pub linger: f64,
    /// The longest pause between two writes after SIGTERM, in seconds
    #[arg(long, default_value = "1")]
    pub linger_pause: f64,
    /// Seed of its chance
    #[arg(long)]
    pub seed: u64,
}

/// Runs it until it has written its last words.
///
/// # Errors
/// Those of the disk, the database and the network.
pub async fn run(args: AppArgs) -> Result<(), Wrong> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(args.listen).await?;
    let is_ending = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_ending);
    let writer = std::thread::spawn(move || write(&args, &told));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            // Whoever asks is answered by the end of the connection.
            accepted = listener.accept() => drop(accepted?),
        }
        if writer.is_finished() {
            break;
        }
    }
    drop(listener);
    is_ending.store(true, Ordering::SeqCst);
    writer.join().map_err(|_| "the writer panicked")?
}

fn write(args: &AppArgs, is_ending: &AtomicBool) -> Result<(), Wrong> {
    let mut writer = Writer::open(args)?;
    while !is_ending.load(Ordering::SeqCst) {
        writer.write_something()?;
        let gap = writer.gap();
        let until = Instant::now() + gap;
        while Instant::now() < until && !is_ending.load(Ordering::SeqCst) {
            std::thread::sleep((until - Instant::now().min(until)).min(Duration::from_millis(20)));
        }
    }
    let until = Instant::now() + Duration::from_secs_f64(args.linger);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        std::thread::sleep(writer.random.between(0.0, args.linger_pause).min(left));
        writer.write_something()?;
        if Instant::now() >= until {
            return Ok(());
        }
    }
}

struct Writer {
    args: AppArgs,
    journal: Journal,
    database: Connection,
    rows: u64,
    versions: BTreeMap<String, u64>,
    random: Random,
    /// Writes that follow each other closely.
    burst: u64,
}

impl Writer {
    fn open(args: &AppArgs) -> Result<Self, Wrong> {
        let folder = args.dir.join(&args.name);
        std::fs::create_dir_all(&folder)?;
        // Another life of the same pod does other things.
        let promised = std::fs::metadata(&args.journal).map_or(0, |journal| journal.len());
        let mut random = Random::new(args.seed.wrapping_add(promised));
        let database = Connection::open(folder.join("notes.db"))?;
        // A database keeps the mode that it was made with, if it is the write-ahead log.
        let mode = if random.percent(50) { "wal" } else { "delete" };
        database.pragma_update(None, "journal_mode", mode)?;
        database.pragma_update(None, "synchronous", "full")?;
        database.execute("create table if not exists notes (number integer primary key, text blob)", ())?;
        let rows = database.query_row("select coalesce(max(number), 0) from notes", (), |row| row.get::<_, i64>(0))?;
        // Those of an earlier life of this pod.
        let mut versions = content::scan(&args.dir)?;
        versions.retain(|name, _| name.starts_with(&format!("{}/", args.name)));
        let journal = Journal::open(&args.journal)?;
        Ok(Self { journal, database, rows: rows.try_into()?, versions, random, burst: 0, args: args.clone() })
    }

    /// The pause before the next write: bursts, and something between them.
    fn gap(&mut self) -> Duration {
        let mean = 1.0 / self.args.rate;
        if self.burst > 0 {
            self.burst -= 1;
            return self.random.between(0.0, mean / 2.0);
        }
        self.burst = self.random.below(8);
        self.random.between(0.0, mean * (self.burst + 2) as f64)
    }

    fn write_something(&mut self) -> Result<(), Wrong> {
        let what = match self.random.below(100) {
            0..20 => self.write_row()?,
            20..40 if !self.versions.is_empty() => self.write_again()?,
            _ => self.write_new()?,
        };
        Ok(self.journal.acknowledge(&what)?)
    }

    fn write_row(&mut self) -> Result<What, Wrong> {
        self.rows += 1;
        let length = 1 + self.random.below(4096);
        let text = self.random.bytes(usize::try_from(length)?);
        self.database.execute("insert into notes values (?1, ?2)", (i64::try_from(self.rows)?, text))?;
        Ok(What::Row(self.rows))
    }

    /// A file that was not there, written in place.
    fn write_new(&mut self) -> Result<What, Wrong> {
        let folder = format!("{}/{}", self.args.name, self.random.below(12));
        std::fs::create_dir_all(self.args.dir.join(&folder))?;
        // No name comes twice: what is written in place would tear what was promised before.
        let name = format!("{folder}/{:016x}", self.random.bits());
        let version = 1;
        let bytes = self.content(&name, version);
        make_durable(&self.args.dir.join(&name), &bytes)?;
        self.versions.insert(name.clone(), version);
        Ok(What::File { name, version })
    }

    /// The next version of a file, put in its place as a whole.
    fn write_again(&mut self) -> Result<What, Wrong> {
        let chosen = self.random.below(self.versions.len() as u64);
        let (name, version) = self.versions.iter_mut().nth(usize::try_from(chosen)?).ok_or("no file")?;
        *version += 1;
        let (name, version) = (name.clone(), *version);
        let bytes = self.content(&name, version);
        let path = self.args.dir.join(&name);
        let temporary = path.with_extension("new");
        make_durable(&temporary, &bytes)?;
        std::fs::rename(&temporary, &path)?;
        sync_folder_of(&path)?;
        Ok(What::File { name, version })
    }

    fn content(&mut self, name: &str, version: u64) -> Vec<u8> {
        let most = if self.random.percent(5) { self.args.max_kib } else { self.args.max_kib.min(32) };
        let length = self.random.below(most * 1024);
        content::encode(name, version, &self.random.bytes(usize::try_from(length).unwrap_or_default()))
    }
}

fn make_durable(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    // In pieces, so that it can be caught half written.
    for piece in bytes.chunks(64 * 1024) {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
