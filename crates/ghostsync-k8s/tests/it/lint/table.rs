//! One row for each way to open a trap: which of the two pods, and what is taken out of it.

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Native,
    Classic,
}
use Mode::{Classic, Native};

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) rule: &'static str,
    pub(crate) mode: Mode,
    /// A JSON patch of the pod that `manifest` prints.
    pub(crate) taken_out: Vec<Value>,
    /// Other objects of the input.
    pub(crate) beside: Vec<Value>,
}

impl Row {
    fn beside(mut self, object: Value) -> Self {
        self.beside.push(object);
        self
    }
}

fn row<const N: usize>(rule: &'static str, mode: Mode, taken_out: [Change; N]) -> Row {
    let taken_out = taken_out.into_iter().map(|change| change.op(mode)).collect();
    Row { rule, mode, taken_out, beside: Vec::new() }
}

enum Change {
    /// Adds a key, or inserts into a list.
    Put(&'static str, Value),
    /// Replaces what is there.
    Set(&'static str, Value),
    Remove(&'static str),
    Move(&'static str, &'static str),
}
use Change::{Move, Put, Remove, Set};

impl Change {
    fn op(self, mode: Mode) -> Value {
        match self {
            Put(path, value) => json!({"op": "add", "path": pointer(path, mode), "value": value}),
            Set(path, value) => json!({"op": "replace", "path": pointer(path, mode), "value": value}),
            Remove(path) => json!({"op": "remove", "path": pointer(path, mode)}),
            Move(from, path) => json!({"op": "move", "from": pointer(from, mode), "path": pointer(path, mode)}),
        }
    }
}

/// `sync/image` and the like, as a pointer into the Deployment.
fn pointer(path: &str, mode: Mode) -> String {
    let (start, rest) = path.split_once('/').unwrap_or((path, ""));
    let start = match (start, mode) {
        ("restore", _) => "/spec/template/spec/initContainers/0",
        ("sync", Native) => "/spec/template/spec/initContainers/1",
        ("sync", Classic) => "/spec/template/spec/containers/1",
        ("app", _) => "/spec/template/spec/containers/0",
        ("pod", _) => "/spec/template/spec",
        ("root", _) => "",
        _ => panic!("no place is called {start}"),
    };
    if rest.is_empty() { start.to_owned() } else { format!("{start}/{rest}") }
}

fn consumer() -> Value {
    json!({
        "name": "migrate", "image": "registry.example/app:1",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "content", "mountPath": "/data"}],
    })
}

fn exec(words: &[&str]) -> Value {
    json!({"exec": {"command": words}})
}

pub(crate) fn rows() -> Vec<Row> {
    [shutdown(), order(), probes(), volumes(), identity(), rollout(), settings()].into_iter().flatten().collect()
}

fn shutdown() -> Vec<Row> {
    let script = "cd /app\nnode index.js";
    vec![
        row(
            "final-snapshot-in-prestop",
            Native,
            [Put(
                "sync/lifecycle/preStop",
                exec(&["/ghostsync-k8s", "ctl", "final-sync", "--wait-app=tcp:127.0.0.1:8080"]),
            )],
        ),
        row(
            "final-snapshot-in-prestop",
            Native,
            [Put("sync/lifecycle/preStop", exec(&["/ghostsync", "backup", "/data"]))],
        ),
        row("native-without-prestop", Native, [Remove("sync/lifecycle")]),
        row("classic-without-final-sync", Classic, [Remove("sync/lifecycle")]),
        row(
            "classic-without-final-sync",
            Classic,
            [Put("sync/lifecycle/preStop", exec(&["/ghostsync-k8s", "ctl", "terminating"]))],
        ),
        row(
            "final-sync-does-not-wait",
            Classic,
            [Put(
                "sync/lifecycle/preStop",
                exec(&["/ghostsync-k8s", "ctl", "final-sync", "--quiet=3s", "--deadline=130s"]),
            )],
        ),
        row("final-sync-waits-for-a-port", Classic, [Remove("sync/lifecycle/preStop/exec/command/3")]),
        row("final-sync-deadline", Classic, [Set("sync/lifecycle/preStop/exec/command/6", json!("--deadline=145s"))]),
        row("process-namespace-not-shared", Classic, [Remove("pod/shareProcessNamespace")]),
        row(
            "hook-needs-a-shell",
            Native,
            [Put("sync/lifecycle/preStop", exec(&["sh", "-c", "echo bye >/proc/1/fd/1; sleep 5"]))],
        ),
        row(
            "hook-needs-a-shell",
            Native,
            [
                Remove("sync/livenessProbe/httpGet"),
                Put(
                    "sync/livenessProbe/exec",
                    json!({"command": ["/usr/bin/curl", "-f", "http://127.0.0.1:9108/livez"]}),
                ),
            ],
        ),
        row("grace-period-differs", Native, [Put("pod/terminationGracePeriodSeconds", json!(155))]),
        row("grace-period-differs", Native, [Put("sync/env/2/value", json!("100s"))]),
        row("grace-period-differs", Native, [Put("sync/args/-", json!("--grace-period=2m"))]),
        row("grace-period-not-told", Native, [Remove("sync/env/2")]),
        row(
            "grace-period-too-short",
            Native,
            [
                Remove("pod/terminationGracePeriodSeconds"),
                Put("restore/env/2/value", json!("30s")),
                Put("sync/env/2/value", json!("30s")),
            ],
        ),
        // Ghost waits 60 s for its server and 60 s for its jobs, unless it is told otherwise.
        row("grace-period-too-short", Native, [Put("app/image", json!("ghost:6.37.1"))]),
        row(
            "grace-period-too-short",
            Classic,
            [Put("app/env/-", json!({"name": "server__shutdownTimeout", "value": "60000"}))],
        ),
        row("grace-period-too-short", Native, [Put("app/lifecycle", json!({"preStop": {"sleep": {"seconds": 120}}}))]),
        row(
            "grace-period-too-short",
            Native,
            [Put("app/lifecycle", json!({"preStop": exec(&["sh", "-c", "sleep 115"])}))],
        ),
        row("predecessor-not-awaited", Native, [Set("restore/args/1", json!("--wait-predecessor=60s"))]),
        row("predecessor-not-awaited", Classic, [Remove("restore/args/1")]),
        row("app-behind-a-shell", Native, [Put("app/command", json!(["sh", "-c", script]))]),
    ]
}

fn order() -> Vec<Row> {
    vec![
        row("restore-missing", Native, [Remove("restore")]),
        row("restore-missing", Classic, [Remove("pod/initContainers")]),
        row("restore-is-no-init-container", Native, [Move("restore", "pod/containers/-")]),
        row("restore-not-first", Native, [Move("restore", "pod/initContainers/1")]),
        row("restore-not-first", Native, [Put("pod/initContainers/0", consumer())]),
        row("restore-not-first", Classic, [Put("pod/initContainers/0", consumer())]),
        row("consumer-before-sidecar", Native, [Put("pod/initContainers/1", consumer())]),
        row("restore-never-ends", Native, [Put("restore/restartPolicy", json!("Always"))]),
        row("sidecar-without-restart-policy", Native, [Remove("sync/restartPolicy")]),
        row(
            "sidecar-not-restarted",
            Classic,
            [Put("root/kind", json!("Job")), Put("pod/restartPolicy", json!("Never"))],
        ),
    ]
}

fn probes() -> Vec<Row> {
    let http = json!({"path": "/", "port": 8080, "httpHeaders": [
        {"name": "host", "value": "app.example.com"}, {"name": "x-forwarded-proto", "value": "https"},
    ]});
    vec![
        row("native-without-startup-probe", Native, [Remove("sync/startupProbe")]),
        row("startup-probe-path", Native, [Put("sync/startupProbe/httpGet/path", json!("/livez"))]),
        row(
            "startup-probe-path",
            Native,
            [Remove("sync/startupProbe/httpGet"), Put("sync/startupProbe/tcpSocket", json!({"port": 9108}))],
        ),
        row("startup-probe-too-short", Native, [Put("sync/startupProbe/failureThreshold", json!(89))]),
        row("startup-probe-too-short", Native, [Remove("sync/startupProbe/failureThreshold")]),
        row(
            "startup-probe-too-short",
            Native,
            [Remove("sync/startupProbe/failureThreshold"), Remove("sync/startupProbe/periodSeconds")],
        ),
        row("startup-probe-too-short", Native, [Put("sync/args/-", json!("--retry-time=3m"))]),
        row(
            "readiness-probe-on-sidecar",
            Native,
            [Put("sync/readinessProbe", json!({"httpGet": {"path": "/readyz", "port": 9108}}))],
        ),
        row(
            "readiness-probe-on-sidecar",
            Classic,
            [Put("sync/readinessProbe", json!({"httpGet": {"path": "/livez", "port": 9108}}))],
        ),
        row("liveness-tied-to-store", Native, [Put("sync/livenessProbe/httpGet/path", json!("/readyz"))]),
        row(
            "liveness-tied-to-store",
            Classic,
            [
                Remove("sync/livenessProbe/httpGet"),
                Put("sync/livenessProbe/exec", json!({"command": ["/ghostsync-k8s", "ctl", "status"]})),
            ],
        ),
        row(
            "liveness-tied-to-store",
            Native,
            [
                Remove("sync/livenessProbe/httpGet"),
                Put(
                    "sync/livenessProbe/exec",
                    json!({
                        "command": ["/ghostsync-k8s", "health", "--url", "http://127.0.0.1:9108/status"],
                    }),
                ),
            ],
        ),
        row("sidecar-without-liveness-probe", Native, [Remove("sync/livenessProbe")]),
        row("probe-grace-period", Native, [Put("sync/livenessProbe/terminationGracePeriodSeconds", json!(10))]),
        row("probe-port", Native, [Put("sync/livenessProbe/httpGet/port", json!(9090))]),
        row("probe-port", Native, [Put("sync/startupProbe/httpGet/port", json!("metrics"))]),
        row("probe-port", Classic, [Set("sync/args/2", json!("--listen=:9200"))]),
        row("listens-on-loopback", Native, [Set("sync/args/2", json!("--listen=127.0.0.1:9108"))]),
        row("probe-without-proxy-headers", Native, [Remove("app/readinessProbe/httpGet/httpHeaders")]),
        row("probe-without-proxy-headers", Native, [Remove("app/readinessProbe/httpGet/httpHeaders/1")]),
        row(
            "probe-without-proxy-headers",
            Native,
            [Remove("app/env"), Remove("app/readinessProbe/httpGet/httpHeaders")],
        ),
        row(
            "app-startup-probe-over-http",
            Native,
            [Remove("app/startupProbe/tcpSocket"), Put("app/startupProbe/httpGet", http.clone())],
        ),
        row("app-without-startup-probe", Native, [Remove("app/startupProbe")]),
        row(
            "app-liveness-over-http",
            Native,
            [Remove("app/livenessProbe/tcpSocket"), Put("app/livenessProbe/httpGet", http)],
        ),
        row("app-probe-timeout", Native, [Remove("app/readinessProbe/timeoutSeconds")]),
    ]
}

fn volumes() -> Vec<Row> {
    vec![
        row("size-limit", Native, [Put("pod/volumes/0/emptyDir/sizeLimit", json!("5Gi"))]),
        row("size-limit", Native, [Put("pod/volumes/1/emptyDir/sizeLimit", json!("1Gi"))]),
        row("ephemeral-storage-limit", Native, [Put("app/resources/limits/ephemeral-storage", json!("6Gi"))]),
        row("ephemeral-storage-limit", Classic, [Put("sync/resources/limits/ephemeral-storage", json!("1Gi"))]),
        row("content-in-memory", Native, [Put("pod/volumes/0/emptyDir/medium", json!("Memory"))]),
        row("content-not-mounted", Native, [Remove("sync/volumeMounts/0")]),
        row("content-not-mounted", Native, [Remove("restore/volumeMounts/0")]),
        row("content-volumes-differ", Native, [Put("sync/volumeMounts/0/name", json!("tmp"))]),
        row("restore-cannot-write", Native, [Put("restore/volumeMounts/0/readOnly", json!(true))]),
        row("sync-can-write", Native, [Remove("sync/volumeMounts/0/readOnly")]),
        row("state-not-mounted", Native, [Remove("sync/volumeMounts/1")]),
        row(
            "state-not-mounted",
            Classic,
            [Remove("sync/volumeMounts/1"), Remove("restore/volumeMounts/1"), Remove("pod/volumes/1")],
        ),
        row("state-volumes-differ", Native, [Put("sync/volumeMounts/1/name", json!("tmp"))]),
        row("state-read-only", Native, [Put("sync/volumeMounts/1/readOnly", json!(true))]),
        row(
            "state-in-content",
            Native,
            [Put("restore/volumeMounts/1/name", json!("content")), Put("sync/volumeMounts/1/name", json!("content"))],
        ),
        row(
            "state-in-content",
            Native,
            [
                Put("restore/env/-", json!({"name": "GHOSTSYNC_STATE_DIR", "value": "/data/.ghostsync"})),
                Put("sync/env/-", json!({"name": "GHOSTSYNC_STATE_DIR", "value": "/data/.ghostsync"})),
            ],
        ),
        row(
            "state-gone-before-content",
            Native,
            [Set("pod/volumes/0", json!({"name": "content", "persistentVolumeClaim": {"claimName": "blog"}}))],
        ),
        row(
            "state-gone-before-content",
            Classic,
            [
                Set("root/kind", json!("StatefulSet")),
                Remove("pod/volumes/0"),
                Put(
                    "root/spec/volumeClaimTemplates",
                    json!([{"metadata": {"name": "content"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]),
                ),
            ],
        ),
        row("content-sub-path", Native, [Put("app/volumeMounts/0/subPath", json!("current"))]),
        row("content-not-used", Native, [Remove("app/volumeMounts/0")]),
    ]
}

fn identity() -> Vec<Row> {
    vec![
        row("user-differs", Native, [Put("sync/securityContext/runAsUser", json!(65532))]),
        row("user-differs", Classic, [Put("app/securityContext/runAsUser", json!(33))]),
        row("user-not-set", Native, [Remove("pod/securityContext/runAsUser")]),
        row("fs-group-missing", Native, [Remove("pod/securityContext/fsGroup")]),
        row("fs-group-walks-each-start", Native, [Remove("pod/securityContext/fsGroupChangePolicy")]),
        row("runs-as-root", Native, [Remove("pod/securityContext/runAsNonRoot")]),
        row("runs-as-root", Native, [Put("pod/securityContext/runAsUser", json!(0))]),
        row("runs-as-root", Native, [Put("app/securityContext/runAsNonRoot", json!(false))]),
        row("privilege-escalation", Native, [Remove("sync/securityContext/allowPrivilegeEscalation")]),
        row("privilege-escalation", Native, [Put("app/securityContext/privileged", json!(true))]),
        row("capabilities-kept", Native, [Remove("app/securityContext/capabilities")]),
        row("capabilities-kept", Native, [Put("sync/securityContext/capabilities/add", json!(["CHOWN"]))]),
        row("seccomp-profile-missing", Native, [Remove("pod/securityContext/seccompProfile")]),
        row(
            "seccomp-profile-missing",
            Native,
            [Put("sync/securityContext/seccompProfile", json!({"type": "Unconfined"}))],
        ),
        row("host-namespace", Native, [Put("pod/hostPID", json!(true))]),
        row(
            "host-path",
            Native,
            [Set("pod/volumes/0", json!({"name": "content", "hostPath": {"path": "/srv/blog", "type": "Directory"}}))],
        ),
        row("root-writable", Native, [Remove("sync/securityContext/readOnlyRootFilesystem")]),
        row("service-account-token", Native, [Remove("pod/automountServiceAccountToken")]),
    ]
}

fn rollout() -> Vec<Row> {
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "app"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"},
            "minReplicas": 2, "maxReplicas": 5,
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app-metrics"},
        "spec": {
            "selector": {"app.kubernetes.io/name": "app"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "m", "port": 9108, "targetPort": "gs-metrics"}],
        },
    });
    vec![
        row("rolling-update", Native, [Remove("root/spec/strategy")]),
        row(
            "rolling-update",
            Native,
            [Put("root/spec/strategy", json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}))],
        ),
        row("several-replicas", Native, [Put("root/spec/replicas", json!(2))]),
        row("several-replicas", Native, [Put("root/kind", json!("StatefulSet")), Put("root/spec/replicas", json!(3))]),
        row("one-branch-for-all-nodes", Native, [Put("root/kind", json!("DaemonSet"))]),
        row("autoscaled", Native, []).beside(scaler),
        row("progress-deadline", Native, [Remove("root/spec/progressDeadlineSeconds")]),
        row("progress-deadline", Native, [Put("root/spec/progressDeadlineSeconds", json!(900))]),
        row("service-names-sidecar-port", Native, []).beside(service),
    ]
}

fn settings() -> Vec<Row> {
    vec![
        row("service-links", Native, [Remove("pod/enableServiceLinks")]),
        row("arguments-refused", Native, [Put("sync/args/-", json!("--intervals=30s"))]),
        row("arguments-refused", Native, [Set("sync/args/1", json!("--interval=often"))]),
        row("arguments-refused", Classic, [Put("sync/lifecycle/preStop/exec/command/-", json!("--wait-for=x"))]),
        row("unknown-variable", Native, [Put("sync/env/-", json!({"name": "GHOSTSYNC_MAXDELETE", "value": "5"}))]),
        row("owner-not-the-pod", Native, [Remove("sync/env/3")]),
        row("owner-not-the-pod", Native, [Put("restore/env/3/valueFrom/fieldRef/fieldPath", json!("metadata.name"))]),
        row("owner-not-the-pod", Native, [Put("sync/args/-", json!("--owner=blog"))]),
        row("genesis-missing", Native, [Remove("restore/args/2")]),
        row("settings-differ", Native, [Put("restore/env/0/value", json!("s3://bucket/other"))]),
        row(
            "settings-differ",
            Native,
            [Put("sync/args/-", json!("--branch=other")), Put("restore/args/-", json!("--branch=x"))],
        ),
        row("images-differ", Native, [Put("restore/image", json!("registry.example/ghostsync:0.0.9"))]),
        row(
            "image-not-pinned",
            Native,
            [
                Put("restore/image", json!("registry.example:5000/ghostsync")),
                Put("sync/image", json!("registry.example:5000/ghostsync")),
            ],
        ),
        row(
            "image-not-pinned",
            Classic,
            [
                Put("restore/image", json!("registry.example/ghostsync:latest")),
                Put("sync/image", json!("registry.example/ghostsync:latest")),
            ],
        ),
        row(
            "secret-in-manifest",
            Native,
            [Put("sync/env/-", json!({"name": "AWS_SECRET_ACCESS_KEY", "value": "not-a-key"}))],
        ),
        row("termination-message", Native, [Remove("restore/terminationMessagePolicy")]),
    ]
}
