//! The last words: what `kubectl describe pod` shows of a container that has ended. Written when the final snapshot
//! begins, so that they say something whenever the process is killed, and again when it is done.

use std::io::Write;
use std::path::Path;

use crate::log;

/// What the kubelet reads at most.
const MAX_BYTES: usize = 4096;

/// Writes them. The kubelet has made the file; where there is none, there is no kubelet.
pub(crate) fn write(file: &Path, words: &str) {
    let opened = std::fs::OpenOptions::new().write(true).truncate(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(cut(words).as_bytes()));
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn(&format!("cannot write the termination message to {}: {error}", file.display()));
        }
        _ => {}
    }
}

fn cut(words: &str) -> &str {
    let mut end = words.len().min(MAX_BYTES);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    &words[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fit_and_replace_what_was_there() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        write(file.path(), &"é".repeat(3000));
        let text = std::fs::read_to_string(file.path()).expect("reads");
        assert_eq!((text.len(), text.chars().count()), (4096, 2048));
        write(file.path(), "done");
        assert_eq!(std::fs::read_to_string(file.path()).expect("reads"), "done");
        write(Path::new("/nowhere/at/all"), "nobody asked");
    }
}
