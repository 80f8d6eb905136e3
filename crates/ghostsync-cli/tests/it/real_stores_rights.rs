//! The bucket policy of `docs/operations.md`, as it stands there, on a real store that enforces it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::documented::documented;
use crate::sandbox::{Ran, Sandbox};
use crate::server::Server;

const URL: &str = "s3://test/blog";

/// The policy of the page, in which users are named as this store names them.
fn documented_policy() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut blocks = page.split("```json\n").skip(1).map(|block| block.split("```").next().expect("an end"));
    let policy = blocks.find(|block| block.contains("\"Statement\"")).expect("the page shows a policy");
    policy.replace("arn:aws:iam::111122223333:user/", "arn:aws:iam:::user/")
}

/// Ceph with three users beside the one who owns the bucket, and the policy.
struct Rights {
    server: Server,
    sandbox: Sandbox,
}

impl Rights {
    fn start() -> Option<Self> {
        let rights = Self { server: Server::start("ceph", "s3")?, sandbox: Sandbox::new() };
        for user in ["restorer", "writer", "maintainer"] {
            let create = format!(
                "radosgw-admin --conf {}/ceph.conf -n client.rgw user create --uid {user} --display-name {user} \
                 --access-key {user} --secret-key secret",
                rights.server.folder().display()
            );
            let ran = rights.sandbox.shell(&create);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        rights.put_policy(&documented_policy());
        Some(rights)
    }

    fn put_policy(&self, policy: &str) {
        self.sandbox.write("policy.json", policy);
        let put = "curl --silent --show-error --fail --max-time 30 --aws-sigv4 aws:amz:$AWS_REGION:s3 \
                   --user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY --upload-file policy.json \
                   --header x-amz-content-sha256:$(sha256sum <policy.json | cut -d' ' -f1) \
                   $AWS_ENDPOINT_URL/test?policy=";
        let ran = self.sandbox.shell_on_store("s3", &self.server.variables, put);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    fn variables(&self, user: &str) -> Vec<(String, String)> {
        let theirs = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let others = self.server.variables.iter().filter(|(name, _)| !theirs.contains(&&**name)).cloned();
        let keys = [(theirs[0], user), (theirs[1], "secret")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        others.chain(keys).collect()
    }

    fn run(&self, user: &str, args: &[&str]) -> Ran {
        self.sandbox.on_store(URL, &self.variables(user), &[args, &["--json"]].concat())
    }

    fn ok(&self, user: &str, args: &[&str]) -> Value {
        let ran = self.run(user, args);
        assert_eq!(ran.code, 0, "{user} {args:?}: {}{}", ran.stdout, ran.stderr);
        ran.document()
    }

    /// Must end with 13, and say that it was access that was denied.
    fn denied(&self, user: &str, args: &[&str]) -> Value {
        let ran = self.run(user, args);
        let document = ran.document();
        assert_eq!((ran.code, &document["error"]["kind"]), (13, &"denied".into()), "{user} {args:?}: {document}");
        document
    }
}

/// A text in which every session has the same id.
fn without_session(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split('/').map(|word| if is_id(&word) { "SESSION" } else { word }).collect::<Vec<_>>().join("/")
}

#[test]
#[ignore = "starts a server (just stores)"]
fn backup_and_restore_need_no_right_to_delete_and_prune_says_what_it_lacks() {
    let Some(rights) = Rights::start() else { return };
    rights.denied("restorer", &["init"]);
    rights.denied("writer", &["init"]);
    rights.ok("maintainer", &["init"]);

    rights.ok("writer", &["claim", "--owner", "pod"]);
    rights.sandbox.write("source/file", "one");
    rights.denied("restorer", &["backup", "source"]);
    rights.ok("writer", &["backup", "source", "--owner", "pod", "--exclusive"]);
    rights.sandbox.write("source/file", "two");
    rights.ok("writer", &["backup", "source", "--owner", "pod", "--exclusive"]);
    rights.ok("writer", &["release", "--owner", "pod"]);
    rights.ok("restorer", &["restore", "back"]);
    assert_eq!(rights.sandbox.read("back/file"), "two");
    rights.ok("restorer", &["check", "--read-data"]);

    rights.sandbox.write("source/file", "three");
    rights.ok("writer", &["backup", "source"]);
    rights.denied("restorer", &["forget", "--keep-last", "1", "--protect", "0s"]);
    let forget = rights.run("writer", &["forget", "--keep-last", "1", "--protect", "0s"]);
    assert_eq!(forget.code, 0, "{}", forget.stderr);
    let prune = ["prune", "--grace", "0s", "--session-idle", "0s"];
    for user in ["restorer", "writer"] {
        for block in documented(Some(&format!("ceph as {user}"))) {
            let ran = rights.sandbox.shell_on_store("s3", &rights.variables(user), &block.line);
            let printed = format!("{}{}exit {}\n", ran.stdout, ran.stderr, ran.code);
            let (line, expected) = (&block.line, without_session(&block.expected));
            assert!(without_session(&printed) == expected, "{line}\n--- printed\n{printed}--- documented\n{expected}");
        }
        let message = rights.denied(user, &prune)["error"]["message"].to_string();
        assert!(message.contains("prune needs the rights to list, read, write and delete objects"), "{message}");
    }
    // Everything but that one right: it has to find out before it moves anybody's floor.
    let commits = rights.ok("restorer", &["stats"])["commits"].clone();
    rights.put_policy(&documented_policy().replace(r#", "s3:DeleteObject""#, ""));
    rights.denied("maintainer", &prune);
    assert_eq!(rights.ok("restorer", &["stats"])["commits"], commits);
    rights.put_policy(&documented_policy());

    rights.ok("restorer", &["check", "--read-data"]);
    let pruned = rights.ok("maintainer", &prune);
    assert!(pruned["deleted_packs"].as_u64() > Some(0), "{pruned}");
    rights.sandbox.remove("back");
    rights.ok("restorer", &["restore", "back"]);
    assert_eq!(rights.sandbox.read("back/file"), "three");
}
