//! The access log: one line per request, on stdout.
//!
//! Knows the two forms, for people and for machines. The line is made on the request's thread and
//! written by another, so a slow reader costs lines (dropped, counted), never a request's time.
//! Must not know: how requests are counted, or what switches the log on.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::finish::{End, Finished};
use super::heads_kept::{Answer, Request};
use super::lines::Lines;
use super::outcome::{Kind, Outcome, Source, Tier};
use super::stamp::{Rfc3339, TimeOfDay};

/// Longer paths and hosts are cut in the log, so that lines, and with them the queue, are bounded.
const LONGEST: usize = 2048;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people: `18:04:05.123  GET     /users/1   200  HIT memory   0.81 ms`. The time is UTC.
    Text {
        /// Colour the outcome and the status, for a terminal.
        colour: bool,
    },
    /// For machines: one JSON object.
    Json,
}

/// The access log, shared by all workers.
#[derive(Debug)]
pub struct AccessLog {
    form: Form,
    lines: Lines,
}

impl AccessLog {
    /// A log on stdout; `queue` lines may wait for a slow reader before further ones are dropped.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn stdout(form: Form, queue: usize) -> io::Result<Self> {
        Self::new(Box::new(io::stdout()), form, queue)
    }

    /// A log on anything that can be written to.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn new(out: Box<dyn Write + Send>, form: Form, queue: usize) -> io::Result<Self> {
        Ok(Self { form, lines: Lines::new("access-log", queue, out)? })
    }

    /// Logs a finished request. Never waits.
    pub fn record(&self, r: &Finished) {
        let mut line = Vec::with_capacity(384);
        // Writing to a Vec cannot fail, and the keys of the JSON form are strings.
        let made = match self.form {
            Form::Text { colour } => line.write_all(text(r, colour).as_bytes()),
            Form::Json => serde_json::to_writer(&mut line, &Line::of(r)).map_err(io::Error::from),
        };
        if made.is_ok() {
            line.push(b'\n');
            self.lines.push(&line);
        }
    }

    /// Whether it tells of the heads of requests and answers.
    pub const fn tells_heads(&self) -> bool {
        matches!(self.form, Form::Json)
    }

    /// Lines that never reached the reader.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Waits until all lines so far are written, at most `within`; says whether they were.
    pub fn flush(&self, within: Duration) -> bool {
        self.lines.flush(within)
    }

    /// Takes no more lines and waits like [`AccessLog::flush`]. Blocks the thread it is called on.
    pub fn stop(&self, within: Duration) -> bool {
        self.lines.close();
        self.lines.flush(within)
    }
}

/// The JSON form: docs/logs.md tells each key. They are stable; what there is none of is null.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "display")]
    ts: Rfc3339,
    client: IpAddr,
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    path: Clipped<'a>,
    status: u16,
    route: &'a str,
    /// The word of the label `result`.
    cache: &'static str,
    tier: Option<&'static str>,
    reason: Option<&'static str>,
    detail: Option<&'static str>,
    collapsed: bool,
    dur_ms: f64,
    bytes_out: u64,
    end: &'static str,
    length: Option<u64>,
    age_s: Option<u64>,
    request: Option<Request<'a>>,
    response: Option<Answer<'a>>,
    trace_id: Option<String>,
    span_id: Option<String>,
    request_id: Option<&'a str>,
}

/// A text that is cut where it is long.
struct Clipped<'a>(Cow<'a, str>);

impl Serialize for Clipped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(clipped(&self.0))
    }
}

impl<'a> Line<'a> {
    fn of(r: &'a Finished) -> Self {
        Self {
            ts: Rfc3339(r.at),
            client: r.client,
            method: r.method.as_str(),
            scheme: r.heads.scheme,
            host: clipped(r.host),
            path: Clipped(r.shown_path()),
            status: r.status,
            route: r.route_name,
            cache: r.outcome.result(),
            tier: r.outcome.tier().map(Tier::as_str),
            reason: r.outcome.reason(),
            detail: r.outcome.note(),
            collapsed: r.outcome.collapsed,
            dur_ms: r.total.as_micros() as f64 / 1000.0,
            bytes_out: r.bytes,
            end: r.end.as_str(),
            length: r.heads.length,
            age_s: r.heads.age.map(|age| age.as_secs()),
            request: r.heads.request.map(|headers| Request {
                headers,
                answer: r.heads.answer,
                keyed: r.heads.keyed,
            }),
            response: r.heads.answer.map(Answer),
            trace_id: r.ids.and_then(|ids| ids.trace).map(|trace| trace.trace_id()),
            span_id: r.ids.and_then(|ids| ids.trace).map(|trace| trace.span_id()),
            request_id: r.ids.and_then(|ids| ids.request.as_ref()?.to_str().ok()),
        }
    }
}

fn display<S: Serializer>(value: &Rfc3339, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn text(r: &Finished, colour: bool) -> String {
    let (time, method, path) = (TimeOfDay(r.at), r.method.as_str(), escaped(clipped(&r.shown_path())));
    let outcome = words(r.outcome);
    let (paint, plain) = if colour { (paint(r), "\u{1b}[0m") } else { ("", "") };
    let millis = r.total.as_micros() as f64 / 1000.0;
    let mut line = format!(
        "{time}  {method:<7} {path:<28}  {paint}{:03}  {outcome:<24}{plain} {millis:>9.2} ms",
        r.status
    );
    if r.end != End::Complete {
        // Writing to a String cannot fail.
        let _ = write!(line, "  {}", r.end.as_str());
    }
    line
}

/// The outcome for people: what `X-Cache` says, and the one word that explains it best.
fn words(outcome: &Outcome) -> String {
    let first = outcome.x_cache().unwrap_or(match outcome.kind() {
        Kind::Failed => "FAILED",
        _ => "LOCAL",
    });
    let second = match outcome.source {
        Source::StaleIfError | Source::StaleAfterError => Some("if-error"),
        Source::Bypass(_) => outcome.reason(),
        _ => outcome.tier().map(Tier::as_str).or(outcome.note()).or(outcome.reason()),
    };
    let third = if outcome.collapsed { " collapsed" } else { "" };
    format!("{first} {}{third}", second.unwrap_or_default()).trim_end().to_owned()
}

fn paint(r: &Finished) -> &'static str {
    match r.outcome.kind() {
        _ if r.failed() => "\u{1b}[31m",
        Kind::Hit => "\u{1b}[32m",
        Kind::Stale | Kind::StaleIfError | Kind::Revalidated => "\u{1b}[33m",
        Kind::Miss => "\u{1b}[36m",
        Kind::Bypass => "\u{1b}[35m",
        Kind::Local | Kind::Failed => "",
    }
}

pub(super) fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or(text)
}

/// What a client sent must not forge lines, move the cursor, or hide text: all but printable ASCII
/// and letters is shown as an escape.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii_graphic() || c.is_alphanumeric() {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::finish::sample;
    use super::super::lines::sink::Sink;
    use super::super::outcome::{Bypass, Detail, Miss};
    use super::*;
    use crate::rules::NotStored;
    use proptest::prelude::*;

    fn logged(form: Form, outcome: &Outcome, change: impl FnOnce(&mut Finished)) -> String {
        let sink = Sink::default();
        let log = AccessLog::new(Box::new(sink.clone()), form, 10).unwrap();
        sample::with(outcome, |mut r| {
            change(&mut r);
            log.record(&r);
        });
        assert!(log.stop(Duration::from_secs(30)));
        sink.text()
    }

    const TEXT: Form = Form::Text { colour: false };

    #[test]
    fn the_text_form_is_one_aligned_line() {
        let hit = logged(TEXT, &Outcome::new(Source::Hit(Tier::Memory)), |_| {});
        let expected = "12:34:56.789  GET     /users/1                      200  HIT memory                    0.81 ms\n";
        assert_eq!(hit, expected);
        let gone = logged(TEXT, &Outcome::new(Source::Bypass(Bypass::Method)), |r| {
            (r.method, r.end, r.total) =
                (&http::Method::DELETE, End::ClientGone, Duration::from_millis(1503));
        });
        let expected = "12:34:56.789  DELETE  /users/1                      200  BYPASS method              1503.00 ms  client-gone\n";
        assert_eq!(gone, expected);
    }

    #[test]
    fn each_outcome_has_its_words() {
        let mut no_store = Outcome::new(Source::Miss(Miss::Uri));
        no_store.detail = Some(Detail::NotStored(NotStored::NoStore));
        let mut collapsed = Outcome::new(Source::Miss(Miss::Uri));
        (collapsed.stored, collapsed.collapsed) = (true, true);
        let mut no_route = Outcome::new(Source::Local);
        no_route.detail = Some(Detail::Word("no-route"));
        let mut failed = Outcome::new(Source::Failed(Miss::Uri));
        failed.detail = Some(Detail::Word("connect-timeout"));
        let rows = [
            (Outcome::new(Source::StaleWhileRevalidate(Tier::Redis)), "STALE redis"),
            (Outcome::new(Source::StaleIfError), "STALE if-error"),
            (Outcome::new(Source::Revalidated(Miss::Stale)), "REVALIDATED stale"),
            (Outcome::new(Source::Miss(Miss::Uri)), "MISS uri-miss"),
            (no_store, "MISS no-store"),
            (collapsed, "MISS uri-miss collapsed"),
            (no_route, "LOCAL no-route"),
            (Outcome::new(Source::Local), "LOCAL"),
            (failed, "FAILED connect-timeout"),
        ];
        for (outcome, expected) in rows {
            assert_eq!(words(&outcome), expected);
        }
    }

    #[test]
    fn the_json_form_has_stable_keys_in_a_stable_order() {
        let hit = logged(Form::Json, &Outcome::new(Source::Hit(Tier::Redis)), |_| {});
        let expected = concat!(
            r#"{"ts":"2024-02-29T12:34:56.789Z","client":"192.0.2.7","method":"GET","scheme":"http","host":"example.com","#,
            r#""path":"/users/1","status":200,"route":"users","cache":"hit","tier":"redis","reason":null,"#,
            r#""detail":null,"collapsed":false,"dur_ms":0.812,"bytes_out":37,"end":"complete","#,
            r#""length":null,"age_s":null,"request":null,"response":null,"#,
            r#""trace_id":null,"span_id":null,"request_id":null}"#,
            "\n"
        );
        assert_eq!(hit, expected);
    }

    #[test]
    fn colour_comes_only_when_asked_for() {
        let hit = Outcome::new(Source::Hit(Tier::Memory));
        assert!(!logged(TEXT, &hit, |_| {}).contains('\u{1b}'));
        let green = logged(Form::Text { colour: true }, &hit, |_| {});
        assert!(green.contains("\u{1b}[32m200  HIT memory"), "{green}");
        let red = logged(Form::Text { colour: true }, &hit, |r| r.status = 500);
        assert!(red.contains("\u{1b}[31m500"), "{red}");
    }

    #[test]
    fn an_overlong_path_is_cut() {
        let path = format!("/{}", "\u{fc}".repeat(LONGEST));
        let outcome = Outcome::new(Source::Local);
        let line = sample::with(&outcome, |r| text(&Finished { path: &path, ..r }, false));
        assert!((LONGEST / 2..LONGEST + 512).contains(&line.len()));
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let log = AccessLog::new(Box::new(io::sink()), TEXT, 0).unwrap();
        sample::with(&Outcome::new(Source::Local), |r| log.record(&r));
        assert_eq!(log.dropped(), 1);
    }

    proptest! {
        #[test]
        fn no_path_can_forge_a_line_or_reach_the_terminal(path in any::<String>()) {
            let outcome = Outcome::new(Source::Local);
            let (line, json) = sample::with(&outcome, |r| {
                let r = Finished { path: &path, ..r };
                (text(&r, false), serde_json::to_string(&Line::of(&r)).unwrap())
            });
            let harmless = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
            prop_assert!(line.chars().all(harmless), "{:?}", line);
            let line_break = json.bytes().any(|b| b < b' ');
            prop_assert!(!line_break);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["path"].as_str().unwrap(), clipped(&path));
        }
    }
}
