//! What the parsers of `larder::fields` must keep to.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder::clock::Timestamp;
use larder::fields::cache_control::{MAX_SECONDS, Reach, RequestDirectives, ResponseDirectives};
use larder::fields::groups::{CACHE_GROUPS, Groups, MAX_GROUPS, MAX_NAME};
use larder::fields::no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
use larder::fields::range::{self, Ranges, Resolved, Span};
use larder::fields::structured::{self, Bare, Dictionary, Member};
use larder::fields::targeted::{self, CDN_CACHE_CONTROL};
use larder::fields::vary::Vary;
use larder::fields::{accept, date, list};
use larder::rules::{Normalize, ResponseFacts, selecting_fields};

use super::dice::{Dice, headers, value};

const DIRECTIVES: [&str; 44] = [
    "no-store",
    "no-cache",
    "private",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "no-transform",
    "immutable",
    "max-age",
    "s-maxage",
    "stale-while-revalidate",
    "stale-if-error",
    "only-if-cached",
    "min-fresh",
    "max-stale",
    "=",
    "=",
    "=",
    ",",
    ",",
    ", ",
    ",",
    "\"",
    "\"",
    "\\",
    "\\\"",
    " ",
    "\t",
    "60",
    "0",
    "-1",
    "2147483648",
    "99999999999999999999",
    "1.5",
    "'60'",
    "x",
    "NO-Store",
    "a b",
    "set-cookie",
    "ext=\"no-store, max-age=0\"",
    "?1",
    "?0",
    ";",
];

pub fn cache_control(dice: &mut Dice) {
    let lines = dice.lines(&DIRECTIVES, 3);
    let found = ResponseDirectives::parse(&headers(&CACHE_CONTROL, &lines));
    for seconds in [found.max_age, found.s_maxage, found.stale_while_revalidate, found.stale_if_error] {
        assert!(seconds.unwrap_or(0) <= MAX_SECONDS, "RFC 9111 §1.2.2");
    }
    let again = ResponseDirectives::parse(&headers(&CACHE_CONTROL, &[written(&found)]));
    assert_eq!(again, found, "what was understood says the same when written");

    // One more line never takes back what restricts, and the first lifetime stays.
    let mut more = lines.clone();
    more.extend(dice.lines(&DIRECTIVES, 1));
    let wider = ResponseDirectives::parse(&headers(&CACHE_CONTROL, &more));
    assert!(wider.no_store >= found.no_store && wider.must_revalidate >= found.must_revalidate);
    assert!(wider.proxy_revalidate >= found.proxy_revalidate && wider.no_transform >= found.no_transform);
    assert!(covers(&wider.no_cache, &found.no_cache) && covers(&wider.private, &found.private));
    assert!(found.max_age.is_none() || wider.max_age == found.max_age, "§4.2.1");
    assert!(found.s_maxage.is_none() || wider.s_maxage == found.s_maxage, "§4.2.1");

    // What a quoted string of an unknown directive says is no directive.
    let quoted: Vec<u8> = dice
        .text(&DIRECTIVES, 8)
        .iter()
        .flat_map(|byte| match byte {
            b'"' | b'\\' => vec![b'\\', *byte],
            byte => vec![*byte],
        })
        .collect();
    let mut more = lines.clone();
    more.push(value([b"x-ext=\"", &quoted[..], b"\""].concat()));
    let hidden = ResponseDirectives::parse(&headers(&CACHE_CONTROL, &more));
    if quoted.contains(&b'\\') {
        // But where who knows no escapes finds something that restricts: nothing else is taken from there.
        let lifetimes = |of: &ResponseDirectives| (of.max_age, of.s_maxage, of.stale_if_error);
        assert_eq!(lifetimes(&hidden), lifetimes(&found), "§5.2.3");
        assert!(hidden.public == found.public && hidden.must_understand == found.must_understand, "§5.2.3");
    } else {
        assert_eq!(hidden, found, "§5.2.3");
    }

    // Without a targeted field, Cache-Control is in force.
    let in_force = targeted::in_force(&headers(&CACHE_CONTROL, &lines));
    assert!(!in_force.targeted && in_force.directives == found, "RFC 9213 §2.2");
    let mut both = headers(&CACHE_CONTROL, &lines);
    both.insert(CDN_CACHE_CONTROL, value(dice.text(&DIRECTIVES, 8)));
    let in_force = targeted::in_force(&both);
    assert!(in_force.targeted || in_force.directives == found, "RFC 9213 §2.1");
    assert!(in_force.directives.no_transform >= found.no_transform, "§5.2.2.6");

    let asked = RequestDirectives::parse(&headers(&CACHE_CONTROL, &lines));
    let mut more = lines.clone();
    more.push(HeaderValue::from_static("no-cache, no-store, only-if-cached"));
    let asked_more = RequestDirectives::parse(&headers(&CACHE_CONTROL, &more));
    assert!(asked_more.no_cache && asked_more.no_store && asked_more.only_if_cached);
    assert!(asked.max_age.is_none() || asked_more.max_age == asked.max_age);
}

fn covers(wide: &Reach, narrow: &Reach) -> bool {
    wide.is_all() || (!narrow.is_all() && narrow.fields().iter().all(|name| wide.fields().contains(name)))
}

fn written(d: &ResponseDirectives) -> HeaderValue {
    let mut said: Vec<String> = Vec::new();
    let flags = [
        (d.no_store, "no-store"),
        (d.public, "public"),
        (d.must_revalidate, "must-revalidate"),
        (d.proxy_revalidate, "proxy-revalidate"),
        (d.must_understand, "must-understand"),
        (d.no_transform, "no-transform"),
        (d.immutable, "immutable"),
    ];
    said.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
    for (reach, name) in [(&d.no_cache, "no-cache"), (&d.private, "private")] {
        match reach {
            Reach::No => {}
            Reach::All => said.push(name.to_owned()),
            Reach::Fields(names) => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                said.push(format!("{name}=\"{}\"", names.join(", ")));
            }
        }
    }
    let seconds = [
        (d.max_age, "max-age"),
        (d.s_maxage, "s-maxage"),
        (d.stale_while_revalidate, "stale-while-revalidate"),
        (d.stale_if_error, "stale-if-error"),
    ];
    said.extend(seconds.iter().filter_map(|(seconds, name)| seconds.map(|s| format!("{name}={s}"))));
    HeaderValue::from_str(&said.join(", ")).unwrap()
}

const RANGES: [&str; 22] = [
    "bytes=",
    "bytes=",
    "bytes ",
    "items=",
    "BYTES=",
    "0",
    "1",
    "499",
    "500",
    "9500",
    "-",
    "-",
    "-",
    ",",
    ", ",
    "18446744073709551615",
    "99999999999999999999",
    "*",
    "/",
    "/1000",
    " ",
    "+",
];

pub fn range(dice: &mut Dice) {
    let mut text = if dice.one_in(2) { b"bytes=".to_vec() } else { Vec::new() };
    text.extend(dice.text(&RANGES, 10));
    let len = dice.number();
    if let Some(asked) = range::parse(&text) {
        if let Ranges::Several(specs) = &asked {
            assert!((2..=range::MOST).contains(&specs.len()), "§14.2");
        }
        if let Ranges::One(spec) = &asked {
            assert_eq!(range::parse(spec.to_string().as_bytes()), Some(asked.clone()), "written again");
        }
        let inside = |span: &Span| span.first <= span.last && span.last < len;
        match asked.resolve(len) {
            Resolved::Part(span) => assert!(inside(&span), "§14.1.2"),
            Resolved::Parts(spans) => {
                assert!(spans.len() >= 2 && spans.iter().all(inside), "§14.1.2");
                let mut sorted = spans.clone();
                sorted.sort_unstable();
                assert!(sorted.windows(2).all(|two| two[0].end() <= two[1].first), "they do not overlap");
            }
            Resolved::Unsatisfiable | Resolved::Whole => {}
        }
        // What cannot be satisfied of some length cannot of a shorter one, but for nothing at all.
        if asked.resolve(len) == Resolved::Unsatisfiable && len > 1 {
            let shorter = 1 + dice.number() % (len - 1);
            assert_eq!(asked.resolve(shorter), Resolved::Unsatisfiable, "§15.5.17");
        }
    }
    let mut text = if dice.one_in(2) { b"bytes ".to_vec() } else { Vec::new() };
    text.extend(dice.text(&RANGES, 6));
    if let Some(said) = range::parse_content_range(&text) {
        let number = |n: Option<u64>| n.map_or("*".to_owned(), |n| n.to_string());
        let span = said.span.map_or("*".to_owned(), |span| format!("{}-{}", span.first, span.last));
        let again = format!("bytes {span}/{}", number(said.length));
        assert_eq!(range::parse_content_range(again.as_bytes()), Some(said), "§14.4 {again}");
        let fits = said.span.zip(said.length).is_none_or(|(span, length)| span.last < length);
        assert!(fits && said.span.is_none_or(|span| span.first <= span.last), "§14.4 {again}");
    }
}

const NAMES: [HeaderName; 6] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, USER_AGENT, AUTHORIZATION];

const VARIES: [&str; 18] = [
    "accept",
    "Accept-Encoding",
    "accept-language",
    "COOKIE",
    "user-agent",
    "authorization",
    "*",
    ",",
    ", ",
    ",",
    ",",
    " ",
    "\t",
    "\"accept\"",
    "x y",
    ":",
    "origin",
    "",
];

const VALUES: [&str; 34] = [
    "gzip",
    "br",
    "identity",
    "*",
    "x-gzip",
    "zstd",
    "en",
    "de",
    "DE-at",
    "fr",
    "text/html",
    "*/*",
    ",",
    ", ",
    ",",
    " , ",
    ";q=0.5",
    ";q=0",
    "; Q=1.000",
    " ;q=0.125",
    ";q=",
    "=",
    "\"",
    "\"a, b\"",
    "\\",
    " ",
    "\t",
    ";",
    "GZIP",
    "0.5",
    "\u{e9}",
    "a b",
    "bearer x",
    "a=b; c=d",
];

pub fn vary(dice: &mut Dice) {
    let lines = dice.lines(&VARIES, 2);
    let vary = Vary::parse(&headers(&VARY, &lines));
    if let Vary::Names(names) = &vary {
        assert!(names.is_sorted_by(|a, b| a.as_str() < b.as_str()), "each once");
        let written: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let written = HeaderValue::from_str(&written.join(", ")).unwrap();
        assert_eq!(Vary::parse(&headers(&VARY, &[written])), vary, "written again");
    }
    let mut more = lines;
    more.extend(dice.lines(&VARIES, 1));
    let wider = Vary::parse(&headers(&VARY, &more));
    match (&vary, &wider) {
        (_, Vary::Star) => {}
        (Vary::Names(names), Vary::Names(more)) => assert!(names.iter().all(|name| more.contains(name))),
        (Vary::Star, Vary::Names(_)) => panic!("a star was taken back"),
    }

    let normalize = Normalize { accept_language: dice.one_in(2) };
    let vary = if dice.one_in(4) { vary } else { Vary::Names(NAMES.to_vec()) };
    let (one, other) = (request(dice), request(dice));
    let resp = ResponseFacts::of(200, &HeaderMap::new(), Timestamp::default(), Timestamp::default());
    let (of_one, of_other) =
        (selecting_fields(&vary, &one, normalize), selecting_fields(&vary, &other, normalize));
    let star = vary == Vary::Star;
    assert_eq!(of_one.matches(&resp, &one, normalize), !star, "§4.1: a request matches itself");
    let same = !star && of_one == of_other;
    assert_eq!(of_one.matches(&resp, &other, normalize), same, "§4.1");
    assert_eq!(of_other.matches(&resp, &one, normalize), same, "§4.1: both ways alike");
    assert_eq!(of_one.hash() == of_other.hash(), of_one == of_other, "what is hashed is what counts");
    for (name, kept) in of_one.parts() {
        // Of credentials a digest is kept; lines of what is no list are joined and left as they are.
        let as_is = [AUTHORIZATION, COOKIE, USER_AGENT].contains(name) || *name == "*";
        let written = kept.filter(|_| !as_is).map(|kept| HeaderValue::from_bytes(kept).unwrap());
        if let Some(written) = written {
            // The one form of a value has itself, alone and on one line.
            let again = headers(name, &[written]);
            let once = selecting_fields(&Vary::Names(vec![name.clone()]), &again, normalize);
            assert_eq!(once.parts().next().unwrap().1, kept, "{name}");
        }
    }
    if let Some(language) = accept::preferred_language(&one) {
        assert!(accept::is_language(language));
    }
}

/// A request whose fields stand close to another's: values of the same few words.
fn request(dice: &mut Dice) -> HeaderMap {
    let mut request = HeaderMap::new();
    for name in NAMES {
        if dice.one_in(3) {
            for line in dice.lines(&VALUES, 2) {
                request.append(name.clone(), line);
            }
        }
    }
    request
}

const DATES: [&str; 36] = [
    "Sun, ",
    "Sunday, ",
    "Sun ",
    "Mon, ",
    "06 Nov 1994",
    "06-Nov-94",
    "Nov  6",
    "29 Feb 1900",
    "29 Feb 2000",
    "31 Dec 9999",
    "01 Jan 0000",
    " 08:49:37",
    " 08:49:37",
    " 23:59:60",
    " 24:00:00",
    " 8:49:37",
    " GMT",
    " GMT",
    " gmt",
    " UTC",
    " +0000",
    " 1994",
    " ",
    "\t",
    ",",
    "-",
    ":",
    "0",
    "99",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "sUN, 06 nOV 1994 08:49:37 gmt",
    "-70",
    "-69",
    "1970",
];

pub fn date(dice: &mut Dice) {
    let now = Timestamp::from_secs(dice.number() % 253_402_300_800);
    let mut text = if dice.one_in(3) {
        date::format(Timestamp::from_secs(dice.number())).to_vec()
    } else {
        dice.text(&DATES, 5)
    };
    if dice.one_in(3) {
        dice.damage(&mut text, &DATES);
    }
    let Some(read) = date::parse(&text, now) else { return };
    assert_eq!(
        date::parse(&date::format(read), now),
        Some(read),
        "what was read reads the same when written"
    );
    assert_eq!(date::parse(&text.to_ascii_lowercase(), now), Some(read), "RFC 9111 §4.2: in any case");
    assert_eq!(date::parse(&[b" \t", &text[..], b" "].concat(), now), Some(read), "9110 §5.5");
    assert_eq!(date::parse(&[&text[..], b"0"].concat(), now), None, "nothing stands behind a date");
    let year = 366 * 86_400;
    let rfc850 = list::trim(&text).iter().filter(|byte| **byte == b'-').count() == 2;
    assert!(!rfc850 || read.as_secs() <= now.as_secs() + 51 * year, "9110 §5.6.7: 50 years ahead at most");
}

const STRUCTURED: [&str; 40] = [
    "a",
    "b",
    "max-age",
    "key-order",
    "params",
    "except",
    "*x",
    "=",
    "=",
    "=",
    ",",
    ", ",
    ",",
    ";",
    ";p",
    ";p=1",
    "(",
    ")",
    "(\"a\" \"b\")",
    "()",
    "\"",
    "\"a\"",
    "\"b, c\"",
    "\\",
    "\\\"",
    "1",
    "-1",
    "60",
    "1.5",
    "1234567890123456",
    "?1",
    "?0",
    "?",
    ":YQ==:",
    ":",
    "@1",
    "%\"a\"",
    "tok/en",
    " ",
    "\t",
];

pub fn structured(dice: &mut Dice) {
    const NAME: HeaderName = CACHE_GROUPS;
    let lines = dice.lines(&STRUCTURED, 3);
    let all = headers(&NAME, &lines);
    if let Some(members) = structured::list(&all, &NAME) {
        assert!(!members.is_empty());
        if let Some(written) = members.iter().map(text).collect::<Option<Vec<_>>>() {
            let again = headers(&NAME, &[HeaderValue::from_str(&written.join(", ")).unwrap()]);
            assert_eq!(structured::list(&again, &NAME), Some(members), "written again");
        }
    }
    if let Some(said) = Dictionary::parse(&all, &NAME) {
        // One more member is one more member, and the last word on its key.
        let mut more = lines.clone();
        more.push(HeaderValue::from_static("zz=7, a=?0"));
        let more = Dictionary::parse(&headers(&NAME, &more), &NAME).unwrap();
        assert_eq!(more.get("zz"), Some(&Member::Item(Bare::Integer(7))));
        assert_eq!(more.get("a"), Some(&Member::Item(Bare::Boolean(false))), "RFC 9651 §4.2.2");
        for key in ["b", "max-age", "key-order", "params", "*x"] {
            assert_eq!(more.get(key), said.get(key), "the others stay");
        }
        // Damage anywhere is damage everywhere.
        let mut damaged = lines.clone();
        damaged.push(HeaderValue::from_static("&"));
        assert_eq!(Dictionary::parse(&headers(&NAME, &damaged), &NAME), None, "RFC 9651 §4.2");
    }
    let groups = Groups::of(&all);
    let names: Vec<_> = groups.iter().collect();
    assert!(names.len() <= MAX_GROUPS && names.iter().all(|name| name.len() <= MAX_NAME), "RFC 9875 §2");
    assert!(names.is_sorted_by(|a, b| a < b), "each once");
}

/// A String as it is written; of another type it is not known any more how.
fn text(member: &Member) -> Option<String> {
    match member {
        Member::Item(Bare::String(said)) => {
            Some(format!("\"{}\"", said.replace('\\', "\\\\").replace('"', "\\\"")))
        }
        Member::Item(Bare::Integer(number)) => Some(number.to_string()),
        Member::Item(Bare::Boolean(boolean)) => Some(format!("?{}", u8::from(*boolean))),
        _ => None,
    }
}

const QUERIES: [&str; 24] = [
    "a",
    "b",
    "utm_source",
    "=",
    "=",
    "&",
    "&",
    "&&",
    "1",
    "2",
    "+",
    "%20",
    "%61",
    "%",
    "%c3%a9",
    "%ff",
    "é",
    "%26",
    "%3D",
    "?",
    "#",
    ";",
    "%E6%B0%97",
    "/",
];

const RULES: [&str; 22] = [
    "key-order",
    "key-order",
    "key-order=?1",
    "key-order=?0",
    "params",
    "params",
    "params=?0",
    "params=(\"a\")",
    "params=(\"a\" \"b\")",
    "params=()",
    "except=(\"a\")",
    "except=(\"b\" \"%61\")",
    "except=()",
    ", ",
    ", ",
    ", ",
    ",",
    ";x",
    "x=1",
    "(\"%C3%A9+\")",
    "=",
    "params=(a)",
];

pub fn no_vary_search(dice: &mut Dice) {
    let lines = dice.lines(&RULES, 2);
    let Some(rule) = NoVarySearch::parse(&headers(&NO_VARY_SEARCH, &lines)) else { return };
    let query = |dice: &mut Dice| String::from_utf8_lossy(&dice.text(&QUERIES, 12)).into_owned();
    let (one, other) = (query(dice), query(dice));
    let form = rule.canonical(&one);
    assert_eq!(rule.canonical(&form), form, "the one form has itself");
    assert!(rule.same(&one, &form) && rule.same(&one, &one));
    assert_eq!(rule.same(&one, &other), rule.same(&other, &one), "both ways alike");
    assert!(rule.canonical(&format!("{one}&&")) == form, "empty arguments do not count");
    assert!(form.is_ascii() && form.len() <= 9 * one.len() + 1, "bounded");
    let again = NoVarySearch::parse(&headers(&NO_VARY_SEARCH, &lines)).unwrap();
    assert_eq!(again, rule);
}
