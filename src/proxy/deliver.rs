//! The answer: which part of what is at hand the client asked for, under which head.
//!
//! Knows how each part of a response is headed. A stored response comes here only with the rules'
//! permit, and with what of it is to be sent.
//! Must not know: how the response was found.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;

use crate::clock::Mono;
use crate::coding;
use crate::fields::range::{Resolved, Span};
use crate::fields::{groups, hop, no_vary_search, targeted};
use crate::flight::Reader;
use crate::rules::{self, ResponseFacts, Reusable};
use crate::stored::{self, Cut, Form, StoredResponse};
use crate::telemetry::{Detail, Outcome, Source};
use crate::upstream::OriginBody;
use crate::worker::{Asked, Fetched, Own, Snapshot, Worker};

use super::body::{Content, Delivery, Stretch};
use super::exchange::Exchange;
use super::failure::Failure;
use super::head::{self, Begun, Hit};
use super::multipart;
use super::report::{Answer, Report};
use super::transform::{self, At};

/// Everything that is needed to answer.
pub(super) struct Deliver {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    route: Option<usize>,
    asked: Option<Arc<Asked>>,
    report: Box<Report>,
    outcome: Outcome,
    /// Others may get another form of it.
    varies: bool,
    /// Fields for this client alone.
    own: Option<Box<HeaderMap>>,
    /// Its head may be begun here: see [`Begun`].
    plain: bool,
    what: What,
}

enum What {
    Stored(Arc<StoredResponse>, Cut, Reusable),
    /// Another form of it; `None` where the client holds it already.
    Copy(Arc<StoredResponse>, Reusable, Form, Option<Bytes>),
    Growing(Arc<Fetched>, Own),
    /// For this client alone; the client's own conditions have been withheld from the origin.
    Private(Box<Response<OriginBody>>),
    /// As the origin answered this very request.
    Passed(Box<Response<OriginBody>>),
    Failure(Failure),
}

/// A head and its content, before Larder's own fields.
pub(super) struct Draft {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Content,
}

impl Deliver {
    /// From a tier.
    pub fn stored(
        exchange: Exchange,
        stored: Arc<StoredResponse>,
        cut: Cut,
        reusable: Reusable,
        outcome: Outcome,
    ) -> Self {
        Self::of(exchange, outcome, What::Stored(stored, cut, reusable))
    }

    /// From a tier, in another form; `body` is `None` where the client holds it already.
    pub fn copy(
        exchange: Exchange,
        stored: Arc<StoredResponse>,
        reusable: Reusable,
        outcome: Outcome,
        form: Form,
        body: Option<Bytes>,
    ) -> Self {
        Self::of(exchange, outcome, What::Copy(stored, reusable, form, body))
    }

    /// Says that others may get another form of it.
    pub fn varying(self, varies: bool) -> Self {
        Self { varies, ..self }
    }

    /// On its way into the cache.
    pub fn growing(exchange: Exchange, fetched: Arc<Fetched>, own: Own, outcome: Outcome) -> Self {
        Self::of(exchange, outcome, What::Growing(fetched, own))
    }

    /// From a fill, for its owner alone.
    pub fn private(exchange: Exchange, response: Response<OriginBody>, outcome: Outcome) -> Self {
        Self::of(exchange, outcome, What::Private(Box::new(response)))
    }

    /// From the origin, for this request.
    pub fn passed(exchange: Exchange, response: Box<Response<OriginBody>>, outcome: Outcome) -> Self {
        Self::of(exchange, outcome, What::Passed(response))
    }

    /// Larder's own answer to a request that it does not forward.
    pub fn refusal(
        worker: &Arc<Worker>,
        snapshot: &Arc<Snapshot>,
        report: Box<Report>,
        failure: Failure,
    ) -> Self {
        let outcome = Outcome { detail: Some(Detail::Word(failure.cause)), ..Outcome::new(Source::Local) };
        Self::own(worker, snapshot, report, outcome, failure)
    }

    /// Larder's own answer in place of an origin that gave none.
    pub fn failure(
        worker: &Arc<Worker>,
        snapshot: &Arc<Snapshot>,
        report: Box<Report>,
        source: Source,
        failure: Failure,
    ) -> Self {
        let outcome = Outcome { detail: Some(Detail::Word(failure.cause)), ..Outcome::new(source) };
        Self::own(worker, snapshot, report, outcome, failure)
    }

    fn of(exchange: Exchange, outcome: Outcome, what: What) -> Self {
        let Exchange { worker, snapshot, route, asked, report, own, alike, .. } = exchange;
        Self {
            plain: alike.is_some(),
            worker,
            snapshot,
            route: Some(route),
            asked: Some(asked),
            report,
            outcome,
            varies: false,
            own,
            what,
        }
    }

    fn own(
        worker: &Arc<Worker>,
        snapshot: &Arc<Snapshot>,
        report: Box<Report>,
        outcome: Outcome,
        failure: Failure,
    ) -> Self {
        let (worker, snapshot) = (Arc::clone(worker), Arc::clone(snapshot));
        if let Some(setting) = failure.setting {
            report.hint(setting, &failure.message);
        }
        Self {
            worker,
            snapshot,
            route: None,
            asked: None,
            report,
            outcome,
            varies: false,
            own: None,
            plain: false,
            what: What::Failure(failure),
        }
    }

    /// The response, whose body carries the report to its end.
    pub fn response(mut self) -> Response<Delivery> {
        if self.report.tells_heads() {
            self.report.answer = told(&self.what);
        }
        let (as_it_is, head) = (self.is_given_as_it_is(), self.begin_passed());
        match (self.what, head) {
            (What::Stored(stored, cut, reusable), _) if as_it_is => {
                let Self { worker, snapshot, report, outcome, .. } = self;
                begun(&worker, &snapshot, report, outcome, &stored, cut, &reusable)
            }
            (What::Passed(response) | What::Private(response), Some((begun, now))) => {
                let Self { mut report, outcome, .. } = self;
                let Draft { status, headers, content } = unchanged(*response);
                (report.outcome, report.status) = (outcome, status.as_u16());
                with_head(begun, status, Delivery::new(content, report, &headers, now))
            }
            (what, _) => Self { what, ..self }.mapped(),
        }
    }

    /// Whether the head of the answer may be begun here, as far as the route and the request say.
    fn takes_begun(&self) -> bool {
        let route = self.route.and_then(|route| self.snapshot.route(route));
        self.plain
            && !self.varies
            && self.own.is_none()
            && self.report.key.is_none()
            && route.is_some_and(head::is_plain)
    }

    /// The head of what goes on as the origin gave it, where no map is needed of its fields; and when it was begun.
    fn begin_passed(&mut self) -> Option<(Begun, Mono)> {
        let route = self.snapshot.route(self.route?)?;
        if !self.takes_begun() || self.report.is_head() || route.compress.is_some() {
            return None;
        }
        // Who holds something may be told that it still does.
        let may_hold_it = self.asked.as_ref().is_none_or(|asked| asked.facts.may_hold_it());
        let response = match &mut self.what {
            What::Passed(response) => response,
            What::Private(response) if !may_hold_it => response,
            _ => return None,
        };
        // Of a change of protocols, the fields of the connection are what counts.
        if response.status().is_informational() {
            return None;
        }
        hop::remove_hop_by_hop(response.headers_mut());
        let (now, timeline) = (self.report.mono(), &self.report.timeline);
        let passed = head::Passed {
            status: response.status(),
            headers: response.headers(),
            length: response.body().size_hint().exact(),
            exposes_tags: route.tags.expose,
            outcome: &self.outcome,
            timeline,
            took: now.since(timeline.start()),
        };
        Some((passed.begin(&self.snapshot.config, self.worker.shared.via.as_ref())?, now))
    }

    /// Whether it is stored, and given to a plain request with nothing left out, or made of it: then no map is needed of
    /// its fields.
    fn is_given_as_it_is(&self) -> bool {
        let What::Stored(stored, cut, _) = &self.what else { return false };
        let is_whole = match cut {
            Cut::NotModified => true,
            Cut::Whole(bytes) => bytes.len() as u64 == stored.content.length(),
            Cut::Part(..) | Cut::Parts(_) | Cut::Unsatisfiable => false,
        };
        is_whole && stored.is_bare() && stored.says_length() && self.takes_begun()
    }

    /// The same of any, with its fields in a map.
    fn mapped(self) -> Response<Delivery> {
        let Self { worker, snapshot, route, asked, mut report, mut outcome, varies, own, what, .. } = self;
        let answered = answered(&what);
        let foreign = !matches!(what, What::Failure(_));
        let bare = matches!(&what, What::Stored(stored, ..) if stored.is_bare()) && own.is_none();
        let route = route.and_then(|route| snapshot.route(route));
        let at = asked.as_deref().map(|asked| At {
            asked,
            compress: route.and_then(|route| route.compress.as_ref()),
            shared: &worker.shared,
            snapshot: &snapshot,
        });
        let mut draft = match (what, asked.as_deref()) {
            (What::Stored(stored, cut, reusable), _) => from_store(&stored, cut, &reusable),
            (What::Copy(stored, reusable, form, body), _) => copy(&stored, &reusable, form, body),
            (What::Growing(fetched, own), asked) => {
                let age = outcome.collapsed.then(|| rules::current_age(&fetched.facts, worker.now()));
                let mut draft = growing(asked, &fetched, own, age);
                if let Some(at) = at {
                    transform::growing(&at, &fetched, &mut draft);
                }
                draft
            }
            (What::Private(response), asked) => {
                let mut draft = private(asked, *response, &worker);
                if let Some(at) = at {
                    transform::passing(&at, &mut draft);
                }
                draft
            }
            (What::Passed(response), _) => {
                let mut draft = passed(*response);
                if let Some(at) = at {
                    transform::passing(&at, &mut draft);
                }
                draft
            }
            (What::Failure(failure), _) => own_answer(&failure),
        };
        // RFC 9211 §2.3: said where it is not the status that is delivered.
        outcome.fwd_status =
            outcome.fwd_status.or(answered.filter(|status| *status != draft.status).map(|s| s.as_u16()));
        if varies {
            coding::head::vary(&mut draft.headers);
        }
        if let Some(own) = own {
            // In place of those of the same name that are stored for all.
            draft.headers.extend(*own);
        }
        if foreign {
            head::pass_on(&mut draft.headers, worker.shared.via.as_ref(), route, bare);
        }
        // RFC 9110 §6.5.1: not "unless the sender knows ... the TE field"; `Trailer` would be hop-by-hop.
        if !bare && !asked.is_some_and(|asked| asked.takes_trailers) {
            draft.headers.remove(header::TRAILER);
        }
        if report.is_head() {
            draft.content = Content::Empty;
        }
        report.outcome = outcome;
        report.status = draft.status.as_u16();
        let now = head::finish(&mut draft.headers, &snapshot.config, route, &outcome, &report);
        let body = Delivery::new(draft.content, report, &draft.headers, now);
        let mut response = Response::new(body);
        *response.status_mut() = draft.status;
        *response.headers_mut() = draft.headers;
        response
    }
}

/// What is stored and given as it is, with its head [begun](Begun).
fn begun(
    worker: &Worker,
    snapshot: &Snapshot,
    mut report: Box<Report>,
    outcome: Outcome,
    stored: &Arc<StoredResponse>,
    cut: Cut,
    reusable: &Reusable,
) -> Response<Delivery> {
    let (age, not_modified) = (reusable.age(), cut == Cut::NotModified);
    let status = if not_modified { StatusCode::NOT_MODIFIED } else { stored.status };
    (report.outcome, report.status) = (outcome, status.as_u16());
    let now = report.mono();
    let took = now.since(report.timeline.start());
    let (timeline, outcome) = (&report.timeline, &outcome);
    let hit = Hit { stored, age, not_modified, closes: false, outcome, timeline, took };
    let mut lines = Vec::with_capacity(head::USUAL);
    let dated = hit.begin(&mut lines, &snapshot.config, worker.shared.via.as_ref());
    let content = if let Cut::Whole(bytes) = cut { Content::Whole(bytes) } else { Content::Empty };
    let begun = Begun { lines, dated, framed: true };
    with_head(begun, status, Delivery::new(content, report, &HeaderMap::new(), now))
}

fn with_head(begun: Begun, status: StatusCode, body: Delivery) -> Response<Delivery> {
    let mut response = Response::new(body.headed(begun));
    *response.status_mut() = status;
    response
}

/// What a log is told of the origin's answer.
fn told(what: &What) -> Answer {
    match what {
        What::Stored(stored, _, reusable) | What::Copy(stored, reusable, ..) => {
            Answer::Stored(Arc::clone(stored), reusable.age())
        }
        What::Growing(fetched, _) => Answer::Fetched(Arc::clone(fetched)),
        What::Private(response) | What::Passed(response) => {
            Answer::Alone(Box::new(response.headers().clone()))
        }
        What::Failure(_) => Answer::Untold,
    }
}

/// The status that the origin has just answered with.
fn answered(what: &What) -> Option<StatusCode> {
    match what {
        What::Growing(fetched, _) => Some(fetched.answered),
        What::Private(response) | What::Passed(response) => Some(response.status()),
        What::Stored(..) | What::Copy(..) | What::Failure(_) => None,
    }
}

fn from_store(stored: &StoredResponse, cut: Cut, reusable: &Reusable) -> Draft {
    let mut headers = stored.headers.to_map();
    head::set_age(&mut headers, reusable.age());
    // What another server measured for another request says nothing about this one.
    if !stored.is_bare() {
        headers.remove(head::SERVER_TIMING);
    }
    let length = stored.content.length();
    match cut {
        Cut::NotModified => not_modified(headers),
        Cut::Whole(bytes) if stored.says_length() && bytes.len() as u64 == length => {
            Draft { status: stored.status, headers, content: Content::Whole(bytes) }
        }
        Cut::Whole(bytes) => whole(stored.status, headers, bytes),
        Cut::Part(span, bytes) => {
            set_content_range(&mut headers, span, length);
            pieces(headers, span.len(), bytes)
        }
        Cut::Parts(parts) => several(headers, parts, length),
        Cut::Unsatisfiable => unsatisfiable(headers, length),
    }
}

fn copy(stored: &StoredResponse, reusable: &Reusable, form: Form, body: Option<Bytes>) -> Draft {
    let mut headers = stored.headers.to_map();
    head::set_age(&mut headers, reusable.age());
    headers.remove(head::SERVER_TIMING);
    match form {
        Form::Decoded => coding::head::decoded(&mut headers),
        Form::Encoded(coding) => coding::head::encoded(&mut headers, coding),
    }
    match body {
        Some(body) => whole(stored.status, headers, body),
        None => not_modified(headers),
    }
}

fn growing(asked: Option<&Asked>, fetched: &Fetched, own: Own, age: Option<std::time::Duration>) -> Draft {
    let Own { reader, withheld } = own;
    let mut headers = fetched.headers.clone();
    headers.extend(withheld);
    if let Some(age) = age {
        head::set_age(&mut headers, age);
    }
    if asked.is_some_and(|asked| is_not_modified(asked, &fetched.facts)) {
        return not_modified(headers);
    }
    // Which bytes a part is can be told only where the length of the whole is known.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let (Some(asked), Some(length), StatusCode::OK) = (asked, length, fetched.status) {
        match stored::resolve(&asked.facts, &asked.headers, &fetched.facts, length) {
            Resolved::Part(span) => return stretch(headers, reader, span, length),
            Resolved::Unsatisfiable => return unsatisfiable(headers, length),
            // §14.2: "A server MAY ignore the Range header field". They would have to be gathered.
            Resolved::Parts(_) | Resolved::Whole => {}
        }
    }
    Draft { status: fetched.status, headers, content: Content::Growing(reader) }
}

fn is_not_modified(asked: &Asked, facts: &ResponseFacts) -> bool {
    stored::is_not_modified(&asked.facts, &asked.headers, facts)
}

/// A part of a body that is on its way as a whole.
fn stretch(mut headers: HeaderMap, reader: Reader, span: Span, length: u64) -> Draft {
    set_content_range(&mut headers, span, length);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(span.len()));
    headers.remove(header::TRAILER);
    let content = Content::GrowingPart(Stretch::new(reader, span));
    Draft { status: StatusCode::PARTIAL_CONTENT, headers, content }
}

fn private(asked: Option<&Asked>, response: Response<OriginBody>, worker: &Worker) -> Draft {
    // Read for those alone who hold something: it takes as long as a stored response to be found.
    let is_not_modified = asked.filter(|asked| asked.facts.may_hold_it()).is_some_and(|asked| {
        let now = worker.now();
        let facts = ResponseFacts::of(response.status().as_u16(), response.headers(), now, now);
        is_not_modified(asked, &facts)
    });
    let draft = passed(response);
    if is_not_modified { not_modified(draft.headers) } else { draft }
}

fn passed(mut response: Response<OriginBody>) -> Draft {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        hop::remove_hop_by_hop(response.headers_mut());
    }
    unchanged(response)
}

fn unchanged(response: Response<OriginBody>) -> Draft {
    let (parts, body) = response.into_parts();
    let content = if body.is_end_stream() { Content::Empty } else { Content::Origin(Box::new(body)) };
    Draft { status: parts.status, headers: parts.headers, content }
}

fn own_answer(failure: &Failure) -> Draft {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.close {
        // Without a meaning in HTTP/2, where hyper removes it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(failure.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NO_CONTENT) {
        let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    whole(failure.status, headers, failure.json().into())
}

/// The answer to a request in which Larder itself failed, and of which nothing else is left.
pub(super) fn bug() -> Response<Full<Bytes>> {
    let failure = Failure::internal();
    let draft = own_answer(&failure);
    let mut response = Response::new(Full::new(Bytes::from(failure.json())));
    *response.status_mut() = draft.status;
    *response.headers_mut() = draft.headers;
    response
}

fn whole(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Draft {
    // RFC 9110 §8.6: no Content-Length in a 204; a 304 that was stored has no body of its own.
    if status != StatusCode::NO_CONTENT && !stored::says_length(&headers, body.len() as u64) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Draft { status, headers, content: Content::Whole(body) }
}

fn not_modified(mut headers: HeaderMap) -> Draft {
    let untagged = !headers.contains_key(header::ETAG);
    let unwanted: Vec<_> = headers.keys().filter(|name| !head::is_kept(name, untagged)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
    Draft { status: StatusCode::NOT_MODIFIED, headers, content: Content::Empty }
}

fn set_content_range(headers: &mut HeaderMap, span: Span, length: u64) {
    let text = format!("bytes {}-{}/{length}", span.first, span.last);
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::CONTENT_RANGE, value);
    }
}

fn pieces(mut headers: HeaderMap, length: u64, pieces: Vec<Bytes>) -> Draft {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let content = Content::Pieces(pieces.into());
    Draft { status: StatusCode::PARTIAL_CONTENT, headers, content }
}

/// RFC 9110 §15.3.7.2: the ranges stand in the parts, and nowhere else.
fn several(mut headers: HeaderMap, parts: Vec<(Span, Vec<Bytes>)>, length: u64) -> Draft {
    let framed = multipart::frame(parts, length, headers.get(header::CONTENT_TYPE));
    if let Ok(value) = HeaderValue::from_str(&framed.content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let total = framed.pieces.iter().map(|piece| piece.len() as u64).sum();
    pieces(headers, total, framed.pieces)
}

/// What of a stored response has no place in a 416.
const NOT_OF_A_416: [HeaderName; 14] = [
    header::AGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::SET_COOKIE,
    header::TRAILER,
    targeted::LARDER_CACHE_CONTROL,
    targeted::CDN_CACHE_CONTROL,
    groups::CACHE_GROUPS,
    no_vary_search::NO_VARY_SEARCH,
];

/// RFC 9110 §15.5.17.
fn unsatisfiable(mut headers: HeaderMap, length: u64) -> Draft {
    // What is said of the representation, and of how long it may be kept: a cache behind this one, which
    // does not key on ranges, must not give one client's mistake to others.
    for name in NOT_OF_A_416 {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    whole(StatusCode::RANGE_NOT_SATISFIABLE, headers, Bytes::new())
}
