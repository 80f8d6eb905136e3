//! Prints a complete Deployment around a placeholder app, with a native or a classic sidecar.
//!
//! `deployment.yaml` and `app.yaml` beside this file are the one source of both variants, of the files in `deploy/plain`
//! and of the pods that the tests of `lint` start from. A line `#[native]` or `#[classic]` begins what only that variant
//! has, `#[end]` ends it; `{{name}}` is replaced. What a person hands in stands in the output as a JSON string, which
//! YAML reads as it is.

use std::io::Write;

use clap::{Args, ValueEnum};
use ghostsync_cli::exit::Exit;
use ghostsync_cli::values::Span;
use ghostsync_core::{Error, ErrorKind, Result};

const DEPLOYMENT: &str = include_str!("deployment.yaml");
const APP: &str = include_str!("app.yaml");
/// The new pod waits so much longer than the old one may take.
const WAIT_MARGIN_SECONDS: u64 = 10;
/// What the snapshot on SIGTERM has left after the hook of a classic sidecar.
const DEADLINE_MARGIN_SECONDS: u64 = 20;
/// What a first restore may take beyond that wait, before a rollout counts as failed.
const FIRST_RESTORE_SECONDS: u64 = 1640;

/// The two ways to stand beside an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// An init container that goes on running (Kubernetes 1.29)
    Native,
    /// A container beside the app, with a preStop hook (any version)
    Classic,
}

/// What the printed Deployment is to say.
#[derive(Debug, Clone, Args)]
pub struct ManifestArgs {
    /// How ghostsync stands beside the app
    #[arg(long, value_enum, default_value = "native")]
    pub mode: Mode,
    /// Name of the Deployment, its labels and the app's container
    #[arg(long, default_value = "app", value_parser = label)]
    pub name: String,
    /// Image of ghostsync
    #[arg(long, value_name = "IMAGE", default_value = concat!("registry.example/ghostsync:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// Image of the app
    #[arg(long, value_name = "IMAGE", default_value = "registry.example/app:1")]
    pub app_image: String,
    /// Where the repository lies
    #[arg(long, value_name = "URL", default_value = "s3://bucket/app")]
    pub repo: String,
    /// The directory that is kept, in the app and in ghostsync
    #[arg(long, value_name = "DIR", default_value = "/data")]
    pub path: String,
    /// User and group of all containers
    #[arg(long, value_name = "UID", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub uid: u32,
    /// The name under which the app is asked over https
    #[arg(long, value_name = "NAME", default_value = "app.example.com", value_parser = host)]
    pub host: String,
    /// The app's port
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// The app's process, which a classic sidecar waits for
    #[arg(long, value_name = "NAME", default_value = "app")]
    pub process: String,
    /// terminationGracePeriodSeconds: the app's shutdown, the final snapshot, and 10 s
    #[arg(long, value_name = "DURATION", default_value = "150s", value_parser = grace_seconds)]
    pub grace_period: u64,
    /// The repository's id, as `ghostsync init` printed it, for the first boot
    #[arg(long, value_name = "REPOSITORY-ID", default_value = "REPOSITORY-ID")]
    pub genesis: String,
    /// How often the head is looked at
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub interval: String,
    /// Secret with the credentials of the store
    #[arg(long, value_name = "NAME", default_value = "ghostsync-store", value_parser = label)]
    pub secret: String,
}

/// A name as Kubernetes takes it for labels and objects (RFC 1123).
fn label(text: &str) -> std::result::Result<String, String> {
    let inner = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    if text.is_empty() || text.len() > 63 || !edges || !text.chars().all(inner) {
        return Err("expected up to 63 lower case letters, digits and inner hyphens".to_owned());
    }
    Ok(text.to_owned())
}

fn host(text: &str) -> std::result::Result<String, String> {
    if text.is_empty() || text.split('.').any(|part| label(part).is_err()) {
        return Err("expected a host name, without a scheme".to_owned());
    }
    Ok(text.to_owned())
}

fn grace_seconds(text: &str) -> std::result::Result<u64, String> {
    let span: Span = text.parse()?;
    let seconds = span.0.as_secs();
    // Less would leave nothing for the app, or nothing for the final snapshot.
    if seconds < 60 { Err("expected at least 60s".to_owned()) } else { Ok(seconds) }
}

fn interval(text: &str) -> std::result::Result<String, String> {
    text.parse::<Span>().map(|_| text.to_owned())
}

/// Prints the Deployment on stdout.
///
/// # Errors
/// The local I/O error where stdout cannot be written.
pub fn print(args: &ManifestArgs) -> Result<Exit> {
    let written = std::io::stdout().lock().write_all(render(args).as_bytes());
    written.map(|()| Exit::Done).map_err(|error| Error::new(ErrorKind::LocalIo, error))
}

/// The Deployment, as YAML with comments.
pub fn render(args: &ManifestArgs) -> String {
    let grace = args.grace_period;
    let mode = match args.mode {
        Mode::Native => "native",
        Mode::Classic => "classic",
    };
    let values = [
        ("mode", mode.to_owned()),
        ("name", args.name.clone()),
        ("image", quoted(&args.image)),
        ("app_image", quoted(&args.app_image)),
        ("repo", quoted(&args.repo)),
        ("path", quoted(&args.path)),
        ("uid", args.uid.to_string()),
        ("url", quoted(&format!("https://{}", args.host))),
        ("host", quoted(&args.host)),
        ("port", args.port.to_string()),
        ("wait_process", quoted(&format!("--wait-app=process:{}", args.process))),
        ("grace", grace.to_string()),
        ("wait", (grace + WAIT_MARGIN_SECONDS).to_string()),
        ("deadline", (grace - DEADLINE_MARGIN_SECONDS).to_string()),
        ("progress_deadline", (grace + WAIT_MARGIN_SECONDS + FIRST_RESTORE_SECONDS).to_string()),
        ("genesis", quoted(&format!("--genesis={}", args.genesis))),
        ("interval", args.interval.clone()),
        ("secret", args.secret.clone()),
    ];
    let mut text = select(DEPLOYMENT, mode).replace("{{app}}\n", APP);
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), &value);
    }
    text
}

/// Leaves out the lines of the other mode, and the marks.
fn select(template: &str, mode: &str) -> String {
    let mut taken = true;
    let mut text = String::new();
    for line in template.split_inclusive('\n') {
        match line.trim_end().strip_prefix("#[").and_then(|rest| rest.strip_suffix(']')) {
            Some("end") => taken = true,
            Some(named) => taken = named == mode,
            None if taken => text.push_str(line),
            None => {}
        }
    }
    text
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
