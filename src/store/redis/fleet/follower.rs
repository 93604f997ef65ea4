//! Which purges of the log a node knows, and what it has to do about those it does not.
//!
//! The log is a list of numbered purges in Redis, and Redis may lose any of it: a replica that takes over
//! may lack the latest, a restart all of them; and the log is bounded, so its oldest go. A node must not
//! believe it knows all while it does not. So the log has a name by chance, its *run*, each purge a *token*,
//! and a node tells with each question which was the last that it knows, and by which token:
//!
//! - The log has that purge: what comes after it follows. If some of that has been dropped since (the node
//!   was away for long), the node no longer knows what it missed: all that it holds has to be validated.
//! - The log has another, or none, in its place: it was set back. Its numbers mean something else from
//!   there on, so whoever notices gives it a new run.
//! - The run is another: all that the log holds is read from its beginning; what is known by its token is
//!   not done again. What this node has heard of late and the log has no more, it adds again: every node
//!   does, so only what nobody alive has heard of is lost, and nobody has acted on that.
//!
//! Purging twice is harmless but for what it costs; purging never is not. Wherever one cannot be sure, the
//! first is done.
//! Must not know: how the log is asked, or what a purge means.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::log::Stream;
use crate::clock::Mono;

/// Tokens by which a purge is known again after the log was set back.
const TOKENS: usize = 16 * 1024;
/// Purges that are kept to be added again, should the log lose them, and their bytes.
const RECENT: usize = 1024;
const RECENT_BYTES: usize = 1024 * 1024;
/// For how long they are: a log that was lost is back within minutes, or somebody has looked after it.
const RECENT_FOR: Duration = Duration::from_secs(10 * 60);

/// For how long after an interruption others may still add again what the log has lost: a link tries to
/// connect again after 2.4 s at the latest.
const SETTLE: Duration = Duration::from_secs(3);

/// A purge in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub n: u64,
    /// By what it is known again.
    pub token: u64,
    /// In which stream it stands.
    pub stream: Stream,
    /// The purge, as it was written.
    pub payload: Bytes,
}

/// What a node tells of itself when it asks the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The run that it follows; 0 = none yet.
    pub run: u64,
    /// The number of the last purge that it knows.
    pub n: u64,
    /// That purge's token; 0 where there is none.
    pub token: u64,
}

/// What the log answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its run.
    pub run: u64,
    /// The number of its latest purge.
    pub head: u64,
    /// The highest number among the purges that were dropped for want of room, of those that are in the log
    /// alone (`named`) and of those that Redis knows by a marker as well (`marked`).
    pub dropped: Dropped,
    /// The purge that the question names stands where the node says, as far as can be told.
    pub known: bool,
    /// What comes after it, in order, as far as it fits.
    pub entries: Vec<Entry>,
    /// The number up to which that is complete.
    pub upto: u64,
}

/// See [`Told::dropped`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Tags, prefixes, routes, everything.
    pub named: u64,
    /// URLs, groups, paths.
    pub marked: u64,
}

/// What a node has to do, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Before anything else: what it knows is not complete up to this number. Whatever is older has to be
    /// validated.
    pub horizon: Option<u64>,
    /// These have to be applied.
    pub apply: Vec<Entry>,
    /// These have to be added to the log again.
    pub again: Vec<Entry>,
    /// There is more: ask at once.
    pub more: bool,
    /// The log was set back: give it a new run.
    pub renew: bool,
    /// All is known that was in the log when the question was put, and nobody can still add to that what
    /// it has lost.
    pub complete: bool,
}

/// A node's knowledge of the log.
#[derive(Debug, Default)]
pub struct Follower {
    at: Question,
    /// What was applied, by token, the latest last.
    tokens: HashSet<u64>,
    order: VecDeque<u64>,
    recent: VecDeque<(Mono, Entry)>,
    recent_bytes: usize,
    /// The log was out of reach, and since when it is in reach again.
    settling: Option<Option<Mono>>,
    /// Of `recent`, what was not yet seen in the new run.
    missing: Option<HashSet<u64>>,
}

impl Follower {
    /// What to ask.
    pub fn question(&self) -> Question {
        self.at
    }

    /// Whether this purge has been applied. Notes that it now is.
    ///
    /// Of two who ask at a time only one applies it.
    pub fn takes(&mut self, entry: &Entry, now: Mono) -> bool {
        if !self.tokens.insert(entry.token) {
            return false;
        }
        self.order.push_back(entry.token);
        if self.order.len() > TOKENS
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        self.recent_bytes = self.recent_bytes.saturating_add(entry.payload.len());
        self.recent.push_back((now, entry.clone()));
        while let Some((since, oldest)) = self.recent.front() {
            let old = now.since(*since) > RECENT_FOR;
            if !old && self.recent.len() <= RECENT && self.recent_bytes <= RECENT_BYTES {
                break;
            }
            self.recent_bytes = self.recent_bytes.saturating_sub(oldest.payload.len());
            self.recent.pop_front();
        }
        true
    }

    /// A question was not answered, or the connection has broken since the last answer: it may lead elsewhere now,
    /// though every question was answered.
    ///
    /// Whatever stood between this node and the log may have set the log back, and those who know what it
    /// lost may come back later than this one. So for [`SETTLE`] after the next answer nothing is complete.
    ///
    /// A node that has followed no log yet holds nothing that could have been purged.
    pub fn interrupted(&mut self) {
        if self.at.run != 0 {
            self.settling = Some(None);
        }
    }

    fn has_settled(&mut self, now: Mono) -> bool {
        match &mut self.settling {
            None => true,
            Some(Some(since)) if now.since(*since) >= SETTLE => {
                self.settling = None;
                true
            }
            Some(since) => {
                since.get_or_insert(now);
                false
            }
        }
    }

    /// Takes an answer; what it says has to be done before the next question is put.
    ///
    /// Nothing here waits, so no cancellation can come between an answer and what is known of it.
    pub fn hear(&mut self, told: Told, now: Mono) -> Heard {
        if told.run != self.at.run {
            return self.begin(told, now);
        }
        if !told.known || told.head < self.at.n {
            return Heard { renew: true, ..Heard::default() };
        }
        // Whoever follows holds responses that a marker in Redis would not reach.
        let lost = told.dropped.named.max(told.dropped.marked);
        let horizon = (lost > self.at.n).then_some(lost);
        self.go_on(told, horizon, now)
    }

    /// A log that this node does not know: its answer is from the beginning.
    fn begin(&mut self, told: Told, now: Mono) -> Heard {
        let first = self.at.run == 0;
        self.at = Question { run: told.run, n: 0, token: 0 };
        // Of a node that has followed none yet: what it has added itself, to a log that may be no more.
        let recent = self.recent.iter().filter(|(since, _)| now.since(*since) <= RECENT_FOR);
        self.missing = Some(recent.map(|(_, entry)| entry.token).collect());
        if !first {
            self.settling = Some(None);
        }
        // A new node's memory is empty, and what it reads in Redis the markers there judge. One that has
        // followed before holds responses that no marker reaches, and what it knows has other numbers here:
        // whether it has heard of what was dropped cannot be told.
        let dropped = if first { told.dropped.named } else { told.dropped.named.max(told.dropped.marked) };
        let horizon = (dropped > 0).then_some(dropped);
        self.go_on(told, horizon, now)
    }

    fn go_on(&mut self, told: Told, horizon: Option<u64>, now: Mono) -> Heard {
        let mut heard = Heard { horizon, ..Heard::default() };
        for entry in told.entries {
            if entry.n <= self.at.n || entry.n > told.upto {
                continue;
            }
            (self.at.n, self.at.token) = (entry.n, entry.token);
            if let Some(missing) = &mut self.missing {
                missing.remove(&entry.token);
            }
            if self.takes(&entry, now) {
                heard.apply.push(entry);
            }
        }
        if told.upto > self.at.n {
            // The latest was dropped from the log: nothing stands there to be known by.
            (self.at.n, self.at.token) = (told.upto, 0);
        }
        heard.more = told.upto < told.head;
        heard.complete = !heard.more && self.has_settled(now);
        if !heard.more
            && let Some(missing) = self.missing.take()
        {
            // Where the log has lost a purge, its marker may be lost, too.
            let entries =
                self.recent.iter().map(|(_, entry)| Entry { stream: Stream::Named, ..entry.clone() });
            heard.again = entries.filter(|entry| missing.contains(&entry.token)).collect();
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, stream: Stream) -> Entry {
        Entry { n, token: n + 100, stream, payload: Bytes::from(n.to_string()) }
    }

    fn told(run: u64, dropped: Dropped, entries: Vec<Entry>) -> Told {
        let head = entries.last().map_or(0, |last| last.n);
        Told { run, head, dropped, known: true, entries, upto: head }
    }

    /// Follows run 1 from its beginning, up to its first purge.
    fn following(stream: Stream) -> Follower {
        let mut follower = Follower::default();
        let heard = follower.hear(told(1, Dropped::default(), vec![entry(1, stream)]), Mono::default());
        assert_eq!((heard.apply.len(), heard.horizon, heard.complete), (1, None, true));
        follower
    }

    #[test]
    fn who_cannot_tell_whether_he_has_heard_of_what_was_dropped_trusts_nothing_older() {
        for (dropped, horizon, of_a_new_node) in [
            (Dropped { named: 0, marked: 0 }, None, None),
            (Dropped { named: 5, marked: 0 }, Some(5), Some(5)),
            // Of URLs: a marker in Redis does not reach what is in memory.
            (Dropped { named: 0, marked: 5 }, Some(5), None),
            (Dropped { named: 5, marked: 9 }, Some(9), Some(5)),
        ] {
            let another = || told(2, dropped, vec![entry(10, Stream::Marked)]);
            let heard = following(Stream::Marked).hear(another(), Mono::default());
            assert_eq!(heard.horizon, horizon, "{dropped:?} in another run");
            let heard = Follower::default().hear(another(), Mono::default());
            assert_eq!(heard.horizon, of_a_new_node, "{dropped:?} for a new node, which holds nothing");
        }
    }

    #[test]
    fn what_a_log_has_lost_is_added_again_as_if_it_had_no_marker() {
        let heard = following(Stream::Marked).hear(told(2, Dropped::default(), vec![]), Mono::default());
        let again: Vec<_> = heard.again.iter().map(|entry| (entry.token, entry.stream)).collect();
        assert_eq!(again, [(101, Stream::Named)]);
    }

    #[test]
    fn after_an_interruption_nothing_is_complete_until_others_had_the_time_to_tell() {
        let mut follower = following(Stream::Named);
        follower.interrupted();
        let at = |millis: u64| Mono::from_nanos(millis * 1_000_000);
        for (millis, complete) in [(10, false), (3_009, false), (3_010, true), (3_011, true)] {
            let same = told(1, Dropped::default(), vec![entry(1, Stream::Named)]);
            assert_eq!(follower.hear(same, at(millis)).complete, complete, "at {millis}");
        }
    }
}
