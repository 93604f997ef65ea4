//! The door of a listener: who comes in, who makes room, who is turned away.
//!
//! Knows what is done when places, or descriptors, run out: the connection that has been unused for longest makes
//! room, and only where there is none is a newcomer told to come again.
//! Must not know: what is asked on a connection.
//!
//! Cancellation: all that a connection holds is dropped with its task.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

use super::listen::hear_no_newcomers;
use super::places::Place;
use super::{Thread, connection, introduce};
use crate::rate::Hold;
use crate::telemetry::{Cut, supervise};
use crate::worker::{Shared, Worker};

/// Pause after an accept that failed since there was nothing to make the connection of.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two words in the log about that.
const ACCEPT_WORDS: Duration = Duration::from_secs(10);
/// How long a newcomer may wait for a place, and how often it looks.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(50));
/// How long somebody who is turned away is given to ask, and to hear why not.
const TURNED_AWAY: Duration = Duration::from_secs(1);
/// What a newcomer may say at most before it is turned away, bytes.
const ASKED: usize = 64 * 1024;

/// How long those who have begun to connect have to end it, once nobody new is heard: some round trips in a
/// network. Who comes meanwhile hears nothing, asks again after a second, and is refused then.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// What those are told for whom there is no place.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
Cache-Control: no-store\r\nContent-Type: application/json\r\nContent-Length: 116\r\n\r\n\
{\"error\":\"Service Unavailable\",\"cause\":\"too-many-connections\",\"message\":\"all of limits.connections are being used\"}\n";
/// What those are told whose address has as many connections as it may.
const NO_MORE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
Cache-Control: no-store\r\nContent-Type: application/json\r\nContent-Length: 126\r\n\r\n\
{\"error\":\"Service Unavailable\",\"cause\":\"too-many-connections\",\"message\":\"your address has all of limits.per_address already\"}\n";

/// Where connections come in.
pub(super) struct Door {
    pub listener: TcpListener,
    /// Each must say first whose it is.
    pub introduced: bool,
}

/// Takes connections until Larder does not listen any more, and then those that the kernel has taken
/// for it: the last of them may have been told that they are connected. Whoever came between the last that is
/// taken and the end of the socket would be told so and then be reset, so the kernel hears of nobody new first.
pub(super) async fn listen(thread: Thread, worker: Arc<Worker>, door: Door, busy: watch::Receiver<()>) {
    let stop = thread.stop.clone();
    supervise("listener", || {
        let mut stop = stop.clone();
        accept(&thread, &worker, &door, &busy, async move { stop.deaf().await })
    })
    .await;
    match hear_no_newcomers(&door.listener) {
        Ok(()) => accept(&thread, &worker, &door, &busy, sleep(HANDSHAKES)).await,
        Err(error) => tracing::debug!(%error, "a listener closes without a filter for newcomers"),
    }
    let Door { listener, introduced } = door;
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            Guest::new(&thread, &worker, introduced, &busy).knock(stream, peer);
        }
    }
}

/// Accepts connections until `end`.
async fn accept(
    thread: &Thread,
    worker: &Arc<Worker>,
    door: &Door,
    busy: &watch::Receiver<()>,
    end: impl Future<Output = ()>,
) {
    let mut end = pin!(end);
    let mut words = None;
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = end.as_mut() => return,
        };
        match accepted {
            Ok((stream, peer)) => Guest::new(thread, worker, door.introduced, busy).knock(stream, peer),
            // Gone before it was accepted, which says nothing of the next one.
            Err(error) if is_its_own(&error) => {}
            Err(error) => {
                // With every descriptor taken, the kernel keeps this one in its queue until one is free.
                thread.places.make_room_for_none();
                if words.is_none_or(|told: Instant| told.elapsed() >= ACCEPT_WORDS) {
                    words = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// accept(2) hands over the errors of the connection that it would have returned.
fn is_its_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A connection that has been accepted, and what it holds until it is over.
struct Guest {
    thread: Thread,
    worker: Arc<Worker>,
    introduced: bool,
    /// A stop waits for it.
    _busy: watch::Receiver<()>,
    open: Open,
}

impl Guest {
    fn new(thread: &Thread, worker: &Arc<Worker>, introduced: bool, busy: &watch::Receiver<()>) -> Self {
        thread.accepted.fetch_add(1, Ordering::Relaxed);
        Self {
            thread: thread.clone(),
            worker: Arc::clone(worker),
            introduced,
            _busy: busy.clone(),
            open: Open::count(&worker.shared),
        }
    }

    /// The address is asked about first: who has as many connections as it may has nobody evicted.
    fn knock(self, stream: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        if self.introduced {
            return self.knock_introduced(stream, peer);
        }
        let claim = self.claim(peer).ok();
        let place = claim.as_ref().and_then(|_| self.thread.places.admit(self.worker.index));
        match (claim, place) {
            (Some(claim), Some(place)) => {
                // Large, and moved several times on its way into a task.
                tokio::spawn(Box::pin(self.come_in(stream, peer, claim, place)));
            }
            (claim, _) => self.knock_again(stream, peer, claim),
        }
    }

    /// Whose it is can only be told from its header, which is read in a free place or in the anteroom: who is not
    /// known yet has nobody evicted, unless the anteroom is taken by others who say nothing.
    fn knock_introduced(self, stream: TcpStream, peer: IpAddr) {
        let places = &self.thread.places;
        if let Some(place) = places.admit_free(self.worker.index) {
            tokio::spawn(self.be_introduced(stream, peer, Held::Place(place)));
        } else if let Some(seat) = places.anteroom() {
            tokio::spawn(self.be_introduced(stream, peer, Held::Seat(seat)));
        } else if let Some(place) = places.admit(self.worker.index) {
            tokio::spawn(self.be_introduced(stream, peer, Held::Place(place)));
        } else {
            self.worker.shared.cuts.count(Cut::Refused);
        }
    }

    async fn be_introduced(self, mut stream: TcpStream, peer: IpAddr, held: Held) {
        let client = introduce::client(&self.worker, &mut stream, peer, self.thread.stop.clone());
        let client = match &held {
            Held::Seat(_) => client.await,
            Held::Place(place) => tokio::select! {
                client = client => client,
                () = place.life().asked_to_leave() => {
                    self.worker.shared.cuts.count(Cut::MadeRoom);
                    None
                }
            },
        };
        let Some(client) = client else { return };
        let claim = self.claim(client).ok();
        match (claim, held) {
            (Some(claim), Held::Place(place)) => self.come_in(stream, client, claim, place).await,
            (claim, Held::Seat(seat)) => self.wait(stream, client, claim, seat).await,
            (None, Held::Place(place)) => {
                // It is not to keep a place from others while it waits, or hears why it need not.
                drop(place);
                match self.thread.places.anteroom() {
                    Some(seat) => self.wait(stream, client, None, seat).await,
                    None => self.worker.shared.cuts.count(Cut::RefusedAddress),
                }
            }
        }
    }

    /// Waits for what is wanting, where there is a seat for it.
    fn knock_again(self, stream: TcpStream, client: IpAddr, claim: Option<Admitted>) {
        if let Some(seat) = self.thread.places.anteroom() {
            tokio::spawn(self.wait(stream, client, claim, seat));
        } else {
            // More of them than are waited with: not worth a descriptor.
            self.worker.shared.cuts.count(refusal(claim.as_ref()));
        }
    }

    /// A place may be about to be free, and so may a claim: a client that closes one connection and opens another is
    /// faster than we are in seeing that the first has ended.
    async fn wait(
        self,
        stream: TcpStream,
        client: IpAddr,
        mut claim: Option<Admitted>,
        seat: OwnedSemaphorePermit,
    ) {
        let until = Instant::now() + WAIT.0;
        loop {
            claim = claim.or_else(|| self.claim(client).ok());
            let place = claim.as_ref().and_then(|_| self.thread.places.admit(self.worker.index));
            claim = match (claim, place) {
                (Some(claim), Some(place)) => {
                    drop(seat);
                    return self.come_in(stream, client, claim, place).await;
                }
                (claim, _) => claim,
            };
            if Instant::now() >= until {
                break;
            }
            sleep(WAIT.1).await;
        }
        self.worker.shared.cuts.count(refusal(claim.as_ref()));
        let why = if claim.is_some() { NO_PLACE } else { NO_MORE };
        // Others of its address are not to wait for what it will not use.
        drop(claim);
        turn_away(stream, why).await;
        drop(seat);
    }

    async fn come_in(self, stream: TcpStream, client: IpAddr, claim: Admitted, place: Place) {
        let Self { thread, worker, _busy, open, .. } = self;
        let life = Arc::clone(place.life());
        connection::serve(worker, stream, client, thread.stop, life, (place, claim, open)).await;
    }

    /// A trusted proxy has everybody's connections, and no limit but that of all.
    fn claim(&self, client: IpAddr) -> Result<Admitted, NoMore> {
        let snapshot = self.worker.shared.snapshot.load();
        if snapshot.config.trusts(client) {
            return Ok(None);
        }
        let limits = &snapshot.config.limits;
        let most = self.thread.places.per_address(limits.per_address, limits.connections);
        self.thread.places.claim(client, most).map(Some).ok_or(NoMore)
    }
}

/// An address may have one more connection; `None` where it is not counted.
type Admitted = Option<Hold>;

/// An address has as many connections as it may.
struct NoMore;

/// What a connection holds while it is not known whose it is.
enum Held {
    Place(Place),
    Seat(OwnedSemaphorePermit),
}

/// Why somebody is not let in who has this claim, or none.
fn refusal(claim: Option<&Admitted>) -> Cut {
    if claim.is_some() { Cut::Refused } else { Cut::RefusedAddress }
}

/// Says why not, once something was asked, and listens until it was heard.
async fn turn_away(mut stream: TcpStream, why: &[u8]) {
    let mut asked = [0; 512];
    let Ok(Ok(1..)) = timeout(TURNED_AWAY, stream.read(&mut asked)).await else { return };
    // A client of HTTP/2 could not read it, and sees the end all the same.
    if asked.starts_with(b"PRI ") || stream.write_all(why).await.is_err() || stream.shutdown().await.is_err()
    {
        return;
    }
    let listen = async {
        let mut heard = 0;
        while let Ok(bytes @ 1..) = stream.read(&mut asked).await {
            heard += bytes;
            if heard > ASKED {
                return;
            }
        }
    };
    let _heard_or_not = timeout(TURNED_AWAY, listen).await;
}

/// An open connection, counted for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_those_are_told_who_are_turned_away_is_as_long_as_it_says() {
        for why in [NO_PLACE, NO_MORE] {
            let (head, body) = std::str::from_utf8(why).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["cause"], "too-many-connections");
        }
    }

    #[tokio::test]
    async fn who_is_turned_away_hears_why_if_it_asks_in_a_language_that_knows_how() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        for (says, hears) in
            [("GET / HTTP/1.1\r\n\r\n", NO_PLACE), ("PRI * HTTP/2.0\r\n\r\n", &b""[..]), ("", b"")]
        {
            let mut client = TcpStream::connect(to).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            client.write_all(says.as_bytes()).await.unwrap();
            let away = tokio::spawn(turn_away(stream, NO_PLACE));
            let mut heard = Vec::new();
            // Closed on what was not read, the connection may end in a reset.
            let _end = client.read_to_end(&mut heard).await;
            assert_eq!(heard, hears, "{says}");
            drop(client);
            timeout(Duration::from_secs(10), away).await.unwrap().unwrap();
        }
    }
}
