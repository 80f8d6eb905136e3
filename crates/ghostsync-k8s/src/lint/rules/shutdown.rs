//! The end of a pod: hooks, signals, and the time that they share.

use std::time::Duration;

use serde_json::{Value, json};

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::Op;
use crate::lint::pod::{Container, Pod, Setting, duration, flag_in, word_with};

/// What `ghostsync-k8s sync` should have left after the app: uploads, and a margin for the kubelet's whole seconds.
const FINAL_SNAPSHOT_SECONDS: u64 = 30;
const MARGIN_SECONDS: u64 = 10;
/// How long a pod without any knowledge of its app should be given.
const LEAST_GRACE_SECONDS: u64 = 60;
/// `server__shutdownTimeout` of Ghost, if it is not set.
const GHOST_TIMEOUT_SECONDS: u64 = 60;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "final-snapshot-in-prestop",
        severity: Severity::Problem,
        why: "all preStop hooks run at once while the app still writes, and a native sidecar gets its SIGTERM only after \
              the app has gone: the final snapshot belongs there, and in the hook it misses the app's last files",
        find: final_snapshot_in_prestop,
    },
    Rule {
        id: "native-without-prestop",
        severity: Severity::Warning,
        why: "without `ctl terminating` nobody tells a native sidecar that the pod is ending before the app has gone: no \
              early pass, and less of the grace period is left for the final snapshot",
        find: native_without_prestop,
    },
    Rule {
        id: "classic-without-final-sync",
        severity: Severity::Problem,
        why: "a classic sidecar gets its SIGTERM together with the app: only the hook `ctl final-sync` holds it back until \
              the app has written its last file",
        find: classic_without_final_sync,
    },
    Rule {
        id: "final-sync-does-not-wait",
        severity: Severity::Warning,
        why: "without --wait-app the hook takes a pause in the app's writing for its end",
        find: final_sync_does_not_wait,
    },
    Rule {
        id: "final-sync-waits-for-a-port",
        severity: Severity::Note,
        why: "an app that has closed its port goes on writing what it has begun: only --wait-app=process:NAME, in a shared \
              process namespace, sees it go",
        find: final_sync_waits_for_a_port,
    },
    Rule {
        id: "final-sync-deadline",
        severity: Severity::Problem,
        why: "a hook is killed 2 s after the grace period and the snapshot on SIGTERM comes after it: a deadline so late \
              leaves no time for it",
        find: final_sync_deadline,
    },
    Rule {
        id: "process-namespace-not-shared",
        severity: Severity::Warning,
        why: "a closed port is not a gone process, and a classic sidecar sees that the app is gone only in a shared process \
              namespace: what the app writes at its very end may be lost",
        find: process_namespace_not_shared,
    },
    Rule {
        id: "hook-needs-a-shell",
        severity: Severity::Problem,
        why: "the image of ghostsync holds no shell and no curl: the hook or probe fails each time",
        find: hook_needs_a_shell,
    },
    Rule {
        id: "grace-period-differs",
        severity: Severity::Problem,
        why: "ghostsync plans its final snapshot for the time that it is told, and the kubelet kills it after the time that \
              the pod has",
        find: grace_period_differs,
    },
    Rule {
        id: "grace-period-not-told",
        severity: Severity::Warning,
        why: "the downward API cannot supply the grace period: untold, ghostsync plans its final snapshot for 30 s",
        find: grace_period_not_told,
    },
    Rule {
        id: "grace-period-too-short",
        severity: Severity::Problem,
        why: "the app's shutdown and the final snapshot share the grace period: an app that takes longer leaves the sidecar \
              2 s and then SIGKILL",
        find: grace_period_too_short,
    },
    Rule {
        id: "predecessor-not-awaited",
        severity: Severity::Warning,
        why: "on drain, eviction or delete the new pod starts while the old one still has its grace period: a restore that \
              waits for less fences the old pod before its final snapshot, which then lands on a fork",
        find: predecessor_not_awaited,
    },
    Rule {
        id: "app-behind-a-shell",
        severity: Severity::Warning,
        why: "a shell as PID 1 does not hand SIGTERM on: the app writes until it is killed, and the final snapshot waits for \
              it in vain",
        find: app_behind_a_shell,
    },
];

fn terminating() -> Value {
    json!({"exec": {"command": ["/ghostsync-k8s", "ctl", "terminating"]}})
}

fn final_snapshot_in_prestop(pod: &Pod<'_>) -> Vec<Hit> {
    let natives = pod.natives().filter(|native| {
        let words = native.pre_stop_words();
        words.iter().any(|word| matches!(*word, "final-sync" | "backup" | "sync"))
    });
    natives
        .map(|native| {
            let found = format!("preStop runs {}", native.pre_stop_words().join(" "));
            Hit::new(&native.pre_stop(), found, vec![native.pre_stop().put(terminating())])
        })
        .collect()
}

fn native_without_prestop(pod: &Pod<'_>) -> Vec<Hit> {
    let natives = pod.natives().filter(|native| !native.pre_stop().exists());
    natives.map(|native| Hit::new(&native.node, "no preStop", vec![native.pre_stop().put(terminating())])).collect()
}

fn is_final_sync(container: &Container<'_>) -> bool {
    container.pre_stop_words().contains(&"final-sync")
}

fn classic_without_final_sync(pod: &Pod<'_>) -> Vec<Hit> {
    let classics = pod.classics().filter(|classic| !is_final_sync(classic));
    classics
        .map(|classic| {
            let deadline = pod.grace_seconds().saturating_sub(2 * MARGIN_SECONDS);
            let mut command = vec!["/ghostsync-k8s".to_owned(), "ctl".to_owned(), "final-sync".to_owned()];
            command.extend(app_port(pod).map(|port| format!("--wait-app=tcp:127.0.0.1:{port}")));
            command.extend(["--quiet=3s".to_owned(), format!("--deadline={deadline}s")]);
            let found = if classic.pre_stop().exists() { "preStop is no `ctl final-sync`" } else { "no preStop" };
            let hook = json!({"exec": {"command": command}});
            Hit::new(&classic.node, found, vec![classic.pre_stop().put(hook)])
        })
        .collect()
}

fn app_port(pod: &Pod<'_>) -> Option<u64> {
    pod.apps().find_map(|app| {
        let declared = app.node.get("ports").items().first().and_then(|port| port.get("containerPort").number());
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| app.node.get(probe));
        declared.or_else(|| {
            let ports =
                probes.iter().flat_map(|probe| [probe.at(&["tcpSocket", "port"]), probe.at(&["httpGet", "port"])]);
            ports.into_iter().find_map(|port| app.port(&port))
        })
    })
}

fn final_sync_does_not_wait(pod: &Pod<'_>) -> Vec<Hit> {
    let classics = pod.classics().filter(|classic| is_final_sync(classic));
    let classics =
        classics.filter(|classic| !classic.pre_stop_words().iter().any(|word| word.starts_with("--wait-app")));
    classics
        .map(|classic| {
            let command = classic.pre_stop().at(&["exec", "command"]);
            let port = app_port(pod).unwrap_or(8080);
            let patch = vec![command.push(json!(format!("--wait-app=tcp:127.0.0.1:{port}")))];
            Hit::new(&command, "`ctl final-sync` without --wait-app", patch)
        })
        .collect()
}

fn final_sync_waits_for_a_port(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for classic in pod.classics().filter(|classic| is_final_sync(classic)) {
        let command = classic.pre_stop().at(&["exec", "command"]);
        let apps =
            command.words().into_iter().filter(|word| word.starts_with("--wait-app") || word.starts_with("tcp:"));
        let apps: Vec<_> = apps.collect();
        if apps.iter().any(|app| app.contains("tcp:")) && !command.words().iter().any(|word| word.contains("process:"))
        {
            let name = pod.apps().next().map_or("app", Container::name);
            let patch = vec![command.push(json!(format!("--wait-app=process:{name}")))];
            hits.push(Hit::new(&command, apps.join(" "), patch));
        }
    }
    hits
}

fn final_sync_deadline(pod: &Pod<'_>) -> Vec<Hit> {
    let grace = Duration::from_secs(pod.grace_seconds());
    let mut hits = Vec::new();
    for classic in pod.classics() {
        let command = classic.pre_stop().at(&["exec", "command"]);
        let Some((text, word)) = flag_in(&command, "--deadline") else { continue };
        let Some(deadline) = duration(text) else { continue };
        if deadline + Duration::from_secs(MARGIN_SECONDS) > grace {
            let found = format!("--deadline={text} of a grace period of {} s", grace.as_secs());
            let better = format!("{}s", grace.as_secs().saturating_sub(2 * MARGIN_SECONDS));
            let patch = vec![word.put(json!(word_with(&word, "--deadline", &better)))];
            hits.push(Hit::new(&word, found, patch));
        }
    }
    hits
}

fn process_namespace_not_shared(pod: &Pod<'_>) -> Vec<Hit> {
    let shared = pod.spec.get("shareProcessNamespace");
    if pod.classics().next().is_none() || shared.is(true) {
        return Vec::new();
    }
    vec![Hit::new(&shared, "not true", vec![shared.put(json!(true))])]
}

fn hook_needs_a_shell(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        let hook = container.pre_stop();
        let post_start = container.node.at(&["lifecycle", "postStart"]);
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| container.node.get(probe));
        for place in [hook.clone(), post_start].into_iter().chain(probes) {
            let words = place.at(&["exec", "command"]).words();
            let Some(program) = words.first() else { continue };
            let name = program.rsplit('/').next().unwrap_or(program);
            if matches!(name, "ghostsync-k8s" | "ghostsync") {
                continue;
            }
            // The rules about a missing hook or probe say what should stand there.
            let hook_of_native = place.path == hook.path && pod.natives().any(|it| it.node.path == container.node.path);
            let patch = if hook_of_native { place.put(terminating()) } else { Op::remove(&place) };
            hits.push(Hit::new(&place, format!("runs {program}"), vec![patch]));
        }
    }
    hits
}

fn told_grace_period<'a>(container: &Container<'a>) -> Setting<'a> {
    container.setting("--grace-period", "GHOSTSYNC_GRACE_PERIOD")
}

fn grace_period_differs(pod: &Pod<'_>) -> Vec<Hit> {
    let grace = pod.grace_seconds();
    let mut hits = Vec::new();
    for container in pod.ghostsync() {
        let Setting::Given { text, node } = told_grace_period(container) else { continue };
        if duration(text) != Some(Duration::from_secs(grace)) {
            let found = format!("{text}, and terminationGracePeriodSeconds is {grace}");
            let right = word_with(&node, "--grace-period", &format!("{grace}s"));
            hits.push(Hit::new(&node, found, vec![node.put(json!(right))]));
        }
    }
    hits
}

fn grace_period_not_told(pod: &Pod<'_>) -> Vec<Hit> {
    let untold = pod.syncs().filter(|sync| matches!(told_grace_period(sync), Setting::Missing));
    untold
        .map(|sync| {
            let value = format!("{}s", pod.grace_seconds());
            let entry = json!({"name": "GHOSTSYNC_GRACE_PERIOD", "value": value});
            Hit::new(&sync.node, "no GHOSTSYNC_GRACE_PERIOD", vec![sync.node.get("env").push(entry)])
        })
        .collect()
}

/// How long Ghost may take to stop: its server, and then its job queue.
fn ghost_stop_seconds(app: &Container<'_>) -> Option<u64> {
    let timeout = app.env("server__shutdownTimeout");
    let image = app.node.get("image").text().unwrap_or_default();
    let image = image.rsplit('/').next().unwrap_or(image);
    let is_ghost = image.split([':', '@']).next() == Some("ghost");
    if !is_ghost && timeout.is_none() {
        return None;
    }
    let milliseconds = timeout.and_then(|entry| entry.get("value").text()?.parse::<u64>().ok());
    Some(2 * milliseconds.map_or(GHOST_TIMEOUT_SECONDS, |milliseconds| milliseconds.div_ceil(1000)))
}

/// How long the app's own hook sleeps before the app is told to stop.
fn hook_seconds(app: &Container<'_>) -> u64 {
    if let Some(seconds) = app.pre_stop().at(&["sleep", "seconds"]).number() {
        return seconds;
    }
    let words = app.pre_stop_words().join(" ");
    let slept = words.split("sleep ").skip(1).filter_map(|rest| {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits)?.parse::<u64>().ok()
    });
    slept.sum()
}

fn grace_period_too_short(pod: &Pod<'_>) -> Vec<Hit> {
    let grace = pod.grace_seconds();
    if pod.syncs().next().is_none() {
        return Vec::new();
    }
    let app =
        pod.apps().map(|app| ghost_stop_seconds(app).unwrap_or(0) + hook_seconds(app)).max().filter(|app| *app > 0);
    let needed = app.unwrap_or(0) + FINAL_SNAPSHOT_SECONDS + MARGIN_SECONDS;
    let needed = needed.max(LEAST_GRACE_SECONDS);
    if grace >= needed {
        return Vec::new();
    }
    let found = match app {
        Some(app) => format!("{grace} s; the app may take {app} s, its final snapshot {FINAL_SNAPSHOT_SECONDS} s"),
        None => format!("{grace} s of at least {needed} s"),
    };
    let mut patch = vec![pod.grace_period().put(json!(needed))];
    for container in pod.ghostsync() {
        if let Setting::Given { node, .. } = told_grace_period(container) {
            patch.push(node.put(json!(word_with(&node, "--grace-period", &format!("{needed}s")))));
        }
    }
    vec![Hit::new(&pod.grace_period(), found, patch)]
}

fn predecessor_not_awaited(pod: &Pod<'_>) -> Vec<Hit> {
    let grace = pod.grace_seconds();
    if pod.syncs().next().is_none() {
        return Vec::new();
    }
    let enough = format!("{}s", grace + MARGIN_SECONDS);
    let mut hits = Vec::new();
    for restore in pod.restores() {
        match restore.setting("--wait-predecessor", "GHOSTSYNC_WAIT_PREDECESSOR") {
            Setting::Given { text, node } => {
                if duration(text).is_some_and(|wait| wait < Duration::from_secs(grace)) {
                    let found = format!("waits {text}; the old pod may take {grace} s");
                    let word = word_with(&node, "--wait-predecessor", &enough);
                    hits.push(Hit::new(&node, found, vec![node.put(json!(word))]));
                }
            }
            Setting::Missing => {
                let args = restore.node.get("args");
                let patch = vec![args.push(json!(format!("--wait-predecessor={enough}")))];
                hits.push(Hit::new(&restore.node, "no --wait-predecessor", patch));
            }
            Setting::Elsewhere => {}
        }
    }
    hits
}

fn app_behind_a_shell(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for app in pod.apps() {
        let command = app.node.get("command").items();
        let words = command.into_iter().chain(app.node.get("args").items()).collect::<Vec<_>>();
        let [shell, flag, script, ..] = words.as_slice() else { continue };
        let (Some(shell), Some(flag), Some(text)) = (shell.text(), flag.text(), script.text()) else { continue };
        let shell = shell.rsplit('/').next().unwrap_or(shell);
        let is_script = matches!(shell, "sh" | "bash" | "ash" | "dash") && flag.starts_with('-') && flag.ends_with('c');
        let hands_over = text.split([';', '&', '|', '\n']).any(|part| part.trim_start().starts_with("exec "));
        if is_script && !hands_over {
            hits.push(Hit::new(
                script,
                format!("{shell} {flag} without exec"),
                vec![script.put(json!(with_exec(text)))],
            ));
        }
    }
    hits
}

/// The script with its last command in the place of the shell.
fn with_exec(script: &str) -> String {
    let script = script.trim_end();
    let last = script.rfind(['\n', ';', '&']).map_or(0, |at| at + 1);
    let (before, command) = script.split_at(last);
    let indent = command.len() - command.trim_start().len();
    let (space, command) = command.split_at(indent);
    format!("{before}{space}exec {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_command_of_a_script_takes_the_place_of_the_shell() {
        assert_eq!(with_exec("node index.js"), "exec node index.js");
        assert_eq!(with_exec("mkdir -p x && node index.js\n"), "mkdir -p x && exec node index.js");
    }
}
