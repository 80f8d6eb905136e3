//! Tests of the library through its public face, one module for each theme.

mod floors;
