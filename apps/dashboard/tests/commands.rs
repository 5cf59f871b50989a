//! The commands beside the server: what they say agrees with what it does, and what they ask of it reaches it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and the helpers are a part of them"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Server, latchbus, refused, run, until};
use tempfile::{TempDir, tempdir};

/// A directory, in which programs run.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }

    fn latchbus<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = latchbus(words);
        command.current_dir(self.0.path());
        command
    }

    /// A server with a store, at a free port for HTTP alone.
    fn serve(&self, data: &str) -> Command {
        let mut command = self.latchbus(["--http", "127.0.0.1:0", "--mqtt", "off"]);
        command.args(["--data-dir", data]);
        command
    }

    /// Exit status, and all that is printed.
    fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> (i32, String) {
        let (status, out, err) = run(self.latchbus(words));
        (status.unwrap(), out + &err)
    }
}

const ALL: &str = "everyone = [\"all\"]\n[roles.all]\nadmin = true\npublish = [\"#\", \"$SYS/#\"]\nsubscribe = [\"#\", \"$SYS/#\"]\n";

#[test]
fn explain_knows_what_the_server_itself_writes() {
    let place = Place::new();
    let rules = place.file("access.toml", ALL);
    let server = Server::on_free_ports(["--ephemeral", "--access", &rules]);
    for (topic, payload, is_owned) in [
        ("clicks/main/values", "1", true),
        ("clicks/main/share", "1", true),
        ("clicks/main/rate", "1", true),
        ("clicks/main/reset", "1", true),
        ("clicks/main/k/floor", "1", true),
        ("clicks/main/k/pressed", "1", true),
        ("clicks/main/k/trouble", "1", true),
        ("clicks/main/k/zero", "1", true),
        ("$SYS/broker/uptime", "1", true),
        ("$SYS/x", "1", true),
        ("clicks/main/k/press", "red", false),
        ("clicks/main/k/status", "online", false),
        ("lab/values", "1", false),
        ("SYS/x", "1", false),
    ] {
        let (status, said) =
            place.run(["access", "explain", "--access", &rules, "--publish", topic]);
        assert_eq!(status, i32::from(is_owned), "{topic}: {said}");
        let decided = said.lines().nth(1).unwrap();
        assert_eq!(
            decided.contains("the server itself writes"),
            is_owned,
            "{topic}: {said}"
        );
        let answer = server.send("POST", &format!("/api/v1/topics/{topic}"), payload);
        assert_eq!(answer.status == 403, is_owned, "{topic}: {answer:?}");
        // Nor is it allowed where there are no rules.
        let (status, said) = place.run(["access", "explain", "--publish", topic]);
        assert_eq!(status, i32::from(is_owned), "{topic}: {said}");
        let asked = ["access", "explain", "--access", &rules, "--read", topic];
        assert_eq!(place.run(asked).0, 0, "{topic}");
    }
}

#[test]
fn explain_says_where_it_has_looked_for_rules() {
    let place = Place::new();
    let ask = ["access", "explain", "--user", "anna", "--publish", "lab/x"];
    let (status, said) = place.run(ask);
    assert_eq!(status, 0, "{said}");
    for wanted in ["--config", "LATCHBUS_CONFIG", "--access", "LATCHBUS_ACCESS"] {
        assert!(said.contains(wanted), "{said}");
    }
    let settings = place.file("b.toml", "threads = 1\n");
    let (status, said) = place.run(ask.iter().chain(&["--config", &settings]));
    assert!(status == 0 && said.contains(&settings), "{said}");
    let mut command = place.latchbus(ask);
    command.env("LATCHBUS_CONFIG", &settings);
    let (status, said, _) = run(command);
    assert!(status == Some(0) && said.contains(&settings), "{said}");
}

/// The example in docs/access.md, with the rules that stand there.
#[test]
fn the_example_in_the_documents_is_what_is_printed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/access.md");
    let page = fs::read_to_string(page).unwrap();
    let block = |after: &str, fence: &str| {
        let (_, rest) = page.split_once(after).unwrap();
        let (_, rest) = rest.split_once(fence).unwrap();
        rest.split_once("\n```").unwrap().0.to_owned()
    };
    let place = Place::new();
    place.file("latchbus.toml", block("\n## Rules\n", "```toml\n"));
    let example = block("\n### Which rule decides\n", "```\n");
    let (line, printed) = example.split_once('\n').unwrap();
    let words = line.strip_prefix("$ latchbus ").unwrap().split(' ');
    let (status, said) = place.run(words);
    assert_eq!((status, said.trim_end()), (1, printed));
}

#[test]
fn a_file_of_rules_is_told_from_a_file_of_settings() {
    let place = Place::new();
    let check = |name: &str, text: &str| {
        let file = place.file(name, text);
        place.run(["check-config", &file])
    };
    for text in [
        ALL,
        "[roles.a]\npublish = [\"x\"]\n",
        "anonymous = []\n",
        "[roles.a]\n[users]\nanna = [\"a\"]\n",
        "[roles.a]\n[tokens]\nkeys = [\"a\"]\n",
        "[roles.a]\n[certificates]\nanna = [\"a\"]\n",
        "signed_in = []\n",
    ] {
        let (status, said) = check("rules.toml", text);
        assert!(status == 0 && said.contains("rules"), "{text}{said}");
    }
    for (text, line) in [
        ("everyone = [\"guest\"]\n", 1),
        ("[roles.a]\npublis = []\n", 2),
        ("[roles.a]\n\npublish = [\"a#\"]\n", 3),
        ("[users]\nanna = [\"nobody\"]\n", 2),
        ("everyone = []\nhttp = 3000\n", 2),
    ] {
        let (status, said) = check("rules.toml", text);
        assert_eq!((status, said.lines().count()), (2, 1), "{text}{said}");
        let place = format!("rules.toml:{line}:");
        assert!(
            said.contains(&place) && said.contains("rules"),
            "{text}{said}"
        );
    }
    for text in [
        "",
        "anonymous = true\n",
        "users = \"users\"\n[access]\n",
        "[tokens]\nleeway_secs = 1\n",
    ] {
        let (_, said) = check("settings.toml", text);
        assert!(!said.contains("rules"), "{text}{said}");
    }
    // One in the place of the other is named as what it is.
    let (rules, settings) = (
        place.file("rules.toml", ALL),
        place.file("settings.toml", "http = 0\n[access]\neveryone = []\n"),
    );
    let line = refused(place.latchbus(["--ephemeral", "--config", &rules]));
    assert!(line.contains("--access"), "{line}");
    let line = refused(place.latchbus(["--ephemeral", "--access", &settings]));
    assert!(line.contains("--config"), "{line}");
}

#[test]
fn check_config_finds_what_would_end_the_start() {
    let place = Place::new();
    for directory in ["tls", "other"] {
        let made = place.run(["cert", directory, "localhost"]);
        assert_eq!(made.0, 0, "{made:?}");
    }
    place.file("short", "12345");
    place.file("broken", "no:line:of:users\n");
    place.file("rules.toml", "everyone = [\"nobody\"]\n");
    place.file("no.pem", "nothing\n");
    let pair = "http_tls = \"127.0.0.1:0\"\ntls.cert = \"tls/server.pem\"\n";
    let key = "tls.key = \"tls/server.key\"\n";
    let wrong = [
        "tokens.keys = \"missing\"".to_owned(),
        "tokens.keys = \"tls/server.key\"".to_owned(),
        "tokens.keys = \"short\"".to_owned(),
        "tokens.keys = \"no.pem\"".to_owned(),
        format!("{pair}tls.key = \"missing\""),
        format!("{pair}tls.key = \"other/server.key\""),
        format!("{pair}tls.key = \"no.pem\""),
        "http_tls = \"127.0.0.1:0\"\ntls.cert = \"missing\"\ntls.key = \"tls/server.key\""
            .to_owned(),
        "mqtt_tls = \"127.0.0.1:0\"\ntls.cert = \"no.pem\"\ntls.key = \"tls/server.key\""
            .to_owned(),
        format!("{pair}{key}tls.client_ca = \"missing\""),
        format!("{pair}{key}tls.client_ca = \"no.pem\""),
        "users = \"missing\"".to_owned(),
        "users = \"broken\"".to_owned(),
        "access = \"missing\"".to_owned(),
        "access = \"rules.toml\"".to_owned(),
        "pages = \"missing\"".to_owned(),
        "socketio_client = \"missing\"".to_owned(),
    ];
    let free = "http = \"127.0.0.1:0\"\nmqtt = \"127.0.0.1:0\"\nephemeral = true\n";
    let wrong = wrong.iter().map(|text| format!("{free}{text}\n"));
    let open = ["http", "mqtt"].map(|name| format!("{name} = \"0.0.0.0:0\"\nephemeral = true\n"));
    let open_tls = ["http_tls", "mqtt_tls"].map(|name| {
        format!(
            "{free}{}{key}{name} = \"[::]:0\"\n",
            pair.replace("http_tls = \"127.0.0.1:0\"\n", "")
        )
    });
    let mut said = Vec::new();
    for text in wrong.chain(open).chain(open_tls) {
        let file = place.file("settings.toml", &text);
        let checked = refused(place.latchbus(["check-config", &file]));
        let started = refused(place.latchbus(["--config", &file]));
        assert_eq!(checked, started, "{text}");
        said.push(checked);
    }
    said.sort();
    said.dedup();
    assert!(said.len() > 15, "{said:?}");
    // What starts is right.
    for text in [
        format!("{free}{pair}{key}tls.client_ca = \"tls/ca.pem\"\n"),
        format!("{free}tls.cert = \"missing\"\n{key}"),
        "http = \"0.0.0.0:0\"\nmqtt = 0\nephemeral = true\nanonymous = true\n".to_owned(),
    ] {
        let file = place.file("settings.toml", &text);
        assert_eq!(place.run(["check-config", &file]).0, 0, "{text}");
        drop(Server::start(place.latchbus(["--config", &file])));
    }
}

#[test]
fn users_are_found_without_the_other_files_of_the_settings() {
    let place = Place::new();
    place.file("users", "");
    let text = "users = \"users\"\naccess = \"missing\"\ntokens.keys = \"missing\"\n";
    let file = place.file("settings.toml", text);
    let (status, said) = place.run(["user", "list", "--config", &file]);
    assert_eq!((status, said.as_str()), (0, ""));
}

#[test]
fn a_unix_socket_is_reached_as_an_address_is() {
    let place = Place::new();
    let url = format!("unix:{}", place.path("http.sock"));
    let mut command = place.latchbus(["--http", &url, "--mqtt", "off", "--ephemeral"]);
    command.env("LATCHBUS_BASE_PATH", "");
    let server = Server::start(command);
    assert!(server.ready.starts_with(&format!("ready http={url} ")));
    let (status, said) = place.run(["ctl", "--url", &url, "reset-room", "main", "--red", "5"]);
    assert_eq!(status, 0, "{said}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["to"], json!({"red": 5, "blue": 0}));
    let (status, said) = place.run(["ctl", "clients", "--url", &url]);
    assert_eq!(status, 0, "{said}");
    for words in [["export", "--url"], ["import", "--url"]] {
        let (status, said) = place.run(words.iter().chain(&[url.as_str(), "export.jsonl"]));
        assert_eq!(status, 0, "{said}");
    }
    drop(server);
    for (url, wanted) in [
        (url.as_str(), "cannot reach unix:"),
        ("unix:", "names no file"),
        ("unix:none.sock", "cannot reach unix:none.sock"),
    ] {
        let line = refused(place.latchbus(["ctl", "clients", "--url", url]));
        assert!(line.contains(wanted), "{line}");
    }
    let trust = ["ctl", "clients", "--url", &url, "--ca", "ca.pem"];
    assert!(refused(place.latchbus(trust)).contains("https"));
}

#[test]
fn the_wrong_scheme_is_said_in_words() {
    let place = Place::new();
    assert_eq!(place.run(["cert", "tls", "127.0.0.1"]).0, 0);
    let tls = ["--http-tls", "127.0.0.1:0", "--mqtt-tls", "127.0.0.1:0"];
    let files = [
        "--tls-cert",
        "tls/server.pem",
        "--tls-key",
        "tls/server.key",
    ];
    let mut command = place.latchbus([
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--ephemeral",
    ]);
    command.args(tls).args(files);
    let server = Server::start(command);
    for (scheme, port, wanted) in [
        ("https", "http=", "http://"),
        ("https", "mqtt=", "without TLS"),
        ("http", "http-tls=", "https://"),
        ("https", "mqtt-tls=", "another protocol"),
    ] {
        let url = format!("{scheme}://{}", server.address(port));
        for words in [&["ctl", "clients"][..], &["export", "out.jsonl"]] {
            let mut command = place.latchbus(words);
            command.args(["--url", &url]);
            if scheme == "https" {
                command.args(["--ca", "tls/ca.pem"]);
            }
            let line = refused(command);
            assert!(line.contains(wanted), "{url}: {line}");
        }
    }
}

#[test]
fn numbers_that_are_none_are_said_as_such() {
    for (words, wanted) in [
        (
            &["ctl", "reset-room", "main", "--red", "-3"][..],
            "whole number from 0",
        ),
        (
            &["ctl", "reset-room", "main", "--blue", "-3"],
            "whole number from 0",
        ),
        (
            &["ctl", "reset-room", "main", "--blue", "1.5"],
            "whole number from 0",
        ),
        (
            &["ctl", "reset-room", "main", "--blue", "9007199254740992"],
            "whole number from 0",
        ),
        (&["ctl", "disconnect", "-3"], "an ID"),
        (&["ctl", "subscriptions", "-3"], "an ID"),
        (&["ctl", "disconnect", "anna"], "an ID"),
        (
            &["access", "explain", "--publish", "a", "--qos", "-1"],
            "0..=2",
        ),
    ] {
        let line = refused(latchbus(words));
        assert!(line.contains(wanted) && !line.contains("-- -"), "{line}");
    }
    let (_, help, _) = run(latchbus(["ctl", "--help"]));
    assert!(help.starts_with("List "), "{help}");
}

#[test]
fn every_address_is_in_the_ready_line() {
    let place = Place::new();
    let socket = format!("unix:{}", place.path("mqtt.sock"));
    let server = Server::start(place.latchbus([
        "--http",
        "127.0.0.1:0,127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--mqtt",
        &socket,
        "--ephemeral",
    ]));
    let line = &server.ready;
    let [http, mqtt] = ["http=", "mqtt="].map(|key| {
        let mut words = line.split(' ');
        let found = words.find_map(|word| word.strip_prefix(key)).unwrap();
        found.split(',').collect::<Vec<_>>()
    });
    assert!(http.len() == 2 && http[0] != http[1], "{line}");
    assert!(mqtt.len() == 2 && mqtt[1] == socket, "{line}");
    for address in http {
        let answer = support::Request::new("GET", "/healthz").send(address.parse().unwrap());
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn a_clients_certificate_comes_with_its_line_of_the_rules() {
    let place = Place::new();
    for name in ["anna", "press.example", "a \"b\""] {
        let (status, said) = place.run(["cert", "tls", "--client", name]);
        assert_eq!(status, 0, "{said}");
        let from = said.find("[access.certificates]").unwrap();
        let rest = said[from..]
            .lines()
            .map(|line| line.split("  #").next().unwrap());
        let toml = rest.take(2).collect::<Vec<_>>().join("\n");
        let rules = place.file(
            "settings.toml",
            format!("[access.roles.ROLE]\npublish = [\"x\"]\n{toml}\n"),
        );
        let asked = ["access", "explain", "--config", &rules, "--publish", "x"];
        let (status, said) = place.run(asked.iter().chain(&["--certificate", name]));
        assert_eq!(status, 0, "{toml}\n{said}");
    }
}

#[test]
fn what_is_stored_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    let serve = || place.serve("data");
    let server = Server::start(serve());
    assert_eq!(server.send("PUT", "/api/v1/topics/a", "1").status, 200);
    let mut server = server;
    server.kill();
    assert_eq!(mode("data"), 0o700);
    for entry in fs::read_dir(place.path("data")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(mode(&format!("data/{name}")), 0o600, "{name}");
    }
    let export = ["export", "--data-dir", "data", "export.jsonl"];
    assert_eq!(place.run(export).0, 0);
    assert_eq!(mode("export.jsonl"), 0o600);
    // What somebody has opened to others stays open.
    for (name, open) in [
        ("data", 0o755),
        ("data/latchbus.redb", 0o644),
        ("export.jsonl", 0o640),
    ] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(open)).unwrap();
    }
    assert_eq!(place.run(export).0, 0);
    let mut server = Server::start(serve());
    assert!(!server.kill().contains("everybody on this machine"));
    place.file("access.toml", ALL);
    let mut command = serve();
    command.args(["--access", "access.toml"]);
    let log = Server::start(command).kill();
    let warned = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("everybody on this machine"));
    assert_eq!(warned.count(), 1, "{log}");
    assert_eq!(
        (
            mode("data"),
            mode("data/latchbus.redb"),
            mode("export.jsonl")
        ),
        (0o755, 0o644, 0o640)
    );
    // The directory that a password file is made in is that of the server.
    let mut command = place.latchbus([
        "user",
        "add",
        "anna",
        "--password-stdin",
        "--data-dir",
        "new",
    ]);
    let secret = fs::File::open(place.file("secret", "secret\n")).unwrap();
    command.stdin(secret);
    assert_eq!(run(command).0, Some(0));
    assert_eq!(mode("new"), 0o700);
}

#[test]
fn a_new_password_file_is_said_to_count_from_the_next_start() {
    let place = Place::new();
    let log = fs::File::create(place.path("log")).unwrap();
    let mut command = place.serve("data");
    let mut server = Running(
        command
            .stderr(log)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    let log = || fs::read_to_string(place.path("log")).unwrap();
    support::until("it is open", || log().contains("http on"));
    place.file("secret", "secret\n");
    let add = |name: &str| {
        let words = [
            "user",
            "add",
            name,
            "--password-stdin",
            "--data-dir",
            "data",
        ];
        let mut command = place.latchbus(words);
        command.stdin(fs::File::open(place.path("secret")).unwrap());
        run(command).1
    };
    let (first, second) = (add("anna"), add("bert"));
    assert!(first.contains("restart"), "{first}");
    assert!(!second.contains("restart"), "{second}");
    support::until("the log says that it stays open", || {
        log().contains("runs without users")
    });
    assert_eq!(log().matches("runs without users").count(), 1);
    server.0.kill().unwrap();
    let (_, help, _) = run(latchbus(["user", "--help"]));
    assert!(help.contains("without users"), "{help}");
}

/// Ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn a_refused_publish_is_told_which_limit_of_a_role_it_was() {
    let place = Place::new();
    let rules = place.file(
        "access.toml",
        "everyone = [\"events\", \"low\", \"both\"]\n\
         [roles.events]\npublish = [\"events/#\", \"$SYS/#\"]\nretain = false\n\
         [roles.low]\npublish = [\"low/#\"]\nmax_qos = 0\n\
         [roles.both]\npublish = [\"both/#\"]\nmax_qos = 0\nretain = false\n",
    );
    let mut server = Server::on_free_ports(["--ephemeral", "--access", &rules]);
    for (method, topic, wanted) in [
        (
            "PUT",
            "events/a",
            "publishing to `events/a` as state is not allowed",
        ),
        (
            "PUT",
            "both/a",
            "publishing to `both/a` as state is not allowed",
        ),
        ("PUT", "den/a", "publishing to `den/a` is not allowed"),
        ("POST", "$SYS/a", "the server itself writes"),
        ("POST", "clicks/main/values", "the server itself writes"),
    ] {
        let answer = server.send(method, &format!("/api/v1/topics/{topic}"), "1");
        assert_eq!(answer.status, 403, "{topic}");
        assert_eq!(answer.code(), "not_allowed");
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(wanted), "{topic}: {message}");
    }
    // `max_qos` is a limit of MQTT.
    for (method, topic, retain) in [
        ("POST", "events/a", false),
        ("POST", "low/a", false),
        ("PUT", "low/a", true),
        ("POST", "both/a", false),
    ] {
        let answer = server.send(method, &format!("/api/v1/topics/{topic}"), "1");
        assert_eq!(answer.status, 200, "{topic}");
        let me = format!("/api/v1/me?publish={topic}&retain={retain}");
        assert_eq!(server.send("GET", &me, "").json()["publish"][topic], true);
        let mut asked = vec!["access", "explain", "--access", &rules, "--publish", topic];
        asked.extend(retain.then_some("--retain"));
        assert_eq!(place.run(asked).0, 0, "{topic}");
    }
    let log = server.kill();
    assert!(log.contains("as state is not allowed"), "{log}");
}

#[test]
fn each_import_is_one_line_for_auditors() {
    let place = Place::new();
    let source = Server::ephemeral();
    for topic in ["a/1", "a/2", "b/1"] {
        let answer = source.send("PUT", &format!("/api/v1/topics/{topic}"), "1");
        assert_eq!(answer.status, 200, "{topic}");
    }
    let all = source.get("/api/v1/export").text().to_owned();
    let rules = place.file(
        "access.toml",
        "everyone = [\"all\"]\n[roles.all]\npublish = [\"a/#\", \"clicks/#\"]\nsubscribe = [\"#\"]\n",
    );
    let server = Server::on_free_ports([
        "--ephemeral",
        "--access",
        &rules,
        "--log",
        "audit=info",
        "--log-format",
        "json",
    ]);
    let import = |body: &str| server.send("POST", "/api/v1/import", body).status;
    let lines: Vec<_> = all.lines().collect();
    let mut allowed: Vec<_> = lines
        .iter()
        .filter(|line| !line.contains("\"b/1\""))
        .copied()
        .collect();
    let end = allowed
        .pop()
        .unwrap()
        .replace("\"values\":3", "\"values\":2");
    assert_eq!(import(&format!("{}\n{end}\n", allowed.join("\n"))), 200);
    assert_eq!(import(&all), 403);
    assert_eq!(import(&format!("{}\nnonsense\n", allowed.join("\n"))), 400);
    assert_eq!(import("nonsense"), 400);
    // One whose client goes away in the middle.
    let head = "POST /api/v1/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    let half = allowed.join("\n").replace("a/1", "a/9");
    let mut cut = std::net::TcpStream::connect(server.http()).unwrap();
    cut.write_all(format!("{head}{half}\n").as_bytes()).unwrap();
    until("it has begun", || {
        server.get("/api/v1/topics/a/9").status == 200
    });
    drop(cut);
    server.signal(Signal::TERM);
    let log = server.wait().2;
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let imports: Vec<_> = lines.filter(|line| line["action"] == "import").collect();
    assert_eq!(imports.len(), 5, "{log}");
    for (line, (values, result)) in imports.iter().zip([
        (2, "done"),
        (2, "publishing to `b/1` is not allowed"),
        (2, ""),
        (0, ""),
        // The connection was cut, or the server has stopped before it saw that.
        (2, ""),
    ]) {
        assert_eq!(line["values"], values, "{line}");
        let is = line["result"].as_str().unwrap();
        assert!(
            is.contains(result) && (is == "done") == (result == "done"),
            "{line}"
        );
        assert!(
            line["address"].is_string() && line["by"] == "http",
            "{line}"
        );
    }
}
