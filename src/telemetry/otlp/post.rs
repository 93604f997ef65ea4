//! One batch to a collector: a POST on a connection of its own.
//!
//! Knows which answers mean that it may be sent again (OTLP §"Failures"), and the bounds of everything that a collector
//! may do.
//! Must not know: what is sent, or what becomes of it here.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::json;

/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;
/// Bytes of the head of an answer.
const HEAD: usize = 16 * 1024;
/// Spans are sent as this.
const TYPE: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION")));

/// Where spans are sent, and with what.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path of the signal, such as `/v1/traces`.
    pub path: String,
    /// Fields of each request, such as a key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one attempt, from the connection to the end of the answer.
    pub timeout: Duration,
}

/// Why a batch was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It may be sent again, after such a pause where the collector asks for one.
    ForNow(String, Option<Duration>),
    /// It would be refused again.
    Ever(String),
}

impl Collector {
    /// Sends a batch; how many spans of it the collector has not taken.
    pub(super) async fn post(&self, batch: Bytes) -> Result<u64, Refused> {
        match timeout(self.timeout, self.exchange(batch)).await {
            Ok(Ok((status, pause, answer))) => judged(status, pause, &answer),
            Ok(Err(error)) => Err(Refused::ForNow(error.to_string(), None)),
            Err(_) => Err(Refused::ForNow(format!("no answer within {:?}", self.timeout), None)),
        }
    }

    async fn exchange(&self, batch: Bytes) -> io::Result<(StatusCode, Option<Duration>, Bytes)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD);
        let (mut send, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Nothing drives it between two batches: it does not outlive this one.
        let _driven = Driven(tokio::spawn(async move { drop(connection.await) }));
        let request = self.request(batch).map_err(io::Error::other)?;
        let response = send.send_request(request).await.map_err(io::Error::other)?;
        let (status, pause) = (response.status(), pause(response.headers()));
        // What it says of an error is nobody's to read.
        if !status.is_success() {
            return Ok((status, pause, Bytes::new()));
        }
        let answer = Limited::new(response.into_body(), ANSWER).collect().await.map_err(io::Error::other)?;
        Ok((status, pause, answer.to_bytes()))
    }

    fn request(&self, batch: Bytes) -> http::Result<Request<Full<Bytes>>> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.path.as_str())
            .header(header::HOST, format!("{host}:{}", self.port))
            .header(header::USER_AGENT, AGENT)
            .header(header::CONNECTION, "close");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.header(header::CONTENT_TYPE, TYPE).body(Full::new(batch))
    }
}

/// A task that ends with whoever has begun it.
struct Driven(tokio::task::JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn judged(status: StatusCode, pause: Option<Duration>, answer: &[u8]) -> Result<u64, Refused> {
    let said = || format!("it answers {status}");
    match status.as_u16() {
        200..=299 => Ok(json::rejected(answer)),
        429 | 502..=504 => Err(Refused::ForNow(said(), pause)),
        _ => Err(Refused::Ever(said())),
    }
}

/// `Retry-After` in seconds.
fn pause(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_sent_again_is_told_by_the_status() {
        let second = Some(Duration::from_secs(1));
        let rows = [(200, "ok"), (202, "ok"), (429, "later"), (502, "later"), (503, "later"), (504, "later")];
        let rows = rows.into_iter().chain([
            (400, "never"),
            (401, "never"),
            (413, "never"),
            (500, "never"),
            (302, "never"),
        ]);
        for (status, expected) in rows {
            let found = match judged(StatusCode::from_u16(status).unwrap(), second, b"") {
                Ok(0) => "ok",
                Ok(_) => "not all",
                Err(Refused::ForNow(_, pause)) if pause == second => "later",
                Err(Refused::ForNow(..)) => "later, in no time",
                Err(Refused::Ever(_)) => "never",
            };
            assert_eq!(found, expected, "{status}");
        }
        assert_eq!(judged(StatusCode::OK, None, br#"{"partialSuccess":{"rejectedSpans":"2"}}"#), Ok(2));
    }
}
