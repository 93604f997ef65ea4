//! A stored response: what the origin said, when, and for which request.
//!
//! Knows that only a permit of `rules::storing` makes one, that nothing in it may hold on to a
//! connection's read buffer, and what it weighs in memory.
//! Must not know: freshness, routes, or where it is kept.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, StatusCode};

use super::fields::Lines;
use super::{CacheKey, Content, Copies, Copy, Form, Standing, StoredFields, said};
use crate::apart;
use crate::clock::Timestamp;
use crate::fields::targeted::LARDER_CACHE_CONTROL;
use crate::fields::{digits, tags};
use crate::pieces;
use crate::rules::{
    self, MustAsk, Normalize, OriginFailure, Policy, RequestFacts, ResponseFacts, Reusable, Reuse,
    SelectingFields, Storable, stored_fields,
};

/// A response as it is kept, in either tier.
///
/// In the order in which a hit reads it: where the content and the key's text are stands in the line of memory that has
/// been waited for when somebody has come to hold the response, so that these are waited for with its other lines, and
/// not after them ([`read_ahead`](Self::read_ahead)).
#[derive(Clone, Debug)]
#[repr(C)]
pub struct StoredResponse {
    /// What is held of its content.
    pub content: Content,
    /// What it is stored under.
    pub key: CacheKey,
    /// The fields that are stored (§3.1), in their order, repeats kept.
    pub headers: StoredFields,
    /// By what purges judge it.
    pub standing: Arc<Standing>,
    /// The fields, understood.
    pub facts: ResponseFacts,
    /// The request's fields that `Vary` named (§4.1).
    pub selecting: SelectingFields,
    /// Other forms of the body, made since. Of most none ever is, and nobody has asked where they would be.
    copies: OnceLock<Arc<Copies>>,
    /// Status.
    pub status: StatusCode,
    /// What of its facts it was the first to say, bytes.
    share: u16,
    /// None of its fields has to be taken out on its way to a client, whoever that is.
    bare: bool,
    /// Its `Content-Length` is that of its content, said once and as it is written here.
    says_length: bool,
    /// Keeps others from making one without a permit.
    _sealed: (),
}

/// What a server measured for one request.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A response of the origin whose body has come to its end, about to be stored.
#[derive(Debug)]
pub struct Received<'a> {
    /// Status.
    pub status: StatusCode,
    /// All of its fields; those that may not be stored are left out here.
    pub headers: &'a HeaderMap,
    /// When the request was sent (§4.2.3).
    pub request_time: Timestamp,
    /// When the head came (§4.2.3).
    pub response_time: Timestamp,
    /// What came of its content, in memory of its own: see [`StoredResponse::compact`].
    pub content: Content,
    /// The request's fields that `Vary` named (§4.1).
    pub selecting: SelectingFields,
    /// What it is to be stored under.
    pub key: CacheKey,
    /// By what purges will judge it.
    pub standing: Arc<Standing>,
}

impl StoredResponse {
    /// Makes a response that the rules allow to be stored, without the fields they do not.
    pub fn new(permit: Storable, received: Received<'_>) -> Self {
        let headers = stored_fields(received.headers, &permit);
        let times = (received.request_time, received.response_time);
        let Received { status, content, selecting, key, standing, .. } = received;
        Self::from_record(status, &headers, times, content, selecting, key, standing)
    }

    /// The same where it is known what its fields say: `facts`, which [`ResponseFacts::of`] those that are stored.
    pub fn understood(permit: Storable, received: Received<'_>, facts: ResponseFacts) -> Self {
        let headers = stored_fields(received.headers, &permit);
        let Received { status, content, selecting, key, standing, .. } = received;
        Self::of_facts(status, &headers, facts, content, selecting, key, standing)
    }

    /// With the other forms of its body that were made while it came.
    pub fn with_copies(self, copies: Arc<Copies>) -> Self {
        Self { copies: copies.into(), ..self }
    }

    /// Where the other forms of its body are kept.
    pub fn copies(&self) -> &Arc<Copies> {
        self.copies.get_or_init(Arc::default)
    }

    /// The copy in this form, if it was tried already.
    pub fn copy(&self, form: Form) -> Option<&Copy> {
        self.copies.get()?.get(form)
    }

    /// The same content with the fields that a 304 has freshened (§3.2): to purges it is what the fetch was
    /// that has confirmed it.
    pub fn freshened(
        &self,
        headers: &HeaderMap,
        facts: ResponseFacts,
        selecting: SelectingFields,
        standing: Arc<Standing>,
    ) -> Self {
        let (bare, says_length) = (is_bare(headers), says_length(headers, self.content.length()));
        let headers = StoredFields::of(headers);
        let (facts, share) = said::shared(facts);
        let share = u16::try_from(share).unwrap_or(u16::MAX);
        // From now on both have the same.
        self.copies();
        Self { bare, says_length, headers, facts, share, selecting, standing, ..self.clone() }
    }

    /// Asks for the memory that an answer reads, which lies in five places: read one after the other, each would be
    /// waited for where few are asked for often. The processor waits for none of these, since nothing comes of them.
    pub fn read_ahead(&self) {
        // Of each of its own lines first.
        let facts = (self.facts.date, self.facts.request_time, self.facts.response_time);
        let content = match &self.content {
            Content::Whole(bytes) => bytes,
            Content::Parts(_) => &[][..],
        };
        let read = [self.key.text(), self.headers.own(), content].map(ahead);
        std::hint::black_box((facts, self.bare, read, self.standing.route()));
    }

    /// Whether it has none of the fields that do not go to any client, or not to every one: found when it is
    /// stored, since each hit would have to look for all of them.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Whether its `Content-Length` is that of its content, said once: found when it is stored, too.
    pub fn says_length(&self) -> bool {
        self.says_length
    }

    /// Whether it answers this request at `now`, if no purge has made it void. One that was purged softly
    /// has to be confirmed first.
    pub fn reuse(&self, req: &RequestFacts, policy: &Policy, now: Timestamp) -> Reuse {
        match self.standing.is_soft() {
            true => self.reuse_unconfirmed(req, policy, MustAsk::Purged),
            false => rules::reuse::judge(req, &self.facts, policy, now),
        }
    }

    /// Whether it answers this request once the origin has confirmed it, which has to be asked for this reason.
    pub fn reuse_unconfirmed(&self, req: &RequestFacts, policy: &Policy, because: MustAsk) -> Reuse {
        rules::reuse::judge_unconfirmed(req, &self.facts, policy, because)
    }

    /// Whether it may answer because the origin failed (RFC 5861 §4) in this way.
    pub fn on_error(
        &self,
        req: &RequestFacts,
        policy: &Policy,
        now: Timestamp,
        failure: OriginFailure,
    ) -> Option<Reusable> {
        match self.standing.is_soft() {
            true => rules::reuse::on_error_purged(req, &self.facts, policy, now, failure),
            false => rules::on_error(req, &self.facts, policy, now, failure),
        }
    }

    /// Whether a request with these fields may be given it, by what `Vary` named (§4.1).
    pub fn is_for(&self, headers: &HeaderMap, normalize: Normalize) -> bool {
        self.selecting.matches(&self.facts, headers, normalize)
    }

    /// One piece of memory, exactly as large as the chunks together. A chunk as it comes from a
    /// connection is a part of a larger read buffer and would keep all of that alive.
    pub fn compact(chunks: &[Bytes]) -> Bytes {
        apart::gather(chunks)
    }

    /// Bytes of memory it takes: body, its copies in other forms, fields, its share of the key, and what holds them together.
    /// An estimate from the layout of the types, on the high side.
    pub fn weight(&self) -> usize {
        let selecting = self.selecting.bytes() + self.selecting.parts().len().saturating_mul(SELECTING);
        [
            pieces::counted::<Self>(),
            self.content.weight(),
            self.content.pieces().saturating_mul(PIECE),
            self.copies.get().map_or(0, |copies| copies.weight()),
            self.headers.weight(),
            selecting,
            self.share.into(),
            self.facts.etag.as_ref().map_or(0, |tag| pieces::of(tag.heap())),
            self.key.weight(),
            self.standing.weight(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// For the codec, whose records come from what once had a permit.
    pub(super) fn from_record(
        status: StatusCode,
        headers: &impl Lines,
        (request_time, response_time): (Timestamp, Timestamp),
        content: Content,
        selecting: SelectingFields,
        key: CacheKey,
        standing: Arc<Standing>,
    ) -> Self {
        // Understood from the stored fields, so that it means the same in both tiers.
        let lines = || headers.lines();
        let facts = ResponseFacts::of_lines(status.as_u16(), lines, request_time, response_time);
        Self::of_facts(status, headers, facts, content, selecting, key, standing)
    }

    fn of_facts(
        status: StatusCode,
        headers: &impl Lines,
        facts: ResponseFacts,
        content: Content,
        selecting: SelectingFields,
        key: CacheKey,
        standing: Arc<Standing>,
    ) -> Self {
        let (facts, share) = said::shared(facts);
        let (bare, says_length) = (is_bare(headers), lines_say_length(headers, content.length()));
        let headers = StoredFields::of_lines(headers);
        Self {
            status,
            headers,
            facts,
            content,
            selecting,
            key,
            standing,
            copies: OnceLock::new(),
            share: u16::try_from(share).unwrap_or(u16::MAX),
            bare,
            says_length,
            _sealed: (),
        }
    }
}

/// Reads a byte of each line of the beginning.
fn ahead(bytes: &[u8]) -> u8 {
    bytes.iter().take(AHEAD).step_by(LINE).fold(0, |all, byte| all ^ byte)
}

/// Bytes of a line of a processor's cache, and bytes of content that are asked for ahead: what comes after, processors
/// ask for by themselves.
const LINE: usize = 64;
const AHEAD: usize = 1024;

fn is_bare(headers: &impl Lines) -> bool {
    let own = [SERVER_TIMING, LARDER_CACHE_CONTROL, TRAILER];
    // Over the names, since to look one up in a map takes as long as to go over them all.
    headers.lines().all(|(name, _)| !own.contains(name) && !tags::FIELDS.contains(name))
}

/// Whether the head has this length already, once and as it is written here: most of what is stored does.
pub fn says_length(headers: &HeaderMap, length: u64) -> bool {
    lines_say_length(headers, length)
}

fn lines_say_length(headers: &impl Lines, length: u64) -> bool {
    let mut lines = headers.lines().filter(|(name, _)| **name == CONTENT_LENGTH);
    lines.next().is_some_and(|(_, value)| digits::is(value, length)) && lines.next().is_none()
}

/// The count of who holds a piece of the content.
const PIECE: usize = 32;
/// One selecting field, beside its text: itself, and what its pieces are rounded up by.
const SELECTING: usize = 112;

/// Responses for the tests of this and of higher rooms.
#[cfg(test)]
pub(crate) mod samples {
    use http::{HeaderName, HeaderValue, Method};

    use super::*;
    use crate::rules::{Policy, RequestFacts, selecting_fields, storing};
    use crate::stored::{Born, KeyPolicy, TagPolicy};

    /// Fields from pairs; repeats are kept.
    pub(crate) fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    /// The key of `http://test{path}`.
    pub(crate) fn key(path: &str) -> CacheKey {
        CacheKey::of("http", "test", path, None, &HeaderMap::new(), &KeyPolicy::default())
    }

    /// What the rules store of a 200 to this GET; `response` must make it storable.
    pub(crate) fn stored(
        key: &CacheKey,
        request: &[(&str, &str)],
        response: &[(&str, &str)],
        body: &[u8],
        born: Born,
    ) -> Arc<StoredResponse> {
        let (request, headers) = (fields(request), fields(response));
        let times = (Timestamp::from_secs(1_000), Timestamp::from_secs(1_001));
        let facts = ResponseFacts::of(200, &headers, times.0, times.1);
        let asked = RequestFacts::of(&Method::GET, &request);
        let permit = storing::judge(&asked, &facts, &Policy::default()).expect("the sample is storable");
        Arc::new(StoredResponse::new(
            permit,
            Received {
                status: StatusCode::OK,
                headers: &headers,
                request_time: times.0,
                response_time: times.1,
                content: Content::Whole(StoredResponse::compact(&[Bytes::copy_from_slice(body)])),
                selecting: selecting_fields(&facts.vary, &request, Normalize::default()),
                key: key.clone(),
                standing: standing(&headers, &facts, born),
            },
        ))
    }

    /// That of a response with these fields, by a route that says nothing of tags.
    pub(crate) fn standing(headers: &HeaderMap, facts: &ResponseFacts, born: Born) -> Arc<Standing> {
        let policy = TagPolicy { route: crate::stored::route_hash("all"), ..TagPolicy::default() };
        Arc::new(Standing::of(born, None, headers, &facts.groups, &policy))
    }

    /// A plain response that may be stored.
    pub(crate) fn plain(path: &str, body: &[u8], born: Born) -> Arc<StoredResponse> {
        stored(&key(path), &[], &[("cache-control", "max-age=60")], body, born)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{fields, key, plain, standing, stored};
    use super::*;
    use crate::stored::Born;

    #[test]
    fn a_body_has_memory_of_its_own() {
        let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
        let chunk = buffer.slice(10..13);
        let body = StoredResponse::compact(&[chunk.clone(), chunk.clone()]);
        assert_eq!(&body[..], b"xxxxxx");
        let own = StoredResponse::compact(std::slice::from_ref(&chunk));
        assert_ne!(own.as_ptr(), chunk.as_ptr(), "copied even when it is one chunk");
        drop(chunk);
        assert!(buffer.is_unique(), "nothing holds on to the read buffer");
        assert!(StoredResponse::compact(&[]).is_empty());
    }

    #[test]
    fn what_may_not_be_stored_is_left_out() {
        // §3.1: fields of the connection are not stored.
        let stored = stored(
            &key("/"),
            &[],
            &[("cache-control", "max-age=60"), ("connection", "x-hop"), ("x-hop", "1"), ("x-kept", "2")],
            b"",
            Born::Here(0),
        );
        let headers = stored.headers.to_map();
        assert!(!headers.contains_key("x-hop") && !headers.contains_key("connection"));
        assert_eq!(headers.get("x-kept").unwrap(), "2");
    }

    #[test]
    fn the_weight_counts_body_fields_key_and_selecting_fields() {
        let weight = |path: &str, pairs: &[(&str, &str)], body: &[u8]| {
            let pairs = [&[("cache-control", "max-age=60"), ("vary", "accept")], pairs].concat();
            stored(&key(path), &[("accept", "text/html")], &pairs, body, Born::Here(0)).weight()
        };
        // The first two with these fields weigh more: they pay for their names.
        let paid = [(); 2].map(|()| weight("/", &[], b""));
        let base = weight("/", &[], b"");
        assert!(paid.iter().all(|paid| *paid > base), "{paid:?} {base}");
        assert_eq!(weight("/", &[], &[0; 1000]), base + 1024, "as the allocator gives it");
        assert_eq!(weight("/abcdefghijklmnopqrst", &[], b""), base + 16);
        let long = "v".repeat(500);
        let with_field = weight("/", &[("x-long", &long)], b"");
        assert!(with_field >= base + 500 + "x-long".len(), "{with_field}");
        assert!(base > size_of::<StoredResponse>());
    }

    /// A byte more would have the allocator give it the next size.
    #[test]
    fn it_takes_no_more_than_it_did() {
        let sizes =
            [pieces::counted::<StoredResponse>(), pieces::counted::<Standing>(), size_of::<CacheKey>()];
        assert_eq!(sizes, [256, 64, 32], "{}", size_of::<StoredResponse>());
        assert_eq!((size_of::<StoredFields>(), size_of::<ResponseFacts>()), (32, 88));
    }

    #[test]
    fn freshening_shares_the_body() {
        let old = plain("/", b"body", Born::Here(1));
        let headers = fields(&[("cache-control", "max-age=90"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let facts = ResponseFacts::of(200, &headers, Timestamp::from_secs(5), Timestamp::from_secs(6));
        let fresh = old.freshened(
            &headers,
            facts.clone(),
            old.selecting.clone(),
            standing(&headers, &facts, Born::Here(2)),
        );
        assert_eq!((&fresh.content, fresh.standing.born()), (&old.content, Born::Here(2)));
        assert!(Arc::ptr_eq(fresh.copies(), old.copies()), "and so its other forms");
        assert_eq!((fresh.headers.to_map(), fresh.facts), (headers, facts));
    }

    #[test]
    fn copies_in_other_forms_have_weight() {
        let response = plain("/", b"body", Born::Here(1));
        let before = response.weight();
        response.copies().keep(Form::Decoded, Copy::Made(Bytes::from_static(b"another form")));
        assert_eq!(response.weight(), before + response.copies().weight());
        assert!(response.copies().weight() > "another form".len());
    }
}
