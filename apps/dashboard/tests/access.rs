//! Rules: what a running server allows, what `latchbus access explain` says of it, and SIGHUP.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;
use support::{Server, latchbus, run, until};
use tempfile::tempdir;

const RULES: &str = "\
everyone = [\"guest\"]

[roles.guest]
publish = [\"lab/#\", \"own/{client}\"]
subscribe = [\"lab/#\"]
deny = [\"lab/secret\"]
";

/// What `latchbus access explain` prints, and its exit status.
fn explain(rules: &Path, words: &[&str]) -> (Option<i32>, String) {
    let file = rules.to_str().unwrap();
    let first = ["access", "explain", "--access", file];
    let words = first.iter().chain(words);
    let (code, out, err) = run(latchbus(words));
    (code, out + &err)
}

#[test]
fn explain_names_the_rule_that_decides() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("access.toml");
    fs::write(&file, RULES).unwrap();
    for (words, status, wanted) in [
        (
            &["--publish", "lab/x"][..],
            0,
            "access.toml:4: role guest: publish \"lab/#\"",
        ),
        (
            &["--user", "anna", "--publish", "lab/secret"],
            1,
            "access.toml:6: role guest: deny \"lab/secret\"",
        ),
        (
            &["--publish", "own/kiosk", "--client", "kiosk"],
            0,
            "access.toml:4: role guest: publish \"own/{client}\"",
        ),
        (
            &["--publish", "own/kiosk", "--client", "ki/osk"],
            1,
            "no rule allows it",
        ),
        (
            &["--read", "lab/x"],
            0,
            "access.toml:5: role guest: subscribe \"lab/#\"",
        ),
        (&["--subscribe", "#"], 0, "access.toml:5"),
        (
            &["--subscribe", "den/+"],
            1,
            "nothing that it matches may be read",
        ),
        (
            &[
                "--token",
                "t",
                "--token-claims",
                r#"{"sub":["den/#"]}"#,
                "--read",
                "den/a",
            ],
            0,
            "the token: \"den/#\"",
        ),
        (
            &[
                "--token",
                "t",
                "--token-claims",
                r#"{"sub":["lab/#"]}"#,
                "--read",
                "lab/secret",
            ],
            1,
            "access.toml:6",
        ),
    ] {
        let (code, text) = explain(&file, words);
        assert_eq!(code, Some(status), "{words:?}: {text}");
        assert!(text.contains(wanted), "{words:?}: {text}");
    }
    for words in [
        &["--user", "anna"][..],
        &["--publish", "a/#"],
        &["--subscribe", "a#"],
        &["--publish", "a", "--read", "a"],
        &["--publish", "a", "--qos", "3"],
        &["--publish", "a", "--token-claims", "{}"],
        &[
            "--publish",
            "a",
            "--token",
            "t",
            "--token-claims",
            "{\"subs\":[]}",
        ],
    ] {
        let (code, text) = explain(&file, words);
        assert_eq!(code, Some(2), "{words:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    fs::write(&file, "[roles.a]\npublis = []").unwrap();
    let (code, text) = explain(&file, &["--read", "a"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("access.toml:2: unknown key `publis`"),
        "{text}"
    );
}

#[test]
fn files_of_mosquitto_are_imported() {
    let directory = tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let acl = file("acl", "user anna\ntopic lab/#\ntopic write $SYS/a\n");
    let passwords = file("passwd", "anna:$7$101$c2FsdA==$aGFzaA==\nbert:plain\n");
    let out = directory.path().join("out");
    let out = out.to_str().unwrap();
    let words = [
        "access",
        "import",
        "--mosquitto-acl",
        &acl,
        "--mosquitto-passwd",
        &passwords,
        "--out",
        out,
    ];
    let (code, printed, said) = run(latchbus(words));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(printed, format!("{out}/access.toml\n{out}/users\n"));
    assert!(
        said.lines().count() == 2 && said.contains("$SYS") && said.contains("bert"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(format!("{out}/users")).unwrap(),
        "anna:$7$101$c2FsdA==$aGFzaA==\n"
    );
    let mode = fs::metadata(format!("{out}/users"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let rules = format!("{out}/access.toml");
    let (code, text) = explain(rules.as_ref(), &["--user", "anna", "--publish", "lab/x"]);
    assert_eq!(code, Some(0), "{text}");
    // What is there is not overwritten.
    let (code, _, said) = run(latchbus(words));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, printed, _) = run(latchbus(["access", "import", "--mosquitto-acl", &acl]));
    assert_eq!(
        (code, printed),
        (Some(0), fs::read_to_string(&rules).unwrap())
    );
    // Hashes are not printed.
    assert_eq!(
        run(latchbus([
            "access",
            "import",
            "--mosquitto-passwd",
            &passwords
        ]))
        .0,
        Some(2)
    );
    let broken = file("broken", "user anna\ntopics x\n");
    let (code, _, said) = run(latchbus(["access", "import", "--mosquitto-acl", &broken]));
    assert!(code == Some(2) && said.contains("broken:2"), "{said}");
}

#[test]
fn check_config_checks_the_rules() {
    let directory = tempdir().unwrap();
    let (settings, rules) = (
        directory.path().join("s.toml"),
        directory.path().join("a.toml"),
    );
    fs::write(&settings, format!("access = {rules:?}")).unwrap();
    let check = || {
        let (code, _, err) = run(latchbus(["check-config", settings.to_str().unwrap()]));
        (code, err)
    };
    fs::write(&rules, RULES).unwrap();
    assert_eq!(check(), (Some(0), String::new()));
    fs::write(&rules, "\n\neveryone = [\"nobody\"]").unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(2));
    assert!(
        text.contains("a.toml:3: there is no role \"nobody\""),
        "{text}"
    );
}

#[test]
fn a_signal_reloads_the_rules_and_broken_ones_change_nothing() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("access.toml");
    fs::write(&file, RULES).unwrap();
    let mut server = Server::on_free_ports(["--ephemeral", "--access", file.to_str().unwrap()]);
    let put = |server: &Server, topic: &str| {
        let answer = server.send("PUT", &format!("/api/v1/topics/{topic}"), "1");
        answer.status == 403
    };
    assert!(!put(&server, "lab/x") && put(&server, "lab/secret") && put(&server, "den/x"));
    fs::write(&file, RULES.replace("lab/#", "den/#")).unwrap();
    server.signal(Signal::HUP);
    until("the new rules", || !put(&server, "den/x"));
    assert!(put(&server, "lab/x"));
    fs::write(&file, "everyone = [").unwrap();
    server.signal(Signal::HUP);
    assert!(!put(&server, "den/x") && put(&server, "lab/x"));
    let log = server.kill();
    assert!(log.contains("the rules are reloaded"), "{log}");
}
