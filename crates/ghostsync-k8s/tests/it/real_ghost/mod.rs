//! The real Ghost, its content folder with a SQLite database in it, and the program beside it: a blog is set up and
//! filled through its admin API, its pod ends, and it goes on elsewhere.

mod blog;
mod http;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ghostsync_core::format::commit::Snapshot;
use serde_json::Value;

use blog::{Blog, THEME, database, gif, prepare};

use crate::pod::{Cluster, Pod, Sidecar, wait_at_most, wait_for};

/// A change is saved so long after it at the latest, and the time that a pass takes.
const MAX_WAIT: &str = "--max-wait=2s";
/// What may be lost when everything is killed was acknowledged in the last seconds before.
const KEPT_AFTER: Duration = Duration::from_secs(5);

/// The command, which `just ghost` builds.
fn ghostsync() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_ghostsync-k8s")).with_file_name("ghostsync")
}

fn cluster() -> Cluster {
    Cluster::made_by(&ghostsync())
}

/// First boot: a branch without a snapshot, Ghost on an empty content folder, the sidecar beside it.
fn first_boot(pod: &Pod<'_>, words: &[&str]) -> (Blog, Sidecar) {
    let ended = pod.restore();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    prepare(&pod.data);
    let sidecar = pod.sync_with(words);
    let mut blog = Blog::start(&pod.data);
    blog.set_up();
    (blog, sidecar)
}

/// What was written, and acknowledged.
#[derive(Default)]
struct Written {
    posts: BTreeMap<String, Instant>,
    images: BTreeMap<String, (Vec<u8>, Instant)>,
}

impl Written {
    /// Writes the next post, and an image.
    fn write(&mut self, blog: &Blog, by: &str) -> io::Result<()> {
        let number = self.posts.len();
        let title = format!("{by} {number}");
        blog.post(&title)?;
        self.posts.insert(title, Instant::now());
        let image = gif(u8::try_from(number % 256).expect("a byte"), 40_000);
        let path = blog.upload(&format!("{by}-{number}.gif"), &image)?;
        let acknowledged = Instant::now();
        // What it serves by the first name it has made smaller; what came is beside it.
        let original = path.replace(".gif", "_o.gif");
        let served = blog.image(&path)?;
        assert!(blog.image(&original)? == image, "{original} is not what was uploaded");
        self.images.extend([(path, (served, acknowledged)), (original, (image, acknowledged))]);
        Ok(())
    }
}

/// Writes until the sidecar has saved something several times.
fn write_while_saving(blog: &Blog, sidecar: &Sidecar) -> Written {
    let mut written = Written::default();
    let passes = sidecar.passes();
    wait_for("posts are saved while more are written", || {
        written.write(blog, "post").expect("acknowledged");
        written.posts.len() >= 8 && sidecar.passes() >= passes + 3
    });
    written
}

fn sqlite3(database: &Path, question: &str) -> String {
    let output =
        Command::new("sqlite3").arg(database).arg(question).output().expect("sqlite3: scripts/tools.sh sqlite3");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// Starts the blog in another pod, and compares it with what was there when the first one ended.
fn goes_on_elsewhere(cluster: &Cluster, first: &Pod<'_>, written: &Written, posts: &BTreeMap<String, String>) {
    let elsewhere = cluster.pod("elsewhere");
    let ended = elsewhere.restore();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let dump = |pod: &Pod<'_>| sqlite3(&database(&pod.data), ".dump");
    assert!(dump(&elsewhere) == dump(first), "the databases differ");
    assert!(dump(first).contains("COMMIT"));
    let sidecar = elsewhere.sync();
    let mut blog = Blog::start(&elsewhere.data);
    blog.log_in();
    assert_eq!(blog.posts(), *posts);
    for title in written.posts.keys() {
        assert!(posts.contains_key(title), "{title} is missing");
    }
    for (path, (image, _)) in &written.images {
        assert!(blog.image(path).expect("an image") == *image, "{path} is another");
    }
    assert_eq!(blog.active_theme(), THEME);
    let theme = |pod: &Pod<'_>| std::fs::read_link(pod.data.join("themes").join(THEME)).expect("a link");
    assert_eq!(theme(&elsewhere), theme(first));
    assert_eq!(blog.front_page().0, 200);
    // And it goes on: what is written here is saved too.
    blog.post("written elsewhere").expect("acknowledged");
    blog.send_sigterm();
    assert!(blog.wait().success());
    assert_eq!(sidecar.terminate().code, Some(0));
    assert!(cluster.is_released());
}

/// A blog that is written to while it is saved and after its hook has begun, then ends, and its sidecar after it. The hook
/// is one that waits for the app, or has returned.
fn loses_nothing_at_its_end(begin_hook: impl FnOnce(&Pod<'_>, &Blog, &Sidecar) -> Option<Child>) {
    let cluster = cluster();
    let pod = cluster.pod("first");
    let (blog, sidecar) = first_boot(&pod, &[]);
    let mut written = write_while_saving(&blog, &sidecar);
    let mut hook = begin_hook(&pod, &blog, &sidecar);
    written.write(&blog, "late").expect("acknowledged");
    let posts = blog.posts();
    if let Some(hook) = &mut hook {
        assert!(hook.try_wait().expect("a child").is_none(), "the app is still there");
    }
    blog.send_sigterm();
    assert!(blog.wait().success());
    if let Some(hook) = &mut hook {
        assert_eq!(hook.wait().expect("ends").code(), Some(0));
    }
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(cluster.is_released());
    goes_on_elsewhere(&cluster, &pod, &written, &posts);
}

#[test]
#[ignore = "starts the real Ghost (just ghost)"]
fn a_blog_with_a_native_sidecar_loses_nothing_at_its_end() {
    loses_nothing_at_its_end(|pod, _, _| {
        assert_eq!(pod.run(&["ctl", "terminating"]).code, Some(0));
        None
    });
}

#[test]
#[ignore = "starts the real Ghost (just ghost)"]
fn a_blog_with_a_classic_sidecar_that_sees_its_process_loses_nothing_at_its_end() {
    loses_nothing_at_its_end(|pod, blog, sidecar| {
        let wait_app = format!("--wait-app=process:{}", blog.process);
        let hook = pod.command(&["ctl", "final-sync", &wait_app, "--deadline=50s"]).spawn().expect("starts");
        sidecar.wait_for_line("final-sync: waiting for the app");
        Some(hook)
    });
}

#[test]
#[ignore = "starts the real Ghost (just ghost)"]
fn a_blog_that_is_killed_with_its_sidecar_loses_the_last_seconds_at_most() {
    let cluster = cluster();
    let pod = cluster.pod("first");
    let (blog, sidecar) = first_boot(&pod, &["--quiet=1s", MAX_WAIT]);
    let mut written = Written::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| while written.write(&blog, "post").is_ok() {});
        // In the middle of everything: it goes on writing while this is decided.
        let enough = || Instant::now() > began + 3 * KEPT_AFTER;
        wait_for("enough is written", enough);
        blog.send_sigkill();
        sidecar.kill();
        writer.join().expect("has stopped");
    });
    let killed = Instant::now();
    drop(blog);

    let elsewhere = cluster.pod("elsewhere");
    let ended = elsewhere.restore();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(sqlite3(&database(&elsewhere.data), "PRAGMA integrity_check"), "ok\n");
    let mut blog = Blog::start(&elsewhere.data);
    blog.log_in();
    assert_eq!((blog.active_theme().as_str(), blog.front_page().0), (THEME, 200));
    let posts = blog.posts();
    let lost_posts = written.posts.iter().filter(|(title, _)| !posts.contains_key(*title)).map(|(_, at)| *at);
    let lost_posts: Vec<Instant> = lost_posts.collect();
    let images = written.images.iter().filter(|(path, (image, _))| blog.image(path).ok().as_ref() != Some(image));
    let lost_images: Vec<Instant> = images.map(|(_, (_, at))| *at).collect();
    let oldest = lost_posts.iter().chain(&lost_images).min().map(|at| killed - *at).unwrap_or_default();
    eprintln!(
        "killed: of {} posts and {} images {} and {} are lost, the oldest acknowledged {:.1} s before",
        written.posts.len(),
        written.images.len(),
        lost_posts.len(),
        lost_images.len(),
        oldest.as_secs_f64(),
    );
    assert!(oldest < KEPT_AFTER, "{oldest:?}");
    blog.post("written elsewhere").expect("acknowledged");
}

/// Whether the snapshot says of its database that it would not hold still.
fn is_marked(cluster: &Cluster, snapshot: &Snapshot) -> bool {
    let mut list = Command::new(ghostsync());
    list.env_clear().env("HOME", cluster.folder.path()).arg("--repo").arg(cluster.repository_folder());
    let output = list.args(["--json", "ls", &format!("{}:data/ghost.db", snapshot.id)]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["unstable"] == true
}

/// A database with its journal is sound: SQLite rolls it back when it is opened. One that was torn while it was read must
/// be marked in the snapshot.
#[test]
#[ignore = "starts the real Ghost (just ghost)"]
fn a_database_that_is_damaged_by_a_copy_in_the_middle_of_a_transaction_is_marked() {
    let wanted = std::env::var("GHOSTSYNC_GHOST_SNAPSHOTS").map_or(60, |wanted| wanted.parse().expect("a number"));
    let cluster = cluster();
    let pod = cluster.pod("first");
    // As often as can be, and never waiting for quiet.
    let (blog, sidecar) = first_boot(&pod, &["--quiet=1h", "--max-wait=10ms", "--interval=1h"]);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (blog, written) = (&blog, &written);
            scope.spawn(move || {
                let mut own = Written::default();
                while !written.load(Ordering::Relaxed) {
                    own.write(blog, &format!("writer {number} post")).expect("acknowledged");
                }
            });
        }
        let first = cluster.state().commit.snapshots.len();
        let enough = || cluster.state().commit.snapshots.len() >= first + wanted;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_at_most(Duration::from_secs(5) * u32::try_from(wanted).expect("a number"), "snapshots", enough);
        }));
        written.store(true, Ordering::Relaxed);
        outcome.expect("enough snapshots");
    });
    sidecar.kill();
    drop(blog);

    let snapshots = cluster.state().commit.snapshots.clone();
    let (mut databases, mut with_journal, mut marked, mut damaged) = (0, 0, 0, Vec::new());
    for snapshot in &snapshots {
        let database = database(&cluster.restored(snapshot));
        if !database.exists() {
            continue; // taken before Ghost had made it
        }
        databases += 1;
        with_journal += usize::from(PathBuf::from(format!("{}-journal", database.display())).exists());
        let is_marked = is_marked(&cluster, snapshot);
        marked += usize::from(is_marked);
        let verdict = sqlite3(&database, "PRAGMA integrity_check");
        if verdict != "ok\n" {
            damaged.push((is_marked, snapshot.id, verdict.lines().next().unwrap_or_default().to_owned()));
        }
    }
    eprintln!("of {databases} databases {with_journal} have a journal, {marked} are marked, {} damaged", damaged.len());
    let unnoticed: Vec<_> = damaged.iter().filter(|(is_marked, ..)| !is_marked).collect();
    eprintln!("damaged: {damaged:?}");
    assert!(unnoticed.is_empty(), "damaged and not marked: {unnoticed:?}");
}
