//! A stub of Google Cloud Storage: the few requests of its XML interface that the client makes, on loopback.
//!
//! It is our own reading of the documentation and proves nothing about Google's servers. It shows that a `gs://` URL
//! becomes the right requests, with the condition that a create needs, and that the answers are understood.
#![allow(dead_code, reason = "each of two test programs uses a part")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use crate::http_stub::{Answer, Asked, HttpStub};

pub(crate) const BUCKET: &str = "stubbed";

/// The objects of a stub.
type Objects = Mutex<BTreeMap<String, Vec<u8>>>;

impl Asked {
    /// The object's key; empty for a listing.
    pub(crate) fn key(&self) -> &str {
        self.path.trim_start_matches('/').strip_prefix(BUCKET).expect("the bucket").trim_start_matches('/')
    }

    /// Whether it is a write that must find nothing there.
    pub(crate) fn creates(&self) -> bool {
        self.method == "PUT" && self.header("x-goog-if-generation-match").is_some_and(|generation| generation == "0")
    }
}

/// What a stub does with a request.
pub(crate) enum Deed {
    /// Answers as a store does.
    Answer,
    /// Answers so, a number of bytes each second.
    AnswerSlowly(usize),
    /// Answers so, but the connection breaks after that much of the body.
    BreakAfter(usize),
    /// Answers with an error: a status and a body.
    Refuse(u16, &'static str),
    /// Never answers.
    Stall,
}

/// A running stub, which ends when it is dropped.
pub(crate) struct GcsStub {
    http: HttpStub,
    objects: Arc<Objects>,
}

impl GcsStub {
    pub(crate) fn start() -> Self {
        Self::doing(|_| Deed::Answer)
    }

    pub(crate) fn doing(deed: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Self {
        let objects = Arc::new(Objects::default());
        let shared = Arc::clone(&objects);
        let http = HttpStub::start(move |asked| match deed(asked) {
            Deed::Answer => Some(answer(&shared, asked)),
            Deed::AnswerSlowly(speed) => Some(Answer { bytes_per_second: Some(speed), ..answer(&shared, asked) }),
            Deed::BreakAfter(length) => Some(Answer { breaks_after: Some(length), ..answer(&shared, asked) }),
            Deed::Refuse(status, body) => Some(Answer::new(status, body)),
            Deed::Stall => None,
        });
        Self { http, objects }
    }

    /// The variables that reach this stub and nothing else.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let key = serde_json::json!({
            "gcs_base_url": "", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": "",
        });
        let variables = [("GOOGLE_BASE_URL", self.http.url()), ("GOOGLE_SERVICE_ACCOUNT_KEY", key.to_string())];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.http.asked()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }
}

fn answer(objects: &Objects, asked: &Asked) -> Answer {
    let mut objects = objects.lock().unwrap();
    match (asked.method.as_str(), asked.key()) {
        ("GET", "") => list(&objects, &asked.query),
        ("GET" | "HEAD", key) => match objects.get(key) {
            Some(content) => read(content, asked.header("range")),
            None => Answer::error(404, "NoSuchKey"),
        },
        ("PUT", key) if asked.creates() && objects.contains_key(key) => Answer::error(412, "PreconditionFailed"),
        ("PUT", key) => {
            let headers = vec![("etag", etag(&asked.body))];
            objects.insert(key.to_owned(), asked.body.clone());
            Answer { headers, ..Answer::new(200, "") }
        }
        ("DELETE", key) => match objects.remove(key) {
            Some(_) => Answer::new(204, ""),
            None => Answer::error(404, "NoSuchKey"),
        },
        _ => Answer::error(405, "MethodNotAllowed"),
    }
}

fn etag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

fn read(content: &[u8], range: Option<&str>) -> Answer {
    let mut headers = vec![("etag", etag(content)), ("last-modified", "Tue, 03 Nov 2026 08:00:00 GMT".to_owned())];
    let Some(range) = range else {
        return Answer { headers, ..Answer::new(200, content) };
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if first >= content.len() {
        return Answer::error(416, "InvalidRange");
    }
    let last = last.min(content.len() - 1);
    headers.push(("content-range", format!("bytes {first}-{last}/{}", content.len())));
    Answer { headers, ..Answer::new(206, &content[first..=last]) }
}

/// Pages of 500, so that a listing has several.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &BTreeMap<String, String>) -> Answer {
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let after = value("continuation-token").to_owned();
    let begin = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
    let found: Vec<_> = objects
        .range((begin, Bound::Unbounded))
        .filter(|(key, _)| key.starts_with(value("prefix")))
        .take(501)
        .collect();
    let mut body = "<?xml version='1.0'?><ListBucketResult>".to_owned();
    for (key, content) in found.iter().take(500) {
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-03T08:00:00.000Z</LastModified></Contents>",
            content.len()
        ));
    }
    if found.len() > 500 {
        body.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", found[499].0));
    }
    body.push_str("</ListBucketResult>");
    Answer::new(200, body)
}
