//! The short way: a plain request that memory answers is answered where it is read, before hyper has seen it.
//!
//! By the same rules as any other request: what it asks for is read by [`receive`], what is stored is judged by
//! [`Worker::reuse`] and [`StoredResponse::uncut`], and its end is told as every other. What is spared is hyper,
//! its maps of fields, and all that a request may have to wait for. Where any of it finds more to do than to give
//! out what is stored, nothing has been done, and the request goes the long way.
//! Must not know: sockets, connections, or what becomes of what it writes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::{Mono, Timestamp};
use crate::fields::date::Written;
use crate::fields::hop;
use crate::fields::present::Present;
use crate::fill::outbound::Alike;
use crate::rules::Reuse;
use crate::store::Resource;
use crate::stored::{CacheKey, StoredResponse};
use crate::telemetry::{Bypass, End, Outcome, Phase, Source, Tier, Timeline};
use crate::wire::Plain;
use crate::worker::{Asked, Snapshot, Worker};

use super::head::{self, Hit};
use super::receive::{self, Named, Taken, Unsaid};
use super::report::{self, Answer, Told};
use super::transform;

/// Contents up to so many bytes are copied behind their head: to hand two pieces to the system takes longer.
const COPIED: usize = 16 * 1024;

static NOTHING: Bytes = Bytes::new();

/// Heads that a thread remembers having read.
const REMEMBERED: usize = 128;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What has become of a plain request.
pub enum AtOnce {
    /// It is answered.
    Answered(Short),
    /// It has been read, and cannot be answered at once.
    Read(Box<Arrival>),
}

/// What is not copied of an answer.
#[derive(Debug)]
pub struct Short {
    /// What comes after what was written.
    pub rest: Bytes,
    /// The connection ends with it.
    pub closes: bool,
}

/// A plain request that has been read, and waits to be answered: see [`super::handle_plain`].
pub struct Arrival {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) taken: Taken,
    /// When it was read.
    pub(super) start: Mono,
    /// Why it does not use the cache.
    pub(super) bypass: Option<Bypass>,
    pub(super) key: CacheKey,
    /// What memory held under it, if it was looked at.
    pub(super) seen: Option<Seen>,
    /// What others that are like it have been passed on with.
    pub(super) alike: Alike,
    /// The client ends its connection with it.
    closes: bool,
}

/// What memory was found to hold.
pub(super) type Seen = Option<Resource>;

impl Arrival {
    /// Whether the client ends its connection with it.
    pub const fn closes(&self) -> bool {
        self.closes
    }

    /// For bugs to order.
    #[cfg(test)]
    pub fn path(&self) -> &str {
        self.taken.asked.target.path()
    }
}

/// Which ways a plain request may go.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// It may be answered at once.
    pub at_once: bool,
    /// The connection can be ended with that answer.
    pub may_close: bool,
    /// It may be read here, and answered as soon as that can be done.
    pub later: bool,
}

/// Reads a request, and answers it if it is one that memory can answer and there is nothing else to do. The head, and
/// what of the content is worth copying, is appended to `out`.
///
/// Never waits. Where it does not answer it has had no effect, but that moka has been asked once: so is who answers later,
/// by what was found; `None` where the request has to be read by others, where moka remembers it of what is stored alone.
pub fn answer(
    worker: &Arc<Worker>,
    peer: IpAddr,
    plain: &Plain<'_>,
    ways: Ways,
    out: &mut Vec<u8>,
) -> Option<AtOnce> {
    #[cfg(test)]
    crate::telemetry::failpoint::at("short", std::str::from_utf8(plain.target()).unwrap_or_default());
    let snapshot = worker.shared.snapshot.load();
    let config = &snapshot.config;
    // A connection that has to be told to end is told by the long way; and so is one that is looked at again.
    let at_once =
        ways.at_once && !worker.shared.draining.load(Ordering::Relaxed) && config.cache.verify.is_none();
    if !at_once && !ways.later {
        return None;
    }
    if plain.size() > config.limits.head_size || plain.target().len() > config.limits.target {
        return None;
    }
    let target = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(plain.target())).ok()?;
    KNOWN.with_borrow_mut(|known| {
        let Known { heads, date } = known;
        let mut own = None;
        let (now, start) = worker.moment();
        let read = Read::of(heads, &mut own, worker, &snapshot, peer, plain, (target, now))?;
        let closes = read.closes;
        let at_once = at_once && read.at_once && (!closes || ways.may_close);
        let later = ways.later && read.later;
        if !at_once && !later {
            return None;
        }
        let unsaid = Unsaid { upgrades: false, credential: read.named.credential, body: false };
        let bypass = receive::bypass(&read.asked, &snapshot, read.route, &unsaid);
        if bypass.is_some() && !later {
            return None;
        }
        let key = receive::key_of(&read.asked, snapshot.cache(read.route).map(|cache| &cache.key));
        let mut seen = None;
        if at_once && bypass.is_none() && read.may_be_answered(worker, &snapshot) {
            // Who answers later has looked then, and does not look again. Who does not leaves no trace of what is not
            // there: it is looked for again.
            let memory = &worker.shared.memory;
            let found = if later { memory.peek(&key) } else { memory.again(&key) };
            let answered =
                found.as_ref().and_then(|found| read.answer(worker, &snapshot, found, start, date, out));
            if let Some(rest) = answered {
                return Some(AtOnce::Answered(Short { rest, closes }));
            }
            seen = Some(found);
        }
        if !later {
            return None;
        }
        let Read { asked, route, named, wants_key, alike, .. } = read;
        let (asked, named, alike) = (Arc::new(asked.clone()), named.clone(), alike.clone());
        let taken = Taken { fault: None, asked, route: Some(*route), named, wants_key: *wants_key };
        let snapshot = Arc::clone(&snapshot);
        Some(AtOnce::Read(Box::new(Arrival { snapshot, taken, start, bypass, key, seen, alike, closes })))
    })
}

/// What a thread knows.
#[derive(Default)]
struct Known {
    heads: Vec<Option<Read>>,
    date: Written,
}

/// A head that has been read: what its fields say, whatever its target. Clients say the same of most of what they ask
/// for.
struct Read {
    /// Under which configuration. Held weakly: one that is out of force is not kept for the sake of this.
    snapshot: Weak<Snapshot>,
    peer: IpAddr,
    lines: Box<[u8]>,
    /// Of the last request that said so.
    asked: Asked,
    route: usize,
    named: Named,
    /// See [`Taken::wants_key`].
    wants_key: bool,
    alike: Alike,
    /// What is stored may be all that there is to be done for it.
    at_once: bool,
    /// Nothing is wanted of hyper.
    later: bool,
    closes: bool,
}

impl Read {
    /// What a request says, if it says nothing that this way does not know: remembered or read, and then remembered in
    /// `heads` if it is nobody's secret.
    fn of<'a>(
        heads: &'a mut Vec<Option<Self>>,
        own: &'a mut Option<Self>,
        worker: &Worker,
        snapshot: &Arc<Snapshot>,
        peer: IpAddr,
        plain: &Plain<'_>,
        (target, now): (PathAndQuery, Timestamp),
    ) -> Option<&'a mut Self> {
        if heads.is_empty() {
            heads.resize_with(REMEMBERED, || None);
        }
        let at = usize::try_from(xxh3_64(plain.lines())).unwrap_or(usize::MAX) % REMEMBERED;
        let place = heads.get_mut(at)?;
        if let Some(read) = place
            && read.is(snapshot, peer, plain)
            && snapshot.config.route(
                &read.asked.method,
                receive::host_of(&read.asked.authority),
                target.path(),
            ) == Some(read.route)
        {
            read.asked.target = target;
            read.asked.at = now;
            read.asked.ids.take();
            return place.as_mut();
        }
        let read = Self::anew(worker, snapshot, peer, plain, target)?;
        let present = read.asked.facts.present;
        match present.has(Present::AUTHORIZATION) || present.has(Present::COOKIE) || read.named.credential {
            true => Some(own.insert(read)),
            false => Some(place.insert(read)),
        }
    }

    fn is(&self, snapshot: &Arc<Snapshot>, peer: IpAddr, plain: &Plain<'_>) -> bool {
        // As long as a weak reference is there, nothing else is at this address.
        self.snapshot.as_ptr() == Arc::as_ptr(snapshot) && self.peer == peer && *self.lines == *plain.lines()
    }

    fn anew(
        worker: &Worker,
        snapshot: &Arc<Snapshot>,
        peer: IpAddr,
        plain: &Plain<'_>,
        target: PathAndQuery,
    ) -> Option<Self> {
        // Counted as hyper does, before any of them is dropped or joined.
        let headers = fields(plain).filter(|headers| headers.len() <= snapshot.config.limits.fields)?;
        // Where its message ends is not disputed by anything, and nobody has to be told to go on, or to change over.
        let others = [header::TRANSFER_ENCODING, header::UPGRADE];
        if others.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let closes = match headers.contains_key(header::CONNECTION) {
            true => closes(&headers)?,
            false => false,
        };
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.uri, parts.headers, parts.version) = (Uri::from(target), headers, Version::HTTP_11);
        let present = Present::of(&parts.headers);
        if present.has(Present::CONTENT_LENGTH) {
            return None;
        }
        // Whoever takes trailers is sent them by hyper.
        let later = !present.has(Present::TE);
        let Taken { fault, asked, route, named, wants_key } =
            receive::take(worker, snapshot, parts, peer, None);
        let more = named.switches || asked.facts.present.has(Present::EXPECT);
        if more || receive::refused(worker, snapshot, fault, &asked).is_some() {
            return None;
        }
        let (at, route) = (route?, snapshot.route(route?)?);
        let at_once = !wants_key
            && !asked.facts.has_precondition()
            && head::is_plain(route)
            && route.rate_limits.is_empty()
            && route.compress.is_none();
        if !at_once && !later {
            return None;
        }
        Some(Self {
            snapshot: Arc::downgrade(snapshot),
            peer,
            lines: plain.lines().into(),
            asked: Arc::unwrap_or_clone(asked),
            route: at,
            named,
            wants_key,
            alike: Alike::default(),
            at_once,
            later,
            closes,
        })
    }

    /// Whether what is stored for it is stored under its key: under which one it is where a `No-Vary-Search` is known is
    /// a matter of its own.
    fn may_be_answered(&self, worker: &Worker, snapshot: &Snapshot) -> bool {
        snapshot.cache(self.route).is_some_and(|cache| !cache.no_vary_search || !worker.shared.searches.any())
    }

    /// Answers by what memory holds.
    fn answer(
        &self,
        worker: &Arc<Worker>,
        snapshot: &Snapshot,
        resource: &Resource,
        start: Mono,
        date: &mut Written,
        out: &mut Vec<u8>,
    ) -> Option<Bytes> {
        let (asked, route, shared) = (&self.asked, self.route, &worker.shared);
        let cache = snapshot.cache(route)?;
        let stored = resource.select(&asked.headers, cache.policy.normalize)?;
        if !is_given_as_it_is(asked, stored) || shared.purges.is_purged(stored) {
            return None;
        }
        let Reuse::Fresh(reusable) = worker.reuse(stored, &asked.facts, &cache.policy, (asked.at, start))
        else {
            return None;
        };
        let (not_modified, body) = match stored.uncut(&asked.facts, &asked.headers)? {
            None => (true, &NOTHING),
            Some(bytes) => (false, bytes),
        };
        // From here on it is answered.
        let outcome = Outcome { ttl: Some(reusable.ttl()), ..Outcome::new(Source::Hit(Tier::Memory)) };
        shared.memory.looked();
        shared.hot.hit(shared.memory.answered(), stored.key.hash());
        let took = worker.mono().since(start);
        let mut timeline = Timeline::new(start);
        timeline.add(Phase::Memory, took);
        let (age, timeline, outcome) = (reusable.age(), &mut timeline, &outcome);
        out.reserve(head::USUAL.saturating_add(if body.len() > COPIED { 0 } else { body.len() }));
        let hit = Hit { stored, age, not_modified, closes: self.closes, outcome, timeline, took };
        hit.write(out, &snapshot.config, shared.via.as_ref(), date.at(asked.at));
        timeline.add(Phase::Body, std::time::Duration::ZERO);
        let answer = match report::tells_heads(worker) {
            true => Answer::Stored(Arc::clone(stored), age),
            false => Answer::Untold,
        };
        let status = if not_modified { 304 } else { stored.status.as_u16() };
        let bytes = body.len() as u64;
        let (end, cause, route) = (End::Complete, None, Some(route));
        snapshot.shard(worker).begin();
        let (total, answer) = (took, &answer);
        // Nothing holds on to it, so nobody asks later what it is called.
        let sole = true;
        Told {
            worker,
            snapshot,
            asked,
            route,
            timeline,
            outcome,
            cause,
            status,
            bytes,
            end,
            total,
            answer,
            sole,
        }
        .tell();
        if body.len() > COPIED {
            return Some(body.clone());
        }
        out.extend_from_slice(body);
        Some(Bytes::new())
    }
}

/// Whether nothing has to be added to what is stored, left out of it or made of it, for this client.
fn is_given_as_it_is(asked: &Asked, stored: &StoredResponse) -> bool {
    stored.is_bare() && stored.says_length() && transform::is_as_stored(&asked.headers, stored)
}

/// Its fields in a map; `None` where one of them is not plain.
fn fields(plain: &Plain<'_>) -> Option<HeaderMap> {
    let fields = plain.fields()?;
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

/// Whether the client ends its connection with this request; `None` where it says anything else by `Connection` than
/// whether it does (RFC 9112 §9.6).
fn closes(headers: &HeaderMap) -> Option<bool> {
    let options = hop::connection_options(headers);
    let (close, rest): (Vec<_>, Vec<_>) = options.iter().partition(|option| option.as_str() == "close");
    rest.iter().all(|option| option.as_str() == "keep-alive").then_some(!close.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::store::Class;
    use crate::stored::Born;
    use crate::stored::samples::{fields as map, key, stored};
    use crate::worker::Worker;

    const HOUR: (&str, &str) = ("cache-control", "max-age=60");
    const LENGTH: (&str, &str) = ("content-length", "4");

    async fn holding(cache: &str, route: &str) -> Arc<Worker> {
        let mut worker = crate::worker::tests::worker(cache, route).await;
        // The samples have come just before.
        let (clock, _) = Clock::stepped(Timestamp::from_secs(1_010));
        Arc::get_mut(&mut worker.shared).unwrap().clock = clock;
        for (path, fields) in [
            ("/a", &[HOUR, LENGTH][..]),
            ("/stale", &[("cache-control", "max-age=5"), LENGTH]),
            ("/long", &[HOUR]),
            ("/tagged", &[HOUR, LENGTH, ("cache-tag", "x")]),
        ] {
            let response = stored(&key(path), &[], fields, b"body", Born::Here(0));
            assert!(worker.shared.memory.keep(response, Class::Plain, &worker.shared.purges));
        }
        Arc::new(worker)
    }

    fn asked(worker: &Arc<Worker>, path: &str, fields: &str, may_close: bool) -> Option<(String, bool)> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let (plain, mut out) = (Plain::of(head.as_bytes())?, Vec::new());
        let ways = Ways { at_once: true, may_close, later: false };
        let Some(AtOnce::Answered(short)) = answer(worker, [127, 0, 0, 1].into(), &plain, ways, &mut out)
        else {
            assert!(out.is_empty(), "{path} {fields}");
            return None;
        };
        Some((String::from_utf8(out).unwrap(), short.closes))
    }

    #[tokio::test]
    async fn what_memory_can_answer_is_answered_and_nothing_else() {
        let worker = holding("", "").await;
        let rows: &[(&str, &str, bool)] = &[
            ("/a", "", true),
            ("/a", "Accept: */*\r\nX-Request-Id: 1\r\n", true),
            ("/a", "Connection: keep-alive\r\n", true),
            ("/a", "Cookie: a=b\r\n", true),
            ("/b", "", false),
            ("/stale", "", false),
            ("/long", "", false),
            ("/tagged", "", false),
            ("/x/../a", "", false),
            ("/a", "Cache-Control: no-cache\r\n", false),
            ("/a", "Cache-Control: no-store\r\n", false),
            ("/a", "If-Match: \"x\"\r\n", false),
            ("/a", "Range: bytes=0-1\r\n", false),
            ("/a", "Authorization: x\r\n", false),
            ("/a", "X-Api-Key: x\r\n", false),
            ("/a", "Expect: 100-continue\r\n", false),
            ("/a", "Content-Length: 0\r\n", false),
            ("/a", "Transfer-Encoding: chunked\r\n", false),
            ("/a", "Upgrade: h2c\r\n", false),
            ("/a", "Connection: Upgrade\r\nUpgrade: x\r\n", false),
            ("/a", "Connection: close\r\n", false),
            ("/a", "Larder-Debug: key\r\n", false),
            ("/a", "Host: test\r\n", false),
            ("/a", "Bad Name: x\r\n", false),
        ];
        // Twice, for what is remembered.
        for (path, fields, is_answered) in rows.iter().chain(rows) {
            let answered = asked(&worker, path, fields, false);
            assert_eq!(answered.is_some(), *is_answered, "{path} {fields}");
            assert!(answered.is_none_or(|(text, closes)| text.ends_with("\r\n\r\nbody") && !closes));
        }
        let (text, closes) = asked(&worker, "/a", "Connection: close\r\n", true).unwrap();
        assert!(closes && text.contains("\r\nconnection: close\r\n"), "{text}");
    }

    #[tokio::test]
    async fn what_is_not_answered_has_no_effect_and_what_is_has_that_of_a_hit() {
        let worker = holding("", "").await;
        let counts = || {
            let memory = worker.shared.memory.gauges();
            let stats = worker.shared.snapshot.load().metrics.stats(&crate::telemetry::Gauges::default());
            (memory.lookups, memory.hits, stats["all"]["requests"].as_u64().unwrap())
        };
        for path in ["/b", "/stale", "/long"] {
            assert!(asked(&worker, path, "", false).is_none());
        }
        assert_eq!(counts(), (0, 0, 0));
        assert!(asked(&worker, "/a", "", false).is_some());
        assert_eq!(counts(), (1, 1, 1));
    }

    #[tokio::test]
    async fn a_stopping_larder_answers_nothing_here_since_it_has_to_say_so() {
        let worker = holding("", "").await;
        assert!(asked(&worker, "/a", "", false).is_some());
        worker.shared.draining.store(true, Ordering::Relaxed);
        assert!(asked(&worker, "/a", "", false).is_none());
    }

    #[tokio::test]
    async fn nobody_is_remembered_by_what_they_keep_secret() {
        let worker = holding("", "authorization = \"share\"\ncookies = \"ignore\"").await;
        let remembered = |text: &str| {
            KNOWN.with_borrow(|known| {
                let heads = known.heads.iter().flatten();
                heads.filter(|read| String::from_utf8_lossy(&read.lines).contains(text)).count()
            })
        };
        for secret in ["Authorization: s3cret", "Cookie: a=s3cret", "X-Api-Key: s3cret"] {
            asked(&worker, "/a", &format!("{secret}\r\n"), false);
        }
        assert_eq!(remembered("s3cret"), 0);
        asked(&worker, "/a", "X-Plain: word\r\n", false);
        assert_eq!(remembered("word"), 1);
    }

    #[tokio::test]
    async fn what_is_remembered_is_of_one_configuration_alone() {
        let (open, closed) = (holding("", "").await, holding("", "cookies = \"bypass\"").await);
        let fields = "Cookie-Like: x\r\n";
        assert!(asked(&open, "/a", fields, false).is_some());
        let other = Arc::new(crate::worker::tests::worker("", "").await);
        assert!(asked(&other, "/a", fields, false).is_none(), "its memory is empty");
        assert!(asked(&closed, "/a", "Cookie: a=b\r\n", false).is_none());
        assert!(asked(&open, "/a", "Cookie: a=b\r\n", false).is_some());
    }

    #[test]
    fn a_connection_ends_where_its_client_says_so_and_other_words_are_for_others() {
        for (said, ends) in [
            ("keep-alive", Some(false)),
            ("close", Some(true)),
            ("Keep-Alive, Close", Some(true)),
            ("upgrade", None),
            ("close, x-own", None),
        ] {
            assert_eq!(closes(&map(&[("connection", said)])), ends, "{said}");
        }
    }
}
