//! Makes requests, responses and policies of what a case gives, and asks the rules.
//!
//! Knows which public function of `larder::rules` each expectation speaks of. A response that may be
//! stored is judged by what is stored of it, as a tier would have it.
//! Must not know: what a case ought to come to; the case says so.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use larder::clock::Timestamp;
use larder::fields::range::{self, Resolved, Span};
use larder::rules::{
    self, Authorization, ClientCacheControl, ClientCondition, Cookies, LifetimeSource, MustAsk, NotStored,
    OriginFailure, Policy, RequestFacts, ResponseFacts, Reuse, SetCookie, Storable, reuse, storing,
};

use super::corpus::{AT, Case, Expected, Field, Given, millis};

/// What a case gives, understood.
struct World {
    method: Method,
    request: HeaderMap,
    earlier: HeaderMap,
    status: u16,
    response: HeaderMap,
    later: HeaderMap,
    took: u64,
    at: u64,
    body: u64,
    url: String,
    policy: Policy,
}

/// Whether everything that the case expects comes about; else, what comes about in its place.
pub fn judge(case: &Case) -> Result<(), String> {
    let world = World::of(case)?;
    case.expected.iter().try_for_each(|expected| world.meets(expected))
}

impl World {
    fn of(case: &Case) -> Result<Self, String> {
        let mut world = Self {
            method: Method::GET,
            request: HeaderMap::new(),
            earlier: HeaderMap::new(),
            status: 200,
            response: HeaderMap::new(),
            later: HeaderMap::new(),
            took: 0,
            at: 0,
            body: 10,
            url: "http://example.com/a/b?q".into(),
            policy: Policy::default(),
        };
        for given in &case.given {
            match given {
                Given::Method(name) => {
                    world.method = Method::from_bytes(name.as_bytes()).map_err(|_| "unknown method")?;
                }
                Given::Request(field) => append(&mut world.request, field)?,
                Given::Earlier(field) => append(&mut world.earlier, field)?,
                Given::Status(status) => world.status = *status,
                Given::Response(field) => append(&mut world.response, field)?,
                Given::Later(field) => append(&mut world.later, field)?,
                Given::TookMillis(millis) => world.took = *millis,
                Given::AtMillis(millis) => world.at = *millis,
                Given::Body(bytes) => world.body = *bytes,
                Given::Url(url) => world.url.clone_from(url),
                Given::Set(name, value) => set(&mut world.policy, name, value)?,
            }
        }
        Ok(world)
    }

    fn now(&self) -> Timestamp {
        AT.saturating_add(Duration::from_millis(self.at))
    }

    fn requested(&self) -> Timestamp {
        Timestamp::from_millis(AT.as_millis() - self.took)
    }

    fn asked(&self) -> RequestFacts {
        RequestFacts::of(&self.method, &self.request).under(self.policy.client_cache_control)
    }

    fn facts_of(&self, status: u16, fields: &HeaderMap) -> ResponseFacts {
        ResponseFacts::of(status, fields, self.requested(), AT)
    }

    fn received(&self) -> ResponseFacts {
        self.facts_of(self.status, &self.response)
    }

    fn permit(&self, asked: &RequestFacts) -> Result<Storable, NotStored> {
        storing::judge(asked, &self.received(), &self.policy)
    }

    /// The fields as a tier has them; as they came where nothing may be stored for a plain request.
    fn kept(&self) -> HeaderMap {
        match self.permit(&RequestFacts::of(&Method::GET, &HeaderMap::new())) {
            Ok(permit) => rules::stored_fields(&self.response, &permit),
            Err(_) => self.response.clone(),
        }
    }

    fn held(&self) -> ResponseFacts {
        self.facts_of(self.status, &self.kept())
    }

    fn meets(&self, expected: &Expected) -> Result<(), String> {
        let rest = expected.rest.as_str();
        match expected.word {
            "stored" | "not-stored" => self.is_stored(rest),
            "keeps" | "drops" => self.keeps(rest, expected.word == "keeps"),
            "life" | "age" | "ttl" | "kept-for" => self.measures(expected.word, rest),
            "fresh" | "grace" | "stale" | "ask" | "refused" => self.answers(expected.word, rest),
            "on-error" | "on-no-answer" | "if-range" => self.says(expected.word, rest),
            "304" | "200" | "part" | "whole" | "416" => self.delivers(expected.word, rest),
            "matches" | "differs" => self.selects(expected.word == "matches"),
            "asks" | "asks-nothing" => self.conditions(rest),
            "confirms" | "denies" => self.confirmed(expected.word == "confirms"),
            "becomes" | "loses" => self.freshened(rest, expected.word == "becomes"),
            "sends" | "omits" => self.in_304(rest, expected.word == "sends"),
            "invalidates" | "invalidates-nothing" => self.invalidates(rest),
            "joins" | "stays-apart" => self.joined(expected.word),
            "asks-range" | "asks-no-range" => self.asks_for_the_rest(rest),
            "agrees" | "disagrees" => self.heard(expected.word),
            "adopted" | "not-adopted" => self.adopted(rest),
            other => Err(format!("unknown expectation {other}")),
        }
    }

    fn is_stored(&self, why_not: &str) -> Result<(), String> {
        if !why_not.is_empty() && !NotStored::ALL.iter().any(|reason| reason.as_str() == why_not) {
            return Err(format!("unknown reason {why_not}"));
        }
        let found = self.permit(&self.asked()).map_or_else(NotStored::as_str, |_| "");
        same(found, why_not, "not stored because")
    }

    fn keeps(&self, said: &str, kept: bool) -> Result<(), String> {
        let permit = self.permit(&self.asked()).map_err(|why| format!("not stored: {}", why.as_str()))?;
        line_of(&rules::stored_fields(&self.response, &permit), said, kept)
    }

    fn measures(&self, word: &str, said: &str) -> Result<(), String> {
        let held = self.held();
        match word {
            "life" => {
                let (length, source) = said.split_once(' ').ok_or("unknown lifetime, or nobody's")?;
                if !SOURCES.iter().any(|(name, _)| *name == source) {
                    return Err(format!("unknown source {source}"));
                }
                let found = rules::lifetime(&held, &self.policy);
                let word =
                    SOURCES.iter().find(|(_, known)| *known == found.source).map_or("?", |(name, _)| name);
                same(
                    &format!("{} {word}", told(found.duration)),
                    &format!("{} {source}", expected(length)?),
                    "lifetime",
                )
            }
            "age" => same(&told(rules::current_age(&held, self.now())), &expected(said)?, "age"),
            "kept-for" => same(&told(rules::usable_for(&held, &self.policy)), &expected(said)?, "kept for"),
            _ => {
                let permit = rules::after_validation(&held, &self.policy, self.now());
                same(&permit.ttl().to_string(), said, "ttl")
            }
        }
    }

    fn answers(&self, word: &str, because: &str) -> Result<(), String> {
        if !because.is_empty() && !MUST_ASK.iter().any(|reason| reason.as_str() == because) {
            return Err(format!("unknown reason {because}"));
        }
        let found = match reuse::judge(&self.asked(), &self.held(), &self.policy, self.now()) {
            Reuse::Fresh(_) => "fresh".to_owned(),
            Reuse::Stale { grace: Some(_), because: MustAsk::Stale } => "grace".to_owned(),
            Reuse::Stale { grace: Some(_), because } => format!("grace {}", because.as_str()),
            Reuse::Stale { grace: None, because: MustAsk::Stale } => "stale".to_owned(),
            Reuse::Stale { grace: None, because } => format!("ask {}", because.as_str()),
            Reuse::Refused(because) => format!("refused {}", because.as_str()),
        };
        same(&found, format!("{word} {because}").trim_end(), "verdict")
    }

    fn says(&self, word: &str, said: &str) -> Result<(), String> {
        if said != "yes" && said != "no" {
            return Err(format!("unknown answer {said}"));
        }
        let found = match word {
            "on-error" => self.covers(OriginFailure::Error),
            "on-no-answer" => self.covers(OriginFailure::NoAnswer),
            _ => rules::if_range_holds(&self.request, &self.held()),
        };
        same(if found { "yes" } else { "no" }, said, word)
    }

    fn delivers(&self, word: &str, said: &str) -> Result<(), String> {
        if word == "304" || word == "200" {
            let found = match rules::client_condition(&self.request, &self.held()) {
                ClientCondition::NotModified => "304",
                ClientCondition::None => "200",
            };
            return same(found, word, "condition");
        }
        let asked = self.request.get("range").ok_or("unknown range: the request has none")?;
        let found = match range::parse(asked.as_bytes()).map(|range| range.resolve(self.body)) {
            None | Some(Resolved::Whole) => "whole ".to_owned(),
            Some(Resolved::Unsatisfiable) => "416 ".to_owned(),
            Some(Resolved::Part(Span { first, last })) => format!("part {first}-{last}"),
            Some(Resolved::Parts(spans)) => {
                let spans: Vec<_> =
                    spans.iter().map(|span| format!("{}-{}", span.first, span.last)).collect();
                format!("parts {}", spans.join(","))
            }
        };
        same(&found, &format!("{word} {said}"), "range")
    }

    fn covers(&self, failure: OriginFailure) -> bool {
        reuse::on_error(&self.asked(), &self.held(), &self.policy, self.now(), failure).is_some()
    }

    fn selects(&self, matches: bool) -> Result<(), String> {
        let (resp, normalize) = (self.received(), self.policy.normalize);
        let selecting = rules::selecting_fields(&resp.vary, &self.earlier, normalize);
        let found = selecting.matches(&resp, &self.request, normalize);
        let other = rules::selecting_fields(&resp.vary, &self.request, normalize);
        let star = resp.vary == larder::fields::vary::Vary::Star;
        let by_language = normalize.accept_language && resp.language.is_some();
        if !star && !by_language && (selecting == other) != found {
            return Err("the two selections are equal, but do not match, or the other way round".into());
        }
        same(
            if found { "matches" } else { "differs" },
            if matches { "matches" } else { "differs" },
            "selection",
        )
    }

    fn conditions(&self, said: &str) -> Result<(), String> {
        let sent = HeaderMap::from_iter(rules::origin_conditions(&self.held(), &self.kept()));
        if said.is_empty() {
            return same(&format!("{sent:?}"), "{}", "conditions");
        }
        line_of(&sent, said, true)
    }

    fn confirmed(&self, confirms: bool) -> Result<(), String> {
        let later = self.facts_of(304, &self.later);
        let found = rules::confirms(&self.held(), &later);
        same(
            if found { "confirms" } else { "denies" },
            if confirms { "confirms" } else { "denies" },
            "the 304",
        )
    }

    fn freshened(&self, said: &str, stays: bool) -> Result<(), String> {
        line_of(&rules::freshen(&self.kept(), &self.later), said, stays)
    }

    fn in_304(&self, name: &str, sent: bool) -> Result<(), String> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "unknown field name")?;
        let found = rules::not_modified_fields(&name);
        same(if found { "sends" } else { "omits" }, if sent { "sends" } else { "omits" }, name.as_str())
    }

    /// Whether a part that came later is of the same representation.
    fn joined(&self, expected: &str) -> Result<(), String> {
        let found = rules::same_representation(&self.held(), &self.facts_of(206, &self.later));
        same(if found { "joins" } else { "stays-apart" }, expected, "the part")
    }

    fn asks_for_the_rest(&self, said: &str) -> Result<(), String> {
        let asks = rules::our_if_range(&self.held(), &self.kept());
        same(asks.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default(), said, "if-range")
    }

    /// Whether the answer to a HEAD is about what is stored.
    fn heard(&self, expected: &str) -> Result<(), String> {
        let declared = self.later.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let head = self.facts_of(200, &self.later);
        let found = rules::speaks_of(&self.held(), self.body, &head, declared);
        same(if found { "agrees" } else { "disagrees" }, expected, "the HEAD")
    }

    /// Whether the answer to a POST may serve GETs.
    fn adopted(&self, why_not: &str) -> Result<(), String> {
        let (scheme, rest) = self.url.split_once("://").ok_or("unknown URL")?;
        let (authority, path) = rest.split_at(rest.find('/').ok_or("unknown URL: no path")?);
        if !rules::names_itself(scheme, authority, path, &self.response) {
            return same("about-something-else", why_not, "not adopted because");
        }
        let judged = storing::judge_post(&self.asked(), &self.received(), &self.policy);
        same(judged.map_or_else(NotStored::as_str, |_| ""), why_not, "not adopted because")
    }

    fn invalidates(&self, said: &str) -> Result<(), String> {
        if !rules::invalidates(&self.method, self.status) {
            return same("", said, "invalidates");
        }
        let (scheme, rest) = self.url.split_once("://").ok_or("unknown URL")?;
        let (authority, path) = rest.split_at(rest.find('/').ok_or("unknown URL: no path")?);
        let origin = format!("{scheme}://{authority}");
        let urls = rules::targets(scheme, authority, path, &self.response);
        let paths: Vec<_> = urls.iter().map(|url| url.strip_prefix(&origin).unwrap_or(url)).collect();
        same(&paths.join(" "), said, "invalidates")
    }
}

const SOURCES: [(&str, LifetimeSource); 7] = [
    ("override", LifetimeSource::Override),
    ("s-maxage", LifetimeSource::SMaxAge),
    ("max-age", LifetimeSource::MaxAge),
    ("expires", LifetimeSource::Expires),
    ("default", LifetimeSource::Default),
    ("heuristic", LifetimeSource::Heuristic),
    ("nobody's", LifetimeSource::None),
];

const MUST_ASK: [MustAsk; 6] = [
    MustAsk::NoCache,
    MustAsk::RequestNoCache,
    MustAsk::RequestMaxAge,
    MustAsk::RequestMinFresh,
    MustAsk::Cookie,
    MustAsk::Authorization,
];

fn set(policy: &mut Policy, name: &str, value: &str) -> Result<(), String> {
    let duration = || millis(value).map(Duration::from_millis);
    match name {
        "ttl.default" => policy.ttl.default = Some(duration()?),
        "ttl.override" => policy.ttl.r#override = Some(duration()?),
        "ttl.max" => policy.ttl.max = Some(duration()?),
        "stale_while_revalidate" => policy.stale_while_revalidate = Some(duration()?),
        "stale_if_disconnected" => policy.stale_if_disconnected = Some(duration()?),
        "stale_if_error" => policy.stale_if_error = Some(duration()?),
        "keep" => policy.keep = duration()?,
        "heuristic" if value == "off" => policy.heuristic = None,
        "heuristic.percent" => {
            let percent = value.parse().map_err(|_| format!("no number {value}"))?;
            policy.heuristic.iter_mut().for_each(|heuristic| heuristic.percent = percent);
        }
        "heuristic.max" => {
            let max = duration()?;
            policy.heuristic.iter_mut().for_each(|heuristic| heuristic.max = max);
        }
        "client_cache_control" => {
            policy.client_cache_control =
                if value == "ignore" { ClientCacheControl::Ignore } else { ClientCacheControl::Honour };
        }
        "vary.normalize" => policy.normalize.accept_language = value == "accept-language",
        "cookies" => {
            policy.cookies = match value {
                "origin" => Cookies::Origin,
                "bypass" => Cookies::Bypass,
                "ignore" => Cookies::Ignore,
                names => Cookies::Key(names.split(',').map(str::to_owned).collect()),
            }
        }
        "authorization" => {
            policy.authorization = match value {
                "bypass" => Authorization::Bypass,
                "per-credential" => Authorization::PerCredential,
                "share" => Authorization::Share,
                _ => return Err(format!("unknown word {value}")),
            }
        }
        "set_cookie" => {
            policy.set_cookie = match value {
                "origin" => SetCookie::Origin,
                "never" => SetCookie::Never,
                "strip" => SetCookie::Strip,
                "keep" => SetCookie::Keep,
                _ => return Err(format!("unknown word {value}")),
            }
        }
        _ => return Err(format!("unknown setting {name}")),
    }
    Ok(())
}

fn append(fields: &mut HeaderMap, field: &Field) -> Result<(), String> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "unknown field name")?;
    let value = HeaderValue::from_bytes(&field.value).map_err(|_| "unknown field value")?;
    fields.append(name, value);
    Ok(())
}

/// `name: value` as the fields have it, lines joined by ` + `; or, where it is not to be there, `name`.
fn line_of(fields: &HeaderMap, said: &str, there: bool) -> Result<(), String> {
    let (name, value) = said.split_once(':').map_or((said, None), |(name, value)| (name, Some(value.trim())));
    let lines: Vec<_> = fields.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    let found = lines.join(" + ");
    match (there, value) {
        (true, Some(value)) => same(&found, value, name),
        (true, None) if lines.is_empty() => Err(format!("{name} is not there")),
        (false, _) if !lines.is_empty() => Err(format!("{name} is there: {found}")),
        _ => Ok(()),
    }
}

fn same(found: &str, expected: &str, what: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}")) }
}

fn told(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

fn expected(text: &str) -> Result<String, String> {
    millis(text).map(|millis| format!("{millis} ms")).map_err(|why| format!("unknown length: {why}"))
}
