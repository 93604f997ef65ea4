//! Who is told the figures each second, as server-sent events.
//!
//! What is told is made once for all of them, and each is given the latest when it is ready for more: nothing waits in
//! a queue, so a slow reader misses seconds, and one that takes nothing for [`PATIENCE`] is cut off.
//! Must not know: what is told, or sockets.
//!
//! ```text
//! tell ── each second ──► latest ──► body of each ──► hyper ──► browser
//!   └── looks who has taken nothing for too long ──► ends that connection's task
//! ```
//!
//! Cancellation: a [`Seat`] lies with its connection and is given up with it, wherever that ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use http_body_util::StreamBody;
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::visitors::Visitors;

/// Pages that may look on at once.
const MOST: usize = 8;
/// Whoever has taken nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that lasts as long as somebody looks on.
pub(crate) type Events = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// Everybody who looks on.
pub(crate) struct Streams {
    places: Arc<Mutex<Vec<Place>>>,
    /// What was told last; empty before anything was.
    latest: watch::Sender<Bytes>,
    /// It is over for all.
    over: watch::Sender<bool>,
    /// Each seat has a receiver, so that it is seen when the last has gone.
    seated: watch::Sender<()>,
}

/// Where somebody sits.
struct Place {
    /// The connection.
    visit: u64,
    /// When it was last ready for more.
    ready: Instant,
}

/// A place, until it is dropped.
pub(crate) struct Seat {
    places: Arc<Mutex<Vec<Place>>>,
    visit: u64,
    _seated: watch::Receiver<()>,
}

impl Default for Streams {
    fn default() -> Self {
        let (latest, over, seated) =
            (watch::Sender::new(Bytes::new()), watch::Sender::new(false), watch::Sender::new(()));
        Self { places: Arc::default(), latest, over, seated }
    }
}

impl Streams {
    /// A place for a connection; `None` where all are taken, it has one already, or it is over.
    pub(crate) fn sit(&self, visit: u64) -> Option<Seat> {
        let mut places = self.places.lock();
        let refused = places.len() >= MOST || places.iter().any(|place| place.visit == visit);
        if refused || *self.over.borrow() {
            return None;
        }
        places.push(Place { visit, ready: Instant::now() });
        Some(Seat { places: Arc::clone(&self.places), visit, _seated: self.seated.subscribe() })
    }

    /// What a seat's connection is told: `first`, then what is told to all, `until` then, when it ends as a body should.
    pub(crate) fn events(&self, seat: &Seat, first: Bytes, until: Instant) -> Events {
        let told = Told {
            first: Some(first),
            latest: self.latest.subscribe(),
            over: self.over.subscribe(),
            places: Arc::clone(&seat.places),
            visit: seat.visit,
            until,
        };
        StreamBody::new(Box::pin(unfold(told, Told::next)))
    }

    /// Whether anybody looks on.
    pub(crate) fn is_watched(&self) -> bool {
        !self.places.lock().is_empty()
    }

    /// Tells all, and cuts off who does not listen.
    pub(crate) fn tell(&self, event: Bytes, visitors: &Visitors) {
        let now = Instant::now();
        let deaf: Vec<u64> = {
            let places = self.places.lock();
            places
                .iter()
                .filter(|place| now.duration_since(place.ready) > PATIENCE)
                .map(|place| place.visit)
                .collect()
        };
        for visit in deaf {
            tracing::info!("a page that looks on has read nothing for {PATIENCE:?}: cut off");
            visitors.end(visit);
        }
        self.latest.send_replace(event);
    }

    /// Ends all of them as bodies should end, and waits until they have gone, for `limit` at most.
    pub(crate) async fn end(&self, limit: Duration) {
        self.over.send_replace(true);
        let _who_reads_nothing_is_cut_off = timeout(limit, self.seated.closed()).await;
    }
}

/// What one of them is still to be told.
struct Told {
    first: Option<Bytes>,
    latest: watch::Receiver<Bytes>,
    over: watch::Receiver<bool>,
    places: Arc<Mutex<Vec<Place>>>,
    visit: u64,
    until: Instant,
}

impl Told {
    /// The next event. It is asked for only when there is room for it on the way to the reader.
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Infallible>, Self)> {
        if let Some(place) = self.places.lock().iter_mut().find(|place| place.visit == self.visit) {
            place.ready = Instant::now();
        }
        if let Some(first) = self.first.take() {
            return Some((Ok(Frame::data(first)), self));
        }
        tokio::select! {
            told = self.latest.changed() => told.ok()?,
            _ = self.over.wait_for(|over| *over) => return None,
            () = sleep_until(self.until) => return None,
        }
        let event = self.latest.borrow_and_update().clone();
        Some((Ok(Frame::data(event)), self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.lock().retain(|place| place.visit != self.visit);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(100)
    }

    async fn next(events: &mut Events) -> Option<Bytes> {
        events.next().await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_given_the_latest_and_who_is_slow_misses_what_was_between() {
        let (streams, visitors) = (Streams::default(), Visitors::default());
        let seat = streams.sit(1).unwrap();
        let mut events = streams.events(&seat, Bytes::from_static(b"0"), later());
        assert_eq!(next(&mut events).await.unwrap(), "0");
        for told in ["1", "2", "3"] {
            streams.tell(Bytes::from_static(told.as_bytes()), &visitors);
        }
        assert_eq!(next(&mut events).await.unwrap(), "3");
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(next(&mut events).await, None, "its time is over");
        drop(seat);
        assert!(!streams.is_watched());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_places_and_one_is_free_when_a_connection_has_ended() {
        let streams = Streams::default();
        let mut seats: Vec<_> = (0..MOST as u64).map(|visit| streams.sit(visit).unwrap()).collect();
        assert!(streams.sit(99).is_none());
        seats.pop();
        assert!(streams.sit(0).is_none(), "a connection has one at most");
        assert!(streams.sit(99).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_too_long_is_cut_off_and_who_does_is_not() {
        let (streams, visitors) = (Streams::default(), Arc::<Visitors>::default());
        let visits = [visitors.enter(), visitors.enter()];
        let tasks = [(); 2].map(|()| tokio::spawn(std::future::pending::<()>()));
        for (visit, task) in visits.iter().zip(&tasks) {
            visitors.note(visit.number(), task.abort_handle());
        }
        let [good, deaf] = visits.each_ref().map(|visit| streams.sit(visit.number()).unwrap());
        let mut events = streams.events(&good, Bytes::from_static(b"0"), later());
        let _untaken = streams.events(&deaf, Bytes::from_static(b"0"), later());
        for _ in 0..6 {
            assert!(!tasks[1].is_finished());
            let _event = next(&mut events).await;
            tokio::time::advance(Duration::from_secs(1)).await;
            streams.tell(Bytes::from_static(b"1"), &visitors);
        }
        let [good_task, deaf_task] = tasks;
        assert!(deaf_task.await.unwrap_err().is_cancelled());
        assert!(!good_task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_bodies_end_and_nobody_new_is_told() {
        let streams = Streams::default();
        let seat = streams.sit(1).unwrap();
        let mut events = streams.events(&seat, Bytes::from_static(b"0"), later());
        assert!(next(&mut events).await.is_some());
        let reader = async {
            assert_eq!(next(&mut events).await, None);
            drop(seat);
        };
        tokio::join!(streams.end(Duration::from_secs(50)), reader);
        assert!(streams.sit(2).is_none());
        let started = Instant::now();
        streams.end(Duration::from_secs(50)).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nobody is waited for who is not there");
    }
}
