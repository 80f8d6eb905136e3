//! The variables of a cloud, checked before its client sees them: an error names the one that is at fault.
//!
//! A client that is handed a key with a line break or an address that is none ends in a panic, or tries for a minute
//! to reach what cannot be reached.

use std::str::FromStr;

use url::{Host, Url};

use super::StoreSettings;
use crate::error::{Error, Result};

/// What other tools of the same cloud call a variable that its client knows by another name.
const ALSO_CALLED: [(&str, &str); 2] =
    [("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"), ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")];
/// The one value that has several lines: a JSON document.
const SEVERAL_LINES: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";

/// One variable that a client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable<K> {
    pub(super) name: String,
    pub(super) key: K,
    pub(super) value: String,
}

/// The variables of one cloud.
#[derive(Debug)]
pub(super) struct Variables<K>(pub(super) Vec<Variable<K>>);

impl<K: FromStr + PartialEq> Variables<K> {
    /// Those that the client knows. An empty one is as good as unset, as manifests often have them.
    pub(super) fn known(settings: &StoreSettings, prefix: &str) -> Result<Self> {
        let mut known = Vec::new();
        for (name, value) in settings.variables.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let called =
                ALSO_CALLED.iter().find(|(other, _)| other == name).map_or(name.as_str(), |(_, called)| called);
            let Ok(key) = called.to_ascii_lowercase().parse() else { continue };
            if value.is_empty() {
                continue;
            }
            if name != SEVERAL_LINES && value.chars().any(|c| !(' '..='~').contains(&c)) {
                let reason = "has a line break or another character that no such value has";
                return Err(Error::invalid(format!("{name} {reason}")));
            }
            known.push(Variable { name: name.clone(), key, value: value.clone() });
        }
        Ok(Self(known))
    }

    pub(super) fn get(&self, key: K) -> Option<&Variable<K>> {
        // The last one of several names is the one that the client is left with.
        self.0.iter().rev().find(|variable| variable.key == key)
    }

    pub(super) fn has(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn is_true(&self, key: K) -> bool {
        self.get(key).is_some_and(|variable| is_true(&variable.value))
    }

    /// The address in a variable, which must be one: `http://…` or `https://…`.
    pub(super) fn address(&self, key: K) -> Result<Option<Url>> {
        let Some(variable) = self.get(key) else { return Ok(None) };
        // This parser is more lenient than the one of the clients, which gives up with a panic.
        let lenient = variable.value.contains(' ') || variable.value.contains(":///");
        let url = Url::parse(&variable.value).ok().filter(|_| !lenient);
        match url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
            Some(url) => Ok(Some(url)),
            None => Err(Error::invalid(format!("{} is not an address such as https://host", variable.name))),
        }
    }

    /// The variable without which the client can be made, if it cannot be made with it.
    pub(super) fn culprit(&self, builds: impl Fn(&Self) -> bool) -> Option<&str>
    where
        K: Copy,
    {
        let without = |left_out: usize| {
            let rest = self.0.iter().enumerate().filter(|(at, _)| *at != left_out);
            Self(
                rest.map(|(_, variable)| Variable {
                    name: variable.name.clone(),
                    value: variable.value.clone(),
                    ..*variable
                })
                .collect(),
            )
        };
        (0..self.0.len())
            .find(|at| builds(&without(*at)))
            .and_then(|at| self.0.get(at))
            .map(|found| found.name.as_str())
    }
}

pub(super) fn is_true(value: &str) -> bool {
    ["true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether an address is one of this machine, where nobody is on the way.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey;
    use object_store::azure::AzureConfigKey;

    use super::*;

    fn known<K: FromStr + PartialEq>(prefix: &str, variables: &[(&str, &str)]) -> Result<Variables<K>> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Variables::known(&StoreSettings { variables, ..StoreSettings::default() }, prefix)
    }

    #[test]
    fn variables_reach_the_builder_that_knows_them() {
        let known = known::<AmazonS3ConfigKey>(
            "AWS_",
            &[
                ("AWS_ENDPOINT_URL", "https://s3.example"),
                ("AWS_REGION", "here"),
                ("AWS_SESSION_TOKEN", ""),
                ("AWS_PAGER", "less"),
                ("REGION", "not with this name"),
                ("GOOGLE_BUCKET", "other"),
            ],
        );
        let known: Vec<_> = known.unwrap().0.into_iter().map(|variable| (variable.key, variable.value)).collect();
        let expected = [
            (AmazonS3ConfigKey::Endpoint, "https://s3.example".to_owned()),
            (AmazonS3ConfigKey::Region, "here".into()),
        ];
        assert_eq!(known, expected);
    }

    #[test]
    fn the_names_of_the_azure_tools_count_too() {
        let known = known::<AzureConfigKey>("AZURE_", &[("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_STORAGE_KEY", "k")]);
        let known = known.unwrap();
        assert_eq!(known.get(AzureConfigKey::AccountName).unwrap().value, "a");
        assert_eq!(known.get(AzureConfigKey::AccessKey).unwrap().value, "k");
    }

    #[test]
    fn a_value_that_no_client_can_send_is_refused_and_not_repeated() {
        for value in ["SECRET\n", "SECRET\0", "SECRETé"] {
            let error = known::<AmazonS3ConfigKey>("AWS_", &[("AWS_SECRET_ACCESS_KEY", value)]).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("AWS_SECRET_ACCESS_KEY has a line break") && !text.contains("SECRET\n"), "{text}");
            assert!(!text.contains(value), "{text}");
        }
    }

    #[test]
    fn an_address_is_one() {
        let key = AmazonS3ConfigKey::Endpoint;
        for wrong in
            ["localhost:9000", "127.0.0.1:9000", "s3.example", "ftp://host", "http://", "https:///x", " https://x"]
        {
            let error = known("AWS_", &[("AWS_ENDPOINT_URL", wrong)]).unwrap().address(key).unwrap_err();
            assert!(error.to_string().starts_with("AWS_ENDPOINT_URL is not an address"), "{wrong}: {error}");
        }
        let known = known("AWS_", &[("AWS_ENDPOINT_URL", "HTTP://10.0.0.1:1/x")]).unwrap();
        assert_eq!(known.address(key).unwrap().unwrap().as_str(), "http://10.0.0.1:1/x");
        assert!(known.address(AmazonS3ConfigKey::StsEndpoint).unwrap().is_none());
    }
}
