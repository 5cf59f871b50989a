//! What a CONNECT brings to prove who a client is, and AUTH after it: the server asks about it just as it was written.
//!
//! Input: a byte of choices, then fields with `0xFF` between them: client identifier, user, password, authentication method, its data, and
//! then bytes that the client sends once it is connected, up to the end.
#![no_main]

use std::time::Instant;

use bytes::BytesMut;
use latchbus_bus::{Event, Request, SignInRefused};
use latchbus_mqtt::{Bounds, Connection, Opening, Progress, TOKEN_METHOD, Version, opening};
use libfuzzer_sys::fuzz_target;

const USER: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const METHOD: u8 = 0x20;
const DATA: u8 = 0x10;
const V5: u8 = 0x08;
/// Every second AUTH is refused.
const REFUSES: u8 = 0x04;
const CLEAN: u8 = 0x02;

/// So long may a field be: the length of an MQTT string has two bytes, and the harness writes the remaining length in four.
const MAX_FIELD: usize = 4_096;

fuzz_target!(|input: &[u8]| {
    let Some((&choices, fields)) = input.split_first() else {
        return;
    };
    let has = |choice: u8| choices & choice != 0;
    let mut fields = fields.splitn(6, |byte| *byte == 0xFF);
    let mut field = || fields.next().unwrap_or_default();
    let [client_id, user, password, method, data, rest] = [(); 6].map(|()| field());
    if [client_id, user, password, method, data]
        .iter()
        .any(|field| field.len() > MAX_FIELD)
    {
        return;
    }
    let mut body = b"\0\x04MQTT".to_vec();
    body.push(if has(V5) { 5 } else { 4 });
    body.extend([(choices & (USER | PASSWORD | CLEAN)), 0, 60]);
    if has(V5) {
        let mut properties = Vec::new();
        if has(METHOD) {
            properties.push(0x15);
            text(&mut properties, method);
        }
        if has(DATA) {
            properties.push(0x16);
            text(&mut properties, data);
        }
        length(&mut body, properties.len());
        body.extend(properties);
    }
    text(&mut body, client_id);
    if has(USER) {
        text(&mut body, user);
    }
    if has(PASSWORD) {
        text(&mut body, password);
    }
    let mut bytes = BytesMut::from(&[0x10][..]);
    let mut head = Vec::new();
    length(&mut head, body.len());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&body);
    let is_text = |field: &[u8]| core::str::from_utf8(field).is_ok_and(|text| !text.contains('\0'));
    let opened = opening(&mut bytes, 1 << 20);
    let connect = match opened {
        Ok(Some(Opening::Connect(connect))) => connect,
        Ok(None) => panic!("it is complete"),
        Ok(Some(Opening::Refuse { .. })) | Err(_) => {
            let form = (!has(USER) || is_text(user)) && is_text(client_id);
            let by_method = has(V5) && (has(METHOD) || has(DATA));
            let three =
                !has(V5) && (has(PASSWORD) && !has(USER) || client_id.is_empty() && !has(CLEAN));
            assert!(!form || by_method || three, "{opened:?}");
            return;
        }
    };
    assert!(bytes.is_empty());
    assert_eq!(connect.version == Version::V5, has(V5));
    let credentials = &connect.credentials;
    let said = |choice, field: &[u8]| has(choice).then(|| field.to_vec());
    assert_eq!(
        credentials.user.clone().map(String::into_bytes),
        said(USER, user)
    );
    assert_eq!(
        credentials.password.clone().map(|bytes| bytes.to_vec()),
        said(PASSWORD, password)
    );
    assert_eq!(connect.client_id.as_bytes(), client_id);
    let by_token = has(V5) && has(METHOD);
    assert_eq!(connect.by_token, by_token);
    assert!(!by_token || method == TOKEN_METHOD.as_bytes());
    let token = by_token.then(|| match has(DATA) {
        true => String::from_utf8(data.to_vec()).unwrap_or_default(),
        false => String::new(),
    });
    assert_eq!(credentials.token, token);
    // No log shows them.
    let shown = format!("{connect:?}");
    let is_secret = |secret: &[u8]| {
        let secret = String::from_utf8_lossy(secret);
        secret.len() > 12
            && !shown_elsewhere(&secret, [client_id, user])
            && shown.contains(&*secret)
    };
    assert!(!(has(PASSWORD) && is_secret(password)), "{shown}");
    assert!(!(by_token && is_secret(data)), "{shown}");
    after(*connect, rest, has(REFUSES));
});

fn shown_elsewhere(secret: &str, fields: [&[u8]; 2]) -> bool {
    let debug = format!(
        "{fields:?}Connect {{ version: credentials: Credentials {{ user: password: token: certificate"
    );
    debug.contains(secret)
        || fields
            .iter()
            .any(|field| String::from_utf8_lossy(field).contains(secret))
}

/// What the client sends once it is connected: AUTH asks for a sign-in where it has begun with a token, and is an error where it has not.
fn after(connect: latchbus_mqtt::Connect, bytes: &[u8], refuses: bool) {
    let (bounds, now) = (Bounds::default(), Instant::now());
    if !Connection::can_accept(&connect, false, &bounds) {
        return;
    }
    let by_token = connect.by_token;
    let mut connection = Connection::accept(connect, None, false, bounds, now);
    let (mut bytes, mut asked) = (BytesMut::from(bytes), 0);
    loop {
        flush(&mut connection);
        let event = match connection.poll_request(&mut bytes, now) {
            Ok(Progress::Request(Request::SignIn {
                id, credentials, ..
            })) => {
                asked += 1;
                assert!(by_token && credentials.token.is_some() && credentials.password.is_none());
                let result = match refuses && asked % 2 == 0 {
                    true => Err(SignInRefused::Expired),
                    false => Ok(()),
                };
                Event::SignedIn { id, result }
            }
            Ok(Progress::Request(Request::Publish { id: Some(id), .. })) => {
                Event::Published { id, rev: 1 }
            }
            Ok(Progress::Request(_)) => continue,
            Ok(Progress::NeedsBytes | Progress::Left) | Err(_) => break,
        };
        connection.handle_event(event);
    }
    connection.close(None);
    flush(&mut connection);
}

/// Everything that can be written is written, and what it waits for is stored.
fn flush(connection: &mut Connection) {
    let mut out = BytesMut::new();
    for _ in 0..1_000 {
        if connection.has_notes() {
            let _notes = connection.take_notes();
            connection.notes_stored();
        }
        if !connection.has_output() && !connection.has_notes() {
            return;
        }
        out.clear();
        connection.take_output(&mut out);
    }
    panic!("the output has no end");
}

fn text(out: &mut Vec<u8>, field: &[u8]) {
    let length = u16::try_from(field.len()).expect("short");
    out.extend(length.to_be_bytes());
    out.extend(field);
}

/// A variable byte integer (MQTT 5 §1.5.5).
fn length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        out.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            return;
        }
    }
}
