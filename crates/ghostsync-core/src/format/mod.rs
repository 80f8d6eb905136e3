//! Bytes to types and back, without I/O: what a repository stores.
//!
//! Every decoder takes untrusted bytes: it checks every length against a limit before it allocates, never
//! panics, and returns a typed value or an error that says what is wrong. `docs/format.md` is the contract.

pub mod commit;
pub mod config;
pub mod frame;
pub mod pack;
pub mod page;
pub(crate) mod pieces;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The version of the repository format that this library writes.
pub const FORMAT: u32 = 1;

/// Bytes from a store that are not what the format says.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not a whole zstd frame.
    #[error("not a valid zstd frame of a {what}")]
    Frame {
        /// What was expected.
        what: &'static str,
        /// What the decoder said.
        source: std::io::Error,
    },
    /// A length is over its limit.
    #[error("{what} is over its limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not the JSON that the format asks for.
    #[error("not a valid {what}")]
    Json {
        /// What was expected.
        what: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Well-formed, but it breaks a rule of the format.
    #[error("{what}: {rule}")]
    Rule {
        /// What was decoded.
        what: &'static str,
        /// Which rule it breaks.
        rule: String,
    },
    /// A newer format, or a feature that this version does not know.
    #[error("{0}")]
    Unsupported(String),
}

impl FormatError {
    pub(crate) fn rule(what: &'static str, rule: impl Into<String>) -> Self {
        Self::Rule { what, rule: rule.into() }
    }
}

impl From<FormatError> for crate::error::Error {
    fn from(error: FormatError) -> Self {
        let kind = match error {
            FormatError::Unsupported(_) => crate::error::ErrorKind::Unsupported,
            _ => crate::error::ErrorKind::Corrupt,
        };
        Self::new(kind, error)
    }
}

/// Splits bytes into the pair of fields that store them: text if they are UTF-8, base64 otherwise.
pub(crate) fn to_text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Joins the pair of fields again; exactly one of them must be there, and base64 only where text cannot be.
pub(crate) fn from_text_or_base64(
    what: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, FormatError> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            let bytes = from_base64(what, &base64)?;
            if std::str::from_utf8(&bytes).is_ok() {
                return Err(FormatError::rule(what, "UTF-8 stored as base64"));
            }
            Ok(bytes)
        }
        _ => Err(FormatError::rule(what, "needs exactly one of the text and the base64 field")),
    }
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(what: &'static str, text: &str) -> Result<Vec<u8>, FormatError> {
    STANDARD.decode(text).map_err(|error| FormatError::rule(what, format!("bad base64: {error}")))
}

/// Serialises with sorted keys and without white space, so that equal values are equal bytes.
pub(crate) fn canonical_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    // Objects are sorted maps, unless some other crate of the program asks serde_json to preserve their order.
    value.sort_all_objects();
    serde_json::to_vec(&value)
}
