//! Keeps the direction of the flow: a module uses only modules of its own floor or of a lower one.
//!
//! The floors are read from the comments of `lib.rs`, so that there is one list of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The stories of the top floor; none is a part of another.
const STORIES: &[&str] = &["backup", "restore", "maintain"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Reads which floor each module of the crate stands on.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floor = None;
    let mut floors = BTreeMap::new();
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest.split(':').next().and_then(|number| number.parse().ok());
        } else if let Some(module) = line.trim_start_matches("pub ").strip_prefix("mod ") {
            let module = module.trim_end_matches(';').to_owned();
            floors.insert(module.clone(), floor.unwrap_or_else(|| panic!("{module} stands on no floor")));
        }
    }
    floors
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).expect("the sources") {
        let path = item.expect("the sources").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The code of a file without comments and without its tests, which may use anything.
fn code(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            break;
        }
        if !line.trim_start().starts_with("//") {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The modules of the crate's root that a piece of code names: `crate::a::b`, `use crate::{a::b, c}`.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, matched) in code.match_indices("crate::") {
        let rest = &code[at + matched.len()..];
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begins = true;
            for (at, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    _ if character.is_whitespace() => {}
                    _ if begins => {
                        found.push(name(&group[at..]));
                        begins = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(name(rest));
        }
    }
    // What the root re-exports (`crate::Error`) stands on the lowest floor.
    found.retain(|name| name.starts_with(|first: char| first.is_lowercase()));
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Says what is wrong with one module's uses of others.
fn offences(floors: &BTreeMap<String, u32>, module: &str, code: &str) -> Vec<(String, String)> {
    let own = floors[module];
    let wrong = |used: &String| match floors.get(used) {
        None => panic!("{module} uses crate::{used}, which lib.rs does not list on a floor"),
        Some(floor) => {
            *floor > own
                || (used == "testing" && module != "testing")
                || (used != module && STORIES.contains(&module) && STORIES.contains(&used.as_str()))
        }
    };
    uses(code).into_iter().filter(wrong).map(|used| (module.to_owned(), used)).collect()
}

#[test]
fn modules_use_only_their_own_floor_or_lower_ones() {
    let floors = floors(&fs::read_to_string(sources().join("lib.rs")).expect("lib.rs"));
    assert!(floors.len() >= 15, "lib.rs lists the modules by floor: {floors:?}");
    let mut files = Vec::new();
    rust_files(&sources(), &mut files);
    let mut found = Vec::new();
    let mut seen = 0;
    for file in files {
        let relative = file.strip_prefix(sources()).expect("a source");
        let first = relative.iter().next().and_then(|name| name.to_str()).expect("UTF-8");
        let module = first.trim_end_matches(".rs");
        let is_test = relative.file_name().is_some_and(|name| name == "tests.rs");
        if module == "lib" || is_test {
            continue;
        }
        let code = code(&fs::read_to_string(&file).expect("a source"));
        let is_root_of_module = relative.iter().count() == 1 || relative.ends_with("mod.rs");
        if is_root_of_module && relative.iter().count() <= 2 {
            let sideways =
                code.lines().find(|line| line.starts_with("use super::") || line.starts_with("pub use super::"));
            assert_eq!(sideways, None, "{module} says `super::` where `crate::` is meant");
        }
        seen += uses(&code).len();
        found.extend(offences(&floors, module, &code));
    }
    assert!(seen > 50, "the uses are found: {seen}");
    found.sort();
    found.dedup();
    assert_eq!(found, [], "uses against the flow of lib.rs: (module, what it uses)");
}

#[test]
fn a_use_against_the_flow_is_seen() {
    let floors =
        floors("// Floor 1: x\npub mod error;\n// Floor 6: y\npub mod backup;\nmod restore;\npub mod testing;\n");
    let seen = |module: &str, text: &str| !offences(&floors, module, &code(text)).is_empty();
    assert!(seen("error", "use crate::backup::backup;"));
    assert!(seen("error", "fn f() -> crate::backup::X {}"));
    assert!(seen("error", "use crate::{error::E, backup::{A, B}};"));
    assert!(seen("backup", "use crate::restore::restore;"));
    assert!(seen("backup", "use crate::testing::x;"));
    assert!(!seen("backup", "use crate::{error::{E, F}, backup::G, Error};"));
    assert!(!seen("error", "/// See [`crate::backup`].\n#[cfg(test)]\nmod tests { use crate::backup::x; }"));
}
