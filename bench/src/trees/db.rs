//! `db`: one SQLite database of 1.1 GB, as a web site might have it: 50,000 rows with a text and a picture, two indexes.
//!
//! A change updates 0.2 % of the rows, anywhere: 100 places in the file, and the index on the time of the last change.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, params};

use super::SEED;
use crate::failure::{Outcome, Tried};
use crate::random::{Random, Words};

const ROWS: f64 = 50_000.0;
const SCHEMA: &str = "
    PRAGMA page_size = 4096;
    PRAGMA journal_mode = MEMORY;
    PRAGMA synchronous = OFF;
    CREATE TABLE posts (id INTEGER PRIMARY KEY, slug TEXT, changed INTEGER, body TEXT, picture BLOB);
    CREATE INDEX by_slug ON posts (slug);
    CREATE INDEX by_change ON posts (changed);
";

pub(super) fn make(folder: &Path, scale: f64) -> Outcome<()> {
    fs::create_dir_all(folder).on("create the folder", folder)?;
    let path = folder.join("site.sqlite");
    fill(&path, (ROWS * scale).ceil() as u64).on("fill the database", &path)
}

fn fill(path: &Path, rows: u64) -> rusqlite::Result<()> {
    let mut random = Random::new(SEED, 2);
    let words = Words::new(&mut random);
    let mut connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO posts VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for id in 1..=rows as i64 {
            let size = random.between(4_000, 22_000) as usize;
            let body = text(&mut random, &words, size);
            let mut picture = vec![0; random.between(1_000, 17_000) as usize];
            random.fill(&mut picture);
            insert.execute(params![id, format!("post-{:016x}", random.next()), id, body, picture])?;
        }
    }
    transaction.commit()
}

pub(super) fn change(folder: &Path, generation: u64) -> Outcome<()> {
    let path = folder.join("site.sqlite");
    update(&path, generation).on("update the database", &path)
}

fn update(path: &Path, generation: u64) -> rusqlite::Result<()> {
    let mut random = Random::new(SEED + generation, 12);
    let words = Words::new(&mut random);
    let mut connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")?;
    let rows: i64 = connection.query_row("SELECT count(*) FROM posts", [], |row| row.get(0))?;
    let transaction = connection.transaction()?;
    for row in random.choose((rows as f64 * 0.002).ceil() as usize, rows as usize) {
        let id = row as i64 + 1;
        let size: i64 =
            transaction.query_row("SELECT length(body) FROM posts WHERE id = ?1", [id], |row| row.get(0))?;
        let body = text(&mut random, &words, size as usize);
        let changed = (generation as i64 + 1) * rows + id;
        transaction.execute("UPDATE posts SET body = ?1, changed = ?2 WHERE id = ?3", params![body, changed, id])?;
    }
    transaction.commit()
}

fn text(random: &mut Random, words: &Words, bytes: usize) -> String {
    let mut text = Vec::with_capacity(bytes);
    words.write(random, bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
