//! Files that know what they are: name, version and checksum are in the content, so that whoever finds one can tell
//! whether it is whole, and how new.

use std::collections::BTreeMap;
use std::path::Path;

/// The files of a directory that are whole: their name below it, and their version.
pub type Versions = BTreeMap<String, u64>;

/// The content of this version of a file.
#[must_use]
pub fn encode(name: &str, version: u64, payload: &[u8]) -> Vec<u8> {
    let body = [format!("{name} {version} {}\n", payload.len()).as_bytes(), payload].concat();
    [blake3::hash(&body).to_hex().as_bytes(), b" ", &body].concat()
}

/// Its version, if it is a whole file of this name.
#[must_use]
pub fn decode(name: &str, bytes: &[u8]) -> Option<u64> {
    let (hash, body) = bytes.split_at_checked(65)?;
    let is_whole = blake3::hash(body).to_hex().as_bytes() == &hash[..64];
    let end = body.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&body[..end]).ok()?.split(' ');
    let is_named = words.next() == Some(name);
    let version = words.next()?.parse().ok()?;
    (is_whole && is_named).then_some(version)
}

/// The whole files below a folder; what is half written, or no file of an app, is left out.
///
/// # Errors
/// Those of reading; a file that goes away meanwhile is none.
pub fn scan(folder: &Path) -> std::io::Result<Versions> {
    let mut found = Versions::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(name) = path.strip_prefix(folder).ok().and_then(Path::to_str) else { continue };
            match std::fs::read(&path) {
                Ok(bytes) => found.extend(decode(name, &bytes).map(|version| (name.to_owned(), version))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_content_and_a_torn_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = encode("a/post", 7, b"text\nmore");
        std::fs::create_dir(folder.path().join("a")).expect("a folder");
        std::fs::write(folder.path().join("a/post"), &bytes).expect("written");
        std::fs::write(folder.path().join("a/other"), &bytes).expect("written");
        std::fs::write(folder.path().join("a/torn"), &encode("a/torn", 1, b"text")[..70]).expect("written");
        std::fs::write(folder.path().join("empty"), "").expect("written");
        assert_eq!(scan(folder.path()).expect("reads"), Versions::from([("a/post".to_owned(), 7)]));
    }
}
