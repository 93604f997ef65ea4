//! Whether this process reaches Redis, as it is told in the log.
//!
//! Knows that a process has many links and its operator wants one line: when the first of them goes
//! down, and when the last of them is back. The first raises an alarm, so that the others look at
//! their own connections at once: one that found out a second later, when the first is back already,
//! would make two changes of one.
//! Must not know: how a link is made, or what goes over it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

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
}

impl Member {
    /// A link that has not yet tried to connect.
    pub(super) fn join(reach: &Arc<Reach>) -> Self {
        let mut state = reach.state.lock();
        state.next = state.next.saturating_add(1);
        Self { reach: Arc::clone(reach), number: state.next }
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
            tracing::warn!(target: "larder::redis", "redis does not answer: memory tier only ({why})");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
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
}
