//! Integration tests: one module for each theme.

mod gcs_stub;
mod real_stores;
mod store_probe;
mod store_requests;
