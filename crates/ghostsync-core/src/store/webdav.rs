//! WebDAV: an address and variables into clients, and a first write into a new folder that several make at once.
//!
//! A WebDAV server has folders, and they are made when a write finds that they are missing. Of several writers that
//! find so at the same time, one makes the folder, and the others are told that it is there; they just write again.
//! There is no way to create an object at most once, so only the commit mode `detect` is possible.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, CopyOptions, GetOptions, GetResult, HeaderMap, HeaderValue, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use tokio::time::Instant;
use url::Url;

use super::StoreSettings;
use super::cloud::{Clients, Limits, build_error, clients, is_plain};
use super::failure::answered_status;
use super::variables::Variables;
use crate::error::{Error, Result};

/// How often a write is made again that found a folder missing which others had made meanwhile: once a level.
const TRIES: usize = 6;
/// How long a folder is waited for that others are making just now.
const LOCK_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The variables of WebDAV; there is no usual tool whose names could be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Username,
    Password,
    AllowHttp,
}

impl FromStr for Variable {
    type Err = ();

    fn from_str(name: &str) -> std::result::Result<Self, ()> {
        match name {
            "webdav_username" => Ok(Self::Username),
            "webdav_password" => Ok(Self::Password),
            "webdav_allow_http" => Ok(Self::AllowHttp),
            _ => Err(()),
        }
    }
}

/// Connects to a WebDAV server. `server` has no path: names in listings begin at the server's root.
pub(super) fn webdav(server: &Url, settings: &StoreSettings, location: &str) -> Result<Clients> {
    let variables = Variables::<Variable>::known(settings, "WEBDAV_")?;
    let plain = is_plain(Some(server), variables.is_true(Variable::AllowHttp), "WEBDAV_ALLOW_HTTP")?;
    let headers = login(&variables)?;
    let client = |limits: Limits| -> Result<Arc<dyn ObjectStore>> {
        let options = limits.options.with_default_headers(headers.clone());
        let builder = HttpBuilder::new().with_url(server.as_str()).with_client_options(options);
        let builder = builder.with_retry(limits.retry).with_config(ClientConfigKey::AllowHttp, plain.to_string());
        Ok(Arc::new(FolderStore(builder.build().map_err(|error| build_error(location, None, error))?)))
    };
    clients(client, settings)
}

fn login(variables: &Variables<Variable>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let (name, password) = match (variables.get(Variable::Username), variables.get(Variable::Password)) {
        (None, None) => return Ok(headers),
        (Some(name), Some(password)) => (&name.value, &password.value),
        _ => return Err(Error::invalid("of WEBDAV_USERNAME and WEBDAV_PASSWORD only one is set")),
    };
    if name.contains(':') {
        return Err(Error::invalid("WEBDAV_USERNAME has a colon, which no such name can have"));
    }
    let value = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
    let mut value = HeaderValue::try_from(value).map_err(|error| Error::internal(error.to_string()))?;
    value.set_sensitive(true);
    headers.insert("authorization", value);
    Ok(headers)
}

/// A store whose first write into a folder may meet others that make the same folder.
#[derive(Debug)]
struct FolderStore<S>(S);

impl<S: fmt::Display> fmt::Display for FolderStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for FolderStore<S> {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let deadline = Instant::now() + LOCK_TIME;
        let mut tries = 1;
        loop {
            let answer = self.0.put_opts(location, payload.clone(), opts.clone()).await;
            match answer.as_ref().err().and_then(answered_status) {
                // The folder is missing, or is there by now.
                Some(405 | 409) if tries < TRIES => tries += 1,
                // Others are making it: the server locks it for as long.
                Some(423) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                _ => return answer,
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Key>>,
    ) -> BoxStream<'static, object_store::Result<Key>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Key>,
        offset: &Key,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> object_store::Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str, variables: &[(&str, &str)]) -> Result<Clients> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        webdav(&Url::parse(url).unwrap(), &StoreSettings { variables, ..StoreSettings::default() }, "dav")
    }

    #[test]
    fn plain_http_needs_leave_off_this_machine() {
        assert!(open("http://127.0.0.1:1/", &[]).is_ok());
        assert!(open("https://host/", &[]).is_ok());
        let error = open("http://host/", &[]).err().unwrap();
        assert!(error.to_string().contains("WEBDAV_ALLOW_HTTP=true"), "{error}");
        assert!(open("http://host/", &[("WEBDAV_ALLOW_HTTP", "true")]).is_ok());
    }

    #[test]
    fn half_a_login_is_refused_and_a_whole_one_is_not_shown() {
        for (half, says) in [
            (&[("WEBDAV_USERNAME", "u")][..], "only one is set"),
            (&[("WEBDAV_PASSWORD", "SECRET")], "only one is set"),
            (&[("WEBDAV_USERNAME", "u:v"), ("WEBDAV_PASSWORD", "SECRET")], "colon"),
            (&[("WEBDAV_USERNAME", "u"), ("WEBDAV_PASSWORD", "SECRET\n")], "WEBDAV_PASSWORD has a line break"),
        ] {
            let text = open("https://host/", half).err().unwrap().to_string();
            assert!(text.contains(says) && !text.contains("SECRET"), "{text}");
        }
        let clients = open("https://host/", &[("WEBDAV_USERNAME", "u"), ("WEBDAV_PASSWORD", "SECRET")]).unwrap();
        let shown = format!("{:?}", clients.reads);
        assert!(!shown.contains("SECRET") && !shown.contains(&STANDARD.encode("u:SECRET")), "{shown}");
    }
}
