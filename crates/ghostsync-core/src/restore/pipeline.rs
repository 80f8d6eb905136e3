//! The stages of a restore, joined: the tree is read and blocks are fetched asynchronously, the scouts, the walk and
//! the writing have threads of their own.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::destination::Directory;
use super::fetch::Fetcher;
use super::flow::{Flow, Outcome};
use super::plan::{FromTree, Planner, Rules, Survey};
use super::scout::{SCOUTS, Scout};
use super::selection::{SelectedEntries, Selection};
use super::tally::Tally;
use super::write::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::store::Store;
use crate::tree::Pages;

/// Pages of a tree, and lists of tasks, that wait for the next stage.
const WAITING: usize = 2;

/// Pages that a scout may be ahead of the next: what they look at takes now longer, now shorter.
const BEHIND_SCOUTS: usize = 4;

/// What is restored, and from where.
pub(super) struct Pipeline {
    pub(super) store: Store,
    pub(super) pages: Arc<Pages>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) selection: Selection,
    pub(super) keep_going: bool,
    pub(super) interrupt: Interrupt,
    pub(super) observer: Arc<dyn Observer>,
}

impl Pipeline {
    /// Makes sure that every path that is asked for is in the snapshot.
    pub(super) async fn check_includes(&self) -> Result<()> {
        self.entries().check().await
    }

    fn entries(&self) -> SelectedEntries {
        SelectedEntries::new(&self.pages, &self.snapshot, &self.selection)
    }

    /// Walks without changing anything.
    pub(super) async fn survey(&self, rules: Rules, destination: Option<Arc<Directory>>) -> Result<(Survey, Tally)> {
        let (to_scouts, from_tree) = mpsc::channel(WAITING);
        let deletes = rules.delete;
        let (scouts, scouted) = self.send_scouts(destination.as_ref(), from_tree);
        let walk = spawn_blocking(move || Planner::new(rules, destination).survey(scouted));
        let (tree, _, walked) = futures::join!(self.read_tree(to_scouts, deletes), join_all(scouts), walk);
        match (tree?, joined(walked)?) {
            (Outcome::Done(_), Some(found)) => Ok(found),
            _ => Err(cut_off()),
        }
    }

    /// Makes the destination equal to what is selected of the snapshot.
    pub(super) async fn act(&self, rules: Rules, destination: &Arc<Directory>) -> Result<Tally> {
        let (to_scouts, from_tree) = mpsc::channel(WAITING);
        let (to_fetch, tasks) = mpsc::channel(WAITING);
        let (to_write, windows) = mpsc::channel(1);
        let deletes = rules.delete;
        let writer =
            Writer::new(rules.user.clone(), self.keep_going, self.interrupt.clone(), Arc::clone(&self.observer));
        let fetcher = Fetcher::new(
            self.store.clone(),
            Arc::clone(&self.pages),
            self.interrupt.clone(),
            Arc::clone(&self.observer),
        );
        let (scouts, scouted) = self.send_scouts(Some(destination), from_tree);
        let planner = Planner::new(rules, Some(Arc::clone(destination)));
        let walk = spawn_blocking(move || planner.act(scouted, &to_fetch));
        let write = spawn_blocking(move || writer.run(windows));
        // All are waited for, so that nobody writes any more when this returns.
        let (tree, _, walked, fetched, written) = futures::join!(
            self.read_tree(to_scouts, deletes),
            join_all(scouts),
            walk,
            fetcher.run(tasks, to_write),
            write
        );
        let mut tally = Tally::default();
        for outcome in [tree, joined(walked), fetched, joined(written)].into_iter().collect::<Result<Vec<_>>>()? {
            match outcome {
                Outcome::Done(stage) => tally.add(stage),
                Outcome::CutOff => return Err(cut_off()),
            }
        }
        Ok(tally)
    }

    /// Lets what comes from the tree go by one scout after the other. They only ever help: if one is cut off, so is the
    /// walk behind it, and the walk says so.
    fn send_scouts(
        &self,
        destination: Option<&Arc<Directory>>,
        from_tree: mpsc::Receiver<Flow<FromTree>>,
    ) -> (Vec<JoinHandle<()>>, mpsc::Receiver<Flow<FromTree>>) {
        let mut news = from_tree;
        let mut scouts = Vec::new();
        for number in 0..SCOUTS {
            let scout = Scout::new(number, self.selection.clone(), destination);
            let (to_next, next) = mpsc::channel(BEHIND_SCOUTS);
            let before = std::mem::replace(&mut news, next);
            scouts.push(spawn_blocking(move || scout.run(before, &to_next)));
        }
        (scouts, news)
    }

    async fn read_tree(&self, to_scouts: mpsc::Sender<Flow<FromTree>>, deletes: bool) -> Result<Outcome> {
        let mut entries = self.entries();
        loop {
            let news = match self.interrupt.unless_set(entries.next()).await {
                Ok(Some(page)) => FromTree::Entries(page),
                Ok(None) => break,
                // What is lost with a page must not be taken for something that the snapshot lacks.
                Err(error) if self.keep_going && !deletes && is_damage(&error) => FromTree::Lost(error.to_string()),
                Err(error) => return Err(error),
            };
            if to_scouts.send(Flow::Next(news)).await.is_err() {
                return Ok(Outcome::CutOff);
            }
        }
        Ok(match to_scouts.send(Flow::End).await {
            Ok(()) => Outcome::Done(Tally::default()),
            Err(_) => Outcome::CutOff,
        })
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|error| Error::internal(format!("a stage of the restore ended badly: {error}")))?
}

fn cut_off() -> Error {
    Error::internal("a stage of the restore stopped without an error")
}
