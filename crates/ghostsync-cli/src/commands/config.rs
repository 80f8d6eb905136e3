//! `config`: the configuration in force, and where each setting comes from.

use clap::ValueEnum;
use ghostsync_core::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Origin, Settings};
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

/// Variables of the clouds that hold no secret; whatever is not named here is masked.
const SHOWN: [&str; 17] = [
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_TENANT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BUCKET",
];

#[derive(Debug, Serialize)]
struct Line {
    key: String,
    value: Value,
    origin: String,
}

pub(super) fn run(context: &mut Context) -> Result<Exit> {
    let lines = lines(&context.settings);
    if context.output.is_json() {
        let file = context.settings.file.as_ref().map(|file| file.to_string_lossy());
        context.output.json(&json!({"file": file, "settings": lines}))?;
        return Ok(Exit::Done);
    }
    let shown = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows: Vec<_> =
        lines.iter().map(|line| vec![line.key.clone(), shown(&line.value), line.origin.clone()]).collect();
    for line in human::table(&["SETTING", "VALUE", "ORIGIN"], &rows) {
        context.output.line(line)?;
    }
    Ok(Exit::Done)
}

fn lines(settings: &Settings) -> Vec<Line> {
    let line = |key: &str, value: Value, origin: &Origin| Line { key: key.into(), value, origin: origin.to_string() };
    let repo = settings.repo.value.as_deref().map(human::without_password);
    let cache = settings.cache_dir.value.as_ref().map(|dir| dir.to_string_lossy());
    let progress = settings.progress.value.to_possible_value().map(|value| value.get_name().to_owned());
    let retry = format!("{}s", settings.retry_time.value.as_secs());
    let mut lines = vec![
        line("repo", json!(repo), &settings.repo.origin),
        line("cache-dir", json!(cache), &settings.cache_dir.origin),
        line("log", json!(settings.log.value.name()), &settings.log.origin),
        line("progress", json!(progress), &settings.progress.origin),
        line("limit-upload", json!(settings.limit_upload.value), &settings.limit_upload.origin),
        line("limit-download", json!(settings.limit_download.value), &settings.limit_download.origin),
        line("connections", json!(settings.connections.value), &settings.connections.origin),
        line("retry-time", json!(retry), &settings.retry_time.origin),
    ];
    lines.extend(settings.cloud.iter().map(|(key, value)| Line {
        key: key.clone(),
        value: json!(if SHOWN.contains(&key.as_str()) { human::without_password(value) } else { "***".to_owned() }),
        origin: "environment".into(),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use crate::config::Surroundings;

    #[test]
    fn secrets_are_masked() {
        let variables = [
            ("AWS_SECRET_ACCESS_KEY", "hidden1"),
            ("AWS_SESSION_TOKEN", "hidden2"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "hidden3"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "hidden4"),
            ("AWS_ENDPOINT_URL", "https://me:hidden5@host"),
            ("GHOSTSYNC_REPO", "https://me:hidden6@host/x"),
            ("AWS_REGION", "eu-north-1"),
        ];
        let surroundings = Surroundings {
            variables: variables.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            ..Surroundings::default()
        };
        let settings = Settings::resolve(&Global::default(), &surroundings).expect("resolves");
        let text = serde_json::to_string(&lines(&settings)).expect("encodes");
        assert!(!text.contains("hidden"), "{text}");
        for part in ["eu-north-1", "https://me:***@host", "AWS_SECRET_ACCESS_KEY", "environment GHOSTSYNC_REPO"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
