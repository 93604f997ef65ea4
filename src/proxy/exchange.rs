//! One request on its way through the client side.
//!
//! Knows what every step needs: the request, its route, its key, its report.
//! Must not know: the order of the steps.

use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use tokio::sync::oneshot;

use crate::clock::{Mono, Timestamp};
use crate::config::{Route, RouteCache};
use crate::fill::outbound::Alike;
use crate::fill::{self, Fill, Want};
use crate::flight::Owner;
use crate::interim::Interim;
use crate::rules::{self, Authorization, Cookies, Normalize, RequestFacts, ResponseFacts};
use crate::store::Class;
use crate::stored::{CacheKey, Group, StoredResponse};
use crate::telemetry::{Cause, Detail, Miss, Outcome, Source};
use crate::upstream::RequestBody;
use crate::worker::{Asked, Content, ForOwner, Landing, Snapshot, Worker};

use super::lookup;
use super::report::Report;
use super::short::Seen;

/// A request with a route.
pub(super) struct Exchange {
    pub worker: Arc<Worker>,
    pub snapshot: Arc<Snapshot>,
    /// Index of the route.
    pub route: usize,
    pub asked: Arc<Asked>,
    /// What others that are like it have been passed on with. Of a plain request alone, whose answer is written without
    /// hyper, and which takes a head that has been begun (`head::Begun`).
    pub alike: Option<Alike>,
    /// What it would be stored under.
    pub key: CacheKey,
    /// What memory held under it just now, where it has been looked at and nothing was made of that yet.
    pub seen: Option<Seen>,
    /// The key of this very URL, where `key` is that of several queries (`No-Vary-Search`).
    pub exact: Option<CacheKey>,
    /// The request's own body; only a pass uses it.
    pub body: Option<RequestBody>,
    /// The content, where it is part of the key: of a request that only reads.
    pub content: Option<Content>,
    pub report: Box<Report>,
    /// The way for interim responses to its client, where it takes them.
    pub interim: Option<Interim>,
    /// How often it has sat down with a flight that then had nothing for it.
    pub attempts: u8,
    /// What it last sat down with had begun before a purge that came before the request: the number of the purge that
    /// it had begun after, and one. All who have found the same share what comes instead; 0 where there is none.
    pub after: u64,
    /// The selecting fields' names, learned from a response in flight.
    pub names: Option<Vec<HeaderName>>,
    /// Fields for its client alone, beside what is stored.
    pub own: Option<Box<HeaderMap>>,
    /// How long it has waited for what others had begun.
    pub waited: Duration,
    /// A word for `detail=`, learned on the way.
    pub detail: Option<Detail>,
}

impl Exchange {
    /// Notes why the cache alone could not answer.
    pub fn because(&mut self, detail: Detail) {
        self.detail = Some(detail);
        self.report.cause = Cause::of_detail(detail).or(self.report.cause);
    }

    pub fn mono(&self) -> Mono {
        self.worker.mono()
    }

    /// The same, where there is a word for it.
    pub fn because_of(&mut self, detail: Option<Detail>) {
        if let Some(detail) = detail {
            self.because(detail);
        }
    }

    /// The wall's time at a moment since the request arrived.
    pub fn wall(&self, at: Mono) -> Timestamp {
        self.asked.at.saturating_add(at.since(self.report.timeline.start()))
    }

    pub fn cache(&self) -> Option<&RouteCache> {
        self.snapshot.cache(self.route)
    }

    /// Which of the request's fields are taken by their meaning.
    pub fn normalize(&self) -> Normalize {
        self.cache().map(|cache| cache.policy.normalize).unwrap_or_default()
    }

    pub fn route(&self) -> Option<&Route> {
        self.snapshot.route(self.route)
    }

    /// Bytes that the request's content may have.
    pub fn max_body(&self) -> u64 {
        self.route().map_or(u64::MAX, |route| route.max_body)
    }

    /// Whether it carries credentials that the route neither keys on nor ignores.
    pub fn class(&self) -> Class {
        self.class_of(&self.asked.facts)
    }

    fn class_of(&self, facts: &RequestFacts) -> Class {
        let Some(policy) = self.cache().map(|cache| &cache.policy) else { return Class::Plain };
        let cookie = facts.has_cookie && matches!(policy.cookies, Cookies::Origin | Cookies::Bypass);
        let authorization = facts.has_authorization && policy.authorization == Authorization::Bypass;
        Class::of(cookie || authorization, !facts.chosen_by.is_empty())
    }

    /// The request as it would be without its cookie, and without the fields by which it chose, where these keep
    /// it from bringing anything in place of what is stored. A refresh is on behalf of all, and of nobody's cookie;
    /// else what only those with a cookie ask for would never be refreshed.
    pub fn for_all(&self, stored: &StoredResponse) -> Option<(Asked, Class)> {
        let (facts, policy) = (&self.asked.facts, &self.cache()?.policy);
        if rules::storing::brought_for_all(facts, &stored.facts, policy).is_ok() {
            return None;
        }
        let (mut headers, mut facts) = (HeaderMap::clone(&self.asked.headers), facts.clone());
        for name in rules::storing::unvaried(&self.asked.facts, &stored.facts) {
            headers.remove(name);
            facts.chosen_by.retain(|kept| kept != name);
        }
        // Beside credentials that may be shared, a cookie is one user's with them.
        if !facts.has_authorization && rules::storing::brought_for_all(&facts, &stored.facts, policy).is_err()
        {
            headers.remove(COOKIE);
            facts.has_cookie = false;
        }
        let class = self.class_of(&facts);
        Some((Asked { headers: headers.into(), facts, ..Asked::clone(&self.asked) }, class))
    }

    /// What to fetch for it, given what is stored.
    pub fn want(&self, stored: Option<&StoredResponse>) -> Want {
        let config = &self.snapshot.config.cache;
        self.cache().map_or(Want::Whole, |cache| fill::want(&self.asked, stored, &cache.policy, config))
    }

    /// Who may be sent the origin's interim responses to this request: its client, without the fields
    /// that the route removes from responses or writes itself, its tags among them.
    pub fn interim(&self) -> Option<Interim> {
        self.interim.clone().map(|interim| interim.without(self.snapshot.withheld(self.route)))
    }

    /// A fetch on behalf of this request and of everyone who waits for the same.
    pub fn fill(
        &self,
        want: Want,
        stale: Option<Arc<StoredResponse>>,
        seat: Owner<Landing>,
        owner: Option<oneshot::Sender<ForOwner>>,
    ) -> Fill {
        let lane = lookup::lane(self, self.class(), None, want).lane;
        Fill {
            lane,
            bids: self.after == 0,
            worker: Arc::clone(&self.worker),
            snapshot: Arc::clone(&self.snapshot),
            route: self.route,
            asked: Arc::clone(&self.asked),
            content: self.content.clone(),
            key: self.key.clone(),
            exact: self.exact.clone(),
            want,
            class: self.class(),
            stale,
            seat,
            interim: owner.as_ref().and(self.interim()),
            owner,
        }
    }

    /// Takes the key of all queries that mean the same, where a rule for this path is known.
    pub fn search(&mut self) {
        let searches = &self.worker.shared.searches;
        if !searches.any() || self.exact.is_some() || !self.is_searched() {
            return;
        }
        if let Some(rule) = searches.rule(Group::of_path(&self.key)) {
            let key = self.key.searched(&rule);
            if self.report.key.is_some() {
                self.report.key = Some(key.clone());
            }
            self.exact = Some(std::mem::replace(&mut self.key, key));
        }
    }

    /// Whether its route listens to rules for the query. Those for contents are not known.
    pub fn is_searched(&self) -> bool {
        self.content.is_none() && self.cache().is_some_and(|cache| cache.no_vary_search)
    }

    /// Whether what is stored under `key` is for this request, as far as the key goes.
    pub fn is_led_to(&self, key: &CacheKey, facts: &ResponseFacts) -> bool {
        let exact = self.exact.as_ref().unwrap_or(&self.key);
        exact.leads_to(key, facts.no_vary_search.as_ref())
    }

    /// The outcome of forwarding for `miss`.
    pub fn missed(&self, miss: Miss) -> Outcome {
        Outcome { detail: self.detail, ..Outcome::new(Source::Miss(miss)) }
    }
}
