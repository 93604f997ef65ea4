//! A connection that has left HTTP: bytes both ways, until one side is done or nothing moves any more.
//!
//! Knows how many there may be, when a tunnel ends, and that it is still a client's connection: its place is held, and a drain
//! ends it.
//! Must not know: which protocol is spoken, or why the two sides agreed on it.
//!
//! Cancellation: dropping the future of [`run`] closes both sockets.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::exchange::Exchange;
use super::failure::Failure;
use crate::fields::list;
use crate::rate;
use crate::telemetry::{TunnelEnd, Tunnels};
use crate::upstream::{self, ForwardError};

/// A tunnel that is idle is noticed after its limit and at most so many parts of one more: looking so
/// often costs nothing, however much moves.
const PARTS: u32 = 8;

/// A client's connection, which may become a tunnel. What it sends is whether tunnels are to end; most have nobody to send
/// it to.
#[derive(Clone, Default)]
pub struct Host(Arc<OnceLock<watch::Sender<bool>>>);

/// A tunnel's hold on the connection that it was.
#[derive(Clone)]
struct Hold(watch::Receiver<bool>);

impl Host {
    /// Gives a request what it takes to become a tunnel, where it may: hyper has put the other half in.
    pub fn offer<B>(&self, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        if extensions.get::<OnUpgrade>().is_some() {
            extensions.insert(Hold(self.0.get_or_init(Default::default).subscribe()));
        }
    }

    /// Returns when no tunnel is left of the connection, which is over as HTTP; ends what is left at `stop`.
    pub async fn over(self, stop: impl Future<Output = ()>) {
        let Some(tunnels) = self.0.get() else { return };
        tokio::select! {
            () = tunnels.closed() => return,
            () = stop => {}
        }
        tunnels.send_replace(true);
        tunnels.closed().await;
    }
}

/// The right to a tunnel, of its upstream and of its client; held until it has ended.
pub(super) struct Permit {
    _of_upstream: upstream::Tunnel,
    /// A trusted proxy's are everybody's.
    _of_client: Option<rate::Hold>,
}

impl Permit {
    /// Before the origin is asked: it may hold a connection for as long as its answer takes.
    ///
    /// # Errors
    /// There are as many as may be, of the client's or of all.
    pub fn ask(exchange: &Exchange) -> Result<Self, Failure> {
        let Exchange { worker, snapshot, route, asked, .. } = exchange;
        let of_client = match snapshot.config.trusts(asked.client) {
            true => None,
            false => {
                let most = snapshot.config.limits.tunnels_per_address;
                let hold = worker.shared.tunnels_held.take(asked.client, most);
                Some(hold.ok_or_else(|| Failure::many_tunnels_of_client(most))?)
            }
        };
        let Some(upstream) = snapshot.upstream(*route) else {
            return Err(Failure::forward(&ForwardError::nowhere(), exchange.max_body()));
        };
        Ok(Self { _of_upstream: upstream.tunnel().map_err(Failure::many_tunnels)?, _of_client: of_client })
    }
}

/// What a request that asks for an upgrade may become.
pub(super) struct Upgrade {
    near: OnUpgrade,
    hold: Hold,
}

impl Upgrade {
    /// Takes it out of a request.
    pub fn of(extensions: &mut Extensions) -> Option<Self> {
        let (near, hold) = (extensions.remove::<OnUpgrade>(), extensions.remove::<Hold>());
        near.zip(hold).map(|(near, hold)| Self { near, hold })
    }
}

/// Whether an origin switches to what it was asked for. RFC 9110 §7.8: it "MUST NOT switch to a protocol that was not
/// indicated by the client", and says to which: one of which the two sides have different notions would be the way
/// for requests that nobody here has seen.
pub(super) fn is_one_of(wanted: &HeaderValue, said: &HeaderMap) -> bool {
    let mut said = list::all(said, &header::UPGRADE).peekable();
    said.peek().is_some()
        && said.all(|said| list::members(wanted.as_bytes()).any(|wanted| wanted.eq_ignore_ascii_case(said)))
}

/// Copies both ways until both sides have said that they are done, either has gone, nothing has moved for
/// as long as `idle`, or Larder ceases to listen: a drain does not wait for what has no end of its own. Where one
/// side is done sending, the other is told, and may go on.
///
/// It counts as open from the call on: before the client is told that there is one.
pub(super) fn run(
    upgrade: Upgrade,
    far: OnUpgrade,
    idle: Duration,
    tunnels: &Arc<Tunnels>,
    permit: Permit,
) -> impl Future<Output = ()> + use<> {
    let Upgrade { near, hold: Hold(mut stop) } = upgrade;
    let open = tunnels.open();
    async move {
        // What is declared last is dropped first: where it is counted no more, there is room for another.
        let (open, permit) = (open, permit);
        let end = tokio::select! {
            end = join(near, far, idle) => end,
            _ = stop.wait_for(|stop| *stop) => TunnelEnd::Stopped,
        };
        drop(permit);
        open.end(end);
    }
}

async fn join(near: OnUpgrade, far: OnUpgrade, idle: Duration) -> TunnelEnd {
    // Each is handed over when its last byte of HTTP has gone.
    match timeout(idle, async { tokio::join!(near, far) }).await {
        Ok((Ok(near), Ok(far))) => copy(TokioIo::new(near), TokioIo::new(far), idle).await,
        Ok(_) => TunnelEnd::Closed,
        Err(_) => TunnelEnd::Idle,
    }
}

async fn copy<N, F>(near: N, mut far: F, idle: Duration) -> TunnelEnd
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let moved = AtomicBool::new(false);
    // Whatever moves, moves through the near side: is read there, or written.
    let mut near = Watched { io: near, moved: &moved };
    tokio::select! {
        _either_side_may_hang_up = copy_bidirectional(&mut near, &mut far) => TunnelEnd::Closed,
        () = still(&moved, idle) => TunnelEnd::Idle,
    }
}

/// Returns when nothing has moved for as long as `idle`.
async fn still(moved: &AtomicBool, idle: Duration) {
    let part = (idle / PARTS).max(Duration::from_millis(1));
    let mut quiet = 0;
    // The first part may have begun before the last byte.
    while quiet <= PARTS {
        sleep(part).await;
        quiet = if moved.swap(false, Ordering::Relaxed) { 1 } else { quiet + 1 };
    }
}

/// A stream that notes when bytes move.
struct Watched<'a, T> {
    io: T,
    moved: &'a AtomicBool,
}

impl<T> Watched<'_, T> {
    fn note(&self, bytes: usize) {
        if bytes > 0 {
            self.moved.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.note(buf.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.note(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const IDLE: Duration = Duration::from_secs(80);

    /// A tunnel, its client's end and its origin's.
    fn tunnel() -> (JoinHandle<TunnelEnd>, DuplexStream, DuplexStream) {
        let ((client, near), (far, origin)) = (duplex(64), duplex(64));
        (tokio::spawn(copy(near, far, IDLE)), client, origin)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_nothing_moves_ends_after_its_limit() {
        let began = Instant::now();
        let (tunnel, mut client, mut origin) = tunnel();
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Idle);
        assert!((IDLE..=IDLE + IDLE / 4).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert_eq!((client.read(&mut [0]).await.unwrap(), origin.read(&mut [0]).await.unwrap()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_in_either_direction_keeps_it_open() {
        let (tunnel, mut client, mut origin) = tunnel();
        for round in 0..20 {
            let (from, to) =
                if round % 2 == 0 { (&mut client, &mut origin) } else { (&mut origin, &mut client) };
            from.write_all(b"x").await.unwrap();
            assert_eq!(to.read_u8().await.unwrap(), b'x');
            sleep(IDLE - Duration::from_secs(1)).await;
        }
        let last = Instant::now();
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Idle);
        assert!(last.elapsed() <= IDLE / 4, "{:?}", last.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_what_it_is_sent_does_not_keep_it_open() {
        let (tunnel, _client_that_reads_nothing, mut origin) = tunnel();
        let pouring = tokio::spawn(async move { while origin.write_all(&[7; 64]).await.is_ok() {} });
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Idle);
        pouring.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_side_may_be_done_before_the_other() {
        let (tunnel, mut client, mut origin) = tunnel();
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        origin.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        origin.write_all(b"answer").await.unwrap();
        origin.shutdown().await.unwrap();
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        assert_eq!(tunnel.await.unwrap(), TunnelEnd::Closed);
    }
}
