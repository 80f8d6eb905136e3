//! Tests of the library through its public face, one module for each theme.

mod backing_up;
mod floors;
mod golden;
mod limits;
mod small_writer;
