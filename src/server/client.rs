//! The socket of a client.
//!
//! Knows how slowly a client may take what it is sent, and how to part from one that still sends: RFC 9112 §9.6.
//! Must not know: HTTP, but for the one answer that hyper does not give.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::life::Life;
use super::unsent::Unsent;
use crate::pace::{Debt, Pace};
use crate::scratch;
use crate::store::InFlight;
use crate::wire::Frames;

/// How long we listen to a client that was told that we close: it may not have read that yet, and a reset, which
/// a closed socket answers what still comes with, would take it away. For each so many bytes, and in all.
const PARTING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Bytes that a client has been sent at most in all whose close is not waited for: what goes out in one round trip (RFC
/// 6928), so that nobody leaves much to the system that it does not read.
const LITTLE: u64 = 14 * 1024;
/// Bytes for which a client is given more time: whoever sends an upload blindly does not trickle.
const WORTH: usize = 16 * 1024;
/// Bytes that are thrown away at a time.
const AWAY: usize = 4096;

/// Bytes of a head and its body that go to the system in one piece: it takes longer to begin with several than to
/// copy so few.
const FLAT: usize = 16 * 1024;

/// What a client is told whose head did not come in time. hyper would close without a word, and a client whose
/// network is at fault would not know whether its request was taken. RFC 9110 §15.5.9.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nCache-Control: no-store\r\n\
Content-Type: application/json\r\nContent-Length: 121\r\n\r\n\
{\"error\":\"Request Timeout\",\"cause\":\"head-timeout\",\"message\":\"the request's head did not come within limits.header_time\"}\n";

/// A client's socket. `P` is held for as long as it is open, by whomever.
pub(super) struct Client<P> {
    stream: TcpStream,
    /// What has been read of it before, and comes first.
    early: Bytes,
    life: Arc<Life>,
    pace: Pace,
    debt: Debt,
    unsent: Unsent,
    /// It has taken nothing since, though there is something.
    stalled: Option<Instant>,
    /// The heads that come on HTTP/2.
    heads: Option<Heads>,
    /// It has ended its side.
    ended: bool,
    /// We have ended ours, then.
    parting: Option<Instant>,
    /// Bytes that have come since it was given more time.
    thrown_away: usize,
    _place: P,
}

impl<P> Client<P> {
    /// `heads`: it speaks HTTP/2, and each head has so long. `room`: see [`Unsent::new`].
    pub(super) fn new(
        stream: TcpStream,
        early: Bytes,
        life: Arc<Life>,
        pace: Pace,
        heads: Option<Duration>,
        room: InFlight,
        place: P,
    ) -> Self {
        let heads = heads.map(|time| Heads { frames: Frames::default(), time, open: None });
        let (stalled, ended, parting) = (None, false, None);
        let (debt, unsent, thrown_away) = (Debt::default(), Unsent::new(room), 0);
        Self {
            stream,
            early,
            life,
            pace,
            debt,
            unsent,
            stalled,
            heads,
            ended,
            parting,
            thrown_away,
            _place: place,
        }
    }

    /// Writes so many bytes, or some of them.
    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(self.unsent.poll_offer(&self.stream, bytes, cx));
        if taken > 0 {
            self.moved(taken);
        }
        let written = write(Pin::new(&mut self.stream), cx);
        self.unsent.wrote(&self.stream, bytes, &written, cx);
        self.wrote(&written);
        written
    }

    /// The client has taken something, though there is no room for more yet.
    fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.stalled.replace(Instant::now()) {
            self.debt.wait(since.elapsed(), &self.pace);
        }
        self.debt.pay(bytes, &self.pace);
    }

    /// What a write came to. Time is read only where the client has not taken all at once.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => {
                let since = *self.stalled.get_or_insert_with(Instant::now);
                self.life.stall(Some(since + self.debt.left(&self.pace)));
            }
            Poll::Ready(Ok(bytes)) => {
                if let Some(since) = self.stalled.take() {
                    let waited = since.elapsed();
                    self.debt.wait(waited, &self.pace);
                    self.unsent.waited(&self.stream, waited);
                    self.life.stall(None);
                }
                self.debt.pay(*bytes as u64, &self.pace);
                self.life.write(*bytes);
            }
            Poll::Ready(Err(_)) => {}
        }
    }

    /// Whether the socket may be closed at once, as its client has said that it sends nothing more, has been sent little, and
    /// nothing of it is unread: else the system would not end the connection but reset it, and drop what has not gone out.
    fn need_not_be_heard(&self) -> bool {
        let quiet =
            |peeked: io::Result<usize>| peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.life.is_promised()
            && self.life.written() <= LITTLE
            && quiet(SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]))
    }

    /// Throws away what a client still sends until it closes. Whoever drives the connection ends this when
    /// the time that is noted here is over.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begun = *self.parting.get_or_insert_with(Instant::now);
        if self.life.is_quiet() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let came = scratch::with_bytes(AWAY, |room| {
                let mut room = ReadBuf::new(room);
                Pin::new(&mut self.stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            });
            match came {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.thrown_away = self.thrown_away.saturating_add(bytes);
                }
                // Gone, cleanly or not: it has had its time to read.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if self.thrown_away >= WORTH {
                        self.thrown_away = 0;
                        self.life.part((Instant::now() + PARTING.0).min(begun + PARTING.1));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The heads of a connection of HTTP/2: h2 has no limit for the time from a head's first byte to its last.
struct Heads {
    frames: Frames,
    /// `limits.header_time`
    time: Duration,
    /// The one that is on its way.
    open: Option<u64>,
}

impl Heads {
    /// Time is read only where a head does not come at once.
    fn watch(&mut self, bytes: &mut [u8], life: &Life) {
        self.frames.watch(bytes);
        let open = self.frames.head();
        if open != self.open {
            self.open = open;
            life.await_head(open.map(|_| Instant::now() + self.time));
        }
    }
}

impl<P> Drop for Client<P> {
    fn drop(&mut self) {
        // RFC 9112 §8: the end of the connection is the end of an answer whose length nobody has said, so where
        // that is not whole it must end otherwise. And what a client does not take is not kept for it.
        if self.life.is_broken() {
            let _then_it_ends_as_others_do = self.stream.set_zero_linger();
        }
    }
}

impl<P: Unpin> AsyncRead for Client<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.life.is_late() {
            // hyper has nothing to say at this point, nor is anything of it on its way. Where the client does
            // not take it at once, it is not waited for.
            let _best_effort = self.stream.try_write(LATE);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let room = buf.remaining().min(self.early.len());
            buf.put_slice(&self.early.split_to(room));
        }
        match buf.filled().len().saturating_sub(before) {
            0 => self.ended = true,
            bytes => {
                self.life.hear(bytes);
                self.unsent.hear();
                let this = &mut *self;
                if let Some(heads) = &mut this.heads {
                    heads.watch(buf.filled_mut().get_mut(before..).unwrap_or_default(), &this.life);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<P: Unpin> AsyncWrite for Client<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, buf.len(), |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().fold(0_usize, |sum, buf| sum.saturating_add(buf.len()));
        self.poll_out(cx, bytes, |stream, cx| match bytes <= FLAT {
            true => scratch::with(bytes, |mut flat| {
                let mut room = flat.unfilled();
                bufs.iter().for_each(|buf| room.put_slice(buf));
                stream.poll_write(cx, flat.filled())
            }),
            false => stream.poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parting.is_none() {
            // Who has ended its side, of which nothing is unread then, is told by the close of the socket.
            if self.ended || self.need_not_be_heard() {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.life.is_quiet() {
                return Poll::Ready(Ok(()));
            }
            self.life.part(Instant::now() + PARTING.0);
        }
        self.poll_part(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::thread::JoinHandle;

    use socket2::{Domain, SockRef, Socket, Type};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::advance;

    use super::super::listen::set_for_clients;
    use super::super::unsent::{UNSENT, WIDE};
    use super::*;

    const PACE: Pace = Pace { rate: 1000, grace: Duration::from_secs(10) };

    fn connected() -> (StdStream, Client<()>, Arc<Life>) {
        connected_beside(&InFlight::new(u64::MAX))
    }

    /// The same beside others who share `room`.
    fn connected_beside(room: &InFlight) -> (StdStream, Client<()>, Arc<Life>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Most of what it does not read waits on this side.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        let peer = StdStream::from(socket);
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stream, _) = listener.accept().unwrap();
        set_for_clients(SockRef::from(&stream));
        stream.set_nonblocking(true).unwrap();
        let life = Life::new(Instant::now());
        (
            peer,
            Client::new(
                TcpStream::from_std(stream).unwrap(),
                Bytes::new(),
                Arc::clone(&life),
                PACE,
                None,
                room.clone(),
                (),
            ),
            life,
        )
    }

    #[test]
    fn the_answer_to_a_late_head_is_as_long_as_it_says() {
        let text = std::str::from_utf8(LATE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["cause"].is_string());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_seen_to_stall_and_one_that_takes_again_is_not() {
        let (mut peer, mut client, life) = connected();
        let piece = vec![b'x'; 1 << 20];
        // Until neither its kernel nor ours takes any more.
        let mut sent = 0;
        while !life.is_stalled() {
            sent += std::future::poll_fn(|cx| match Pin::new(&mut client).poll_write(cx, &piece) {
                Poll::Ready(written) => Poll::Ready(written.unwrap()),
                Poll::Pending => Poll::Ready(0),
            })
            .await;
        }
        let reader = std::thread::spawn(move || {
            let mut taken = vec![0; sent];
            peer.read_exact(&mut taken).map(|()| peer)
        });
        client.write_all(b"x").await.unwrap();
        assert!(!life.is_stalled());
        drop(reader.join().unwrap().unwrap());
    }

    #[tokio::test]
    async fn what_a_client_still_sends_does_not_take_the_last_word_from_it() {
        let (mut peer, mut client, _) = connected();
        // More than the kernel holds, and not read by us before we close.
        let upload = std::thread::spawn(move || {
            std::io::Write::write_all(&mut peer, &vec![b'x'; 20 << 20]).unwrap();
            let mut word = String::new();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            peer.read_to_string(&mut word).unwrap();
            word
        });
        client.read_u8().await.unwrap();
        client.write_all(b"no").await.unwrap();
        client.shutdown().await.unwrap();
        drop(client);
        assert_eq!(upload.join().unwrap(), "no");
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_has_ended_or_is_owed_nothing() {
        let (peer, mut client, _) = connected();
        drop(peer);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
        let (_peer, mut client, life) = connected();
        life.hush();
        client.shutdown().await.unwrap();
    }

    /// RFC 9112 §9.6.
    #[tokio::test]
    async fn who_has_promised_to_send_nothing_more_is_not_waited_for_unless_it_has_or_was_sent_much() {
        let ends_at_once = async |bytes: usize, more: &[u8]| {
            let (mut peer, mut client, life) = connected();
            client.write_all(&vec![b'x'; bytes]).await.unwrap();
            std::io::Write::write_all(&mut peer, more).unwrap();
            life.promise();
            std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_shutdown(cx).is_ready())).await
        };
        assert!(ends_at_once(1000, b"").await);
        assert!(!ends_at_once(1000, b"\r\n").await, "it would be reset");
        assert!(!ends_at_once(15_000, b"").await);
    }

    const MIB: usize = 1 << 20;

    /// What the system may hold for it beyond what is on its way.
    fn held<P>(client: &Client<P>) -> u32 {
        SockRef::from(&client.stream).tcp_notsent_lowat().unwrap()
    }

    /// Reads to the end, on a thread of its own, and gives how much that was.
    fn read_all(mut peer: StdStream) -> JoinHandle<usize> {
        std::thread::spawn(move || {
            let (mut all, mut piece) = (0, vec![0; 64 * 1024]);
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => break all,
                    read => all += read,
                }
            }
        })
    }

    /// What is taken at once; `None` where nothing is.
    async fn write_once<P: Unpin>(client: &mut Client<P>, piece: &[u8]) -> Option<usize> {
        std::future::poll_fn(|cx| match Pin::new(&mut *client).poll_write(cx, piece) {
            Poll::Ready(written) => Poll::Ready(Some(written.unwrap())),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    // The clock stands still, so whoever reads at all is quick.
    #[tokio::test(start_paused = true)]
    async fn for_who_takes_much_quickly_more_is_held_of_a_large_answer_and_of_others_as_much_as_for_all() {
        let room = InFlight::new(u64::MAX);
        let (peer, mut client, _) = connected_beside(&room);
        let (mut asks, reader) = (peer.try_clone().unwrap(), read_all(peer));
        let large = vec![b'x'; MIB];
        client.write_all(&large[1..]).await.unwrap();
        assert_eq!(held(&client), UNSENT, "nothing was known of it before");
        for _ in 0..2 {
            asks.write_all(b"?").unwrap();
            client.read_u8().await.unwrap();
            let mut left = &large[..];
            while !left.is_empty() {
                match write_once(&mut client, left).await {
                    Some(bytes) => left = &left[bytes..],
                    // Others have their turn, and the clock does not move by itself.
                    None => advance(Duration::ZERO).await,
                }
                assert_eq!(held(&client), WIDE);
            }
        }
        assert!(room.try_reserve(u64::MAX).is_none(), "what is held is counted");
        asks.write_all(b"?").unwrap();
        client.read_u8().await.unwrap();
        client.write_all(b"small").await.unwrap();
        assert_eq!(held(&client), UNSENT);
        assert!(room.try_reserve(u64::MAX).is_some());
        drop((client, asks));
        assert_eq!(reader.join().unwrap(), 3 * MIB - 1 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn for_who_takes_it_slowly_no_more_is_held_however_much_it_takes() {
        let (mut peer, mut client, _) = connected();
        let (large, mut piece) = (vec![b'x'; MIB], vec![0; 64 * 1024]);
        let (mut sent, mut read) = (0, 0);
        while sent < 4 * MIB {
            match write_once(&mut client, &large).await {
                Some(bytes) => sent += bytes,
                None => advance(Duration::from_millis(150)).await,
            }
            if client.stalled.is_some() && read < sent {
                read += peer.read(&mut piece).unwrap();
            }
            assert_eq!(held(&client), UNSENT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_held_for_as_many_as_there_is_room_for() {
        let room = InFlight::new(u64::from(WIDE));
        let large = vec![b'x'; MIB];
        let mut all = Vec::new();
        for _ in 0..2 {
            let (peer, mut client, _) = connected_beside(&room);
            let reader = read_all(peer);
            client.write_all(&large).await.unwrap();
            write_once(&mut client, &large).await;
            all.push((client, reader));
        }
        let held_for: Vec<_> = all.iter().map(|(client, _)| held(client)).collect();
        assert_eq!(held_for, [WIDE, UNSENT]);
        drop(all.remove(0));
        let (client, _) = &mut all[0];
        while held(client) != WIDE {
            client.write_all(&large).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_quick_and_is_slow_is_seen_to_take_as_little_as_others_and_is_quick_no_more() {
        let (mut peer, mut client, life) = connected();
        let (large, mut piece) = (vec![b'x'; 8 * MIB], vec![0; 16 * 1024]);
        // Quick for a while.
        let (mut sent, mut read) = (0, 0);
        while held(&client) != WIDE {
            match write_once(&mut client, &large).await {
                Some(bytes) => sent += bytes,
                // Gives the system its turn to tell, too.
                None => advance(Duration::ZERO).await,
            }
            while read < sent {
                read += peer.read(&mut piece).unwrap();
            }
        }
        // Then it takes nothing, until the system does not either.
        loop {
            match write_once(&mut client, &large).await {
                Some(bytes) => sent += bytes,
                None if client.unsent.is_looked_at() => break,
                None => advance(Duration::from_millis(500)).await,
            }
        }
        assert!(life.is_stalled());
        assert!(sent - read > MIB / 2, "{}", sent - read);
        // It takes a little at a time, and each time its debt is less than before.
        while sent - read > UNSENT as usize * 2 {
            let (since, mut unseen) = (client.stalled, 0);
            while client.stalled == since && unseen < 8 * UNSENT as usize {
                unseen += peer.read(&mut piece).unwrap();
                advance(Duration::from_millis(1)).await;
                sent += write_once(&mut client, &large).await.unwrap_or_default();
            }
            read += unseen;
            // A receiver's window opens in steps of its own.
            assert!(unseen <= 2 * UNSENT as usize, "{unseen} bytes taken unseen");
            if !client.unsent.is_looked_at() {
                break;
            }
        }
        while client.unsent.is_looked_at() {
            read += peer.read(&mut piece).unwrap();
            advance(Duration::from_millis(1)).await;
            sent += write_once(&mut client, &large).await.unwrap_or_default();
        }
        assert_eq!(held(&client), UNSENT);
        drop(client);
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(read + rest.len(), sent);
    }
}
