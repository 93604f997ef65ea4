//! Another configuration in place of the one in force.
//!
//! Knows what of a [`Snapshot`] stays when another follows it, and that all of a new one comes into
//! force or nothing. Requests, fetches and upgraded connections end under the snapshot that they began
//! with; what is stored is stored for all.
//! Must not know: where a configuration comes from, or who asks for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderName;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Shared, Snapshot};
use crate::clock::Clock;
use crate::config::{Config, RateLimit, Route};
use crate::rate::Table;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// How the configuration is read anew.
pub struct Reread {
    /// Its file, as this process was told of it.
    pub file: PathBuf,
    /// Reads it; the error is for the user, with line and caret.
    pub read: Box<dyn Fn() -> Result<Anew, String> + Send + Sync>,
}

/// What has been read anew.
pub struct Anew {
    /// What it says.
    pub config: Config,
    /// The same as it is written.
    pub text: String,
    /// What messages call the file.
    pub name: String,
}

/// Reloads so far, and how to make another.
pub struct Reloads {
    /// `None` where there is nothing to read again.
    reread: Option<Reread>,
    /// One at a time: each compares with the one before.
    turn: Mutex<()>,
    done: AtomicU64,
    refused: AtomicU64,
    /// Another snapshot is in force.
    changed: watch::Sender<()>,
}

/// A configuration that has come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Its routes.
    pub routes: usize,
    /// Its upstreams.
    pub upstreams: usize,
    /// What of it works and is dangerous or does nothing, with line and caret.
    pub warning: Option<String>,
}

/// Why the configuration in force has stayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// Larder was started without a file.
    NoFile,
    /// The file cannot be read, or is wrong; with line and caret.
    Wrong(String),
    /// It changes what cannot be changed without a restart.
    NeedsRestart {
        /// All of it, by the names of the file.
        names: Vec<&'static str>,
        /// Where the file has it, with line and caret; may be empty.
        lines: String,
        /// A further sentence, on what the file does not have; may be empty.
        absent: String,
    },
}

impl NotReloaded {
    /// Its sentence, for people.
    pub fn message(&self) -> String {
        match self {
            Self::NoFile => {
                "this Larder was started without a file, so there is none to read again: stop it, and start it with `larder run FILE`".to_owned()
            }
            Self::Wrong(problems) => problems.clone(),
            Self::NeedsRestart { names, absent, .. } => format!(
                "what has changed in {} takes a restart; nothing of the file has come into force{absent}",
                names.join(", "),
            ),
        }
    }

    /// It would change `names`, of this text of this file.
    fn needs_restart(names: Vec<&'static str>, text: &str, file: &str) -> Self {
        let (problems, absent) = Config::restarting(text, file, &names);
        let lines = if problems.is_empty() { String::new() } else { problems.to_string() };
        let absent = match absent.is_empty() {
            true => String::new(),
            false => format!("\n       not set in {file} (any more): {}", absent.join(", ")),
        };
        Self::NeedsRestart { names, lines, absent }
    }

    /// The lines that it is about, where the sentence does not have them in itself; may be empty.
    pub fn lines(&self) -> &str {
        if let Self::NeedsRestart { lines, .. } = self { lines } else { "" }
    }
}

impl Reloads {
    /// None made yet.
    pub fn new(reread: Option<Reread>) -> Self {
        Self {
            reread,
            turn: Mutex::new(()),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            changed: watch::channel(()).0,
        }
    }

    /// Wakes whoever goes by the snapshot for longer than a request.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The file that is read, by the name that every process knows it by; `None` where there is none.
    pub fn file(&self) -> Option<PathBuf> {
        let file = &self.reread.as_ref()?.file;
        // Where it is gone, it is still where it was.
        file.canonicalize().or_else(|_| std::path::absolute(file)).ok()
    }

    /// Reloads that brought another configuration into force.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Reloads that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Snapshot {
    /// What is made from the first configuration.
    pub fn first(config: Config, clock: &Clock) -> Self {
        let upstream = |cfg| Upstream::new(cfg, clock.clone(), config.workers);
        let upstreams = config.upstreams.iter().map(upstream).collect();
        let metrics = Metrics::new(&route_names(&config), config.workers + 1);
        let rates = config.routes.iter().map(|route| tables(route, &[])).collect();
        let withheld = withheld(&config);
        Self { config, upstreams, rates, withheld, metrics }
    }

    /// Another configuration in place of this one's, only to be asked what it would decide: it has no upstreams,
    /// nothing that is counted by it is seen, and of rate limits it has the counts of those that stay as they were.
    pub fn only_to_ask(&self, config: Config) -> Self {
        let counts = |route: &Route| {
            let known = self.config.routes.iter().position(|known| known.name == route.name);
            let before: Vec<_> = known.map(|at| self.rates(at).collect()).unwrap_or_default();
            // Nobody is counted in it: it need not be as large as it says.
            let none = |limit: &RateLimit| Arc::new(Table::new(limit.rate, 1));
            let of =
                |limit| before.iter().find(|(known, _)| *known == limit).map(|(_, table)| Arc::clone(table));
            route.rate_limits.iter().map(|limit| of(limit).unwrap_or_else(|| none(limit))).collect()
        };
        let rates = config.routes.iter().map(counts).collect();
        let metrics = Metrics::new(&route_names(&config), 1);
        let withheld = withheld(&config);
        Self { config, upstreams: Vec::new(), rates, withheld, metrics }
    }

    /// What is made from another configuration: an upstream that is the same keeps its connections, and
    /// everything of the same name counts on; so do the rate limits that a route had before.
    fn after(&self, config: Config, clock: &Clock) -> Self {
        let pairs = || self.config.upstreams.iter().zip(&self.upstreams);
        let upstream = |cfg: &crate::config::Upstream| {
            let before = pairs().find(|(known, _)| known.name == cfg.name);
            match before {
                Some((known, upstream)) if known == cfg => Arc::clone(upstream),
                _ => {
                    let before = before.map(|(_, upstream)| &**upstream);
                    Upstream::in_place_of(before, cfg, clock.clone(), config.workers)
                }
            }
        };
        let upstreams = config.upstreams.iter().map(upstream).collect();
        let metrics = self.metrics.after(&route_names(&config));
        let known = |route: &Route| self.config.routes.iter().position(|known| known.name == route.name);
        let before = |route| known(route).map(|at| self.rates(at).collect::<Vec<_>>()).unwrap_or_default();
        let rates = config.routes.iter().map(|route| tables(route, &before(route))).collect();
        let withheld = withheld(&config);
        Self { config, upstreams, rates, withheld, metrics }
    }
}

/// See [`Snapshot::withheld`].
fn withheld(config: &Config) -> Vec<Arc<[HeaderName]>> {
    let of = |route: &Route| {
        let edits = &route.response_headers;
        let edited = edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name));
        edited.chain(route.tags.hidden()).cloned().collect()
    };
    config.routes.iter().map(of).collect()
}

/// The counts of a route's rate limits: those of `before` for a limit that stays as it was, so that a
/// reload lets nobody off.
fn tables(route: &Route, before: &[(&RateLimit, &Arc<Table>)]) -> Vec<Arc<Table>> {
    let table = |limit: &RateLimit| match before.iter().find(|(known, _)| *known == limit) {
        Some((_, table)) => Arc::clone(table),
        None => Arc::new(Table::new(limit.rate, limit.clients)),
    };
    route.rate_limits.iter().map(table).collect()
}

fn route_names(config: &Config) -> Vec<String> {
    config.routes.iter().map(|route| route.name.clone()).collect()
}

impl Shared {
    /// Reads the configuration anew and puts it in force, as a whole or not at all. Reads a file, so it
    /// may block.
    ///
    /// # Errors
    /// Why the one in force has stayed. The log has been told.
    pub fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let _turn = self.reloads.turn.lock();
        let result = self.reread().and_then(|Anew { config, text, name }| {
            self.put_in_force(config).map_err(|names| NotReloaded::needs_restart(names, &text, &name))
        });
        match &result {
            Ok(Reloaded { routes, upstreams, warning }) => {
                self.reloads.done.fetch_add(1, Ordering::Relaxed);
                tracing::info!(routes, upstreams, "the configuration was read anew and is in force");
                if let Some(warning) = warning {
                    tracing::warn!("{warning}");
                }
            }
            Err(why) => {
                self.reloads.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the configuration in force stays");
                // One record: its lines and carets belong together.
                match why.lines() {
                    "" => tracing::error!("{}", why.message()),
                    lines => tracing::error!("{lines}\n{}", why.message()),
                }
            }
        }
        result
    }

    fn reread(&self) -> Result<Anew, NotReloaded> {
        let reread = self.reloads.reread.as_ref().ok_or(NotReloaded::NoFile)?;
        (reread.read)().map_err(NotReloaded::Wrong)
    }

    /// The names of what takes a restart, where that keeps it from coming into force.
    fn put_in_force(&self, config: Config) -> Result<Reloaded, Vec<&'static str>> {
        let before = self.snapshot.load_full();
        let fixed = before.config.needs_restart(&config);
        if !fixed.is_empty() {
            return Err(fixed);
        }
        let after = Arc::new(before.after(config, &self.clock));
        let reloaded = Reloaded {
            routes: after.config.routes.len(),
            upstreams: after.upstreams.len(),
            warning: after.config.warning(),
        };
        self.snapshot.store(Arc::clone(&after));
        if let Some(redis) = &after.config.cache.redis {
            self.tiers.lock().iter().for_each(|tier| tier.login_as(redis));
            if let Some(fleet) = self.fleet.get() {
                fleet.login_as(redis);
            }
            if let Some(leases) = self.leases.get() {
                leases.login_as(redis);
            }
        }
        for upstream in &before.upstreams {
            if !after.upstreams.iter().any(|kept| Arc::ptr_eq(kept, upstream)) {
                upstream.retire();
            }
        }
        self.reloads.changed.send_replace(());
        Ok(reloaded)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::super::tests::worker;
    use super::*;

    /// A configuration with these upstreams, each with a route of its name.
    fn config(upstreams: &[(&str, u16)], top: &str) -> Config {
        let mut text = format!("listen = \"127.0.0.1:0\"\n{top}\n");
        for (name, port) in upstreams {
            text += &format!(
                "[upstream.{name}]\nservers = [\"http://127.0.0.1:{port}\"]\n[[route]]\nname = \"{name}\"\n\
                 match = {{ path = \"/{name}\" }}\nupstream = \"{name}\"\n"
            );
        }
        Config::parse(&text, "proxy.toml", &|_| None).unwrap()
    }

    async fn shared(config: Config) -> Arc<Shared> {
        let shared = worker("", "").await.shared;
        shared.snapshot.store(Arc::new(Snapshot::first(config, &shared.clock)));
        shared
    }

    #[tokio::test]
    async fn an_upstream_that_stays_the_same_is_the_same_and_all_others_are_new() {
        let shared = shared(config(&[("a", 1), ("b", 1), ("c", 1)], "")).await;
        let before = shared.snapshot.load_full();
        let put = shared.put_in_force(config(&[("d", 1), ("b", 2), ("a", 1)], ""));
        assert_eq!(put, Ok(Reloaded { routes: 3, upstreams: 3, warning: None }));
        let after = shared.snapshot.load_full();
        let same = |now: usize, then: usize| Arc::ptr_eq(&after.upstreams[now], &before.upstreams[then]);
        assert!(same(2, 0) && !same(1, 1));
        assert_eq!(after.upstream_name(0), "d");
    }

    #[tokio::test]
    async fn what_takes_a_restart_is_refused_as_a_whole() {
        let shared = shared(config(&[("a", 1)], "")).await;
        let before = shared.snapshot.load_full();
        let refused = shared.put_in_force(config(
            &[("b", 1)],
            "workers = 77\n[cache]\nmemory = \"1GiB\"\nin_flight = \"64MiB\"",
        ));
        assert_eq!(refused, Err(vec!["workers", "cache.memory"]));
        assert!(Arc::ptr_eq(&before, &shared.snapshot.load_full()));
    }

    #[tokio::test]
    async fn after_a_thousand_reloads_nothing_of_the_former_is_left() {
        let shared = shared(config(&[("a", 1), ("b", 9)], "")).await;
        let mut former: Vec<(Weak<Snapshot>, Weak<Upstream>)> = Vec::new();
        for nth in 1..=1000 {
            let now = shared.snapshot.load_full();
            former.push((Arc::downgrade(&now), Arc::downgrade(&now.upstreams[1])));
            drop(now);
            let name = format!("b{}", nth % 7);
            shared.put_in_force(config(&[("a", 1), (&name, nth)], "")).unwrap();
        }
        assert!(
            former
                .iter()
                .all(|(snapshot, upstream)| { (snapshot.strong_count(), upstream.strong_count()) == (0, 0) })
        );
    }

    #[tokio::test]
    async fn without_a_file_there_is_nothing_to_read_again() {
        let shared = shared(config(&[("a", 1)], "")).await;
        assert_eq!(shared.reload(), Err(NotReloaded::NoFile));
        assert_eq!((shared.reloads.done(), shared.reloads.refused()), (0, 1));
    }
}
