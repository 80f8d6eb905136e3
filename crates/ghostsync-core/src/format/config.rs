//! `config.json`: what a repository is, written once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FORMAT, FormatError};
use crate::id::RepositoryId;

/// The most bytes that `config.json` may have.
pub const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// How commits are made visible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitMode {
    /// The store creates an object at most once; a commit is such a create.
    #[default]
    Atomic,
    /// The store cannot; races are detected and settled afterwards.
    Detect,
}

/// How files are cut into chunks. Advice for writers; no reader depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunker {
    /// The name of the rule: `fastcdc2020`.
    pub kind: String,
    /// Files up to this size are one chunk.
    pub whole_bytes: u32,
    /// The smallest chunk of a larger file.
    pub min_bytes: u32,
    /// The chunk size aimed at.
    pub average_bytes: u32,
    /// The largest chunk.
    pub max_bytes: u32,
    /// The windows in which SQLite databases over `whole_bytes` are cut instead: a power of two, or 0 for none.
    ///
    /// A configuration that does not say so means [`DATABASE_WINDOW_BYTES`], and the usual value is not written.
    #[serde(default = "database_window_bytes", skip_serializing_if = "is_database_window_bytes")]
    pub database_window_bytes: u32,
}

/// The windows in which databases are cut unless the configuration says otherwise: the largest page of SQLite.
pub const DATABASE_WINDOW_BYTES: u32 = 64 << 10;

fn database_window_bytes() -> u32 {
    DATABASE_WINDOW_BYTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_database_window_bytes(bytes: &u32) -> bool {
    *bytes == DATABASE_WINDOW_BYTES
}

impl Default for Chunker {
    fn default() -> Self {
        Self {
            kind: "fastcdc2020".into(),
            whole_bytes: 1 << 20,
            min_bytes: 256 << 10,
            average_bytes: 1 << 20,
            max_bytes: 4 << 20,
            database_window_bytes: DATABASE_WINDOW_BYTES,
        }
    }
}

/// The content of `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The version of the format.
    pub format: u32,
    /// Which repository this is.
    pub repository: RepositoryId,
    /// When it was made; information only.
    pub created: Timestamp,
    /// How commits are made visible.
    pub commit_mode: CommitMode,
    /// How files are cut.
    pub chunker: Chunker,
    /// The compression of frames: `zstd`.
    pub compression: String,
    /// Reserved.
    pub encryption: Option<serde_json::Value>,
    /// Features without which nobody may read.
    pub read_features: Vec<String>,
    /// Features without which nobody may write.
    pub write_features: Vec<String>,
}

impl Config {
    /// The configuration of a new repository.
    #[must_use]
    pub fn new(repository: RepositoryId, created: Timestamp, commit_mode: CommitMode) -> Self {
        Self {
            format: FORMAT,
            repository,
            created,
            commit_mode,
            chunker: Chunker::default(),
            compression: "zstd".into(),
            encryption: None,
            read_features: Vec::new(),
            write_features: Vec::new(),
        }
    }

    /// Encodes it as canonical JSON with a line end.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut bytes =
            super::canonical_json(self).map_err(|source| FormatError::Json { what: "configuration", source })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Decodes it for reading.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for a newer format, encryption, another compression or an unknown read feature;
    /// otherwise what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let what = "configuration";
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(FormatError::TooLarge { what, limit: MAX_CONFIG_BYTES });
        }
        let json = |source| FormatError::Json { what, source };
        // The version first: a newer format may have other fields.
        let version: Version = serde_json::from_slice(bytes).map_err(json)?;
        if version.format != FORMAT {
            return Err(FormatError::Unsupported(format!(
                "the repository has format {}, this version reads format {FORMAT}",
                version.format
            )));
        }
        let config: Self = serde_json::from_slice(bytes).map_err(json)?;
        if let Some(feature) = config.read_features.first() {
            return Err(FormatError::Unsupported(format!("the repository needs the unknown read feature {feature:?}")));
        }
        if config.encryption.is_some() {
            return Err(FormatError::Unsupported("the repository is encrypted".into()));
        }
        if config.compression != "zstd" {
            return Err(FormatError::Unsupported(format!("the repository is compressed by {:?}", config.compression)));
        }
        Ok(config)
    }

    /// Checks that this version may also write.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for an unknown write feature.
    pub fn check_writable(&self) -> Result<(), FormatError> {
        match self.write_features.first() {
            Some(feature) => {
                Err(FormatError::Unsupported(format!("the repository needs the unknown write feature {feature:?}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(RepositoryId::from_bytes([7; 16]), Timestamp::UNIX_EPOCH, CommitMode::Atomic)
    }

    #[test]
    fn round_trips() {
        let bytes = config().encode().expect("encodes");
        assert_eq!(Config::decode(&bytes).expect("decodes"), config());
    }

    #[test]
    fn a_configuration_without_a_word_on_databases_means_the_usual_windows() {
        let bytes = config().encode().expect("encodes");
        assert!(!String::from_utf8_lossy(&bytes).contains("database"));
        assert_eq!(Config::decode(&bytes).expect("decodes").chunker.database_window_bytes, DATABASE_WINDOW_BYTES);
        let other = Config { chunker: Chunker { database_window_bytes: 0, ..Chunker::default() }, ..config() };
        assert_eq!(Config::decode(&other.encode().expect("encodes")).expect("decodes"), other);
    }

    #[test]
    fn what_it_does_not_know_it_does_not_touch() {
        for change in [
            Config { format: 2, ..config() },
            Config { read_features: vec!["x".into()], ..config() },
            Config { compression: "lz4".into(), ..config() },
            Config { encryption: Some("aes".into()), ..config() },
        ] {
            let bytes = change.encode().expect("encodes");
            assert!(matches!(Config::decode(&bytes), Err(FormatError::Unsupported(_))), "{change:?}");
        }
        let writable = Config { write_features: vec!["x".into()], ..config() };
        let read = Config::decode(&writable.encode().expect("encodes")).expect("readable");
        assert!(matches!(read.check_writable(), Err(FormatError::Unsupported(_))));
        let newer = br#"{"format":2,"everything":"else"}"#;
        assert!(matches!(Config::decode(newer), Err(FormatError::Unsupported(_))));
    }
}
