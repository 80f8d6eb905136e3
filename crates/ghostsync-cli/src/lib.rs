//! What the commands `ghostsync` and `ghostsync-k8s` have in common at the edge: where settings come from, what people
//! write after a flag, exit codes, hints, and how an error is told. It promises nothing to anybody else.

pub mod causes;
pub mod exit;
pub mod hint;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod values;
