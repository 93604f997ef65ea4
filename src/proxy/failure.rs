//! Everything that Larder answers in place of an origin, and with which status.
//!
//! The one place that turns errors into responses. Each has a word that metrics and headers carry,
//! and a sentence that says what to do next.
//! Must not know: how it is delivered.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::upstream::{BoxError, ForwardError, Refused};
use crate::worker::Asked;

/// An answer of Larder's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub status: StatusCode,
    /// Its word.
    pub cause: &'static str,
    /// Its sentence.
    pub message: String,
    /// Seconds after which it makes sense to try again.
    pub retry_after: Option<u16>,
    /// Nothing more is read from the client's connection.
    pub close: bool,
}

impl Failure {
    /// A request that Larder does not forward.
    pub fn local(status: StatusCode, cause: &'static str, message: &str) -> Self {
        Self { status, cause, message: message.to_owned(), retry_after: None, close: false }
    }

    /// The same, and the connection is closed.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// The answer to an OPTIONS that goes no further (RFC 9110 §9.3.7, §7.6.2): no failure at all.
    pub fn options() -> Self {
        Self::local(StatusCode::NO_CONTENT, "options", "")
    }

    /// The answer to a PURGE that was obeyed: no failure at all.
    pub fn purged(message: &str) -> Self {
        Self::local(StatusCode::OK, "purge", message)
    }

    /// No `[[route]]` takes the request.
    pub fn no_route(asked: &Asked) -> Self {
        let message = format!(
            "no route of this Larder takes {} {} for host {:?}; add a [[route]] to its proxy.toml",
            asked.method,
            asked.target.path(),
            asked.authority
        );
        Self { status: StatusCode::NOT_FOUND, cause: "no-route", message, retry_after: None, close: false }
    }

    /// RFC 9111 §5.2.1.7: only-if-cached, and nothing stored will do.
    pub fn only_if_cached() -> Self {
        let text = "the request asks for a stored response only, and none will do";
        Self::local(StatusCode::GATEWAY_TIMEOUT, "only-if-cached", text)
    }

    /// The client's content did not come to its end.
    pub fn content(error: &BoxError) -> Self {
        match error.downcast_ref::<Refused>() {
            Some(Refused::TooSlow) => Self::late_content(),
            Some(Refused::TooLarge) => Self::large_content(),
            None => Self::broken_content(),
        }
    }

    /// The client's content broke off.
    pub fn broken_content() -> Self {
        Self::local(StatusCode::BAD_REQUEST, "request-body", "the request's body broke off")
    }

    /// The client's content did not come in time (RFC 9110 §15.5.9).
    pub fn late_content() -> Self {
        let text = "the request's body came too slowly";
        Self::local(StatusCode::REQUEST_TIMEOUT, "request-timeout", text).closing()
    }

    /// The client's content is larger than its route allows (RFC 9110 §15.5.14).
    pub fn large_content() -> Self {
        let text = "the request's body is larger than this route allows; its max_body says how large";
        Self::local(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", text).closing()
    }

    /// The target is longer than any that is taken (RFC 9112 §3: "A server that receives a request-target
    /// longer than any URI it wishes to parse MUST respond with a 414").
    pub fn long_target() -> Self {
        let text = "the request's target is longer than limits.target allows";
        Self::local(StatusCode::URI_TOO_LONG, "target-too-long", text).closing()
    }

    /// More header fields than are taken (RFC 6585 §5).
    pub fn many_fields() -> Self {
        let text = "the request has more header fields than limits.fields allows";
        Self::local(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-fields", text).closing()
    }

    /// The client asks more often than the route allows; after `wait` it may again (RFC 6585 §4).
    pub fn rate_limited(wait: Duration) -> Self {
        // RFC 9110 §10.2.3: whole seconds. Rounded up: who comes then is not refused for a fraction.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many requests; the next one is answered in {seconds} s");
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            cause: "rate-limit",
            message,
            retry_after: Some(u16::try_from(seconds).unwrap_or(u16::MAX)),
            close: false,
        }
    }

    /// A bug of ours.
    pub fn internal() -> Self {
        let text = "Larder failed on this request; its log says where";
        Self::local(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    }

    /// The origin did not answer: 502 if it failed, 504 if it was too slow, 503 if Larder has no
    /// connection to spare, 400 if the client's own body broke, 408 if it was too slow, 413 if too large.
    pub fn forward(error: &ForwardError) -> Self {
        let (status, retry_after) = match error {
            ForwardError::QueueFull { .. } | ForwardError::QueueTimeout { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(1))
            }
            ForwardError::ConnectTimeout { .. }
            | ForwardError::FirstByteTimeout { .. }
            | ForwardError::TotalTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, None),
            ForwardError::RequestBody { .. } => (StatusCode::BAD_REQUEST, None),
            ForwardError::SlowRequestBody { .. } => return Self::late_content(),
            ForwardError::LargeRequestBody { .. } => return Self::large_content(),
            _ => (StatusCode::BAD_GATEWAY, None),
        };
        // Which server it was, and what the system said, is in the log: it is nobody's business outside.
        let message = format!("{} (upstream {:?})", public_words(error), error.place().upstream);
        Self { status, cause: error.as_str(), message, retry_after, close: false }
    }

    /// The body that clients get.
    pub fn json(&self) -> String {
        if self.status == StatusCode::NO_CONTENT {
            return String::new();
        }
        if self.status.is_success() {
            let mut text = json!({ "status": "ok", "message": self.message }).to_string();
            text.push('\n');
            return text;
        }
        let reason = self.status.canonical_reason().unwrap_or("error");
        let mut text = json!({ "error": reason, "cause": self.cause, "message": self.message }).to_string();
        text.push('\n');
        text
    }
}

fn public_words(error: &ForwardError) -> &'static str {
    match error {
        ForwardError::Connect { .. } => "no server could be connected to",
        ForwardError::ConnectTimeout { .. } => "no server accepted a connection in time",
        ForwardError::QueueFull { .. } => "all connections are in use, and too many requests wait for one",
        ForwardError::QueueTimeout { .. } => "all connections are in use",
        ForwardError::FirstByteTimeout { .. } => "the server did not begin to answer in time",
        ForwardError::TotalTimeout { .. } => "the server did not answer in time",
        ForwardError::Reset { .. } => "the server closed the connection without an answer",
        ForwardError::Protocol { .. } => "the server did not answer in HTTP that makes sense",
        ForwardError::RequestBody { .. } => "the request's body broke off",
        ForwardError::SlowRequestBody { .. } => "the request's body came too slowly",
        ForwardError::LargeRequestBody { .. } => "the request's body is too large",
    }
}
