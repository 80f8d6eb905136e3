//! Where settings come from: a flag, then `GHOSTSYNC_*`, then the file, then the default.
//!
//! All of it is derived from the arguments themselves, so that no flag can lack a variable or a key: clap reads the
//! variables, and what the file says takes the place of the default.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches};
use ghostsync_cli::settings::{invalid, parse_file};
use ghostsync_core::{Error, Result};

use crate::args::Cli;

/// What was wrong with what the program was given.
#[derive(Debug)]
pub enum Wrong {
    /// The command line, or a value in it or in a variable; or help was asked for.
    Words(clap::Error),
    /// The environment or the file.
    Setting(Error),
}

/// Parses the command line, the environment and the file.
///
/// # Errors
/// [`Wrong`].
pub fn parse(words: &[OsString], variables: &[(OsString, OsString)]) -> std::result::Result<Cli, Wrong> {
    let command = Cli::command();
    if reads_variables(&command, words) {
        check_variables(&command, variables).map_err(Wrong::Setting)?;
    }
    let command = match file_named(words, variables) {
        Some(path) => with_file(command, &path).map_err(Wrong::Setting)?,
        None => command,
    };
    command.try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches)).map_err(Wrong::Words)
}

/// Every variable of ours that some command knows.
pub(crate) fn known(command: &clap::Command) -> BTreeSet<OsString> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env().map(OsStr::to_owned));
    own.chain(command.get_subcommands().flat_map(known)).collect()
}

/// Whether what is called reads variables at all. One that does not, `lint` say, is called in places where others are
/// set.
fn reads_variables(command: &clap::Command, words: &[OsString]) -> bool {
    let called = words.get(1).and_then(|word| command.find_subcommand(word));
    called.is_none_or(|called| !known(called).is_empty())
}

/// Refuses variables that look like ours and are not: a typing error would otherwise be a setting that is not in force.
///
/// A Service that is called `ghostsync` makes Kubernetes set `GHOSTSYNC_PORT`, `GHOSTSYNC_SERVICE_HOST` and others:
/// those are not meant for us.
fn check_variables(command: &clap::Command, variables: &[(OsString, OsString)]) -> Result<()> {
    let known = known(command);
    for (name, value) in variables {
        let Some(text) = name.to_str().filter(|name| name.starts_with("GHOSTSYNC_")) else { continue };
        if known.contains(name) {
            // One that is set but empty is a mistake in a manifest, and not the same as absent.
            if value.is_empty() {
                return Err(invalid(format!("{text} is set, but empty")));
            }
        } else if !is_injected(text) {
            return Err(invalid(format!("{text} is no setting of ghostsync-k8s")));
        }
    }
    Ok(())
}

pub(crate) fn is_injected(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT")
}

/// The file that is named, before anything else is parsed.
fn file_named(words: &[OsString], variables: &[(OsString, OsString)]) -> Option<PathBuf> {
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    variables.iter().find(|(name, _)| name == "GHOSTSYNC_CONFIG").map(|(_, path)| path.into())
}

/// Puts what the file says in the place of the defaults.
fn with_file(mut command: clap::Command, path: &std::path::Path) -> Result<clap::Command> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot read the config file {}: {error}", path.display())))?;
    let table: toml::Table = parse_file(path, &text)?;
    for (key, value) in &table {
        let values = texts(value).ok_or_else(|| invalid(format!("{}: {key} is no text", path.display())))?;
        let mut is_known = false;
        command = command.mut_subcommands(|subcommand| {
            let (changed, found) = with_default(subcommand, key, &values);
            is_known |= found;
            changed
        });
        if !is_known || key == "config" {
            return Err(invalid(format!("{}: {key} is no setting of ghostsync-k8s", path.display())));
        }
    }
    Ok(command)
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(is) => Some(vec![is.to_string()]),
        toml::Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Only what has a variable has a key: the rest is said where a command is called.
fn with_default(command: clap::Command, key: &str, values: &[String]) -> (clap::Command, bool) {
    let id = command.get_arguments().find(|arg| arg.get_long() == Some(key) && arg.get_env().is_some());
    let Some(id) = id.map(|arg| arg.get_id().to_string()) else { return (command, false) };
    let values: Vec<String> = values.to_vec();
    let changed = command.mut_arg(id, |arg| {
        let values = if matches!(arg.get_action(), ArgAction::Append) { values } else { vec![values.join("\n")] };
        arg.required(false).default_values(values)
    });
    (changed, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    fn parsed(words: &str, variables: &[(&str, &str)]) -> std::result::Result<Cli, Wrong> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        parse(&words, &variables)
    }

    fn setting(words: &str, variables: &[(&str, &str)]) -> String {
        match parsed(words, variables) {
            Err(Wrong::Setting(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flag_then_file_then_default() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("k8s.toml");
        std::fs::write(
            &file,
            "repo = 's3://file/x'\ninterval = '7s'\nbranch = 'blog'\nstrict = true\nconnections = 3\n\
             exclude = ['a b', '*.tmp']\n",
        )
        .expect("writes");
        let words = format!("g sync --config {} --path /data --branch flag", file.display());
        let Command::Sync(args) = parsed(&words, &[]).expect("parses").command else { panic!("another command") };
        assert_eq!((args.pod.repo.as_str(), args.pod.branch.as_str()), ("s3://file/x", "flag"));
        assert_eq!((args.interval.0.as_secs(), args.pod.connections, args.strict), (7, 3, true));
        assert_eq!(args.pod.exclude, ["a b", "*.tmp"]);
        assert_eq!(args.quiet.0.as_secs(), 2);
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("k8s.toml");
        let path = file.display();
        for (text, says) in
            [("intervals = '7s'", "intervals is no setting"), ("url = 'x'", "url is no setting"), ("a = ", ":1:")]
        {
            std::fs::write(&file, text).expect("writes");
            let message = setting(&format!("g sync --config={path} --repo r --path /data"), &[]);
            assert!(message.contains(says), "{message}");
        }
        let message = setting("g sync --repo r", &[("GHOSTSYNC_CONFIG", "/nowhere/x.toml")]);
        assert!(message.contains("/nowhere/x.toml"), "{message}");
    }

    #[test]
    fn ghostsync_port_of_a_service_called_ghostsync_is_not_ours_and_a_typing_error_is() {
        let injected = [
            ("GHOSTSYNC_PORT", "tcp://10.0.0.1:9108"),
            ("GHOSTSYNC_PORT_9108_TCP_ADDR", "10.0.0.1"),
            ("GHOSTSYNC_SERVICE_HOST", "10.0.0.1"),
            ("GHOSTSYNC_SERVICE_PORT_METRICS", "9108"),
            ("OTHER_REPO", ""),
        ];
        assert!(parsed("g sync --repo r --path /data", &injected).is_ok());
        let message = setting("g sync --repo r --path /data", &[("GHOSTSYNC_INTERVALS", "30s")]);
        assert_eq!(message, "GHOSTSYNC_INTERVALS is no setting of ghostsync-k8s");
        assert_eq!(setting("g sync", &[("GHOSTSYNC_REPO", "")]), "GHOSTSYNC_REPO is set, but empty");
    }

    #[test]
    fn a_command_that_reads_no_variables_refuses_none() {
        let variables = [("GHOSTSYNC_REPOSITORIES", "x"), ("GHOSTSYNC_REPO", "")];
        for words in ["g lint pod.yaml", "g manifest --mode native", "g health --url http://127.0.0.1:2368/"] {
            assert!(parsed(words, &variables).is_ok(), "{words}");
        }
        for words in ["g restore --path /data", "g sync", "g ctl status"] {
            assert!(matches!(parsed(words, &variables[..1]), Err(Wrong::Setting(_))), "{words}");
        }
    }

    #[test]
    fn no_setting_has_a_name_that_kubernetes_may_set() {
        let command = Cli::command();
        let names = known(&command);
        assert!(names.len() > 20, "{names:?}");
        for name in names.iter().filter_map(|name| name.to_str()) {
            assert!(name.starts_with("GHOSTSYNC_") && !is_injected(name), "{name}");
        }
    }

    #[test]
    fn every_variable_is_called_like_its_flag() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                let long = arg.get_long().expect("a flag");
                let name = format!("GHOSTSYNC_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env(), Some(OsStr::new(&name)));
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
        Cli::command().debug_assert();
    }
}
