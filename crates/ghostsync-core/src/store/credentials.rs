//! Where credentials come from, so that an error says which variable to look at.
//!
//! Clients fetch short-lived credentials just before a request, and fail as if the store had failed. Here every such
//! failure gets the name of its origin, and keeps it wherever it surfaces.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::CredentialProvider;

/// Credentials that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("no credentials from {origin}")]
pub(super) struct NoCredentials {
    pub(super) origin: &'static str,
    source: object_store::Error,
}

/// Credentials of a known origin.
struct Named<C> {
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    origin: &'static str,
}

impl<C> fmt::Debug for Named<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials from {}", self.origin)
    }
}

#[async_trait]
impl<C: Send + Sync> CredentialProvider for Named<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        self.inner.get_credential().await.map_err(|source| {
            let source = Box::new(NoCredentials { origin: self.origin, source });
            object_store::Error::Generic { store: "credentials", source }
        })
    }
}

/// Gives credentials the name of where they come from.
pub(super) fn named<C: Send + Sync + 'static>(
    inner: &Arc<dyn CredentialProvider<Credential = C>>,
    origin: &'static str,
) -> Arc<dyn CredentialProvider<Credential = C>> {
    Arc::new(Named { inner: Arc::clone(inner), origin })
}

/// The failure to get credentials that an error comes from, if it does.
pub(super) fn missing<'a>(mut chain: impl Iterator<Item = &'a (dyn StdError + 'static)>) -> Option<&'a NoCredentials> {
    chain.find_map(|error| error.downcast_ref::<NoCredentials>())
}
