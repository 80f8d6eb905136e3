//! Tests of the library through its public face, one module for each theme.

mod floors;
mod golden;
mod limits;
mod small_writer;
