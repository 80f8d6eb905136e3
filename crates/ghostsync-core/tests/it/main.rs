//! Tests of the library through its public face, one module for each theme.

// Tests bring the places, the settings and the messages that the library is not to take for itself.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::type_complexity)]

mod backing_up;
mod claims;
mod cutting;
mod damage;
mod decoders;
mod detecting;
mod ending;
mod faults;
mod floors;
mod forgetting;
mod frozen;
mod gcs_stub;
mod golden;
mod guards;
mod horrors;
mod hostile_logs;
mod hostile_pages;
mod hostile_snapshots;
mod http_stub;
mod interrupts;
mod limits;
mod pruning;
mod real_stores;
mod receipts;
mod recover_by_hand;
mod repairing;
mod requests;
mod restoring;
mod resuming;
mod server;
mod simulation;
mod small_writer;
mod state_machine;
mod steps;
mod store_probe;
mod store_requests;
