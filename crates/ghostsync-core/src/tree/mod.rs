//! Pages as a stream of entries, a stream of entries as pages, and one lock-step merge of two such streams.

mod compare;
mod leaf;
mod pages;
mod read;
mod root;
mod write;

pub(crate) use compare::{AtPath, Merge, Pair};
pub(crate) use leaf::{LeafEntry, Leaves};
pub(crate) use pages::{Access, Pages};
pub(crate) use read::{Ahead, ChunkReader, TreeIter, TreeReader};
pub(crate) use root::refer_to;
pub(crate) use write::{PageStore, TreeWriter, WrittenTree, write_chunk_list};
