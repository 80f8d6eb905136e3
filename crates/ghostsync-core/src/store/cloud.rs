//! S3, GCS and Azure: variables and limits into clients.
//!
//! Each cloud's builder knows the names of its own variables; this passes them on and leaves the rest alone. One set
//! of credentials serves all clients of a store, so that a token is fetched once.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, HeaderValue, ObjectStore, RetryConfig};

use super::StoreSettings;
use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a read may be silent before it is tried again.
const SILENT_TIME: Duration = Duration::from_secs(60);
/// How long one request may take: 32 MiB at 300 kbit/s.
const REQUEST_TIME: Duration = Duration::from_secs(15 * 60);
/// How long one attempt to commit may take. An attempt that was given up is settled by reading back.
const COMMIT_TIME: Duration = Duration::from_secs(2 * 60);
/// What a request may carry, for the time it takes where the rate is limited.
const REQUEST_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

const HTTP_REFUSED: &str =
    "the endpoint is http://, where everybody on the way can read and change what is sent; allow it with";

/// The clients of one store.
pub(super) struct Clients {
    /// For everything but writes.
    pub(super) reads: Arc<dyn ObjectStore>,
    /// For writes.
    pub(super) writes: Arc<dyn ObjectStore>,
    /// For commits: never tries again on its own.
    pub(super) commits: Arc<dyn ObjectStore>,
}

/// The limits of one client.
struct Limits {
    options: ClientOptions,
    retry: RetryConfig,
}

impl Limits {
    fn of_reads(settings: &StoreSettings) -> Self {
        let options = client_options(request_time(settings)).with_read_timeout(SILENT_TIME);
        Self { options, retry: retry(settings) }
    }

    fn of_writes(settings: &StoreSettings) -> Self {
        Self { options: client_options(REQUEST_TIME), retry: retry(settings) }
    }

    fn of_commits() -> Self {
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        Self { options: client_options(COMMIT_TIME), retry }
    }
}

fn client_options(request_time: Duration) -> ClientOptions {
    ClientOptions::new()
        .with_user_agent(HeaderValue::from_static(concat!("ghostsync/", env!("CARGO_PKG_VERSION"))))
        .with_connect_timeout(CONNECT_TIME)
        .with_timeout(request_time)
}

/// A body that is slowed down on purpose takes longer, the more so if others are received at the same time.
fn request_time(settings: &StoreSettings) -> Duration {
    let slowed = settings.limit_download.map(|rate| REQUEST_BYTES * settings.connections as f64 / rate.max(1) as f64);
    let slowed = Duration::try_from_secs_f64(slowed.unwrap_or_default()).unwrap_or(Duration::MAX);
    // Beyond a year nothing differs, and sums of times stay far from overflow.
    REQUEST_TIME.saturating_add(slowed).min(Duration::from_secs(366 * 24 * 3600))
}

/// Time alone says when to give up.
fn retry(settings: &StoreSettings) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: settings.retry_time }
}

/// The variables that a builder knows. An empty one is as good as unset, as manifests often have them.
fn known<K: std::str::FromStr>(settings: &StoreSettings, prefix: &str) -> Vec<(K, String)> {
    let known = |(name, value): &(String, String)| {
        let key = name.starts_with(prefix).then(|| name.to_ascii_lowercase().parse().ok()).flatten()?;
        (!value.is_empty()).then(|| (key, value.clone()))
    };
    settings.variables.iter().filter_map(known).collect()
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| ["true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
}

fn refuse_plain_http(endpoint: Option<&str>, allowed: bool, variable: &str) -> Result<()> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("http://")));
    if plain && !allowed { Err(Error::invalid(format!("{HTTP_REFUSED} {variable}=true"))) } else { Ok(()) }
}

/// A store that cannot be described to its client.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {location}")]
struct BuildError {
    location: String,
    source: object_store::Error,
}

fn build_error(location: &str, source: object_store::Error) -> Error {
    Error::new(ErrorKind::Invalid, BuildError { location: location.to_owned(), source })
}

/// Connects to a bucket of S3, or of a store that speaks its language.
pub(super) fn s3(bucket: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use AmazonS3ConfigKey as K;
    let base = || {
        let variables = known::<K>(settings, "AWS_");
        let mut builder = AmazonS3Builder::new();
        let elsewhere = variables.iter().any(|(key, _)| matches!(key, K::Endpoint | K::S3Endpoint));
        if elsewhere {
            // Deleting many objects in one request is what such stores most often lack.
            builder = builder.with_config(K::DisableBulkDelete, "true");
        }
        (builder, variables)
    };
    let builder = |limits: Limits| {
        let (builder, variables) = base();
        let builder = builder.with_client_options(limits.options).with_retry(limits.retry);
        let builder = variables.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
        builder.with_bucket_name(bucket)
    };
    let reads = builder(Limits::of_reads(settings));

    let value = |key: K| reads.get_config_value(&key);
    let endpoint = value(K::S3Endpoint).or_else(|| value(K::Endpoint));
    refuse_plain_http(endpoint.as_deref(), is_true(value(K::Client(ClientConfigKey::AllowHttp))), "AWS_ALLOW_HTTP")?;
    let given = [K::AccessKeyId, K::SecretAccessKey, K::WebIdentityTokenFile, K::ContainerCredentialsRelativeUri]
        .into_iter()
        .chain([K::ContainerCredentialsFullUri])
        .any(|key| value(key).is_some());
    if !given && !is_true(value(K::SkipSignature)) && metadata_is_off(settings) {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("no credentials for {location}: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a role"),
        ));
    }

    let fail = |error| build_error(location, error);
    let reads = reads.build().map_err(fail)?;
    let share = |limits| builder(limits).with_credentials(Arc::clone(reads.credentials())).build().map_err(fail);
    let (writes, commits) = (share(Limits::of_writes(settings))?, share(Limits::of_commits())?);
    Ok(Clients { reads: Arc::new(reads), writes: Arc::new(writes), commits: Arc::new(commits) })
}

/// Whether asking the cloud machine's own address for credentials is forbidden, as with AWS's own tools.
fn metadata_is_off(settings: &StoreSettings) -> bool {
    let mut variables = settings.variables.iter();
    is_true(variables.find(|(name, _)| name == "AWS_EC2_METADATA_DISABLED").map(|(_, value)| value.clone()))
}

/// Connects to a bucket of Google Cloud Storage.
pub(super) fn gcs(bucket: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use GoogleConfigKey as K;
    let builder = |limits: Limits| {
        let builder = GoogleCloudStorageBuilder::new().with_client_options(limits.options).with_retry(limits.retry);
        let variables = known::<K>(settings, "GOOGLE_");
        let builder = variables.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
        builder.with_bucket_name(bucket)
    };
    let reads = builder(Limits::of_reads(settings));
    let allowed = is_true(reads.get_config_value(&K::Client(ClientConfigKey::AllowHttp)));
    refuse_plain_http(reads.get_config_value(&K::BaseUrl).as_deref(), allowed, "GOOGLE_ALLOW_HTTP")?;
    let fail = |error| build_error(location, error);
    let reads = reads.build().map_err(fail)?;
    let share = |limits| builder(limits).with_credentials(Arc::clone(reads.credentials())).build().map_err(fail);
    let (writes, commits) = (share(Limits::of_writes(settings))?, share(Limits::of_commits())?);
    Ok(Clients { reads: Arc::new(reads), writes: Arc::new(writes), commits: Arc::new(commits) })
}

/// Connects to a container of Azure Blob Storage.
pub(super) fn azure(container: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use AzureConfigKey as K;
    let builder = |limits: Limits| {
        let builder = MicrosoftAzureBuilder::new().with_client_options(limits.options).with_retry(limits.retry);
        let variables = known::<K>(settings, "AZURE_");
        let builder = variables.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
        builder.with_container_name(container)
    };
    let reads = builder(Limits::of_reads(settings));
    let allowed = is_true(reads.get_config_value(&K::Client(ClientConfigKey::AllowHttp)));
    refuse_plain_http(reads.get_config_value(&K::Endpoint).as_deref(), allowed, "AZURE_ALLOW_HTTP")?;
    let fail = |error| build_error(location, error);
    let reads = reads.build().map_err(fail)?;
    let share = |limits| builder(limits).with_credentials(Arc::clone(reads.credentials())).build().map_err(fail);
    let (writes, commits) = (share(Limits::of_writes(settings))?, share(Limits::of_commits())?);
    Ok(Clients { reads: Arc::new(reads), writes: Arc::new(writes), commits: Arc::new(commits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> StoreSettings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        StoreSettings { variables, ..StoreSettings::default() }
    }

    #[test]
    fn variables_reach_the_builder_that_knows_them() {
        let settings = settings(&[
            ("AWS_ENDPOINT_URL", "https://s3.example"),
            ("AWS_REGION", "here"),
            ("AWS_SESSION_TOKEN", ""),
            ("AWS_PAGER", "less"),
            ("REGION", "not with this name"),
            ("GOOGLE_BUCKET", "other"),
        ]);
        let mut known = known::<AmazonS3ConfigKey>(&settings, "AWS_");
        known.sort_by(|a, b| a.1.cmp(&b.1));
        let expected = [
            (AmazonS3ConfigKey::Region, "here".to_owned()),
            (AmazonS3ConfigKey::Endpoint, "https://s3.example".into()),
        ];
        assert_eq!(known, expected);
    }

    #[test]
    fn commits_are_tried_once_and_others_for_the_time_that_is_set() {
        let settings = StoreSettings { retry_time: Duration::from_secs(7), ..settings(&[]) };
        assert_eq!(Limits::of_commits().retry.max_retries, 0);
        assert_eq!(Limits::of_writes(&settings).retry.retry_timeout, Duration::from_secs(7));
        assert!(Limits::of_reads(&settings).retry.max_retries > 1_000_000);
    }

    #[test]
    fn a_slowed_down_body_gets_the_time_it_needs() {
        assert_eq!(request_time(&settings(&[])), REQUEST_TIME);
        let slow = StoreSettings { limit_download: Some(64 * 1024), connections: 2, ..settings(&[]) };
        assert_eq!(request_time(&slow), REQUEST_TIME + Duration::from_secs(2048));
        let absurd = StoreSettings { limit_download: Some(0), connections: usize::MAX, ..settings(&[]) };
        assert!(request_time(&absurd) < Duration::MAX / 2);
    }

    #[test]
    fn what_is_missing_or_unsafe_is_said() {
        let plain = settings(&[
            ("AWS_ENDPOINT_URL", "HTTP://10.0.0.1"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ]);
        let error = s3("b", &plain, "s3://b").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");

        let none = settings(&[("AWS_EC2_METADATA_DISABLED", "true")]);
        let error = s3("b", &none, "s3://b").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("no credentials for s3://b"), "{error}");

        let half = settings(&[("AWS_ACCESS_KEY_ID", "k")]);
        assert_eq!(s3("b", &half, "s3://b").err().unwrap().kind(), ErrorKind::Invalid);
        assert_eq!(azure("c", &settings(&[]), "az://c").err().unwrap().kind(), ErrorKind::Invalid);
        let nowhere = settings(&[("GOOGLE_SERVICE_ACCOUNT", "/nowhere/key.json")]);
        assert_eq!(gcs("b", &nowhere, "gs://b").err().unwrap().kind(), ErrorKind::Invalid);
    }
}
