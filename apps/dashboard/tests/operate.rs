//! What an administrator does with a running server: over HTTP, and with `latchbus ctl`.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use serde_json::{Value, json};
use support::{Request, Server, latchbus, run};

const COUNT: &str = "/api/v1/topics/clicks/main/kiosk-1/count/1-0badcafe";

fn values(server: &Server) -> Value {
    server.get("/api/v1/topics/clicks/main/values").json()
}

fn report(server: &Server, red: u64) {
    let count = json!({"red": red, "blue": 0}).to_string();
    assert_eq!(server.send("PUT", COUNT, count).status, 200);
}

#[test]
fn a_room_is_reset_a_device_removed_and_both_undone() {
    let server = Server::ephemeral();
    report(&server, 5);
    let reset = server.send("POST", "/api/v1/rooms/main/reset", "");
    let answer = reset.json();
    assert_eq!(reset.status, 200, "{answer}");
    assert_eq!(answer["from"], json!({"red": 5, "blue": 0}));
    assert_eq!(values(&server), json!({"red": 0, "blue": 0}));
    report(&server, 5);
    report(&server, 7);
    assert_eq!(values(&server), json!({"red": 2, "blue": 0}));
    let undo = format!("/api/v1/undo/{}", answer["id"].as_str().unwrap());
    assert_eq!(server.send("POST", &undo, "").status, 200);
    assert_eq!(values(&server), json!({"red": 7, "blue": 0}));
    assert_eq!(server.send("POST", &undo, "").status, 404);

    let given = server.send("POST", "/api/v1/rooms/main/reset", r#"{"red":1,"blue":2}"#);
    assert_eq!(given.json()["to"], json!({"red": 1, "blue": 2}));
    report(&server, 8);
    let device = "/api/v1/rooms/main/devices/kiosk-1";
    let removed = server.send("DELETE", device, "");
    assert_eq!(removed.json()["device"], "kiosk-1");
    assert_eq!(values(&server), json!({"red": 1, "blue": 2}));
    let topics = "/api/v1/topics?filter=clicks/main/kiosk-1/%23";
    assert_eq!(server.get(topics).json(), json!([]));
    assert_eq!(server.send("DELETE", device, "").status, 404);
    let undo = format!("/api/v1/undo/{}", removed.json()["id"].as_str().unwrap());
    assert_eq!(server.send("POST", &undo, "").status, 200);
    assert_eq!(values(&server), json!({"red": 2, "blue": 2}));
}

#[test]
fn what_is_not_there_or_not_as_it_must_be_is_refused() {
    let server = Server::ephemeral();
    report(&server, 5);
    for (method, path, body, status) in [
        ("POST", "/api/v1/rooms/nowhere/reset", "", 404),
        ("DELETE", "/api/v1/rooms/main/devices/nobody", "", 404),
        ("DELETE", "/api/v1/rooms/nowhere/devices/kiosk-1", "", 404),
        ("POST", "/api/v1/undo/17", "", 404),
        ("POST", "/api/v1/undo/x", "", 404),
        ("POST", "/api/v1/rooms/main/reset", "{}", 400),
        ("POST", "/api/v1/rooms/main/reset", "5", 400),
        (
            "POST",
            "/api/v1/rooms/main/reset",
            r#"{"red":-1,"blue":0}"#,
            400,
        ),
        ("GET", "/api/v1/rooms/main/reset", "", 405),
        ("PUT", "/api/v1/topics/clicks/main/reset", "{}", 403),
        ("PUT", "/api/v1/topics/clicks/main/kiosk-1/zero", "{}", 403),
    ] {
        let answer = server.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}");
    }
    for (method, path) in [
        ("POST", "/api/v1/rooms/main/reset"),
        ("DELETE", "/api/v1/rooms/main/devices/kiosk-1"),
    ] {
        let foreign = Request::new(method, path).header("Origin", "http://elsewhere.example");
        assert_eq!(foreign.send(server.http()).status, 403, "{method} {path}");
    }
    assert_eq!(values(&server), json!({"red": 5, "blue": 0}));
}

#[test]
fn ctl_does_the_same() {
    let server = Server::ephemeral();
    report(&server, 5);
    let url = format!("http://{}", server.http());
    let ctl = |words: &[&str]| {
        let words: Vec<_> = (["ctl", "--url", &url].iter().chain(words))
            .copied()
            .collect();
        run(latchbus(&words))
    };
    let (status, out, err) = ctl(&["remove-device", "main", "kiosk-1"]);
    assert_eq!(status, Some(0), "{err}");
    let removed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(values(&server), json!({"red": 0, "blue": 0}));
    assert_eq!(ctl(&["undo", removed["id"].as_str().unwrap()]).0, Some(0));
    assert_eq!(values(&server), json!({"red": 5, "blue": 0}));
    assert_eq!(ctl(&["reset-room", "main", "--blue", "3"]).0, Some(0));
    assert_eq!(values(&server), json!({"red": 0, "blue": 3}));
    let (status, out, err) = ctl(&["reset-room", "nowhere"]);
    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert_eq!(err.lines().count(), 1, "{err}");
}
