//! How the stages of a restore are joined: each takes from a bounded channel and gives to the next.
//!
//! A stage that fails, or is dropped, closes its channels. An end is therefore said in so many words: a channel
//! that closes without it means that a neighbour stopped, and nothing may be concluded from what did not come.

use super::tally::Tally;

/// What goes through a channel between two stages.
#[derive(Debug)]
pub(super) enum Flow<T> {
    /// The next piece of work.
    Next(T),
    /// That was all.
    End,
}

/// How a stage ended that did not fail itself.
#[derive(Debug)]
#[must_use]
pub(super) enum Outcome {
    /// It did everything.
    Done(Tally),
    /// A neighbour stopped; its own error says why.
    CutOff,
}
