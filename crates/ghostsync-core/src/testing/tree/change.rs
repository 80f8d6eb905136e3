//! Changes of a tree, made alike to the model and to the directory on disk.

use std::fs;
use std::io;
use std::path::Path;

use proptest::sample::Index;

use super::{Node, NodeKind, Piece, TreeModel, create, describe, on_disk, open_to_change, set_mtime, write_pieces};
use crate::entry::FileTime;
use crate::tree_path::TreePath;

/// Paths of random trees stay below this, so that plain system calls reach them.
const MOST_PATH_BYTES: usize = 3000;

/// One change; an index picks among the nodes of a kind that the tree has when it is made.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names of the fields say it
pub enum Change {
    /// A new entry.
    Add { parent: Index, name: Vec<u8>, node: Node },
    /// Other content, in place: hard links see it too.
    Rewrite { file: Index, pieces: Vec<Piece> },
    /// More content at the end.
    Grow { file: Index, piece: Piece },
    /// Less content; so many percent stay.
    Truncate { file: Index, percent: u8 },
    /// An entry, with everything below it.
    Delete { node: Index },
    /// Another name in the same or another directory, never over what is there.
    Rename { node: Index, parent: Index, name: Vec<u8> },
    /// Another mode.
    Chmod { node: Index, mode: u32 },
    /// Another mtime.
    Touch { node: Index, mtime: FileTime },
    /// Another value of `user.test`.
    Attribute { node: Index, value: Vec<u8> },
    /// Another entry, perhaps of another kind, under the same name.
    Replace { node: Index, by: Node },
    /// Another name of a file.
    Link { file: Index, parent: Index, name: Vec<u8> },
}

/// What a change comes to in a given tree.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Create(TreePath),
    Remove(TreePath),
    Rename(TreePath, TreePath),
    Link(TreePath, TreePath),
    Rewrite(TreePath),
    Grow(TreePath, Piece),
    Truncate(TreePath, u64),
    Describe(TreePath),
    Touch(TreePath, FileTime),
}

/// Makes a change to the model and to the directory that holds the same tree; tells whether there was anything to do.
///
/// # Errors
/// The system's; the model and the directory are out of step then.
pub fn apply(change: &Change, model: &mut TreeModel, directory: &Path) -> io::Result<bool> {
    let steps = change.change(model);
    for step in &steps {
        step.execute(model, directory)?;
    }
    Ok(!steps.is_empty())
}

impl Change {
    /// Changes the model; what is to be done on disk comes back.
    pub(super) fn change(&self, model: &mut TreeModel) -> Vec<Step> {
        self.try_change(model).unwrap_or_default()
    }

    fn try_change(&self, model: &mut TreeModel) -> Option<Vec<Step>> {
        match self {
            Self::Add { parent, name, node } => {
                let path = place(model, *parent, name)?;
                model.insert(path.clone(), node.clone()).then(|| vec![Step::Create(path)])
            }
            Self::Rewrite { file, pieces } => {
                let path = pick(model, *file, is_file)?;
                *changed_pieces(model, &path)? = pieces.clone();
                Some(vec![Step::Rewrite(path)])
            }
            Self::Grow { file, piece } => {
                let path = pick(model, *file, is_file)?;
                changed_pieces(model, &path)?.push(piece.clone());
                Some(vec![Step::Grow(path, piece.clone())])
            }
            Self::Truncate { file, percent } => {
                let path = pick(model, *file, is_file)?;
                let pieces = changed_pieces(model, &path)?;
                let size: u64 = pieces.iter().map(Piece::bytes).sum();
                let kept = size * u64::from(*percent) / 100;
                truncate(pieces, kept);
                Some(vec![Step::Truncate(path, kept)])
            }
            Self::Delete { node } => {
                let path = pick(model, *node, |_| true)?;
                model.remove(&path);
                Some(vec![Step::Remove(path)])
            }
            Self::Rename { node, parent, name } => {
                let from = pick(model, *node, |_| true)?;
                let to = place(model, *parent, name).filter(|to| model.is_free(to) && !to.starts_with(&from))?;
                let moved = |path: &TreePath| {
                    let below = path.as_bytes().get(from.as_bytes().len()..).filter(|_| path.starts_with(&from))?;
                    TreePath::parse([to.as_bytes(), below].concat()).ok()
                };
                let names = std::mem::take(&mut model.names);
                if names.keys().filter_map(moved).any(|path| path.as_bytes().len() >= MOST_PATH_BYTES) {
                    model.names = names;
                    return None;
                }
                model.names = names.into_iter().map(|(path, id)| (moved(&path).unwrap_or(path), id)).collect();
                Some(vec![Step::Rename(from, to)])
            }
            Self::Chmod { node, mode } => {
                let path = pick(model, *node, |node| !matches!(node.kind, NodeKind::Symlink(_)))?;
                model.node_mut(&path)?.mode = *mode;
                Some(vec![Step::Describe(path)])
            }
            Self::Touch { node, mtime } => {
                let path = pick(model, *node, |_| true)?;
                model.node_mut(&path)?.mtime = Some(*mtime);
                Some(vec![Step::Touch(path, *mtime)])
            }
            Self::Attribute { node, value } => {
                let path = pick(model, *node, |node| matches!(node.kind, NodeKind::File(_) | NodeKind::Directory))?;
                model.node_mut(&path)?.attribute = Some(value.clone());
                Some(vec![Step::Describe(path)])
            }
            Self::Replace { node, by } => {
                let path = pick(model, *node, |_| true)?;
                model.remove(&path);
                model.insert(path.clone(), by.clone()).then(|| vec![Step::Remove(path.clone()), Step::Create(path)])
            }
            Self::Link { file, parent, name } => {
                let path = pick(model, *file, is_file)?;
                let name = place(model, *parent, name)?;
                model.link(&path, name.clone()).then(|| vec![Step::Link(path, name)])
            }
        }
    }
}

impl Step {
    fn execute(&self, model: &TreeModel, directory: &Path) -> io::Result<()> {
        let at = |path: &TreePath| on_disk(directory, path);
        let node = |path: &TreePath| model.get(path).ok_or(io::ErrorKind::NotFound);
        match self {
            Self::Create(path) => {
                create(node(path)?, &at(path))?;
                describe(node(path)?, &at(path))
            }
            Self::Remove(path) if fs::symlink_metadata(at(path))?.is_dir() => fs::remove_dir_all(at(path)),
            Self::Remove(path) => fs::remove_file(at(path)),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Link(path, name) => fs::hard_link(at(path), at(name)),
            Self::Rewrite(path) => {
                let mut file = open_to_change(&at(path))?;
                file.set_len(0)?;
                if let NodeKind::File(pieces) = &node(path)?.kind {
                    write_pieces(&mut file, pieces)?;
                }
                describe(node(path)?, &at(path))
            }
            Self::Grow(path, piece) => {
                write_pieces(&mut open_to_change(&at(path))?, std::slice::from_ref(piece))?;
                describe(node(path)?, &at(path))
            }
            Self::Truncate(path, bytes) => {
                open_to_change(&at(path))?.set_len(*bytes)?;
                describe(node(path)?, &at(path))
            }
            Self::Describe(path) => describe(node(path)?, &at(path)),
            Self::Touch(path, mtime) => set_mtime(&at(path), *mtime),
        }
    }
}

impl TreeModel {
    fn node_mut(&mut self, path: &TreePath) -> Option<&mut Node> {
        self.nodes.get_mut(self.names.get(path)?)
    }
}

fn is_file(node: &Node) -> bool {
    matches!(node.kind, NodeKind::File(_))
}

/// The pieces of a file that is about to be written, so that its mtime becomes what the clock says.
fn changed_pieces<'a>(model: &'a mut TreeModel, path: &TreePath) -> Option<&'a mut Vec<Piece>> {
    let node = model.node_mut(path)?;
    node.mtime = None;
    match &mut node.kind {
        NodeKind::File(pieces) => Some(pieces),
        _ => None,
    }
}

fn truncate(pieces: &mut Vec<Piece>, mut kept: u64) {
    pieces.retain_mut(|piece| {
        let keep = piece.bytes().min(kept);
        kept -= keep;
        match piece {
            Piece::Data { bytes, .. } => *bytes = usize::try_from(keep).unwrap_or(*bytes),
            Piece::Hole { bytes } => *bytes = keep,
        }
        keep > 0
    });
}

fn pick(model: &TreeModel, index: Index, kind: impl Fn(&Node) -> bool) -> Option<TreePath> {
    let paths: Vec<_> = model.iter().filter(|(_, node)| kind(node)).map(|(path, _)| path).collect();
    if paths.is_empty() { None } else { Some((*index.get(&paths)).clone()) }
}

/// A new name in one of the directories; not deeper than any system call takes.
fn place(model: &TreeModel, parent: Index, name: &[u8]) -> Option<TreePath> {
    let directories = model.directories();
    parent.get(&directories).join(name).ok().filter(|path| path.as_bytes().len() < MOST_PATH_BYTES)
}
