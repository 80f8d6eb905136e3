//! Blocks into packs and up; ranges down, verified.

mod upload;
mod write;

pub(crate) use upload::Uploader;
pub(crate) use write::{DataPacks, MetaPacks, PackNames, SealedBlock};
