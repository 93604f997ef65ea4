//! Attacks over raw sockets, at default settings: every case of `tests/attacks/` against one Larder that
//! was told where it listens, one server and one route, and nothing else.
//!
//! Knows how a case is run and what must hold of all that the origin has seen. Must not know: what any
//! case is about, or how Larder is built.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "attacks/http1.rs"]
mod http1;
#[path = "attacks/http2.rs"]
mod http2;
#[path = "attacks/script.rs"]
mod script;
mod support;
#[path = "attacks/target.rs"]
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http1::Pieces;
use script::{Attack, Case, Origin, Outcome, Seen};
use support::Larder;
use target::{Request, Target};

/// No fewer, so that a file that is lost or not read is noticed.
const AT_LEAST: usize = 600;
/// Cases under way at a time.
const AT_ONCE: usize = 12;

#[test]
fn every_attack_comes_to_nothing() {
    let cases = all_cases();
    let per_class = hold(&cases, Pieces::Whole);
    assert!(cases.len() >= AT_LEAST, "{} attacks, not {AT_LEAST}: {per_class:?}", cases.len());
    assert_eq!(per_class.len(), script::files().len(), "a file without cases: {per_class:?}");
}

/// Where the bytes of a request are cut says nothing of where it ends.
#[test]
fn cut_into_pieces_they_come_to_nothing_either() {
    hold(&all_cases(), Pieces::Cut);
}

fn all_cases() -> Vec<Case> {
    script::cases().unwrap_or_else(|mistakes| panic!("\n{}\n", mistakes.join("\n")))
}

/// Runs the cases against one Larder and judges each; gives how many there were of each class.
fn hold(cases: &[Case], pieces: Pieces) -> BTreeMap<&str, usize> {
    let target = Target::start(cases);
    let larder = Larder::start(&configuration(&target));
    let came = run_all(cases, larder.proxy(), pieces);
    let mut complaints = Vec::new();
    let mut per_class: BTreeMap<&str, usize> = BTreeMap::new();
    for (case, came) in cases.iter().zip(came) {
        *per_class.entry(&case.class).or_default() += 1;
        if let Err(complaint) = came.and_then(|outcome| seen_well(case, &outcome, &target)) {
            complaints.push(format!("{} {}\n    {complaint}", case.place, case.told));
        }
    }
    let stray = target.requests(None);
    println!("{} attacks: {per_class:?}", cases.len());
    assert!(complaints.is_empty(), "{} of {}:\n{}\n", complaints.len(), cases.len(), complaints.join("\n"));
    assert!(stray.is_empty(), "the origin saw what no case sent: {stray:#?}");
    per_class
}

/// With nobody in between, what must be refused is not: the cases tell a guard from none.
#[test]
fn straight_to_the_origin_the_same_attacks_succeed() {
    let cases = all_cases();
    let target = Target::start(&cases);
    let refused = |case: &Case| case.safe.iter().all(|it| matches!(it, Outcome::Refused(_)));
    let hosts = cases.into_iter().filter(|case| case.class == "05-host" && refused(case)).collect::<Vec<_>>();
    let came = run_all(&hosts, target.addr(), Pieces::Whole);
    let held: Vec<_> = hosts.iter().zip(&came).filter(|(_, came)| came.is_ok()).collect();
    assert!(hosts.len() > 40 && held.is_empty(), "{} of {}: {held:?}", held.len(), hosts.len());
}

#[test]
fn no_attack_stands_there_twice() {
    let cases = all_cases();
    let told: BTreeSet<String> = cases.iter().map(|case| format!("{} {}", case.class, case.told)).collect();
    assert_eq!(told.len(), cases.len(), "two cases of a class have one title and alternative");
}

/// Where it listens, one server, one route: everything else is as a newcomer has it.
fn configuration(target: &Target) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\n\n[upstream.api]\nservers = [\"http://{}\"]\n\n\
         [[route]]\nname = \"all\"\nupstream = \"api\"\nmatch = {{ path = \"/*\" }}\n",
        target.addr()
    )
}

/// Every case, some at a time; what came of each, in order.
fn run_all(cases: &[Case], addr: SocketAddr, pieces: Pieces) -> Vec<Result<Outcome, String>> {
    let next = AtomicUsize::new(0);
    let came: Mutex<BTreeMap<usize, Result<Outcome, String>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = std::panic::catch_unwind(|| run(case, addr, pieces))
                        .unwrap_or_else(|_| Err("the test's own client gave up".to_owned()));
                    came.lock().unwrap().insert(case.number, outcome);
                }
            });
        }
    });
    came.into_inner().unwrap().into_values().collect()
}

fn run(case: &Case, addr: SocketAddr, pieces: Pieces) -> Result<Outcome, String> {
    match (&case.attack, &case.origin) {
        (Attack::Http2(frames), _) => http2::attack(case, addr, frames),
        (Attack::Answer(_), _) => http1::hostile_answer(case, addr),
        (Attack::Http1 { first, .. }, Origin::Echoes) => http1::attack(case, addr, first, pieces),
        (Attack::Http1 { first, .. }, Origin::Early) => http1::early_answer(case, addr, first),
        (Attack::Http1 { first, second }, _) => http1::poison(case, addr, first, second),
    }
}

/// Whether what the origin has seen of a case by the end of all agrees with what came of it.
fn seen_well(case: &Case, outcome: &Outcome, target: &Target) -> Result<(), String> {
    let requests = target.requests(Some(case.number));
    let problems: Vec<&Request> = requests.iter().filter(|it| !it.problems.is_empty()).collect();
    if !problems.is_empty() {
        return Err(format!("the origin got what is not well formed: {problems:?}"));
    }
    let own = format!("/c{}/after", case.number);
    let attack: Vec<&Request> = requests.iter().filter(|it| it.target != own).collect();
    match outcome {
        Outcome::Refused(_) | Outcome::Cut | Outcome::Ended => match attack.iter().find(|it| it.whole) {
            Some(whole) if case.origin == Origin::Echoes => {
                Err(format!("{outcome:?}, yet the origin got {whole:?}"))
            }
            _ => Ok(()),
        },
        Outcome::Answered(_) if !attack.is_empty() => {
            Err(format!("{outcome:?}, yet the origin got {attack:?}"))
        }
        Outcome::Passed(targets) => passed_well(case, targets, &attack),
        _ => Ok(()),
    }
}

fn passed_well(case: &Case, targets: &[String], requests: &[&Request]) -> Result<(), String> {
    let path = [format!("/c{}", case.number)];
    let wanted = if targets.is_empty() { &path } else { targets };
    let came: Vec<&str> = requests.iter().map(|it| it.target.as_str()).collect();
    let first = requests.first().ok_or("the origin got nothing")?;
    if came != wanted || requests.iter().any(|it| !it.whole) {
        return Err(format!("the origin got {requests:?}, not {wanted:?}"));
    }
    let missed = case.seen.iter().find(|seen| match seen {
        Seen::Body(body) => first.body != *body,
        Seen::Without(name) => first.field(name).is_some(),
        Seen::Field(name) => first.field(name).is_none(),
        Seen::With(name, value) => first.field(name) != Some(value.as_str()),
    });
    missed.map_or(Ok(()), |missed| Err(format!("not {missed:?} but {first:?}")))
}
