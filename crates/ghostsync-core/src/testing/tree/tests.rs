use proptest::prelude::*;

use super::*;

/// What the model says is on disk, link by link and byte by byte.
fn check(model: &TreeModel, directory: &Path) -> Result<(), TestCaseError> {
    let description = read_back(directory).expect("readable");
    let paths: Vec<_> = description.keys().filter(|path| !path.is_root()).cloned().collect();
    prop_assert_eq!(paths, model.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
    for (path, node) in model.iter() {
        let described = &description[path];
        let links = model.links(path);
        prop_assert_eq!(described.linked_to.as_ref(), (links.len() > 1).then_some(links[0]), "{:?}", path);
        match &node.kind {
            NodeKind::File(_) => prop_assert_eq!(Some(fs::read(on_disk(directory, path))?), node.content()),
            NodeKind::Symlink(target) => prop_assert_eq!(described.target.as_ref(), Some(target)),
            NodeKind::Directory => prop_assert_eq!(described.kind, "dir"),
            NodeKind::Fifo => prop_assert_eq!(described.kind, "fifo"),
        }
        if !matches!(node.kind, NodeKind::Symlink(_)) {
            prop_assert_eq!(described.mode, node.mode, "{:?}", path);
        }
        // A directory's mtime follows what happens in it.
        if let (Some(mtime), false) = (node.mtime, node.kind == NodeKind::Directory) {
            prop_assert_eq!(described.mtime, (mtime.seconds, mtime.nanoseconds.into()), "{:?}", path);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_and_changed_is_what_the_model_says(mut model in tree(0..40), changes in changes(0..20)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        model.write(directory.path()).expect("written");
        check(&model, directory.path())?;
        for change in &changes {
            apply(change, &mut model, directory.path()).expect("changed");
        }
        check(&model, directory.path())?;
    }

    #[test]
    fn equal_trees_have_no_differences_and_every_change_has_one(model in tree(1..30), changes in changes(1..2)) {
        let (a, b) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        model.write(a.path()).expect("written");
        model.write(b.path()).expect("written");
        for directory in [a.path(), b.path()] {
            fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("set");
            set_mtime(directory, FileTime { seconds: 1, nanoseconds: 2 }).expect("set");
        }
        prop_assert_eq!(differences(a.path(), b.path()), Vec::<String>::new());
        let mut changed = model.clone();
        let touched = |model: &TreeModel| -> Vec<_> {
            model.iter().map(|(path, node)| (path.clone(), node.clone(), model.links(path).len())).collect()
        };
        apply(&changes[0], &mut changed, b.path()).expect("changed");
        if touched(&model) != touched(&changed) {
            prop_assert_ne!(differences(a.path(), b.path()), Vec::<String>::new(), "{:?}", changes);
        }
    }
}

#[test]
fn each_kind_of_difference_is_seen() {
    use std::os::unix::fs::symlink;
    let makers: [(&str, fn(&Path)); 9] = [
        ("only in the second", |path| fs::write(path.join("new"), b"").expect("written")),
        ("content", |path| fs::write(path.join("file"), b"other").expect("written")),
        ("size", |path| fs::write(path.join("file"), b"longer").expect("written")),
        ("mode", |path| fs::set_permissions(path.join("file"), Permissions::from_mode(0o4600)).expect("set")),
        ("mtime", |path| set_mtime(&path.join("dir"), FileTime { seconds: 5, nanoseconds: 6 }).expect("set")),
        ("target", |path| {
            fs::remove_file(path.join("link")).expect("removed");
            symlink("elsewhere", path.join("link")).expect("linked");
        }),
        ("kind", |path| {
            fs::remove_file(path.join("link")).expect("removed");
            fs::write(path.join("link"), b"").expect("written");
        }),
        ("hard link", |path| {
            fs::remove_file(path.join("hard")).expect("removed");
            fs::copy(path.join("file"), path.join("hard")).expect("copied");
        }),
        ("attributes", |path| {
            let _ = rustix::fs::lsetxattr(path.join("file"), c"user.test", b"x", XattrFlags::empty());
        }),
    ];
    for (word, change) in makers {
        let make = |directory: &Path| {
            fs::write(directory.join("file"), b"bytes").expect("written");
            fs::hard_link(directory.join("file"), directory.join("hard")).expect("linked");
            symlink("target", directory.join("link")).expect("linked");
            fs::create_dir(directory.join("dir")).expect("created");
        };
        let (a, b) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        make(a.path());
        make(b.path());
        change(b.path());
        let lines = differences(a.path(), b.path());
        let supported =
            word != "attributes" || rustix::fs::lsetxattr(a.path(), c"user.x", b"x", XattrFlags::empty()).is_ok();
        assert!(!supported || lines.iter().any(|line| line.contains(&format!(" {word}"))), "{word}: {lines:#?}");
    }
    let empty = tempfile::tempdir().expect("a temporary directory");
    let gone = differences(Path::new("/nowhere/at/all"), empty.path());
    assert!(gone.iter().any(|line| line.contains("cannot read")), "what cannot be read is never equal: {gone:?}");
}
