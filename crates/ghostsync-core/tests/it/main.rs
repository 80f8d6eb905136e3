//! Tests of the library through its public face, one module for each theme.

#![allow(clippy::disallowed_methods, reason = "tests choose their own places and settings")]

mod backing_up;
mod cutting;
mod decoders;
mod floors;
mod golden;
mod limits;
mod recover_by_hand;
mod small_writer;
