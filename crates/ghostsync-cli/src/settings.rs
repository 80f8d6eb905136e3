//! What the settings of both commands are made of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ghostsync_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

/// A mistake in what the program was given.
pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message.into())
}

/// The variables of the clouds' own tools, sorted by name.
///
/// # Errors
/// `Invalid` for one that is not UTF-8.
pub fn cloud_variables(variables: &[(OsString, OsString)]) -> Result<Vec<(String, String)>> {
    let is_cloud = |name: &str| ["AWS_", "GOOGLE_", "AZURE_", "WEBDAV_"].iter().any(|prefix| name.starts_with(prefix));
    let mut cloud = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| is_cloud(name)) else { continue };
        let value = value.to_str().ok_or_else(|| invalid(format!("{name} is not valid UTF-8")))?;
        cloud.push((name.to_owned(), value.to_owned()));
    }
    cloud.sort();
    Ok(cloud)
}

/// Parses a configuration file; a mistake is named with its line.
///
/// # Errors
/// `Invalid`.
pub fn parse_file<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map(|span| text.get(..span.start).unwrap_or(text));
        let line = before.map(|before| format!(":{}", before.matches('\n').count() + 1)).unwrap_or_default();
        invalid(format!("{}{line}: {}", path.display(), error.message().trim_end()))
    })
}

/// The folder of a repository that lies in the local file system.
#[must_use]
pub fn local_repository(repo: &str) -> Option<PathBuf> {
    match url::Url::parse(repo) {
        Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
        Ok(_) => None,
        Err(_) => Some(PathBuf::from(repo)),
    }
}

/// A path as it was given and without links, both absolute: what is never content is left out by either name.
///
/// # Errors
/// `Invalid` for an empty path.
pub fn with_and_without_links(path: &Path) -> Result<Vec<PathBuf>> {
    let absolute = std::path::absolute(path).map_err(|error| Error::new(ErrorKind::Invalid, error))?;
    let resolved = resolve(&absolute);
    Ok(if resolved == absolute { vec![absolute] } else { vec![resolved, absolute] })
}

/// The path without links, as far down as it exists.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("exists").join("real");
        std::fs::create_dir(&real).expect("a folder");
        std::os::unix::fs::symlink(&real, folder.path().join("link")).expect("a link");
        assert_eq!(resolve(&folder.path().join("link/not/yet")), real.join("not/yet"));
    }
}
