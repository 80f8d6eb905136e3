//! The heartbeat: an address that is asked for after what went well, so that somebody elsewhere hears when it stops.
//!
//! It says that the directory is saved, not that the process lives: nothing is told while passes fail or are refused.
//! That it cannot be told is logged once, and changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostsync_cli::settings::invalid;
use ghostsync_core::{Error, ErrorKind, Result};
use hyper::Request;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector};
use url::Url;

use crate::log;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address, and when it was asked for last.
#[derive(Debug)]
pub(crate) struct HeartbeatUrl {
    url: Url,
    client: HttpClient,
    every: Duration,
    last: Option<Duration>,
    /// It failed the last time, and that was said.
    is_failing: Arc<AtomicBool>,
}

impl HeartbeatUrl {
    /// One that is asked for so often at most.
    ///
    /// # Errors
    /// `Invalid` for an address that is none.
    pub(crate) fn new(url: &str, every: Duration) -> Result<Self> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // What cannot be used is not shown: the path of such an address is often its only secret.
        let url = parsed.ok_or_else(|| invalid("the heartbeat is no http or https address"))?;
        let options = ClientOptions::new().with_allow_http(true).with_timeout(PATIENCE).with_connect_timeout(PATIENCE);
        let client = ReqwestConnector::default().connect(&options);
        let client = client.map_err(|error| Error::new(ErrorKind::Internal, error))?;
        Ok(Self { url, client, every, last: None, is_failing: Arc::default() })
    }

    /// Asks for the address beside the caller, if the last time was long enough ago.
    pub(crate) fn beat(&mut self, now: Duration) {
        if self.last.is_some_and(|last| now < last + self.every) {
            return;
        }
        self.last = Some(now);
        let (url, client, is_failing) = (self.url.clone(), self.client.clone(), Arc::clone(&self.is_failing));
        tokio::spawn(async move {
            let asked = ask(&client, &url).await;
            let was_failing = is_failing.swap(asked.is_err(), Ordering::Relaxed);
            match asked {
                Err(why) if !was_failing => {
                    let host = url.host_str().unwrap_or_default();
                    log::warn(&format!("cannot tell the heartbeat to {host}: {why}; said once"));
                }
                Ok(()) if was_failing => log::info("the heartbeat is told again"),
                _ => {}
            }
        });
    }
}

async fn ask(client: &HttpClient, url: &Url) -> std::result::Result<(), String> {
    let request = Request::get(url.as_str()).body(HttpRequestBody::empty()).map_err(|error| error.to_string())?;
    // The error's causes may name the address.
    let answer = client.execute(request).await.map_err(|error| format!("{:?}", error.kind()).to_lowercase())?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("answered {}", status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told_at_the_start_without_its_secret() {
        for url in ["hc.example/secret", "ftp://hc.example/secret", "https://", "secret"] {
            let error = HeartbeatUrl::new(url, Duration::ZERO).expect_err("is none");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(HeartbeatUrl::new("https://hc.example/secret", Duration::ZERO).is_ok());
    }
}
