//! What became of a request: one value behind the headers, the metric labels and the log words.
//!
//! Knows RFC 9211's names. Must not know: how a response was made, or who reads the words.

use crate::rules::{MustAsk, NotStored};

/// The tier that held a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// In this process (moka).
    Memory,
    /// In the Redis that the fleet shares.
    Redis,
}

/// Why a cacheable request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored for the URL.
    Uri,
    /// Something is stored for the URL, but not for the request's selecting fields.
    Vary,
    /// What is stored is stale.
    Stale,
    /// The request asked for the origin's word (`no-cache`, `max-age`, `min-fresh`), or what is
    /// stored may not answer this request.
    Request,
}

/// Why a request never looked into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The method is neither GET nor HEAD.
    Method,
    /// The route says `cache = false`.
    Off,
    /// The request carries `Cookie` and the route says `cookies = "bypass"`.
    Cookie,
    /// The request asks for an upgrade.
    Upgrade,
    /// The GET carries a body.
    Body,
    /// The request said `no-store`.
    RequestNoStore,
}

/// Where the answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Fresh from a tier.
    Hit(Tier),
    /// Stale from a tier, while it is refreshed (RFC 5861 §3).
    StaleWhileRevalidate(Tier),
    /// Stale from a tier, because the origin failed (RFC 5861 §4).
    StaleIfError,
    /// Stored, and confirmed by the origin with a 304.
    Revalidated(Miss),
    /// Forwarded.
    Miss(Miss),
    /// Forwarded without looking.
    Bypass(Bypass),
    /// Answered by Larder itself: no route, a loop, a refused request.
    Local,
    /// The cache could not answer and the origin failed; Larder answered in its place.
    Failed(Option<Miss>),
}

/// More about the answer, for `detail=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Why it was not stored.
    NotStored(NotStored),
    /// Why what is stored could not answer alone.
    MustAsk(MustAsk),
    /// The key is remembered as uncacheable, for this reason.
    HitForMiss(NotStored),
    /// What was stored has been purged.
    Purged,
    /// Another word, fixed at compile time: a failure's name.
    Word(&'static str),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where the answer came from.
    pub source: Source,
    /// The origin's status where it differs from the one delivered (RFC 9211 §2.3).
    pub fwd_status: Option<u16>,
    /// Freshness left in whole seconds, negative when stale (RFC 9211 §2.4).
    pub ttl: Option<i64>,
    /// The response is being stored (RFC 9211 §2.5).
    pub stored: bool,
    /// The request shared another's fetch (RFC 9211 §2.6).
    pub collapsed: bool,
    /// More, in one word.
    pub detail: Option<Detail>,
}
