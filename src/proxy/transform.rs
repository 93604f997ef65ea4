//! In which form a client gets a response: as it is stored, decoded, or encoded.
//!
//! Knows what the client accepts (RFC 9110 §12.5.3) and what the route encodes. A client is never given
//! what it cannot read: what cannot be decoded for it, the origin is asked for.
//! Must not know: how a form is made, or how the response was found.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::coding::Compress;
use crate::coding::{self, head};
use crate::fields::accept_encoding::AcceptEncoding;
use crate::fields::content_coding::{self, ContentCoding};
use crate::rules::{MustAsk, ResponseFacts, Reusable, SelectingFields};
use crate::stored::{Copy, Cut, Form, StoredResponse};
use crate::telemetry::{Detail, Miss, Outcome, Phase};
use crate::worker::{Asked, Fetched, Shared, Snapshot};

use super::Step;
use super::body::Content;
use super::deliver::{Deliver, Draft};
use super::encoding::{self, Encoding};
use super::exchange::Exchange;
use super::lookup;
use super::pass::Pass;

/// Why the origin is asked although something is stored, or on its way.
pub(super) const CODING: Detail = Detail::MustAsk(MustAsk::Coding);

/// A stored response on its way into another form.
pub(super) struct Transform {
    exchange: Exchange,
    stored: Arc<StoredResponse>,
    cut: Cut,
    reusable: Reusable,
    outcome: Outcome,
    form: Form,
}

/// What a response is shaped by on its way to a client.
pub(super) struct At<'a> {
    pub asked: &'a Asked,
    pub compress: Option<&'a Compress>,
    pub shared: &'a Arc<Shared>,
    pub snapshot: &'a Snapshot,
}

/// What a client is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// What is stored. `varies`: others may get another form of it.
    Stored { varies: bool },
    /// Another form of it.
    Form(Form),
    /// It cannot read what is stored, and nothing else can be made of it.
    Nothing,
}

/// Delivers what is stored, in the form that the client reads.
pub(super) fn deliver(
    exchange: Exchange,
    stored: Arc<StoredResponse>,
    cut: Cut,
    reusable: Reusable,
    outcome: Outcome,
) -> Step {
    let form = match wanted(&exchange, &stored) {
        Wanted::Stored { varies } => {
            let deliver = Deliver::stored(exchange, stored, cut, reusable, outcome);
            return Step::Deliver(Box::new(deliver.varying(varies)));
        }
        Wanted::Form(form) => form,
        Wanted::Nothing => return elsewhere(exchange),
    };
    let transform = Transform { exchange, stored, cut, reusable, outcome, form };
    // A client that holds it already needs no copy; and most copies have been made.
    if transform.cut == Cut::NotModified {
        return transform.given(None);
    }
    match transform.stored.copy(form).cloned() {
        Some(copy) => transform.made(Some(copy)),
        None => Step::Transform(Box::new(transform)),
    }
}

/// Whether the client can be given a stored response without the origin.
pub(super) fn can_read(exchange: &Exchange, stored: &StoredResponse) -> bool {
    stored.facts.coding == ContentCoding::Identity || wanted(exchange, stored) != Wanted::Nothing
}

/// Whether a client that shares another's fetch reads what comes of it. One that says nothing of codings
/// gets what it would get once it is stored: what is decoded then, the origin is asked for now.
pub(super) fn reads(asked: &Asked, fetched: &Fetched) -> bool {
    let coded = fetched.headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let accepts = accepts(&asked.headers, coded, &fetched.facts, &fetched.selecting);
    accepts.unwrap_or_else(|| !has_decoded_form(&fetched.facts))
}

impl Transform {
    /// Waits for the copy, which is made for all who ask for it meanwhile.
    ///
    /// Cancellation: nothing is lost, the copy is made all the same.
    pub async fn run(mut self: Box<Self>) -> Step {
        let began = self.exchange.mono();
        let bound = self.exchange.snapshot.config.cache.max_object;
        let shared = Arc::clone(&self.exchange.worker.shared);
        let copy = shared.copy(&self.stored, self.form, bound).await;
        self.exchange.report.mark(Phase::Coding, began);
        self.made(copy)
    }

    fn made(self, copy: Option<Copy>) -> Step {
        let Self { form, .. } = self;
        match copy {
            Some(Copy::Made(bytes)) => {
                let (from, to) = (self.stored.content.length(), bytes.len() as u64);
                if matches!(form, Form::Encoded(_)) && self.exchange.asked.method != Method::HEAD {
                    self.exchange.worker.shared.press.went_out(from, to);
                }
                self.given(Some(bytes))
            }
            // Larger than as it is, or no time to make it: what is stored does as well.
            Some(Copy::None) | None if matches!(form, Form::Encoded(_)) => self.stays(),
            // RFC 9110 §12.5.3: who says nothing accepts anything.
            _ if AcceptEncoding::of(&self.exchange.asked.headers).is_absent() => self.stays(),
            _ => elsewhere(self.exchange),
        }
    }

    fn given(self, body: Option<bytes::Bytes>) -> Step {
        let Self { exchange, stored, reusable, outcome, form, .. } = self;
        Step::Deliver(Box::new(Deliver::copy(exchange, stored, reusable, outcome, form, body)))
    }

    fn stays(self) -> Step {
        let deliver = Deliver::stored(self.exchange, self.stored, self.cut, self.reusable, self.outcome);
        Step::Deliver(Box::new(deliver.varying(true)))
    }
}

fn wanted(exchange: &Exchange, stored: &StoredResponse) -> Wanted {
    let compress = exchange.route().and_then(|route| route.compress.as_ref());
    wanted_of(&exchange.asked.headers, compress, stored)
}

/// Whether a request gets what is stored as it is, and nobody gets another form of it that its `Vary` does not tell
/// of already.
pub(super) fn is_as_stored(request: &HeaderMap, stored: &StoredResponse) -> bool {
    match wanted_of(request, None, stored) {
        Wanted::Stored { varies } => !varies || head::tells(stored.headers.lines(&VARY)),
        Wanted::Form(_) | Wanted::Nothing => false,
    }
}

fn wanted_of(request: &HeaderMap, compress: Option<&Compress>, stored: &StoredResponse) -> Wanted {
    let (status, facts) = (stored.status, &stored.facts);
    // Of parts there is no other form.
    let whole = stored.content.whole().is_some();
    if facts.coding == ContentCoding::Identity {
        let length = stored.content.length();
        return match compress
            .filter(|compress| whole && compress.takes(status, &stored.headers.to_map(), Some(length)))
        {
            Some(compress) => match compress.choose(request) {
                Some(coding) => Wanted::Form(Form::Encoded(coding)),
                None => Wanted::Stored { varies: true },
            },
            None => Wanted::Stored { varies: false },
        };
    }
    let varies = whole && has_decoded_form(facts);
    let decodable = varies && !coding::no_transform(request);
    match accepts(request, stored.headers.lines(&CONTENT_ENCODING), facts, &stored.selecting) {
        Some(true) => Wanted::Stored { varies },
        _ if decodable && AcceptEncoding::of(request).accepts_identity() => Wanted::Form(Form::Decoded),
        None => Wanted::Stored { varies },
        Some(false) => Wanted::Nothing,
    }
}

/// Whether a response may be decoded for those who do not accept its coding (RFC 9111 §5.2.2.6).
fn has_decoded_form(facts: &ResponseFacts) -> bool {
    !facts.directives.no_transform && matches!(facts.coding, ContentCoding::One(_))
}

/// Whether a request accepts a response's coding; `None` where it says nothing of codings. Then "any
/// content coding is considered acceptable" (RFC 9110 §12.5.3), but who says nothing often reads
/// none: only what the origin has chosen for just such a request is certain to be read.
fn accepts<'a>(
    request: &HeaderMap,
    coded: impl Iterator<Item = &'a [u8]>,
    facts: &ResponseFacts,
    selecting: &SelectingFields,
) -> Option<bool> {
    if facts.coding == ContentCoding::Identity {
        return Some(true);
    }
    let accepts = AcceptEncoding::of(request);
    if accepts.is_absent() {
        return selecting.names().any(|name| name == ACCEPT_ENCODING).then_some(true);
    }
    // §8.4.1: codings "ought to be registered". What is not (`utf-8`, `none`), no client can name: those
    // who use it have agreed on it, or it stands there by mistake; the origin would answer the same.
    let mut negotiated = content_coding::names(coded).filter(|name| content_coding::is_registered(name));
    Some(negotiated.all(|name| accepts.weight(name) > 0))
}

/// Goes to the origin on its own account.
pub(super) fn elsewhere(mut exchange: Exchange) -> Step {
    if exchange.asked.facts.directives.only_if_cached {
        return lookup::only_if_cached(Box::new(exchange));
    }
    exchange.because(CODING);
    Step::Pass(Box::new(Pass::missing(exchange, Miss::Request)))
}

/// Encodes what comes from the origin for one client, where the route says so and the client accepts it.
pub(super) fn passing(exchange: &At<'_>, draft: &mut Draft) {
    let request = &exchange.asked.headers;
    let Some(compress) = exchange.compress else { return };
    if draft.status == StatusCode::NOT_MODIFIED {
        return head::not_modified(&mut draft.headers, request);
    }
    let length = coding::declared_length(&draft.headers);
    if !compress.takes(draft.status, &draft.headers, length) {
        return;
    }
    head::vary(&mut draft.headers);
    // A tag that If-Match named is strong, and so must be that of the answer (RFC 9110 §13.1.1).
    let has_precondition = exchange.asked.facts.has_precondition();
    let Some(coding) = compress.choose(request).filter(|_| !has_precondition) else { return };
    match std::mem::replace(&mut draft.content, Content::Empty) {
        Content::Origin(body) => match Encoding::of(body, coding, exchange.shared) {
            Ok(body) => draft.content = Content::Encoded(Box::new(body)),
            Err(body) => {
                draft.content = Content::Origin(body);
                return;
            }
        },
        // RFC 9110 §9.3.2: a HEAD gets the head that a GET would.
        Content::Empty if exchange.asked.method == Method::HEAD => {}
        other => {
            draft.content = other;
            return;
        }
    }
    head::encoded(&mut draft.headers, coding);
}

/// Encodes what is on its way into the cache, likewise; and says of what is coded that it varies.
pub(super) fn growing(exchange: &At<'_>, fetched: &Arc<Fetched>, draft: &mut Draft) {
    if has_decoded_form(&fetched.facts) {
        return head::vary(&mut draft.headers);
    }
    let Some(compress) = exchange.compress else { return };
    let length = coding::declared_length(&fetched.headers);
    if !compress.takes(fetched.status, &fetched.headers, length) {
        return;
    }
    head::vary(&mut draft.headers);
    let Some(coding) = compress.choose(&exchange.asked.headers) else { return };
    if draft.status == StatusCode::NOT_MODIFIED {
        return head::not_modified(&mut draft.headers, &exchange.asked.headers);
    }
    match std::mem::replace(&mut draft.content, Content::Empty) {
        Content::Growing(_) if exchange.asked.method == Method::HEAD => {}
        Content::Growing(reader) => {
            let (shared, snapshot) = (exchange.shared, exchange.snapshot);
            match encoding::join(fetched, reader, coding, shared, snapshot) {
                Ok(reader) => draft.content = Content::Growing(reader),
                Err(reader) => {
                    draft.content = Content::Growing(reader);
                    return;
                }
            }
        }
        other => {
            draft.content = other;
            return;
        }
    }
    head::encoded(&mut draft.headers, coding);
}
