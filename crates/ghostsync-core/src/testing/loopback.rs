//! Settings for tests that reach nothing but this machine.
//!
//! A client without credentials asks its cloud for some, at an address of the network, and one without an endpoint
//! talks to the cloud itself. So a test gives both, always, and gets its settings here, where that is checked.

use url::Url;

use crate::store::{StoreSettings, variables};

/// Ways to give credentials, for a repository URL with the scheme `s3`, `az` or `gs`: all variables of one are needed.
/// Whoever hands them out is asked at an address that is given too.
const WAYS: [(&str, &[&[&str]]); 3] = [
    (
        "s3",
        &[
            &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_STS"],
            &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
            &["AWS_METADATA_ENDPOINT"],
        ],
    ),
    (
        "az",
        &[
            &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"],
            &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_SAS_TOKEN"],
            &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"],
            &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_MSI_ENDPOINT"],
        ],
    ),
    // A file of a service account signs by itself; Google is asked for nothing.
    ("gs", &[&["GOOGLE_SERVICE_ACCOUNT_KEY"], &["GOOGLE_SERVICE_ACCOUNT"], &["GOOGLE_APPLICATION_CREDENTIALS"]]),
];

/// Makes settings from variables, for a repository URL with the scheme `s3`, `az`, `gs` or `http`.
///
/// # Errors
/// Says which variable is missing, or names an address that is not of this machine.
pub fn settings(scheme: &str, variables: &[(String, String)]) -> Result<StoreSettings, String> {
    let variables = checked(scheme, variables)?;
    Ok(StoreSettings { variables, ..StoreSettings::default() })
}

/// Variables for the environment of a command, checked in the same way.
///
/// # Errors
/// Says which variable is missing, or names an address that is not of this machine.
pub fn checked(scheme: &str, variables: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let endpoint = match scheme {
        // Where a test's WebDAV server is; nobody else is asked for credentials.
        "http" => "HTTP_URL",
        "s3" => "AWS_ENDPOINT_URL",
        "az" => "AZURE_STORAGE_ENDPOINT",
        "gs" => "GOOGLE_BASE_URL",
        _ => return Err(format!("no store is known by {scheme:?}")),
    };
    let value = |name: &str| {
        let found = variables.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let ways = WAYS.iter().filter(|(of, _)| *of == scheme).flat_map(|(_, ways)| *ways);
    if scheme != "http" && !ways.clone().any(|way| way.iter().all(|name| value(name).is_some())) {
        return Err(format!("credentials are not given in any of these ways: {:?}", ways.collect::<Vec<_>>()));
    }
    if value("GOOGLE_SERVICE_ACCOUNT_KEY").is_some_and(|key| !forbids_oauth(key)) {
        return Err("GOOGLE_SERVICE_ACCOUNT_KEY does not say \"disable_oauth\": true".to_owned());
    }
    if value("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some() {
        return Err("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI leads to an address of the network".to_owned());
    }
    value(endpoint).ok_or(format!("{endpoint} is not given"))?;
    // Every address, whatever its name: an endpoint can be given under several.
    for (name, value) in variables {
        let is_address = ["ENDPOINT", "URL", "URI", "HOST"].iter().any(|part| name.contains(part));
        if is_address && !is_loopback(value) {
            return Err(format!("{name} is not of this machine: {value}"));
        }
    }
    let mut checked = variables.to_vec();
    if value("AWS_METADATA_ENDPOINT").is_none() {
        checked.push(("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()));
    }
    Ok(checked)
}

fn forbids_oauth(key: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(key).is_ok_and(|key| key.get("disable_oauth") == Some(&true.into()))
}

fn is_loopback(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| variables::is_loopback(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scheme: &str, variables: &[(&str, &str)]) -> Result<StoreSettings, String> {
        let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        settings(scheme, &variables)
    }

    #[test]
    fn only_this_machine_with_given_credentials_is_let_through() {
        let s3 = |endpoint| {
            of("s3", &[("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")])
        };
        for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:1"] {
            assert!(s3(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in ["http://10.0.0.1", "https://s3.amazonaws.com", "http://127.0.0.1.example", "localhost", ""] {
            assert!(s3(endpoint).is_err(), "{endpoint}");
        }
        let settings = s3("http://127.0.0.1:1").unwrap();
        assert!(settings.variables.contains(&("AWS_EC2_METADATA_DISABLED".into(), "true".into())));
        assert!(of("s3", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]).is_err(), "credentials would be looked for");
        assert!(of("s3", &[("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")]).is_err(), "the real cloud");
        let second = of(
            "s3",
            &[
                ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
                ("AWS_ACCESS_KEY_ID", "k"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_ENDPOINT_URL_S3", "https://s3.example"),
            ],
        );
        assert!(second.is_err(), "the second endpoint would win");
        let pod = |uri| {
            let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/f");
            let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
            of("s3", &[endpoint, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri), token])
        };
        assert!(pod("http://127.0.0.1:1/x").is_ok());
        assert!(pod("http://169.254.170.23/v1/credentials").is_err());
        let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        let role = [endpoint, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/f"), ("AWS_ROLE_ARN", "r")];
        assert!(of("s3", &role).is_err(), "AWS itself would be asked for the role");
        let gs = |key| of("gs", &[("GOOGLE_BASE_URL", "http://127.0.0.1:1"), ("GOOGLE_SERVICE_ACCOUNT_KEY", key)]);
        assert!(gs(r#"{"disable_oauth": true}"#).is_ok());
        assert!(gs(r#"{"disable_oauth": false}"#).is_err());
        assert!(gs("{}").is_err());
        assert!(of("http", &[("HTTP_URL", "http://127.0.0.1:1/x")]).is_ok());
        assert!(of("http", &[("HTTP_URL", "http://10.0.0.1/x")]).is_err());
        assert!(of("http", &[]).is_err());
        assert!(of("ftp", &[]).is_err());
    }
}
