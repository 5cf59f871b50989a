//! Pages of one's own, the client of Socket.IO, and what a page is told that may not use the server.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use core::time::Duration;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use support::{Answer, Request, Server, latchbus, refused};
use tempfile::TempDir;

const INDEX: &str =
    "<!doctype html><base href=\"/\"><script src=\"main-1.js\" type=\"module\"></script>";
const SCRIPT: &str = "console.log('main');";
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A front end as a build tool leaves it.
fn built() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("index.html", INDEX.as_bytes());
    write("main-1.js", SCRIPT.as_bytes());
    write("main-1.js.br", b"br");
    write("main-1.js.gz", b"gz");
    write("styles.css", b"b{}");
    write("styles.css.gz", b"gz of css");
    write("assets/logo.svg", b"<svg/>");
    write("assets/a b.txt", b"blank");
    write("assets/no-type", b"?");
    write("about.html", b"about");
    write("guide/index.html", b"guide");
    write(".env", b"SECRET=1");
    write(".well-known/security.txt", b"Contact");
    write("api/v1/topics", b"never");
    folder
}

fn serve(folder: &Path, more: &[&str]) -> Server {
    let folder = folder.to_str().unwrap();
    Server::on_free_ports([&["--ephemeral", "--pages", folder], more].concat())
}

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::new("GET", path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.send(server.http())
}

#[test]
fn a_front_end_is_served_and_the_dashboard_beside_it() {
    let folder = built();
    let server = serve(folder.path(), &[]);
    for (path, content_type, body) in [
        ("/", "text/html; charset=utf-8", INDEX),
        ("/index.html", "text/html; charset=utf-8", INDEX),
        ("/main-1.js", "text/javascript; charset=utf-8", SCRIPT),
        ("/main-1.js?v=2", "text/javascript; charset=utf-8", SCRIPT),
        ("/assets/logo.svg", "image/svg+xml", "<svg/>"),
        ("/assets/a%20b.txt", "text/plain; charset=utf-8", "blank"),
        ("/assets/no-type", "application/octet-stream", "?"),
        ("/about", "text/html; charset=utf-8", "about"),
        ("/guide/", "text/html; charset=utf-8", "guide"),
        (
            "/.well-known/security.txt",
            "text/plain; charset=utf-8",
            "Contact",
        ),
    ] {
        let answer = server.get(path);
        let seen = (answer.status, answer.header("content-type"), answer.text());
        assert_eq!(seen, (200, Some(content_type), body), "{path}");
        let length = body.len().to_string();
        assert_eq!(
            answer.header("content-length"),
            Some(length.as_str()),
            "{path}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("x-frame-options", "DENY"),
            ("accept-ranges", "none"),
            ("vary", "Origin, Accept, Accept-Encoding"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("script-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");

        let etag = answer.header("etag").unwrap();
        let known = get(&server, path, &[("If-None-Match", etag)]);
        assert_eq!(
            (known.status, known.body.len(), known.header("etag")),
            (304, 0, Some(etag)),
            "{path}"
        );
        let head = server.send("HEAD", path, "");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for name in ["content-length", "content-type", "etag"] {
            assert_eq!(head.header(name), answer.header(name), "{path} {name}");
        }
        let part = get(&server, path, &[("Range", "bytes=0-1")]);
        assert_eq!((part.status, part.text()), (200, body), "no ranges");
        let posted = server.send("POST", path, "x");
        assert_eq!(
            (posted.status, posted.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    let folder_without = server.get("/guide?a=b");
    assert_eq!(
        (folder_without.status, folder_without.header("location")),
        (308, Some("./guide/?a=b"))
    );

    // The program's own addresses stay its own, and so do the dashboard's files.
    assert_eq!(server.get("/api/v1/topics?filter=none").text(), "[]\n");
    assert_eq!(server.get("/api/v2/none").code(), "not_found");
    assert_eq!(server.get("/healthz").text(), "ok\n");
    let dashboard = server.get("/latchbus/");
    assert!(
        dashboard.text().contains("<title>Latchbus</title>"),
        "{}",
        dashboard.text()
    );
    assert!(
        dashboard
            .header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert_eq!(
        server.get("/latchbus").header("location"),
        Some("latchbus/")
    );
    assert_eq!(server.get("/latchbus/latchbus.js").status, 200);
    assert!(server.get("/latchbus/topics").text().contains("<html"));
    assert_eq!(server.get("/latchbus/none").code(), "not_found");
    assert_eq!(
        server.get("/latchbus/api/v1/topics?filter=none").text(),
        "[]\n"
    );
    assert_eq!(server.get("/latchbus.js").status, 404);
}

/// Without pages the dashboard is at both places.
#[test]
fn the_dashboard_is_always_at_its_address() {
    let server = Server::ephemeral();
    assert_eq!(server.get("/latchbus/").status, 200);
    assert_eq!(server.get("/latchbus").status, 308);
    assert_eq!(
        server.get("/latchbus/style.css").body,
        server.get("/style.css").body
    );
    let base = Server::on_free_ports(["--ephemeral", "--base-path", "/lb"]);
    let page = base.get("/lb/latchbus/");
    assert!(
        page.text().contains("<base href=\"/lb/latchbus/\">"),
        "{}",
        page.text()
    );
}

#[test]
fn a_route_of_the_front_end_gets_its_page() {
    let folder = built();
    let server = serve(folder.path(), &[]);
    let page = |path: &str, accept: Option<&str>| {
        let headers: Vec<_> = accept
            .map(|accept| ("Accept", accept))
            .into_iter()
            .collect();
        let answer = get(&server, path, &headers);
        match answer.status {
            200 => assert_eq!(
                (answer.text(), answer.header("etag").is_some()),
                (INDEX, true),
                "{path}"
            ),
            _ => assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "not_found"),
                "{path}"
            ),
        }
        answer.status == 200
    };
    for (path, accept, expected) in [
        ("/rooms/lab", Some(BROWSER), true),
        ("/rooms/lab?a=b", None, true),
        ("/users/john.doe", Some(BROWSER), true),
        ("/assets/", Some(BROWSER), true),
        ("/none.js", Some("*/*"), false),
        ("/main-0.js", None, false),
        ("/rooms/lab", Some("application/json"), false),
        ("/.env", Some(BROWSER), false),
        ("/api/v2/x", Some(BROWSER), false),
        ("/latchbus/x", Some(BROWSER), false),
        ("/socket.io/x", Some(BROWSER), false),
    ] {
        assert_eq!(page(path, accept), expected, "{path} {accept:?}");
    }
    // A link from another site leads there.
    let headers = [
        ("Accept", BROWSER),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
    ];
    assert_eq!(get(&server, "/rooms/lab", &headers).status, 200);

    // A site of several pages says so by its own page for what is not there.
    fs::write(folder.path().join("404.html"), "not here").unwrap();
    for path in ["/rooms/lab", "/none.js", "/.env"] {
        let answer = get(&server, path, &[("Accept", BROWSER)]);
        assert_eq!((answer.status, answer.text()), (404, "not here"), "{path}");
        let known = get(
            &server,
            path,
            &[("If-None-Match", answer.header("etag").unwrap())],
        );
        assert_eq!(known.status, 404, "{path}");
    }
    assert_eq!(server.get("/api/v2/x").code(), "not_found");
}

#[test]
fn compressed_files_are_served_to_who_accepts_them() {
    let folder = built();
    let server = serve(folder.path(), &[]);
    let of = |path: &str, accept: &str| {
        let answer = get(&server, path, &[("Accept-Encoding", accept)]);
        let encoding = answer.header("content-encoding").map(str::to_owned);
        assert!(answer.header("vary").unwrap().contains("Accept-Encoding"));
        (encoding, answer.text().to_owned(), answer)
    };
    let (br, gz) = (Some("br".to_owned()), Some("gzip".to_owned()));
    let mut etags = Vec::new();
    for (path, accept, encoding, body) in [
        ("/main-1.js", "gzip, deflate, br, zstd", &br, "br"),
        ("/main-1.js", "gzip", &gz, "gz"),
        ("/main-1.js", "gzip;q=0.9, br;q=0.1", &gz, "gz"),
        ("/main-1.js", "br;q=0, *;q=0", &None, SCRIPT),
        ("/main-1.js", "identity", &None, SCRIPT),
        ("/main-1.js", "", &None, SCRIPT),
        ("/styles.css", "br, gzip", &gz, "gz of css"),
        ("/assets/logo.svg", "br, gzip", &None, "<svg/>"),
    ] {
        let (seen, text, answer) = of(path, accept);
        assert_eq!((&seen, text.as_str()), (encoding, body), "{path} {accept}");
        let expected = if path.ends_with(".js") {
            "text/javascript; charset=utf-8"
        } else {
            answer.header("content-type").unwrap()
        };
        assert_eq!(answer.header("content-type"), Some(expected));
        etags.push(answer.header("etag").unwrap().to_owned());
        let headers = [
            ("Accept-Encoding", accept),
            ("If-None-Match", etags.last().unwrap()),
        ];
        assert_eq!(get(&server, path, &headers).status, 304, "{path} {accept}");
    }
    // Each form is another representation.
    let [brotli, gzip, .., original] = &etags[..4] else {
        panic!("{etags:?}")
    };
    assert!(
        brotli != gzip && gzip != original && brotli != original,
        "{etags:?}"
    );
    // One of an earlier build is not of this file.
    fs::write(folder.path().join("main-1.js"), "new").unwrap();
    let old = fs::File::options()
        .write(true)
        .open(folder.path().join("main-1.js.br"))
        .unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
    assert_eq!(of("/main-1.js", "br").1, "new");
    assert_eq!(of("/main-1.js", "br, gzip").1, "gz");
    // Without the original there is nothing.
    fs::remove_file(folder.path().join("styles.css")).unwrap();
    assert_eq!(
        get(&server, "/styles.css", &[("Accept-Encoding", "gzip")]).status,
        404
    );
    // What leads out is not served in this form either.
    symlink("/etc/passwd", folder.path().join("about.html.br")).unwrap();
    assert_eq!(of("/about.html", "br").1, "about");
}

#[test]
fn nothing_outside_the_folder_is_served() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir(outside.path().join("site-2")).unwrap();
    fs::write(outside.path().join("site-2/index.html"), "secret").unwrap();
    let site = outside.path().join("site");
    fs::create_dir(&site).unwrap();
    for (name, text) in [
        ("index.html", INDEX),
        ("a.txt", "a"),
        (".env", "secret"),
        ("..x", "secret"),
    ] {
        fs::write(site.join(name), text).unwrap();
    }
    fs::create_dir(site.join(".git")).unwrap();
    fs::write(site.join(".git/config"), "secret").unwrap();
    symlink(outside.path().join("secret.txt"), site.join("out.txt")).unwrap();
    symlink("../secret.txt", site.join("up.txt")).unwrap();
    symlink(outside.path(), site.join("folder")).unwrap();
    symlink("../site-2", site.join("beside")).unwrap();
    symlink("loop", site.join("loop")).unwrap();
    symlink("nowhere", site.join("dangling")).unwrap();
    symlink("a.txt", site.join("inside.txt")).unwrap();
    symlink(site.join("a.txt"), site.join("inside-absolute.txt")).unwrap();
    let pipe = site.join("pipe");
    let status = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(status.success());
    let mut server = serve(&site, &[]);
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/a/../../secret.txt",
        "/%252e%252e/secret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/./../secret.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/etc/passwd%00.html",
        "/latchbus/../../secret.txt",
        "/latchbus/%2e%2e/%2e%2e/secret.txt",
        "/out.txt",
        "/up.txt",
        "/folder/secret.txt",
        "/beside/",
        "/beside/index.html",
        "/beside",
        "/folder/site-2/",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/..x",
        "/loop",
        "/loop/x",
        "/dangling",
        "/pipe",
        "/a.txt/",
        "/a.txt/x",
    ] {
        for accept in ["application/json", "text/html"] {
            let answer = get(&server, path, &[("Accept", accept)]);
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                !text.contains("secret") && !text.contains("root:"),
                "{path}: {text}"
            );
            let is_page = answer.status == 200 && text == INDEX;
            assert!(
                answer.status == 404 || is_page,
                "{path} {accept}: {}",
                answer.status
            );
        }
    }
    assert_eq!(
        server.get(&format!("/{}", "x".repeat(5_000))).text(),
        INDEX,
        "a route, if a long one"
    );
    assert_eq!(server.get("/inside.txt").text(), "a");
    assert_eq!(server.get("/inside-absolute.txt").text(), "a");
    // A name that this server is not called by gets nothing.
    assert_eq!(
        get(&server, "/a.txt", &[("Host", "evil.example")]).status,
        403
    );
    let log = server.kill();
    assert!(
        log.contains("leads out of the folder") && log.contains("/out.txt"),
        "{log}"
    );
}

#[test]
fn a_new_build_is_served_without_a_restart() {
    let place = tempfile::tempdir().unwrap();
    for (build, text) in [("one", "1"), ("two", "2")] {
        fs::create_dir(place.path().join(build)).unwrap();
        fs::write(place.path().join(build).join("index.html"), text).unwrap();
    }
    let current = place.path().join("current");
    symlink("one", &current).unwrap();
    let server = serve(&current, &[]);
    let first = server.get("/");
    assert_eq!(first.text(), "1");
    // As deployments switch: a new link in the place of the old one.
    symlink("two", place.path().join("next")).unwrap();
    fs::rename(place.path().join("next"), &current).unwrap();
    let second = get(
        &server,
        "/",
        &[("If-None-Match", first.header("etag").unwrap())],
    );
    assert_eq!((second.status, second.text()), (200, "2"));
    // As `ng build` does: the folder goes and comes again.
    fs::remove_dir_all(place.path().join("two")).unwrap();
    assert_eq!(server.get("/").code(), "unavailable");
    fs::create_dir(place.path().join("two")).unwrap();
    fs::write(place.path().join("two/index.html"), "3").unwrap();
    assert_eq!(server.get("/").text(), "3");
}

#[test]
fn a_long_file_comes_whole() {
    let folder = built();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let path = folder.path().join("long.bin");
    fs::write(&path, &bytes).unwrap();
    let server = serve(folder.path(), &[]);
    let answer = server.get("/long.bin");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("3000000"))
    );
    assert!(answer.body == bytes, "{} bytes", answer.body.len());
    let etag = answer.header("etag").unwrap();
    assert_eq!(
        get(&server, "/long.bin", &[("If-None-Match", etag)]).status,
        304
    );
    let head = server.send("HEAD", "/long.bin", "");
    assert_eq!(
        (head.body.len(), head.header("content-length")),
        (0, Some("3000000"))
    );
    // Another of the same length and time is another.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, vec![7; bytes.len()]).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(
        get(&server, "/long.bin", &[("If-None-Match", etag)]).status,
        200
    );
}

#[test]
fn the_policy_of_the_pages_is_a_setting() {
    let folder = built();
    let policy = |more: &[&str]| {
        let server = serve(folder.path(), more);
        let page = server.get("/");
        let dashboard = server.get("/latchbus/");
        assert!(
            dashboard
                .header("content-security-policy")
                .unwrap()
                .starts_with("default-src 'none'")
        );
        page.header("content-security-policy").unwrap().to_owned()
    };
    let own = "default-src 'self' https://cdn.example";
    assert_eq!(
        policy(&["--pages-csp", own]),
        format!("{own}; frame-ancestors 'none'")
    );
    assert_eq!(policy(&["--pages-csp", "off"]), "frame-ancestors 'none'");
    let frames = [
        "--pages-csp",
        own,
        "--allow-frames",
        "https://grafana.example",
    ];
    assert_eq!(
        policy(&frames),
        format!("{own}; frame-ancestors https://grafana.example")
    );
    for wrong in [
        "",
        "default-src 'self'\nx: y",
        "\u{e9}",
        "'self'; default-src 'none'",
    ] {
        let line = refused(latchbus([
            "--http",
            "0",
            "--ephemeral",
            "--pages-csp",
            wrong,
        ]));
        assert!(line.contains("Content-Security-Policy"), "{line}");
    }
}

#[test]
fn where_the_front_end_is_found_and_where_not() {
    let place = tempfile::tempdir().unwrap();
    let dist = place.path().join("dist");
    let line = |folder: &Path| {
        refused(latchbus([
            "--http",
            "0",
            "--mqtt",
            "0",
            "--ephemeral",
            "--pages",
            folder.to_str().unwrap(),
        ]))
    };
    assert!(line(&dist).contains("dist"));
    fs::create_dir(&dist).unwrap();
    assert!(line(&dist).contains("index.html"));
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(line(&file).contains("file"));
    // As Angular builds: dist/APP/browser.
    let browser = dist.join("app/browser");
    fs::create_dir_all(&browser).unwrap();
    fs::write(browser.join("index.html"), INDEX).unwrap();
    for folder in [&dist, &dist.join("app"), &browser] {
        assert_eq!(
            serve(folder, &[]).get("/").text(),
            INDEX,
            "{}",
            folder.display()
        );
    }
    fs::create_dir(dist.join("other")).unwrap();
    fs::write(dist.join("other/index.html"), "other").unwrap();
    let several = line(&dist);
    assert!(
        several.contains("other") && several.contains("browser"),
        "{several}"
    );
}

#[test]
fn a_name_of_ours_in_the_folder_is_told() {
    let folder = built();
    let mut server = serve(folder.path(), &[]);
    let log = server.kill();
    assert!(log.contains("WARN") && log.contains("api"), "{log}");
}

#[test]
fn the_client_of_socket_io_comes_from_its_package() {
    let mut without = Server::ephemeral();
    let answer = without.get("/socket.io/socket.io.js");
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    assert!(
        answer.text().contains("--socketio-client"),
        "{}",
        answer.text()
    );
    let log = without.kill();
    assert!(log.contains("--socketio-client"), "{log}");

    let place = tempfile::tempdir().unwrap();
    let dist = place.path().join("node_modules/socket.io-client/dist");
    fs::create_dir_all(&dist).unwrap();
    let path = place.path().to_str().unwrap();
    let line = refused(latchbus([
        "--http",
        "0",
        "--ephemeral",
        "--socketio-client",
        path,
    ]));
    assert!(line.contains("socket.io-client"), "{line}");
    fs::write(dist.join("socket.io.js"), "io").unwrap();
    fs::write(dist.join("socket.io.min.js"), "min").unwrap();
    fs::write(dist.join("socket.io.min.js.map"), "{}").unwrap();
    fs::write(dist.join("broadcast.js"), "other").unwrap();
    for folder in [
        "",
        "node_modules",
        "node_modules/socket.io-client",
        "node_modules/socket.io-client/dist",
    ] {
        let folder = place.path().join(folder);
        let server =
            Server::on_free_ports(["--ephemeral", "--socketio-client", folder.to_str().unwrap()]);
        let script = server.get("/socket.io/socket.io.js");
        assert_eq!(
            (script.status, script.text(), script.header("content-type")),
            (200, "io", Some("text/javascript; charset=utf-8"))
        );
        assert_eq!(server.get("/socket.io/socket.io.min.js").text(), "min");
        assert_eq!(server.get("/socket.io/socket.io.min.js.map").text(), "{}");
        assert_eq!(server.get("/socket.io/socket.io.esm.min.js").status, 404);
        assert_ne!(server.get("/socket.io/broadcast.js").status, 200);
        let etag = script.header("etag").unwrap();
        assert_eq!(
            get(
                &server,
                "/socket.io/socket.io.js",
                &[("If-None-Match", etag)]
            )
            .status,
            304
        );
        // A page of another origin loads it as a script.
        let foreign = [
            ("Origin", "http://localhost:4200"),
            ("Sec-Fetch-Site", "cross-site"),
        ];
        assert_eq!(
            get(&server, "/socket.io/socket.io.js", &foreign).status,
            200
        );
    }
}

#[test]
fn a_page_that_is_refused_learns_which_flag_is_missing() {
    let server = Server::ephemeral();
    let origin = ("Origin", "http://localhost:4200");
    let asked = get(&server, "/api/v1/origin", &[origin]);
    assert_eq!(
        (asked.status, asked.header("access-control-allow-origin")),
        (200, Some("*"))
    );
    let verdict = asked.json();
    assert_eq!(verdict["allowed"], false);
    assert!(
        verdict["message"]
            .as_str()
            .unwrap()
            .contains("--allow-origins http://localhost:4200")
    );
    assert_eq!(server.get("/api/v1/origin").json()["allowed"], true);
    let listed = Server::on_free_ports(["--ephemeral", "--allow-origins", "http://localhost:4200"]);
    assert_eq!(
        get(&listed, "/api/v1/origin", &[origin]).json()["allowed"],
        true
    );
    // What is refused itself still can't be read there; its status line says it to the console.
    for path in ["/api/v1/topics", "/ws", "/mqtt"] {
        let refused = get(&server, path, &[origin]);
        assert_eq!(
            (
                refused.status,
                refused.header("access-control-allow-origin")
            ),
            (403, None),
            "{path}"
        );
        assert_eq!(
            refused.reason(),
            "Forbidden: start Latchbus with --allow-origins http://localhost:4200",
            "{path}"
        );
    }
}
