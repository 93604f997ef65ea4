//! Who a connection is from, where its listener has that told by a header of the PROXY protocol.
//!
//! Knows how the header is taken off a socket, byte for byte, who may send one, and for how long it is
//! waited for.
//! Must not know: what a header looks like, or what is asked on the connection.
//!
//! Cancellation: dropping a future of this file drops the socket with it; nothing else was begun.

use std::io;
use std::net::IpAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::telemetry::HeaderRefused;
use crate::worker::Worker;

use super::proxy_protocol::{self, Parsed};
use super::stop::Stop;

/// Bytes that are looked at together: most headers whole.
const WINDOW: usize = 256;

/// The client whom the header at the beginning of `stream` names; `peer` where it names nobody. `None`
/// where there is no good header in time: the connection is to be closed, unanswered, since nobody
/// knows whose it is.
pub(super) async fn client(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: IpAddr,
    mut stop: Stop,
) -> Option<IpAddr> {
    let snapshot = worker.shared.snapshot.load_full();
    let config = &snapshot.config;
    // Where some are trusted, another that could name itself as one of them would be believed in all
    // that it says of its way. Where nobody is, a name is only a name.
    if !config.trusted_proxies.is_empty() && !config.trusts(peer) {
        worker.shared.proxy_headers.refused(HeaderRefused::Untrusted, peer, worker.mono());
        return None;
    }
    let read = tokio::select! {
        read = timeout(config.limits.header_time, header(stream)) => read,
        () = stop.nothing_came() => return None,
    };
    match read.unwrap_or(Err(HeaderRefused::Late)) {
        Ok(named) => Some(named.unwrap_or(peer)),
        Err(why) => {
            worker.shared.proxy_headers.refused(why, peer, worker.mono());
            None
        }
    }
}

/// Takes the header off the stream, and not one byte of what follows: that is looked at, not taken, by
/// whoever tells HTTP/1 from HTTP/2.
async fn header(stream: &mut TcpStream) -> Result<Option<IpAddr>, HeaderRefused> {
    let left = |_: io::Error| HeaderRefused::Truncated;
    let mut held = Vec::with_capacity(proxy_protocol::V1_MOST);
    let mut window = [0; WINDOW];
    loop {
        let seen = stream.peek(&mut window).await.map_err(left)?;
        if seen == 0 {
            return Err(HeaderRefused::Truncated);
        }
        let before = held.len();
        held.extend_from_slice(window.get(..seen).unwrap_or_default());
        // Bounded: a beginning that is longer than any header is refused.
        let (ours, done) = match proxy_protocol::parse(&held)? {
            Parsed::Partial => (seen, None),
            Parsed::Header { length, client } => (length.saturating_sub(before), Some(client)),
        };
        // What has been seen is there to be taken.
        let taken = window.get_mut(..ours).ok_or(HeaderRefused::Malformed)?;
        stream.read_exact(taken).await.map_err(left)?;
        if let Some(client) = done {
            return Ok(client);
        }
    }
}
