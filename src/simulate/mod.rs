//! What another configuration would have made of the requests of a log.
//!
//! Each line becomes a [`Case`](case::Case): its route, key and facts by the code that serves. The cases are then
//! replayed, in the order in which they came, through the real rules and the real memory tier, at several sizes
//! of it; the clock is the log's.
//! Must not know: files, terminals, sockets.
//!
//! What it leaves out, and docs/simulate.md says so: purges by the admin listener, contents that are part of a
//! key, rules for queries (`No-Vary-Search`), single ranges kept as parts, copies in other codings.

mod case;
mod combined;
mod json;
mod line;
mod replay;
mod sizes;

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Config;

use case::{Case, Maker};
pub use line::Flaw;
use replay::Outcomes;
pub use sizes::Size;

/// Lines that are replayed; each takes some 150 bytes, and further ones are counted.
pub const MOST: usize = 10_000_000;
/// Bad lines that are shown.
pub const SHOWN: usize = 5;

/// Reads a log a line at a time.
#[derive(Debug)]
pub struct Log<'a> {
    config: &'a Config,
    maker: Maker<'a>,
    cases: Vec<Case>,
    lines: u64,
    bad: u64,
    shown: Vec<(u64, Flaw)>,
    beyond: u64,
}

/// What a replay says.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// One for each route that was met, in the file's order.
    pub routes: Vec<Row>,
    /// All of them together; it has no name, since a route may have any.
    pub all: Row,
    /// Lines that no route takes, or that Larder itself had answered.
    pub apart: u64,
    /// Between the first request and the last.
    pub span: Duration,
    /// Hit ratios at several sizes of the memory tier, the smallest first.
    pub sizes: Vec<Size>,
    /// The smallest of them beyond which nothing is gained.
    pub enough: u64,
    /// What answers came from the log's beginning: they were stored before it.
    pub seeded: u64,
    /// No line says what was done with it.
    pub unrecorded: bool,
}

/// What is said of a route.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// As it was, by the log.
    pub now: Part,
    /// As it would be.
    pub then: Part,
}

/// What became of a route's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Answered from a tier.
    pub cached: u64,
    /// Looked up in vain.
    pub missed: u64,
    /// Requests to the origin that a client waited for.
    pub origin: u64,
    /// Requests to the origin that nobody waited for; a log does not tell of them.
    pub refreshes: u64,
}

impl Part {
    /// By the definition that `/stats` goes by.
    pub fn hit_ratio(&self) -> f64 {
        crate::telemetry::hit_ratio(self.cached, self.missed)
    }

    fn add(&mut self, other: &Self) {
        self.cached += other.cached;
        self.missed += other.missed;
        self.origin += other.origin;
        self.refreshes += other.refreshes;
    }
}

impl<'a> Log<'a> {
    /// A log to be judged by this configuration; `host` is whom requests are for where lines do not say.
    pub fn new(config: &'a Config, host: &str) -> Self {
        let maker = Maker::new(config, host);
        Self { config, maker, cases: Vec::new(), lines: 0, bad: 0, shown: Vec::new(), beyond: 0 }
    }

    /// Takes a line, without its end.
    pub fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        if line.trim_ascii().is_empty() {
            return;
        }
        match line::read(line) {
            Ok(_) if self.cases.len() >= MOST => self.beyond += 1,
            Ok(line) => self.cases.push(self.maker.make(line)),
            Err(flaw) => {
                self.bad += 1;
                if self.shown.len() < SHOWN {
                    self.shown.push((self.lines, flaw));
                }
            }
        }
    }

    /// Requests that were understood.
    pub fn requests(&self) -> usize {
        self.cases.len()
    }

    /// Lines that were not.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// The first of them, by number.
    pub fn shown(&self) -> &[(u64, Flaw)] {
        &self.shown
    }

    /// Requests beyond [`MOST`].
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Replays what was read; `told` hears how many of how many steps are done.
    pub fn replay(mut self, told: &(dyn Fn(u64, u64) + Sync)) -> Forecast {
        // A log has lines in the order in which requests end.
        self.cases.sort_by_key(Case::at);
        self.maker.fill_in(&mut self.cases);
        let sizes::Swept { then, sizes, enough } = sizes::sweep(self.config, &self.cases, told);
        let Outcomes { routes: then, seeded } = then;
        let mut rows: HashMap<usize, Row> = HashMap::new();
        let (mut apart, mut unrecorded) = (0, true);
        for case in &self.cases {
            unrecorded &= case.recorded().is_none();
            match case.route().filter(|_| case.is_forwarded()) {
                Some(route) => {
                    let row = rows.entry(route).or_default();
                    row.requests += 1;
                    row.now.add(&case.recorded().unwrap_or_default());
                }
                None => apart += 1,
            }
        }
        let mut all = Row::default();
        let named = self.config.routes.iter().enumerate().filter_map(|(index, route)| {
            let mut row = rows.remove(&index)?;
            row.name.clone_from(&route.name);
            row.then = then.get(index).copied().unwrap_or_default();
            all.requests += row.requests;
            all.now.add(&row.now);
            all.then.add(&row.then);
            Some(row)
        });
        let routes = named.collect();
        let span = match (self.cases.first(), self.cases.last()) {
            (Some(first), Some(last)) => last.at().saturating_since(first.at()),
            _ => Duration::ZERO,
        };
        Forecast { routes, all, apart, span, sizes, enough, seeded, unrecorded }
    }
}
