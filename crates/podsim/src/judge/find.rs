//! What the store has when everything is over: the head and the forks, restored and read. What is in quarantine alone
//! counts as lost: nothing that these apps do is to be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{Repository, Selector};
use ghostsync_core::restore::{RestoreOptions, restore};
use rusqlite::Connection;

use crate::Wrong;
use crate::content;
use crate::scenario::Finished;
use crate::setup::{Programs, Setup};

use super::Ended;
use super::verdict::{Fork, Found, Place};

/// What was found, and what should not have been.
pub struct Findings {
    /// What the store has.
    pub found: Found,
    /// Apps that were started before their content was there.
    pub too_early: Vec<String>,
}

/// Reads everything; `folder` is for what is restored.
///
/// # Errors
/// Those of the store and the disk.
pub fn find(finished: &Finished, setup: Setup, programs: &Programs, folder: &Path) -> Result<Findings, Wrong> {
    if setup == Setup::Rclone {
        return Ok(Findings { found: mirrored(finished, programs, folder)?, too_early: Vec::new() });
    }
    finished.runtime.block_on(async {
        let repository = finished.store.open().await?;
        let snapshots = repository.state().await?.commit.snapshots;
        let mut reader = Reader { repository, folder: folder.to_owned(), known: BTreeMap::new() };
        let log: String =
            finished.ended.iter().filter_map(|pod| std::fs::read_to_string(pod.plan.log()).ok()).collect();

        let mut found = Found::default();
        if let Some(head) = snapshots.iter().rfind(|snapshot| snapshot.branch == "main") {
            found.head = reader.read(head).await?.clone();
        }
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.branch.starts_with("fork/")) {
            let place = reader.read(snapshot).await?.clone();
            found.forks.push(Fork { branch: snapshot.branch.clone(), place, is_told: log.contains(&snapshot.branch) });
        }
        let mut too_early = Vec::new();
        for pod in &finished.ended {
            too_early.extend(starts_too_early(pod, &snapshots, &mut reader).await?);
        }
        Ok(Findings { found, too_early })
    })
}

/// The starts of an app that found less than the head that its pod had claimed.
async fn starts_too_early(pod: &Ended, snapshots: &[Snapshot], reader: &mut Reader) -> Result<Vec<String>, Wrong> {
    let mut wrong = Vec::new();
    for (at, files) in &pod.record.app_starts {
        let at = at.as_secs_f64();
        let Some((restored, receipt)) = pod.record.restored.iter().rfind(|(restored, _)| restored.as_secs_f64() <= at)
        else {
            wrong.push(format!("{}: the app was started at {at:.3} without any restore", pod.plan.name));
            continue;
        };
        let Some(receipt) = receipt else {
            wrong.push(format!("{}: the app was started at {at:.3} without a receipt", pod.plan.name));
            continue;
        };
        // Those of this pod that came later began later; those of others that began before were committed before the
        // claim, or never.
        let began_before = |snapshot: &Snapshot| {
            Duration::try_from_secs_f64(snapshot.time.as_nanosecond() as f64 / 1e9).is_ok_and(|time| time <= *restored)
        };
        let head = snapshots.iter().rfind(|snapshot| snapshot.branch == "main" && began_before(snapshot));
        let id = head.map(|head| head.id.to_string());
        let named = receipt["snapshot"].as_str().map(str::to_owned);
        if id != named {
            wrong.push(format!("{}: the app was started at {at:.3} with {named:?}, not {id:?}", pod.plan.name));
        }
        let Some(head) = head else { continue };
        let expected = &reader.read(head).await?.files;
        let missing: Vec<_> =
            expected.iter().filter(|(name, version)| files.get(*name).is_none_or(|found| found < version)).collect();
        if let Some(first) = missing.first() {
            let name = &pod.plan.name;
            wrong.push(format!("{name}: the app was started at {at:.3} without {} files: {first:?}", missing.len()));
        }
    }
    Ok(wrong)
}

struct Reader {
    repository: Repository,
    folder: PathBuf,
    known: BTreeMap<String, Place>,
}

impl Reader {
    async fn read(&mut self, snapshot: &Snapshot) -> Result<&Place, Wrong> {
        let id = snapshot.id.to_string();
        if !self.known.contains_key(&id) {
            let back = self.folder.join(&id[..16]);
            let options = RestoreOptions { snapshot: Selector::Id(id.clone()), ..RestoreOptions::default() };
            let report = restore(&self.repository, &back, options, Arc::new(NoObserver)).await?;
            if report.damaged {
                return Err(format!("snapshot {id} is damaged: {:?}", report.problems).into());
            }
            let place = read_place(&back)?;
            std::fs::remove_dir_all(&back)?;
            self.known.insert(id.clone(), place);
        }
        Ok(&self.known[&id])
    }
}

/// What the mirror has.
fn mirrored(finished: &Finished, programs: &Programs, folder: &Path) -> Result<Found, Wrong> {
    let back = folder.join("mirror");
    let mut command = std::process::Command::new(&programs.rclone);
    command.arg("copy").arg(&finished.store.remote).arg(&back).env_clear().envs(finished.store.rclone_variables());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("rclone copy has failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    std::fs::create_dir_all(&back)?;
    Ok(Found { head: read_place(&back)?, forks: Vec::new() })
}

/// The files and databases of a directory.
fn read_place(folder: &Path) -> Result<Place, Wrong> {
    let mut place = Place { files: content::scan(folder)?, ..Place::default() };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (database, pod) = (entry.path().join("notes.db"), entry.file_name().to_string_lossy().into_owned());
        if !database.exists() {
            continue;
        }
        match rows(&database) {
            Ok(rows) => _ = place.rows.insert(pod, rows),
            Err(_) => _ = place.torn.insert(pod),
        }
    }
    Ok(place)
}

/// The rows of a database that is whole.
fn rows(database: &Path) -> Result<BTreeSet<u64>, Wrong> {
    let database = Connection::open(database)?;
    let checked: String = database.query_row("pragma integrity_check", (), |row| row.get(0))?;
    if checked != "ok" {
        return Err(checked.into());
    }
    let has_table: i64 =
        database.query_row("select count(*) from sqlite_master where name = 'notes'", (), |row| row.get(0))?;
    if has_table == 0 {
        return Ok(BTreeSet::new());
    }
    let mut query = database.prepare("select number from notes")?;
    let numbers = query.query_map((), |row| row.get::<_, i64>(0))?;
    numbers.map(|number| Ok(u64::try_from(number?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_database_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        for pod in ["whole", "torn"] {
            std::fs::create_dir(folder.path().join(pod)).expect("a folder");
            let database = Connection::open(folder.path().join(pod).join("notes.db")).expect("opens");
            database.execute("create table notes (number integer primary key, text blob)", ()).expect("made");
            for number in 1..100 {
                database.execute("insert into notes values (?1, zeroblob(1000))", (number,)).expect("inserted");
            }
        }
        let torn = folder.path().join("torn/notes.db");
        let mut bytes = std::fs::read(&torn).expect("reads");
        bytes[8192..40_000].fill(7);
        std::fs::write(&torn, bytes).expect("written");
        let place = read_place(folder.path()).expect("reads");
        assert_eq!(place.rows["whole"], (1..100).collect());
        assert_eq!((place.rows.len(), place.torn), (1, BTreeSet::from(["torn".to_owned()])));
    }
}
