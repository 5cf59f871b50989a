//! What HTTP promises.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;
use support::{DEADLINE, Request, Server, until};

#[test]
fn the_page_and_its_files() {
    let server = Server::ephemeral();
    let page = server.get("/");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert_eq!(page.body, server.get("/index.html").body);
    // Every file that the page names is there.
    let mut files: Vec<_> = page
        .text()
        .split(['"', '\''])
        .filter(|word| {
            [".js", ".css", ".svg"]
                .iter()
                .any(|end| word.ends_with(end))
        })
        .map(|file| format!("/{file}"))
        .collect();
    assert!(files.len() > 5, "{files:?}");
    files.sort_unstable();
    files.dedup();
    for file in &files {
        let answer = server.get(file);
        let content_type = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("a file of type {other}"),
        };
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type)),
            "{file}"
        );
    }
    let path = files.iter().find(|file| file.ends_with(".js")).unwrap();
    let script = server.get(path);
    for answer in [&page, &script] {
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
    }

    let etag = script.header("etag").unwrap();
    let again = Request::new("GET", path)
        .header("If-None-Match", etag)
        .send(server.http());
    assert_eq!(
        (again.status, again.body.len(), again.header("etag")),
        (304, 0, Some(etag))
    );
    let other = Request::new("GET", path)
        .header("If-None-Match", "\"x\"")
        .send(server.http());
    assert_eq!((other.status, &other.body), (200, &script.body));

    assert_eq!(
        (
            server.get("/none.js").status,
            server.get("/none.js").code().as_str()
        ),
        (404, "not_found")
    );
    assert_eq!(server.get("/../Cargo.toml").status, 404);
    let posted = server.send("POST", "/", "");
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let head = server.send("HEAD", "/", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_value_is_given_back_as_it_was() {
    let server = Server::ephemeral();
    for (topic, payload, content_type) in [
        ("lab/temp", &b" {\"c\": 21.5}\n"[..], "application/json"),
        (
            "lab/text",
            "gr\u{fc}n".as_bytes(),
            "text/plain; charset=utf-8",
        ),
        ("lab/bytes", b"\x00\xff", "application/octet-stream"),
        ("/lead/and/trail/", b"1", "application/json"),
        ("a//b", b"1", "application/json"),
        ("%C3%A9%20%25%2Fx", b"1", "application/json"),
        ("..", b"1", "application/json"),
    ] {
        let path = format!("/api/v1/topics/{topic}");
        let put = server.send("PUT", &path, payload);
        assert_eq!(put.status, 200, "{topic}: {put:?}");
        let got = server.get(&path);
        assert_eq!((got.status, got.body.as_slice()), (200, payload), "{topic}");
        assert_eq!(got.header("content-type"), Some(content_type), "{topic}");
        assert_eq!(got.header("etag"), put.header("etag"));
        assert!(got.header("last-modified").unwrap().ends_with(" GMT"));
        let etag = got.header("etag").unwrap();
        let (epoch, rev) = etag.trim_matches('"').split_once(':').unwrap();
        assert!(u64::from_str_radix(epoch, 16).is_ok());
        assert_eq!(put.json(), json!({"rev": rev.parse::<u64>().unwrap()}));

        let known = Request::new("GET", &path)
            .header("If-None-Match", etag)
            .send(server.http());
        assert_eq!((known.status, known.body.len()), (304, 0));
        server.send("PUT", &path, "2");
        let newer = Request::new("GET", &path)
            .header("If-None-Match", etag)
            .send(server.http());
        assert_eq!((newer.status, newer.body.as_slice()), (200, &b"2"[..]));
    }
}

/// Who writes what he has read and changed does not overwrite what came in between.
#[test]
fn a_publish_may_say_which_value_it_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().as_os_str();
    for server in [
        Server::ephemeral(),
        Server::on_free_ports(["--data-dir".as_ref(), data]),
    ] {
        let path = "/api/v1/topics/config/lamp";
        let put = |payload: &str, condition: (&str, &str)| {
            Request::new("PUT", path)
                .header(condition.0, condition.1)
                .body(payload)
                .send(server.http())
        };
        let refused = put("1", ("If-Match", "*"));
        assert_eq!((refused.status, refused.code().as_str()), (412, "raced"));
        let first = put("1", ("If-None-Match", "*"));
        let first = first.header("etag").unwrap();
        assert_eq!(put("2", ("If-None-Match", "*")).status, 412);
        assert_eq!(put("2", ("If-Match", first)).status, 200);
        let refused = put("3", ("If-Match", first));
        assert_eq!((refused.status, refused.code().as_str()), (412, "raced"));
        assert_eq!(server.get(path).body, b"2");
        // A clear, as the rest.
        assert_eq!(put("", ("If-Match", first)).status, 412);
        let second = server.get(path);
        assert_eq!(
            put("", ("If-Match", second.header("etag").unwrap())).status,
            200
        );
        assert_eq!(server.get(path).status, 404);
        for condition in [
            ("If-Match", first.trim_matches('"')),
            (
                "If-Unmodified-Since",
                second.header("last-modified").unwrap(),
            ),
        ] {
            let refused = put("3", condition);
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (400, "bad_message")
            );
        }
    }
}

#[test]
fn clearing_and_events() {
    let server = Server::ephemeral();
    let path = "/api/v1/topics/lab/door";
    assert_eq!(server.send("POST", path, "open").status, 200);
    assert_eq!(
        (server.get(path).status, server.get(path).code().as_str()),
        (404, "not_found")
    );
    server.send("PUT", path, "open");
    assert_eq!(server.send("POST", path, "knock").status, 200);
    assert_eq!(server.get(path).text(), "open");
    let cleared = server.send("PUT", path, "");
    assert_eq!((cleared.status, cleared.header("etag")), (200, None));
    assert_eq!(server.get(path).status, 404);
}

#[test]
fn presses_are_counted() {
    let server = Server::ephemeral();
    let press = "/api/v1/topics/clicks/main/kiosk-1/press";
    let pressed = server.send("POST", press, "red");
    assert_eq!((pressed.status, pressed.header("etag")), (200, None));
    assert_eq!(server.send("POST", press, "blue 3").status, 200);
    let values = server.get("/api/v1/topics/clicks/main/values");
    assert_eq!(values.json(), json!({"red": 1, "blue": 3}));

    // Retained or not, there is nothing of it to be had.
    let put = server.send("PUT", press, "red");
    assert_eq!((put.status, put.header("etag")), (200, None));
    assert_eq!(server.get(press).status, 404);

    // A count that is not news leaves the value that is there, and names that.
    let count = "/api/v1/topics/clicks/main/kiosk-2/count/1-0badcafe";
    let first = server.send("PUT", count, r#"{"red":5,"blue":5}"#);
    let etag = first.header("etag").unwrap();
    assert_eq!(server.get(count).header("etag"), Some(etag));
    let late = server.send("PUT", count, r#"{"red":4,"blue":5}"#);
    assert_eq!((late.status, late.header("etag")), (200, Some(etag)));
}

#[test]
fn topics_are_listed() {
    let server = Server::ephemeral();
    for (topic, payload) in [
        ("t/b", &b"{\"c\":1}"[..]),
        ("t/a", b"red"),
        ("t/c/d", b"\xff"),
        ("u", b"1"),
    ] {
        server.send("PUT", &format!("/api/v1/topics/{topic}"), payload);
    }
    let list = |query: &str| {
        let answer = server.get(&format!("/api/v1/topics{query}"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        answer.json()
    };
    let items = list("?filter=t/%23");
    let [b, a, c] = items.as_array().unwrap().as_slice() else {
        panic!("{items}");
    };
    assert_eq!((&a["topic"], &a["text"]), (&json!("t/a"), &json!("red")));
    assert_eq!(
        (&b["topic"], &b["payload"]),
        (&json!("t/b"), &json!({"c": 1}))
    );
    assert_eq!(
        (&c["topic"], &c["base64"]),
        (&json!("t/c/d"), &json!("/w=="))
    );
    assert!(a["rev"].as_u64() > b["rev"].as_u64() && a["at"].as_u64() > Some(1_600_000_000_000));
    assert_eq!(list("?filter=t/+").as_array().unwrap().len(), 2);
    assert_eq!(list("?filter=none").as_array().unwrap().len(), 0);
    let all = list("");
    let all: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["topic"].as_str().unwrap())
        .collect();
    assert!(
        all.contains(&"u") && all.contains(&"clicks/main/values"),
        "{all:?}"
    );
    assert!(!all.iter().any(|topic| topic.starts_with('$')), "{all:?}");

    for query in [
        "?filter=a%23",
        "?filter=",
        "?filter=%00",
        "?filter=$share/g/t/a",
    ] {
        let refused = server.get(&format!("/api/v1/topics{query}"));
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "invalid_filter"),
            "{query}"
        );
    }
    assert_eq!(server.get("/api/v1/topics?fitler=a").code(), "bad_message");
}

#[test]
fn a_long_list_is_whole() {
    let server = Server::ephemeral();
    let topics = 300;
    for n in 0..topics {
        server.send("PUT", &format!("/api/v1/topics/t/{n}"), "x".repeat(1000));
    }
    let list = server.get("/api/v1/topics?filter=t/%23").json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), topics);
    assert!(
        list.iter()
            .all(|item| item["text"].as_str().unwrap().len() == 1000)
    );
}

#[test]
fn what_is_refused_has_a_code() {
    let server = Server::ephemeral();
    let largest = 1 << 20;
    for (path, body, status, code) in [
        ("clicks/main/values", 1, 403, "not_allowed"),
        ("$SYS/broker/uptime", 1, 403, "not_allowed"),
        ("a", largest + 1, 413, "too_large"),
        ("a+", 1, 400, "invalid_topic"),
        ("a%00", 1, 400, "invalid_topic"),
        ("a%ff", 1, 400, "bad_message"),
        ("clicks/main/k/press", 1, 400, "bad_message"),
    ] {
        let refused = server.send("POST", &format!("/api/v1/topics/{path}"), vec![b'x'; body]);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (status, code),
            "{path}"
        );
    }
    let long = format!("/api/v1/topics/{}", "x".repeat(2000));
    assert_eq!(server.send("PUT", &long, "1").code(), "invalid_topic");
    assert_eq!(
        server
            .send("PUT", "/api/v1/topics/a", vec![b'x'; largest])
            .status,
        200
    );
    assert_eq!(server.send("DELETE", "/api/v1/topics/a", "").status, 405);

    // A body whose length is not announced is bounded while it comes.
    let mut stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head =
        "PUT /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [
        format!("{:x}\r\n", largest + 1).as_bytes(),
        &vec![b'x'; largest + 1],
        b"\r\n",
    ]
    .concat();
    stream.write_all(&chunk).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[test]
fn full_rooms_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    let limits = "[limits]\nrooms = 5\nroom_devices = 5\ndevice_incarnations = 5\n";
    std::fs::write(&file, limits).unwrap();
    let server = Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()]);
    let count = |room: &str, device: &str, nonce: u32| {
        let topic = format!("/api/v1/topics/clicks/{room}/{device}/count/1-{nonce:08x}");
        server.send("PUT", &topic, r#"{"red":1,"blue":0}"#).status
    };
    let metrics = || server.get("/metrics").text().to_owned();
    let has = |line: &str| assert!(metrics().lines().any(|one| one == line), "{line}");
    assert_eq!(server.get("/healthz").text(), "ok\n");
    // Besides `main`.
    for room in ["a", "b"] {
        assert_eq!(count(room, "k", 1), 200);
    }
    assert_eq!(server.get("/healthz").text(), "ok\n");
    assert_eq!(count("c", "k", 1), 200);
    let said = "warning: 4 of 5 rooms are known (limits.rooms)\n";
    assert_eq!(server.get("/healthz").text(), said);
    assert_eq!(count("d", "k", 1), 200);
    assert_eq!(count("e", "k", 1), 507);
    for device in ["l", "m", "n", "o"] {
        assert_eq!(count("a", device, 1), 200);
    }
    assert_eq!(count("a", "p", 1), 507);
    for nonce in 2..=4 {
        assert_eq!(count("b", "k", nonce), 200);
    }
    let said = server.get("/healthz").text().to_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, begins, full) in [
        (lines[0], "warning: 5 of 5 rooms", true),
        (lines[1], "warning: 5 of 5 devices", true),
        (lines[2], "warning: 4 of 5 incarnations", false),
    ] {
        assert!(line.starts_with(begins), "{line}");
        assert_eq!(line.ends_with("are rejected"), full, "{line}");
    }
    for line in [
        "latchbus_rooms 5",
        "latchbus_rooms_limit 5",
        "latchbus_room_devices 5",
        "latchbus_room_devices_limit 5",
        "latchbus_device_incarnations 4",
        "latchbus_device_incarnations_limit 5",
        "latchbus_publishes_dropped_total 2",
    ] {
        has(line);
    }
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait().2;
    for setting in [
        "limits.rooms",
        "limits.room_devices",
        "limits.device_incarnations",
    ] {
        let warned = |line: &str| line.contains(" WARN bus: ") && line.contains(setting);
        assert!(log.lines().any(warned), "{setting}: {log}");
    }
}

#[test]
fn full_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    std::fs::write(&file, "[limits]\nkept_values = 100\n").unwrap();
    let server = Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()]);
    let metric = |name: &str| {
        let text = server.get("/metrics").text().to_owned();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let mut health = Vec::new();
    // The hub's own topics do not count.
    for n in 0..100 {
        let put = server.send("PUT", &format!("/api/v1/topics/t/{n}"), "1");
        assert_eq!(put.status, 200, "{n}");
        health.push(server.get("/healthz").text().to_owned());
    }
    assert!(health[..79].iter().all(|said| said == "ok\n"));
    assert!(health[79].starts_with("warning: 80 of 100 values"));
    assert!(health[99].contains("rejected") && health[99].contains("limits.kept_values"));
    assert_eq!(metric("latchbus_publishes_dropped_total"), "0");
    for dropped in 1..=3 {
        let refused = server.send("PUT", "/api/v1/topics/one/more", "1");
        assert_eq!((refused.status, refused.code().as_str()), (507, "full"));
        assert!(refused.text().contains("keeps 100 values"));
        let count = metric("latchbus_publishes_dropped_total");
        assert_eq!(count, dropped.to_string());
    }
    assert_eq!(metric("latchbus_kept_values_limit"), "100");
    assert_eq!(metric("latchbus_kept_values_of_peers"), "100");
    assert_eq!(server.send("PUT", "/api/v1/topics/t/1", "").status, 200);
    assert_eq!(
        server.send("PUT", "/api/v1/topics/one/more", "1").status,
        200
    );
    until("full again", || {
        server
            .get("/healthz")
            .text()
            .starts_with("warning: 100 of 100")
    });
    assert_eq!(server.send("PUT", "/api/v1/topics/t/0", "2").status, 200);
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait().2;
    assert!(
        log.contains("WARN bus: 100 of 100 values are retained"),
        "{log}"
    );
    assert!(log.contains("publish rejected"), "{log}");
}

#[test]
fn foreign_pages_and_names_are_refused() {
    let server = Server::on_free_ports([
        "--ephemeral",
        "--allow-origins",
        "https://dash.example.com",
        "--allow-hosts",
        "bus.example.com",
    ]);
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request = Request::new(method, path).body("1");
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .send(server.http())
    };
    let topic = "/api/v1/topics/a";
    let own = format!("http://{}", server.http());
    assert_eq!(send("PUT", topic, &[("Origin", &own)]).status, 200);
    for (method, path) in [
        ("PUT", topic),
        ("POST", topic),
        ("GET", topic),
        ("GET", "/ws"),
        ("GET", "/mqtt"),
    ] {
        let refused = send(method, path, &[("Origin", "http://evil.example")]);
        assert_eq!(refused.status, 403, "{method} {path}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
        assert_eq!(send(method, path, &[("Origin", "null")]).status, 403);
    }
    for path in ["/", topic, "/api/v1/topics", "/ws", "/mqtt"] {
        assert_eq!(
            send("GET", path, &[("Host", "evil.example")]).status,
            403,
            "{path}"
        );
    }
    for host in ["bus.example.com", "localhost:1"] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(send("GET", path, &[("Host", host)]).status, 200, "{path}");
        }
    }

    let listed = ("Origin", "https://dash.example.com");
    let written = send("PUT", topic, &[listed]);
    assert_eq!(written.status, 200);
    assert_eq!(
        written.header("access-control-allow-origin"),
        Some(listed.1)
    );
    let asked = ("Access-Control-Request-Method", "PUT");
    let preflight = send("OPTIONS", topic, &[listed, asked]);
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert_eq!(
        send(
            "OPTIONS",
            topic,
            &[("Origin", "http://evil.example"), asked]
        )
        .status,
        403
    );
}

#[test]
fn health_and_metrics() {
    let server = Server::ephemeral();
    let health = server.get("/healthz");
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    for path in ["/readyz", "/readyz/"] {
        let ready = server.get(path);
        assert_eq!((ready.status, ready.text()), (200, "ready\n"), "{path}");
    }

    let sample = |name: &str| {
        let text = server.get("/metrics").text().to_owned();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse::<f64>()
            .unwrap()
    };
    let received = sample("latchbus_messages_received_total");
    server.send("PUT", "/api/v1/topics/a", "1");
    server.send("PUT", "/api/v1/topics/clicks/main/values", "1");
    server.send("POST", "/api/v1/topics/clicks/main/k/press", "green");
    assert_eq!(sample("latchbus_messages_received_total"), received + 3.0);
    assert_eq!(sample("latchbus_publishes_not_allowed_total"), 1.0);
    assert_eq!(sample("latchbus_clicks_malformed_total"), 1.0);
    assert_eq!(sample("latchbus_store_healthy"), 1.0);
    assert_eq!(sample("latchbus_http_responses_total{class=\"4xx\"}"), 2.0);

    let metrics = server.get("/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let (mut family, mut of_kind) = ("", "");
    for line in metrics.text().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(family.starts_with("latchbus_"), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            of_kind = kind;
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let part = name.strip_prefix(family);
            let known: &[_] = match of_kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(part.is_some_and(|part| known.contains(&part)), "{line}");
        }
    }
}

#[test]
fn a_connection_serves_several_requests() {
    let server = Server::ephemeral();
    let mut stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    let mut broken = TcpStream::connect(server.http()).unwrap();
    broken.write_all(b"\x16\x03\x01 not HTTP\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    broken.read_to_end(&mut rest).unwrap();
    until("others are served on", || {
        server.get("/healthz").status == 200
    });
}

#[test]
fn a_history_is_read_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latchbus.toml");
    std::fs::write(&file, "[[history]]\nfilter = \"chat/+\"\nkeep = 30\n").unwrap();
    let server = Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()]);
    for n in 0..40 {
        server.send("PUT", "/api/v1/topics/chat/lobby", n.to_string());
    }
    let page = |query: &str| {
        let answer = server.get(&format!("/api/v1/history/chat/lobby{query}"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        let json = answer.json();
        let messages = json["messages"].as_array().unwrap().clone();
        let values: Vec<_> = messages
            .iter()
            .map(|m| m["payload"].as_u64().unwrap())
            .collect();
        let first = messages.first().map(|m| m["rev"].as_u64().unwrap());
        (values, first, json["more"].as_bool().unwrap())
    };
    // Backwards, each message once, whatever comes meanwhile.
    let (mut all, mut query, mut pages) = (Vec::new(), "?limit=12".to_owned(), 0);
    loop {
        let (values, first, has_more) = page(&query);
        all.splice(0..0, values);
        query = format!("?limit=12&before={}", first.unwrap());
        pages += 1;
        if !has_more {
            break;
        }
        server.send("POST", "/api/v1/topics/chat/lobby", "event");
    }
    assert_eq!((pages, all), (3, (10..40).collect::<Vec<u64>>()));
    assert_eq!(page("").0.len(), 30);
    assert_eq!(page("?before=1"), (vec![], None, false));
    let none = server.get("/api/v1/history/lab/none");
    assert_eq!(none.json(), json!({"messages": [], "more": false}));
    for wrong in [
        "/api/v1/history/chat/+",
        "/api/v1/history/",
        "/api/v1/history/a?limit=0",
        "/api/v1/history/a?limit=x",
        "/api/v1/history/a?after=1",
        "/api/v1/history/a?before=1&before=2",
    ] {
        assert!(matches!(server.get(wrong).status, 400 | 404), "{wrong}");
    }
    // Pages are bounded in bytes as well, and have one message at least.
    let long = "x".repeat(200 << 10);
    for _ in 0..3 {
        server.send("PUT", "/api/v1/topics/chat/long", &long);
    }
    let page = server.get("/api/v1/history/chat/long").json();
    assert_eq!(
        (page["messages"].as_array().unwrap().len(), &page["more"]),
        (1, &json!(true))
    );
}
