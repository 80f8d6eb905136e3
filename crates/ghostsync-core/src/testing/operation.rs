//! What is asked of a store, as the wrappers of this module tell requests apart.

use object_store::{GetOptions, PutMode};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A write that replaces what is there.
    Put,
    /// A write that must find nothing there.
    Create,
    /// A write that must find a certain version there.
    Update,
    /// A multipart upload that begins.
    Multipart,
    /// A read of a whole object.
    Get,
    /// A read of a part of an object.
    GetRange,
    /// A look at an object's size and date.
    Head,
    /// The deletion of one object.
    Delete,
    /// A listing.
    List,
    /// A copy or a rename within the store.
    Copy,
}

impl Operation {
    pub(super) fn of_put(mode: &PutMode) -> Self {
        match mode {
            PutMode::Overwrite => Self::Put,
            PutMode::Create => Self::Create,
            PutMode::Update(_) => Self::Update,
        }
    }

    pub(super) fn of_get(options: &GetOptions) -> Self {
        match options {
            GetOptions { head: true, .. } => Self::Head,
            GetOptions { range: Some(_), .. } => Self::GetRange,
            _ => Self::Get,
        }
    }
}
