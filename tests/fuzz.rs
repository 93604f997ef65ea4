//! Fuzzing: what strangers can send, put together from the words of each grammar and then damaged,
//! against parsers and what they must keep to whatever comes in.
//!
//! `cargo test` runs [`EVERYDAY`] inputs of each target; a million of each:
//! `cargo test --release --test fuzz -- --ignored`. An input is made from its number alone, so a failure
//! can be run again: it names the target and the number, see `replay`.
//! Must not know: how a parser works; only what must hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "fuzz/clients.rs"]
mod clients;
#[path = "fuzz/dice.rs"]
mod dice;
#[path = "fuzz/fields.rs"]
mod fields;
#[path = "fuzz/frames.rs"]
mod frames;
#[path = "fuzz/kept.rs"]
mod kept;
#[path = "fuzz/pipelines.rs"]
mod pipelines;
#[path = "fuzz/responses.rs"]
mod responses;
#[path = "fuzz/wire.rs"]
mod wire;

use dice::Dice;

/// Inputs of each target in every run of the tests.
const EVERYDAY: u64 = 20_000;

/// Inputs of each target when it is asked for.
const MILLION: u64 = 1_000_000;

type Target = (&'static str, fn(&mut Dice));

const TARGETS: &[Target] = &[
    ("cache-control", fields::cache_control),
    ("range", fields::range),
    ("vary", fields::vary),
    ("date", fields::date),
    ("structured", fields::structured),
    ("no-vary-search", fields::no_vary_search),
    ("facts", kept::facts),
    ("key", kept::key),
    ("codec", kept::codec),
    ("guards", guards::guards),
    ("proxy-header", clients::proxy_header),
    ("forwarded", clients::forwarded),
    ("response-ends", responses::ends),
    ("responses", responses::damaged),
    ("requests", wire::requests),
    ("pipelines", pipelines::pipelines),
    ("plain", pipelines::plain),
    ("frames", frames::heads),
];

fn run(name: &str, inputs: u64) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    for number in 0..inputs {
        let outcome = std::panic::catch_unwind(|| target(&mut Dice::new(name, number)));
        assert!(outcome.is_ok(), "{name} fails on input {number}: run `replay` with these two");
    }
}

/// Runs one input again; for whoever looks into a failure.
#[test]
fn replay() {
    let (name, number) = ("cache-control", 0);
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    target(&mut Dice::new(name, number));
}

macro_rules! targets {
    ($($name:literal => $everyday:ident, $million:ident;)+) => {
        $(
            #[test]
            fn $everyday() {
                run($name, EVERYDAY);
            }

            #[test]
            #[ignore = "a million inputs: for a release build"]
            fn $million() {
                run($name, MILLION);
            }
        )+

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [$($name),+]);
        }
    };
}

targets! {
    "cache-control" => cache_control_is_read_whatever_comes, a_million_of_cache_control;
    "range" => ranges_are_read_whatever_comes, a_million_of_range;
    "vary" => selecting_fields_are_read_whatever_comes, a_million_of_vary;
    "date" => dates_are_read_whatever_comes, a_million_of_date;
    "structured" => structured_fields_are_read_whatever_comes, a_million_of_structured;
    "no-vary-search" => queries_have_one_form_whatever_comes, a_million_of_no_vary_search;
    "facts" => facts_are_read_and_judged_whatever_comes, a_million_of_facts;
    "key" => keys_are_made_whatever_comes, a_million_of_key;
    "codec" => records_are_read_whatever_comes, a_million_of_codec;
    "guards" => guards_hold_whatever_comes, a_million_of_guards;
    "proxy-header" => proxy_headers_are_read_whatever_comes, a_million_of_proxy_header;
    "forwarded" => chains_of_proxies_are_read_whatever_comes, a_million_of_forwarded;
    "response-ends" => responses_end_where_they_end, a_million_of_response_ends;
    "responses" => responses_are_read_whatever_comes, a_million_of_responses;
    "requests" => requests_are_told_apart_whatever_comes, a_million_of_requests;
    "pipelines" => pipelined_requests_are_taken_as_the_scanner_does, a_million_of_pipelines;
    "plain" => a_plain_head_is_one_to_scanner_and_hyper, a_million_of_plain;
    "frames" => heads_of_http2_are_found_whatever_comes, a_million_of_frames;
}

/// Paths and types as strangers write them, against what guards the store.
mod guards {
    use http::header::{CACHE_CONTROL, CONTENT_TYPE};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use larder::clock::Timestamp;
    use larder::fields::path;
    use larder::rules::{Exchanged, NotStored, Policy, ResponseFacts, guard};

    use super::dice::{Dice, value};

    const PATHS: [&str; 34] = [
        "/", "/", "/", "\\", "%2f", "%5C", ";", "%3b", "%3F", "%23", "%00", "%0a", "%20", "%25", "%252e",
        "%2e", ".", ".", "..", "%", "%z", "css", ".css", ".JS", ".png", ".woff2", ".html", "%63ss", "a",
        "account", ":", ",", "\u{e9}", "?",
    ];

    const TYPES: [&str; 18] = [
        "text/html",
        "text/css",
        "text/",
        "application/",
        "json",
        "javascript",
        "image/",
        "png",
        "octet-stream",
        ";",
        ",",
        " ",
        "charset=utf-8",
        "*/*",
        "font/woff2",
        "TEXT/HTML",
        "\u{e9}",
        "x",
    ];

    const AT: Timestamp = Timestamp::from_secs(784_111_777);

    fn judged(
        target: &str,
        status: u16,
        asked: &HeaderMap,
        answer: &HeaderMap,
        policy: &Policy,
    ) -> Result<(), NotStored> {
        let facts = ResponseFacts::of(status, answer, AT, AT);
        guard(&Exchanged { target, asked, answer }, &facts, policy)
    }

    pub fn guards(dice: &mut Dice) {
        let text = |dice: &mut Dice, most| {
            let bytes: Vec<u8> = dice.text(&PATHS, most);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let target = format!("/{}", text(dice, 10));
        let (on, off) = (Policy::default(), Policy { deception_guard: false, ..Policy::default() });
        let mut asked = HeaderMap::new();
        for line in dice.lines(&PATHS, 2) {
            asked.append(HeaderName::from_static("x-a"), line);
        }
        let mut answer = HeaderMap::new();
        for line in dice.lines(&TYPES, 2) {
            answer.append(CONTENT_TYPE, line);
        }
        let status = *dice.pick(&[200, 203, 206, 301, 404, 500]);
        let seen = judged(&target, status, &asked, &answer, &on);
        assert!(seen != Err(NotStored::Deception) || (200..300).contains(&status), "{target}");
        assert!(seen != Err(NotStored::OddRequest) || status >= 400, "{target}");
        // The switch and the origin's word only ever let more through.
        assert!(judged(&target, status, &asked, &answer, &off) != Err(NotStored::Deception));
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        assert!(judged(&target, status, &asked, &answer, &on) != Err(NotStored::Deception));
        // Whatever stands before it, and whatever hides behind it, a page under the name of a style is found.
        let mut page = HeaderMap::new();
        page.insert(CONTENT_TYPE, value("text/html".into()));
        let hidden = text(dice, 3).replace(['/', '\\', '.', '?'], "").replace("%2", "").replace("%5", "");
        let before = target.replace('?', "");
        for found in [
            format!("{before}/x.css"),
            format!("{before}/x.css;{hidden}"),
            format!("{before}/x%2ecss?{hidden}"),
        ] {
            assert_eq!(judged(&found, 200, &asked, &page, &on), Err(NotStored::Deception), "{found}");
        }
        if let Some(read) = path::as_some_read_it(&target) {
            assert!(!read.contains("//") && !read.contains(['\\', '\0', '?', '#']), "{target}: {read}");
            assert_ne!(read, target);
        }
    }
}
