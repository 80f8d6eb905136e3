//! A disk that becomes full while `restore` writes to it, because another writes there too.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pod::{Cluster, Pod, wait_for};

const FILES: usize = 20;
/// So many that all of them are several windows of a restore: what is cut in the middle has written some.
const FILE_BYTES: usize = 2_000_000;

/// A cluster with a snapshot of files that do not compress.
fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let first = cluster.pod("first");
    assert_eq!(first.restore().code, Some(0));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..FILES {
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let content: Vec<u8> = words.flatten().take(FILE_BYTES).collect();
        fs::write(first.data.join(format!("{number:02}")), content).expect("written");
    }
    assert_eq!(first.sync().terminate().code, Some(0));
    cluster
}

/// A small file system of its own; needs root.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

/// The files that are whole.
fn restored_files(pod: &Pod<'_>) -> Vec<String> {
    let Ok(names) = fs::read_dir(&pod.data) else { return Vec::new() };
    let names = names.map(|name| name.expect("an entry").file_name().into_string().expect("a name"));
    names.filter(|name| !name.starts_with(".ghostsync-")).collect()
}

fn assert_what_is_there_is_right(cluster: &Cluster, pod: &Pod<'_>) {
    for name in restored_files(pod) {
        let expected = fs::read(cluster.pod("first").data.join(&name)).expect("a file of the snapshot");
        assert!(fs::read(pod.data.join(&name)).expect("a file") == expected, "{name}");
    }
}

/// What a restore that went well says that it did.
fn told(log: &str) -> Value {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told = lines.filter(|line| line["message"].as_str().is_some_and(|said| said.ends_with("is restored")));
    told.next().unwrap_or_else(|| panic!("is not restored: {log}"))
}

/// Starts a restore, fills the disk in its middle, makes room again, and restores once more.
fn a_disk_that_another_fills(options: &str, fill: impl Fn(&Path)) {
    let cluster = cluster();
    let mut pod = cluster.pod("pod");
    let Some(disk) = Disk::new(cluster.folder.path().join("disk"), options) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let last_words = pod.last_words_file();
    pod.data = disk.0.join("data");
    let filler = disk.0.join("filler");
    fs::create_dir(&filler).expect("a folder");
    let log_flag = format!("--termination-log={}", last_words.display());
    let genesis = format!("--genesis={}", cluster.id);
    let words = ["restore", &genesis, &log_flag, "--limit-download=10MB"];
    let slow = pod.command(&words).stderr(Stdio::piped()).spawn().expect("starts");
    wait_for("a part of it is restored", || restored_files(&pod).len() >= 6);
    fill(&filler);
    let ended = slow.wait_with_output().expect("ends");
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{log}");
    let advice = "the disk of the volume is full: free bytes or inodes";
    assert!(log.contains("No space left on device") && log.contains(advice), "{log}");
    let said = fs::read_to_string(&last_words).expect("the last words");
    assert!(said.starts_with("restore failed: ") && said.contains(advice), "{said}");
    assert!(!pod.receipt().exists(), "the app would start");
    let kept = restored_files(&pod).len();
    assert!((6..FILES).contains(&kept), "{kept}");
    assert_what_is_there_is_right(&cluster, &pod);

    // As the kubelet does: while there is no room, each time with the same word.
    let again = pod.restore_with(&[&log_flag]);
    assert_eq!(again.code, Some(1), "{}", again.log);
    assert!(again.log.contains(advice), "{}", again.log);
    assert!(!pod.receipt().exists());

    // There is room for the snapshot once, and not for what is missing beside all of it.
    fs::remove_dir_all(&filler).expect("removed");
    let again = pod.restore_with(&[&log_flag]);
    assert_eq!(again.code, Some(0), "{}", again.log);
    let told = told(&again.log);
    assert!(told["unchanged"].as_u64() >= Some(6), "{told}");
    assert!(told["downloaded_bytes"].as_u64() < Some((FILES * FILE_BYTES) as u64), "{told}");
    assert!(pod.receipt().exists());
    assert_eq!(restored_files(&pod).len(), FILES);
    assert_what_is_there_is_right(&cluster, &pod);
}

#[test]
fn bytes_that_run_out_in_the_middle_of_a_restore_keep_the_app_from_starting_until_there_is_room() {
    a_disk_that_another_fills("size=42m", |filler| {
        let mut file = File::create(filler.join("file")).expect("created");
        while file.write_all(&[1; 4096]).is_ok() {}
    });
}

#[test]
fn inodes_that_run_out_in_the_middle_of_a_restore_keep_the_app_from_starting_until_there_is_room() {
    a_disk_that_another_fills("size=90m,nr_inodes=28", |filler| {
        let mut numbers = 0..;
        while numbers.next().is_some_and(|number: u32| File::create(filler.join(number.to_string())).is_ok()) {}
    });
}

#[test]
fn a_restore_that_is_killed_again_and_again_goes_on_where_it_was() {
    let cluster = cluster();
    let pod = cluster.pod("pod");
    let genesis = format!("--genesis={}", cluster.id);
    // As a container that is killed for its memory, or by a probe that has no place there.
    for whole in [5, 10, 15] {
        let mut slow = pod.command(&["restore", &genesis, "--limit-download=10MB"]);
        let mut slow = slow.stderr(Stdio::null()).spawn().expect("starts");
        wait_for("it has got further", || restored_files(&pod).len() >= whole);
        slow.kill().expect("is there");
        slow.wait().expect("ends");
        assert!(!pod.receipt().exists());
    }
    let last = pod.restore();
    assert_eq!(last.code, Some(0), "{}", last.log);
    let told = told(&last.log);
    assert!(told["unchanged"].as_u64() >= Some(15), "{told}");
    let most = ((FILES - 15 + 3) * FILE_BYTES) as u64;
    assert!(told["downloaded_bytes"].as_u64() <= Some(most), "at most {most}, a block holds files: {told}");
    assert_eq!(restored_files(&pod).len(), FILES);
    assert_what_is_there_is_right(&cluster, &pod);
}
