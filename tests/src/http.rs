//! Requests to the server's HTTP interface, one connection each.

use core::net::SocketAddr;
use std::io;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::users::authorization;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 and its like.
    pub status: u16,
    /// What follows the headers.
    pub body: String,
}

/// Makes a request and reads the whole answer.
///
/// # Errors
/// When there is no server, or it goes away meanwhile.
pub async fn request(http: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    request_by(http, None, method, path, body).await
}

/// The same by somebody who signs in.
///
/// # Errors
/// As for [`request`].
pub async fn request_by(
    http: SocketAddr,
    user: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    let authorization = user.map(|user| format!("Authorization: {}\r\n", authorization(user)));
    let authorization = authorization.unwrap_or_default();
    let mut stream = TcpStream::connect(http).await?;
    let length = body.len();
    // 1.0: the answer ends with the connection, and comes in one piece.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {http}\r\n{authorization}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let whole = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = body.to_owned();
        Some(Answer { status, body })
    });
    whole.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The last value of a topic.
///
/// # Errors
/// As for [`request`].
pub async fn last(http: SocketAddr, topic: &str) -> io::Result<String> {
    let answer = request(http, "GET", &format!("/api/v1/topics/{topic}"), "").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(answer.body)
}

#[derive(Deserialize)]
struct Kept<'a> {
    topic: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Every topic that matches, with its payload, which must be JSON.
///
/// # Errors
/// As for [`request`].
pub async fn kept(http: SocketAddr, filter: &str) -> io::Result<Vec<(String, String)>> {
    let filter = filter.replace('#', "%23").replace('+', "%2B");
    let answer = request(http, "GET", &format!("/api/v1/topics?filter={filter}"), "").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let kept: Vec<Kept<'_>> = serde_json::from_str(&answer.body)?;
    let pairs = kept
        .into_iter()
        .map(|kept| (kept.topic, kept.payload.get().to_owned()));
    Ok(pairs.collect())
}
