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
#[path = "fuzz/kept.rs"]
mod kept;
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

const TARGETS: [Target; 14] = [
    ("cache-control", fields::cache_control),
    ("range", fields::range),
    ("vary", fields::vary),
    ("date", fields::date),
    ("structured", fields::structured),
    ("no-vary-search", fields::no_vary_search),
    ("facts", kept::facts),
    ("key", kept::key),
    ("codec", kept::codec),
    ("proxy-header", clients::proxy_header),
    ("forwarded", clients::forwarded),
    ("response-ends", responses::ends),
    ("responses", responses::damaged),
    ("requests", wire::requests),
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
            assert_eq!(TARGETS.map(|(name, _)| name), [$($name),+]);
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
    "proxy-header" => proxy_headers_are_read_whatever_comes, a_million_of_proxy_header;
    "forwarded" => chains_of_proxies_are_read_whatever_comes, a_million_of_forwarded;
    "response-ends" => responses_end_where_they_end, a_million_of_response_ends;
    "responses" => responses_are_read_whatever_comes, a_million_of_responses;
    "requests" => requests_are_told_apart_whatever_comes, a_million_of_requests;
}
