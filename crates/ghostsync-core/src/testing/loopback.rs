//! Settings for tests that reach nothing but this machine.
//!
//! A client without credentials asks its cloud for some, at an address of the network, and one without an endpoint
//! talks to the cloud itself. So a test gives both, always, and gets its settings here, where that is checked.

use url::Url;

use crate::store::{StoreSettings, variables};

/// Makes settings from variables, for a repository URL with the scheme `s3`, `az` or `gs`.
///
/// # Errors
/// Says which variable is missing, or names an endpoint that is not of this machine.
pub fn settings(scheme: &str, variables: &[(String, String)]) -> Result<StoreSettings, String> {
    let (endpoint, credentials): (&str, &[&str]) = match scheme {
        "s3" => ("AWS_ENDPOINT_URL", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        "az" => ("AZURE_STORAGE_ENDPOINT", &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"]),
        "gs" => ("GOOGLE_BASE_URL", &["GOOGLE_SERVICE_ACCOUNT_KEY"]),
        _ => return Err(format!("no store is known by {scheme:?}")),
    };
    let value = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    for name in credentials {
        value(name).filter(|value| !value.is_empty()).ok_or(format!("{name} is not given"))?;
    }
    if scheme == "gs" && !value("GOOGLE_SERVICE_ACCOUNT_KEY").is_some_and(forbids_oauth) {
        return Err("GOOGLE_SERVICE_ACCOUNT_KEY does not say \"disable_oauth\": true".to_owned());
    }
    value(endpoint).ok_or(format!("{endpoint} is not given"))?;
    // Every address, whatever its name: an endpoint can be given under several.
    for (name, value) in variables {
        let is_address = name.contains("ENDPOINT") || name.contains("URL") || name.contains("HOST");
        if is_address && !is_loopback(value) {
            return Err(format!("{name} is not of this machine: {value}"));
        }
    }
    let mut variables = variables.to_vec();
    variables.push(("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()));
    Ok(StoreSettings { variables, ..StoreSettings::default() })
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
        let gs = |key| of("gs", &[("GOOGLE_BASE_URL", "http://127.0.0.1:1"), ("GOOGLE_SERVICE_ACCOUNT_KEY", key)]);
        assert!(gs(r#"{"disable_oauth": true}"#).is_ok());
        assert!(gs(r#"{"disable_oauth": false}"#).is_err());
        assert!(gs("{}").is_err());
        assert!(of("ftp", &[]).is_err());
    }
}
