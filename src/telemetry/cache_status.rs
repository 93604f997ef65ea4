//! `Cache-Status` (RFC 9211): an [`Outcome`] as one list member.
//!
//! Knows the parameters, their order, and what may be written as a structured-field token.
//! Must not know: whether the field is sent, or what other caches have written into it.
//!
//! The closed set of `detail` words, all tokens:
//! - answered by a tier: `memory`, `redis`; stale because the origin failed, just now or a moment ago: `stale-if-error`;
//! - not stored: the words of `NotStored`. A key remembered as uncacheable shows the remembered
//!   reason itself, so that one word means one thing in headers, metrics and logs;
//! - stored, but the origin had to be asked: the words of `MustAsk`, left out where `fwd` says it;
//! - not asked: the words of `Bypass` (`fwd=method` needs none);
//! - `purged`; and the name of a failure or of a local answer, such as `no-route`.

use std::fmt::Write;

use super::outcome::{Bypass, Miss, Outcome, Source};
use crate::fields::digits::{self, Text};
use crate::stored::CacheKey;

/// The largest Integer of a structured field (RFC 9651 §3.3.1).
const LARGEST: i64 = 999_999_999_999_999;

/// The most characters of a key that are shown; what is longer ends in `...`.
const LONGEST_KEY: usize = 1024;

impl Outcome {
    /// Appends this cache's member, such as `larder; fwd=uri-miss; stored; collapsed`.
    ///
    /// A response that Larder made up itself gets a member too, with a `detail` and no `fwd`.
    /// RFC 9211 §2 says SHOULD NOT there; we do so because "every response says why" is worth more
    /// to whoever looks for the cause, and a member without `hit` and `fwd` claims nothing.
    pub fn write_cache_status(&self, out: &mut impl Text) {
        out.put("larder");
        match self.forwarded() {
            Some(fwd) => self.write_forwarded(fwd, out),
            None if self.source != Source::Local => out.put("; hit"),
            None => {}
        }
        if let Some(ttl) = self.ttl {
            out.put(if ttl < 0 { "; ttl=-" } else { "; ttl=" });
            digits::push(out, ttl.clamp(-LARGEST, LARGEST).unsigned_abs(), 1);
        }
        if let Some(word) = self.status_detail() {
            out.put("; detail=");
            out.put(if is_token(word) { word } else { "other" });
        }
    }

    /// Appends the key as a further parameter (RFC 9211 §2.7), where one was used: the URL, and after
    /// a space the request fields that the route adds, credentials as a digest.
    pub fn write_key(&self, key: &CacheKey, out: &mut String) {
        if !self.looked() {
            return;
        }
        out.push_str("; key=\"");
        let space = if key.extras().is_empty() { "" } else { " " };
        let mut bytes = key.url().bytes().chain(space.bytes()).chain(key.extras().bytes());
        bytes.by_ref().take(LONGEST_KEY).for_each(|byte| push_in_string(byte, out));
        if bytes.next().is_some() {
            out.push_str("...");
        }
        out.push('"');
    }

    /// The value of `fwd`.
    fn forwarded(&self) -> Option<&'static str> {
        match self.source {
            Source::Hit(_) | Source::StaleWhileRevalidate(_) | Source::Local => None,
            // §2.1: "a stale response that is used without going forward (e.g., because the origin server is not
            // available) can be considered a hit"; `fwd` would say that it went forward.
            Source::StaleAfterError => None,
            Source::StaleIfError => Some(self.stood_in_for().as_str()),
            Source::Bypass(Bypass::Method) | Source::FailedBypass(Bypass::Method) => Some("method"),
            Source::Bypass(_) | Source::FailedBypass(_) => Some("bypass"),
            Source::Miss(_) | Source::Revalidated(_) | Source::Failed(_) => self.missed().map(Miss::as_str),
        }
    }

    /// `fwd-status`, `stored` and `collapsed` mean something only where `fwd` is (§2.3, §2.5, §2.6).
    fn write_forwarded(&self, fwd: &str, out: &mut impl Text) {
        out.put("; fwd=");
        out.put(fwd);
        let confirmed = matches!(self.source, Source::Revalidated(_)).then_some(304);
        if let Some(status) = self.fwd_status.or(confirmed) {
            out.put("; fwd-status=");
            digits::push(out, status.into(), 1);
        }
        if self.stored {
            out.put("; stored");
        }
        if self.collapsed {
            out.put("; collapsed");
        }
    }

    fn status_detail(&self) -> Option<&'static str> {
        match self.source {
            Source::Hit(tier) | Source::StaleWhileRevalidate(tier) => Some(tier.as_str()),
            Source::StaleIfError | Source::StaleAfterError => Some("stale-if-error"),
            Source::Bypass(Bypass::Method) => self.note().filter(|word| *word != "method"),
            Source::Bypass(why) => Some(why.as_str()),
            Source::Revalidated(_)
            | Source::Miss(_)
            | Source::Local
            | Source::Failed(_)
            | Source::FailedBypass(_) => self.note(),
        }
    }
}

/// RFC 9651 §3.3.3: a String is ASCII without controls, with `"` and `\` escaped.
fn push_in_string(byte: u8, out: &mut String) {
    match byte {
        b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
        b' '..=b'~' => out.push(char::from(byte)),
        _ => {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// RFC 9651 §3.3.4: a letter or `*`, then `tchar`, `:` or `/`.
fn is_token(word: &str) -> bool {
    let starts = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    starts && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::any::any_outcome;
    use super::super::outcome::{Detail, Kind, Tier};
    use super::*;
    use crate::rules::{MustAsk, NotStored};
    use proptest::prelude::*;

    fn outcome(source: Source, with: impl FnOnce(&mut Outcome)) -> Outcome {
        let mut outcome = Outcome::new(source);
        with(&mut outcome);
        outcome
    }

    fn line(outcome: &Outcome) -> String {
        let mut out = String::new();
        outcome.write_cache_status(&mut out);
        out
    }

    #[test]
    fn each_outcome_reads_as_rfc_9211_has_it() {
        let miss = Source::Miss(Miss::Uri);
        let word = |w| Some(Detail::Word(w));
        let rows = [
            ("larder; hit; ttl=42; detail=memory", outcome(Source::Hit(Tier::Memory), |o| o.ttl = Some(42))),
            ("larder; hit; ttl=0; detail=redis", outcome(Source::Hit(Tier::Redis), |o| o.ttl = Some(0))),
            (
                // §2.1: a stale response used without going forward is a hit.
                "larder; hit; ttl=-5; detail=memory",
                outcome(Source::StaleWhileRevalidate(Tier::Memory), |o| o.ttl = Some(-5)),
            ),
            ("larder; fwd=uri-miss", outcome(miss, |_| {})),
            ("larder; fwd=uri-miss; stored", outcome(miss, |o| o.stored = true)),
            (
                "larder; fwd=uri-miss; stored; collapsed",
                outcome(miss, |o| (o.stored, o.collapsed) = (true, true)),
            ),
            ("larder; fwd=uri-miss; stored; ttl=60", outcome(miss, |o| (o.stored, o.ttl) = (true, Some(60)))),
            (
                "larder; fwd=uri-miss; detail=no-store",
                outcome(miss, |o| o.detail = Some(Detail::NotStored(NotStored::NoStore))),
            ),
            (
                "larder; fwd=uri-miss; detail=set-cookie",
                outcome(miss, |o| o.detail = Some(Detail::HitForMiss(NotStored::SetCookie))),
            ),
            (
                "larder; fwd=uri-miss; stored; detail=purged",
                outcome(miss, |o| (o.stored, o.detail) = (true, Some(Detail::Purged))),
            ),
            (
                "larder; fwd=uri-miss; stored; detail=variants-capped",
                outcome(miss, |o| (o.stored, o.detail) = (true, Some(Detail::VariantsCapped))),
            ),
            ("larder; fwd=vary-miss; stored", outcome(Source::Miss(Miss::Vary), |o| o.stored = true)),
            (
                "larder; fwd=request; stored; detail=request-no-cache",
                outcome(Source::Miss(Miss::Request), |o| {
                    (o.stored, o.detail) = (true, Some(Detail::MustAsk(MustAsk::RequestNoCache)));
                }),
            ),
            (
                // §2.3: the 304 of a validation is not the status delivered.
                "larder; fwd=stale; fwd-status=304; stored",
                outcome(Source::Revalidated(Miss::Stale), |o| {
                    (o.stored, o.detail) = (true, Some(Detail::MustAsk(MustAsk::Stale)));
                }),
            ),
            (
                "larder; fwd=stale; fwd-status=304; stored; collapsed; ttl=60; detail=no-cache",
                outcome(Source::Revalidated(Miss::Stale), |o| {
                    (o.stored, o.collapsed, o.ttl) = (true, true, Some(60));
                    o.detail = Some(Detail::MustAsk(MustAsk::NoCache));
                }),
            ),
            (
                "larder; fwd=stale; fwd-status=503; ttl=-5; detail=stale-if-error",
                outcome(Source::StaleIfError, |o| (o.fwd_status, o.ttl) = (Some(503), Some(-5))),
            ),
            (
                // §2.2: fresh, but the request asked for the origin's word.
                "larder; fwd=request; fwd-status=503; ttl=55; detail=stale-if-error",
                outcome(Source::StaleIfError, |o| (o.fwd_status, o.ttl) = (Some(503), Some(55))),
            ),
            (
                "larder; fwd=stale; ttl=-5; detail=stale-if-error",
                outcome(Source::StaleIfError, |o| (o.ttl, o.detail) = (Some(-5), word("first-byte-timeout"))),
            ),
            (
                // §2.1: not asked for this request, since it has failed another just now.
                "larder; hit; ttl=-5; detail=stale-if-error",
                outcome(Source::StaleAfterError, |o| o.ttl = Some(-5)),
            ),
            ("larder; fwd=bypass; detail=cookie", outcome(Source::Bypass(Bypass::Cookie), |_| {})),
            ("larder; fwd=bypass; detail=off", outcome(Source::Bypass(Bypass::Off), |_| {})),
            ("larder; fwd=method", outcome(Source::Bypass(Bypass::Method), |_| {})),
            (
                "larder; fwd=method",
                outcome(Source::Bypass(Bypass::Method), |o| {
                    o.detail = Some(Detail::NotStored(NotStored::Method));
                }),
            ),
            ("larder; detail=no-route", outcome(Source::Local, |o| o.detail = word("no-route"))),
            ("larder", outcome(Source::Local, |_| {})),
            (
                "larder; fwd=uri-miss; detail=connect-timeout",
                outcome(Source::Failed(Miss::Uri), |o| o.detail = word("connect-timeout")),
            ),
            (
                "larder; fwd=method; detail=queue-full",
                outcome(Source::FailedBypass(Bypass::Method), |o| o.detail = word("queue-full")),
            ),
            (
                "larder; fwd=bypass; detail=reset",
                outcome(Source::FailedBypass(Bypass::Off), |o| o.detail = word("reset")),
            ),
            ("larder; fwd=uri-miss; detail=other", outcome(miss, |o| o.detail = word("no token"))),
        ];
        for (expected, outcome) in rows {
            assert_eq!(line(&outcome), expected, "{outcome:?}");
        }
    }

    #[test]
    fn a_ttl_stays_within_what_a_structured_field_can_say() {
        let far = outcome(Source::Hit(Tier::Memory), |o| o.ttl = Some(i64::MAX));
        assert_eq!(line(&far), "larder; hit; ttl=999999999999999; detail=memory");
        let old = outcome(Source::Hit(Tier::Memory), |o| o.ttl = Some(i64::MIN));
        assert_eq!(line(&old), "larder; hit; ttl=-999999999999999; detail=memory");
    }

    fn with_key(source: Source, url: &str, extras: &str) -> String {
        let mut out = String::new();
        Outcome::new(source).write_key(&CacheKey::from_parts(url, extras), &mut out);
        out
    }

    #[test]
    fn the_key_is_a_string_of_bounded_length() {
        let hit = Source::Hit(Tier::Memory);
        for (url, extras, expected) in [
            ("http://a/x?y", "", r#"; key="http://a/x?y""#),
            ("http://a/", "h:accept=x;", r#"; key="http://a/ h:accept=x;""#),
            ("http://a/\"\\", "", r#"; key="http://a/\"\\""#),
            ("http://a/é", "", r#"; key="http://a/%C3%A9""#),
        ] {
            assert_eq!(with_key(hit, url, extras), expected);
        }
        let long = with_key(hit, &"u".repeat(LONGEST_KEY), "e");
        assert_eq!(long, format!("; key=\"{}...\"", "u".repeat(LONGEST_KEY)));
        let longest = with_key(hit, &"u".repeat(LONGEST_KEY), "");
        assert_eq!(longest, format!("; key=\"{}\"", "u".repeat(LONGEST_KEY)));
    }

    #[test]
    fn a_key_that_was_not_used_is_not_told() {
        let none = [Source::Bypass(Bypass::Method), Source::Local, Source::FailedBypass(Bypass::Off)];
        assert!(none.iter().all(|source| with_key(*source, "http://a/", "").is_empty()));
        let some = [
            Source::Miss(Miss::Uri),
            Source::Revalidated(Miss::Stale),
            Source::StaleIfError,
            Source::Failed(Miss::Uri),
        ];
        assert!(some.iter().all(|source| !with_key(*source, "http://a/", "").is_empty()));
    }

    #[test]
    fn only_tokens_are_tokens() {
        for good in ["a", "*", "a/b:c", "no-store", "A1"] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a;b", "a\"", "é", "a\n"] {
            assert!(!is_token(bad), "{bad}");
        }
    }

    /// The parameters of one list member whose values are Boolean true, Integers or Tokens, read
    /// by the grammar of RFC 9651 §3.1.2 and nothing of ours.
    fn parameters(member: &str) -> Option<Vec<(&str, Option<&str>)>> {
        let mut parts = member.split(';');
        if !is_token(parts.next()?) {
            return None;
        }
        parts.map(|part| parameter(part.trim_start_matches(' '))).collect()
    }

    fn parameter(text: &str) -> Option<(&str, Option<&str>)> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        let key_ok = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        let value_ok = value.is_none_or(|v| is_token(v) || is_integer(v));
        (key_ok && value_ok).then_some((key, value))
    }

    fn is_integer(text: &str) -> bool {
        let digits = text.strip_prefix('-').unwrap_or(text);
        (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    }

    #[test]
    fn the_checker_itself_refuses_what_is_not_the_grammar() {
        for bad in ["", "larder; Hit", "larder; detail=a b", "larder; ttl=1234567890123456", "larder;; hit"] {
            assert_eq!(parameters(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happened_the_member_parses_and_does_not_contradict_itself(outcome in any_outcome()) {
            let line = line(&outcome);
            let parameters = parameters(&line);
            prop_assert!(parameters.is_some(), "{line}");
            let parameters = parameters.unwrap();
            let value = |key| parameters.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
            let mut keys: Vec<_> = parameters.iter().map(|(k, _)| *k).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), parameters.len(), "a parameter twice: {}", line);
            // §2.1: hit and fwd are exclusive.
            prop_assert!(!(value("hit").is_some() && value("fwd").is_some()), "{}", line);
            let unasked = matches!(outcome.kind(), Kind::Hit | Kind::Stale);
            prop_assert_eq!(value("hit").is_some(), unasked || outcome.source == Source::StaleAfterError);
            for needs_fwd in ["fwd-status", "stored", "collapsed"] {
                prop_assert!(value(needs_fwd).is_none() || value("fwd").is_some(), "{}", line);
            }
            let fwd = ["bypass", "method", "uri-miss", "vary-miss", "request", "stale", "partial"];
            prop_assert!(value("fwd").is_none_or(|v| fwd.contains(&v.unwrap_or(""))), "{}", line);
        }
    }
}
