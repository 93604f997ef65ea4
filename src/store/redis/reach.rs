//! Whether this process reaches Redis, as it is told in the log.
//!
//! Knows that a process has many links and its operator wants one line: when the first of them goes
//! down, and when the last of them is back. The first raises an alarm, so that the others look at
//! their own connections at once: one that found out a second later, when the first is back already,
//! would make two changes of one.
//! Also what the breakers of several links to one tier make together (a [`Panel`]).
//! Must not know: how a link is made, or what goes over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::link::Phase;

/// The state of all links of a process; shared by its workers.
#[derive(Debug, Default)]
pub struct Reach {
    state: Mutex<State>,
    alarm: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Number for the next link.
    next: u64,
    /// The links that are down.
    down: BTreeSet<u64>,
    /// What was last said; nothing before the first link has tried.
    said: Option<Said>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Up,
    Down,
}

/// One link's part in it. A link that is dropped is down no more.
#[derive(Debug)]
pub(super) struct Member {
    reach: Arc<Reach>,
    number: u64,
    /// Where its breaker shows, and which of several servers it stands for.
    shown: Option<(Arc<Panel>, String)>,
}

/// The breakers of the links to all nodes, as one: a tier is there while any of them is.
#[derive(Debug)]
pub(super) struct Panel {
    each: Mutex<BTreeMap<u64, Phase>>,
    all: watch::Sender<Phase>,
    /// How often a link to each node that was closed has ceased to be.
    breaks: Mutex<BTreeMap<String, u64>>,
}

/// Nodes of which it is remembered how often their links have broken: many more than a cluster has.
const MOST_NODES: usize = 1_000;

impl Panel {
    /// Nothing has been tried yet.
    pub(super) fn new() -> Self {
        Self { each: Mutex::default(), all: watch::Sender::new(Phase::Starting), breaks: Mutex::default() }
    }

    /// Tells of every change.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.all.subscribe()
    }

    /// Where they stand now, together.
    pub(super) fn phase(&self) -> Phase {
        *self.all.borrow()
    }

    /// How often that to this node has broken since the first.
    pub(super) fn breaks(&self, node: &str) -> u64 {
        self.breaks.lock().get(node).copied().unwrap_or(0)
    }

    /// Whether all of them are closed.
    pub(super) fn is_whole(&self) -> bool {
        let each = self.each.lock();
        !each.is_empty() && each.values().all(|phase| *phase == Phase::Closed)
    }

    fn turn(&self, link: u64, node: &str, phase: Option<Phase>) {
        // Told under the lock: in the order of the changes.
        let mut each = self.each.lock();
        let before = match phase {
            Some(phase) => each.insert(link, phase),
            None => each.remove(&link),
        };
        if before == Some(Phase::Closed) && phase != before {
            let mut breaks = self.breaks.lock();
            // Of nodes that come and go for ever, no more are remembered; whoever asks sees a difference.
            if breaks.len() >= MOST_NODES {
                breaks.clear();
            }
            let breaks = breaks.entry(node.to_owned()).or_default();
            *breaks = breaks.saturating_add(1);
        }
        let has = |phase: Phase| each.values().any(|each| *each == phase);
        let order = [Phase::Closed, Phase::Starting, Phase::HalfOpen, Phase::Open];
        let all = order.into_iter().find(|phase| has(*phase)).unwrap_or(Phase::Open);
        self.all.send_if_modified(|told| std::mem::replace(told, all) != all);
    }
}

impl Member {
    /// A link that has not yet tried to connect.
    pub(super) fn join(reach: &Arc<Reach>) -> Self {
        let mut state = reach.state.lock();
        state.next = state.next.saturating_add(1);
        Self { reach: Arc::clone(reach), number: state.next, shown: None }
    }

    /// Its breaker shows on this panel, as that of a node, or of the one server (no name).
    pub(super) fn shown_on(mut self, panel: &Arc<Panel>, node: String) -> Self {
        panel.turn(self.number, &node, Some(Phase::Starting));
        self.shown = Some((Arc::clone(panel), node));
        self
    }

    /// The link's breaker has changed.
    pub(super) fn turn(&self, phase: Phase) {
        if let Some((panel, node)) = &self.shown {
            panel.turn(self.number, node, Some(phase));
        }
    }

    /// Tells when some link has gone down and the others should look.
    pub(super) fn alarms(&self) -> watch::Receiver<()> {
        self.reach.alarm.subscribe()
    }

    /// The link is connected.
    pub(super) fn up(&self) {
        if self.reach.state.lock().up(self.number) {
            tracing::info!(target: "larder::redis", "redis answers: both tiers are in use");
        }
    }

    /// The link is down.
    pub(super) fn down(&self, why: &str) {
        let news = self.reach.state.lock().down(self.number);
        if news {
            self.reach.alarm.send_replace(());
            match &self.shown {
                Some((_, node)) if !node.is_empty() => {
                    tracing::warn!(target: "larder::redis", node, "a node of redis does not answer: memory tier only for its keys ({why})");
                }
                _ => {
                    tracing::warn!(target: "larder::redis", "redis does not answer: memory tier only ({why})");
                }
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some((panel, node)) = &self.shown {
            panel.turn(self.number, node, None);
        }
        self.reach.state.lock().down.remove(&self.number);
    }
}

impl State {
    /// Whether that is news.
    fn up(&mut self, link: u64) -> bool {
        self.down.remove(&link);
        self.down.is_empty() && self.said.replace(Said::Up) != Some(Said::Up)
    }

    /// Whether that is news.
    fn down(&mut self, link: u64) -> bool {
        self.down.insert(link);
        self.said.replace(Said::Down) != Some(Said::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_that_goes_down_and_the_last_that_comes_back_are_news() {
        let mut state = State::default();
        let told = [
            ("up", 1, true),
            ("up", 2, false),
            ("down", 2, true),
            ("down", 1, false),
            ("down", 1, false),
            ("up", 1, false),
            ("down", 1, false),
            ("up", 1, false),
            ("up", 2, true),
            ("up", 2, false),
        ];
        for (nth, (what, link, news)) in told.into_iter().enumerate() {
            let said = if what == "up" { state.up(link) } else { state.down(link) };
            assert_eq!(said, news, "step {nth}: {what} {link}");
        }
    }

    #[test]
    fn a_link_that_is_gone_is_not_waited_for() {
        let reach = Arc::new(Reach::default());
        let (stays, goes) = (Member::join(&reach), Member::join(&reach));
        stays.down("test");
        goes.down("test");
        drop(goes);
        stays.up();
        assert_eq!(reach.state.lock().said, Some(Said::Up));
    }

    #[test]
    fn a_panel_shows_the_best_of_its_links() {
        let (reach, panel) = (Arc::default(), Arc::new(Panel::new()));
        let join = || Member::join(&reach).shown_on(&panel, String::new());
        assert_eq!((panel.phase(), panel.is_whole()), (Phase::Starting, false));
        let (one, two) = (join(), join());
        for (of_one, of_two, all, whole) in [
            (Phase::Open, Phase::Starting, Phase::Starting, false),
            (Phase::Open, Phase::HalfOpen, Phase::HalfOpen, false),
            (Phase::Open, Phase::Open, Phase::Open, false),
            (Phase::Open, Phase::Closed, Phase::Closed, false),
            (Phase::Closed, Phase::Closed, Phase::Closed, true),
        ] {
            one.turn(of_one);
            two.turn(of_two);
            assert_eq!((panel.phase(), panel.is_whole()), (all, whole), "{of_one:?} {of_two:?}");
        }
        one.turn(Phase::Open);
        drop(two);
        assert_eq!(panel.phase(), Phase::Open, "whoever is gone counts no more");
    }
}
