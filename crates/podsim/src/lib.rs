//! Pods of real processes on one machine: started, gated, signalled and killed by the kubelet's rules, with an app that
//! writes and remembers what it has promised. What is lost is counted.
//!
//! A run is a seed: [`scenario`] makes pods of a [`setup`] from it and lets something happen to them; [`pod`] runs them
//! as [`kubelet`] says, which is pure; [`judge`] holds what the store has afterwards against what the [`app`]s have
//! acknowledged in their [`journal`]s. [`campaign`] does that many times at once, and makes a table of it.

pub mod app;
pub mod campaign;
pub mod content;
pub mod controls;
pub mod journal;
pub mod judge;
pub mod kubelet;
pub mod pod;
pub mod process;
pub mod proxy;
pub mod random;
pub mod scenario;
pub mod setup;
pub mod store;

/// Whatever went wrong: people read it, nobody acts on it.
pub type Wrong = Box<dyn std::error::Error + Send + Sync>;
