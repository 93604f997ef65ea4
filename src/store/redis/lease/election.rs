//! Whose turn it is to fetch: what a node does about what Redis says of a lease, and about what it is told while
//! it waits. Pure: `simulation.rs` plays thousands of fleets with it.
//!
//! ```text
//! look ─ taken ──────────────► fetch, for all
//!   ▲ └─ held ─► listen, look once more ─ held ─► wait ─ stored, or the lease's time is over ─► look
//!   │                                              ├─ not stored ─► fetch, for this node
//!   └──────────────────────────────────────────────┴─ nothing can be heard ─► fetch, for this node
//! ```
//!
//! Knows that a word may have been said between a look and the listening, so that whoever begins to listen looks once
//! more; that whatever cannot be learned ends in a fetch for this node alone; and that a refresh, which nobody waits
//! for, rests where it cannot know that it is wanted.
//! Must not know: Redis, tasks, or what is fetched.

use std::time::Duration;

/// Words in vain after which a node fetches for itself: somebody gives leases back and stores nothing.
const WORDS: u32 = 16;
/// Looks at something that has changed each time by then, after which it does not ask any more.
const CHANGES: u32 = 3;
/// Never asked more often than this.
const SHORTEST: Duration = Duration::from_millis(50);

/// What a look at the shared tier says about who is to fetch. `L` is a lease, `P` what it is about.
#[derive(Debug, Default)]
pub enum Turn<L, P> {
    /// Nobody can say, or leases are not for this request.
    #[default]
    Alone,
    /// This node.
    Mine(L),
    /// Another, which holds the lease for at least so long unless it dies or gives it back.
    Theirs(P, Duration),
    /// Nobody, for so long: the last refresh failed.
    Resting(Duration),
    /// Something else is stored by now than was found.
    Changed,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It has been stored, or voided meanwhile: look.
    Stored,
    /// It cannot be stored.
    NotStored,
    /// The fetch failed.
    Failed,
    /// The lease's time is over, as far as it was known.
    Expired,
    /// Nothing can be heard any more.
    Deaf,
    /// It has waited for as long as it may.
    Late,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<L, P> {
    /// Look at the shared tier, asking for the lease in the same step.
    Look,
    /// Listen for words about this, then look.
    Listen(P),
    /// Wait for a word, this long at most.
    Wait(Duration),
    /// Fetch: for all with a lease, else for this node.
    Fetch(Option<L>),
    /// Leave it for so long; of refreshes alone.
    Rest(Duration),
}

/// One fill's way to its turn.
#[derive(Debug)]
pub struct Election<P> {
    listens: Option<P>,
    words: u32,
    changes: u32,
}

impl<P> Default for Election<P> {
    fn default() -> Self {
        Self { listens: None, words: 0, changes: 0 }
    }
}

impl<P: Clone + PartialEq> Election<P> {
    /// After a look.
    pub fn looked<L>(&mut self, turn: Turn<L, P>) -> Next<L, P> {
        match turn {
            Turn::Mine(lease) => Next::Fetch(Some(lease)),
            Turn::Alone => Next::Fetch(None),
            Turn::Resting(left) => Next::Rest(left),
            Turn::Changed => {
                self.changes = self.changes.saturating_add(1);
                if self.changes > CHANGES { Next::Fetch(None) } else { Next::Look }
            }
            Turn::Theirs(about, left) if self.listens.as_ref() == Some(&about) => {
                Next::Wait(left.max(SHORTEST))
            }
            Turn::Theirs(about, _) => {
                // Another lease than before, once in a while; at each look, and this would never end.
                self.changes = self.changes.saturating_add(u32::from(self.listens.is_some()));
                if self.changes > CHANGES {
                    return Next::Fetch(None);
                }
                self.listens = Some(about.clone());
                Next::Listen(about)
            }
        }
    }

    /// After a wait. `refresh`: nobody waits for what is fetched.
    pub fn woken<L>(&mut self, woken: Woken, refresh: bool) -> Next<L, P> {
        // A word is said to who listens then.
        if woken != Woken::Expired {
            self.listens = None;
        }
        match woken {
            Woken::Stored | Woken::Failed if self.words >= WORDS => Self::give_up(refresh),
            Woken::Stored => {
                self.words = self.words.saturating_add(1);
                Next::Look
            }
            Woken::Failed if refresh => {
                self.words = self.words.saturating_add(1);
                Next::Look
            }
            Woken::Expired => Next::Look,
            Woken::NotStored | Woken::Failed => Next::Fetch(None),
            Woken::Deaf | Woken::Late => Self::give_up(refresh),
        }
    }

    /// There is no way to hear anything.
    pub fn deaf<L>(&mut self, refresh: bool) -> Next<L, P> {
        self.listens = None;
        Self::give_up(refresh)
    }

    fn give_up<L>(refresh: bool) -> Next<L, P> {
        if refresh { Next::Rest(Duration::ZERO) } else { Next::Fetch(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Turned = Turn<u8, char>;
    type Then = Next<u8, char>;

    fn held() -> Turned {
        Turn::Theirs('a', Duration::from_secs(2))
    }

    #[test]
    fn who_is_shown_another_lease_at_each_look_does_not_look_for_ever() {
        let mut election = Election::default();
        let mut looks = "abababab".chars().map(|about| election.looked(Turned::Theirs(about, SHORTEST)));
        assert!(looks.any(|next| next == Next::Fetch(None)));
    }

    #[test]
    fn who_begins_to_listen_looks_once_more_before_it_waits() {
        let mut election = Election::default();
        assert_eq!(election.looked(held()), Next::Listen('a'));
        assert_eq!(election.looked(held()), Next::Wait(Duration::from_secs(2)));
        // Still the same ears.
        assert_eq!(election.woken(Woken::Expired, false), Then::Look);
        assert_eq!(election.looked(held()), Next::Wait(Duration::from_secs(2)));
        // A word has been said, so what comes next would be missed.
        assert_eq!(election.woken(Woken::Stored, false), Then::Look);
        assert_eq!(election.looked(held()), Next::Listen('a'));
        // Of another variant nothing has been listened to.
        assert_eq!(election.looked(Turned::Theirs('b', SHORTEST)), Next::Listen('b'));
        assert_eq!(election.looked(Turned::Theirs('b', Duration::ZERO)), Next::Wait(SHORTEST));
    }

    #[test]
    fn what_each_word_means() {
        let fetch = |refresh| if refresh { Then::Rest(Duration::ZERO) } else { Then::Fetch(None) };
        for (woken, with_client, refresh) in [
            (Woken::Stored, Then::Look, Then::Look),
            (Woken::Expired, Then::Look, Then::Look),
            (Woken::NotStored, Then::Fetch(None), Then::Fetch(None)),
            (Woken::Failed, Then::Fetch(None), Then::Look),
            (Woken::Deaf, fetch(false), fetch(true)),
            (Woken::Late, fetch(false), fetch(true)),
        ] {
            assert_eq!(Election::default().woken(woken, false), with_client, "{woken:?}");
            assert_eq!(Election::default().woken(woken, true), refresh, "{woken:?}");
        }
        assert_eq!(Election::default().looked(Turned::Mine(7)), Next::Fetch(Some(7)));
        assert_eq!(Election::default().looked(Turned::Alone), Next::Fetch(None));
        assert_eq!(Election::default().looked(Turned::Resting(SHORTEST)), Next::Rest(SHORTEST));
    }

    #[test]
    fn words_without_end_and_changes_without_end_come_to_one() {
        for refresh in [false, true] {
            let mut election = Election::<char>::default();
            let looks = (0..1_000).take_while(|_| election.woken::<u8>(Woken::Stored, refresh) == Next::Look);
            assert_eq!(looks.count(), WORDS as usize);
        }
        let mut election = Election::default();
        let looks = (0..1_000).take_while(|_| election.looked(Turned::Changed) == Next::Look);
        assert_eq!(looks.count(), CHANGES as usize);
    }
}
