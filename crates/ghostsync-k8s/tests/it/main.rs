//! The program as a pod runs it: real processes, a repository in a folder. Each test is named after the trap that it is
//! about.

mod configuration;
mod documented;
mod ending;
mod following;
mod full_disk;
mod heartbeat;
mod in_process;
mod lint;
mod lint_command;
mod overlap;
mod packaging;
mod pod;
mod probes;
mod real_ghost;
mod restoring;
mod trouble;
