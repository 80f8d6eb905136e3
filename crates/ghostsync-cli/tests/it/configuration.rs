//! Flag, then environment, then file, then default.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn setting(sandbox: &Sandbox, args: &[&str], key: &str) -> (Value, String) {
    let document = sandbox.json(0, &[&["config"], args].concat());
    let settings = document["settings"].as_array().expect("a list");
    let line = settings.iter().find(|line| line["key"] == key).expect("the setting");
    (line["value"].clone(), line["origin"].as_str().expect("a text").to_owned())
}

#[test]
fn the_first_that_is_given_counts() {
    let sandbox = Sandbox::new();
    sandbox.write("home/.config/ghostsync/config.toml", "repo = 's3://file/x'\nconnections = 3\nlog = 'verbose'\n");
    let environment = json!(sandbox.path("repository"));
    assert_eq!(setting(&sandbox, &[], "repo"), (environment, "environment GHOSTSYNC_REPO".into()));
    assert_eq!(setting(&sandbox, &["--repo", "s3://flag/x"], "repo"), (json!("s3://flag/x"), "flag --repo".into()));
    let (connections, origin) = setting(&sandbox, &[], "connections");
    assert_eq!(connections, json!(3));
    assert!(origin.starts_with("file ") && origin.ends_with("ghostsync/config.toml"), "{origin}");
    assert_eq!(setting(&sandbox, &["-q"], "log"), (json!("quiet"), "flag --quiet".into()));
    assert_eq!(setting(&sandbox, &[], "retry-time"), (json!("60s"), "default".into()));
    let (cache, _) = setting(&sandbox, &[], "cache-dir");
    assert_eq!(cache, json!(sandbox.path("home/.cache/ghostsync")));
    sandbox.write("other.toml", "connections = 5\n");
    assert_eq!(setting(&sandbox, &["--config", "other.toml"], "connections").0, json!(5));
}

#[test]
fn mistakes_are_named() {
    let sandbox = Sandbox::new();
    for (text, part) in [
        ("\nrepos = 'x'\n", "config.toml:2: unknown field `repos`"),
        ("connections = 0\n", "connections must be between 1 and 1024"),
        ("limit-upload = 'fast'\n", "config.toml:1: not a size"),
        ("repo = [\n", "config.toml:"),
    ] {
        sandbox.write("config.toml", text);
        let ran = sandbox.run(&["config", "--config", "config.toml"]);
        assert_eq!(ran.code, 2, "{text}");
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
}

#[test]
fn secrets_do_not_appear() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["config"]);
    command.env("AWS_SECRET_ACCESS_KEY", "hidden").env("AWS_REGION", "eu-north-1");
    let output = command.env("GHOSTSYNC_REPO", "https://me:hidden@host/x").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("AWS_SECRET_ACCESS_KEY") && text.contains("eu-north-1") && !text.contains("hidden"),
        "{text}"
    );
}
