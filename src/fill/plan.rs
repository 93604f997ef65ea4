//! What to ask the origin for: all of a representation, a part, or what is missing of it.
//!
//! Decides by what is wanted and what is stored, does nothing.
//! Must not know: tiers, waiters, the answer.

use http::{HeaderName, HeaderValue, Method, header};

use crate::config;
use crate::fields::range::{RangeSpec, Ranges, Resolved, Span};
use crate::rules::{self, Policy, RangeFetch};
use crate::stored::{Content, Parts, StoredResponse};
use crate::worker::Asked;

/// What a fill is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The whole.
    Whole,
    /// One range of it.
    Part(RangeSpec),
}

/// A question to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// `Range`; none = the whole.
    pub range: Option<RangeSpec>,
    /// `If-Range`, or the conditions that may bring a 304.
    pub conditions: Vec<(HeaderName, HeaderValue)>,
    /// What the stored parts lack: the answer is to be put together with them.
    pub gap: Option<Gap>,
}

/// What is missing of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// What is wanted, of which the rest is stored.
    pub wanted: Span,
    /// What is asked for.
    pub missing: Span,
    /// The whole was wanted, not a range.
    pub whole: bool,
}

/// What to fetch for a request, given what is stored.
pub fn want(asked: &Asked, stored: Option<&StoredResponse>, policy: &Policy, config: &config::Cache) -> Want {
    let Some(Ranges::One(spec)) = asked.facts.ranges else { return Want::Whole };
    let small = |stored: &StoredResponse| stored.content.length() <= config.range_fill;
    match (policy.range, stored.map(|stored| &stored.content)) {
        (RangeFetch::Fill, _) => Want::Whole,
        // To be confirmed as a whole, or replaced.
        (_, Some(Content::Whole(_))) => Want::Whole,
        // By its `If-Range` it is not about what is stored (RFC 9110 §13.1.5).
        (_, Some(_))
            if stored.is_some_and(|stored| !rules::if_range_holds(&asked.headers, &stored.facts)) =>
        {
            Want::Whole
        }
        // `bytes=0-` is how clients ask for a whole of which they would take a part.
        _ if spec == RangeSpec::From(0) => Want::Whole,
        (RangeFetch::Auto, Some(Content::Parts(_)))
            if stored.is_some_and(small) && !covers(asked, stored) =>
        {
            Want::Whole
        }
        _ => Want::Part(spec),
    }
}

/// Whether the parts that are stored hold what the request asks for, fresh or not.
fn covers(asked: &Asked, stored: Option<&StoredResponse>) -> bool {
    stored.is_some_and(|stored| stored.cut(&asked.facts, &asked.headers).is_some())
}

/// The question for `want`.
pub(super) fn plan(want: Want, asked: &Asked, stored: Option<&StoredResponse>) -> Plan {
    // RFC 9110 §13.1.2: of a POST, a validator that matches makes a 412.
    let stored = stored.filter(|_| asked.method != Method::POST);
    let Some(stored) = stored else { return anew(want, asked) };
    let held = stored.headers.to_map();
    let Content::Parts(parts) = &stored.content else {
        let conditions = rules::origin_conditions(&stored.facts, &held);
        // Without a validator there is nothing to ask but for it anew.
        return if conditions.is_empty() {
            anew(want, asked)
        } else {
            Plan { conditions, ..Plan::default() }
        };
    };
    match (wanted(want, parts), rules::our_if_range(&stored.facts, &held)) {
        (Some(wanted), if_range) => match (parts.missing(wanted), if_range) {
            (Some(missing), Some(if_range)) => complete(want, wanted, missing, parts, if_range),
            (Some(_), None) => anew(want, asked),
            // All of it is here, and has to be confirmed.
            (None, _) => {
                let mut plan = anew(want, asked);
                // Beside the client's own: what is no longer confirmed must not bring a part of another
                // representation to who has one of this (RFC 9110 §13.1.5).
                plan.conditions.extend(rules::origin_conditions(&stored.facts, &held));
                plan
            }
        },
        (None, _) => anew(want, asked),
    }
}

/// The question as if nothing were stored. Whether the client's `If-Range` holds is then the origin's
/// to say, and either answer, a part or the whole, is good for everyone.
pub(super) fn anew(want: Want, asked: &Asked) -> Plan {
    let Want::Part(spec) = want else { return Plan::default() };
    let lines = asked.headers.get_all(header::IF_RANGE).iter();
    let conditions = lines.map(|value| (header::IF_RANGE, value.clone())).collect();
    Plan { range: Some(spec), conditions, gap: None }
}

/// What is wanted of the representation, as far as its length tells.
fn wanted(want: Want, parts: &Parts) -> Option<Span> {
    match want {
        Want::Whole => Some(Span { first: 0, last: parts.length().checked_sub(1)? }),
        Want::Part(spec) => match spec.resolve(parts.length()) {
            Resolved::Part(span) => Some(span),
            _ => None,
        },
    }
}

/// RFC 9111 §3.4: "a subsequent range request", for what is missing and nothing else.
fn complete(want: Want, wanted: Span, missing: Span, parts: &Parts, if_range: HeaderValue) -> Plan {
    let to_the_end = missing.end() == parts.length();
    let range = if to_the_end {
        RangeSpec::From(missing.first)
    } else {
        RangeSpec::FromTo(missing.first, missing.last)
    };
    Plan {
        range: Some(range),
        conditions: vec![(header::IF_RANGE, if_range)],
        gap: Some(Gap { wanted, missing, whole: want == Want::Whole }),
    }
}
