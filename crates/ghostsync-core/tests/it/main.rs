//! Tests of the library through its public face, one module for each theme.

mod backing_up;
mod cutting;
mod decoders;
mod floors;
mod gcs_stub;
mod golden;
mod hostile_snapshots;
mod limits;
mod real_stores;
mod recover_by_hand;
mod restoring;
mod small_writer;
mod store_probe;
mod store_requests;
