//! What a browser shows when a request is refused: the name, and the setting that allows it.

use core::fmt::Write as _;

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use latchbus_ws::Refusal;

use super::error::ApiError;

/// 403: a page for a browser that wants to show one, otherwise JSON.
pub(super) fn refused(refusal: &Refusal, headers: &HeaderMap, hint: Option<&str>) -> Response {
    let wants_page = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let mut response = if wants_page {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let content_type = (CONTENT_TYPE, html);
        (StatusCode::FORBIDDEN, [content_type], page(refusal, hint)).into_response()
    } else {
        ApiError::from(refusal.clone()).into_response()
    };
    refusal.explain(&mut response);
    response
}

fn page(refusal: &Refusal, hint: Option<&str>) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Latchbus: refused</title>\n\
         <h1>Latchbus refuses this request</h1>\n",
    );
    let mut paragraph = |text: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(page, "<p>{text}</p>");
    };
    match refusal {
        Refusal::Host { host } | Refusal::Replaced { host } => {
            paragraph(&format!("It came for the host <b>{}</b>.", escaped(host)))
        }
        Refusal::Origin { origin, .. } => paragraph(&format!(
            "It came from a page of <b>{}</b>.",
            escaped(origin)
        )),
        Refusal::NoHost | Refusal::CrossSite => {}
    }
    paragraph(&escaped(&format!("{refusal}.")));
    if let Some((setting, value)) = refusal.setting() {
        let flag = setting.replace('_', "-");
        let value = escaped(value);
        paragraph(&format!(
            "If this is meant, start Latchbus with <code>--{flag} {value}</code>, or put \
             <code>{setting} = [\"{value}\"]</code> into its settings file."
        ));
    }
    if let Some(hint) = hint {
        paragraph(&escaped(hint));
    }
    paragraph("Proxies are the subject of <code>docs/deploy.md</code>.");
    page
}

/// Text within HTML. Long names are cut: the page says what was sent, not all of it.
pub(super) fn escaped(text: &str) -> String {
    const MAX_CHARS: usize = 1_000;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars().take(MAX_CHARS) {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let refusal = Refusal::Origin {
            origin: "http://<script>alert('x')</script>\"&".to_owned(),
            host: "a".to_owned(),
        };
        let page = page(&refusal, Some("<i>"));
        assert!(
            !page.contains("<script>") && !page.contains("<i>"),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }
}
