//! S3, GCS and Azure: variables and limits into clients.
//!
//! Each cloud's builder knows the names of its own variables; this checks them and passes them on. One set of
//! credentials serves all clients of a store, so that a token is fetched once.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, HeaderValue, ObjectStore, RetryConfig};
use url::Url;

use super::StoreSettings;
use super::credentials::named;
use super::variables::{Variables, is_loopback, is_true};
use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a write may take: four packs of 16 MiB at once, on a line of 300 kbit/s.
const WRITE_TIME: Duration = Duration::from_secs(30 * 60);
/// How long one attempt to commit may take. An attempt that was given up is settled by reading back.
const COMMIT_TIME: Duration = Duration::from_secs(2 * 60);
/// How long the cloud of this machine is asked for credentials that nobody has promised.
const METADATA_TIME: Duration = Duration::from_secs(5);
const METADATA: &str = "the environment, nor from this machine's cloud";

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
pub(super) struct Limits {
    pub(super) options: ClientOptions,
    pub(super) retry: RetryConfig,
}

impl Limits {
    /// A read may take as long as it likes while something comes; one that is silent is tried again.
    fn of_reads(settings: &StoreSettings) -> Self {
        let options = client_options().with_timeout_disabled().with_read_timeout(silent_time(settings));
        Self { options, retry: retry(settings.retry_time) }
    }

    fn of_writes(settings: &StoreSettings) -> Self {
        Self { options: client_options().with_timeout(WRITE_TIME), retry: retry(settings.retry_time) }
    }

    fn of_commits() -> Self {
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        Self { options: client_options().with_timeout(COMMIT_TIME), retry }
    }

    fn of_credentials(settings: &StoreSettings, origin: &str) -> Self {
        let time = if origin == METADATA { settings.retry_time.min(METADATA_TIME) } else { settings.retry_time };
        Self { options: client_options().with_timeout(silent_time(settings)), retry: retry(time) }
    }
}

fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_user_agent(HeaderValue::from_static(concat!("ghostsync/", env!("CARGO_PKG_VERSION"))))
        .with_connect_timeout(CONNECT_TIME)
}

/// How long a store may be silent before it is asked again: twice within the time for which it is tried, but never so
/// short that a slow store is taken for a dead one.
pub(super) fn silent_time(settings: &StoreSettings) -> Duration {
    (settings.retry_time / 2).clamp(Duration::from_secs(5), Duration::from_secs(60))
}

/// Time alone says when to give up.
fn retry(time: Duration) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: time }
}

/// Tells whether the endpoint is plain HTTP. Off this machine somebody has to allow that.
pub(super) fn is_plain(endpoint: Option<&Url>, allowed: bool, variable: &str) -> Result<bool> {
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.scheme() == "http") else { return Ok(false) };
    if allowed || is_loopback(endpoint) {
        return Ok(true);
    }
    Err(Error::invalid(format!(
        "the endpoint is http://, where everybody on the way can read and change what is sent; allow it with \
         {variable}=true"
    )))
}

/// A store that cannot be described to its client.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {location}{because}")]
struct BuildError {
    location: String,
    because: String,
    source: object_store::Error,
}

pub(super) fn build_error(location: &str, culprit: Option<&str>, source: object_store::Error) -> Error {
    let because = culprit.map(|name| format!(": {name} is set, and cannot be used")).unwrap_or_default();
    Error::new(ErrorKind::Invalid, BuildError { location: location.to_owned(), because, source })
}

/// Connects to a bucket of S3, or of a store that speaks its language.
pub(super) fn s3(bucket: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use AmazonS3ConfigKey as K;
    const ALLOW_HTTP: K = K::Client(ClientConfigKey::AllowHttp);
    let variables = Variables::<K>::known(settings, "AWS_")?;
    let (of_s3, of_all) = (variables.address(K::S3Endpoint)?, variables.address(K::Endpoint)?);
    let endpoint = of_s3.or(of_all);
    let plain = is_plain(endpoint.as_ref(), variables.is_true(ALLOW_HTTP), "AWS_ALLOW_HTTP")?;
    let origin = s3_origin(&variables, settings, location)?;

    let builder = |limits: Limits, variables: &Variables<K>| {
        let mut builder = AmazonS3Builder::new().with_client_options(limits.options).with_retry(limits.retry);
        if endpoint.is_some() {
            // Deleting many objects in one request is what such stores most often lack.
            builder = builder.with_config(K::DisableBulkDelete, "true");
        }
        builder = variables.0.iter().fold(builder, |builder, known| builder.with_config(known.key, &known.value));
        if plain {
            builder = builder.with_config(ALLOW_HTTP, "true");
        }
        builder.with_bucket_name(bucket)
    };
    let fail = |error| {
        let builds = |variables: &Variables<K>| builder(Limits::of_commits(), variables).build().is_ok();
        build_error(location, variables.culprit(builds), error)
    };
    let first = builder(Limits::of_credentials(settings, origin), &variables).build().map_err(fail)?;
    let credentials = named(first.credentials(), origin);
    let client = |limits| -> Result<Arc<dyn ObjectStore>> {
        let builder = builder(limits, &variables).with_credentials(Arc::clone(&credentials));
        Ok(Arc::new(builder.build().map_err(fail)?))
    };
    clients(client, settings)
}

/// Where a client of S3 takes its credentials from: the first of these that is given, as with AWS's own tools.
fn s3_origin(
    variables: &Variables<AmazonS3ConfigKey>,
    settings: &StoreSettings,
    location: &str,
) -> Result<&'static str> {
    use AmazonS3ConfigKey as K;
    let together = |key: K, needs: K, says: &str| {
        let complete = variables.has(key) && variables.has(needs);
        if variables.has(key) && !complete { Err(Error::invalid(says)) } else { Ok(complete) }
    };
    if variables.has(K::AccessKeyId) || variables.has(K::SecretAccessKey) || variables.is_true(K::SkipSignature) {
        return Ok("AWS_ACCESS_KEY_ID");
    }
    if together(K::WebIdentityTokenFile, K::RoleArn, "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN is not")? {
        if variables.address(K::StsEndpoint)?.is_some_and(|url| url.scheme() == "http") {
            return Err(Error::invalid("AWS_ENDPOINT_URL_STS is http://, where a role is never asked for"));
        }
        return Ok("AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN");
    }
    if variables.has(K::ContainerCredentialsRelativeUri) {
        return Ok("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    }
    variables.address(K::ContainerCredentialsFullUri)?;
    if together(
        K::ContainerCredentialsFullUri,
        K::ContainerAuthorizationTokenFile,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI is set, and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not",
    )? {
        return Ok("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    }
    let denied = |why: &str| Err(Error::new(ErrorKind::Denied, format!("no credentials for {location}: {why}")));
    // Who names a profile means its keys, not those of the machine.
    if ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].iter().any(|name| value_of(settings, name).is_some()) {
        return denied("AWS_PROFILE is set, and profiles are not read");
    }
    if value_of(settings, "AWS_EC2_METADATA_DISABLED").is_some_and(is_true) {
        return denied("neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a role");
    }
    variables.address(K::MetadataEndpoint)?;
    Ok(METADATA)
}

/// A variable that the client does not know.
fn value_of<'a>(settings: &'a StoreSettings, name: &str) -> Option<&'a str> {
    let found = settings.variables.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

/// Connects to a bucket of Google Cloud Storage.
pub(super) fn gcs(bucket: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use GoogleConfigKey as K;
    const ALLOW_HTTP: K = K::Client(ClientConfigKey::AllowHttp);
    let variables = Variables::<K>::known(settings, "GOOGLE_")?;
    let endpoint = variables.address(K::BaseUrl)?;
    let plain = is_plain(endpoint.as_ref(), variables.is_true(ALLOW_HTTP), "GOOGLE_ALLOW_HTTP")?;
    let origin = if variables.has(K::ServiceAccount) || variables.has(K::ServiceAccountKey) {
        "GOOGLE_SERVICE_ACCOUNT"
    } else if variables.has(K::ApplicationCredentials) {
        "GOOGLE_APPLICATION_CREDENTIALS"
    } else {
        METADATA
    };

    let builder = |limits: Limits, variables: &Variables<K>| {
        let mut builder = GoogleCloudStorageBuilder::new().with_client_options(limits.options).with_retry(limits.retry);
        builder = variables.0.iter().fold(builder, |builder, known| builder.with_config(known.key, &known.value));
        if plain {
            builder = builder.with_config(ALLOW_HTTP, "true");
        }
        builder.with_bucket_name(bucket)
    };
    let fail = |error| {
        let builds = |variables: &Variables<K>| builder(Limits::of_commits(), variables).build().is_ok();
        build_error(location, variables.culprit(builds), error)
    };
    let first = builder(Limits::of_credentials(settings, origin), &variables).build().map_err(fail)?;
    let credentials = named(first.credentials(), origin);
    let client = |limits| -> Result<Arc<dyn ObjectStore>> {
        let builder = builder(limits, &variables).with_credentials(Arc::clone(&credentials));
        Ok(Arc::new(builder.build().map_err(fail)?))
    };
    clients(client, settings)
}

/// Connects to a container of Azure Blob Storage.
pub(super) fn azure(container: &str, settings: &StoreSettings, location: &str) -> Result<Clients> {
    use AzureConfigKey as K;
    const ALLOW_HTTP: K = K::Client(ClientConfigKey::AllowHttp);
    let variables = Variables::<K>::known(settings, "AZURE_")?;
    let endpoint = variables.address(K::Endpoint)?;
    let plain = is_plain(endpoint.as_ref(), variables.is_true(ALLOW_HTTP), "AZURE_ALLOW_HTTP")?;
    for key in [K::AuthorityHost, K::MsiEndpoint] {
        variables.address(key)?;
    }
    if !variables.has(K::AccountName) && !variables.is_true(K::UseEmulator) {
        return Err(Error::invalid(format!("cannot use {location}: AZURE_STORAGE_ACCOUNT_NAME is not set")));
    }
    let origin = if variables.has(K::FederatedTokenFile) {
        "AZURE_FEDERATED_TOKEN_FILE"
    } else if variables.has(K::ClientSecret) {
        "AZURE_CLIENT_SECRET"
    } else {
        METADATA
    };

    let builder = |limits: Limits, variables: &Variables<K>| {
        let mut builder = MicrosoftAzureBuilder::new().with_client_options(limits.options).with_retry(limits.retry);
        builder = variables.0.iter().fold(builder, |builder, known| builder.with_config(known.key, &known.value));
        if plain {
            builder = builder.with_config(ALLOW_HTTP, "true");
        }
        builder.with_container_name(container)
    };
    let fail = |error| {
        let builds = |variables: &Variables<K>| builder(Limits::of_commits(), variables).build().is_ok();
        build_error(location, variables.culprit(builds), error)
    };
    let first = builder(Limits::of_credentials(settings, origin), &variables).build().map_err(fail)?;
    let credentials = named(first.credentials(), origin);
    let client = |limits| -> Result<Arc<dyn ObjectStore>> {
        let builder = builder(limits, &variables).with_credentials(Arc::clone(&credentials));
        Ok(Arc::new(builder.build().map_err(fail)?))
    };
    clients(client, settings)
}

pub(super) fn clients(
    client: impl Fn(Limits) -> Result<Arc<dyn ObjectStore>>,
    settings: &StoreSettings,
) -> Result<Clients> {
    Ok(Clients {
        reads: client(Limits::of_reads(settings))?,
        writes: client(Limits::of_writes(settings))?,
        commits: client(Limits::of_commits())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> StoreSettings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        StoreSettings { variables, ..StoreSettings::default() }
    }

    #[test]
    fn commits_are_tried_once_and_others_for_the_time_that_is_set() {
        let settings = StoreSettings { retry_time: Duration::from_secs(7), ..settings(&[]) };
        assert_eq!(Limits::of_commits().retry.max_retries, 0);
        assert_eq!(Limits::of_writes(&settings).retry.retry_timeout, Duration::from_secs(7));
        assert!(Limits::of_reads(&settings).retry.max_retries > 1_000_000);
    }

    #[test]
    fn a_silent_store_is_asked_twice_within_the_time_for_which_it_is_tried() {
        for (retry_seconds, silent_seconds) in [(0, 5), (8, 5), (60, 30), (600, 60)] {
            let settings = StoreSettings { retry_time: Duration::from_secs(retry_seconds), ..settings(&[]) };
            assert_eq!(silent_time(&settings), Duration::from_secs(silent_seconds), "{retry_seconds}");
        }
    }

    /// The error of opening a store with these variables.
    fn error(scheme: &str, variables: &[(&str, &str)]) -> (ErrorKind, String) {
        let settings = settings(variables);
        let opened = match scheme {
            "s3" => s3("b", &settings, "s3://b"),
            "gs" => gcs("b", &settings, "gs://b"),
            _ => azure("b", &settings, "az://b"),
        };
        let error = opened.err().unwrap();
        (error.kind(), error.to_string())
    }

    #[test]
    fn what_is_missing_or_unusable_is_said_by_its_name() {
        use ErrorKind::{Denied, Invalid};
        for (scheme, variables, kind, says) in [
            ("s3", &[("AWS_ENDPOINT_URL", "HTTP://10.0.0.1")][..], Invalid, "allow it with AWS_ALLOW_HTTP=true"),
            ("gs", &[("GOOGLE_BASE_URL", "http://10.0.0.1")], Invalid, "allow it with GOOGLE_ALLOW_HTTP=true"),
            ("az", &[("AZURE_STORAGE_ENDPOINT", "http://10.0.0.1")], Invalid, "allow it with AZURE_ALLOW_HTTP=true"),
            ("s3", &[("AWS_ENDPOINT_URL", "10.0.0.1:9000")], Invalid, "AWS_ENDPOINT_URL is not an address"),
            ("s3", &[("AWS_EC2_METADATA_DISABLED", "true")], Denied, "no credentials for s3://b: neither"),
            ("s3", &[("AWS_PROFILE", "work")], Denied, "no credentials for s3://b: AWS_PROFILE is set, and profiles"),
            ("s3", &[("AWS_ACCESS_KEY_ID", "k")], Invalid, "cannot use s3://b: AWS_ACCESS_KEY_ID is set, and cannot"),
            ("s3", &[("AWS_ACCESS_KEY_ID", "k\n")], Invalid, "AWS_ACCESS_KEY_ID has a line break"),
            ("s3", &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/f")], Invalid, "AWS_ROLE_ARN is not"),
            (
                "s3",
                &[
                    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/f"),
                    ("AWS_ROLE_ARN", "r"),
                    ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
                ],
                Invalid,
                "AWS_ENDPOINT_URL_STS is http://",
            ),
            (
                "s3",
                &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1")],
                Invalid,
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not",
            ),
            ("s3", &[("AWS_METADATA_ENDPOINT", "nowhere")], Invalid, "AWS_METADATA_ENDPOINT is not an address"),
            (
                "s3",
                &[("AWS_UNSIGNED_PAYLOAD", "maybe")],
                Invalid,
                "cannot use s3://b: AWS_UNSIGNED_PAYLOAD is set, and cannot",
            ),
            ("gs", &[("GOOGLE_SERVICE_ACCOUNT", "/nowhere")], Invalid, "GOOGLE_SERVICE_ACCOUNT is set, and cannot"),
            ("gs", &[("GOOGLE_SERVICE_ACCOUNT_KEY", "{")], Invalid, "GOOGLE_SERVICE_ACCOUNT_KEY is set, and cannot"),
            (
                "gs",
                &[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")],
                Invalid,
                "GOOGLE_APPLICATION_CREDENTIALS is set, and",
            ),
            ("az", &[], Invalid, "AZURE_STORAGE_ACCOUNT_NAME is not set"),
            (
                "az",
                &[("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_STORAGE_KEY", "no base 64!")],
                Invalid,
                "cannot use az://b: AZURE_STORAGE_KEY is set, and cannot be used",
            ),
            (
                "az",
                &[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_SAS_TOKEN", "sig")],
                Invalid,
                "AZURE_STORAGE_SAS_TOKEN is set, and cannot",
            ),
        ] {
            let variables = [variables, &[("AWS_REGION", "here")]].concat();
            let (found, text) = error(scheme, &variables);
            assert!(found == kind && text.contains(says), "{variables:?}: {found:?} {text}");
        }
    }

    #[test]
    fn plain_http_needs_no_leave_on_this_machine() {
        let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost"] {
            let variables = [&keys[..], &[("AWS_ENDPOINT_URL", endpoint)]].concat();
            assert!(s3("b", &settings(&variables), "s3://b").is_ok(), "{endpoint}");
        }
        let allowed = [("AWS_ENDPOINT_URL", "http://10.0.0.1"), ("AWS_ALLOW_HTTP", "true")];
        assert!(s3("b", &settings(&[&keys[..], &allowed].concat()), "s3://b").is_ok());
    }
}
