//! Who may be connected: how many in all, how many from one address, and who makes room for whom.
//!
//! Knows every open connection and since when nothing has been asked on it. When all places are taken, the
//! connection that has been unused for longest gives its own up, so that whoever holds many silent connections
//! keeps nobody out. Taking note of a request costs its connection no lock: the order is made when it is needed.
//! Must not know: sockets, or how a connection ends.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::life::Life;
use crate::config::Config;
use crate::rate::{Hold, Holds};
use crate::store::Seed;

/// Unused connections whose order is kept for those who come next.
const CANDIDATES: usize = 1024;
/// How long nobody is looked for again when nobody was found: looking costs a look at each connection.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Connections that have no place and may wait a moment for it, or for the words that there is none.
const ANTEROOM: usize = 128;
/// Connections that have handed on their place and may still have their socket: as long as there are so many, nobody
/// else makes room.
const LEAVING: usize = 128;
/// Descriptors for what is neither a client's nor an origin's connection: listeners, Redis, logs, the file of
/// a reload.
const OTHER_FILES: usize = 128 + ANTEROOM + LEAVING;

/// The places for connections, of all threads together.
pub(super) struct Places {
    most: usize,
    /// Taken places. Whoever makes room hands its place on, so it is not counted twice.
    taken: AtomicUsize,
    /// Those who have handed theirs on, and whose sockets are not closed yet.
    leaving: AtomicUsize,
    opened: Instant,
    next: AtomicU64,
    /// Every open connection by its number, for each thread.
    open: Vec<Mutex<HashMap<u64, Arc<Life>, Seed>>>,
    unused: Mutex<Unused>,
    addresses: Arc<Holds>,
    /// For those who have no place.
    anteroom: Arc<Semaphore>,
}

/// Those who may make room, the longest unused first.
#[derive(Default)]
struct Unused {
    queue: VecDeque<(u64, Arc<Life>)>,
    /// When nobody was found.
    nobody: Option<Instant>,
}

impl Places {
    /// `most` places; `threads` open connections.
    pub(super) fn new(most: usize, threads: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            opened: Instant::now(),
            next: AtomicU64::new(0),
            open: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
            unused: Mutex::default(),
            addresses: Arc::default(),
            anteroom: Arc::new(Semaphore::new(ANTEROOM)),
        })
    }

    /// A place for a connection that `thread` has accepted, at another's cost where all are taken. `None`
    /// where none of those is unused.
    pub(super) fn admit(self: &Arc<Self>, thread: usize) -> Option<Place> {
        self.admit_free(thread).or_else(|| self.make_room().then(|| self.place(thread)))
    }

    /// The same where that is at nobody's cost.
    pub(super) fn admit_free(self: &Arc<Self>, thread: usize) -> Option<Place> {
        let free = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < self.most).then_some(taken + 1)
        });
        free.is_ok().then(|| self.place(thread))
    }

    /// A place that has been taken already.
    fn place(self: &Arc<Self>, thread: usize) -> Place {
        let life = Life::new(self.opened);
        let (thread, number) = (thread % self.open.len().max(1), self.next.fetch_add(1, Ordering::Relaxed));
        if let Some(open) = self.open.get(thread) {
            open.lock().insert(number, Arc::clone(&life));
        }
        Place { places: Arc::clone(self), thread, number, life }
    }

    /// Has the connection that has been unused for longest end, and keeps its place for the caller, who must
    /// take it. `false` also where many who have been told to are still there: their sockets count.
    fn make_room(&self) -> bool {
        let mut unused = self.unused.lock();
        // They become more under this lock only.
        if self.leaving.load(Ordering::Acquire) >= LEAVING {
            return false;
        }
        loop {
            while let Some((since, life)) = unused.queue.pop_front() {
                // Not where something was asked on it meanwhile.
                // Counted before it is told: it may be gone at once.
                self.leaving.fetch_add(1, Ordering::AcqRel);
                if life.unused_since() == Some(since) && life.make_room() {
                    return true;
                }
                self.leaving.fetch_sub(1, Ordering::AcqRel);
            }
            let now = Instant::now();
            if unused.nobody.is_some_and(|at| now.duration_since(at) < LOOK_AGAIN) {
                return false;
            }
            unused.queue = self.look();
            unused.nobody = unused.queue.is_empty().then_some(now);
        }
    }

    /// The same for a descriptor alone: nobody takes the place.
    pub(super) fn make_room_for_none(&self) {
        if self.make_room() {
            self.taken.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Connections that one address may have, where `limit` was meant for more places than there are.
    pub(super) fn per_address(&self, limit: usize, connections: usize) -> usize {
        if self.most < connections { limit.min(self.most.saturating_mul(3).div_ceil(4)) } else { limit }
    }

    /// Those who have been unused for longest. Who becomes so later is behind all of them.
    fn look(&self) -> VecDeque<(u64, Arc<Life>)> {
        let mut all: Vec<(u64, Arc<Life>)> = Vec::new();
        for open in &self.open {
            let open = open.lock();
            all.extend(open.values().filter_map(|life| Some((life.unused_since()?, Arc::clone(life)))));
        }
        if all.len() > CANDIDATES {
            all.select_nth_unstable_by_key(CANDIDATES, |(since, _)| *since);
            all.truncate(CANDIDATES);
        }
        all.sort_unstable_by_key(|(since, _)| *since);
        all.into()
    }

    /// A seat for one who has no place, and waits for it or hears why. `None` where too many do.
    pub(super) fn anteroom(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.anteroom).try_acquire_owned().ok()
    }

    /// One of at most `most` connections of `client`. `None` where it has as many.
    pub(super) fn claim(&self, client: IpAddr, most: usize) -> Option<Hold> {
        self.addresses.take(client, most)
    }
}

/// How many places there may be with as many descriptors as the process may have: `limits.connections`, or
/// what is left by the origins' connections.
pub(super) fn affordable(config: &Config, files: Option<u64>) -> usize {
    let wanted = config.limits.connections;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let per_server = |upstream: &crate::config::Upstream| {
        upstream.servers.len().saturating_mul(upstream.pool.max_connections)
    };
    let others = config.upstreams.iter().map(per_server).fold(OTHER_FILES, usize::saturating_add);
    // Where origins could take nearly all, each side has half: neither opens all that it may.
    let most = wanted.min(files.saturating_sub(others).max(files / 2)).max(1);
    if most < wanted {
        tracing::warn!(
            files,
            wanted,
            connections = most,
            "the limit of open files is too low for limits.connections; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    most
}

/// A connection's place, until its socket is closed.
pub(super) struct Place {
    places: Arc<Places>,
    thread: usize,
    number: u64,
    life: Arc<Life>,
}

impl Place {
    /// The life of its connection.
    pub(super) fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(open) = self.places.open.get(self.thread) {
            open.lock().remove(&self.number);
        }
        // Its place is its own no more where it was given to another; and cannot be, from now on.
        let count = if self.life.make_room() { &self.places.taken } else { &self.places.leaving };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::life::Running;
    use super::*;

    fn places(most: usize) -> Arc<Places> {
        Places::new(most, 2)
    }

    /// A connection on which something is being asked.
    fn busy(place: &Place) -> Running {
        place.life().begin().1
    }

    fn count(count: &AtomicUsize) -> usize {
        count.load(Ordering::Relaxed)
    }

    async fn later() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_unused_for_longest_makes_room() {
        let places = places(4);
        let mut held = Vec::new();
        for number in 0..4 {
            later().await;
            held.push(places.admit(number).unwrap());
        }
        let asking = busy(&held[0]);
        later().await;
        let newcomer = places.admit(0).unwrap();
        let left: Vec<_> = held.iter().map(|place| place.life().has_made_room()).collect();
        assert_eq!(left, [false, true, false, false]);
        // Its place is the newcomer's: it frees none.
        drop(held.remove(1));
        later().await;
        let _second = places.admit(1).unwrap();
        assert!(held[1].life().has_made_room());
        let _third = places.admit(0).unwrap();
        assert!(held[2].life().has_made_room());
        // Those who came since are next, the first of them first.
        let _fourth = places.admit(0).unwrap();
        assert!(newcomer.life().has_made_room() && !held[0].life().has_made_room());
        drop(asking);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_used_nobody_makes_room_until_one_is_not() {
        let places = places(2);
        let held = [places.admit(0).unwrap(), places.admit(1).unwrap()];
        let _asking = [busy(&held[0]), busy(&held[1])];
        assert!(places.admit(0).is_none());
        let [first, _second] = held;
        drop(first);
        let third = places.admit(0).unwrap();
        assert!(places.admit(0).is_none(), "nobody is looked for again so soon");
        later().await;
        let _fourth = places.admit(0).unwrap();
        assert!(third.life().has_made_room());
    }

    #[tokio::test(start_paused = true)]
    async fn places_come_back() {
        let places = places(3);
        for _ in 0..1000 {
            let held: Vec<_> = (0..7).map(|number| places.admit(number).unwrap()).collect();
            assert_eq!((count(&places.taken), count(&places.leaving)), (3, 4));
            drop(held);
            assert_eq!((count(&places.taken), count(&places.leaving)), (0, 0));
            assert!(places.open.iter().all(|open| open.lock().is_empty()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_up_for_a_descriptor_is_free_again() {
        let places = places(2);
        let held = [places.admit(0).unwrap(), places.admit(1).unwrap()];
        for _ in 0..5 {
            places.make_room_for_none();
            later().await;
        }
        assert!(held.iter().all(|place| place.life().has_made_room()));
        drop(held);
        assert_eq!((count(&places.taken), count(&places.leaving)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_evicted_count_until_their_sockets_are_closed() {
        let places = places(LEAVING * 2);
        let mut held: Vec<_> = (0..LEAVING * 2).map(|number| places.admit(number).unwrap()).collect();
        let newcomers: Vec<_> = (0..LEAVING).map(|number| places.admit(number).unwrap()).collect();
        later().await;
        assert!(places.admit(0).is_none(), "as many as may are still to be closed");
        let evicted = held.iter().position(|place| place.life().has_made_room()).unwrap();
        drop(held.remove(evicted));
        let _next = places.admit(0).unwrap();
        assert!(places.admit(0).is_none());
        drop((held, newcomers));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_makes_no_room() {
        let places = places(1);
        let held = places.admit(0).unwrap();
        held.life().tunnel();
        assert!(places.admit(0).is_none() && !held.life().has_made_room());
    }

    #[test]
    fn an_address_has_no_more_than_its_part_of_what_there_is() {
        let places = places(200);
        assert_eq!(places.per_address(12_288, 16_384), 150, "fewer descriptors than places were asked for");
        assert_eq!(places.per_address(100, 16_384), 100);
        assert_eq!(places.per_address(200, 200), 200, "as the operator said");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_are_kept_in_order_make_room_in_order() {
        let all = CANDIDATES + 200;
        let places = places(all);
        let mut held = Vec::new();
        for number in 0..all {
            tokio::time::advance(Duration::from_millis(1)).await;
            held.push(places.admit(number).unwrap());
        }
        let mut newcomers = Vec::new();
        for (number, place) in held.into_iter().enumerate() {
            tokio::time::advance(Duration::from_millis(1)).await;
            newcomers.push(places.admit(0).unwrap());
            assert!(place.life().has_made_room(), "{number}");
        }
    }

    #[test]
    fn there_are_no_more_places_than_descriptors_for_them() {
        let text = "[upstream.a]\nservers = [\"http://h\"]\n[[route]]\nname = \"r\"\nupstream = \"a\"\nmatch = { path = \"/*\" }";
        let config = Config::parse(text, "test", &|_| None).unwrap();
        let wanted = config.limits.connections;
        assert_eq!(affordable(&config, None), wanted);
        assert_eq!(affordable(&config, Some(1 << 20)), wanted);
        assert_eq!(affordable(&config, Some(4096)), 4096 - 1024 - OTHER_FILES);
        assert_eq!(affordable(&config, Some(256)), 128);
        assert_eq!(affordable(&config, Some(0)), 1);
    }
}
