//! What a fill tells those who wait for it.
//!
//! [`Landing`] is what everyone on a flight may see. [`ForOwner`] may carry more: only the owner
//! may receive a response that is not storable, so private data cannot leak through collapsing.
//! Must not know: how either side comes to it, or goes on from it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;

use crate::fields::content_coding::Coding;
use crate::fields::range::RangeSpec;
use crate::flight::{Growing, Reader};
use crate::rules::{MustAsk, NotStored, ResponseFacts, SelectingFields};
use crate::stored::{CacheKey, Copies, Standing, StoredResponse};
use crate::upstream::{ForwardError, OriginBody};

/// What a fill came to, for everyone who waits.
#[derive(Clone, Debug)]
pub enum Landing {
    /// A storable response whose body may still be growing.
    Fetched(Arc<Fetched>),
    /// The shared tier had it.
    Found(Arc<StoredResponse>),
    /// The origin confirmed what was stored.
    Revalidated(Arc<StoredResponse>),
    /// The origin failed, and what was stored may stand in; with the status it failed with.
    StaleIfError(Arc<StoredResponse>, Option<u16>),
    /// The response cannot be shared: everyone goes alone.
    NotStorable(NotStored),
    /// There was no response.
    Failed(Arc<ForwardError>),
}

/// A storable response on its way into the cache.
#[derive(Debug)]
pub struct Fetched {
    /// Its status.
    pub status: StatusCode,
    /// The status that the origin answered with: of a rest that completes stored parts it is another.
    pub answered: StatusCode,
    /// Its fields, as they will be stored, and the `Trailer` that announces what comes after its body.
    pub headers: HeaderMap,
    /// What the caching rules need to know of it.
    pub facts: ResponseFacts,
    /// Which requests it answers.
    pub selecting: SelectingFields,
    /// What it will be stored under.
    pub key: CacheKey,
    /// By what purges judge it.
    pub standing: Arc<Standing>,
    /// Another variant of its key will be given up for it.
    pub displaces: bool,
    /// The range that it is the answer to, where it is a part.
    pub part: Option<RangeSpec>,
    /// It is kept, if it comes to its end and is not too large.
    pub kept: bool,
    /// Its body.
    pub body: Growing,
    /// The same in other codings.
    pub forms: Forms,
}

/// A body on its way in other codings, as far as somebody has asked for it so.
#[derive(Debug, Default)]
pub struct Forms {
    /// Where they are kept when they are complete.
    pub copies: Arc<Copies>,
    /// Those under way.
    pub encoded: Mutex<Vec<(Coding, Growing)>>,
}

/// What a fill tells its owner.
pub struct ForOwner {
    /// What it came to.
    pub landing: OwnerLanding,
    /// Where the time went.
    pub times: FillTimes,
    /// What the shared tier had.
    pub looked: Looked,
}

/// What the shared tier had for the owner's request, where that did not answer it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Looked {
    /// Nothing, or it was not asked.
    #[default]
    Nothing,
    /// Something for other selecting fields.
    OtherVariant,
    /// Something that may answer only once the origin has confirmed it.
    MustAsk(MustAsk),
    /// Something that may not answer this request at all.
    Refused(MustAsk),
    /// Not all that is asked for.
    Partial,
}

/// What a fill came to, for its owner.
pub enum OwnerLanding {
    /// What everyone gets. With [`Landing::Fetched`] comes what is the owner's own.
    Shared(Landing, Option<Own>),
    /// The origin confirmed what was stored, which everyone gets, by a 304 with these fields for the one whose
    /// request asked.
    Revalidated(Arc<StoredResponse>, HeaderMap),
    /// The same, but the origin took back its leave to keep it: for the one whose request asked.
    Withdrawn(Arc<StoredResponse>, HeaderMap, NotStored),
    /// A response that nobody else may see.
    Private(Box<Response<OriginBody>>, NotStored),
}

/// What the owner alone has of a [`Fetched`].
#[derive(Debug)]
pub struct Own {
    /// Its reader, seated before the first byte.
    pub reader: Reader,
    /// The fields that may not be stored: those that `private` or `no-cache` name (RFC 9111
    /// §5.2.2.7, "limited to a single user": this one), and a `Set-Cookie` that the route strips.
    pub withheld: HeaderMap,
}

/// Where a fill's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillTimes {
    /// Asking the shared tier.
    pub redis: Option<Duration>,
    /// Waiting for another node's fetch.
    pub lease: Option<Duration>,
    /// Waiting for a free connection.
    pub queue: Option<Duration>,
    /// Connecting, where no connection stood.
    pub connect: Option<Duration>,
    /// Waiting for a first server before a second one was asked, which has answered.
    pub hedge: Option<Duration>,
    /// From the request to the response's head.
    pub first_byte: Option<Duration>,
}
