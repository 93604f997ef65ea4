//! Why nothing comes of a request for others, as far as the request and its route decide that.
//!
//! For who asks about a URL that nothing is stored of yet, and for who has been told that what the origin answered
//! could not be stored: the origin is not to blame for what the request carries.
//! Must not know: what the origin answers.

use http::Method;

use crate::rules::{Authorization, NotStored, Policy};
use crate::store::Class;
use crate::telemetry::{Detail, Miss, Source};
use crate::worker::Asked;

use super::predict::Prediction;

/// Why what a request brings is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeptOut {
    /// It carries `Cookie` or `Authorization`, and the route leaves it to the origin whom the answer is for.
    Credentials(NotStored),
    /// It chooses what it wants by these fields, and `Vary` would have to name them.
    Chosen(Vec<String>),
    /// It has a condition that is the origin's to judge.
    Condition,
    /// A HEAD's answer has nothing to store; nor would a GET's be stored, where there is a reason.
    Head(Option<Box<Self>>),
    /// Several ranges are passed on as they come.
    Ranges,
}

impl KeptOut {
    /// Of a request that goes to the origin since nothing is stored for it; else `None`.
    pub(super) fn of(predicted: &Prediction) -> Option<Self> {
        let nothing_stored =
            predicted.outcome.source == Source::Miss(Miss::Uri) && predicted.because.is_none();
        let exchange = predicted.exchange.as_ref().filter(|_| nothing_stored)?;
        let (asked, policy) = (&exchange.asked, &exchange.cache()?.policy);
        let as_get = || Self::of_get(predicted, asked, exchange.class(), policy);
        match asked.method == Method::HEAD {
            true => Some(Self::Head(as_get().map(Box::new))),
            false => as_get(),
        }
    }

    /// The same but for what a HEAD is.
    fn of_get(predicted: &Prediction, asked: &Asked, class: Class, policy: &Policy) -> Option<Self> {
        if asked.facts.has_precondition() {
            return Some(Self::Condition);
        }
        match predicted.outcome.detail {
            Some(Detail::NotStored(NotStored::Range)) => return Some(Self::Ranges),
            Some(Detail::HitForMiss(NotStored::Cookie | NotStored::Authorization | NotStored::Unvaried)) => {}
            // The origin's answer was to blame.
            Some(Detail::HitForMiss(_)) => return None,
            _ => {}
        }
        if class.has_credentials() {
            let by_user = asked.facts.has_authorization && policy.authorization == Authorization::Bypass;
            return Some(Self::Credentials(if by_user {
                NotStored::Authorization
            } else {
                NotStored::Cookie
            }));
        }
        let names = || asked.facts.chosen_by.iter().map(|name| name.as_str().to_owned()).collect();
        class.chooses().then(|| Self::Chosen(names()))
    }

    /// The word for it, as `detail` has it where there is one.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Credentials(why) => why.as_str(),
            Self::Chosen(_) => NotStored::Unvaried.as_str(),
            Self::Condition => "condition",
            Self::Head(_) => NotStored::Head.as_str(),
            Self::Ranges => NotStored::Range.as_str(),
        }
    }

    /// The clause, and a sentence to follow what is known of the key.
    pub(super) fn why(&self) -> (&'static str, String) {
        match self {
            Self::Credentials(NotStored::Authorization) => ("RFC 9111 §3.5", for_one("Authorization")),
            Self::Credentials(_) => ("RFC 9111 §3", for_one("Cookie")),
            Self::Chosen(names) => (
                "RFC 9111 §4.1",
                format!(
                    "what a request with {} brings is stored only if the origin's Vary names that",
                    names.join(" and ")
                ),
            ),
            Self::Condition => (
                "RFC 9110 §13.1",
                "what a request with a condition that is the origin's to judge brings is not stored"
                    .to_owned(),
            ),
            Self::Head(Some(as_get)) => {
                let (rfc, why) = as_get.why();
                let why = format!(
                    "what a HEAD brings has no content to store; were it a GET (`explain GET` says more), {why}"
                );
                (rfc, why)
            }
            Self::Head(None) => (
                "RFC 9111 §3",
                "what a HEAD brings has no content to store; whether what a GET brings is stored, `explain GET` \
                 says"
                    .to_owned(),
            ),
            Self::Ranges => {
                ("RFC 9111 §3.3", "what a request for several ranges brings is not stored".to_owned())
            }
        }
    }
}

fn for_one(name: &str) -> String {
    format!(
        "what a request with {name} brings is stored only if the origin itself says that it is for all, as by `public` \
         or `s-maxage`; `ttl.default` says no such thing"
    )
}
