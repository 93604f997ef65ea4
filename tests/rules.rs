//! Runs the rule cases of `tests/rules/` against the public functions of `larder::rules`, and holds
//! laws that go across its chapters.
//!
//! What a case gives is a request, a response, a policy and a moment; what must come of it is read
//! from the clause that its block names. Must not know: how the rules come to their verdicts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "rules/corpus.rs"]
mod corpus;
#[path = "rules/laws.rs"]
mod laws;
#[path = "rules/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

/// No fewer, so that a file that is lost or not read is noticed.
const AT_LEAST: usize = 1_500;

#[test]
fn every_case_comes_out_as_its_clause_says() {
    let cases = corpus::cases().unwrap_or_else(|mistakes| panic!("\n{}\n", mistakes.join("\n")));
    let mut per_file: BTreeMap<&str, usize> = BTreeMap::new();
    let mut complaints = Vec::new();
    for case in &cases {
        *per_file.entry(case.place.split(':').next().unwrap()).or_default() += 1;
        if let Err(complaint) = world::judge(case) {
            complaints.push(format!("{} {}\n    {}\n    {complaint}", case.place, case.clause, case.told));
        }
    }
    let distinct: BTreeSet<String> = cases.iter().map(text).collect();
    println!("{} rule cases in {} files", distinct.len(), per_file.len());
    assert!(complaints.is_empty(), "{} of {}:\n{}\n", complaints.len(), cases.len(), complaints.join("\n"));
    assert!(distinct.len() >= AT_LEAST, "{} rule cases, not {AT_LEAST}: {per_file:?}", distinct.len());
    assert_eq!(per_file.len(), corpus::files().len(), "a file without cases: {per_file:?}");
}

#[test]
fn no_clause_says_a_case_twice() {
    let cases = corpus::cases().unwrap_or_else(|mistakes| panic!("\n{}\n", mistakes.join("\n")));
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut twice = Vec::new();
    for case in &cases {
        if let Some(before) = seen.insert(format!("{} {}", case.clause, text(case)), &case.place) {
            twice.push(format!("{} says what {before} says: {}", case.place, case.told));
        }
    }
    assert!(twice.is_empty(), "\n{}\n", twice.join("\n"));
}

/// What makes a case another than the next: what is given and expected.
fn text(case: &corpus::Case) -> String {
    format!("{:?} {:?}", case.given, case.expected)
}

#[test]
fn a_mistake_in_a_case_is_told_with_file_and_line() {
    for (text, mistake) in [
        ("at 1s => fresh", "stands in no block"),
        ("== 9111 4.2 title", "is no clause"),
        ("== 9111 §4.2", "a block opens with"),
        ("== 9111 §4.x title", "is no clause"),
        ("== 9111 §4.2 title\nat 1s", "no `=>`"),
        ("== 9111 §4.2 title\nat 1s => frehs", "`frehs` is no word for what is expected"),
        ("== 9111 §4.2 title\nat 1s => fresh x", "`fresh` stands alone"),
        ("== 9111 §4.2 title\nat 1s => ask", "`ask` needs more"),
        ("== 9111 §4.2 title\nam 1s => fresh", "`am` is no word for what is given"),
        ("== 9111 §4.2 title\nat 1 => fresh", "has no unit"),
        ("== 9111 §4.2 title\nat {1s / 2s} => {fresh / stale / stale}", "braces of different length"),
        ("== 9111 §4.2 title\nat {1s => fresh", "a brace stays open"),
        ("== 9111 §4.2 title\n< age 1 => fresh", "is no field"),
        ("== 9111 §4.2 title\ngiven at {1s / 2s}\n=> fresh", "`given` takes no alternatives"),
        ("== 9111 §4.2 title\neach at 1s\n=> fresh", "`each` without alternatives"),
        ("== 9111 §4.2 title\n=> fresh\ngiven at 1s", "comes before the block's rows"),
    ] {
        let mistakes = corpus::read("file.txt", text).expect_err(text);
        assert!(
            mistakes[0].starts_with("file.txt:") && mistakes[0].contains(mistake),
            "{text:?}: {mistakes:?}"
        );
    }
    // And what only the judge can notice: a value that a word does not take.
    for text in ["=> on-error perhaps", "set ttl.defualt=1s => stored", "=> life 60s nobody", "=> age ten"] {
        let cases = corpus::read("file.txt", &format!("== 9111 §4 title\n{text}")).unwrap();
        let complaint = world::judge(&cases[0]).expect_err(text);
        assert!(complaint.contains("unknown"), "{text:?}: {complaint}");
    }
}

#[test]
fn blocks_rows_and_alternatives_become_cases() {
    let text = "== 9111 §4.2 title\ngiven < a: b\neach < c: {1 / 2}\nat {1s / 2s} => {fresh / stale}";
    let cases = corpus::read("file.txt", text).unwrap();
    let short: Vec<_> =
        cases.iter().map(|case| format!("{:?} {}", case.given, case.expected[0].word)).collect();
    assert_eq!(short.len(), 4);
    assert!(short[0].contains("AtMillis(1000)") && short[0].ends_with("fresh"), "{short:?}");
    assert!(short[3].contains("AtMillis(2000)") && short[3].ends_with("stale"), "{short:?}");
    assert!(cases.iter().all(|case| case.clause == "9111 §4.2" && case.place == "file.txt:4"));
    let dates = "== 9111 §4.2 title\n< expires: @850+60s | < date: @asc-60s | < x: @now\\t\\xff => stored";
    let case = corpus::read("file.txt", dates).unwrap().remove(0);
    let values: Vec<_> = case.given.iter().map(|given| format!("{given:?}")).collect();
    let field = |name: &str, value: &[u8]| {
        format!("{:?}", corpus::Given::Response(corpus::Field { name: name.into(), value: value.into() }))
    };
    assert_eq!(values[0], field("expires", b"Sunday, 06-Nov-94 08:50:37 GMT"));
    assert_eq!(values[1], field("date", b"Sun Nov  6 08:48:37 1994"));
    assert_eq!(values[2], field("x", b"Sun, 06 Nov 1994 08:49:37 GMT\t\xff"));
}
