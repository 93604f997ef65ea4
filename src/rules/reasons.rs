//! Every "no" of the rules, as a closed set.
//!
//! The words are what clients see in `Cache-Status` (`detail=`), what metrics carry as a label and
//! what logs say, so one word means one thing everywhere.
//! Must not know: how any of them is shown.

/// Why a response was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// The method's responses are not stored (RFC 9111 §3).
    Method,
    /// The status is not final, or not one that may be stored without the origin's word.
    Status,
    /// The response says `no-store` (§5.2.2.5).
    NoStore,
    /// The response says `private` (§5.2.2.7).
    Private,
    /// The request said `no-store` (§5.2.1.5).
    RequestNoStore,
    /// The request carried `Authorization` and the response does not allow sharing (§3.5).
    Authorization,
    /// The request carried `Cookie` and the origin itself does not allow sharing.
    Cookie,
    /// The response sets a cookie and the route does not allow storing such.
    SetCookie,
    /// `Vary: *`: no request can be known to match (§4.1).
    VaryStar,
    /// Partial content that does not say what it is a part of, or that nobody asked for (§3.3).
    Partial,
    /// No lifetime: the origin said nothing, the route gives no `ttl.default`, and there is no
    /// validator to make it worth keeping.
    NoLifetime,
    /// The body is larger than `max_object`.
    TooLarge,
    /// The bytes in flight are at their limit (`cache.in_flight`).
    InFlightLimit,
    /// The request asked for a range of something not stored.
    Range,
    /// The answer to a `HEAD` request has no body to store.
    Head,
    /// An error that answers a request of unusual size or writing may be due to just that.
    OddRequest,
    /// It has the name of a static file and is something else.
    Deception,
    /// The request had a field by which scripts choose what they want, and `Vary` does not name it.
    Unvaried,
    /// What was stored under its key was not for all: nothing is, for a while (`cache.verify`).
    Quarantined,
}

impl NotStored {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 19] = [
        Self::Method,
        Self::Status,
        Self::NoStore,
        Self::Private,
        Self::RequestNoStore,
        Self::Authorization,
        Self::Cookie,
        Self::SetCookie,
        Self::VaryStar,
        Self::Partial,
        Self::NoLifetime,
        Self::TooLarge,
        Self::InFlightLimit,
        Self::Range,
        Self::Head,
        Self::OddRequest,
        Self::Deception,
        Self::Unvaried,
        Self::Quarantined,
    ];

    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::RequestNoStore => "request-no-store",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::Partial => "partial-content",
            Self::NoLifetime => "no-lifetime",
            Self::TooLarge => "too-large",
            Self::InFlightLimit => "in-flight-limit",
            Self::Range => "range",
            Self::Head => "head",
            Self::OddRequest => "odd-request",
            Self::Deception => "deception",
            Self::Unvaried => "unvaried",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a stored response may not answer a request without asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MustAsk {
    /// Its lifetime is over (§4.2).
    Stale,
    /// It says `no-cache` (§5.2.2.4).
    NoCache,
    /// The request says `no-cache` (§5.2.1.4), or `Pragma: no-cache` (§5.4).
    RequestNoCache,
    /// It is older than the request's `max-age` (§5.2.1.1).
    RequestMaxAge,
    /// It is not fresh for as long as the request's `min-fresh` asks (§5.2.1.3).
    RequestMinFresh,
    /// The request carries `Cookie` and the origin did not allow sharing.
    Cookie,
    /// The request carries `Authorization` and the response does not allow sharing (§3.5).
    Authorization,
    /// It has been purged softly, and not been confirmed since.
    Purged,
    /// It may have been purged by a node that cannot be heard.
    Unheard,
    /// The client does not accept the coding that it is stored in, and a copy without it may or can
    /// not be made (RFC 9110 §12.5.3).
    Coding,
}

impl MustAsk {
    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::Cookie => "cookie",
            Self::Authorization => "authorization",
            Self::Purged => "soft-purged",
            Self::Unheard => "purges-unheard",
            Self::Coding => "coding",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_name_every_reason_for_not_storing() {
        let document = include_str!("../../docs/responses.md");
        // A POST's answer is never looked up, so `method` reaches no client.
        for reason in NotStored::ALL.iter().filter(|reason| **reason != NotStored::Method) {
            assert!(document.contains(&format!("`{}`", reason.as_str())), "{}", reason.as_str());
        }
    }
}
