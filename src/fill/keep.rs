//! Keeps what the origin sent: a new response, or the news that a stored one still holds.
//!
//! Knows the order in which tiers, waiters and body are served.
//! Must not know: why a response may be kept (it holds the permit).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::apart;
use crate::clock::Timestamp;
use crate::fields::content_coding::ContentCoding;
use crate::fields::no_vary_search::NoVarySearch;
use crate::fields::range::{ContentRange, Span};
use crate::fields::{date, hop};
use crate::flight::{Growing, Room, Writer};
use crate::rules::{self, NotStored, RequestFacts, ResponseFacts, SelectingFields, Storable};
use crate::store::{Generation, Kept, Lease, Marked, Reserved, Word};
use crate::stored::{Born, CacheKey, Content, Group, Parts, Received, Standing, StoredResponse, TagPolicy};
use crate::upstream::OriginBody;
use crate::worker::{Fetched, ForOwner, Forms, Landing, Own, OwnerLanding};

use super::judge::{Rest, content_length, facts_of, may_still_keep};
use super::{Answer, Fill, Filling, Want, verify};

/// A 304: both tiers get the stored response with the fields that the 304 brought (§4.3.4).
///
/// It may also have brought a word that forbids keeping it. The owner, whose request was validated,
/// gets it all the same; nobody else does.
pub(super) async fn confirmed(mut filling: Filling, mut answer: Answer) {
    let Some(stale) = filling.fill.stale.take() else { return };
    let News { headers, facts, own, for_all } = news(&filling, &stale, &mut answer);
    // The 304 may have named other fields in Vary.
    let selecting = filling.selecting(&facts);
    // Parts had a Content-Range each as they came.
    let judged = facts.clone().of_part(stale.content.range());
    match may_still_keep(&filling, &filling.fill.asked.facts, &judged, &headers) {
        Ok(permit) => {
            let headers = rules::stored_fields(&headers, &permit);
            let standing = filling.standing(&headers, &facts);
            let fresh = Arc::new(stale.freshened(&headers, facts, selecting, standing));
            filling.confirm_others(&stale, &fresh, &answer);
            // Last, so that it is the most recent.
            filling.promote(&fresh);
            filling.write_and_give_back(&fresh);
            filling.tell_revalidated(fresh, own);
        }
        Err(why) => {
            let standing = filling.standing(&headers, &facts);
            let last = Arc::new(stale.freshened(&headers, facts, selecting, standing));
            filling.withdraw(last, own, why, for_all).await;
        }
    }
}

/// What a 304 makes of what is stored.
struct News {
    headers: HeaderMap,
    facts: ResponseFacts,
    /// For the client alone whose request asked.
    own: HeaderMap,
    /// It speaks of what all get, also where it forbids that: not only of what the client chose for itself.
    for_all: bool,
}

/// Reads a 304; what of it is for the client alone whose request asked is taken out where others would be given
/// it.
fn news(filling: &Filling, stale: &StoredResponse, answer: &mut Answer) -> News {
    let held = stale.headers.to_map();
    let mut own = rules::for_who_asked(&held, answer.response.headers());
    let times = (answer.request_time, answer.response_time);
    let (headers, facts) = merged((stale.status, &held), answer.response.headers(), times);
    let (asked, policy) = (&filling.fill.asked.facts, &filling.cache.policy);
    let brought = rules::storing::brought_for_all(asked, &facts, policy);
    if brought.is_ok() {
        return News { headers, facts, own, for_all: true };
    }
    for (name, value) in rules::keep_to_the_stored(answer.response.headers_mut()) {
        let Some(name) = name else { continue };
        if !own.contains_key(&name) && !held.contains_key(&name) && !hop::is_hop_by_hop(&name) {
            own.append(name, value);
        }
    }
    let (headers, facts) = merged((stale.status, &held), answer.response.headers(), times);
    // Whatever else it brought: a request with a cookie may choose, too.
    let for_all = rules::storing::unvaried(asked, &facts).next().is_none();
    News { headers, facts, own, for_all }
}

/// The fields of a stored response with those that news of it brought (§3.2), and what they say.
fn merged(
    (status, held): (StatusCode, &HeaderMap),
    news: &HeaderMap,
    (request_time, response_time): (Timestamp, Timestamp),
) -> (HeaderMap, ResponseFacts) {
    let mut headers = rules::freshen(held, news);
    ensure_date(&mut headers, response_time);
    let facts = ResponseFacts::of(status.as_u16(), &headers, request_time, response_time);
    (headers, facts)
}

/// A storable response: its head goes to everyone now, its body as it comes, and when it is whole
/// it is kept.
pub(super) async fn storable(filling: Filling, permit: Storable, answer: Answer, facts: ResponseFacts) {
    let Some(reserved) = reserve(&filling, &answer) else {
        filling.want_it();
        return filling.private(answer.response, NotStored::InFlightLimit).await;
    };
    let keeping = match facts.content_range {
        Some(ContentRange { span: Some(span), length: Some(length) }) => Keeping::Part { span, length },
        _ => Keeping::Whole,
    };
    let (parts, body) = answer.response.into_parts();
    let head = Head {
        status: parts.status,
        answered: parts.status,
        headers: passing_fields(&parts.headers, &permit),
        withheld: withheld_fields(&parts.headers, &permit),
        facts,
    };
    deliver(filling, permit, head, keeping, body, Some(reserved)).await;
}

/// What was missing of the stored parts: goes out with what is wanted of them, and is kept with them
/// (RFC 9111 §3.4).
pub(super) async fn completing(filling: Filling, rest: Rest) {
    let Rest { answer, stale, parts, gap, headers, facts, permit } = rest;
    // Without room it goes out all the same, put together, and is not kept: alone it is no answer.
    let reserved = reserve(&filling, &answer);
    let held = |first: u64, end: u64| {
        let span = (first < end).then(|| Span { first, last: end.saturating_sub(1) });
        span.and_then(|span| stale.content.cut(span)).unwrap_or_default()
    };
    let keeping = Keeping::Rest {
        before: held(gap.wanted.first, gap.missing.first),
        after: held(gap.missing.end(), gap.wanted.end()),
        parts,
        missing: gap.missing,
    };
    let mut passing = rules::stored_fields(&headers, &permit);
    ensure_date(&mut passing, answer.response_time);
    passing.insert(header::CONTENT_LENGTH, HeaderValue::from(gap.wanted.len()));
    let status = if gap.whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
    if !gap.whole {
        let Span { first, last } = gap.wanted;
        let text = format!("bytes {first}-{last}/{}", stale.content.length());
        passing.extend(HeaderValue::from_str(&text).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    let withheld = withheld_fields(answer.response.headers(), &permit);
    let head = Head { status, answered: answer.response.status(), headers: passing, withheld, facts };
    let body = answer.response.into_body();
    deliver(filling, permit, head, keeping, body, reserved).await;
}

/// The head of a response on its way into the cache.
struct Head {
    status: StatusCode,
    /// The origin's own.
    answered: StatusCode,
    headers: HeaderMap,
    withheld: HeaderMap,
    facts: ResponseFacts,
}

/// What a body becomes at its end.
enum Keeping {
    /// All that there is.
    Whole,
    /// A part.
    Part { span: Span, length: u64 },
    /// One more part of what is stored; `before` and `after` go out around it.
    Rest { before: Vec<Bytes>, after: Vec<Bytes>, parts: Parts, missing: Span },
}

/// Room for a body of the length that is declared.
fn reserve(filling: &Filling, answer: &Answer) -> Option<Reserved> {
    let declared = content_length(answer.response.headers());
    let (fill, memory) = (&filling.fill, &filling.fill.worker.shared.memory);
    let was_wanted =
        || memory.again(&fill.key).is_some_and(|found| found.is_wanted(fill.class, fill.worker.now()));
    let is_wanted = fill.seat.visits() > 0 || was_wanted();
    memory.room(declared.unwrap_or(0), is_wanted)
}

/// Tells those who wait of the head; what it returns moves the body.
fn deliver(
    mut filling: Filling,
    permit: Storable,
    head: Head,
    keeping: Keeping,
    body: OriginBody,
    reserved: Option<Reserved>,
) -> impl Future<Output = ()> {
    let Head { status, answered, headers, withheld, facts } = head;
    filling.rekey(&facts);
    let config = &filling.fill.snapshot.config.cache;
    let selecting = filling.selecting(&facts);
    let (writer, growing) = Growing::new(config.lag, config.lag_timeout);
    // Seated before the first byte: a body that outgrows its bound cannot leave the owner behind.
    let own = growing.reader().map(|reader| Own { reader, withheld });
    let declared = content_length(&headers).unwrap_or(0);
    if reserved.is_none() || declared > config.redis_max_object {
        // It will not be in Redis: nobody is to wait for it.
        filling.lease = None;
    }
    let standing = filling.standing(&headers, &facts);
    let (key, forms) = (filling.fill.key.clone(), Forms::default());
    let displaces = filling.fill.worker.shared.memory.is_crowded(&key, &selecting);
    let part = match filling.fill.want {
        Want::Part(range) if status == StatusCode::PARTIAL_CONTENT => Some(range),
        _ => None,
    };
    match keeping {
        _ if reserved.is_none() => writer.stop_keeping(()),
        // What comes is not all that goes out, and not all that is kept.
        Keeping::Rest { .. } => {}
        Keeping::Whole | Keeping::Part { .. } => {
            let declared = body.size_hint().exact().filter(|declared| *declared <= config.max_object);
            writer.keep_apart(declared.unwrap_or(config.max_object), declared.is_some());
        }
    }
    let fetched = Arc::new(Fetched {
        status,
        answered,
        headers,
        facts,
        selecting,
        key,
        standing,
        displaces,
        part,
        kept: reserved.is_some(),
        body: growing,
        forms,
    });
    filling.tell_with(Landing::Fetched(Arc::clone(&fetched)), own);
    let pump = Pump { writer, trailers: None, reserved, came: Vec::new(), chunks: 0, taken: 0 };
    pump.run(filling, permit, fetched, keeping, body)
}

/// What has come of a body so far.
struct Pump {
    writer: Writer,
    trailers: Option<HeaderMap>,
    /// `None` once the body has outgrown what may be kept.
    reserved: Option<Reserved>,
    /// What the origin has sent, while it is kept and is not all that is written.
    came: Vec<Bytes>,
    /// Chunks that it has come in.
    chunks: u64,
    /// Bytes that the origin has sent.
    taken: u64,
}

/// How long it is remembered that a body would have been stored had there been room.
const WANTED: Duration = Duration::from_secs(60);

/// Bytes of memory that a chunk takes beside its own, in the lists that hold it; about.
pub const CHUNK: u64 = 128;

impl Pump {
    /// Moves the body from the origin to the readers, and into the cache at its end.
    ///
    /// Returning early drops the writer: readers see a broken body, and nothing is kept.
    async fn run(
        mut self,
        mut filling: Filling,
        permit: Storable,
        fetched: Arc<Fetched>,
        keeping: Keeping,
        mut body: OriginBody,
    ) {
        if let Keeping::Rest { before, .. } = &keeping {
            before.iter().for_each(|bytes| self.writer.push(bytes.clone()));
        }
        while !body.is_end_stream() {
            match body.frame().await {
                None => break,
                Some(Err(_)) => return,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => {
                        if self.take(&mut filling, &keeping, chunk).await == Room::NoReaders {
                            return;
                        }
                    }
                    Err(other) => self.trailers = other.into_trailers().ok(),
                },
            }
        }
        self.end(filling, permit, &fetched, keeping);
    }

    /// The body has come to its end.
    fn end(mut self, mut filling: Filling, permit: Storable, fetched: &Fetched, keeping: Keeping) {
        if let Keeping::Rest { after, missing, .. } = &keeping {
            if self.taken != missing.len() {
                return;
            }
            after.iter().for_each(|bytes| self.writer.push(bytes.clone()));
            // A trailer section is about what the origin has sent, not about what was made of it.
            self.trailers = None;
        }
        #[cfg(test)]
        crate::telemetry::failpoint::at("keep", filling.fill.asked.target.path());
        let content = self.reserved.is_some().then(|| self.content(&keeping)).flatten();
        let Some(content) = content else { return self.writer.complete(None, self.trailers) };
        let whole = content.whole().filter(|_| matches!(keeping, Keeping::Whole)).cloned();
        let whole = self.pinning(&filling, content.held(), whole);
        let response = stored(&filling, permit, fetched, content);
        // Whoever looks at it again knows by whom it came.
        if whole.is_some() {
            verify::brought(&filling.fill.worker, &filling.fill.snapshot, &filling.fill.asked, &response);
        }
        // Kept before the seat is given up: whoever finds no flight finds the response.
        filling.keep(&response);
        self.writer.complete(whole, self.trailers);
    }

    /// Has what its readers hold of a large body be counted until they let go of it.
    fn pinning(&self, filling: &Filling, bytes: u64, whole: Option<Bytes>) -> Option<Bytes> {
        if bytes < apart::LARGE as u64 {
            return whole;
        }
        let pinned = filling.fill.worker.shared.memory.in_flight().pinning(bytes);
        match whole {
            Some(whole) => Some(apart::held_with(whole, pinned)),
            None => {
                self.writer.hold(pinned);
                None
            }
        }
    }

    /// What is to be kept, in memory of its own; `None` where what came does not fit its head.
    fn content(&self, keeping: &Keeping) -> Option<Content> {
        let bytes = match keeping {
            Keeping::Whole | Keeping::Part { .. } => self.writer.gather(),
            Keeping::Rest { .. } => StoredResponse::compact(&self.came),
        };
        match keeping {
            Keeping::Whole => Some(Content::Whole(bytes)),
            Keeping::Part { span, length } => {
                (self.taken <= span.len()).then(|| Parts::of(*length, span.first, bytes)).flatten()
            }
            Keeping::Rest { parts, missing, .. } => parts.with(missing.first, bytes),
        }
    }

    /// Takes a chunk; waits for the readers where the body is no longer kept.
    async fn take(&mut self, filling: &mut Filling, keeping: &Keeping, chunk: Bytes) -> Room {
        let max = filling.fill.snapshot.config.cache.max_object;
        self.taken = self.taken.saturating_add(chunk.len() as u64);
        let held = match keeping {
            Keeping::Rest { missing, .. } if self.taken > missing.len() => return Room::NoReaders,
            Keeping::Rest { parts, .. } => parts.held(),
            Keeping::Whole | Keeping::Part { .. } => 0,
        };
        if self.taken.saturating_add(held) > filling.fill.snapshot.config.cache.redis_max_object {
            filling.lease = None;
        }
        // What holds a chunk counts, too: a body may come a byte at a time.
        self.chunks = self.chunks.saturating_add(1);
        let lists = if self.writer.is_apart() { 0 } else { self.chunks.saturating_mul(CHUNK) };
        let total = self.taken.saturating_add(lists);
        if let Some(reserved) = &mut self.reserved {
            let why = if self.taken.saturating_add(held) > max {
                Some(NotStored::TooLarge)
            } else if !reserved.grow(total.saturating_sub(reserved.bytes()))
                // Who is slow would hold it, and others fill the little room there is in a moment.
                || (reserved.is_scarce() && self.writer.lags())
            {
                Some(NotStored::InFlightLimit)
            } else {
                None
            };
            if let Some(why) = why {
                self.stop(filling, why);
            } else if matches!(keeping, Keeping::Rest { .. }) {
                self.came.push(chunk.clone());
            }
        }
        let room = self.writer.room().await;
        self.writer.push(chunk);
        room
    }

    /// It is not kept any more.
    fn stop(&mut self, filling: &mut Filling, why: NotStored) {
        let room = self.reserved.take().map(|reserved| reserved.leave(self.writer.behind()));
        self.came = Vec::new();
        filling.lease = None;
        filling.mark(why, 200);
        if why == NotStored::InFlightLimit {
            filling.want_it();
            // Whoever comes from now on cannot read it, and may bring what can be stored: they must not be sent on
            // for as long as its readers take.
            filling.fill.seat.leave();
        }
        self.writer.stop_keeping(room);
    }
}

impl Filling {
    /// Remembers that it would have been stored if there had been room: the next to ask for it may go beyond what
    /// slow readers leave. Else they would have an origin asked by all for what they have asked for first.
    fn want_it(&self) {
        let Fill { worker, key, class, .. } = &self.fill;
        let until = worker.now().saturating_add(WANTED);
        worker.shared.memory.mark(key, *class, NotStored::InFlightLimit, Marked::Wanted, until);
    }

    /// The origin took back its leave to keep a response while confirming it: no tier holds it any more,
    /// on any node that reads Redis. Where it may have spoken of what one client chose (not `for_all`), what is
    /// stored stays as it is: else one field would keep a URL out of the cache for all.
    async fn withdraw(
        mut self,
        response: Arc<StoredResponse>,
        own: HeaderMap,
        why: NotStored,
        for_all: bool,
    ) {
        let (worker, key) = (Arc::clone(&self.fill.worker), self.fill.key.clone());
        self.lease = None;
        if for_all {
            worker.shared.purges.purge(key.url_hash(), worker.now());
            worker.shared.memory.remove(&key);
        }
        self.mark(why, response.status.as_u16());
        self.fill.seat.publish(Landing::NotStorable(why));
        if let Some(owner) = self.fill.owner.take() {
            let landing = OwnerLanding::Withdrawn(response, own, why);
            let _left = owner.send(ForOwner { landing, times: self.times, looked: self.looked });
        }
        if let Some(redis) = worker.redis.as_ref().filter(|_| for_all) {
            let _queued_if_it_failed = redis.purge(key.url_hash()).await;
        }
    }

    /// Stores the response under the key of all queries that mean the same by its own word, or under its
    /// very URL, whatever was thought when it was asked for.
    fn rekey(&mut self, facts: &ResponseFacts) {
        // The answer to a POST is for its very URL alone.
        if self.fill.asked.method == Method::POST || self.fill.content.is_some() || !self.cache.no_vary_search
        {
            return;
        }
        let exact = self.fill.exact.as_ref().unwrap_or(&self.fill.key).clone();
        let key = match &facts.no_vary_search {
            Some(rule) if self.learn(&exact, rule) => exact.searched(rule),
            _ => exact,
        };
        if key != self.fill.key {
            // The generation that was seen is that of another URL.
            self.generation = self.generation.filter(|_| key.is_searched()).map(Generation::of_searched);
            // Those who wait would look for it where it is not.
            self.lease = None;
            self.fill.key = key;
        }
    }

    /// Remembers a path's rule; gives whether the response may be stored under it. One whose rule was not
    /// known when something was purged while it was fetched may not: who purged it then did not know
    /// either that the path has one.
    fn learn(&self, exact: &CacheKey, rule: &NoVarySearch) -> bool {
        let shared = &self.fill.worker.shared;
        let learned = shared.searches.learn(Group::of_path(exact), rule);
        learned && (self.fill.exact.is_some() || self.born == Born::Here(shared.purges.seq()))
    }

    /// Which requests a response with these facts answers.
    fn selecting(&self, facts: &ResponseFacts) -> SelectingFields {
        rules::selecting_fields(&facts.vary, &self.fill.asked.headers, self.cache.policy.normalize)
    }

    /// By what purges will judge a response with these fields that this fetch has brought or confirmed.
    fn standing(&self, headers: &HeaderMap, facts: &ResponseFacts) -> Arc<Standing> {
        let tags = self.fill.snapshot.route(self.fill.route).map(|route| &route.tags);
        let plain = TagPolicy::default();
        Arc::new(Standing::of(self.born, self.read, headers, &facts.groups, tags.unwrap_or(&plain)))
    }

    /// §4.3.4: the other responses that this request could have been given, if a strong validator says
    /// that they are what the 304 confirms. There are some where a resource has varied on one field and
    /// then on another.
    fn confirm_others(&self, stale: &StoredResponse, confirmed: &StoredResponse, answer: &Answer) {
        let not_modified = facts_of(answer);
        let shared = &self.fill.worker.shared;
        let Some(resource) = shared.memory.peek(&self.fill.key) else { return };
        let asked = &self.fill.asked;
        let exact = self.fill.exact.as_ref().unwrap_or(&self.fill.key);
        let others = resource.variants.iter().filter(|other| {
            other.selecting != stale.selecting
                && !shared.purges.is_purged(other)
                && other.is_for(&asked.headers, self.cache.policy.normalize)
                && exact.leads_to(&other.key, other.facts.no_vary_search.as_ref())
                && rules::same_strong_validator(&other.facts, &not_modified)
        });
        for other in others {
            let times = (answer.request_time, answer.response_time);
            let fresh = freshened(self, other, answer.response.headers(), times);
            // The 304 may have given both the same Vary: then one of them is enough.
            if let Some(fresh) = fresh.filter(|fresh| fresh.selecting != confirmed.selecting) {
                self.promote(&fresh);
                self.write_behind(&fresh);
            }
        }
    }

    /// Keeps what has come to its end, in both tiers; not in place of what another fetch has brought that began later, as
    /// one of a whole may have while this one brought a part, or one with a cookie beside one without.
    fn keep(&mut self, response: &Arc<StoredResponse>) {
        let Fill { worker, class, stale, .. } = &self.fill;
        let shared = &worker.shared;
        match shared.memory.keep_unless_outdone(response, stale.as_ref(), *class, &shared.purges) {
            // Redis has been told of what is later, and would give this in its place.
            Kept::Behind | Kept::Outdone => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back(Word::Look);
                }
            }
            Kept::Kept | Kept::Not => self.write_and_give_back(response),
        }
    }

    pub(super) fn write_behind(&self, response: &Arc<StoredResponse>) {
        self.write(response, None);
    }

    /// The same, with the lease that it was fetched by, which is given back once it is written.
    fn write_and_give_back(&mut self, response: &Arc<StoredResponse>) {
        let lease = self.lease.take();
        self.write(response, lease);
    }

    fn write(&self, response: &Arc<StoredResponse>, lease: Option<Lease>) {
        if let Some((redis, generation)) = self.fill.worker.redis.as_ref().zip(self.generation) {
            let ttl = rules::usable_for(&response.facts, &self.cache.policy);
            let how = (ttl, self.cache.policy.normalize);
            redis.put_and_give_back(Arc::clone(response), generation, how, lease);
        }
    }
}

/// A stored response with the fields that news of it has brought (§3.2); `None` where these forbid to
/// keep it, or change for which queries it is: its key was made by another rule.
pub(super) fn freshened(
    filling: &Filling,
    stored: &StoredResponse,
    news: &HeaderMap,
    times: (Timestamp, Timestamp),
) -> Option<Arc<StoredResponse>> {
    let asked = &filling.fill.asked;
    let (headers, facts) = merged((stored.status, &stored.headers.to_map()), news, times);
    if stored.key.is_searched() && facts.no_vary_search != stored.facts.no_vary_search {
        return None;
    }
    let selecting = filling.selecting(&facts);
    // Parts had a Content-Range each as they came; and it is a GET's response, whatever brought the news.
    let judged = facts.clone().of_part(stored.content.range());
    let asked = RequestFacts { method: Method::GET, ..asked.facts.clone() };
    let permit = may_still_keep(filling, &asked, &judged, &headers).ok()?;
    let headers = rules::stored_fields(&headers, &permit);
    let standing = filling.standing(&headers, &facts);
    Some(Arc::new(stored.freshened(&headers, facts, selecting, standing)))
}

fn stored(filling: &Filling, permit: Storable, fetched: &Fetched, content: Content) -> Arc<StoredResponse> {
    let mut headers = Cow::Borrowed(&fetched.headers);
    let status = match (fetched.status, &content) {
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Content::Parts(_)) => StatusCode::PARTIAL_CONTENT,
        (StatusCode::PARTIAL_CONTENT, Content::Whole(_)) => StatusCode::OK,
        (status, _) => status,
    };
    if fetched.status == StatusCode::PARTIAL_CONTENT || status == StatusCode::PARTIAL_CONTENT {
        // They tell of one message, not of the representation that it brought a part of.
        let headers = headers.to_mut();
        headers.remove(header::CONTENT_RANGE);
        headers.remove(header::CONTENT_LENGTH);
    }
    let received = Received {
        status,
        headers: &headers,
        request_time: fetched.facts.request_time,
        response_time: fetched.facts.response_time,
        content,
        selecting: fetched.selecting.clone(),
        key: filling.fill.key.clone(),
        standing: Arc::clone(&fetched.standing),
    };
    let stored = StoredResponse::new(permit, received);
    // What is made of it while it comes is kept with it, also where that is asked for only now. Of most there is no other
    // form, and so no place for one.
    let route = filling.fill.snapshot.route(filling.fill.route);
    let encodes = route.is_some_and(|route| route.compress.is_some());
    Arc::new(match encodes || fetched.facts.coding != ContentCoding::Identity {
        true => stored.with_copies(Arc::clone(&fetched.forms.copies)),
        false => stored,
    })
}

/// What everyone who waits is given: what is stored, and `Trailer`. A trailer section is not stored,
/// but it passes, and only one that is announced can be written (RFC 9110 §6.6.2).
fn passing_fields(headers: &HeaderMap, permit: &Storable) -> HeaderMap {
    let mut passing = rules::stored_fields(headers, permit);
    for value in headers.get_all(header::TRAILER) {
        passing.append(header::TRAILER, value.clone());
    }
    passing
}

/// What may not be stored, for the one client whose request brought it.
fn withheld_fields(headers: &HeaderMap, permit: &Storable) -> HeaderMap {
    let mut withheld = HeaderMap::new();
    if permit.without().is_empty() {
        return withheld;
    }
    let options = hop::connection_options(headers);
    let of_connection = |name| hop::is_hop_by_hop(name) || options.contains(name);
    for (name, value) in headers.iter().filter(|(name, _)| permit.without().contains(name)) {
        if !of_connection(name) {
            withheld.append(name.clone(), value.clone());
        }
    }
    withheld
}

/// RFC 9110 §6.6.1: a recipient with a clock records when a message without `Date` came, and adds
/// the field if it is cached or forwarded.
fn ensure_date(headers: &mut HeaderMap, received: Timestamp) {
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date::to_value(received));
    }
}
