//! Probes: of ghostsync, which must not make an outage of the store one of the app; and of the app.

use serde_json::json;

use super::Rule;
use crate::lint::finding::{Hit, Severity};
use crate::lint::node::{Node, Op};
use crate::lint::pod::{Container, Pod, Setting, duration, word_with};

const PORT: u64 = 9108;

/// How long a store that is away is tried, unless something else is said.
const RETRY_SECONDS: u64 = 60;

/// What the begin takes besides, at most, on a busy node.
const BEGIN_SECONDS: u64 = 30;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "native-without-startup-probe",
        severity: Severity::Problem,
        why: "a native sidecar holds the app back by its startup probe alone: without it the app starts before the branch is \
              claimed and the receipt checked",
        find: native_without_startup_probe,
    },
    Rule {
        id: "startup-probe-path",
        severity: Severity::Problem,
        why: "only /startupz says that the branch is claimed and the receipt checked",
        find: startup_probe_path,
    },
    Rule {
        id: "startup-probe-too-short",
        severity: Severity::Warning,
        why: "a store that is away is tried for --retry-time before sync knows: a probe that gives up sooner has the sidecar \
              killed and started again, ever more rarely, and the app waits although its directory is whole",
        find: startup_probe_too_short,
    },
    Rule {
        id: "readiness-probe-on-sidecar",
        severity: Severity::Problem,
        why: "a sidecar's readiness counts into the pod's: an outage of the store would take the app out of its Service",
        find: readiness_probe_on_sidecar,
    },
    Rule {
        id: "liveness-tied-to-store",
        severity: Severity::Problem,
        why: "only /livez looks at the loop alone: any other probe restarts the sidecar while the store is down, which is when \
              it holds what has not been uploaded",
        find: liveness_tied_to_store,
    },
    Rule {
        id: "sidecar-without-liveness-probe",
        severity: Severity::Note,
        why: "a sidecar that hangs is not restarted",
        find: sidecar_without_liveness_probe,
    },
    Rule {
        id: "probe-grace-period",
        severity: Severity::Problem,
        why: "a container that its probe restarts gets the probe's own grace period, and the final snapshot is planned for the \
              pod's",
        find: probe_grace_period,
    },
    Rule {
        id: "probe-port",
        severity: Severity::Problem,
        why: "the probe asks a port on which nobody listens: it fails each time",
        find: probe_port,
    },
    Rule {
        id: "listens-on-loopback",
        severity: Severity::Problem,
        why: "the kubelet and Prometheus ask the pod's address and never reach the loopback",
        find: listens_on_loopback,
    },
    Rule {
        id: "probe-without-proxy-headers",
        severity: Severity::Warning,
        why: "an app behind a proxy that ends TLS answers a plain request with a redirect to https on the pod's own address, \
              and the probe tests nothing or fails",
        find: probe_without_proxy_headers,
    },
    Rule {
        id: "app-startup-probe-over-http",
        severity: Severity::Warning,
        why: "while an app boots or migrates its answers mean nothing yet: a probe that counts them restarts it in the middle",
        find: app_startup_probe_over_http,
    },
    Rule {
        id: "app-without-startup-probe",
        severity: Severity::Warning,
        why: "the liveness probe alone restarts an app whose first start or migration takes long: state of a migration that \
              was cut short is sound and cannot be used",
        find: app_without_startup_probe,
    },
    Rule {
        id: "app-liveness-over-http",
        severity: Severity::Note,
        why: "a page needs what lies behind the app: a database that is down would restart the app over and over",
        find: app_liveness_over_http,
    },
    Rule {
        id: "app-probe-timeout",
        severity: Severity::Note,
        why: "the default of 1 s is tight for a page that is rendered: a busy app is taken out of its Service",
        find: app_probe_timeout,
    },
];

fn listen_port(sync: &Container<'_>) -> u64 {
    match sync.setting("--listen", "GHOSTSYNC_LISTEN") {
        Setting::Given { text, .. } => text.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(PORT),
        Setting::Elsewhere | Setting::Missing => PORT,
    }
}

fn native_without_startup_probe(pod: &Pod<'_>) -> Vec<Hit> {
    let missing = pod.natives().filter(|native| !native.node.get("startupProbe").exists());
    missing
        .map(|native| {
            let port = listen_port(native);
            let probe =
                json!({"httpGet": {"path": "/startupz", "port": port}, "periodSeconds": 1, "failureThreshold": 180});
            Hit::new(&native.node, "no startupProbe", vec![native.node.get("startupProbe").put(probe)])
        })
        .collect()
}

/// What a probe of ghostsync asks for, over HTTP or by `health --url`.
fn asked_path<'a>(probe: &Node<'a>) -> Option<(&'a str, Node<'a>)> {
    let path = probe.at(&["httpGet", "path"]);
    if let Some(text) = path.text() {
        return Some((text, path));
    }
    if probe.get("httpGet").exists() {
        return Some(("/", path));
    }
    let words = probe.at(&["exec", "command"]).items();
    let asks = |word: &Node<'a>| word.text().is_some_and(|text| text.contains("://"));
    let word = words.into_iter().find(asks)?;
    let (_, address) = word.text()?.split_once("://")?;
    Some((address.find('/').map_or("/", |at| &address[at..]), word))
}

fn wrong_path<'a>(probe: &Node<'a>, right: &str) -> Option<String> {
    if !probe.exists() {
        return None;
    }
    match asked_path(probe) {
        Some((path, _)) if path == right => None,
        Some((path, _)) => Some(format!("asks {path}")),
        // A hook without `health` has a rule of its own.
        None if probe.get("exec").exists() => {
            let words = probe.at(&["exec", "command"]).words();
            words.contains(&"ctl").then(|| format!("runs {}", words.join(" ")))
        }
        None => Some("asks no path".to_owned()),
    }
}

fn with_path(probe: &Node<'_>, path: &str, port: u64) -> Vec<Op> {
    let action = json!({"path": path, "port": port});
    let others = ["exec", "tcpSocket", "grpc"].map(|action| probe.get(action));
    let mut patch: Vec<Op> = others.iter().filter(|other| other.exists()).map(Op::remove).collect();
    patch.push(probe.get("httpGet").put(action));
    patch
}

fn startup_probe_path(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for native in pod.natives() {
        let probe = native.node.get("startupProbe");
        if let Some(found) = wrong_path(&probe, "/startupz") {
            hits.push(Hit::new(&probe, found, with_path(&probe, "/startupz", listen_port(native))));
        }
    }
    hits
}

fn startup_probe_too_short(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for native in pod.natives() {
        let probe = native.node.get("startupProbe");
        let retry_seconds = match native.setting("--retry-time", "GHOSTSYNC_RETRY_TIME") {
            Setting::Given { text, .. } => duration(text).map(|time| time.as_secs()),
            Setting::Missing => Some(RETRY_SECONDS),
            Setting::Elsewhere => None,
        };
        let (true, Some(retry_seconds)) = (probe.exists(), retry_seconds) else { continue };
        // What is not said is what Kubernetes takes.
        let number = |key, otherwise| probe.get(key).number().unwrap_or(otherwise);
        let period = number("periodSeconds", 10).max(1);
        let (threshold, delay) = (number("failureThreshold", 3), number("initialDelaySeconds", 0));
        let patience = period.saturating_mul(threshold).saturating_add(delay);
        if patience < retry_seconds.saturating_add(BEGIN_SECONDS) {
            let found = format!("gives up after {patience} s, --retry-time is {retry_seconds} s");
            let enough = retry_seconds.saturating_mul(2).saturating_add(2 * BEGIN_SECONDS).div_ceil(period);
            hits.push(Hit::new(&probe, found, vec![probe.get("failureThreshold").put(json!(enough))]));
        }
    }
    hits
}

fn readiness_probe_on_sidecar(pod: &Pod<'_>) -> Vec<Hit> {
    let probes = pod.syncs().map(|sync| sync.node.get("readinessProbe")).filter(Node::exists);
    probes.map(|probe| Hit::new(&probe, "a readinessProbe", vec![Op::remove(&probe)])).collect()
}

fn liveness_tied_to_store(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let probe = sync.node.get("livenessProbe");
        if let Some(found) = wrong_path(&probe, "/livez") {
            hits.push(Hit::new(&probe, found, with_path(&probe, "/livez", listen_port(sync))));
        }
    }
    hits
}

fn sidecar_without_liveness_probe(pod: &Pod<'_>) -> Vec<Hit> {
    let missing = pod.syncs().filter(|sync| !sync.node.get("livenessProbe").exists());
    missing
        .map(|sync| {
            let action = json!({"path": "/livez", "port": listen_port(sync)});
            let probe = json!({"httpGet": action, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 4});
            Hit::new(&sync.node, "no livenessProbe", vec![sync.node.get("livenessProbe").put(probe)])
        })
        .collect()
}

fn probe_grace_period(pod: &Pod<'_>) -> Vec<Hit> {
    let users = pod.ghostsync().chain(pod.apps());
    let probes = users.flat_map(|user| ["startupProbe", "livenessProbe"].map(|kind| user.node.get(kind)));
    let own = probes.map(|probe| probe.get("terminationGracePeriodSeconds"));
    let shorter = own.filter(|own| own.number().is_some_and(|seconds| seconds < pod.grace_seconds()));
    shorter
        .map(|own| {
            let found = format!("{} s of {} s", own.number().unwrap_or_default(), pod.grace_seconds());
            Hit::new(&own, found, vec![Op::remove(&own)])
        })
        .collect()
}

fn probe_port(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let right = listen_port(sync);
        for kind in ["startupProbe", "livenessProbe"] {
            let port = sync.node.at(&[kind, "httpGet", "port"]);
            if port.exists() && sync.port(&port) != Some(right) {
                let found = format!("{} instead of {right}", port.value.cloned().unwrap_or_default());
                hits.push(Hit::new(&port, found, vec![port.put(json!(right))]));
            }
        }
    }
    hits
}

fn listens_on_loopback(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for sync in pod.syncs() {
        let Setting::Given { text, node } = sync.setting("--listen", "GHOSTSYNC_LISTEN") else { continue };
        if text.starts_with("127.") || text.starts_with("localhost") || text.starts_with("[::1]") {
            let right = word_with(&node, "--listen", &format!(":{}", listen_port(sync)));
            hits.push(Hit::new(&node, text, vec![node.put(json!(right))]));
        }
    }
    hits
}

/// The name under which the app is asked from outside, as far as its own settings say.
fn app_host(app: &Container<'_>) -> Option<String> {
    let entries = app.node.get("env").items();
    let address = entries.iter().find_map(|entry| entry.get("value").text()?.strip_prefix("https://"))?;
    let host = address.split(['/', ':']).next().unwrap_or_default();
    (!host.is_empty()).then(|| host.to_owned())
}

fn probe_without_proxy_headers(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for app in pod.apps() {
        for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let request = app.node.at(&[kind, "httpGet"]);
            let encrypted = request.get("scheme").text().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
            if !request.exists() || encrypted {
                continue;
            }
            let headers = request.get("httpHeaders");
            let present = headers.items();
            let lacks = |wanted: &str| {
                !present
                    .iter()
                    .any(|header| header.get("name").text().is_some_and(|name| name.eq_ignore_ascii_case(wanted)))
            };
            // Where the manifest does not say the host, a made-up one could do harm.
            let host = app_host(app).map(|host| ("Host", host));
            let wanted = host.into_iter().chain([("X-Forwarded-Proto", "https".to_owned())]);
            let missing: Vec<_> = wanted.filter(|(name, _)| lacks(name)).collect();
            if missing.is_empty() {
                continue;
            }
            let mut all: Vec<_> = present.iter().filter_map(|header| header.value.cloned()).collect();
            all.extend(missing.iter().map(|(name, value)| json!({"name": name, "value": value})));
            let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
            hits.push(Hit::new(&request, format!("lacks {}", names.join(" and ")), vec![headers.put(json!(all))]));
        }
    }
    hits
}

fn app_startup_probe_over_http(pod: &Pod<'_>) -> Vec<Hit> {
    over_http(pod, "startupProbe")
}

fn app_liveness_over_http(pod: &Pod<'_>) -> Vec<Hit> {
    over_http(pod, "livenessProbe")
}

fn over_http(pod: &Pod<'_>, kind: &str) -> Vec<Hit> {
    let requests = pod.apps().map(|app| app.node.at(&[kind, "httpGet"])).filter(Node::exists);
    requests
        .map(|request| {
            let probe = request.parent();
            let port = request.get("port").value.cloned().unwrap_or_default();
            let patch = vec![Op::remove(&request), probe.get("tcpSocket").put(json!({"port": port}))];
            Hit::new(&request, "httpGet", patch)
        })
        .collect()
}

fn app_without_startup_probe(pod: &Pod<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for app in pod.apps() {
        let liveness = app.node.get("livenessProbe");
        let startup = app.node.get("startupProbe");
        if !liveness.exists() || startup.exists() {
            continue;
        }
        let ports = [liveness.at(&["tcpSocket", "port"]), liveness.at(&["httpGet", "port"])];
        let port = ports.iter().find_map(|port| port.value).or_else(|| {
            let declared = app.node.get("ports").items();
            declared.first().and_then(|port| port.get("containerPort").value)
        });
        let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 5, "failureThreshold": 60});
        hits.push(Hit::new(&app.node, "a livenessProbe and no startupProbe", vec![startup.put(probe)]));
    }
    hits
}

fn app_probe_timeout(pod: &Pod<'_>) -> Vec<Hit> {
    let probes = pod.apps().map(|app| app.node.get("readinessProbe")).filter(|probe| probe.get("httpGet").exists());
    let tight = probes.filter(|probe| probe.get("timeoutSeconds").number().unwrap_or(1) <= 1);
    tight
        .map(|probe| {
            let timeout = probe.get("timeoutSeconds");
            Hit::new(&timeout, "1 s", vec![timeout.put(json!(5))])
        })
        .collect()
}
