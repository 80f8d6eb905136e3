//! The report: a page, a picture and the README's table, from what was measured and from nothing else.

mod goals;
mod picture;
mod sections;
mod table;

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome, Tried};
use crate::results::{Campaign, Key, Medium, Results, Scenario};
use crate::store::StoreKind;
use crate::trees::Tree;

pub use goals::goals;
pub use sections::tables;

const BEGIN: &str = "<!-- made by `just bench`: begin -->\n";
const END: &str = "<!-- made by `just bench`: end -->";
/// What holds for every campaign; the figures come in place of `TABLES`.
const PAGE: &str = include_str!("page.md");

/// Writes the page, the picture and the table of the README.
pub fn write(results: &Results, project: &Path) -> Outcome<()> {
    let tables = match results.campaigns.is_empty() {
        true => "Nothing has been measured yet.\n".to_owned(),
        false => tables(results),
    };
    let page = PAGE.replace("SETTINGS\n", &sections::settings()).replace("TABLES\n", &tables);
    put(&project.join("docs/benchmarks.md"), &page)?;
    let mut words = "Nothing has been measured yet.\n".to_owned();
    if let Some(picture) = picture::draw(results) {
        put(&project.join("docs/benchmarks.svg"), &picture)?;
        words = sections::readme(results);
    }
    let path = project.join("README.md");
    let readme = fs::read_to_string(&path).on("read", &path)?;
    put(&path, &between(&readme, &words).ok_or_else(|| Failure::new("README.md has no place for the table"))?)
}

/// The campaign of `tree` in memory, on a local store: the one that most figures are quoted from.
fn quoted(results: &Results, tree: Tree) -> Option<&Campaign> {
    results.find(Key { scenario: Scenario::Steps, medium: Medium::Tmpfs, store: StoreKind::Local, tree })
}

/// `text` with `words` between the two marks.
fn between(text: &str, words: &str) -> Option<String> {
    let begin = text.find(BEGIN)? + BEGIN.len();
    let end = begin + text.get(begin..)?.find(END)?;
    Some(format!("{}{words}{}", &text[..begin], &text[end..]))
}

fn put(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).on("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("above\n{BEGIN}old\n{END}\nbelow\n");
        assert_eq!(between(&text, "new\n"), Some(format!("above\n{BEGIN}new\n{END}\nbelow\n")));
        assert_eq!(between("no marks", "new"), None);
    }
}
