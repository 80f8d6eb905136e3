//! Credentials from the usual variables, each from a stub of whoever hands them out, and the real command.
//!
//! The stubs are our own reading of each cloud's documentation. They show which variables count, what is then sent to
//! the store, and what is said when nothing comes; they prove nothing about the clouds.

use std::process::Command;
use std::sync::Arc;

use crate::http_stub::{Answer, Asked, HttpStub};
use crate::sandbox::{Ran, Sandbox};

const FAR_AWAY: &str = "2999-01-01T00:00:00Z";

/// A store without a single object, in the languages of S3, GCS and Azure.
fn empty_store() -> HttpStub {
    HttpStub::start(|asked| {
        let lists = asked.query.contains_key("prefix") || asked.query.contains_key("list-type");
        Some(if lists {
            let azure = asked.query.contains_key("restype");
            Answer::new(
                200,
                if azure { "<EnumerationResults><Blobs/></EnumerationResults>" } else { "<ListBucketResult/>" },
            )
        } else {
            Answer::error(404, "NoSuchKey")
        })
    })
}

fn variables(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn look(url: &str, given: &[(&str, &str)]) -> Ran {
    Sandbox::new().on_store(url, &variables(given), &["snapshots", "--retry-time", "0"])
}

/// Looks into a store, which must let us in, and returns what it was asked first.
fn let_in(store: &HttpStub, url: &str, given: &[(&str, &str)]) -> Asked {
    let ran = look(url, given);
    assert_eq!(ran.code, 12, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("there is no repository at {url}")), "{}", ran.stderr);
    store.asked().remove(0)
}

/// Looks into a store, and must be told this; the store is not even asked.
fn refused(store: &HttpStub, url: &str, given: &[(&str, &str)], says: &str) -> Ran {
    let ran = look(url, given);
    assert_eq!(ran.code, 13, "{}", ran.stderr);
    assert!(ran.stderr.contains(says), "{says:?} in {}", ran.stderr);
    assert!(store.asked().is_empty(), "{:?}", store.asked());
    ran
}

fn signed_by(asked: &Asked, key: &str) -> bool {
    asked.header("authorization").is_some_and(|header| header.contains(&format!("Credential={key}/")))
}

/// Keys for an hour, as the services of AWS hand them out.
fn keys_in_json() -> Answer {
    let keys = serde_json::json!({
        "AccessKeyId": "SHORTLIVED", "SecretAccessKey": "s", "Token": "session", "Expiration": FAR_AWAY,
    });
    Answer::new(200, keys.to_string())
}

/// A URL of this machine where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn keys_of_the_environment_and_the_endpoint_of_s3_before_that_of_all() {
    let (store, other) = (empty_store(), empty_store());
    let asked = let_in(
        &store,
        "s3://b/x",
        &[
            ("AWS_ENDPOINT_URL", &other.url()),
            ("AWS_ENDPOINT_URL_S3", &store.url()),
            ("AWS_ACCESS_KEY_ID", "LONGLIVED"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "session"),
            ("AWS_REGION", "eu-somewhere-1"),
            // Keys win over all that follows, as with AWS's own tools.
            ("AWS_PROFILE", "work"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"),
        ],
    );
    assert!(signed_by(&asked, "LONGLIVED"), "{asked:?}");
    assert!(asked.header("authorization").is_some_and(|header| header.contains("/eu-somewhere-1/s3/")), "{asked:?}");
    assert_eq!(asked.header("x-amz-security-token"), Some("session"));
    assert!(other.asked().is_empty());
}

#[test]
fn a_pod_identity() {
    let (store, folder) = (empty_store(), tempfile::tempdir().expect("a folder"));
    let token = folder.path().join("token");
    let token = token.to_str().expect("UTF-8");
    let agent = HttpStub::start(|asked| {
        Some(if asked.header("authorization") == Some("of this pod") { keys_in_json() } else { Answer::new(403, "") })
    });
    let uri = format!("{}/v1/credentials", agent.url());
    let endpoint = store.url();
    let given = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
    ];
    let no_file = "no credentials from AWS_CONTAINER_CREDENTIALS_FULL_URI: Failed to read EKS token file";
    refused(&store, "s3://b/x", &given, no_file);
    std::fs::write(token, "of another").expect("written");
    let refusal = "no credentials from AWS_CONTAINER_CREDENTIALS_FULL_URI: the answer was status 403";
    refused(&store, "s3://b/x", &given, refusal);
    std::fs::write(token, "of this pod").expect("written");
    let asked = let_in(&store, "s3://b/x", &given);
    assert!(signed_by(&asked, "SHORTLIVED"), "{asked:?}");
    assert_eq!(asked.header("x-amz-security-token"), Some("session"));
}

#[test]
fn the_role_of_a_machine() {
    let store = empty_store();
    let metadata = HttpStub::start(|asked| {
        let trusted = asked.header("x-aws-ec2-metadata-token") == Some("metadata token");
        Some(match (asked.method.as_str(), asked.path.as_str()) {
            ("PUT", "/latest/api/token") => Answer::new(200, "metadata token"),
            ("GET", "/latest/meta-data/iam/security-credentials/") if trusted => Answer::new(200, "role"),
            ("GET", "/latest/meta-data/iam/security-credentials/role") if trusted => keys_in_json(),
            _ => Answer::new(404, ""),
        })
    });
    let endpoint = store.url();
    let asked =
        let_in(&store, "s3://b/x", &[("AWS_ENDPOINT_URL", &endpoint), ("AWS_METADATA_ENDPOINT", &metadata.url())]);
    assert!(signed_by(&asked, "SHORTLIVED"), "{asked:?}");
}

#[test]
fn a_machine_of_no_cloud_is_told_that_there_are_no_credentials() {
    let store = empty_store();
    let endpoint = store.url();
    let given = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_METADATA_ENDPOINT", &nobody())];
    let says = "no credentials from the environment, nor from this machine's cloud: Connection refused";
    refused(&store, "s3://b/x", &given, says);
    let given = [&given[..], &[("AWS_PROFILE", "work")]].concat();
    let ran =
        refused(&store, "s3://b/x", &given, "no credentials for s3://b/x: AWS_PROFILE is set, and profiles are not");
    assert!(ran.stderr.contains("hint: eval \"$(aws configure export-credentials"), "{}", ran.stderr);

    let given = [
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_MSI_ENDPOINT", &nobody()),
    ];
    refused(&store, "az://b/x", &given, says);
}

#[test]
fn a_service_account_signs_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(key) = openssl(folder.path(), &["genrsa", "-out", "key.pem", "2048"], "key.pem") else { return };
    let account = serde_json::json!({
        "type": "service_account", "private_key": key, "private_key_id": "id", "client_email": "backup@example",
    });
    let file = folder.path().join("account.json");
    std::fs::write(&file, account.to_string()).expect("written");
    let file = file.to_str().expect("UTF-8");
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
        let store = empty_store();
        let asked = let_in(&store, "gs://b/x", &[("GOOGLE_BASE_URL", &store.url()), (name, file)]);
        // Three parts in base64, of which the first says how it is signed.
        let token = asked.header("authorization").and_then(|header| header.strip_prefix("Bearer ")).expect("a token");
        assert!(token.starts_with("eyJ") && token.split('.').count() == 3, "{token}");
        let ran = look("gs://b/x", &[("GOOGLE_BASE_URL", &store.url()), (name, "/nowhere")]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("{name} is set, and cannot be used")), "{}", ran.stderr);
    }
}

#[test]
fn azure_by_key_by_signature_and_by_workload_identity() {
    let account = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
    let store = empty_store();
    let key = [("AZURE_STORAGE_ENDPOINT", store.url()), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0".to_owned())];
    let key = [(key[0].0, key[0].1.as_str()), (key[1].0, key[1].1.as_str()), account];
    let asked = let_in(&store, "az://b/x", &key);
    assert!(asked.header("authorization").is_some_and(|header| header.starts_with("SharedKey account:")), "{asked:?}");

    let store = empty_store();
    let signature = ("AZURE_STORAGE_SAS_TOKEN", "?sv=2023&sig=abc%3D");
    let asked = let_in(&store, "az://b/x", &[("AZURE_STORAGE_ENDPOINT", &store.url()), account, signature]);
    assert_eq!(asked.query.get("sig").map(String::as_str), Some("abc="), "{asked:?}");

    let store = empty_store();
    let authority = HttpStub::start(|asked| {
        let body = String::from_utf8_lossy(&asked.body);
        Some(if asked.path == "/tenant/oauth2/v2.0/token" && body.contains("client_assertion=of+this+pod") {
            Answer::new(200, r#"{"access_token": "short-lived", "expires_in": 3600}"#)
        } else {
            Answer::new(401, "{}")
        })
    });
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    let (endpoint, host) = (store.url(), authority.url());
    let given = [
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        account,
        ("AZURE_FEDERATED_TOKEN_FILE", token.to_str().expect("UTF-8")),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_AUTHORITY_HOST", &host),
    ];
    refused(&store, "az://b/x", &given, "no credentials from AZURE_FEDERATED_TOKEN_FILE: ");
    std::fs::write(&token, "of another").expect("written");
    let refusal = "no credentials from AZURE_FEDERATED_TOKEN_FILE: the answer was status 401";
    refused(&store, "az://b/x", &given, refusal);
    std::fs::write(&token, "of this pod").expect("written");
    let asked = let_in(&store, "az://b/x", &given);
    assert_eq!(asked.header("authorization"), Some("Bearer short-lived"));
}

#[test]
fn a_web_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(roles) = roles_by_tls(folder.path()) else { return };
    let store = empty_store();
    let token = folder.path().join("token");
    let authority = folder.path().join("certificate.pem");
    let (endpoint, sts) = (store.url(), format!("https://{}", roles.address));
    let given = variables(&[
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ENDPOINT_URL_STS", &sts),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup"),
    ]);
    let sandbox = Sandbox::new();
    let look = || {
        let mut command = sandbox.command(&["--repo", "s3://b/x", "snapshots", "--retry-time", "0"]);
        let checked = ghostsync_core::testing::loopback::checked("s3", &given).expect("only this machine");
        let output = command.envs(checked).env("SSL_CERT_FILE", &authority).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let origin = "no credentials from AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN: ";
    for (content, says) in [
        (None, "Failed to read token file"),
        (Some("of another"), "the answer was status 403 (InvalidIdentityToken: not you)"),
    ] {
        content.inspect(|content| std::fs::write(&token, content).expect("written"));
        let (code, stderr) = look();
        assert_eq!(code, Some(13), "{stderr}");
        assert!(stderr.contains(&format!("{origin}{says}")), "{stderr}");
        assert!(!stderr.contains("of another"), "the token is a secret: {stderr}");
    }
    std::fs::write(&token, "of this pod").expect("written");
    let (code, stderr) = look();
    assert_eq!(code, Some(12), "{stderr}");
    let asked = store.asked().remove(0);
    assert!(signed_by(&asked, "SHORTLIVED"), "{asked:?}");
}

/// A stub of AWS's service that hands out roles; it is asked by TLS alone.
fn roles_by_tls(folder: &std::path::Path) -> Option<HttpStub> {
    let wanted = "[req]\ndistinguished_name=name\nx509_extensions=is\nprompt=no\n[name]\nCN=stub\n\
                  [is]\nbasicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
    std::fs::write(folder.join("wanted"), wanted).expect("written");
    let certificate = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-config", "wanted", "-days", "2"];
    let certificate = [&certificate[..], &["-keyout", "key.pem", "-out", "certificate.pem"]].concat();
    openssl(folder, &certificate, "certificate.pem")?;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(folder.join("certificate.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let config = Arc::new(config);
    let wrap = move |connection| -> Box<dyn crate::http_stub::Speak> {
        let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
        Box::new(rustls::StreamOwned::new(tls, connection))
    };
    Some(HttpStub::start_with(Box::new(wrap), |asked| {
        let value = |name: &str| asked.query.get(name).map(String::as_str);
        let right = value("Action") == Some("AssumeRoleWithWebIdentity")
            && value("RoleArn") == Some("arn:aws:iam::1:role/backup")
            && value("WebIdentityToken") == Some("of this pod");
        if !right {
            let body = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>not you</Message></Error></ErrorResponse>";
            return Some(Answer::new(403, body));
        }
        let keys = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>SHORTLIVED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>{FAR_AWAY}</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        Some(Answer::new(200, keys))
    }))
}

/// Makes a key or a certificate, and returns its file's text; `None` where `openssl` is not installed.
fn openssl(folder: &std::path::Path, args: &[&str], file: &str) -> Option<String> {
    let Ok(ran) = Command::new("openssl").args(args).current_dir(folder).output() else {
        println!("skipped: openssl is not installed");
        return None;
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(std::fs::read_to_string(folder.join(file)).expect("written"))
}
