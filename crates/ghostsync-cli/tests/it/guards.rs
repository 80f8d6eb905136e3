//! What cannot be read: refused at the root, and below it never taken for removed.
//!
//! The superuser reads everything, so where the tests run as root the command runs as somebody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox};

/// The user and the group that nobody else is.
const NOBODY: &str = "65534";

/// A sandbox whose owner may not read what is closed.
struct Unprivileged {
    sandbox: Sandbox,
    /// For the superuser: the command where anybody can run it; the build may lie in a folder that is closed to others.
    program: Option<tempfile::TempDir>,
}

impl Unprivileged {
    /// With one snapshot of a few files; `None`, and a word why, where nobody can be made of the superuser.
    fn new() -> Option<Self> {
        let sandbox = Sandbox::with_snapshot(3);
        for name in ["d/a", "d/below/b", "e"] {
            sandbox.write(&format!("source/{name}"), format!("content of {name}"));
        }
        if !rustix::process::geteuid().is_root() {
            let this = Self { sandbox, program: None };
            this.json(0, &["backup", "source"]);
            return Some(this);
        }
        let program = tempfile::tempdir().expect("a folder");
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("opened");
        let (built, path) = (env!("CARGO_BIN_EXE_ghostsync"), program.path().join("ghostsync"));
        fs::hard_link(built, &path).or_else(|_| fs::copy(built, &path).map(drop)).expect("a copy");
        let owned = Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(sandbox.path("")).status();
        let this = Self { sandbox, program: Some(program) };
        // The command itself decides: what can be told from outside is not whether it runs there.
        let runs = owned.is_ok_and(|owned| owned.success())
            && this.command(&["version"]).output().is_ok_and(|output| output.status.success());
        if !runs {
            println!("skipped: the command cannot be run as another user here");
            return None;
        }
        this.json(0, &["backup", "source"]);
        Some(this)
    }

    fn command(&self, args: &[&str]) -> Command {
        let direct = self.sandbox.command(args);
        let Some(program) = &self.program else { return direct };
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command.arg(program.path().join("ghostsync")).args(args).current_dir(self.sandbox.path("")).env_clear();
        command.envs(direct.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdin(Stdio::null());
        command
    }

    /// Runs it with `--json`; it must end with a code and print one document.
    fn json(&self, code: i32, args: &[&str]) -> Value {
        let ran = Ran::of(self.command(&[args, &["--json"]].concat()).output().expect("runs"));
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.document()
    }

    fn close(&self, name: &str, mode: u32) {
        fs::set_permissions(self.sandbox.path(name), fs::Permissions::from_mode(mode)).expect("another mode");
    }

    fn objects(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.sandbox.tree("repository")
    }

    fn snapshots(&self) -> Vec<Value> {
        self.sandbox.run(&["snapshots", "--json"]).lines()
    }
}

#[test]
fn a_root_that_cannot_be_read_is_refused_whatever_is_allowed() {
    let Some(user) = Unprivileged::new() else { return };
    let before = user.objects();
    // Closed; entered but not listed; listed but not entered.
    for mode in [0o000, 0o311, 0o644] {
        user.close("source", mode);
        for args in [
            &["backup", "source"][..],
            &["backup", "source", "--branch", "new"],
            &["backup", "source", "--allow-empty", "--max-delete", "100%", "--on-refusal", "quarantine"],
        ] {
            let refused = user.json(10, args);
            assert_eq!((&refused["refusal"]["guard"], &refused["plan"]), (&json!("source"), &Value::Null), "{mode:o}");
        }
        assert!(user.objects() == before, "{mode:o}");
    }
    user.close("source", 0o755);
    assert_eq!(user.json(0, &["backup", "source"])["outcome"], "unchanged");
}

/// What is closed, how, and what cannot be read because of it.
const CLOSED: [(&str, u32, &str); 4] =
    [("e", 0o000, "e"), ("d", 0o000, "d"), ("d", 0o444, "d/a"), ("d/below", 0o000, "d/below")];

#[test]
fn what_cannot_be_read_is_carried_forward_and_never_removed() {
    for (closed, mode, unread) in CLOSED {
        let case = format!("{closed} {mode:o}");
        let Some(user) = Unprivileged::new() else { return };
        let entries = user.snapshots()[1]["entries"].clone();
        user.sandbox.write("source/file00", "of another length");
        user.sandbox.write("source/e", "another, and nobody will know");
        user.close(&format!("source/{closed}"), mode);
        let before = user.objects();
        let refused = user.json(10, &["backup", "source", "--strict"]);
        assert_eq!(refused["refusal"]["guard"], "unreadable", "{case}");
        assert_eq!(user.snapshots().len(), 2);
        assert!(user.objects() == before, "{case}");

        let incomplete = user.json(3, &["backup", "source", "--max-delete", "0"]);
        assert_eq!((&incomplete["outcome"], &incomplete["removed"]), (&json!("done"), &json!(0)), "{case}");
        assert_eq!((&incomplete["entries"], &incomplete["problems"][0]["path"]), (&entries, &json!(unread)), "{case}");
        let newest = user.snapshots().pop().expect("a snapshot");
        assert_eq!((&newest["id"], &newest["complete"]), (&incomplete["snapshot"], &json!(false)), "{case}");

        // Nothing else is new: no snapshot, and no success either.
        let again = user.json(3, &["backup", "source", "--max-delete", "0"]);
        assert_eq!((&again["outcome"], &again["snapshot"]), (&json!("unchanged"), &incomplete["snapshot"]), "{case}");
        assert_eq!((&again["problems"][0]["path"], user.snapshots().len()), (&json!(unread), 3), "{case}");

        user.json(0, &["restore", "out"]);
        for (name, mode) in [("out/d", 0o755), ("out/d/below", 0o755), ("out/e", 0o644)] {
            user.close(name, mode);
        }
        let read = |name: &str| user.sandbox.read(&format!("out/{name}"));
        assert_eq!(
            (read("d/a"), read("d/below/b")),
            ("content of d/a".into(), "content of d/below/b".into()),
            "{case}"
        );
        assert_eq!(read("file00"), "of another length", "{case}");
        assert_eq!(read("e") == "content of e", closed == "e", "{case}: the parent's version");

        // Open again, it is read again.
        user.close(&format!("source/{closed}"), 0o755);
        assert_eq!(user.json(0, &["backup", "source"])["outcome"], "done", "{case}");
        assert_eq!(user.snapshots()[3]["complete"], true, "{case}");
    }
}

#[test]
fn where_nothing_differs_but_what_cannot_be_read_there_is_no_snapshot() {
    let Some(user) = Unprivileged::new() else { return };
    let (before, objects) = (user.snapshots(), user.objects());
    user.close("source/e", 0o000);
    for args in [&["backup", "source"][..], &["backup", "source", "--reread", "--max-delete", "0"]] {
        let ran = user.json(3, args);
        assert_eq!((&ran["outcome"], &ran["snapshot"]), (&json!("unchanged"), &before[1]["id"]));
        assert_eq!((&ran["problems"][0]["path"], &ran["removed"]), (&json!("e"), &json!(0)));
        // It used to cost a pack of pages that nothing referred to, with every run.
        assert!(user.objects() == objects && ran["uploaded_bytes"] == 0, "{ran}");
    }
    assert_eq!(user.snapshots(), before);
    assert_eq!(user.json(10, &["backup", "source", "--strict"])["refusal"]["guard"], "unreadable");
    assert_eq!(user.snapshots(), before);
}
