//! Blocks into packs and up; ranges down, verified.

mod content;
mod copy;
mod encoder;
mod read;
mod recent;
mod upload;
mod write;

pub(crate) use content::{Assembly, Mismatch, Span, write_content};
pub(crate) use copy::ChunkCopies;
pub(crate) use encoder::PageEncoder;
pub(crate) use read::{Block, BlockRef, Damage, FetchError, Run, VerifiedChunks, fetch_run, open_run, runs};
pub(crate) use recent::Recent;
pub(crate) use upload::Uploader;
pub(crate) use write::{Acknowledged, DataPacks, MetaPacks, PackNames, SealedBlock};
