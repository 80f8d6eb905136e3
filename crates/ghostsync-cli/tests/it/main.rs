//! Runs the real command on a local store.

mod backup;
mod bad_input;
mod configuration;
mod credentials;
mod damage;
mod doctor;
mod documented;
mod exit_codes;
mod forget;
#[path = "../../../ghostsync-core/tests/it/gcs_stub.rs"]
mod gcs_stub;
mod guards;
#[path = "../../../ghostsync-core/tests/it/http_stub.rs"]
mod http_stub;
mod interrupt;
mod kills;
mod lines;
mod look;
mod marks;
mod printing;
mod prune;
mod races;
mod real_stores;
mod real_stores_races;
mod real_stores_rights;
mod repair;
mod restore;
mod sandbox;
#[path = "../../../ghostsync-core/tests/it/server.rs"]
mod server;
mod stalled;
