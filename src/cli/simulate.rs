//! `larder simulate`: what another configuration would have made of the requests of a log.
//!
//! Knows files, and how the figures are shown.
//! Must not know: how anything is replayed.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::args::Simulate;
use super::config_file::Source;
use super::{complain, exit, print, serve, shown};
use crate::simulate::{Forecast, Log, MOST, Part, Row};

/// A line that is longer is no line of a log: it is read past.
const LONGEST: usize = 64 * 1024;
/// Logs below this are read before a bar could be looked at, bytes.
const LONG: u64 = 8 * 1024 * 1024;
/// What the row of all routes together is called. No route can be: a name has no space.
const ALL: &str = "all routes";
/// Cells of the bar.
const BAR: usize = 30;

/// Replays the log by this configuration, where there is one, and shows what came of it. Of the two, what is wrong is
/// told at once.
pub(super) fn simulate(source: Result<Source, String>, args: &Simulate) -> ExitCode {
    let name = args.log.display();
    let opened = open(&args.log)
        .map_err(|error| complain(&format!("cannot read the log {name}: {error}"), exit::FAILURE));
    let source = source.map_err(|missing| complain(&missing, exit::CONFIG));
    let read_in = source.and_then(|source| Ok((serve::parse(&source.text, &source.name)?, source)));
    let ((size, reader), (config, source)) = match (opened, read_in) {
        (Ok(opened), Ok(read_in)) => (opened, read_in),
        (_, Err(code)) | (Err(code), Ok(_)) => return code,
    };
    let bar = Bar::new(size >= LONG && io::stderr().is_terminal());
    let mut log = Log::new(&config, &args.host);
    let told = |read| bar.show("reading", read, size);
    if let Err(error) = read(reader, &mut log, &told) {
        bar.clear();
        return complain(&format!("cannot read the log {name}: {error}"), exit::FAILURE);
    }
    tell_bad(&log, &bar);
    if log.requests() == 0 {
        let text = format!(
            "{name} has no request that is understood\n       \
             Larder writes such a log by `log.access = \"json\"`, nginx by its format `combined`"
        );
        return complain(&text, exit::FAILURE);
    }
    let (bad, beyond) = (log.bad(), log.beyond());
    let forecast = log.replay(&|done, of| bar.show("replaying", done, of));
    bar.clear();
    let memory = config.cache.memory;
    let shown = match args.json {
        true => format!("{:#}\n", object(&forecast, bad, beyond)),
        false => text(&forecast, &format!("{name}, by {}", source.name), memory, beyond),
    };
    print(&shown)
}

/// The log and its size. A directory can be opened, too, and not be read.
fn open(log: &Path) -> io::Result<(u64, BufReader<File>)> {
    let file = File::open(log)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((about.len(), BufReader::new(file)))
}

/// Feeds the log its lines.
fn read(mut reader: impl BufRead, log: &mut Log<'_>, told: &dyn Fn(u64)) -> io::Result<()> {
    let (mut line, mut read) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let taken = io::Read::take(&mut reader, LONGEST as u64).read_until(b'\n', &mut line)?;
        if taken == 0 {
            return Ok(());
        }
        read += taken as u64;
        if line.last() != Some(&b'\n') && taken == LONGEST {
            read += skip(&mut reader)?;
        }
        log.take(line.strip_suffix(b"\n").unwrap_or(&line));
        told(read);
    }
}

/// Reads past the end of the line.
fn skip(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let here = reader.fill_buf()?;
        let end = here.iter().position(|byte| *byte == b'\n');
        let past = end.map_or(here.len(), |end| end + 1);
        reader.consume(past);
        skipped += past as u64;
        if end.is_some() || past == 0 {
            return Ok(skipped);
        }
    }
}

fn tell_bad(log: &Log<'_>, bar: &Bar) {
    if log.bad() == 0 {
        return;
    }
    bar.clear();
    let count = shown::counted(log.bad(), "line");
    let mut text = format!("{count} not understood, and left out:\n");
    for (line, flaw) in log.shown() {
        let _ = writeln!(text, "  line {line} {flaw}");
    }
    if log.bad() > log.shown().len() as u64 {
        text.push_str("  …\n");
    }
    // Where standard error is gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn text(forecast: &Forecast, of: &str, memory: u64, beyond: u64) -> String {
    let seconds = forecast.span.as_secs_f64();
    let all = &forecast.all;
    let mut text = format!("{of}: {} in {:.0} s\n\n", counted_u64(all.requests, "request"), seconds);
    let width = forecast.routes.iter().map(|row| row.name.chars().count()).fold(ALL.len(), usize::max);
    let _ = writeln!(
        text,
        "{:<width$} {:>10}  {:>10} {:>7}  {:>12} {:>9}  {:>10}",
        "route", "requests", "hits now", "then", "origin/s now", "then", "refreshes"
    );
    let named = forecast.routes.iter().map(|row| (row.name.as_str(), row));
    for (name, row) in named.chain([(ALL, all)]) {
        let Row { requests, now, then, .. } = row;
        let known = |shown: String| if forecast.unrecorded { "-".to_owned() } else { shown };
        let _ = writeln!(
            text,
            "{name:<width$} {requests:>10}  {:>10} {:>7}  {:>12} {:>9}  {:>10}",
            known(percent(now)),
            percent(then),
            known(rate(now.origin, seconds)),
            rate(then.origin, seconds),
            rate(then.refreshes, seconds),
        );
    }
    let _ = writeln!(text, "\n{:>12}  hits", "memory");
    for size in &forecast.sizes {
        let said = if size.configured { "  as configured" } else { "" };
        let _ = writeln!(text, "{:>12}  {}{said}", bytes(size.bytes), shown::percent(size.hit_ratio));
    }
    let enough = bytes(forecast.enough);
    let _ = match forecast.enough < memory {
        true => writeln!(text, "\nbeyond {enough} of memory nothing is gained: {} is more", bytes(memory)),
        false => writeln!(text, "\nbeyond {enough} of memory nothing is gained"),
    };
    if forecast.seeded > 0 {
        let count = counted_u64(forecast.seeded, "response");
        let _ = writeln!(text, "{count} stood in the cache before the log begins, by what it says");
    }
    if forecast.unrecorded {
        text.push_str("the log does not say what a cache did, nor for how long responses are fresh: that is\nby `ttl.default` and `ttl.override` alone\n");
    }
    if forecast.apart > 0 {
        let count = counted_u64(forecast.apart, "request");
        let _ = writeln!(text, "{count} of no route, or answered by Larder itself: not counted");
    }
    if beyond > 0 {
        let _ = writeln!(text, "{} beyond the first {MOST}: left out", counted_u64(beyond, "request"));
    }
    text
}

fn object(forecast: &Forecast, bad: u64, beyond: u64) -> Value {
    let seconds = forecast.span.as_secs_f64();
    let part = |part: &Part| {
        json!({
            "cached": part.cached,
            "missed": part.missed,
            "hit_ratio": part.hit_ratio(),
            "origin": part.origin,
            "refreshes": part.refreshes,
        })
    };
    let row = |row: &Row| {
        json!({
            "requests": row.requests,
            "now": if forecast.unrecorded { Value::Null } else { part(&row.now) },
            "then": part(&row.then),
        })
    };
    let named = |of: &Row| {
        let mut told = row(of);
        told.as_object_mut().map(|told| told.insert("route".to_owned(), of.name.as_str().into()));
        told
    };
    json!({
        "span_s": seconds,
        "bad_lines": bad,
        "apart": forecast.apart,
        "left_out": beyond,
        "seeded": forecast.seeded,
        "all": row(&forecast.all),
        "routes": forecast.routes.iter().map(named).collect::<Vec<_>>(),
        "sizes": forecast.sizes.iter().map(|size| json!({
            "bytes": size.bytes,
            "hit_ratio": size.hit_ratio,
            "configured": size.configured,
        })).collect::<Vec<_>>(),
        "enough": forecast.enough,
    })
}

fn percent(part: &Part) -> String {
    match part.cached + part.missed {
        0 => "-".to_owned(),
        _ => shown::percent(part.hit_ratio()),
    }
}

fn rate(count: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{:.1}", count as f64 / seconds) } else { "-".to_owned() }
}

/// By the largest unit of which it has one, and two figures at least.
fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let units = [("GiB", KIB * KIB * KIB), ("MiB", KIB * KIB), ("KiB", KIB)];
    let Some((unit, of)) = units.into_iter().find(|(_, of)| bytes >= *of) else {
        return format!("{bytes} B");
    };
    let amount = bytes as f64 / of as f64;
    let decimals = usize::from(amount < 10.0 || unit == "GiB");
    format!("{amount:.decimals$} {unit}")
}

fn counted_u64(count: u64, what: &str) -> String {
    shown::counted(count, what)
}

/// How far it has come, on a terminal.
struct Bar {
    shown: bool,
    /// The latest thousandth that was drawn, and of which work.
    drawn: AtomicU64,
}

impl Bar {
    fn new(shown: bool) -> Self {
        Self { shown, drawn: AtomicU64::new(u64::MAX) }
    }

    /// Draws where there is something new to be seen.
    fn show(&self, what: &str, done: u64, of: u64) {
        if !self.shown {
            return;
        }
        let thousandths = u128::from(done.min(of)) * 1000 / u128::from(of.max(1));
        let thousandths = u64::try_from(thousandths).unwrap_or(1000);
        if self.drawn.swap(thousandths, Ordering::Relaxed) != thousandths {
            let _ = io::stderr().lock().write_all(drawn(what, thousandths).as_bytes());
        }
    }

    /// Takes it away.
    fn clear(&self) {
        if self.shown && self.drawn.swap(u64::MAX, Ordering::Relaxed) != u64::MAX {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

fn drawn(what: &str, thousandths: u64) -> String {
    let full = usize::try_from(thousandths).unwrap_or(1000) * BAR / 1000;
    let (full, rest) = ("█".repeat(full), "·".repeat(BAR.saturating_sub(full)));
    format!("\r{what:<9} {full}{rest} {:>3} %\x1b[K", thousandths / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const CONFIG: &str = "[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n\
                          [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"o\"\n";

    #[test]
    fn an_overlong_line_is_one_bad_line_and_the_next_is_read() {
        let config = Config::parse(CONFIG, "f", &|_| None).unwrap_or_else(|p| panic!("{p}"));
        let mut log = Log::new(&config, "");
        let good = r#"a - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "-""#;
        let text = format!("{good}\n{}\n\n{good}", "x".repeat(3 * LONGEST));
        let seen = std::cell::Cell::new(0);
        read(text.as_bytes(), &mut log, &|read| seen.set(read)).unwrap();
        assert_eq!((log.requests(), log.bad(), log.shown()[0].0), (2, 1, 2));
        assert_eq!(seen.get(), text.len() as u64);
    }

    #[test]
    fn a_size_says_something_however_small_it_is() {
        for (size, shown) in [
            (0, "0 B"),
            (900, "900 B"),
            (5_120, "5.0 KiB"),
            (51_200, "50 KiB"),
            (1_048_576, "1.0 MiB"),
            (41_000_000, "39 MiB"),
            (21_474_836_480, "20.0 GiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn the_bar_is_as_full_as_the_work() {
        assert_eq!(drawn("reading", 0).matches('█').count(), 0);
        assert_eq!(drawn("reading", 500).matches('█').count(), BAR / 2);
        assert!(drawn("reading", 1000).contains("100 %") && !drawn("reading", 1000).contains('·'));
    }
}
