//! Runs the real command on a local store.

mod backup;
mod bad_input;
mod configuration;
mod exit_codes;
mod interrupt;
mod kills;
mod look;
mod marks;
mod printing;
mod prune;
mod restore;
mod sandbox;
