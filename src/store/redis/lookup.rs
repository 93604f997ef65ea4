//! A lookup: what is asked for a request, one round trip after another, and what the answers come to.
//!
//! Knows the order of the questions: the record before the URL's generation, the lease behind both; the variants where a
//! record only names what it varies on; the groups of what was found. What is damaged is noted, to be mended.
//! Whoever has found most of what it looked for lately asks for that alone, at first: whether nothing stands there, and
//! for the lease to fetch it, only once nothing was found. A hit is then two commands and no script, which is a third
//! of what it costs both sides; a miss is one round trip more ([`Luck`]).
//! Must not know: deadlines, counters, what is mended how, or what is done with a response.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::lease::{About, Attempt, Bid, Fingerprint, Lease, Tried, Turn};
use super::link::Fault;
use super::nodes::{Asker, ask_all};
use super::value::{self, Bad, Held};
use super::{Absent, compression, keys};
use crate::clock::Timestamp;
use crate::fields::vary::Vary;
use crate::rules::{Normalize, selecting_fields};
use crate::stored::{CacheKey, Damaged, Group, Record, Seal, StoredResponse, decode};

/// What a lookup learns beside its answer.
#[derive(Default)]
pub(super) struct Notes {
    /// The URL's generation.
    pub(super) generation: Option<u64>,
    /// Whose turn it is to fetch, where that was asked for and nothing stood there.
    pub(super) turn: Option<Turn<Lease, About>>,
    /// Where a response for this request stands or would stand, and what does.
    pub(super) seen: Option<(String, Fingerprint)>,
    /// What it found damaged.
    pub(super) mend: Option<Mend>,
    /// Bytes of the records it was given.
    pub(super) read: u64,
    /// A lease was asked for.
    pub(super) bade: bool,
    /// It was hoped for in vain.
    pub(super) in_vain: bool,
}

/// How lookups have gone lately.
#[derive(Debug, Default)]
pub(super) struct Luck {
    found: AtomicU32,
    /// The last took so long that there would be no time to ask once more.
    slow: AtomicBool,
}

impl Luck {
    /// Finds in a row from which on a lookup hopes for one more.
    const ENOUGH: u32 = 4;
    /// Counted at most: so two misses in a row, or one in a few, end all hope.
    const MOST: u32 = 8;
    /// A lookup may take so much of its time, where the next is to hope: a miss takes up to twice as long then.
    const PART: u32 = 4;

    /// Whether the next may hope to find something.
    pub(super) fn hopes(&self) -> bool {
        self.found.load(Ordering::Relaxed) >= Self::ENOUGH && !self.slow.load(Ordering::Relaxed)
    }

    /// One took so long of the time that it had.
    pub(super) fn took(&self, time: Duration, of: Duration) {
        self.slow.store(time.saturating_mul(Self::PART) >= of, Ordering::Relaxed);
    }

    /// One has found something, or nothing. Two at a time may count as one: this is a guess, and costs no more.
    pub(super) fn note(&self, found: bool) {
        let count = self.found.load(Ordering::Relaxed);
        self.found.store(if found { (count + 1).min(Self::MOST) } else { count / 2 }, Ordering::Relaxed);
    }
}

/// What is to be mended.
pub(super) enum Mend {
    /// What stands under a key is none of ours.
    Remove(String, Bad),
    /// Nobody can say when the URL was purged last.
    Generation(u128, Damaged),
    /// Nobody can say when the group, or all at a path, was purged last.
    Group(Group, Damaged),
}

impl Notes {
    /// Takes the answer to who asked for a lease, which stands behind all others.
    fn tried(&mut self, attempt: Option<Attempt>, answers: &mut Vec<Value>) -> Result<(), Fault> {
        let Some(attempt) = attempt else { return Ok(()) };
        match settle(attempt, Ok(answers.pop()))? {
            // Something stood there: what it is worth is for whoever reads it to say.
            Tried::Turn(Turn::Changed) => {}
            Tried::Turn(turn) => self.turn = Some(turn),
            Tried::Again(attempt) => attempt.forget(),
        }
        Ok(())
    }

    fn damaged(&mut self, why: Damaged, mend: Mend) -> Absent {
        self.mend = Some(mend);
        Absent::Damaged(why)
    }
}

/// Whether Redis has said what stands there.
pub(super) const fn is_answered(found: &Result<StoredResponse, Absent>) -> bool {
    matches!(found, Ok(_) | Err(Absent::NotFound | Absent::OtherVariant))
}

/// What has come of asking for a lease, by the answer to that.
pub(super) fn settle(attempt: Attempt, answer: Result<Option<Value>, Fault>) -> Result<Tried, Fault> {
    match answer {
        Ok(Some(answer)) => attempt.answered(&answer),
        Ok(None) => Err(Fault::Nonsense),
        Err(fault) => {
            if matches!(fault, Fault::Open | Fault::Full) {
                attempt.forget();
            }
            Err(fault)
        }
    }
}

/// What [`seek`] finds, unless it is in a group that has been purged: one more round trip where it is in
/// any.
pub(super) async fn look(
    mut connection: Asker,
    key: &CacheKey,
    asked: Request<'_>,
    notes: &mut Notes,
) -> Result<Result<StoredResponse, Absent>, Fault> {
    let response = match seek(connection.clone(), key, asked, notes).await? {
        Ok(response) if Group::any(&response.facts) => response,
        found => return Ok(found),
    };
    let groups: Vec<Group> = Group::all(key, &response.facts).collect();
    let question = groups.iter().map(|group| value::read_mark(&keys::group(asked.seal, *group)));
    let markers = ask_all(&mut connection, question).await?;
    if markers.len() != groups.len() {
        return Err(Fault::Nonsense);
    }
    for (marker, group) in markers.into_iter().zip(groups) {
        // An absent one is 0: a time before any request.
        let at = match value::mark(asked.seal, marker, &keys::group(asked.seal, group))? {
            Ok(at) if Timestamp::from_millis(at) > keys::believed(asked.now) => Err(Damaged::Future),
            read => read,
        };
        match at {
            Ok(at) if response.facts.request_time <= Timestamp::from_millis(at) => {
                return Ok(Err(Absent::NotFound));
            }
            Ok(_) => {}
            Err(why) => return Ok(Err(notes.damaged(why, Mend::Group(group, why)))),
        }
    }
    Ok(Ok(response))
}

/// What [`seek_once`] finds: where that is hoped for by nothing but what a hit takes, and else, or where nothing was
/// found so, by all that a miss takes, too.
async fn seek(
    connection: Asker,
    key: &CacheKey,
    asked: Request<'_>,
    notes: &mut Notes,
) -> Result<Result<StoredResponse, Absent>, Fault> {
    if asked.hopes {
        let began = Instant::now();
        let found = seek_once(connection.clone(), key, Request { bid: None, ..asked }, notes).await?;
        if !matches!(found, Err(Absent::NotFound | Absent::OtherVariant)) {
            return Ok(found);
        }
        // What was learned holds, even if nothing is answered to the next.
        *notes = Notes {
            read: notes.read,
            generation: notes.generation,
            seen: notes.seen.take(),
            in_vain: true,
            ..Notes::default()
        };
        if asked.bid.is_none() {
            return Ok(found);
        }
        // Asked in vain it would be missed by its deadline, as if Redis were ill: this one goes without a lease.
        if began.elapsed() >= connection.left() {
            notes.seen = None;
            return Ok(found);
        }
    }
    seek_once(connection, key, Request { hopes: false, ..asked }, notes).await
}

/// One round trip for the record and the URL's generation; one more where the record only names
/// what the response varies on.
async fn seek_once(
    mut connection: Asker,
    key: &CacheKey,
    asked: Request<'_>,
    notes: &mut Notes,
) -> Result<Result<StoredResponse, Absent>, Fault> {
    let (base, marker) = keys::base_and_marker(asked.seal, key);
    // The record first: were it put between the two, under a new generation, an older one would be
    // expected of it.
    let question = asked.read(&base).chain([value::read_mark(&marker)]);
    let mut answers = ask_and_bid(&mut connection, question, (&base, asked.bid), notes).await?;
    let now = answers.pop().ok_or(Fault::Nonsense)?;
    let held = asked.held(answers)?;
    let now = match value::mark(asked.seal, now, &marker)? {
        Ok(now) => now,
        Err(why) => return Ok(Err(notes.damaged(why, Mend::Generation(key.url_hash(), why)))),
    };
    notes.generation = Some(now);
    let (seal, longest) = (asked.seal, asked.longest);
    let wanted = Wanted { seal, key, generation: now, now: asked.now, variant: false, longest };
    let names = match judge(held, base.clone(), &wanted, notes) {
        Ok(Record::Response { response, .. }) => return Ok(matching(response, asked)),
        Ok(Record::Names { names, .. }) => names,
        Err(absent) => return Ok(Err(absent)),
    };
    let wanted = Wanted { variant: true, ..wanted };
    for (place, held) in variants(&mut connection, &base, names, asked, notes).await? {
        match judge(held, place, &wanted, notes) {
            Ok(Record::Response { response, .. }) => match matching(response, asked) {
                Err(Absent::OtherVariant) => {}
                found => return Ok(found),
            },
            Ok(Record::Names { .. }) | Err(Absent::NotFound) => {}
            Err(absent) => return Ok(Err(absent)),
        }
    }
    Ok(Err(Absent::OtherVariant))
}

/// Asks, and behind all of it for the lease to fetch what would stand at `place`, where there is a bid: what is fetched
/// then is of the generation that was read. Gives the answers to the question.
async fn ask_and_bid(
    connection: &mut Asker,
    question: impl Iterator<Item = Cmd>,
    (place, bid): (&str, Option<Bid<'_>>),
    notes: &mut Notes,
) -> Result<Vec<Value>, Fault> {
    let attempt = bid.and_then(|bid| Attempt::new(&bid, place));
    let take = attempt.as_ref().map(|attempt| attempt.call(&Fingerprint::default(), false));
    notes.bade |= take.is_some();
    notes.seen = Some((place.to_owned(), Fingerprint::default()));
    match ask_all(connection, question.chain(take)).await {
        Ok(mut answers) => notes.tried(attempt, &mut answers).map(|()| answers),
        Err(fault) => {
            attempt.map(|attempt| settle(attempt, Err(fault)));
            Err(fault)
        }
    }
}

/// What stands where a response for this request would be: under its selecting fields, and under the
/// language it prefers where languages are taken by meaning.
async fn variants(
    connection: &mut Asker,
    base: &str,
    names: Vec<HeaderName>,
    asked: Request<'_>,
    notes: &mut Notes,
) -> Result<Vec<(String, Held)>, Fault> {
    let fields = selecting_fields(&Vary::Names(names), asked.headers, asked.normalize);
    let by_language = fields.by_preferred_language(asked.headers, asked.normalize);
    let places: Vec<String> = [Some(&fields), by_language.as_ref()]
        .into_iter()
        .flatten()
        .map(|fields| keys::variant(asked.seal, base, fields.hash()))
        .collect();
    let question = places.iter().flat_map(|place| asked.read(place));
    let first = places.first().ok_or(Fault::Nonsense)?;
    let bid = asked.bid.filter(|_| notes.turn.is_none());
    let answers = ask_and_bid(connection, question, (first, bid), notes).await?;
    let mut answers = answers.into_iter();
    let held = |place| {
        let answers = answers.by_ref().take(if asked.hopes { 1 } else { 2 }).collect();
        asked.held(answers).map(|held| (place, held))
    };
    places.into_iter().map(held).collect()
}

/// What a lookup needs to know of the request, and of this moment.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) seal: &'a Seal,
    pub(super) headers: &'a HeaderMap,
    pub(super) normalize: Normalize,
    /// Bytes of the longest record.
    pub(super) longest: u64,
    pub(super) now: Timestamp,
    /// Who asks for the lease to fetch it.
    pub(super) bid: Option<Bid<'a>>,
    /// Something is likely to be found.
    pub(super) hopes: bool,
}

impl Request<'_> {
    /// Asks for what stands under a key; who hopes does not ask whether anything does.
    fn read(&self, place: &str) -> impl Iterator<Item = Cmd> + use<> {
        let exists = (!self.hopes).then(|| value::exists(place));
        exists.into_iter().chain([value::range(place, self.longest)])
    }

    /// What the answers to that say. Who hopes takes what is empty for nothing, and will know when asking again.
    fn held(&self, mut answers: Vec<Value>) -> Result<Held, Fault> {
        match answers.pop() {
            Some(range) if self.hopes && answers.is_empty() => {
                let is_nothing = matches!(&range, Value::BulkString(bytes) if bytes.is_empty());
                value::held(&Value::Int(i64::from(!is_nothing)), range, self.longest)
            }
            Some(range) => {
                answers.push(range);
                one(answers, self.longest)
            }
            None => Err(Fault::Nonsense),
        }
    }
}

/// The one value that these answers to [`value::read`] are about.
pub(super) fn one(answers: Vec<Value>, longest: u64) -> Result<Held, Fault> {
    let [exists, range] = <[Value; 2]>::try_from(answers).map_err(|_| Fault::Nonsense)?;
    value::held(&exists, range, longest)
}

/// What a value has to be.
struct Wanted<'a> {
    seal: &'a Seal,
    key: &'a CacheKey,
    /// That which stands now: a record of another one has been purged.
    generation: u64,
    now: Timestamp,
    /// A response, not what it varies on.
    variant: bool,
    /// Bytes of the longest record.
    longest: u64,
}

/// Decodes a value that stood at `place`.
fn judge(held: Held, place: String, wanted: &Wanted<'_>, notes: &mut Notes) -> Result<Record, Absent> {
    let bytes = match held {
        Held::Nothing => return Err(Absent::NotFound),
        Held::Bad(bad) => return Err(notes.damaged(bad.why, Mend::Remove(place, bad))),
        Held::Bytes(bytes) => bytes,
    };
    notes.read = notes.read.saturating_add(bytes.len() as u64);
    let was = Bad::new(Damaged::Malformed, &bytes);
    notes.seen = Some((place.clone(), was.fingerprint()));
    let opened = wanted.seal.open(bytes, &place);
    let record = opened.and_then(|bytes| compression::expand(bytes, wanted.longest));
    let read = record.and_then(|bytes| decode(bytes, wanted.key, &place)).and_then(|record| match &record {
        // Age and purges are judged by what a response says of its time.
        Record::Response { response, .. }
            if response.facts.request_time.max(response.facts.response_time) > keys::believed(wanted.now) =>
        {
            Err(Damaged::Future)
        }
        Record::Names { .. } if wanted.variant => Err(Damaged::Malformed),
        _ => Ok(record),
    });
    match read {
        Ok(record) if record.generation() == wanted.generation => Ok(record),
        Ok(_) => Err(Absent::NotFound),
        Err(why) => Err(notes.damaged(why, Mend::Remove(place, Bad { why, ..was }))),
    }
}

/// §4.1: the selecting fields must match; the hash in the key's name only led here.
fn matching(response: StoredResponse, asked: Request<'_>) -> Result<StoredResponse, Absent> {
    if response.is_for(asked.headers, asked.normalize) { Ok(response) } else { Err(Absent::OtherVariant) }
}
