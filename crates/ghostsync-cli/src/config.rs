//! The configuration in force: flag, then environment, then file, then default, each value with its origin.
//!
//! Resolving is a pure function of those four, so that tests need no process of their own.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use ghostsync_core::Result;
use ghostsync_core::store::StoreSettings;
use serde::Deserialize;

use crate::args::{Global, ProgressWhen, Size, Span};
use crate::settings::{self, cloud_variables, invalid, parse_file};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verbosity {
    /// Errors alone.
    Quiet,
    /// What a person wants to know.
    Normal,
    /// Every problem, and what it cost.
    Verbose,
    /// The configuration too.
    Debug,
}

impl Verbosity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Normal => "normal",
            Self::Verbose => "verbose",
            Self::Debug => "debug",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Quiet, Self::Normal, Self::Verbose, Self::Debug].into_iter().find(|level| level.name() == text)
    }
}

/// Every setting that does not belong to one command.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) repo: Setting<Option<String>>,
    pub(crate) cache_dir: Setting<Option<PathBuf>>,
    pub(crate) log: Setting<Verbosity>,
    pub(crate) progress: Setting<ProgressWhen>,
    pub(crate) limit_upload: Setting<Option<u64>>,
    pub(crate) limit_download: Setting<Option<u64>>,
    pub(crate) connections: Setting<u16>,
    pub(crate) retry_time: Setting<Duration>,
    pub(crate) json: bool,
    /// The file that was read, if there was one.
    pub(crate) file: Option<PathBuf>,
    /// Whether it was named on the command line.
    pub(crate) file_was_named: bool,
    /// The clouds' own variables, as they are in the environment.
    pub(crate) cloud: Vec<(String, String)>,
}

/// What the process was started with, besides its arguments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// The platform's folder of configurations.
    pub(crate) config_folder: Option<PathBuf>,
    /// The platform's folder of caches.
    pub(crate) cache_folder: Option<PathBuf>,
}

impl Surroundings {
    /// Looks at this process.
    pub(crate) fn of_process() -> Self {
        let folders = etcetera::choose_base_strategy().ok();
        Self {
            variables: std::env::vars_os().collect(),
            config_folder: folders.as_ref().map(BaseStrategy::config_dir),
            cache_folder: folders.as_ref().map(BaseStrategy::cache_dir),
        }
    }

    /// A variable of ours. One that is set but empty is a mistake in a manifest, and not the same as absent.
    fn variable(&self, name: &'static str) -> Result<Option<String>> {
        let Some((_, value)) = self.variables.iter().find(|(key, _)| key == name) else { return Ok(None) };
        match value.to_str() {
            Some("") => Err(invalid(format!("{name} is set, but empty"))),
            Some(value) => Ok(Some(value.to_owned())),
            None => Err(invalid(format!("{name} is not UTF-8"))),
        }
    }
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    repo: Option<String>,
    cache_dir: Option<PathBuf>,
    log: Option<Verbosity>,
    progress: Option<ProgressWhen>,
    limit_upload: Option<Size>,
    limit_download: Option<Size>,
    connections: Option<u16>,
    retry_time: Option<Span>,
}

impl Settings {
    /// Resolves every setting.
    ///
    /// # Errors
    /// `Invalid` for a file that cannot be read or is wrong, and for a variable that is.
    pub(crate) fn resolve(flags: &Global, surroundings: &Surroundings) -> Result<Self> {
        let (path, file) = read_file(flags.config.as_deref(), surroundings)?;
        let from_file = |given: bool| match &path {
            Some(path) if given => Origin::File(path.clone()),
            _ => Origin::Default,
        };
        let default_cache = surroundings.cache_folder.as_ref().map(|folder| folder.join("ghostsync"));
        let repo = surroundings.variable("GHOSTSYNC_REPO")?;
        let cache_dir = surroundings.variable("GHOSTSYNC_CACHE_DIR")?.map(PathBuf::from);
        let log = match surroundings.variable("GHOSTSYNC_LOG")? {
            Some(text) => Some(Verbosity::parse(&text).ok_or_else(|| {
                invalid(format!("GHOSTSYNC_LOG is {text:?}; it can be quiet, normal, verbose or debug"))
            })?),
            None => None,
        };
        if file.connections.is_some_and(|connections| !(1..=1024).contains(&connections)) {
            return Err(invalid(format!("{}: connections must be between 1 and 1024", from_file(true))));
        }
        Ok(Self {
            repo: pick(
                flags.repo.clone().map(|repo| (repo, Origin::Flag("--repo"))),
                repo.map(|repo| (repo, Origin::Environment("GHOSTSYNC_REPO"))),
                file.repo.map(|repo| (repo, from_file(true))),
            ),
            cache_dir: or_default(
                pick(
                    flags.cache_dir.clone().map(|dir| (dir, Origin::Flag("--cache-dir"))),
                    cache_dir.map(|dir| (dir, Origin::Environment("GHOSTSYNC_CACHE_DIR"))),
                    file.cache_dir.map(|dir| (dir, from_file(true))),
                ),
                default_cache,
            ),
            log: with_default(
                pick(
                    verbosity_flag(flags),
                    log.map(|log| (log, Origin::Environment("GHOSTSYNC_LOG"))),
                    file.log.map(|log| (log, from_file(true))),
                ),
                Verbosity::Normal,
            ),
            progress: with_default(
                pick(
                    flags.progress.map(|when| (when, Origin::Flag("--progress"))),
                    None,
                    file.progress.map(|when| (when, from_file(true))),
                ),
                ProgressWhen::Auto,
            ),
            limit_upload: pick(
                flags.limit_upload.map(|size| (size.0, Origin::Flag("--limit-upload"))),
                None,
                file.limit_upload.map(|size| (size.0, from_file(true))),
            ),
            limit_download: pick(
                flags.limit_download.map(|size| (size.0, Origin::Flag("--limit-download"))),
                None,
                file.limit_download.map(|size| (size.0, from_file(true))),
            ),
            connections: with_default(
                pick(
                    flags.connections.map(|most| (most, Origin::Flag("--connections"))),
                    None,
                    file.connections.map(|most| (most, from_file(true))),
                ),
                8,
            ),
            retry_time: with_default(
                pick(
                    flags.retry_time.map(|span| (span.0, Origin::Flag("--retry-time"))),
                    None,
                    file.retry_time.map(|span| (span.0, from_file(true))),
                ),
                Duration::from_secs(60),
            ),
            json: flags.json,
            file: path.clone(),
            file_was_named: flags.config.is_some(),
            cloud: cloud_variables(&surroundings.variables)?,
        })
    }

    /// How the store is reached.
    pub(crate) fn store(&self) -> StoreSettings {
        StoreSettings {
            variables: self.cloud.clone(),
            connections: usize::from(self.connections.value),
            retry_time: self.retry_time.value,
            limit_upload: self.limit_upload.value,
            limit_download: self.limit_download.value,
        }
    }

    /// The URL of the repository.
    ///
    /// # Errors
    /// `Invalid` if none is given anywhere.
    pub(crate) fn repo(&self) -> Result<&str> {
        let message = "no repository is given: use --repo, GHOSTSYNC_REPO, or 'repo' in the config file";
        self.repo.value.as_deref().ok_or_else(|| invalid(message))
    }

    /// The folder of a repository that lies in the local file system.
    pub(crate) fn local_repository(&self) -> Option<PathBuf> {
        let repo = self.repo.value.as_deref()?;
        settings::local_repository(repo)
    }
}

type Given<T> = Option<(T, Origin)>;

fn pick<T>(flag: Given<T>, environment: Given<T>, file: Given<T>) -> Setting<Option<T>> {
    match flag.or(environment).or(file) {
        Some((value, origin)) => Setting { value: Some(value), origin },
        None => Setting { value: None, origin: Origin::Default },
    }
}

fn or_default<T>(setting: Setting<Option<T>>, default: Option<T>) -> Setting<Option<T>> {
    Setting { value: setting.value.or(default), origin: setting.origin }
}

fn with_default<T>(setting: Setting<Option<T>>, default: T) -> Setting<T> {
    Setting { value: setting.value.unwrap_or(default), origin: setting.origin }
}

fn verbosity_flag(flags: &Global) -> Given<Verbosity> {
    match flags.verbose {
        _ if flags.quiet => Some((Verbosity::Quiet, Origin::Flag("--quiet"))),
        0 => None,
        1 => Some((Verbosity::Verbose, Origin::Flag("--verbose"))),
        _ => Some((Verbosity::Debug, Origin::Flag("--verbose"))),
    }
}

/// Reads the file that is named, or the default one if it is there. One that is named must be there.
fn read_file(named: Option<&Path>, surroundings: &Surroundings) -> Result<(Option<PathBuf>, File)> {
    let default = || surroundings.config_folder.as_ref().map(|folder| folder.join("ghostsync/config.toml"));
    let Some(path) = named.map(Path::to_owned).or_else(default) else { return Ok((None, File::default())) };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let file = parse_file(&path, &text)?;
            Ok((Some(path), file))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok((None, File::default())),
        Err(error) => Err(invalid(format!("cannot read the config file {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use ghostsync_core::ErrorKind;

    use super::*;

    fn surroundings(variables: &[(&str, &str)], config_folder: Option<&Path>) -> Surroundings {
        Surroundings {
            variables: variables.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            config_folder: config_folder.map(Path::to_owned),
            cache_folder: Some("/caches".into()),
        }
    }

    fn folder_with(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("ghostsync")).expect("a folder");
        std::fs::write(folder.path().join("ghostsync/config.toml"), text).expect("a file");
        folder
    }

    #[test]
    fn flag_then_environment_then_file_then_default() {
        let folder = folder_with("repo = 'file'\ncache-dir = '/file'\nconnections = 3\nlimit-upload = '2MB'\n");
        let variables = [("GHOSTSYNC_REPO", "environment"), ("GHOSTSYNC_CACHE_DIR", "/environment")];
        let around = surroundings(&variables, Some(folder.path()));
        let flags = Global { repo: Some("flag".into()), ..Global::default() };
        let settings = Settings::resolve(&flags, &around).expect("resolves");
        let file = Origin::File(folder.path().join("ghostsync/config.toml"));
        assert_eq!(settings.repo, Setting { value: Some("flag".into()), origin: Origin::Flag("--repo") });
        let environment = Origin::Environment("GHOSTSYNC_CACHE_DIR");
        assert_eq!(settings.cache_dir, Setting { value: Some("/environment".into()), origin: environment });
        assert_eq!(settings.connections, Setting { value: 3, origin: file.clone() });
        assert_eq!(settings.limit_upload, Setting { value: Some(2_000_000), origin: file.clone() });
        assert_eq!(settings.retry_time, Setting { value: Duration::from_secs(60), origin: Origin::Default });

        let settings =
            Settings::resolve(&Global::default(), &surroundings(&[], Some(folder.path()))).expect("resolves");
        assert_eq!(settings.repo, Setting { value: Some("file".into()), origin: file });
        let settings = Settings::resolve(&Global::default(), &surroundings(&[], None)).expect("resolves");
        assert_eq!(settings.repo, Setting { value: None, origin: Origin::Default });
        assert_eq!(settings.cache_dir.value, Some("/caches/ghostsync".into()));
        assert_eq!(settings.repo().map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let folder = folder_with("# mine\nrepo = 'x'\ncache_dir = '/y'\n");
        let error = Settings::resolve(&Global::default(), &surroundings(&[], Some(folder.path()))).expect_err("wrong");
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(message.contains("ghostsync/config.toml:3: ") && message.contains("`cache_dir`"), "{message}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let flags = Global { config: Some("/nowhere/at/all.toml".into()), ..Global::default() };
        assert!(Settings::resolve(&flags, &Surroundings::default()).is_err());
    }

    #[test]
    fn an_empty_variable_is_not_an_absent_one() {
        for (name, value) in [("GHOSTSYNC_REPO", ""), ("GHOSTSYNC_LOG", "loud")] {
            let error =
                Settings::resolve(&Global::default(), &surroundings(&[(name, value)], None)).expect_err("wrong");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn only_the_clouds_own_variables_are_passed_on() {
        let variables =
            [("AWS_REGION", "eu"), ("HOME", "/root"), ("AZURE_X", "1"), ("XAWS_Y", "2"), ("WEBDAV_USERNAME", "u")];
        let settings = Settings::resolve(&Global::default(), &surroundings(&variables, None)).expect("resolves");
        let names: Vec<_> = settings.store().variables.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["AWS_REGION", "AZURE_X", "WEBDAV_USERNAME"]);
    }

    #[test]
    fn a_variable_of_a_cloud_that_is_no_text_is_refused_by_its_name() {
        use std::os::unix::ffi::OsStringExt;

        let mut around = surroundings(&[], None);
        around.variables.push(("LESS".into(), OsString::from_vec(vec![0xff])));
        assert!(Settings::resolve(&Global::default(), &around).is_ok());
        around.variables.push(("AWS_SECRET_ACCESS_KEY".into(), OsString::from_vec(vec![0xff])));
        let error = Settings::resolve(&Global::default(), &around).expect_err("refused");
        assert_eq!(error.to_string(), "AWS_SECRET_ACCESS_KEY is not valid UTF-8");
    }

    #[test]
    fn a_local_repository_is_known() {
        let local = |repo: &str| {
            let flags = Global { repo: Some(repo.into()), ..Global::default() };
            Settings::resolve(&flags, &surroundings(&[], None)).expect("resolves").local_repository()
        };
        assert_eq!(local("file:///a%20b"), Some("/a b".into()));
        assert_eq!(local("some/path"), Some("some/path".into()));
        assert_eq!(local("s3://bucket/x"), None);
        assert_eq!(local("memory:"), None);
    }
}
