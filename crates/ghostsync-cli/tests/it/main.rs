//! Runs the real command on a local store.

mod backup;
mod bad_input;
mod configuration;
mod exit_codes;
mod forget;
mod interrupt;
mod kills;
mod look;
mod marks;
mod printing;
mod restore;
mod sandbox;
