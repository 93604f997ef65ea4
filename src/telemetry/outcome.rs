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

impl Tier {
    /// Both tiers, in the order they are asked.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Redis];

    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
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
    /// Not all that the request asks for is stored.
    Partial,
    /// The request asked for the origin's word (`no-cache`, `max-age`, `min-fresh`), or what is
    /// stored may not answer this request.
    Request,
}

impl Miss {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 5] = [Self::Uri, Self::Vary, Self::Stale, Self::Partial, Self::Request];

    /// The word of RFC 9211 §2.2, for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri-miss",
            Self::Vary => "vary-miss",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Request => "request",
        }
    }
}

/// Why a request never looked into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The method is not one whose requests use the cache.
    Method,
    /// The route says `cache = false`.
    Off,
    /// The request carries `Cookie` and the route says `cookies = "bypass"`, or what is stored does
    /// not allow sharing.
    Cookie,
    /// The request carries `Authorization` and what is stored does not allow sharing, or another field that
    /// says who the user is and is not part of the key.
    Authorization,
    /// The request asks for an upgrade.
    Upgrade,
    /// The GET carries a body.
    Body,
    /// The request said `no-store`.
    RequestNoStore,
    /// The path holds dot segments, or its key is another route's: which resource it means, and so
    /// which route's rules hold for it, is the origin's to say.
    Path,
    /// The content, which would be part of the key, is larger than the route's `max_request_body`.
    LargeBody,
    /// A POST that may ask for a change: a GraphQL operation other than a query, or one that cannot be
    /// told.
    MayChange,
}

impl Bypass {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 10] = [
        Self::Method,
        Self::Off,
        Self::Cookie,
        Self::Authorization,
        Self::Upgrade,
        Self::Body,
        Self::RequestNoStore,
        Self::Path,
        Self::LargeBody,
        Self::MayChange,
    ];

    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Off => "off",
            Self::Cookie => "cookie",
            Self::Authorization => "authorization",
            Self::Upgrade => "upgrade",
            Self::Body => "body",
            Self::RequestNoStore => "request-no-store",
            Self::Path => "path",
            Self::LargeBody => "large-body",
            Self::MayChange => "may-change",
        }
    }
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
    /// The same, of an origin that failed another request a moment ago, and was not asked for this one.
    StaleAfterError,
    /// Stored, and confirmed by the origin with a 304.
    Revalidated(Miss),
    /// Forwarded.
    Miss(Miss),
    /// Forwarded without looking.
    Bypass(Bypass),
    /// Answered by Larder itself: no route, a loop, a refused request.
    Local,
    /// The cache could not answer and the origin failed; Larder answered in its place.
    Failed(Miss),
    /// The same, of a request that did not ask the cache.
    FailedBypass(Bypass),
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
    /// It is stored, and the oldest of the URL's variants given up for it (`cache.variants`).
    VariantsCapped,
    /// Another word, fixed at compile time: a failure's name.
    Word(&'static str),
}

/// [`Source`] without its particulars: the closed set behind the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fresh from a tier.
    Hit,
    /// Stale from a tier, while it is refreshed.
    Stale,
    /// Stale from a tier, because the origin failed.
    StaleIfError,
    /// Stored, and confirmed by the origin.
    Revalidated,
    /// Looked up, and answered by the origin.
    Miss,
    /// Forwarded without looking.
    Bypass,
    /// Answered by Larder itself.
    Local,
    /// The origin failed and Larder answered in its place.
    Failed,
}

impl Kind {
    /// Every kind, for metrics and documentation.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::StaleIfError,
        Self::Revalidated,
        Self::Miss,
        Self::Bypass,
        Self::Local,
        Self::Failed,
    ];

    /// The word for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::StaleIfError => "stale-if-error",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Local => "local",
            Self::Failed => "failed",
        }
    }
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

impl Outcome {
    /// An outcome of which only the source is known yet.
    pub const fn new(source: Source) -> Self {
        Self { source, fwd_status: None, ttl: None, stored: false, collapsed: false, detail: None }
    }

    /// The source without its particulars.
    pub const fn kind(&self) -> Kind {
        match self.source {
            Source::Hit(_) => Kind::Hit,
            Source::StaleWhileRevalidate(_) => Kind::Stale,
            Source::StaleIfError | Source::StaleAfterError => Kind::StaleIfError,
            Source::Revalidated(_) => Kind::Revalidated,
            Source::Miss(_) => Kind::Miss,
            Source::Bypass(_) => Kind::Bypass,
            Source::Local => Kind::Local,
            Source::Failed(_) | Source::FailedBypass(_) => Kind::Failed,
        }
    }

    /// The label `result`: `hit`, `stale`, `stale-if-error`, `revalidated`, `miss`, `bypass`,
    /// `local` or `failed`.
    pub const fn result(&self) -> &'static str {
        self.kind().as_str()
    }

    /// The value of `X-Cache`; none where Larder itself answered, since no cache was in play.
    pub const fn x_cache(&self) -> Option<&'static str> {
        match self.kind() {
            Kind::Hit => Some("HIT"),
            Kind::Stale | Kind::StaleIfError => Some("STALE"),
            Kind::Revalidated => Some("REVALIDATED"),
            Kind::Miss => Some("MISS"),
            Kind::Bypass => Some("BYPASS"),
            Kind::Local | Kind::Failed => None,
        }
    }

    /// The tier that answered without the origin.
    pub const fn tier(&self) -> Option<Tier> {
        match self.source {
            Source::Hit(tier) | Source::StaleWhileRevalidate(tier) => Some(tier),
            _ => None,
        }
    }

    /// Why the cache was looked into and could not answer; none where it answered, stale-if-error
    /// included, and where it was not asked.
    pub const fn missed(&self) -> Option<Miss> {
        match self.source {
            Source::Miss(miss) | Source::Revalidated(miss) | Source::Failed(miss) => Some(miss),
            _ => None,
        }
    }

    /// Whether the key was used: to find the answer, or to find none.
    pub const fn looked(&self) -> bool {
        !matches!(self.source, Source::Bypass(_) | Source::FailedBypass(_) | Source::Local)
    }

    /// Why the cache was not asked.
    pub const fn bypassed(&self) -> Option<Bypass> {
        match self.source {
            Source::Bypass(bypass) => Some(bypass),
            _ => None,
        }
    }

    /// Why the request went forward, for labels and logs: the word of [`Miss`] or [`Bypass`].
    pub fn reason(&self) -> Option<&'static str> {
        match self.source {
            Source::StaleIfError => Some(self.stood_in_for().as_str()),
            _ => self.missed().map(Miss::as_str).or(self.bypassed().map(Bypass::as_str)),
        }
    }

    /// Why the response was not stored, remembered reasons included. Nothing when it is being
    /// stored after all: a remembered "no" may have been overtaken by this response.
    pub const fn not_stored(&self) -> Option<NotStored> {
        match self.detail {
            Some(Detail::NotStored(why) | Detail::HitForMiss(why)) if !self.stored => Some(why),
            _ => None,
        }
    }

    /// Why the origin that failed had been asked: what stood in for it was stale, or was fresh and the
    /// request asked for the origin's word all the same.
    pub(super) fn stood_in_for(&self) -> Miss {
        if self.ttl.is_some_and(|ttl| ttl > 0) { Miss::Request } else { Miss::Stale }
    }

    /// What [`Outcome::detail`] adds, in one word; nothing when it would only repeat the reason.
    pub fn note(&self) -> Option<&'static str> {
        match self.detail? {
            Detail::NotStored(_) | Detail::HitForMiss(_) => self.not_stored().map(NotStored::as_str),
            Detail::MustAsk(why) => Some(why.as_str()).filter(|word| self.reason() != Some(word)),
            Detail::Purged => Some("purged"),
            Detail::VariantsCapped => Some("variants-capped"),
            Detail::Word(word) => Some(word),
        }
    }
}

#[cfg(test)]
pub(super) mod any {
    //! Any outcome at all, for property tests.

    use super::*;
    use proptest::prelude::*;

    pub(in crate::telemetry) fn any_outcome() -> impl Strategy<Value = Outcome> {
        let rest = (any::<Option<u16>>(), any::<Option<i64>>(), any::<bool>(), any::<bool>(), any_detail());
        (any_source(), rest).prop_map(|(source, (fwd_status, ttl, stored, collapsed, detail))| Outcome {
            source,
            fwd_status,
            ttl,
            stored,
            collapsed,
            detail,
        })
    }

    fn any_detail() -> impl Strategy<Value = Option<Detail>> {
        let words = vec!["no-route", "", "9lives", "two words", "a;b", "q\"", "\u{fc}", "line\nbreak"];
        let must_ask = vec![MustAsk::Stale, MustAsk::NoCache, MustAsk::RequestMaxAge, MustAsk::Cookie];
        prop_oneof![
            Just(None),
            Just(Some(Detail::Purged)),
            Just(Some(Detail::VariantsCapped)),
            prop::sample::select(NotStored::ALL.to_vec()).prop_map(|w| Some(Detail::NotStored(w))),
            prop::sample::select(NotStored::ALL.to_vec()).prop_map(|w| Some(Detail::HitForMiss(w))),
            prop::sample::select(must_ask).prop_map(|w| Some(Detail::MustAsk(w))),
            prop::sample::select(words).prop_map(|w| Some(Detail::Word(w))),
        ]
    }

    fn any_source() -> impl Strategy<Value = Source> {
        let tier = || prop::sample::select(Tier::ALL.to_vec());
        let miss = || prop::sample::select(Miss::ALL.to_vec());
        prop_oneof![
            tier().prop_map(Source::Hit),
            tier().prop_map(Source::StaleWhileRevalidate),
            Just(Source::StaleIfError),
            Just(Source::StaleAfterError),
            miss().prop_map(Source::Revalidated),
            miss().prop_map(Source::Miss),
            prop::sample::select(Bypass::ALL.to_vec()).prop_map(Source::Bypass),
            Just(Source::Local),
            miss().prop_map(Source::Failed),
            prop::sample::select(Bypass::ALL.to_vec()).prop_map(Source::FailedBypass),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closed_set_lists_its_members_in_the_order_of_their_numbers() {
        assert!(Tier::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
        assert!(Miss::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
        assert!(Bypass::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
        assert!(Kind::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
        assert!(NotStored::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
    }

    #[test]
    fn each_source_has_its_words() {
        let rows = [
            (Source::Hit(Tier::Memory), Some("HIT"), "hit", Some(Tier::Memory), None),
            (Source::Hit(Tier::Redis), Some("HIT"), "hit", Some(Tier::Redis), None),
            (Source::StaleWhileRevalidate(Tier::Redis), Some("STALE"), "stale", Some(Tier::Redis), None),
            (Source::StaleIfError, Some("STALE"), "stale-if-error", None, Some("stale")),
            (Source::StaleAfterError, Some("STALE"), "stale-if-error", None, None),
            (Source::Revalidated(Miss::Request), Some("REVALIDATED"), "revalidated", None, Some("request")),
            (Source::Miss(Miss::Vary), Some("MISS"), "miss", None, Some("vary-miss")),
            (Source::Bypass(Bypass::Cookie), Some("BYPASS"), "bypass", None, Some("cookie")),
            (Source::Local, None, "local", None, None),
            (Source::Failed(Miss::Uri), None, "failed", None, Some("uri-miss")),
            (Source::FailedBypass(Bypass::Method), None, "failed", None, None),
        ];
        for (source, x_cache, result, tier, reason) in rows {
            let outcome = Outcome::new(source);
            let seen = (outcome.x_cache(), outcome.result(), outcome.tier(), outcome.reason());
            assert_eq!(seen, (x_cache, result, tier, reason), "{source:?}");
        }
    }

    #[test]
    fn a_remembered_no_is_silent_once_the_response_is_stored() {
        let mut outcome = Outcome::new(Source::Miss(Miss::Uri));
        outcome.detail = Some(Detail::HitForMiss(NotStored::NoStore));
        assert_eq!((outcome.note(), outcome.not_stored()), (Some("no-store"), Some(NotStored::NoStore)));
        outcome.stored = true;
        assert_eq!((outcome.note(), outcome.not_stored()), (None, None));
    }
}
