//! What was lost: what the apps have acknowledged, held against what the store has when everything is over.
//!
//! [`verdict`] is pure; [`find`] reads the store.

pub mod find;
pub mod verdict;

use std::time::Duration;

use crate::journal::Ack;
use crate::pod::{PodPlan, Record};

/// How a pod has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the time that it needed: nothing may be lost.
    Graceful,
    /// By a blow at this time: what was acknowledged in the last seconds before may be lost.
    Hard(Duration),
}

/// A pod that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What it was made of.
    pub plan: PodPlan,
    /// What happened in it.
    pub record: Record,
    /// How it ended.
    pub end: End,
    /// What its app has acknowledged.
    pub promised: Vec<Ack>,
}
