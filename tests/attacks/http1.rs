//! Runs a case over HTTP/1.1: sends its bytes, and says which of its outcomes came, or what is wrong.
//!
//! Knows what each outcome looks like to the client. What the origin has seen by the end of all cases is
//! judged in `verdict.rs`. Must not know: what a case is about.

use std::net::SocketAddr;

use super::script::{Case, Origin, Outcome};
use super::support::{Connection, Response};

/// What a proxy says of a request that it will not take (RFC 9110 §15.5), or not do (§15.6).
const REFUSALS: [u16; 14] = [400, 405, 408, 411, 413, 414, 415, 417, 421, 422, 426, 431, 501, 505];

/// How bytes are handed to the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Pieces {
    /// All at once.
    Whole,
    /// Byte by byte, so that whoever reads sees them cut in many places; large ones in large pieces.
    Cut,
}

impl Pieces {
    /// Sends, as far as the peer takes it: whoever refuses a head need not read it to its end, and what comes
    /// back tells the rest.
    fn send(self, connection: &mut Connection, bytes: &[u8]) {
        let size = match self {
            Self::Whole => bytes.len().max(1),
            Self::Cut => bytes.len().div_ceil(1000).max(1),
        };
        for piece in bytes.chunks(size) {
            if connection.try_write(piece).is_err() {
                return;
            }
        }
    }
}

/// A client attacks; what comes of it is among the case's outcomes, or an error.
pub fn attack(case: &Case, addr: SocketAddr, first: &[u8], pieces: Pieces) -> Result<Outcome, String> {
    let mut connection = Connection::open(addr);
    pieces.send(&mut connection, first);
    let Ok(response) = connection.try_response(&method(first)) else {
        let closed = connection.closes();
        return pick(case, |it| *it == Outcome::Cut && closed, "no answer came");
    };
    if REFUSALS.contains(&response.status) || case.safe.iter().any(|it| answers(it, response.status)) {
        return refusal(case, &mut connection, &response);
    }
    let passed = case.safe.iter().find(|it| matches!(it, Outcome::Passed(_)));
    let Some(Outcome::Passed(targets)) = passed else { return Err(format!("it was answered: {response:?}")) };
    let wanted = targets.len().max(1);
    let methods = methods(first, wanted);
    let mut answers = vec![response];
    for method in methods.iter().skip(1) {
        answers.push(connection.try_response(method).map_err(|error| format!("{error} after {answers:?}"))?);
    }
    let ended = says_close(answers.last().unwrap());
    let wrong = answers.iter().find(|answer| answer.status != 200 || !answer.complete);
    if let Some(wrong) = wrong {
        return Err(format!("answered with {wrong:?}"));
    }
    if !ended {
        next_on(&mut connection, case)?;
    }
    if connection.closes() {
        Ok(passed.unwrap().clone())
    } else {
        Err("more came than was asked for".to_owned())
    }
}

/// The connection goes on as if nothing had been: the next request on it gets its own answer.
fn next_on(connection: &mut Connection, case: &Case) -> Result<(), String> {
    let target = format!("/c{}/after", case.number);
    let host = format!("c{}.test", case.number);
    connection.write_head("GET", &target, &[("Host", &host), ("Connection", "close")]);
    let answer = connection.try_response("GET").map_err(|error| format!("the next request: {error}"))?;
    own_answer(&answer, &target, case)
}

/// Whether this is the origin's answer to this target.
fn own_answer(answer: &Response, target: &str, case: &Case) -> Result<(), String> {
    let text = answer.text();
    let own = match case.origin {
        Origin::Reflects => text.starts_with(&format!("GET {target}\n")),
        Origin::Errs(..) => text == "fine",
        Origin::Page => true,
        _ => text == format!("GET {target}"),
    };
    if answer.status == 200 && answer.complete && own {
        return Ok(());
    }
    Err(format!("the request for {target} got {answer:?}"))
}

fn answers(outcome: &Outcome, status: u16) -> bool {
    matches!(outcome, Outcome::Answered(statuses) if statuses.contains(&status))
}

fn refusal(case: &Case, connection: &mut Connection, response: &Response) -> Result<Outcome, String> {
    if !response.complete {
        return Err(format!("the refusal breaks off: {response:?}"));
    }
    let status = response.status;
    let by_larder = case.safe.iter().find(|it| answers(it, status));
    if let Some(outcome) = by_larder {
        return Ok(outcome.clone());
    }
    let closes = connection.closes();
    let fits = |outcome: &Outcome| match outcome {
        Outcome::Refused(statuses) => closes && (statuses.is_empty() || statuses.contains(&status)),
        _ => false,
    };
    pick(
        case,
        fits,
        &format!("status {status}, connection {}: {response:?}", if closes { "closed" } else { "open" }),
    )
}

/// The outcome of the case that fits, or what came in its place.
fn pick(case: &Case, fits: impl Fn(&Outcome) -> bool, came: &str) -> Result<Outcome, String> {
    let found = case.safe.iter().find(|it| fits(it)).cloned();
    found.ok_or_else(|| format!("{came}; safe: {:?}", case.safe))
}

/// The first client attacks, the second one asks in all innocence.
pub fn poison(case: &Case, addr: SocketAddr, first: &[u8], second: &[u8]) -> Result<Outcome, String> {
    let mut connection = Connection::open(addr);
    let _what_comes_back_tells = connection.try_write(first);
    let attacker = connection.try_response(&method(first)).ok();
    let target = target(second, case);
    let victim = match second.is_empty() {
        true => ask(case, addr, &target)?,
        false => {
            let mut connection = Connection::open(addr);
            connection.write(second);
            connection.try_response(&method(second)).map_err(|error| format!("the second client: {error}"))?
        }
    };
    let text = victim.text();
    let first_body = attacker.as_ref().map(Response::text).unwrap_or_default();
    let good = victim.status == 200 && victim.complete;
    let fits = |outcome: &Outcome| match outcome {
        Outcome::Harmless => good && !format!("{:?} {text}", victim.headers).to_lowercase().contains("evil"),
        Outcome::Unshared => good && text != first_body,
        Outcome::Own => good && text.contains(&format!(" {target}\n")),
        Outcome::Refused(_) => REFUSALS.contains(&victim.status),
        _ => false,
    };
    pick(case, fits, &format!("the second client got {victim:?} after {attacker:?}"))
}

/// A request that nobody can object to, on a connection of its own.
fn ask(case: &Case, addr: SocketAddr, target: &str) -> Result<Response, String> {
    let host = format!("c{}.test", case.number);
    let mut connection = Connection::open(addr);
    connection.write_head("GET", target, &[("Host", &host), ("Connection", "close")]);
    connection.try_response("GET").map_err(|error| format!("the request for {target}: {error}"))
}

/// The origin attacks: whoever asked is not deceived, others get their own answers, nothing of it is kept.
pub fn hostile_answer(case: &Case, addr: SocketAddr) -> Result<Outcome, String> {
    let path = format!("/c{}", case.number);
    let came = ask(case, addr, &path);
    for turn in 0..3 {
        let target = format!("{path}/other{turn}");
        own_answer(&ask(case, addr, &target)?, &target, case)
            .map_err(|it| format!("{it}, after {came:?}"))?;
    }
    let again = ask(case, addr, &path)?;
    let anew = again.status == 200 && again.text() == format!("GET {path}");
    let fits = |outcome: &Outcome| match (outcome, &came) {
        (Outcome::Gateway, Ok(it)) => anew && it.complete && [502, 504].contains(&it.status),
        (Outcome::Broken, Ok(it)) => anew && !it.complete,
        (Outcome::Broken, Err(_)) => anew,
        (Outcome::Body(body), Ok(it)) => it.complete && it.status < 500 && it.body == *body,
        _ => false,
    };
    pick(case, fits, &format!("{came:?}, then {again:?}"))
}

/// An origin that answers before it has the request, and leaves the connection open: nobody else's request
/// may go where the rest of this one's content is still expected.
pub fn early_answer(case: &Case, addr: SocketAddr, first: &[u8]) -> Result<Outcome, String> {
    let mut connection = Connection::open(addr);
    connection.write(first);
    let answer = connection.try_response(&method(first)).map_err(|error| format!("the client: {error}"))?;
    // A Host of another case, so that the origin answers it as usual.
    let (host, target) = ("c0.test", format!("/c0/after{}", case.number));
    for _ in 0..4 {
        let mut other = Connection::open(addr);
        other.write_head("GET", &target, &[("Host", host), ("Connection", "close")]);
        let own = other.try_response("GET").map_err(|error| format!("the next client: {error}"))?;
        if own.text() != format!("GET {target}") {
            return Err(format!("the next client got {own:?}"));
        }
    }
    let fits = |outcome: &Outcome| matches!(outcome, Outcome::Body(body) if *body == answer.body);
    pick(case, fits, &format!("{answer:?}"))
}

fn says_close(response: &Response) -> bool {
    response.headers.lists("connection", "close") || response.version == "HTTP/1.0"
}

/// The method of the first request in some bytes.
fn method(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    let end = bytes[start..].iter().position(|b| *b == b' ').map_or(bytes.len(), |it| it + start);
    String::from_utf8_lossy(&bytes[start..end]).into_owned()
}

/// The methods of so many requests that were sent at once: all like the first but where they are HEAD.
fn methods(bytes: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("\r\n").filter(|line| line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0"));
    let mut found: Vec<String> = lines.map(|line| method(line.as_bytes())).collect();
    found.resize(count, "GET".to_owned());
    found
}

/// The target of the second client's request.
fn target(second: &[u8], case: &Case) -> String {
    let text = String::from_utf8_lossy(second).into_owned();
    text.split(' ').nth(1).map(str::to_owned).unwrap_or_else(|| format!("/c{}", case.number))
}
