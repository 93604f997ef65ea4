//! The fetches in flight, by key.
//!
//! The first to ask for a key becomes its [`Owner`], everyone after it a [`Guest`] until the owner's
//! seat is dropped. The table is sharded and its locks are never held over an await.
//!
//! Cancellation: a guest that is dropped just leaves. An owner that is dropped without publishing
//! (its task panicked or was aborted) frees the key, and its guests learn that they were
//! [`Abandoned`].

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// What a flight is about: a key's hash, and a lane that keeps apart those who may not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlightKey {
    /// Hash of the cache key.
    pub key: u128,
    /// Tells apart variants, and requests with credentials from those without.
    pub lane: u64,
}

/// The fetches in flight.
#[derive(Debug)]
pub struct Flights<T> {
    shards: Box<[Shard<T>]>,
    hasher: RandomState,
}

/// Ordered by key first, so that all lanes of a key stand together.
type Shard<T> = Mutex<BTreeMap<FlightKey, Flying<T>>>;

/// A fetch in flight, as those see it who find it.
#[derive(Debug)]
struct Flying<T> {
    news: watch::Receiver<Option<T>>,
    visits: Arc<AtomicU64>,
}

impl<T> Flying<T> {
    fn visit(&self) -> Guest<T> {
        self.visits.fetch_add(1, Ordering::Relaxed);
        Guest(self.news.clone())
    }
}

/// The place that asking for a key gave.
#[derive(Debug)]
pub enum Seat<T> {
    /// Nobody was fetching it: fetch it.
    Owner(Owner<T>),
    /// Somebody is: wait for what they publish.
    Guest(Guest<T>),
}

/// The right, and the duty, to fetch.
#[derive(Debug)]
pub struct Owner<T> {
    flights: Arc<Flights<T>>,
    key: FlightKey,
    publish: watch::Sender<Option<T>>,
    visits: Arc<AtomicU64>,
    /// The table has somebody else's seat for the key by now, or none.
    has_left: bool,
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Guest<T>(watch::Receiver<Option<T>>);

/// The owner went away without publishing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

const SHARDS: usize = 64;

impl<T: Clone> Flights<T> {
    /// An empty table. Its size is bounded by the fetches that the upstream pools admit.
    pub fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::new(BTreeMap::new())).collect();
        Arc::new(Self { shards, hasher: RandomState::new() })
    }

    /// Takes a seat for `key`.
    pub fn join(self: &Arc<Self>, key: FlightKey) -> Seat<T> {
        let Some(shard) = self.shard(key.key) else { return self.lone(key) };
        let mut shard = shard.lock();
        if let Some(flying) = shard.get(&key) {
            return Seat::Guest(flying.visit());
        }
        let (publish, news) = watch::channel(None);
        let visits = Arc::<AtomicU64>::default();
        shard.insert(key, Flying { news, visits: Arc::clone(&visits) });
        Seat::Owner(Owner { flights: Arc::clone(self), key, publish, visits, has_left: false })
    }

    /// Takes the owner's seat for `key` if it is free; for refreshes that nobody waits for.
    pub fn join_if_free(self: &Arc<Self>, key: FlightKey) -> Option<Owner<T>> {
        match self.join(key) {
            Seat::Owner(owner) => Some(owner),
            Seat::Guest(_) => None,
        }
    }

    /// A place on a flight that is under way; none where nobody is fetching it.
    pub fn visit(&self, key: FlightKey) -> Option<Guest<T>> {
        let shard = self.shard(key.key)?.lock();
        shard.get(&key).map(Flying::visit)
    }

    /// What has been published there by now, for who does not take a place.
    pub fn told(&self, key: FlightKey) -> Option<T> {
        let shard = self.shard(key.key)?.lock();
        shard.get(&key).and_then(|flying| flying.news.borrow().clone())
    }

    /// Whether a fetch for the key is in flight, in whatever lane.
    ///
    /// If there is none, then every fetch for it that ever began is over, with all that its task did
    /// before it gave up its seat; and one that begins after this call began sees what was done before
    /// the call: the shard's lock, which seats are taken and given up under, orders them.
    pub fn any(&self, key: u128) -> bool {
        let lanes = FlightKey { key, lane: 0 }..=FlightKey { key, lane: u64::MAX };
        self.shard(key).is_some_and(|shard| shard.lock().range(lanes).next().is_some())
    }

    /// Fetches in flight.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A seat outside the table. The table always has its shards, so this is never used; it stands
    /// here so that a mistake in the arithmetic would cost sharing, not the request.
    fn lone(self: &Arc<Self>, key: FlightKey) -> Seat<T> {
        let (publish, _) = watch::channel(None);
        let (visits, has_left) = (Arc::default(), true);
        Seat::Owner(Owner { flights: Arc::clone(self), key, publish, visits, has_left })
    }
}

impl<T> Flights<T> {
    /// One shard holds all lanes of a key.
    fn shard(&self, key: u128) -> Option<&Shard<T>> {
        let at = usize::try_from(self.hasher.hash_one(key) % (SHARDS as u64)).unwrap_or(0);
        self.shards.get(at)
    }
}

impl<T> Owner<T> {
    /// Tells everyone who waits, and everyone who joins while this seat is held.
    pub fn publish(&self, value: T) {
        self.publish.send_replace(Some(value));
    }

    /// How many have found this seat taken so far.
    pub fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }

    /// How many wait.
    pub fn guests(&self) -> usize {
        // One receiver stands in the table.
        self.publish.receiver_count().saturating_sub(1)
    }
}

impl<T> Owner<T> {
    /// Gives the seat up before the fetch is over, which can serve nobody who comes later. Those who wait are told
    /// what was published.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.has_left, true)
            && let Some(shard) = self.flights.shard(self.key.key)
        {
            shard.lock().remove(&self.key);
        }
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T> Guest<T> {
    /// Whether the owner has published by now: then there is nothing to wait for.
    pub fn is_told(&self) -> bool {
        self.0.borrow().is_some()
    }
}

impl<T: Clone> Guest<T> {
    /// Waits for what the owner publishes. Dropping the future leaves the flight.
    pub async fn wait(mut self) -> Result<T, Abandoned> {
        match self.0.wait_for(Option::is_some).await {
            Ok(value) => value.clone().ok_or(Abandoned),
            Err(_) => Err(Abandoned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FlightKey = FlightKey { key: 7, lane: 0 };

    fn owner(flights: &Arc<Flights<u32>>, key: FlightKey) -> Owner<u32> {
        match flights.join(key) {
            Seat::Owner(owner) => owner,
            Seat::Guest(_) => panic!("the key should be free"),
        }
    }

    fn guest(flights: &Arc<Flights<u32>>, key: FlightKey) -> Guest<u32> {
        match flights.join(key) {
            Seat::Guest(guest) => guest,
            Seat::Owner(_) => panic!("the key should be taken"),
        }
    }

    #[tokio::test]
    async fn a_visitor_never_becomes_the_owner() {
        let flights = Flights::new();
        assert!(flights.visit(KEY).is_none());
        let owner = owner(&flights, KEY);
        let visitor = flights.visit(KEY).unwrap();
        assert_eq!(flights.told(KEY), None);
        owner.publish(7);
        assert_eq!((flights.told(KEY), owner.visits()), (Some(7), 1));
        assert_eq!(visitor.wait().await, Ok(7));
        drop(owner);
        assert!(flights.visit(KEY).is_none() && flights.is_empty());
    }

    #[tokio::test]
    async fn an_owner_that_has_left_does_not_take_the_next_ones_seat_with_it() {
        let flights = Flights::new();
        let mut first = owner(&flights, KEY);
        let waiting = guest(&flights, KEY);
        first.publish(1);
        first.leave();
        let _second = owner(&flights, KEY);
        drop(first);
        assert_eq!(waiting.wait().await, Ok(1));
        assert!(flights.join_if_free(KEY).is_none(), "the second one's");
    }

    #[tokio::test]
    async fn guests_before_and_after_the_publication_get_it() {
        let flights = Flights::new();
        let owner = owner(&flights, KEY);
        let before = guest(&flights, KEY);
        assert_eq!(owner.guests(), 1);
        assert!(!before.is_told());
        owner.publish(42);
        assert_eq!(owner.visits(), 1);
        let after = guest(&flights, KEY);
        assert!(after.is_told());
        assert!(flights.join_if_free(KEY).is_none() && flights.visit(KEY).is_some());
        assert_eq!(owner.visits(), 4, "whoever finds it taken, in whatever way");
        assert_eq!(before.wait().await, Ok(42));
        assert_eq!(after.wait().await, Ok(42));
    }

    #[tokio::test]
    async fn lanes_do_not_share() {
        let flights = Flights::new();
        let _one = owner(&flights, KEY);
        let _other = owner(&flights, FlightKey { key: 7, lane: 1 });
        assert_eq!(flights.len(), 2);
    }

    #[tokio::test]
    async fn a_flight_is_found_by_its_key_whatever_its_lane() {
        let flights = Flights::new();
        assert!(!flights.any(7));
        for lane in [0, 1, u64::MAX] {
            let owner = owner(&flights, FlightKey { key: 7, lane });
            assert!(flights.any(7), "lane {lane}");
            assert!(!flights.any(6) && !flights.any(8), "its neighbours are free");
            drop(owner);
            assert!(!flights.any(7), "over");
        }
    }

    #[tokio::test]
    async fn dropping_the_owner_frees_the_key_and_tells_the_guests() {
        let flights = Flights::new();
        let first = owner(&flights, KEY);
        let waiting = guest(&flights, KEY);
        drop(first);
        assert_eq!(waiting.wait().await, Err(Abandoned));
        assert!(flights.is_empty());
        drop(owner(&flights, KEY));
    }

    #[tokio::test]
    async fn a_guest_that_leaves_disturbs_nobody() {
        let flights = Flights::new();
        let owner = owner(&flights, KEY);
        let staying = guest(&flights, KEY);
        let leaving = Box::pin(guest(&flights, KEY).wait());
        drop(leaving);
        owner.publish(1);
        assert_eq!(staying.wait().await, Ok(1));
        assert!(flights.join_if_free(KEY).is_none());
    }
}
