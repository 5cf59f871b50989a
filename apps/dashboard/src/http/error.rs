//! Errors as answers: a status, and `{"error":{"code":…,"message":…}}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use latchbus_bus::{PublishRefused, SignInRefused, SubscribeRefused};
use latchbus_core::topic::TopicError;
use latchbus_core::wire::ErrorCode;
use latchbus_ws::{Refusal, sign_in};

/// Why a request has no better answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// What it says to people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
            headers: Vec::new(),
        }
    }

    /// To who is not let in, whose request had this head.
    pub(super) fn signed_out(refused: &SignInRefused, asked: &HeaderMap) -> Self {
        let (status, headers) = sign_in::challenge(refused, asked);
        let code = match status {
            StatusCode::UNAUTHORIZED => ErrorCode::Unauthorized.as_str(),
            StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited.as_str(),
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => ErrorCode::NotAllowed.as_str(),
        };
        Self {
            headers,
            ..Self::new(status, code, refused)
        }
    }

    /// The same in other words.
    pub(super) fn with_message(self, message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            ..self
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    pub(super) fn method() -> Self {
        let message = "this address does not know this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "bad_method", message)
    }

    pub(super) fn bad_message(message: impl ToString) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::BadMessage.as_str(),
            message,
        )
    }

    pub(super) fn invalid_topic(error: TopicError) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::InvalidTopic.as_str(),
            error,
        )
    }

    pub(super) fn invalid_filter(error: TopicError) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::InvalidFilter.as_str(),
            error,
        )
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the payload is larger than {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooLarge.as_str(),
            message,
        )
    }

    fn refused(code: ErrorCode, message: impl ToString) -> Self {
        let status = match code {
            ErrorCode::BadMessage | ErrorCode::InvalidTopic | ErrorCode::InvalidFilter => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::NotAllowed => StatusCode::FORBIDDEN,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            // Not 429: to come back later helps nobody as long as the values that fill the table stay.
            ErrorCode::Full => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, code.as_str(), message)
    }

    pub(super) fn unavailable(message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            ErrorCode::NotAllowed.as_str(),
            refusal,
        )
    }
}

impl From<PublishRefused> for ApiError {
    fn from(refused: PublishRefused) -> Self {
        if refused == PublishRefused::Closed {
            return Self::unavailable(refused);
        }
        if matches!(refused, PublishRefused::Raced(_)) {
            return Self::new(StatusCode::PRECONDITION_FAILED, "raced", refused);
        }
        let mut error = Self::refused(refused.code(), &refused);
        if let PublishRefused::RateLimited { retry_after, .. } = refused {
            let seconds = retry_after.as_secs().saturating_add(1);
            error.headers.push((RETRY_AFTER, seconds.into()));
        }
        error
    }
}

impl From<SubscribeRefused> for ApiError {
    fn from(refused: SubscribeRefused) -> Self {
        match refused.code() {
            // Unlike values, subscriptions go by themselves.
            ErrorCode::Full => Self::unavailable(refused),
            code => Self::refused(code, refused),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, format!("{body}\n")).into_response();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
