//! Runs the real command on a local store.

mod backup;
mod configuration;
mod exit_codes;
mod interrupt;
mod look;
mod marks;
mod printing;
mod restore;
mod sandbox;
