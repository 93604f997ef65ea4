//! Everything that Larder answers in place of an origin, and with which status.
//!
//! The one place that turns errors into responses. Each has a word that metrics and headers carry,
//! and a sentence that says what to do next: with the figure that a client may go by, not with the name of a
//! setting, which is for the operator's log.
//! Must not know: how it is delivered.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::telemetry::Setting;
use crate::upstream::{BoxError, ForwardError, Refused};
use crate::worker::Asked;

/// Seconds after which another tunnel may be asked for: they last for minutes.
const TUNNELS_AGAIN: u16 = 10;

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
    /// What the operator might change.
    pub setting: Option<Setting>,
}

impl Failure {
    /// A request that Larder does not forward.
    pub fn local(status: StatusCode, cause: &'static str, message: &str) -> Self {
        Self { status, cause, message: message.to_owned(), retry_after: None, close: false, setting: None }
    }

    /// The same, and the connection is closed.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// The same, decided by a setting.
    #[must_use]
    fn by(self, setting: Setting) -> Self {
        Self { setting: Some(setting), ..self }
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
            "no route of this Larder takes {} {} for host {:?}",
            asked.method,
            asked.target.path(),
            asked.authority
        );
        Self::local(StatusCode::NOT_FOUND, "no-route", &message).by(Setting::Route)
    }

    /// RFC 9111 §5.2.1.7: only-if-cached, and nothing stored will do.
    pub fn only_if_cached() -> Self {
        let text = "the request asks for a stored response only, and none will do";
        Self::local(StatusCode::GATEWAY_TIMEOUT, "only-if-cached", text)
    }

    /// The client's content did not come to its end; `max` are the bytes that its route allows.
    pub fn content(error: &BoxError, max: u64) -> Self {
        match error.downcast_ref::<Refused>() {
            Some(Refused::TooSlow) => Self::late_content(),
            Some(Refused::TooLarge) => Self::large_content(max),
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
    pub fn large_content(max: u64) -> Self {
        let text = format!("the request's body is larger than {}", size(max));
        Self::local(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", &text).closing().by(Setting::MaxBody)
    }

    /// The target is longer than any that is taken (RFC 9112 §3: "A server that receives a request-target
    /// longer than any URI it wishes to parse MUST respond with a 414").
    pub fn long_target(max: usize) -> Self {
        let text = format!("the request's target is longer than {max} bytes");
        Self::local(StatusCode::URI_TOO_LONG, "target-too-long", &text).closing().by(Setting::Target)
    }

    /// More header fields than are taken (RFC 6585 §5).
    pub fn many_fields(max: usize) -> Self {
        let (status, cause) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-fields");
        let text = format!("the request has more than {max} header fields");
        Self::local(status, cause, &text).closing().by(Setting::Fields)
    }

    /// The client asks more often than the route allows; after `wait` it may again (RFC 6585 §4).
    pub fn rate_limited(wait: Duration) -> Self {
        // RFC 9110 §10.2.3: whole seconds. Rounded up: who comes then is not refused for a fraction.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many requests; the next one is answered in {seconds} s");
        let retry_after = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        Self { retry_after, ..Self::local(StatusCode::TOO_MANY_REQUESTS, "rate-limit", &message) }
    }

    /// The client has `most` tunnels, as many as it may (RFC 6585 §4). When one of them ends nobody knows.
    pub fn many_tunnels_of_client(most: usize) -> Self {
        let text = format!("your address has {most} upgraded connections open, as many as one may have");
        let failure = Self::local(StatusCode::TOO_MANY_REQUESTS, "too-many-tunnels", &text);
        Self { retry_after: Some(TUNNELS_AGAIN), ..failure }.by(Setting::TunnelsPerAddress)
    }

    /// All together have `most`.
    pub fn many_tunnels(most: usize) -> Self {
        let text = format!("{most} upgraded connections are open here, as many as there may be");
        let failure = Self::local(StatusCode::SERVICE_UNAVAILABLE, "too-many-tunnels", &text);
        Self { retry_after: Some(TUNNELS_AGAIN), ..failure }.by(Setting::MaxTunnels)
    }

    /// A bug of ours.
    pub fn internal() -> Self {
        let text = "Larder failed on this request; its log says where";
        Self::local(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    }

    /// The origin did not answer: 502 if it failed, 504 if it was too slow, 503 if Larder has no
    /// connection to spare, 400 if the client's own body broke, 408 if it was too slow, 413 if larger than `max`.
    pub fn forward(error: &ForwardError, max: u64) -> Self {
        let (status, retry_after) = match error {
            ForwardError::QueueFull { .. } | ForwardError::QueueTimeout { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(1))
            }
            ForwardError::ConnectTimeout { .. }
            | ForwardError::FirstByteTimeout { .. }
            | ForwardError::TotalTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, None),
            ForwardError::RequestBody { .. } => (StatusCode::BAD_REQUEST, None),
            ForwardError::SlowRequestBody { .. } => return Self::late_content(),
            ForwardError::LargeRequestBody { .. } => return Self::large_content(max),
            _ => (StatusCode::BAD_GATEWAY, None),
        };
        // Which upstream and server it was, and what the system said, is in the log: nobody's business outside.
        Self { retry_after, ..Self::local(status, error.as_str(), public_words(error)) }
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

/// Bytes in the largest unit that they are a whole number of.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_a_figure_and_no_name_of_a_setting() {
        for (failure, message, setting) in [
            (Failure::large_content(1 << 20), "the request's body is larger than 1 MiB", Setting::MaxBody),
            (Failure::large_content(3 << 29), "the request's body is larger than 1536 MiB", Setting::MaxBody),
            (Failure::large_content(1000), "the request's body is larger than 1000 bytes", Setting::MaxBody),
            (Failure::large_content(0), "the request's body is larger than 0 bytes", Setting::MaxBody),
            (Failure::long_target(8192), "the request's target is longer than 8192 bytes", Setting::Target),
            (Failure::many_fields(100), "the request has more than 100 header fields", Setting::Fields),
            (
                Failure::many_tunnels(512),
                "512 upgraded connections are open here, as many as there may be",
                Setting::MaxTunnels,
            ),
            (
                Failure::many_tunnels_of_client(128),
                "your address has 128 upgraded connections open, as many as one may have",
                Setting::TunnelsPerAddress,
            ),
        ] {
            assert_eq!((failure.message.as_str(), failure.setting), (message, Some(setting)));
        }
    }
}
