//! Asks the admin listener of a running Larder.
//!
//! Knows how to reach it and how to show it the token.
//! Must not know: what is asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin::NAMES_ITSELF;
use crate::proxy::CACHE_STATUS;

/// How long the running Larder may take; its own limit is `limits.admin_time`.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of its answer: problems of a whole file, each with its line.
const ANSWER: usize = 16 << 20;

/// What a Larder answers to a POST of this JSON.
pub(super) fn post(
    admin: SocketAddr,
    token: Option<&str>,
    path: &str,
    body: Vec<u8>,
) -> io::Result<(StatusCode, Bytes)> {
    wait_for(exchange(reachable(admin), token, (Method::POST, path), body))
}

/// What a Larder answers to a GET.
pub(super) fn get(admin: SocketAddr, token: Option<&str>, path: &str) -> io::Result<(StatusCode, Bytes)> {
    wait_for(exchange(reachable(admin), token, (Method::GET, path), Vec::new()))
}

fn wait_for(
    asking: impl Future<Output = io::Result<(StatusCode, Bytes)>>,
) -> io::Result<(StatusCode, Bytes)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(PATIENCE, asking).await });
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A listener on all addresses is on this machine's own, too.
fn reachable(mut admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        admin.set_ip(match admin.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    admin
}

/// Asks what listens there who it is before it is shown a token, or told to purge: anything else might take the one,
/// pass on the other, and say that all is well.
async fn exchange(
    admin: SocketAddr,
    token: Option<&str>,
    asked: (Method, &str),
    body: Vec<u8>,
) -> io::Result<(StatusCode, Bytes)> {
    let (told, _) = send(admin, None, (Method::GET, "/livez"), Vec::new()).await?;
    if !is_admin(&told.headers) {
        return Err(io::Error::other(is_another(told.status)));
    }
    let (told, body) = send(admin, token, asked, body).await?;
    Ok((told.status, body))
}

/// Whether an admin listener has said this itself: an origin may say whatever it likes through a public listener, which
/// says by this field what it has done.
fn is_admin(told: &HeaderMap) -> bool {
    told.contains_key(NAMES_ITSELF) && !told.contains_key(CACHE_STATUS)
}

/// What is said of what answers as no Larder's admin listener would.
pub(super) fn is_another(status: StatusCode) -> String {
    format!("what is there answers {status}, and is no admin listener of a Larder")
}

async fn send(
    admin: SocketAddr,
    token: Option<&str>,
    (method, path): (Method, &str),
    body: Vec<u8>,
) -> io::Result<(Parts, Bytes)> {
    let stream = TcpStream::connect(admin).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, admin.to_string())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
    let response = send.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER).collect().await.map_err(io::Error::other)?;
    Ok((head, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_this_machines_own() {
        for (admin, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.7:1", "192.0.2.7:1")]
        {
            assert_eq!(reachable(admin.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
