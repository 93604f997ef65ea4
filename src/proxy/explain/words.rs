//! A verdict in words, each with the clause that it goes by.
//!
//! Must not know: how the verdict was come to.

use serde_json::{Value, json};

use crate::rules::MustAsk;
use crate::telemetry::{Bypass, Detail, Miss, Outcome, Source, Tier};

use super::kept_out::KeptOut;
use super::predict::Prediction;

/// What becomes of the request, and why.
pub(super) fn verdict(predicted: &Prediction) -> Value {
    let outcome = &predicted.outcome;
    let or = predicted.or.map(Outcome::new);
    let kept_out = KeptOut::of(predicted);
    let (rfc, why) = why(predicted, kept_out.as_ref());
    json!({
        "outcome": outcome.result(),
        "or": or.map(|or| or.result()),
        "x_cache": outcome.x_cache(),
        "tier": outcome.tier().map(Tier::as_str),
        "reason": outcome.reason(),
        "detail": outcome.note(),
        "not_stored": kept_out.as_ref().map(KeptOut::word),
        "ttl": outcome.ttl,
        "status": predicted.failure.as_ref().map(|failure| failure.status.as_u16()),
        "rfc": rfc,
        "why": why,
    })
}

fn why(predicted: &Prediction, kept_out: Option<&KeptOut>) -> (&'static str, String) {
    let of = |rfc, why: &str| (rfc, why.to_owned());
    match predicted.outcome.source {
        Source::Hit(_) => of("RFC 9111 §4.2", "what is stored is fresh, and answers"),
        Source::StaleWhileRevalidate(_) => of(
            "RFC 5861 §3",
            "what is stored is past its lifetime, and answers while the origin is asked anew",
        ),
        Source::StaleAfterError => of("RFC 9111 §4.2.4", "the origin failed another request a moment ago"),
        Source::Bypass(why) => bypass(why),
        Source::Local if predicted.outcome.detail == Some(Detail::Word("options")) => options(predicted),
        Source::Local => {
            let message = predicted.failure.as_ref().map(|failure| failure.message.clone());
            let only_if_cached = predicted.outcome.detail == Some(Detail::Word("only-if-cached"));
            let rfc = if only_if_cached { "RFC 9111 §5.2.1.7" } else { "RFC 9110 §15" };
            (rfc, message.unwrap_or_default())
        }
        Source::Miss(miss) | Source::Revalidated(miss) | Source::Failed(miss) => {
            missed(predicted, miss, kept_out)
        }
        Source::StaleIfError | Source::FailedBypass(_) => of("RFC 9111 §4.2.4", "the origin has failed"),
    }
}

/// Why an OPTIONS goes no further: its answer has no words of its own.
fn options(predicted: &Prediction) -> (&'static str, String) {
    let of_the_server = predicted.asked.as_ref().is_some_and(|asked| asked.target.path() == "*");
    let (rfc, why) = match of_the_server {
        true => (
            "RFC 9110 §9.3.7",
            "`OPTIONS *` asks about the server as such, and that is this Larder: it answers 204, and asks no origin",
        ),
        false => (
            "RFC 9110 §7.6.2",
            "the request says that it may go no further (Max-Forwards: 0): this Larder answers 204, and asks no origin",
        ),
    };
    (rfc, why.to_owned())
}

fn missed(predicted: &Prediction, miss: Miss, kept_out: Option<&KeptOut>) -> (&'static str, String) {
    let known = match predicted.outcome.detail {
        Some(Detail::HitForMiss(why)) => Some(why),
        _ => None,
    };
    if let Some(kept_out) = kept_out {
        let (rfc, why) = kept_out.why();
        let before = match (known, predicted.outcome.detail) {
            (Some(_), _) => "the last one like this brought nothing to store, so it goes alone:",
            (None, Some(Detail::Purged)) => "what was stored has been purged, and",
            (None, _) => "nothing is stored under the key, and",
        };
        return (rfc, format!("{before} {why}"));
    }
    if let Some(why) = known {
        let text = format!(
            "what the origin last answered could not be stored ({}): its requests go alone",
            why.as_str()
        );
        return ("RFC 9111 §3", text);
    }
    let (rfc, why) = match (miss, predicted.because) {
        (_, Some(because)) => asked(because),
        (Miss::Uri, _) if predicted.outcome.detail == Some(Detail::Purged) => {
            ("RFC 9111 §4.4", "what was stored has been purged")
        }
        (Miss::Uri, _) => ("RFC 9111 §4", "nothing is stored under the key"),
        (Miss::Vary, _) => (
            "RFC 9111 §4.1",
            "what is stored is for requests with other values of the fields that Vary names",
        ),
        (Miss::Partial, _) => ("RFC 9111 §3.3", "not all that the request asks for is stored"),
        (Miss::Stale, _) => asked(MustAsk::Stale),
        (Miss::Request, _) => ("RFC 9110 §13.1", "the request has a condition that is the origin's to judge"),
    };
    (rfc, why.to_owned())
}

const fn asked(because: MustAsk) -> (&'static str, &'static str) {
    match because {
        MustAsk::Stale => {
            ("RFC 9111 §4.2", "what is stored is past its lifetime: the origin has to confirm it")
        }
        MustAsk::NoCache => {
            ("RFC 9111 §5.2.2.4", "what is stored says no-cache: the origin has to confirm each use")
        }
        MustAsk::RequestNoCache => ("RFC 9111 §5.2.1.4", "the request says no-cache"),
        MustAsk::RequestMaxAge => ("RFC 9111 §5.2.1.1", "what is stored is older than the request's max-age"),
        MustAsk::RequestMinFresh => {
            ("RFC 9111 §5.2.1.3", "what is stored is not fresh for as long as the request's min-fresh asks")
        }
        MustAsk::Cookie => (
            "RFC 9111 §3",
            "the request carries Cookie, and the origin has not said that what is stored is for all",
        ),
        MustAsk::Authorization => (
            "RFC 9111 §3.5",
            "the request carries Authorization, and what is stored is not said to be for all",
        ),
        MustAsk::Purged => {
            ("RFC 9111 §4.3", "what is stored was purged softly: the origin has to confirm it")
        }
        MustAsk::Unheard => {
            ("RFC 9111 §4.3", "purges of the fleet cannot be heard: the origin has to confirm what is stored")
        }
        MustAsk::Coding => (
            "RFC 9110 §12.5.3",
            "the client does not accept the coding that is stored, and it cannot be decoded",
        ),
    }
}

fn bypass(why: Bypass) -> (&'static str, String) {
    let (rfc, why) = match why {
        Bypass::Method => ("RFC 9111 §4", "requests of this method do not use the cache of this route"),
        Bypass::Off => ("RFC 9111 §3", "the route says cache = false"),
        Bypass::Cookie => (
            "RFC 9111 §3",
            "the request carries Cookie, and neither the route nor what is stored allows sharing",
        ),
        Bypass::Authorization => (
            "RFC 9111 §3.5",
            "the request says who its user is, and neither the route nor what is stored allows sharing",
        ),
        Bypass::Upgrade => ("RFC 9110 §7.8", "the request asks to leave HTTP for another protocol"),
        Bypass::Body => ("RFC 9110 §9.3.1", "the request has a content that is not part of the key"),
        Bypass::RequestNoStore => ("RFC 9111 §5.2.1.5", "the request says no-store"),
        Bypass::Path => {
            ("RFC 3986 §6.2.2", "the path may mean another resource to the origin than to this route's key")
        }
        Bypass::LargeBody => ("RFC 10008", "the content is larger than what may be part of the key"),
        Bypass::MayChange => ("RFC 9110 §9.2.1", "the content may ask for a change"),
    };
    (rfc, why.to_owned())
}
