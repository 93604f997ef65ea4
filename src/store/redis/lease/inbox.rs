//! Who waits on this node for the fetch of another, and the words that come for them.
//!
//! Knows that the inbox is asked only while somebody waits, by a command that blocks: so a fleet in which nobody
//! waits costs nothing, and a word is here as soon as it is said. What comes for nobody is dropped: its waiter has
//! left.
//! Must not know: how leases are taken, or what is done after a word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::About;
use super::election::Woken;
use super::script;
use crate::store::redis::link::{Fault, Link, Phase, question};

/// Those who may wait at once; more fetch for themselves.
const MOST: usize = 16_384;
/// How long one question for words blocks. Shorter than any `PING` of the link takes, which comes behind it.
const BLOCK: Duration = Duration::from_millis(400);
/// What its answer may take beyond that.
const ANSWER: Duration = Duration::from_millis(600);
/// The usual bound of a call, from which the link takes that of a `PING`.
pub(super) const PING: Duration = Duration::from_millis(500);
/// After a question that failed, or that was answered sooner than this for nobody.
const AGAIN: Duration = Duration::from_millis(100);
/// Answers in a row, sooner than [`AGAIN`] and for nobody, that are taken at once: the words of a few who have left.
const IN_VAIN: u32 = 8;

/// A word to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Look: what was fetched has been stored, or has been purged meanwhile.
    Look,
    /// It cannot be stored, for whatever reason.
    NotStored,
    /// The fetch failed.
    Failed,
}

impl Word {
    /// As it is sent, about this lease.
    pub(super) fn about(self, lease: &str) -> String {
        let word = match self {
            Self::Look => 'l',
            Self::NotStored => 'n',
            Self::Failed => 'f',
        };
        format!("{word} {lease}")
    }

    fn read(said: &str) -> Option<(Self, &str)> {
        let (word, lease) = said.split_once(' ')?;
        let word = match word {
            "l" => Self::Look,
            "n" => Self::NotStored,
            "f" => Self::Failed,
            _ => return None,
        };
        Some((word, lease))
    }
}

impl From<Word> for Woken {
    fn from(word: Word) -> Self {
        match word {
            Word::Look => Self::Stored,
            Word::NotStored => Self::NotStored,
            Word::Failed => Self::Failed,
        }
    }
}

type Waiting = BTreeMap<String, Vec<(u64, oneshot::Sender<Word>)>>;

/// A node's inbox.
#[derive(Debug)]
pub(super) struct Inbox {
    key: String,
    link: Link,
    /// By lease.
    waiting: Mutex<Waiting>,
    count: AtomicU64,
    number: AtomicU64,
    /// Somebody waits.
    news: Notify,
}

impl Inbox {
    pub(super) fn new(key: String, link: Link) -> Self {
        let (count, number) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { key, link, waiting: Mutex::default(), count, number, news: Notify::new() }
    }

    /// Begins to listen; `None` where nothing can be heard, or too many listen.
    pub(super) fn listen(self: &Arc<Self>, about: &About) -> Option<Listening> {
        let phases = self.link.phases();
        if !self.hears() || self.count() >= MOST as u64 {
            return None;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().entry(about.0.lease.clone()).or_default().push((number, tell));
        self.count.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
        Some(Listening { inbox: Arc::clone(self), about: about.clone(), number, told, phases })
    }

    #[cfg(test)]
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.link.phases()
    }

    /// Whether words can be heard.
    pub(super) fn hears(&self) -> bool {
        *self.link.phases().borrow() == Phase::Closed
    }

    /// Those who wait.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Says a word to those who wait for this lease; whether there were any.
    pub(super) fn say(&self, word: Word, lease: &str) -> bool {
        let told = self.waiting.lock().remove(lease).unwrap_or_default();
        let any = !told.is_empty();
        for (_, waiter) in told {
            // Who has left just now needs none.
            let _left = waiter.send(word);
        }
        any
    }

    /// Hears for ever. Dropped at any point, what is in the inbox stays there.
    pub(super) async fn hear(&self) {
        let mut phases = self.link.phases();
        let mut in_vain: u32 = 0;
        loop {
            if self.waiting.lock().is_empty() {
                self.news.notified().await;
                continue;
            }
            let asked = Instant::now();
            match self.hear_once().await {
                Ok(words) => {
                    let mut any = false;
                    for said in &words {
                        if let Some((word, lease)) = Word::read(said) {
                            any |= self.say(word, lease);
                        }
                    }
                    // A Redis that does not wait, or has words without end for nobody, is not asked in a circle.
                    let is_slow = asked.elapsed() >= AGAIN;
                    in_vain = if any || is_slow { 0 } else { in_vain.saturating_add(1) };
                    if in_vain > IN_VAIN {
                        sleep(AGAIN).await;
                    }
                }
                Err(Fault::Open) => {
                    let up = phases.wait_for(|phase| *phase == Phase::Closed).await.map(drop);
                    if up.is_err() {
                        return;
                    }
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// Waits for words, for a while.
    async fn hear_once(&self) -> Result<Vec<String>, Fault> {
        let asked = question([script::wait(&self.key, BLOCK)]);
        let answers = self.link.ask(Instant::now() + BLOCK + ANSWER, &asked).await?;
        match answers.as_slice() {
            [Value::Nil] => return Ok(Vec::new()),
            // What is no list is no inbox: the next step removes it.
            [Value::BulkString(_) | Value::ServerError(_)] => {}
            _ => return Err(Fault::Nonsense),
        }
        let asked = question([script::drain(&self.key)]);
        let answers = self.link.ask(Instant::now() + ANSWER, &asked).await?;
        let words = script::words(answers.first().ok_or(Fault::Nonsense)?)?;
        // An inbox that cannot be waited for and holds nothing is not asked in a circle.
        if words.is_empty() { Err(Fault::Refused) } else { Ok(words) }
    }
}

/// Somebody who listens; dropped, they do no more.
#[derive(Debug)]
pub struct Listening {
    inbox: Arc<Inbox>,
    about: About,
    number: u64,
    told: oneshot::Receiver<Word>,
    phases: watch::Receiver<Phase>,
}

impl Listening {
    /// Waits for a word, so long at most. If the future is dropped, a word that came is heard by the next wait.
    pub async fn wait(&mut self, longest: Duration) -> Woken {
        tokio::select! {
            biased;
            word = &mut self.told => word.map_or(Woken::Deaf, Woken::from),
            _ = self.phases.wait_for(|phase| *phase != Phase::Closed) => Woken::Deaf,
            () = sleep(longest) => Woken::Expired,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inbox.count.fetch_sub(1, Ordering::Relaxed);
        let mut waiting = self.inbox.waiting.lock();
        let lease = &self.about.0.lease;
        if let Some(those) = waiting.get_mut(lease) {
            those.retain(|(number, _)| *number != self.number);
            if those.is_empty() {
                waiting.remove(lease);
            }
        }
    }
}
