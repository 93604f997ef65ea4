//! Messages on stderr, and the slow-request event.
//!
//! Knows how a message looks in text and in JSON, and what a slow request tells. Levels are those
//! of `tracing`, chosen by target: `info`, `info,larder::slow=off`.
//! Must not know: which requests are slow, or what else is logged.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::{SerializeMap, Serializer as _};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, Layer, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

use super::finish::Finished;
use super::lines::Lines;
use super::metrics::NONE;
use super::outcome::Tier;
use super::stamp::Rfc3339;
use super::timeline::Phase;
use crate::clock::Clock;

/// Messages that may wait for a slow stderr; further ones are dropped.
const WAITING: usize = 4096;

/// The way to stderr, to be emptied before the process ends.
#[derive(Clone, Debug)]
pub struct Messages(Arc<Lines>);

/// Sends messages to stderr from now on: text, coloured where `ansi`, or JSON. They are written by a
/// thread of their own, so that whoever reads stderr slowly holds up no request.
///
/// A `level` that cannot be read falls back to `info` and says so. It takes effect once in a
/// process; later calls change nothing.
///
/// # Errors
/// The system refuses another thread.
pub fn init(level: &str, json: bool, ansi: bool) -> io::Result<Messages> {
    let understood = targets(level);
    let targets = understood.clone().unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    let messages = Messages(Arc::new(Lines::new("messages", WAITING, Box::new(io::stderr()))?));
    let registry = tracing_subscriber::registry();
    let installed = if json {
        registry.with(json_layer(messages.clone()).with_filter(targets)).try_init()
    } else {
        registry.with(text_layer(messages.clone(), ansi).with_filter(targets)).try_init()
    };
    if installed.is_ok() && understood.is_none() {
        tracing::warn!(given = level, "log level not understood, using info");
    }
    Ok(messages)
}

impl Messages {
    /// Waits until all messages are written, or for `within`; says whether all were.
    pub fn flush(&self, within: Duration) -> bool {
        self.0.flush(within)
    }
}

impl MakeWriter<'_> for Messages {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Messages {
    /// Takes one message whole: the layers write each with one call.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.push(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `Targets` takes a lone word for a target, all of whose messages are wanted; a mistyped level would
/// silence everything else. Here a lone word is a level or nothing.
fn targets(level: &str) -> Option<Targets> {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let lone_words_are_levels = level.split(',').all(|part| part.contains('=') || is_level(part.trim()));
    level.parse().ok().filter(|_| lone_words_are_levels)
}

/// Logs a slow request: one event, target `larder::slow`.
///
/// All fields are always there. A phase that did not happen is 0, a word that does not apply `-`.
/// `outcome` is the word of the metric label `result`, `detail` that of `Cache-Status`.
pub(super) fn slow(r: &Finished) {
    let phase = |phase| millis(r.timeline.get(phase).unwrap_or_default());
    tracing::warn!(
        target: "larder::slow",
        method = r.method.as_str(),
        path = &*r.shown_path(),
        route = r.route_name,
        status = r.status,
        outcome = r.outcome.result(),
        reason = r.outcome.reason().unwrap_or(NONE),
        detail = r.outcome.note().unwrap_or(NONE),
        tier = r.outcome.tier().map_or(NONE, Tier::as_str),
        total_ms = millis(r.total),
        queue_ms = phase(Phase::Queue),
        memory_ms = phase(Phase::Memory),
        redis_ms = phase(Phase::Redis),
        lease_ms = phase(Phase::Lease),
        wait_ms = phase(Phase::Wait),
        connect_ms = phase(Phase::Connect),
        hedge_ms = phase(Phase::Hedge),
        first_byte_ms = phase(Phase::FirstByte),
        coding_ms = phase(Phase::Coding),
        body_ms = phase(Phase::Body),
        end = r.end.as_str(),
        trace_id = r.ids.and_then(|ids| ids.trace).map_or_else(|| NONE.to_owned(), |trace| trace.trace_id()),
        request_id = r.ids.and_then(|ids| ids.request.as_ref()?.to_str().ok()).unwrap_or(NONE),
        "slow request"
    );
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1000.0
}

fn text_layer<S, W>(out: W, ansi: bool) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A stderr that cannot be written to must not be complained about on stderr: that panics.
    let layer = Layer::new().log_internal_errors(false);
    layer.with_timer(Stamp(Clock::system())).with_ansi(ansi).with_writer(out)
}

fn json_layer<S, W>(out: W) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = Layer::new().log_internal_errors(false).with_ansi(false);
    layer.event_format(JsonLines(Clock::system())).with_writer(out)
}

/// The time before a message in text.
struct Stamp(Clock);

impl FormatTime for Stamp {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", Rfc3339(self.0.now()))
    }
}

/// One flat JSON object per message: `ts`, `level`, `target`, `msg`, then the message's fields with
/// numbers as numbers.
struct JsonLines(Clock);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let line = self.line(event).map_err(|_| fmt::Error)?;
        writeln!(out, "{}", String::from_utf8_lossy(&line))
    }
}

impl JsonLines {
    fn line(&self, event: &Event<'_>) -> serde_json::Result<Vec<u8>> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Vec::with_capacity(256);
        let mut json = serde_json::Serializer::new(&mut line);
        let mut object = json.serialize_map(None)?;
        object.serialize_entry("ts", &format_args!("{}", Rfc3339(self.0.now())))?;
        object.serialize_entry("level", &level(event.metadata().level()))?;
        object.serialize_entry("target", event.metadata().target())?;
        object.serialize_entry("msg", &fields.message)?;
        for (name, value) in &fields.others {
            object.serialize_entry(name, value)?;
        }
        object.end()?;
        Ok(line)
    }
}

const fn level(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// A message's fields, in the order written.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// The names that every line has are not given twice.
    fn keep(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            ("message", other) => self.message = other.to_string(),
            ("ts" | "level" | "target" | "msg", _) => {}
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::finish::sample;
    use super::super::lines::sink::Sink;
    use super::super::outcome::{Detail, Miss, Outcome, Source};
    use super::super::timeline::Timeline;
    use super::*;
    use crate::clock::Mono;
    use crate::rules::NotStored;

    /// Logs a slow miss that went through Redis and to the origin.
    fn log_a_slow_request() {
        let mut outcome = Outcome::new(Source::Miss(Miss::Uri));
        outcome.detail = Some(Detail::NotStored(NotStored::SetCookie));
        let mut timeline = Timeline::new(Mono::default());
        timeline.add(Phase::Redis, Duration::from_micros(610));
        timeline.add(Phase::FirstByte, Duration::from_millis(1500));
        sample::with(&outcome, |r| {
            slow(&Finished {
                timeline: &timeline,
                path: "/slow?ms=1500",
                total: Duration::from_millis(1503),
                ..r
            });
        });
    }

    const PHASES: [(&str, f64); 10] = [
        ("total_ms", 1503.0),
        ("queue_ms", 0.0),
        ("memory_ms", 0.0),
        ("redis_ms", 0.61),
        ("wait_ms", 0.0),
        ("connect_ms", 0.0),
        ("hedge_ms", 0.0),
        ("first_byte_ms", 1500.0),
        ("coding_ms", 0.0),
        ("body_ms", 0.0),
    ];

    const WORDS: [(&str, &str); 7] = [
        ("method", "GET"),
        ("path", "/slow?ms=1500"),
        ("route", "users"),
        ("outcome", "miss"),
        ("reason", "uri-miss"),
        ("detail", "set-cookie"),
        ("tier", "-"),
    ];

    /// Keeps every event's level, target and fields.
    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<(Level, String, Fields)>>>);

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Capture {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
            self.0.lock().unwrap().push((level, target, fields));
        }
    }

    #[test]
    fn a_slow_request_is_one_event_with_every_phase() {
        let capture = Capture::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        tracing::subscriber::with_default(subscriber, log_a_slow_request);
        let events = capture.0.lock().unwrap();
        let [(level, target, fields)] = events.as_slice() else { panic!("{} events", events.len()) };
        assert_eq!((*level, target.as_str()), (Level::WARN, "larder::slow"));
        assert_eq!(fields.message, "slow request");
        let value = |name| fields.others.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        for (name, expected) in PHASES {
            assert_eq!(value(name), Some(expected.into()), "{name}");
        }
        for (name, expected) in WORDS {
            assert_eq!(value(name), Some(expected.into()), "{name}");
        }
        assert_eq!(value("status"), Some(200.into()));
    }

    #[test]
    fn in_json_every_field_is_at_the_top_and_numbers_are_numbers() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || out.clone()));
        tracing::subscriber::with_default(subscriber, log_a_slow_request);
        let text = sink.text();
        assert!(text.starts_with(r#"{"ts":"20"#) && text.ends_with("}\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        let head = ["level", "target", "msg"].map(|key| line[key].as_str().unwrap());
        assert_eq!(head, ["warn", "larder::slow", "slow request"]);
        assert!(PHASES.iter().all(|(name, expected)| line[*name].as_f64() == Some(*expected)), "{text}");
        assert!(WORDS.iter().all(|(name, expected)| line[*name].as_str() == Some(*expected)), "{text}");
        assert_eq!(line["status"].as_u64(), Some(200));
    }

    #[test]
    fn json_keeps_kinds_and_lets_no_field_take_a_name_that_every_line_has() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || out.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let path = "a\n\u{1b}[31m\"b";
            tracing::info!(n = -3_i64, yes = true, why = ?Some(1), level = "forged", path, "two {}", "words");
        });
        let line: Value = serde_json::from_str(&sink.text()).unwrap();
        assert_eq!(line["msg"], "two words");
        assert_eq!((&line["n"], &line["yes"], &line["why"]), (&(-3).into(), &true.into(), &"Some(1)".into()));
        assert_eq!((&line["level"], &line["path"]), (&"info".into(), &"a\n\u{1b}[31m\"b".into()));
        assert_eq!(sink.text().lines().count(), 1);
    }

    #[test]
    fn in_text_a_message_is_one_line_and_what_clients_sent_is_escaped() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::registry().with(text_layer(move || out.clone(), false));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(path = "/a\nb\u{1b}[31m", "slow request");
        });
        let text = sink.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(
            text.contains("WARN") && text.contains(r#"path="/a\nb"#) && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn levels_are_read_by_target_and_nonsense_is_refused() {
        let enabled = |level: &str, target| targets(level).map(|t| t.would_enable(target, &Level::WARN));
        assert_eq!(enabled("info", "larder::slow"), Some(true));
        assert_eq!(enabled("info,larder::slow=off", "larder::slow"), Some(false));
        assert_eq!(enabled("info,larder::slow=off", "larder::fill"), Some(true));
        assert_eq!(enabled("error", "larder::slow"), Some(false));
        for nonsense in ["loud", "", "info,larder::slow", "info,larder::slow=verbose"] {
            assert_eq!(enabled(nonsense, "larder::slow"), None, "{nonsense:?}");
        }
    }

    #[test]
    fn later_calls_do_no_harm() {
        for level in ["off", "trace", "loud"] {
            assert!(init(level, true, false).unwrap().flush(Duration::from_secs(10)));
        }
    }
}
