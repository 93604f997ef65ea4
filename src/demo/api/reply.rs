//! The sample API's responses: JSON with its length.
//!
//! Knows how a value and a refusal are written.
//! Must not know: what they are about.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

/// A response of this API.
pub(super) type Reply = Response<Full<Bytes>>;

/// A value as JSON.
pub(super) fn value(status: StatusCode, value: &impl Serialize) -> Reply {
    // Only maps with keys that are no strings fail to serialize, and we have none.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `{"error": "…"}`
pub(super) fn error(status: StatusCode, text: &str) -> Reply {
    value(status, &json!({ "error": text }))
}

/// `404 Not Found`
pub(super) fn not_found(what: &str) -> Reply {
    error(StatusCode::NOT_FOUND, &format!("no such {what}"))
}

/// `405 Method Not Allowed` with the methods that are.
pub(super) fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, &format!("the methods here are {allow}"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}
