//! Pages as a stream of entries, and one lock-step merge of two such streams.

mod read;

pub(crate) use read::{ChunkReader, Pages, TreeReader};
