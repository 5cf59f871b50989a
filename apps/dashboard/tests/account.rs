//! Signing in on a page: the form, the cookie and what it is good for, and the way out.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use std::fs;
use std::process::Command;

use futures_util::SinkExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::users::{self, HASH, OTHER_HASH};
use support::web_socket::{next, next_json, open};
use support::{Answer, Request, Server, run, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

const RULES: &str = r#"
everyone = ["watcher"]
signed_in = ["player"]
[roles.watcher]
subscribe = ["clicks/#"]
[roles.player]
publish = ["clicks/main/#"]
[roles.operator]
admin = true
[users]
anna = ["operator"]
"#;

struct Running {
    server: Server,
    folder: TempDir,
}

impl Running {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        fs::write(&users, users::lines(&["anna", "bert"])).unwrap();
        let users = users.to_str().unwrap();
        let flags = [&["--ephemeral", "--users", users], flags].concat();
        let server = Server::on_free_ports(flags);
        Self { server, folder }
    }

    fn with_rules(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("access.toml");
        fs::write(&rules, RULES).unwrap();
        Self::start(&[&["--access", rules.to_str().unwrap()], flags].concat())
    }

    fn users(&self, text: &str) {
        fs::write(self.folder.path().join("users"), text).unwrap();
        self.server.signal(Signal::HUP);
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = Request::new(method, path).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        request.send(self.server.http())
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, "")
    }

    fn form(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        self.ask("POST", "/sign-in", &[&form, headers].concat(), body)
    }

    /// The cookie, as the browser sends it back.
    fn sign_in(&self, user: &str) -> String {
        let answer = self.form(&format!("user={user}&password=correct+horse"), &[]);
        assert_eq!(answer.status, 303, "{}", answer.text());
        cookie(&answer)
    }

    fn status(&self, cookie: &str) -> u16 {
        self.get("/api/v1/topics", &[("Cookie", cookie)]).status
    }

    fn me(&self, query: &str, cookie: &str) -> Value {
        let answer = self.get(&format!("/api/v1/me{query}"), &[("Cookie", cookie)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn socket(
        &self,
        path: &str,
        protocol: &str,
        cookie: &str,
    ) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
        let headers = [("Sec-WebSocket-Protocol", protocol), ("Cookie", cookie)];
        open(&self.server, path, &headers).await
    }
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match next(socket).await.unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    loop {
        if let Message::Close(frame) = next(socket).await.unwrap() {
            return frame.unwrap().code.into();
        }
    }
}

#[test]
fn browsers_are_led_to_the_form_and_programs_are_not() {
    let running = Running::start(&[]);
    for (path, location) in [
        ("/", "sign-in"),
        ("/?room=a%20b&x", "sign-in?next=%3Froom%3Da%2520b%26x"),
        ("/topics", "sign-in?next=topics"),
        ("/latchbus/chat?room=x", "sign-in?next=chat%3Froom%3Dx"),
        ("/api/v1/export", "../../sign-in?next=api/v1/export"),
        ("/metrics", "sign-in?next=metrics"),
    ] {
        let answer = running.get(path, &[("Accept", BROWSER)]);
        assert_eq!(answer.status, 303, "{path}");
        assert_eq!(answer.header("location"), Some(location), "{path}");
        let answer = running.get(path, &[("Accept", "*/*"), ("Sec-Fetch-Dest", "empty")]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthorized")
        );
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    // A write is not led anywhere: it would be lost on the way.
    let put = [("Accept", BROWSER), ("Sec-Fetch-Dest", "empty")];
    assert_eq!(
        running.ask("PUT", "/api/v1/topics/a", &put, "1").status,
        401
    );
    for path in [
        "/style.css",
        "/sign-in.css",
        "/latchbus.js",
        "/icon.svg",
        "/healthz",
        "/readyz",
    ] {
        assert_eq!(running.get(path, &[]).status, 200, "{path}");
    }
}

#[test]
fn the_form_needs_no_scripts_and_lets_nothing_else_in() {
    let running = Running::start(&[]);
    let answer = running.get(
        "/sign-in?next=topics%3Ffilter%3D%22%3E",
        &[("Accept", BROWSER)],
    );
    assert_eq!(answer.status, 200);
    let page = answer.text();
    assert!(!page.contains("<script") && !page.contains("{{"), "{page}");
    assert!(
        page.contains("value=\"topics?filter=&quot;&gt;\""),
        "{page}"
    );
    assert!(
        !page.contains("http-equiv") && !page.contains("role=\"alert\""),
        "{page}"
    );
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self';"),
        "{policy}"
    );
    assert!(
        policy.contains("form-action 'self'; frame-ancestors 'none'"),
        "{policy}"
    );
    // With no header that tells pages apart, as of plain HTTP in the LAN, the browser has to name the origin.
    assert!(page.contains("<meta name=\"referrer\" content=\"same-origin\">"));
    // From another site the browser brings no cookie. It comes again, from here.
    let linked = [
        ("Accept", BROWSER),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
    ];
    let page = running.get("/sign-in", &linked);
    assert!(
        page.text()
            .contains("<meta http-equiv=\"refresh\" content=\"0\">")
    );
    assert_eq!(running.ask("PUT", "/sign-in", &[], "").status, 405);
    assert_eq!(running.get("/sign-out", &[]).status, 405);
}

#[test]
fn a_session_is_good_for_pages_and_the_api_until_it_is_ended() {
    let running = Running::start(&[]);
    let answer = running.form(
        "user=anna&password=correct+horse&next=topics%3Ffilter%3Dx",
        &[],
    );
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(answer.header("location"), Some("./topics?filter=x"));
    let port = running.server.http().port();
    let set = answer.header("set-cookie").unwrap().to_owned();
    let (name, rest) = set.split_once('=').unwrap();
    assert_eq!(name, format!("latchbus-session-{port}"));
    let (id, attributes) = rest.split_once("; ").unwrap();
    assert_eq!(id.len(), 43, "256 bits: {id}");
    assert_eq!(
        attributes,
        "Max-Age=604800; Path=/; HttpOnly; SameSite=Strict"
    );

    let cookie = cookie(&answer);
    assert_eq!(
        running
            .get("/", &[("Accept", BROWSER), ("Cookie", &cookie)])
            .status,
        200
    );
    let put = running.ask("PUT", "/api/v1/topics/a", &[("Cookie", &cookie)], "1");
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(
        running
            .get("/api/v1/topics/a", &[("Cookie", &cookie)])
            .text(),
        "1"
    );
    let me = running.me("", &cookie);
    assert_eq!(
        (&me["user"], &me["session"]),
        (&json!("anna"), &json!(true))
    );
    // Beside cookies of others, and whatever the header says goes first.
    assert_eq!(
        running.status(&format!("latchbus-session-1=x; a=b; {cookie}")),
        200
    );
    let both = [("Cookie", cookie.as_str()), ("Authorization", "Basic eDp5")];
    assert_eq!(running.get("/api/v1/topics", &both).status, 401);
    for wrong in [
        format!("{cookie}x"),
        format!("latchbus-session-{port}=AAAA"),
        format!("other-{cookie}"),
    ] {
        assert_eq!(running.status(&wrong), 401, "{wrong}");
    }
    // Who has signed in has no use for the form.
    let form = running.get(
        "/sign-in?next=chat",
        &[("Cookie", &cookie), ("Accept", BROWSER)],
    );
    assert_eq!(
        (form.status, form.header("location")),
        (303, Some("./chat"))
    );

    // Signing in anew is another session, and ends the one before.
    let body = "user=bert&password=correct+horse";
    let again = self::cookie(&running.form(body, &[("Cookie", &cookie)]));
    assert_ne!(again, cookie);
    assert_eq!(
        (running.status(&cookie), running.status(&again)),
        (401, 200)
    );

    let out = running.ask(
        "POST",
        "/sign-out",
        &[("Cookie", &again), ("Accept", BROWSER)],
        "",
    );
    assert_eq!((out.status, out.header("location")), (303, Some("sign-in")));
    let set = out.header("set-cookie").unwrap();
    assert!(
        set.starts_with(&format!("{name}=; Max-Age=0; Path=/;")),
        "{set}"
    );
    assert_eq!(running.status(&again), 401);
    assert_eq!(running.ask("POST", "/sign-out", &[], "").status, 204);
}

#[test]
fn who_is_not_let_in_is_told_nothing_about_who_is() {
    let running = Running::start(&[]);
    let wrong = running.form("user=anna&password=wrong&next=topics", &[]);
    let unknown = running.form("user=zoe&password=wrong&next=topics", &[]);
    for answer in [&wrong, &unknown] {
        assert_eq!(answer.status, 401);
        assert!(answer.header("set-cookie").is_none());
        // Basic would open a window of the browser.
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
        assert!(
            answer
                .text()
                .contains("role=\"alert\">Wrong name or password.<")
        );
        assert!(
            answer.text().contains("value=\"topics\""),
            "{}",
            answer.text()
        );
    }
    assert_eq!(wrong.text(), unknown.text().replace("zoe", "anna"));
    assert!(!wrong.text().contains("value=\"wrong\""));
    for (body, status) in [
        ("", 401),
        ("user=anna", 401),
        ("password=correct+horse", 401),
    ] {
        assert_eq!(running.form(body, &[]).status, status, "{body}");
    }
    // Five failures are free.
    let mut late = running.form("user=anna&password=wrong", &[]);
    if late.status == 401 {
        late = running.form("user=anna&password=wrong", &[]);
    }
    assert_eq!(late.status, 429, "{}", late.text());
    let seconds: u32 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert!(
        late.text().contains("Too many attempts. Try again in "),
        "{}",
        late.text()
    );
}

#[test]
fn only_a_page_of_this_server_signs_in_and_out() {
    let friends = "https://friend.example,http://127.0.0.1:*,null";
    let running = Running::start(&["--allow-origins", friends]);
    let body = "user=anna&password=correct+horse";
    // Over plain HTTP beyond loopback browsers send no `Sec-Fetch-Site`.
    for headers in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "https://friend.example")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[
            ("Origin", "https://friend.example"),
            ("Sec-Fetch-Site", "cross-site"),
        ],
    ] {
        let answer = running.form(body, headers);
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(answer.header("set-cookie").is_none());
    }
    let cookie = running.sign_in("anna");
    for (headers, topics) in [
        (("Origin", "https://evil.example"), 403),
        (("Sec-Fetch-Site", "same-site"), 403),
        (("Origin", "https://friend.example"), 200),
        (("Origin", "null"), 200),
    ] {
        let out = running.ask("POST", "/sign-out", &[headers, ("Cookie", &cookie)], "");
        assert_eq!(out.status, 403);
        let answer = running.get("/api/v1/topics", &[headers, ("Cookie", &cookie)]);
        assert_eq!(answer.status, topics, "{headers:?}");
    }
    assert_eq!(running.status(&cookie), 200);
    let own = format!("http://{}", running.server.http());
    assert_eq!(
        running
            .form(body, &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")])
            .status,
        303
    );
    // Without TLS the cookie is not one of TLS, whatever the request says of itself.
    let https = format!("https://{}", running.server.http());
    for headers in [
        &[("Origin", &*https)][..],
        &[("X-Forwarded-Proto", "https")],
        &[("Forwarded", "proto=https")],
    ] {
        let answer = running.form(body, headers);
        let set = answer.header("set-cookie").unwrap();
        assert!(set.starts_with("latchbus-session"), "{set}");
        assert!(!set.contains("Secure"), "{set}");
    }
    let json = [("Content-Type", "application/json")];
    assert_eq!(running.ask("POST", "/sign-in", &json, "{}").status, 415);
    assert_eq!(running.form(&"x".repeat(17 << 10), &[]).status, 413);
}

#[test]
fn a_session_ends_when_its_user_is_removed_or_changes_the_password() {
    let running = Running::start(&[]);
    let (anna, bert) = (running.sign_in("anna"), running.sign_in("bert"));
    running.users(&format!("anna:{OTHER_HASH}\nbert:{HASH}\n"));
    until("anna is out", || running.status(&anna) == 401);
    assert_eq!(running.status(&bert), 200);
    running.users(&format!("anna:{OTHER_HASH}\n"));
    until("bert is out", || running.status(&bert) == 401);
    // A user of the same name who comes later is another.
    running.users(&format!("anna:{OTHER_HASH}\nbert:{HASH}\n"));
    until("a new bert", || {
        running.form("user=bert&password=correct+horse", &[]).status == 303
    });
    assert_eq!(running.status(&bert), 401);
}

#[tokio::test]
async fn connections_are_opened_by_the_cookie_and_end_with_the_session() {
    let running = Running::start(&[]);
    let cookie = running.sign_in("anna");
    let mut json = running
        .socket("/ws", "latchbus.v1.json", &cookie)
        .await
        .unwrap();
    let welcome = next_json(&mut json).await;
    assert_eq!(welcome["user"], "anna", "{welcome}");
    let mut mqtt = running.socket("/mqtt", "mqtt", &cookie).await.unwrap();
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x".to_vec();
    mqtt.send(Message::binary(connect)).await.unwrap();
    let connack = next(&mut mqtt).await.unwrap().into_data();
    assert_eq!(&connack[..], b"\x20\x02\x00\x00");
    let path = "/socket.io/?EIO=4&transport=websocket";
    let mut socketio = running.socket(path, "", &cookie).await.unwrap();
    assert!(text(&mut socketio).await.starts_with('0'));
    socketio.send(Message::text("40")).await.unwrap();
    let connected = text(&mut socketio).await;
    assert!(connected.starts_with("40{"), "{connected}");

    let out = running.ask("POST", "/sign-out", &[("Cookie", &cookie)], "");
    assert_eq!(out.status, 204);
    assert_eq!(close_code(&mut json).await, 3000);
    while !matches!(next(&mut mqtt).await, None | Some(Message::Close(_))) {}
    while !matches!(next(&mut socketio).await, None | Some(Message::Close(_))) {}

    // A page that comes again is told that it has to sign in.
    let mut again = running
        .socket("/ws", "latchbus.v1.json", &cookie)
        .await
        .unwrap();
    let welcome = next_json(&mut again).await;
    assert_eq!(
        (&welcome["guest"], &welcome["user"]),
        (&json!(true), &Value::Null)
    );
}

/// By whatever they prove that it is theirs.
#[test]
fn a_polling_session_takes_any_proof_of_its_user() {
    let running = Running::start(&[]);
    let path = "/socket.io/?EIO=4&transport=polling";
    let opened = running.ask("GET", path, &[("Cookie", &running.sign_in("anna"))], "");
    let text = opened.text();
    let open: Value = serde_json::from_str(&text[1..]).unwrap();
    let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
    let of_another_browser = running.sign_in("anna");
    for (header, value, body, status) in [
        ("Cookie", &*of_another_browser, "40", 200),
        (
            "Authorization",
            users::ANNA,
            "421[\"publish\",\"x/1\",1]",
            200,
        ),
        ("Authorization", "Basic YmVydDpjb3JyZWN0IGhvcnNl", "41", 403),
        ("Authorization", "Basic YW5uYTp3cm9uZw==", "41", 401),
    ] {
        let answer = running.ask("POST", &path, &[(header, value)], body);
        assert_eq!(answer.status, status, "{body}");
    }
}

#[test]
fn a_page_learns_what_its_user_may_do() {
    let running = Running::with_rules(&["--anonymous"]);
    let question =
        "?publish=clicks/main/x/count/1-a&publish=lab%2Fx&publish=clicks/main/values&retain=true";
    let guest = running.me(question, "");
    let all = |clicks: bool| json!({"clicks/main/x/count/1-a": clicks, "lab/x": false, "clicks/main/values": false});
    let common = json!({"sign_in": true});
    assert_eq!(guest["sign_in"], common["sign_in"]);
    assert_eq!(guest["publish"], all(false));
    for (key, value) in [
        ("user", Value::Null),
        ("admin", false.into()),
        ("may_publish", false.into()),
        ("session", false.into()),
    ] {
        assert_eq!(guest[key], value, "{key}");
    }
    let page = running.get("/", &[("Accept", BROWSER)]);
    assert!(
        page.text()
            .contains(" data-admin=\"false\" data-publishes=\"false\">")
    );
    let (anna, bert) = (running.sign_in("anna"), running.sign_in("bert"));
    for (cookie, user, admin) in [(&anna, "anna", true), (&bert, "bert", false)] {
        let me = running.me(question, cookie);
        assert_eq!(me["publish"], all(true), "{user}");
        assert_eq!(
            (&me["user"], &me["admin"], &me["may_publish"]),
            (&json!(user), &json!(admin), &json!(true))
        );
        let page = running.get("/", &[("Cookie", cookie)]);
        assert_eq!(page.text().contains("data-admin"), !admin);
        assert!(!page.text().contains("data-publishes"));
    }
    // Everybody's page is their own, also in a cache.
    let etag = page.header("etag").unwrap();
    let again = running.get("/", &[("Cookie", &anna), ("If-None-Match", etag)]);
    assert_eq!(again.status, 200);
    for (query, status) in [
        ("?publish=a%23", 400),
        ("?publish=%ff", 400),
        ("?publish=", 400),
    ] {
        assert_eq!(
            running.get(&format!("/api/v1/me{query}"), &[]).status,
            status,
            "{query}"
        );
    }
    let many = "publish=a&".repeat(33);
    assert_eq!(running.get(&format!("/api/v1/me?{many}"), &[]).status, 400);
    // A guest who does not want to be one finds the form, with a way around it.
    let form = running.get("/sign-in?next=topics", &[("Accept", BROWSER)]);
    assert!(
        form.text()
            .contains("<a href=\"./topics\">Go on without signing in</a>")
    );
}

#[test]
fn a_server_without_users_has_no_form() {
    let server = Server::ephemeral();
    assert_eq!(server.get("/sign-in").status, 404);
    assert_eq!(server.send("POST", "/sign-in", "").status, 404);
    let me = server.get("/api/v1/me?publish=a").json();
    assert_eq!(
        me,
        json!({"user": null, "admin": true, "may_publish": true, "publish": {"a": true}, "sign_in": false, "session": false})
    );
}

#[test]
fn below_a_base_path_and_beside_pages_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "own").unwrap();
    let pages = folder.path().to_str().unwrap();
    let running = Running::start(&["--pages", pages, "--base-path", "/lb"]);
    let browser = [("Accept", BROWSER)];
    // They are everyone's, and their addresses their own.
    for path in ["/lb/", "/lb/sign-in"] {
        let answer = running.get(path, &browser);
        assert_eq!((answer.status, answer.text()), (200, "own"), "{path}");
    }
    assert_eq!(running.get("/lb/api/v1/topics", &browser).status, 401);
    let answer = running.get("/lb/latchbus/topics", &browser);
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("sign-in?next=topics"))
    );
    let form = running.get("/lb/latchbus/sign-in?next=topics", &browser);
    assert!(
        form.text().contains("<base href=\"/lb/latchbus/\">"),
        "{}",
        form.text()
    );
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = "user=anna&password=correct+horse&next=topics";
    let answer = running.ask("POST", "/lb/latchbus/sign-in", &kind, body);
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("./topics"))
    );
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("; Path=/lb/; "), "{set}");
    assert_eq!(
        running
            .get("/lb/api/v1/topics", &[("Cookie", &cookie(&answer))])
            .status,
        200
    );
    // Over TLS, which a trusted proxy has ended, no other page can have set it.
    let running = Running::start(&["--trusted-proxies", "127.0.0.1", "--base-path", "/lb"]);
    let https = [
        kind[0],
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "localhost"),
    ];
    let answer = running.ask("POST", "/lb/sign-in", &https, body);
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("__Secure-latchbus-session") && set.ends_with("; Secure"),
        "{set}"
    );
}

#[test]
fn curl_signs_in_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut cert = support::latchbus(["cert"]);
    cert.arg(folder.path()).args(["localhost", "127.0.0.1"]);
    assert_eq!(run(cert).0, Some(0));
    let (cert, key) = (file("server.pem"), file("server.key"));
    let running = Running::start(&[
        "--http-tls",
        "127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ]);
    let address = running.server.address("http-tls=");
    let jar = file("jar");
    let curl = |words: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--cacert",
            &file("ca.pem"),
        ]);
        curl.args([
            "--cookie",
            &jar,
            "--cookie-jar",
            &jar,
            "--write-out",
            " %{http_code}",
        ]);
        curl.args(words);
        let (status, out, err) = run(curl);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
        out
    };
    let url = |path: &str| format!("https://{address}{path}");
    let form = [
        "--data-urlencode",
        "user=anna",
        "--data-urlencode",
        "password=correct horse",
    ];
    let out = curl(
        &[
            &form[..],
            &[
                "--output",
                "/dev/null",
                "--dump-header",
                &file("head"),
                &url("/sign-in"),
            ],
        ]
        .concat(),
    );
    assert_eq!(out, " 303");
    let head = fs::read_to_string(file("head")).unwrap();
    let set = head
        .lines()
        .find(|line| line.starts_with("set-cookie: "))
        .unwrap();
    let name = format!("set-cookie: __Host-latchbus-session-{}=", address.port());
    assert!(set.starts_with(&name), "{set}");
    assert!(
        set.ends_with("Path=/; HttpOnly; SameSite=Strict; Secure"),
        "{set}"
    );
    assert!(curl(&[&url("/api/v1/me")]).contains("\"user\":\"anna\""));
    // What a page without TLS could have set does not count here.
    let plain = set.replace("set-cookie: __Host-", "");
    let plain = plain.split(';').next().unwrap();
    let mut other = Command::new("curl");
    other.args(["--silent", "--noproxy", "*", "--cacert", &file("ca.pem")]);
    other.args(["--header", &format!("Cookie: {plain}")]);
    other.args(["--write-out", " %{http_code}", &url("/api/v1/topics")]);
    let (_, out, _) = run(other);
    assert!(out.ends_with(" 401"), "{out}");
    assert!(curl(&["--request", "POST", &url("/sign-out")]).ends_with(" 204"));
    assert!(curl(&[&url("/api/v1/me")]).ends_with(" 401"));
}
