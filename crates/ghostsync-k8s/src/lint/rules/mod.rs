//! The table of traps, one room for each topic. A rule looks at one pod and changes nothing.

mod identity;
mod order;
mod probes;
mod rollout;
mod settings;
mod shutdown;
mod volumes;

pub(crate) use super::finding::Rule;

/// Every rule, in the order in which findings are told.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    let topics = [
        shutdown::RULES,
        order::RULES,
        probes::RULES,
        volumes::RULES,
        identity::RULES,
        rollout::RULES,
        settings::RULES,
    ];
    topics.into_iter().flatten()
}
