//! Pages as a stream of entries, and one lock-step merge of two such streams.

mod diff;
mod read;

pub use diff::{Change, Difference, diff};
pub(crate) use read::{ChunkReader, Pages, TreeReader};
