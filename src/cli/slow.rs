//! `larder slow`: the last slow requests of a running Larder, and those that come, at a terminal or for programs.
//!
//! Knows how a line of them looks, and how to ask again without missing or repeating one.
//! Must not know: which requests are slow.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::args::Slow;
use super::shown::{grouped, plain, route};
use super::status::Silent;
use super::whom::{Asked, Named};
use super::{colours, exit, print_on};

/// How long an answer may be held back until there is something new. The listener has its own bound.
const WAIT: &str = "10s";
/// Pause before asking again where too many others wait already.
const PAUSE: Duration = Duration::from_secs(1);
/// Phases that a line tells of: those that took longest.
const PHASES: usize = 3;

/// Shows the slow requests of the Larder that is named.
pub(super) fn slow(named: &Named, args: &Slow) -> ExitCode {
    let larder = match named.asked() {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    let mut follower = Follower::default();
    loop {
        let page = match page(&larder, &follower.query()) {
            Ok(page) => page,
            Err(silent) => return silent.complain(&larder),
        };
        let most = follower.process.is_none().then_some(args.lines);
        let news = follower.news(&page, most);
        if let Err(code) = print_on(&if args.json { news.lines() } else { news.shown(colours()) }) {
            return code;
        }
        if !args.tail {
            return exit::DONE.into();
        }
        if page.get("waited").and_then(Value::as_bool) == Some(false) {
            std::thread::sleep(PAUSE);
        }
    }
}

fn page(larder: &Asked, query: &str) -> Result<Value, Silent> {
    let (status, body) = larder.get(query).map_err(Silent::Gone)?;
    let page: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status != StatusCode::OK || !page.is_object() {
        return Err(Silent::Refused(status));
    }
    Ok(page)
}

/// How far somebody has read, and of which process.
#[derive(Debug, Default)]
struct Follower {
    process: Option<Value>,
    last: u64,
}

/// What an answer has that was not shown before.
#[derive(Debug)]
struct News<'v> {
    requests: &'v [Value],
    /// Slow requests that were never shown, since there were too many at once.
    lost: u64,
    /// The numbers begin anew.
    restarted: bool,
    /// There is nothing to be shown yet, and nothing was asked for but what there is.
    none: bool,
}

impl Follower {
    /// What to ask for: all that there is at first.
    fn query(&self) -> String {
        match self.process {
            Some(_) => format!("/slow?since={}&wait={WAIT}", self.last),
            None => "/slow".to_owned(),
        }
    }

    /// Takes an answer in; of the first one no more than `most`, the latest.
    fn news<'v>(&mut self, page: &'v Value, most: Option<usize>) -> News<'v> {
        let process = page.get("process").cloned().unwrap_or(Value::Null);
        let restarted = self.process.as_ref().is_some_and(|known| *known != process);
        let first = self.process.is_none();
        self.process = Some(process);
        if restarted {
            // What it has by now beyond our number is not all that it has: the next answer is.
            self.last = 0;
            return News { requests: &[], lost: 0, restarted, none: false };
        }
        let number = |name: &str| page.get(name).and_then(Value::as_u64).unwrap_or(0);
        let requests = page.get("requests").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let skipped = requests.len().saturating_sub(most.unwrap_or(usize::MAX));
        self.last = number("last");
        News {
            requests: requests.get(skipped..).unwrap_or_default(),
            lost: if first { 0 } else { number("lost") },
            restarted,
            none: first && requests.is_empty(),
        }
    }
}

impl News<'_> {
    /// One JSON object a line.
    fn lines(&self) -> String {
        self.requests.iter().map(|request| format!("{request}\n")).collect()
    }

    /// The same for people.
    fn shown(&self, colour: bool) -> String {
        let mut text = String::new();
        if self.restarted {
            text.push_str("(Larder has restarted)\n");
        }
        if self.none {
            text.push_str("(no request has been slow so far)\n");
        }
        if self.lost > 0 {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "({} came too fast to be shown)", grouped(self.lost));
        }
        for request in self.requests {
            let _ = writeln!(text, "{}", line(request, colour));
        }
        text
    }
}

fn line(request: &Value, colour: bool) -> String {
    let word = |name: &str| plain(request.get(name).and_then(Value::as_str).unwrap_or("-"));
    let number = |name: &str| request.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let why = ["tier", "detail", "reason"].into_iter().find_map(|name| request.get(name)?.as_str());
    let outcome = format!("{} {}", word("outcome"), plain(why.unwrap_or_default()));
    let took = format!("{:>10.1} ms", number("total_ms"));
    let took = if colour { format!("\u{1b}[33m{took}\u{1b}[0m") } else { took };
    let mut line = format!(
        "{}  {took}  {} {:<7} {}  {}  {}",
        word("ts"),
        number("status"),
        word("method"),
        word("path"),
        route(request.get("route").and_then(Value::as_str)),
        outcome.trim_end(),
    );
    let phases = request.get("phases_ms").and_then(Value::as_object);
    let mut phases: Vec<(&String, f64)> = phases
        .into_iter()
        .flatten()
        .filter_map(|(name, took)| Some((name, took.as_f64().filter(|took| *took >= 0.1)?)))
        .collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, took) in phases.iter().take(PHASES) {
        let _ = write!(line, "  {} {took:.1}", plain(name));
    }
    if word("end") != "complete" {
        let _ = write!(line, "  {}", word("end"));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(process: u64, numbers: &[u64], lost: u64) -> Value {
        let requests: Vec<Value> = numbers
            .iter()
            .map(|sequence| {
                json!({
                    "sequence": sequence, "ts": "2024-02-29T12:34:56.789Z", "method": "GET", "path": "/a\u{1b}[2J",
                    "route": "users", "status": 200, "outcome": "miss", "tier": null, "reason": "uri-miss",
                    "detail": null, "total_ms": 1503.25,
                    "phases_ms": { "memory": 0.01, "redis": 0.6, "connect": 1.0, "first_byte": 1500.0, "body": 2.0 },
                    "end": "client-gone",
                })
            })
            .collect();
        json!({ "process": process, "last": numbers.last(), "lost": lost, "waited": true, "requests": requests })
    }

    fn numbers(news: &News<'_>) -> Vec<u64> {
        news.requests.iter().filter_map(|request| request["sequence"].as_u64()).collect()
    }

    #[test]
    fn who_follows_misses_none_and_sees_none_twice_though_larder_restarts() {
        let mut follower = Follower::default();
        assert_eq!(follower.query(), "/slow");
        let (first, second, third) = (page(1, &[1, 2, 3], 7), page(1, &[6], 2), page(2, &[7], 0));
        let news = follower.news(&first, Some(2));
        assert_eq!((numbers(&news), news.none, news.restarted, news.lost), (vec![2, 3], false, false, 0));
        assert_eq!(follower.query(), "/slow?since=3&wait=10s");
        let news = follower.news(&second, None);
        assert_eq!((numbers(&news), news.lost), (vec![6], 2));
        assert!(news.shown(false).starts_with("(2 came too fast to be shown)\n"), "{}", news.shown(false));
        // The new process has had seven by now, of which this is the last.
        let news = follower.news(&third, None);
        assert_eq!((numbers(&news), news.restarted), (vec![], true));
        assert_eq!(follower.query(), "/slow?since=0&wait=10s");
        assert_eq!(numbers(&follower.news(&page(2, &[5, 6, 7], 0), None)), [5, 6, 7]);
        let (nothing, mut new) = (page(1, &[], 0), Follower::default());
        assert_eq!(new.news(&nothing, Some(20)).shown(false), "(no request has been slow so far)\n");
        assert_eq!(new.news(&nothing, None).shown(false), "");
    }

    #[test]
    fn a_line_tells_where_the_time_went_and_gives_the_terminal_no_orders() {
        let page = page(1, &[1], 0);
        let (plain, coloured) = (line(&page["requests"][0], false), line(&page["requests"][0], true));
        assert_eq!(
            plain,
            "2024-02-29T12:34:56.789Z      1503.2 ms  200 GET     /a[2J  users  miss uri-miss  \
             first_byte 1500.0  body 2.0  connect 1.0  client-gone"
        );
        let mut of_none = page["requests"][0].clone();
        of_none["route"] = json!("-");
        assert!(line(&of_none, false).contains("  (no route)  miss uri-miss  "), "{}", line(&of_none, false));
        assert_eq!(coloured.replace("\u{1b}[33m", "").replace("\u{1b}[0m", ""), plain);
        let news = Follower::default().news(&page, None).lines();
        assert_eq!(serde_json::from_str::<Value>(news.trim_end()).unwrap(), page["requests"][0]);
    }
}
