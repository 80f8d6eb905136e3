//! An error as one message, with everything below it.

use std::error::Error as _;

use ghostsync_core::{Error, ErrorKind};

/// The whole message: what failed, and every cause below it.
#[must_use]
pub fn with_causes(error: &Error) -> String {
    let mut message = error.to_string();
    if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable) {
        // What the store said, or why it did not, is in the message; below it are only the raw answer and its request.
        return message;
    }
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries print their source themselves; said once is enough.
        if !message.ends_with(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        next = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let io = std::io::Error::other("no space");
        assert_eq!(with_causes(&Error::new(ErrorKind::LocalIo, io)), "no space");
    }
}
