//! Targeted cache control (RFC 9213): `Larder-Cache-Control`, then `CDN-Cache-Control`.
//!
//! Knows which field is in force, and how its members, which are Structured Fields and no
//! `Cache-Control`, become directives: a field that does not parse is as good as absent; a value of a
//! type that its directive does not have is not consumed (§2.1), but what restricts holds all the same,
//! and a lifetime of the wrong type is one that is over, as in `Cache-Control`.
//! Must not know: what a cache then does.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName};

use super::cache_control::{MAX_SECONDS, Reach, ResponseDirectives, Seconds, field_names};
use super::structured::{Bare, Dictionary, Member};

/// For this cache alone.
pub const LARDER_CACHE_CONTROL: HeaderName = HeaderName::from_static("larder-cache-control");

/// For caches that work for the origin (§3).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// §2.2: the target list, "from most applicable to least".
static TARGETS: [HeaderName; 2] = [LARDER_CACHE_CONTROL, CDN_CACHE_CONTROL];

/// Every field that directives can come from.
pub const SOURCES: [HeaderName; 3] = [LARDER_CACHE_CONTROL, CDN_CACHE_CONTROL, CACHE_CONTROL];

/// The directives in force for this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What they say.
    pub directives: ResponseDirectives,
    /// A targeted field says it: `Expires` does not count (§2.2).
    pub targeted: bool,
}

/// §2.2: "select the first (in target-list order) field with a valid, non-empty value [...] and [...]
/// ignore the Cache-Control and Expires header fields in that response, unless" there is none.
pub fn in_force(headers: &HeaderMap) -> InForce {
    match TARGETS.iter().find_map(|name| Dictionary::parse(headers, name)) {
        Some(said) => {
            let mut directives = directives(&said);
            // 9111 §5.2.2.6: it binds intermediaries "regardless of whether it implements a cache", and
            // is none of the caching policy.
            directives.no_transform |= ResponseDirectives::parse(headers).no_transform;
            InForce { directives, targeted: true }
        }
        None => InForce { directives: ResponseDirectives::parse(headers), targeted: false },
    }
}

/// Every directive that is known in `Cache-Control` (§2.2: "SHOULD implement other cache directives
/// [...] that they support").
fn directives(said: &Dictionary) -> ResponseDirectives {
    ResponseDirectives {
        no_store: restricts(said, "no-store"),
        no_cache: reach(said, "no-cache"),
        private: reach(said, "private"),
        public: permits(said, "public"),
        must_revalidate: restricts(said, "must-revalidate"),
        proxy_revalidate: restricts(said, "proxy-revalidate"),
        must_understand: permits(said, "must-understand"),
        no_transform: restricts(said, "no-transform"),
        immutable: permits(said, "immutable"),
        max_age: said.get("max-age").map(|value| seconds(value).unwrap_or(0)),
        s_maxage: said.get("s-maxage").map(|value| seconds(value).unwrap_or(0)),
        stale_while_revalidate: said.get("stale-while-revalidate").and_then(seconds),
        stale_if_error: said.get("stale-if-error").and_then(seconds),
    }
}

/// Anything but an outright "no".
fn restricts(said: &Dictionary, directive: &str) -> bool {
    said.get(directive).is_some_and(|value| *value != Member::Item(Bare::Boolean(false)))
}

fn permits(said: &Dictionary, directive: &str) -> bool {
    said.get(directive) == Some(&Member::Item(Bare::Boolean(true)))
}

/// §2.1: "either Boolean true or a string containing a comma-delimited list of field names".
fn reach(said: &Dictionary, directive: &str) -> Reach {
    match said.get(directive) {
        None | Some(Member::Item(Bare::Boolean(false))) => Reach::No,
        Some(Member::Item(Bare::String(names))) => {
            field_names(names.as_bytes()).map_or(Reach::All, Reach::Fields)
        }
        Some(_) => Reach::All,
    }
}

/// §2.1: an Integer; 9111 §1.2.2: one that is larger than can be told is very long.
fn seconds(value: &Member) -> Option<Seconds> {
    match value {
        Member::Item(Bare::Integer(seconds @ 0..)) => {
            Some(Seconds::try_from(*seconds).unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let name = match name {
                "larder" => LARDER_CACHE_CONTROL,
                "cdn" => CDN_CACHE_CONTROL,
                _ => HeaderName::from_bytes(name.as_bytes()).unwrap(),
            };
            headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
        }
        headers
    }

    fn found(lines: &[&str]) -> InForce {
        in_force(&headers(lines))
    }

    #[test]
    fn the_first_valid_field_of_the_list_is_in_force() {
        for (clause, lines, max_age, targeted) in [
            ("§2.2 none", &["cache-control: max-age=1"][..], Some(1), false),
            ("§2.2", &["cache-control: max-age=1", "cdn: max-age=2"], Some(2), true),
            ("§2.2 order", &["cdn: max-age=2", "larder: max-age=3"], Some(3), true),
            (
                "§2.2 not on the list",
                &["cache-control: max-age=1", "x-cache-control: max-age=9"],
                Some(1),
                false,
            ),
            ("§2.1 empty", &["cdn: max-age=2", "larder:"], Some(2), true),
            ("§2.1 a parsing error", &["cdn: max-age=2", "larder: max-age=3, &&&"], Some(2), true),
            ("§2.1 a parsing error", &["cache-control: max-age=1", "cdn: max-age=2, &&&"], Some(1), false),
            ("§2.1 space before =", &["cache-control: max-age=1", "cdn: max-age =2"], Some(1), false),
            ("§2.1 space after =", &["cache-control: max-age=1", "cdn: max-age= 2"], Some(1), false),
            ("§2.1 keys are in lower case", &["cache-control: max-age=1", "cdn: Max-Age=2"], Some(1), false),
            ("§2.1 over lines", &["cdn: max-age=2", "cdn: &&&", "cache-control: max-age=1"], Some(1), false),
            ("§2.1 over lines", &["cdn: public", "cdn: max-age=2"], Some(2), true),
            ("§3.1 something unknown is valid", &["cache-control: no-store", "cdn: none"], None, true),
        ] {
            let found = found(lines);
            assert_eq!(
                (found.directives.max_age, found.targeted),
                (max_age, targeted),
                "{clause}: {lines:?}"
            );
            assert!(!found.directives.no_store, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn every_directive_is_known() {
        let line = "cdn: no-store, no-cache, private=\"a, B\", public, must-revalidate, proxy-revalidate, \
                    must-understand, no-transform, immutable, max-age=1, s-maxage=2, \
                    stale-while-revalidate=3, stale-if-error=4, x=(1 2);y";
        let names = ["a", "b"].map(HeaderName::from_static).to_vec();
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: Reach::All,
            private: Reach::Fields(names),
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            max_age: Some(1),
            s_maxage: Some(2),
            stale_while_revalidate: Some(3),
            stale_if_error: Some(4),
        };
        assert_eq!(found(&[line]).directives, expected);
    }

    #[test]
    fn lifetimes_are_integers() {
        for (clause, value, expected) in [
            ("§2.1", "=60", 60),
            ("§2.1 parameters are ignored", "=60;x=1", 60),
            ("9651 §3.3.1 leading zeros", "=0060", 60),
            ("9111 §1.2.2 large", "=2147483649", MAX_SECONDS),
            ("9111 §1.2.2 larger", "=999999999999999", MAX_SECONDS),
            ("negative", "=-1", 0),
            ("§2.1 a Decimal is no Integer", "=60.0", 0),
            ("§2.1 a String is no Integer", "=\"60\"", 0),
            ("§2.1 a Token is no Integer", "=a", 0),
            ("§2.1 a Boolean is no Integer", "", 0),
            ("§2.1 an Inner List is no Integer", "=(60)", 0),
        ] {
            let of = |name: &str| found(&[&format!("cdn: {name}{value}")]).directives;
            assert_eq!(of("max-age").max_age, Some(expected), "{clause}: {value}");
            assert_eq!(of("s-maxage").s_maxage, Some(expected), "{clause}: {value}");
            let window = (expected > 0).then_some(expected);
            assert_eq!(of("stale-if-error").stale_if_error, window, "{clause}: {value}");
            let of = of("stale-while-revalidate");
            assert_eq!(of.stale_while_revalidate, window, "{clause}: {value}");
        }
        let twice = found(&["cdn: max-age=1, max-age=60"]);
        assert_eq!(twice.directives.max_age, Some(60), "9651 §4.2.2 the last counts");
    }

    #[test]
    fn what_restricts_holds_unless_it_is_false_and_what_permits_only_where_it_is_true() {
        let names = Reach::Fields(vec![HeaderName::from_static("x")]);
        for (clause, value, restricts, permits, reach) in [
            ("§2.1 no value", "", true, true, Reach::All),
            ("§2.1 true", "=?1", true, true, Reach::All),
            ("§2.1 false", "=?0", false, false, Reach::No),
            ("§2.1 a String", "=\"X\"", true, false, names),
            ("§2.1 names nothing", "=\"\"", true, false, Reach::All),
            ("§2.1 no field name", "=\"a b\"", true, false, Reach::All),
            ("§2.1 another type", "=1", true, false, Reach::All),
            ("§2.1 another type", "=x", true, false, Reach::All),
        ] {
            let line = ["no-store", "public", "no-cache", "private", "immutable", "must-revalidate"]
                .map(|name| format!("{name}{value}"));
            let d = found(&[&format!("cdn: {}", line.join(", "))]).directives;
            assert_eq!((d.no_store, d.must_revalidate), (restricts, restricts), "{clause}: {value}");
            assert_eq!((d.public, d.immutable), (permits, permits), "{clause}: {value}");
            assert_eq!((&d.no_cache, &d.private), (&reach, &reach), "{clause}: {value}");
        }
    }

    #[test]
    fn no_transform_holds_whoever_says_it() {
        for (lines, expected) in [
            (&["cache-control: no-transform", "cdn: max-age=1"][..], true),
            (&["cache-control: public", "cdn: no-transform"], true),
            (&["cache-control: public", "cdn: max-age=1"], false),
        ] {
            assert_eq!(found(lines).directives.no_transform, expected, "9111 §5.2.2.6 {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "[ -~]{0,60}") {
            let found = found(&[&format!("cdn: {line}"), "cache-control: max-age=1"]);
            prop_assert!(found.directives.max_age.unwrap_or(0) <= MAX_SECONDS);
            prop_assert!(found.targeted || found.directives.max_age == Some(1));
        }
    }
}
