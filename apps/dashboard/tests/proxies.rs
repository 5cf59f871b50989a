//! Names, origins and base paths: what proxies do to requests, and what a hostile page can make a browser send.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

mod support;

use core::net::SocketAddr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use support::{Answer, DEADLINE, Request, Server, until};

type Headers<'a> = &'a [(&'a str, &'a str)];

fn send(to: SocketAddr, method: &str, path: &str, headers: Headers<'_>) -> Answer {
    let request = Request::new(method, path).body("1");
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(request, with).send(to)
}

/// A connection to which these bytes were sent.
fn open(to: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// The status of an answer to bytes as they are.
fn status(to: SocketAddr, bytes: &str) -> u16 {
    let mut head = [0; 12];
    open(to, bytes).read_exact(&mut head).unwrap();
    core::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

/// A WebSocket's handshake.
fn handshake(path: &str, headers: Headers<'_>) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    );
    if path.contains("mqtt") {
        head += "Sec-WebSocket-Protocol: mqtt\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// The status of the answer to one.
fn upgrade(to: SocketAddr, path: &str, headers: Headers<'_>) -> u16 {
    status(to, &handshake(path, headers))
}

const TOPIC: &str = "/api/v1/topics/a";
const REBOUND: (&str, &str) = ("Host", "attacker.example:3000");

#[test]
fn health_checks_need_no_name() {
    let server = Server::ephemeral();
    let http = server.http();
    for path in ["/healthz", "/readyz", "/metrics"] {
        for host in ["evil.example", "backend:8080", "a b"] {
            let answer = send(http, "GET", path, &[("Host", host)]);
            assert_eq!(answer.status, 200, "{path} {host}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        let foreign = [("Host", "evil.example"), ("Origin", "http://evil.example")];
        let answer = send(http, "GET", path, &foreign);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(status(http, &format!("GET {path} HTTP/1.0\r\n\r\n")), 200);
    }
    // What haproxy asks unless told otherwise.
    assert_eq!(status(http, "OPTIONS / HTTP/1.0\r\n\r\n"), 204);
    assert_eq!(status(http, "GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status(http, "GET / HTTP/1.1\r\n\r\n"), 403);
}

/// A hostile page, by what it can make a browser send straight to this server.
#[test]
fn hostile_pages_are_refused() {
    let server = Server::ephemeral();
    let http = server.http();
    let own = http.to_string();
    let host = ("Host", own.as_str());
    let foreign = ("Origin", "http://evil.example");
    for site in ["cross-site", "same-site", "none", "garbage", ""] {
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
            let headers = [host, ("Origin", origin), ("Sec-Fetch-Site", site)];
            let headers = if site.is_empty() {
                &headers[..2]
            } else {
                &headers
            };
            for method in ["PUT", "POST", "GET", "OPTIONS"] {
                let refused = send(http, method, TOPIC, headers);
                assert_eq!(refused.status, 403, "{method} {site} {origin}");
                assert_eq!(refused.header("access-control-allow-origin"), None);
            }
            for path in ["/ws", "/mqtt", "/ws?ticket=1-2"] {
                assert_eq!(upgrade(http, path, headers), 403, "{path} {site} {origin}");
            }
        }
    }
    // Without an origin: forms of old browsers, images.
    for site in ["cross-site", "same-site"] {
        let headers = [host, ("Sec-Fetch-Site", site)];
        for method in ["PUT", "POST", "GET"] {
            assert_eq!(send(http, method, TOPIC, &headers).status, 403, "{method}");
        }
        assert_eq!(upgrade(http, "/ws", &headers), 403);
        // A link leads to the dashboard, and to a value.
        let link = [
            host,
            ("Sec-Fetch-Site", site),
            ("Sec-Fetch-Mode", "navigate"),
        ];
        assert_eq!(send(http, "GET", "/", &link).status, 200);
        assert_eq!(send(http, "GET", TOPIC, &link).status, 404);
        assert_eq!(send(http, "POST", TOPIC, &link).status, 403);
    }
    // Rebinding: all else agrees, and a page of the same origin may add headers, but not these three.
    for site in [None, Some("same-origin"), Some("none")] {
        let mut headers = vec![
            REBOUND,
            ("Origin", "http://attacker.example:3000"),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("Forwarded", "for=127.0.0.1;host=localhost"),
        ];
        headers.extend(site.map(|site| ("Sec-Fetch-Site", site)));
        for (method, path) in [
            ("GET", "/"),
            ("GET", TOPIC),
            ("PUT", TOPIC),
            ("POST", "/api/v1/ticket"),
        ] {
            assert_eq!(
                send(http, method, path, &headers).status,
                403,
                "{method} {path}"
            );
        }
        for path in ["/ws", "/mqtt"] {
            assert_eq!(upgrade(http, path, &headers), 403, "{path} {site:?}");
        }
    }
    // The files are nobody's secret; no foreign page can read them.
    let file = send(http, "GET", "/scoreboard.js", &[host, foreign]);
    assert_eq!(file.status, 200);
    assert_eq!(file.header("access-control-allow-origin"), None);
    // Nor a ticket, which a browser fetches for any page.
    let ticket = send(
        http,
        "POST",
        "/api/v1/ticket",
        &[host, ("Origin", "http://10.0.0.1")],
    );
    assert_eq!(
        (ticket.status, ticket.header("access-control-allow-origin")),
        (200, None)
    );
    assert_eq!(
        send(http, "POST", "/api/v1/ticket", &[host, foreign]).status,
        403
    );
}

/// What nginx makes of a browser's requests when it is told no more than to pass WebSockets on.
#[test]
fn a_proxy_that_hides_the_host() {
    let server = Server::ephemeral();
    let http = server.http();
    let direct = http.to_string();
    let page = ("Origin", "http://127.0.0.1:8080");
    for host in ["backend", "127.0.0.1", direct.as_str()] {
        let host = ("Host", host);
        let html = send(http, "GET", "/", &[host]);
        assert_eq!(html.status, 200, "{host:?}");
        assert!(
            html.text().contains(&format!("data-host=\"{}\"", host.1)),
            "{host:?}"
        );
        assert_eq!(
            send(http, "GET", "/scoreboard.js", &[host, page]).status,
            200
        );
        let ticket = send(http, "POST", "/api/v1/ticket", &[host, page]);
        let ticket = ticket.json()["ticket"].as_str().unwrap().to_owned();
        let path = format!("/ws?ticket={ticket}");
        assert_eq!(upgrade(http, &path, &[host, page]), 101, "{host:?}");
        let same = ("Sec-Fetch-Site", "same-origin");
        assert_eq!(upgrade(http, "/ws", &[host, page, same]), 101);
        assert_eq!(send(http, "PUT", TOPIC, &[host, page, same]).status, 200);
        assert_eq!(send(http, "GET", TOPIC, &[host, same]).status, 200);
        // Programs.
        assert_eq!(upgrade(http, "/ws", &[host]), 101);
        assert_eq!(send(http, "PUT", TOPIC, &[host]).status, 200);

        let attacker = ("Origin", "http://attacker.example");
        for headers in [&[host, attacker][..], &[host, attacker, same]] {
            // Where the host is known the browser's word counts.
            let rebound = host.1 == "backend" || headers.len() == 2;
            assert_eq!(upgrade(http, "/ws", headers) == 403, rebound, "{headers:?}");
            assert_eq!(upgrade(http, &path, headers) == 403, rebound, "{headers:?}");
        }
    }
    // A name without a dot that somebody has typed goes with the port.
    let typed = format!("backend:{}", http.port());
    assert_eq!(send(http, "GET", "/", &[("Host", &typed)]).status, 403);
    // By which name a browser came is not known: it may read nothing.
    assert_eq!(send(http, "GET", TOPIC, &[("Host", "backend")]).status, 403);
}

#[test]
fn trusted_proxies_are_believed() {
    let server = Server::on_free_ports(["--ephemeral", "--trusted-proxies", "127.0.0.0/8,::1"]);
    let http = server.http();
    let page = ("Origin", "https://bus.example.com");
    let proto = ("X-Forwarded-Proto", "https");
    let ways: [&[(&'static str, &'static str)]; 4] = [
        &[("Host", "bus.example.com")],
        &[
            ("Host", "backend"),
            ("X-Forwarded-Host", "bus.example.com"),
            proto,
        ],
        &[
            ("Host", "inner.example:8080"),
            ("X-Forwarded-Host", "bus.example.com"),
        ],
        &[
            ("Host", "backend"),
            (
                "Forwarded",
                "for=192.0.2.1;host=bus.example.com;proto=https",
            ),
        ],
    ];
    for way in ways {
        let with = |more: &[(&'static str, &'static str)]| [way, more].concat();
        assert_eq!(send(http, "GET", "/", &with(&[])).status, 200, "{way:?}");
        assert_eq!(
            send(http, "PUT", TOPIC, &with(&[page])).status,
            200,
            "{way:?}"
        );
        assert_eq!(upgrade(http, "/ws", &with(&[page])), 101, "{way:?}");
        let evil = ("Origin", "https://evil.example");
        assert_eq!(
            send(http, "PUT", TOPIC, &with(&[evil])).status,
            403,
            "{way:?}"
        );
        assert_eq!(upgrade(http, "/ws", &with(&[evil])), 403, "{way:?}");
        let cross = [page, ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(upgrade(http, "/mqtt", &with(&cross)), 403, "{way:?}");
    }
    // A browser on the proxy's machine that a hostile page has by a rebound name.
    let rebound = format!("attacker.example:{}", http.port());
    let headers = [
        ("Host", rebound.as_str()),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Proto", "https"),
    ];
    assert_eq!(send(http, "GET", TOPIC, &headers).status, 403);
    // The list of names holds for proxies too.
    let server = Server::on_free_ports([
        "--ephemeral",
        "--trusted-proxies=127.0.0.1",
        "--allow-hosts=*.example.com",
    ]);
    for (name, expected) in [("bus.example.com", 200), ("evil.example", 403)] {
        let headers = [("Host", "backend"), ("X-Forwarded-Host", name)];
        assert_eq!(send(server.http(), "GET", "/", &headers).status, expected);
    }
}

/// What the log shows of a client behind a proxy.
#[test]
fn clients_behind_a_proxy_are_known_by_their_own_address() {
    let server =
        Server::on_free_ports(["--ephemeral", "--trusted-proxies=127.0.0.1", "--log=debug"]);
    let headers = |client| {
        [
            ("Host", "backend"),
            ("X-Forwarded-For", client),
            ("Origin", "http://backend"),
        ]
    };
    let own = upgrade(server.http(), "/mqtt", &headers("192.0.2.9"));
    assert_eq!(own, 101);
    let mut socket = open(server.http(), &handshake("/ws", &headers("192.0.2.8")));
    let mut got = Vec::new();
    while !got.ends_with(b"welcome") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    drop(socket);
    let refused = [
        ("Host", "backend"),
        ("X-Forwarded-For", "192.0.2.10"),
        ("Origin", "http://evil.example"),
    ];
    assert_eq!(upgrade(server.http(), "/ws", &refused), 403);
    // Both connections have ended with their sockets.
    server.signal(rustix::process::Signal::TERM);
    let (_, _, log) = server.wait();
    for client in ["192.0.2.8", "192.0.2.9", "192.0.2.10"] {
        assert!(log.contains(client), "{client}: {log}");
    }
}

#[test]
fn nobody_else_is_believed() {
    let server = Server::on_free_ports(["--ephemeral", "--trusted-proxies", "10.0.0.0/8"]);
    let headers = [
        ("Host", "bus.example.com"),
        ("X-Forwarded-Host", "localhost"),
    ];
    let refused = send(server.http(), "GET", "/", &headers);
    assert_eq!(refused.status, 403);
    // By the PROXY protocol neither.
    let header = "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /healthz HTTP/1.0\r\n\r\n";
    assert_eq!(status(server.http(), header), 400);
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let mut server =
        Server::on_free_ports(["--ephemeral", "--trusted-proxies=127.0.0.1", "--log=debug"]);
    let v1 = "PROXY TCP4 192.0.2.1 10.0.0.1 5678 80\r\n";
    let get = |host: &str| {
        format!("{v1}GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: localhost\r\n\r\n")
    };
    assert_eq!(status(server.http(), &get("127.0.0.1")), 200);
    // The client is no proxy.
    assert_eq!(status(server.http(), &get("evil.example")), 403);
    assert_eq!(send(server.http(), "GET", "/", &[]).status, 200);

    let mut mqtt = TcpStream::connect(server.mqtt()).unwrap();
    mqtt.set_read_timeout(Some(DEADLINE)).unwrap();
    let v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x0a\x00\x00\x01\x16\x2e\x07\x5b";
    let connect = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me";
    mqtt.write_all(&[&v2[..], connect].concat()).unwrap();
    let mut connack = [0; 4];
    mqtt.read_exact(&mut connack).unwrap();
    assert_eq!(connack, *b"\x20\x02\x00\x00");
    // One without the header, and one whose header cannot be read.
    let mut plain = TcpStream::connect(server.mqtt()).unwrap();
    plain.write_all(connect).unwrap();
    plain.read_exact(&mut connack).unwrap();
    let mut broken = TcpStream::connect(server.mqtt()).unwrap();
    broken.write_all(b"PROXY nonsense\r\n").unwrap();
    assert_eq!(broken.read(&mut connack).unwrap_or(0), 0);
    drop((mqtt, plain));
    let log = server.kill();
    assert!(log.contains("192.0.2.1"), "{log}");
}

#[test]
fn a_slash_behind_an_address() {
    for base in ["", "/lb"] {
        let server = Server::on_free_ports(["--ephemeral", &format!("--base-path={base}")]);
        let http = server.http();
        let host = [("Host", "localhost")];
        for path in ["/healthz", "/readyz", "/metrics"] {
            let without = send(http, "GET", &format!("{base}{path}"), &host);
            let with = send(http, "GET", &format!("{base}{path}/?a=b"), &host);
            let types = [&with, &without].map(|answer| answer.header("content-type"));
            assert_eq!((with.status, types[0]), (200, types[1]), "{base}{path}");
            // A load balancer asks by any name.
            let rebound = send(http, "GET", &format!("{base}{path}/"), &[REBOUND]);
            assert_eq!(rebound.status, 200, "{base}{path}");
        }
        for path in ["/ws", "/mqtt"] {
            for slash in ["", "/", "/?ticket=x"] {
                let path = format!("{base}{path}{slash}");
                assert_eq!(upgrade(http, &path, &host), 101, "{path}");
                assert_eq!(upgrade(http, &path, &[REBOUND]), 403, "{path}");
            }
        }
        for page in ["topics", "chat", "clients"] {
            for below in ["", "/latchbus"] {
                let path = format!("{base}{below}/{page}/?filter=a");
                let answer = send(http, "GET", &path, &host);
                let location = format!("../{page}?filter=a");
                assert_eq!(answer.status, 308, "{path}");
                assert_eq!(answer.header("location"), Some(&*location), "{path}");
            }
        }
        for path in ["/ws//", "/healthz/x", "/topics/x/", "/chat//", "/main.js/"] {
            let path = format!("{base}{path}");
            assert_eq!(send(http, "GET", &path, &host).status, 404, "{path}");
        }
    }
}

/// A PROXY header from who is no trusted proxy is said to be one, and what to set.
#[test]
fn a_proxy_header_of_a_stranger() {
    let server = Server::ephemeral();
    let v1 = "PROXY TCP4 192.0.2.1 10.0.0.1 5678 80\r\n";
    let v2 = "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x40\x00\x02\x07\x0a\x00\x00\x01\x16\x2e\x07\x5b";
    for header in [v1, v2] {
        // More than the log shows.
        for _ in 0..8 {
            let mut http = open(server.http(), &format!("{header}GET / HTTP/1.1\r\n\r\n"));
            http.read_to_end(&mut Vec::new()).unwrap_or_default();
            let mut mqtt = open(server.mqtt(), header);
            mqtt.read_to_end(&mut Vec::new()).unwrap_or_default();
        }
    }
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait().2;
    for target in ["http", "mqtt"] {
        let begin = format!(" WARN {target}: ");
        let lines: Vec<_> = (log.lines())
            .filter(|line| line.contains(&begin) && line.contains("PROXY header"))
            .collect();
        assert_eq!(lines.len(), 5, "{target}: {log}");
        for line in lines {
            let setting = "trusted_proxies";
            assert!(
                line.contains("address=127.0.0.1:") && line.contains(setting),
                "{line}"
            );
        }
    }
}

/// One that a trusted proxy breaks, or does not finish.
#[test]
fn a_proxy_header_that_cannot_be_read() {
    let server = Server::on_free_ports(["--ephemeral", "--trusted-proxies=127.0.0.1"]);
    for to in [server.http(), server.mqtt()] {
        for n in 0..8 {
            let header = ["PROXY nonsense\r\n", "PROXY TCP4 192.0"][n % 2];
            let mut stream = open(to, header);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        }
    }
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait().2;
    for target in ["http", "mqtt"] {
        let begin = format!(" WARN {target}: ");
        let lines = log.lines().filter(|line| line.contains(&begin));
        let lines: Vec<_> = lines.filter(|line| line.contains("of a proxy")).collect();
        assert_eq!(lines.len(), 5, "{target}: {log}");
        assert!(
            lines.iter().all(|line| line.contains("proxy=127.0.0.1:")),
            "{log}"
        );
    }
}

#[test]
fn a_refusal_says_what_to_set() {
    let mut server = Server::ephemeral();
    let http = server.http();
    let html = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = send(http, "GET", "/", &[("Host", "bus.local:3000"), html]);
    assert_eq!(
        (page.status, page.header("content-type")),
        (403, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.text().contains("--allow-hosts bus.local:3000"),
        "{}",
        page.text()
    );
    let json = send(http, "GET", "/", &[("Host", "bus.local:3000")]);
    assert_eq!(json.code(), "not_allowed");
    let origin = ("Origin", "https://dash.example.com");
    let page = send(http, "GET", TOPIC, &[origin, html]);
    assert!(
        page.text()
            .contains("--allow-origins https://dash.example.com"),
        "{}",
        page.text()
    );
    // From a proxy that is not trusted.
    let proxied = [
        ("Host", "bus.local"),
        ("X-Forwarded-Host", "bus.local"),
        html,
    ];
    let page = send(http, "GET", "/", &proxied);
    assert!(
        page.text().contains("--trusted-proxies 127.0.0.1"),
        "{}",
        page.text()
    );
    for _ in 0..50 {
        send(http, "GET", "/", &[("Host", "bus.local:3000")]);
        let own = http.to_string();
        assert_eq!(upgrade(http, "/ws", &[("Host", &own), origin]), 403);
    }
    let log = server.kill();
    for wanted in [
        "--allow-hosts bus.local:3000",
        "--allow-origins https://dash.example.com",
    ] {
        let lines = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(wanted));
        assert_eq!(lines.count(), 1, "{wanted}\n{log}");
    }
    assert!(log.contains("--trusted-proxies 127.0.0.1"), "{log}");
}

#[test]
fn all_works_below_a_base_path() {
    let server = Server::on_free_ports(["--ephemeral", "--base-path", "/lb"]);
    let http = server.http();
    for base in ["", "/lb"] {
        for path in [
            "/",
            "/topics",
            "/clients",
            "/scoreboard.js",
            "/healthz",
            "/metrics",
            "/api/v1/topics",
        ] {
            assert_eq!(
                server.get(&format!("{base}{path}")).status,
                200,
                "{base}{path}"
            );
        }
        let own = http.to_string();
        for path in ["/ws", "/mqtt"] {
            let path = format!("{base}{path}");
            assert_eq!(upgrade(http, &path, &[("Host", &own)]), 101, "{path}");
        }
        let put = server.send("PUT", &format!("{base}{TOPIC}"), "1");
        assert_eq!(put.status, 200);
    }
    // Also without the slash: the page says where its files are.
    for path in ["/lb", "/lb/", "/lb/topics", "/"] {
        let page = server.get(path);
        assert!(page.text().contains("<base href=\"/lb/\">"), "{path}");
    }
    assert_eq!(server.get("/lbx/healthz").status, 404);
    // A proxy that takes it away may say so.
    let server = Server::on_free_ports(["--ephemeral", "--trusted-proxies=127.0.0.1"]);
    let prefix = ("X-Forwarded-Prefix", "/lb");
    let page = send(server.http(), "GET", "/", &[prefix]);
    assert!(page.text().contains("<base href=\"/lb/\">"));
    let evil = ("X-Forwarded-Prefix", "/\"><script>");
    assert!(
        !send(server.http(), "GET", "/", &[evil])
            .text()
            .contains("<base")
    );
    let other = Server::ephemeral();
    let page = send(other.http(), "GET", "/", &[prefix]);
    assert!(!page.text().contains("<base"), "not from anyone");
}

#[test]
fn pages_are_framed_by_those_who_may() {
    let policy = |server: &Server| {
        let page = server.get("/");
        let policy = page.header("content-security-policy").unwrap();
        let ancestors = policy.split("frame-ancestors ").nth(1).unwrap().to_owned();
        (ancestors, page.header("x-frame-options").map(str::to_owned))
    };
    let server = Server::ephemeral();
    assert_eq!(
        policy(&server),
        ("'none'".to_owned(), Some("DENY".to_owned()))
    );
    let frames = "self,https://grafana.example.com,http://homeassistant.local:8123";
    let server = Server::on_free_ports(["--ephemeral", "--allow-frames", frames]);
    let expected = "'self' https://grafana.example.com http://homeassistant.local:8123";
    assert_eq!(policy(&server), (expected.to_owned(), None));
}

#[test]
fn wildcards() {
    let server = Server::on_free_ports([
        "--ephemeral",
        "--allow-hosts=*.local",
        "--allow-origins=https://*.example.com,capacitor://localhost,null",
    ]);
    let http = server.http();
    for (host, expected) in [("lab.local:3000", 200), ("lab.local.evil.example", 403)] {
        assert_eq!(send(http, "GET", "/", &[("Host", host)]).status, expected);
    }
    for (origin, passes) in [
        ("https://a.example.com", true),
        ("capacitor://localhost", true),
        ("null", true),
        ("https://example.com", false),
        ("http://a.example.com", false),
        ("ionic://localhost", false),
    ] {
        let answer = send(http, "PUT", TOPIC, &[("Origin", origin)]);
        assert_eq!(answer.status == 200, passes, "{origin}");
        let readable = answer.header("access-control-allow-origin");
        assert_eq!(readable, passes.then_some(origin), "{origin}");
        let own = http.to_string();
        let socket = upgrade(http, "/ws", &[("Host", &own), ("Origin", origin)]);
        assert_eq!(socket == 101, passes, "{origin}");
    }
    until("the server goes on", || {
        server.get("/healthz").status == 200
    });
}
