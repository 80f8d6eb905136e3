//! What a store's error means: a kind to act on, and a reason that a person understands.
//!
//! Stores say what is wrong in a code inside an XML body, and clouds agree on most of the codes; a status alone does
//! not tell a missing bucket from a missing object, or a wrong clock from a wrong key.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path as Key;

use super::credentials;
use crate::error::{Error, ErrorKind};

const UNAUTHORIZED: &str = "the credentials are missing or not accepted";
const FORBIDDEN: &str = "access denied";

/// What was tried, where, and what the store's answer comes down to.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {object} in {location}: {reason}")]
struct Failure {
    action: &'static str,
    object: String,
    location: String,
    reason: String,
    source: object_store::Error,
}

/// Turns a store's error into one of this library.
pub(super) fn failure(action: &'static str, key: &Key, location: &str, source: object_store::Error) -> Error {
    let (kind, reason) = explain(&source);
    let object = if key.as_ref().is_empty() { "everything".to_owned() } else { key.to_string() };
    Error::new(kind, Failure { action, object, location: location.to_owned(), reason, source })
}

/// Tells whether an error means that this one object is not there. A missing bucket is something else.
pub(super) fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && explain(error).0 == ErrorKind::NotFound
}

/// Names an answer that is no success: what a caller may have asked for in so many words, or the kind of the error.
pub(super) fn code(error: &object_store::Error) -> &'static str {
    use object_store::Error as E;
    match error {
        E::AlreadyExists { .. } => "exists",
        E::Precondition { .. } => "precondition",
        E::NotModified { .. } => "not-modified",
        _ => explain(error).0.name(),
    }
}

/// Tells whether there was no answer at all, or none that means anything: also when asked again.
pub(super) fn is_unreachable(error: &object_store::Error) -> bool {
    explain(error).0 == ErrorKind::Unavailable
}

/// Tells whether a range was asked for that begins behind the object's end.
pub(super) fn is_out_of_range(error: &object_store::Error) -> bool {
    let text = whole_text(error);
    // The first is the answer of every HTTP store (416), the second that of a local one and of memory.
    matches!(error, object_store::Error::Generic { .. })
        && (text.contains("416 Range Not Satisfiable") || text.contains("but object was only"))
}

/// The HTTP status of the answer that an error comes from, if there was one.
pub(super) fn answered_status(error: &object_store::Error) -> Option<u16> {
    status_of(&whole_text(error))
}

/// The text of an error and of everything below it: some clients say what matters above, some below.
fn whole_text(error: &object_store::Error) -> String {
    let mut text = String::new();
    for error in chain(error) {
        text.push_str(&format!("{error}\n"));
    }
    text
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn explain(error: &object_store::Error) -> (ErrorKind, String) {
    use object_store::Error as E;
    let text = whole_text(error);
    let code = code_of(&text);
    if let Some(missing) = credentials::missing(chain(error)) {
        return (ErrorKind::Denied, format!("no credentials from {}: {}", missing.origin, why(error, &text, code)));
    }
    if let Some((kind, reason)) = code.and_then(explain_code) {
        return (kind, format!("{reason} ({})", code.unwrap_or_default()));
    }
    let details = details(&text, code);
    let with_code = |reason: &str| format!("{reason}{details}");
    match error {
        E::NotFound { .. } => (ErrorKind::NotFound, with_code("it is not there")),
        E::PermissionDenied { .. } => (ErrorKind::Denied, with_code(FORBIDDEN)),
        E::Unauthenticated { .. } => (ErrorKind::Denied, with_code(UNAUTHORIZED)),
        E::InvalidPath { .. } => (ErrorKind::Invalid, "there is a name that is not a valid key".to_owned()),
        E::NotSupported { .. } | E::NotImplemented { .. } | E::UnknownConfigurationKey { .. } => {
            (ErrorKind::Invalid, "the store cannot do this".to_owned())
        }
        E::AlreadyExists { .. } => (ErrorKind::Unavailable, with_code("the store says that it exists already")),
        E::Precondition { .. } | E::NotModified { .. } => {
            (ErrorKind::Unavailable, with_code("the store says that a condition does not hold"))
        }
        E::JoinError { .. } => (ErrorKind::Internal, "a task ended early".to_owned()),
        E::Generic { store: "LocalFileSystem", .. } => explain_local(error),
        _ => explain_text(error, &text, &details),
    }
}

/// Why there are no credentials: an answer in short, or the innermost cause.
fn why(error: &object_store::Error, text: &str, code: Option<&str>) -> String {
    if let Some(status) = status_of(text) {
        return format!("the answer was status {status}{}", details(text, code));
    }
    let http = chain(error).find_map(|error| error.downcast_ref::<HttpError>());
    if http.is_some_and(|http| http.kind() == HttpErrorKind::Decode) || text.contains("Invalid AssumeRole") {
        // The text might repeat what was answered, and that might be a secret.
        return "the answer holds none".to_owned();
    }
    innermost(error)
}

/// The cause below all others, in which a person finds more than in what lies between.
fn innermost(error: &object_store::Error) -> String {
    let innermost = chain(error).last().map(ToString::to_string).unwrap_or_default();
    innermost.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The codes of S3, Azure and GCS that need another answer than their HTTP status suggests.
fn explain_code(code: &str) -> Option<(ErrorKind, &'static str)> {
    let denied = |reason| Some((ErrorKind::Denied, reason));
    match code {
        "NoSuchBucket" | "ContainerNotFound" => denied("the bucket does not exist"),
        "InvalidAccessKeyId" | "InvalidClientTokenId" => denied("the store does not know the access key"),
        "SignatureDoesNotMatch" => denied("the signature does not match: the secret key is wrong"),
        "AuthenticationFailed" => denied("the signature was not accepted: the key is wrong, or the clock"),
        "RequestTimeTooSkewed" | "RequestExpired" => {
            denied("this machine's clock differs too much from the store's clock")
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => denied("the credentials have expired"),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            denied("the bucket lies in another region")
        }
        "NotImplemented" => Some((ErrorKind::Invalid, "the store cannot do this")),
        "RequestTimeout" | "SlowDown" | "ServiceUnavailable" | "ServerBusy" | "InternalError" | "OperationAborted" => {
            Some((ErrorKind::Unavailable, "the store is busy or failing"))
        }
        _ => None,
    }
}

/// A failure of a folder of this machine.
fn explain_local(error: &object_store::Error) -> (ErrorKind, String) {
    match chain(error).find_map(|error| error.downcast_ref::<io::Error>()) {
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "permission denied".to_owned()),
        Some(io) if io.kind() == io::ErrorKind::Unsupported => {
            (ErrorKind::Invalid, "its file system cannot do this".to_owned())
        }
        Some(io) => (ErrorKind::Unavailable, io.to_string()),
        None => (ErrorKind::Unavailable, "the folder cannot be used".to_owned()),
    }
}

/// What remains: an error known by its text alone. Everything that may pass is `Unavailable`.
fn explain_text(error: &object_store::Error, text: &str, details: &str) -> (ErrorKind, String) {
    if let Some(status) = status_of(text) {
        return match status {
            300..400 => (ErrorKind::Denied, format!("redirected: wrong endpoint or region{details}")),
            // The client names these two itself, but not where it lists.
            401 => (ErrorKind::Denied, format!("{UNAUTHORIZED}{details}")),
            403 => (ErrorKind::Denied, format!("{FORBIDDEN}{details}")),
            408 | 425 | 429 => (ErrorKind::Unavailable, format!("the store asks to come back later{details}")),
            423 => (ErrorKind::Unavailable, format!("somebody else has it locked{details}")),
            400..=499 | 501 => (ErrorKind::Invalid, format!("the store answered with status {status}{details}")),
            _ => (ErrorKind::Unavailable, format!("the store answered with status {status}{details}")),
        };
    }
    if text.contains("redirect without LOCATION") {
        return (ErrorKind::Denied, "redirected: wrong endpoint or region".to_owned());
    }
    (ErrorKind::Unavailable, format!("the store could not be reached: {}{details}", innermost(error)))
}

/// The code in an XML error body, and what the store says to it, in parentheses: nothing if there is no code.
fn details(text: &str, code: Option<&str>) -> String {
    let Some(code) = code else { return String::new() };
    let message = element(text, "Message").and_then(|message| message.lines().next()).unwrap_or_default();
    let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    if message.is_empty() { format!(" ({code})") } else { format!(" ({code}: {message})") }
}

/// The code in an XML error body, if there is one.
fn code_of(text: &str) -> Option<&str> {
    let code = element(text, "Code")?;
    (code.len() <= 60 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

/// The HTTP status that the client's text names, if there is one.
fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, body: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("Error performing GET http://s in 1ms - Server returned non-2xx status code: {status}: {body}").into()
    }

    fn explain_answer(status: &str, body: &str) -> (ErrorKind, String) {
        let (source, path) = (answer(status, body), "k".to_owned());
        explain(&match status.get(..3) {
            Some("404") => object_store::Error::NotFound { path, source },
            Some("403") => object_store::Error::PermissionDenied { path, source },
            Some("401") => object_store::Error::Unauthenticated { path, source },
            Some("409") => object_store::Error::AlreadyExists { path, source },
            _ => object_store::Error::Generic { store: "S3", source },
        })
    }

    #[test]
    fn answers_of_stores_are_told_apart() {
        use ErrorKind::{Denied, Invalid, NotFound, Unavailable};
        for (status, body, kind, says) in [
            ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>", NotFound, "not there"),
            ("404 Not Found", "", NotFound, "not there"),
            ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>", Denied, "bucket does not exist"),
            ("404 Not Found", "<Error><Code>ContainerNotFound</Code></Error>", Denied, "bucket does not exist"),
            ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>", Denied, "access denied (AccessDenied)"),
            ("403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>", Denied, "access key"),
            ("403 Forbidden", "<Error><Code>SignatureDoesNotMatch</Code></Error>", Denied, "secret key is wrong"),
            ("403 Forbidden", "<Error><Code>RequestTimeTooSkewed</Code></Error>", Denied, "clock"),
            ("403 Forbidden", "", Denied, "access denied"),
            ("403 Forbidden", "<Code>A</Code><Message>No such\u{1b} key\nx</Message>", Denied, "(A: No such key)"),
            ("401 Unauthorized", "", Denied, "credentials"),
            ("400 Bad Request", "<Error><Code>ExpiredToken</Code></Error>", Denied, "expired"),
            ("400 Bad Request", "<Error><Code>RequestTimeout</Code></Error>", Unavailable, "busy"),
            ("400 Bad Request", "<Error><Code>Odd</Code></Error>", Invalid, "status 400 (Odd)"),
            ("301 Moved Permanently", "", Denied, "region"),
            ("409 Conflict", "<Error><Code>OperationAborted</Code></Error>", Unavailable, "busy"),
            ("423 Locked", "", Unavailable, "locked"),
            ("429 Too Many Requests", "", Unavailable, "later"),
            ("501 Not Implemented", "", Invalid, "status 501"),
            ("503 Service Unavailable", "<Error><Code>SlowDown</Code></Error>", Unavailable, "busy"),
            ("500 Internal Server Error", "<html>", Unavailable, "status 500"),
        ] {
            let (found, reason) = explain_answer(status, body);
            assert_eq!(found, kind, "{status} {body}: {reason}");
            assert!(reason.contains(says), "{status} {body}: {reason}");
        }
    }

    /// The client hands a refused listing on as an error of no kind: with a rotated key it passed for a usage error.
    #[test]
    fn a_listing_that_is_denied_is_told_like_any_other_request() {
        for status in ["401 Unauthorized", "403 Forbidden"] {
            let body = "<Error><Code>AccessDenied</Code><Message>Invalid signature</Message></Error>";
            let source = format!("Error performing list request: {}", answer(status, body)).into();
            let listed = explain(&object_store::Error::Generic { store: "S3", source });
            assert_eq!(listed, explain_answer(status, body));
            assert_eq!(listed.0, ErrorKind::Denied);
        }
    }

    #[test]
    fn a_broken_connection_is_unavailable() {
        let error = object_store::Error::Generic { store: "S3", source: "error sending request".into() };
        let error = failure("read", &Key::from("config.json"), "s3://b/p", error);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(
            error.to_string(),
            "cannot read config.json in s3://b/p: the store could not be reached: error sending request"
        );
    }

    #[tokio::test]
    async fn a_folder_that_fails_says_how() {
        use object_store::{ObjectStoreExt, local::LocalFileSystem};

        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("key")).unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let error = store.put(&Key::from("key"), "x".into()).await.unwrap_err();
        let error = failure("write", &Key::from("key"), "/folder", error);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("write key in /folder: Is a directory"), "{error}");
        assert!(error.io_error().is_some());
    }

    #[test]
    fn codes_are_read_from_untrusted_bodies_with_care() {
        assert_eq!(code_of("<Code>A"), None);
        assert_eq!(code_of("<Code>\u{1b}[2J</Code>"), None);
        assert_eq!(status_of("non-2xx status code: 4é"), None);
    }
}
