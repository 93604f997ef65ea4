//! What nodes name to each other as most asked for, and how one that starts reads it all at once.
//!
//! Knows the lists and where they stand, and that what is read here has to pass all that a lookup asks of it
//! (its place, its generation, its groups, the time that it says), though nobody has asked for it. Every call is
//! bounded in time and in bytes; the first that fails is for the caller to end with, since all of this is worth
//! nothing where Redis is in trouble.
//! Must not know: the memory tier, freshness, or when to read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::link::Fault;
use super::nodes::{ask, ask_all};
use super::value::{self, Held};
use super::writer::chance;
use super::{Absent, Redis, compression, keys};
use crate::clock::Timestamp;
use crate::store::hot::{self, LONGEST_LIST, MOST_IN_LIST, Name};
use crate::stored::{Group, Record, SEALED, Seal, StoredResponse, decode_unasked};

/// The longest that one call may take.
const CALL: Duration = Duration::from_secs(1);
/// Bytes that what is read at once may take unpacked, one response apart: the length in Redis says nothing of that.
const UNPACKED: usize = 8 << 20;
/// Parts of a list at most: those of 100,000 names.
const PARTS: usize = 25;
/// After so long a list counts half, and again.
const HALVES: u64 = 3_600_000;

impl Redis {
    /// Bytes of the longest record.
    pub fn longest(&self) -> u64 {
        self.0.longest
    }

    /// Where this node's list is to stand: in a place that is free, or was written longest ago.
    ///
    /// Two nodes that ask at a time may be given the same; the list of one then stands for both.
    ///
    /// # Errors
    /// Redis has not said.
    pub async fn hot_place(&self) -> Result<usize, Absent> {
        let seal = &self.0.seal;
        let question = (0..keys::HOT_PLACES).map(|place| {
            let mut left = cmd("PTTL");
            left.arg(keys::hot(seal, place, 0));
            left
        });
        let asked = self
            .0
            .reader
            .with(CALL, |mut connection| async move { ask_all(&mut connection, question).await });
        let left = asked.await.map_err(Absent::from)?;
        let left = left.into_iter().map(|left| if let Value::Int(left) = left { left } else { i64::MAX });
        Ok(left.enumerate().min_by_key(|(_, left)| *left).map_or(0, |(place, _)| place))
    }

    /// Writes this node's list, the hottest first.
    ///
    /// # Errors
    /// Redis has not taken all of it. A list that is there in part is one.
    pub async fn name_hot(&self, place: usize, names: &[Name]) -> Result<(), Absent> {
        let (seal, at) = (&self.0.seal, self.0.clock.now());
        let parts: Vec<&[Name]> = names.chunks(MOST_IN_LIST).take(PARTS).collect();
        for (nth, part) in parts.iter().enumerate() {
            let key = keys::hot(seal, place, nth);
            let Some(value) = seal.close(hot::encode(part, at), &key, chance) else {
                return Err(Absent::Error);
            };
            let mut set = cmd("SET");
            set.arg(&key).arg(value).arg("PX").arg(keys::hot_ttl());
            let set =
                self.0.writer.with(CALL, |mut connection| async move { ask(&mut connection, set).await });
            let _ok = set.await.map_err(Absent::from)?;
        }
        let mut rest = cmd("UNLINK");
        rest.arg((parts.len()..PARTS).map(|nth| keys::hot(seal, place, nth)).collect::<Vec<_>>());
        if parts.len() < PARTS {
            let rest =
                self.0.writer.with(CALL, |mut connection| async move { ask(&mut connection, rest).await });
            let _count = rest.await.map_err(Absent::from)?;
        }
        Ok(())
    }

    /// What the lists name, the hottest first, `most` at most. What a list names counts the less the longer ago it
    /// was written.
    ///
    /// # Errors
    /// Redis has not said.
    pub async fn hot(&self, most: usize) -> Result<Vec<Name>, Absent> {
        let now = self.0.clock.now();
        let longest = LONGEST_LIST.saturating_add(SEALED as u64);
        let mut all: HashMap<_, Name> = HashMap::new();
        let mut places: Vec<usize> = (0..keys::HOT_PLACES).collect();
        for part in 0..PARTS {
            // Each is as long as it may be: bounded by how many there are.
            let names: Vec<String> =
                places.iter().map(|place| keys::hot(&self.0.seal, *place, part)).collect();
            let question: Vec<Cmd> = names.iter().flat_map(|name| value::read(name, longest)).collect();
            let asked = self
                .0
                .reader
                .with(CALL, |mut connection| async move { ask_all(&mut connection, question).await });
            let lists = pairs(asked.await.map_err(Absent::from)?, longest).map_err(Absent::from)?;
            let mut further = Vec::new();
            for ((place, name), held) in places.iter().zip(&names).zip(lists) {
                let Some((at, list)) = list(&self.0.seal, held, name) else { continue };
                if list.len() == MOST_IN_LIST {
                    further.push(*place);
                }
                let age = now.as_millis().saturating_sub(at.as_millis()) / HALVES;
                for mut named in list {
                    named.weight =
                        named.weight.checked_shr(u32::try_from(age).unwrap_or(u32::MAX)).unwrap_or(0);
                    let known = all.entry(named.identity()).or_insert(Name { weight: 0, ..named });
                    known.weight = known.weight.saturating_add(named.weight);
                }
            }
            // What the next parts name is asked for less than anything that is here.
            if further.is_empty() || all.len() >= most {
                break;
            }
            places = further;
        }
        let mut all: Vec<Name> = all.into_values().collect();
        all.sort_unstable_by_key(|name| std::cmp::Reverse(name.weight));
        all.truncate(most);
        Ok(all)
    }

    /// Bytes of what stands under these names; 0 where nothing does, or nothing of ours.
    ///
    /// # Errors
    /// Redis has not said.
    pub async fn lengths(&self, names: &[Name]) -> Result<Vec<u64>, Absent> {
        let question: Vec<Cmd> = names
            .iter()
            .map(|name| {
                let mut length = cmd("STRLEN");
                length.arg(keys::named(&self.0.seal, name));
                length
            })
            .collect();
        let asked = self
            .0
            .reader
            .with(CALL, |mut connection| async move { ask_all(&mut connection, question).await });
        let lengths = asked.await.map_err(Absent::from)?;
        let length =
            |length| if let Value::Int(length) = length { u64::try_from(length).unwrap_or(0) } else { 0 };
        Ok(lengths.into_iter().map(length).collect())
    }

    /// The responses that stand under these names, as a lookup would find them; what is damaged, purged or gone is
    /// left out, and mended when somebody asks for it.
    ///
    /// Whoever keeps one in memory must have held a seat on the flight of its URL since before this call, as a fill
    /// does: a purge that finds none takes it that nothing older can come back.
    ///
    /// # Errors
    /// Redis has not answered all of it.
    pub async fn named(&self, names: &[Name]) -> Result<Vec<Arc<StoredResponse>>, Absent> {
        let (seal, longest) = (&self.0.seal, self.0.longest);
        // As in a lookup: what is purged after this moment is seen as purged after the look.
        let (seq, now) = (self.0.purges.seq(), self.0.clock.now());
        let places: Vec<String> = names.iter().map(|name| keys::named(seal, name)).collect();
        let markers: Vec<String> = names.iter().map(|name| keys::marker(seal, name.url)).collect();
        // Each record before its marker, as a lookup reads them.
        let question: Vec<Cmd> = places
            .iter()
            .zip(&markers)
            .flat_map(|(place, marker)| {
                value::read(place, longest).into_iter().chain([value::read_mark(marker)])
            })
            .collect();
        let asked = self
            .0
            .reader
            .with(CALL, |mut connection| async move { ask_all(&mut connection, question).await });
        let mut answers = asked.await.map_err(Absent::from)?.into_iter();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for ((place, marker), name) in places.iter().zip(&markers).zip(names) {
            let (Some(exists), Some(range), Some(mark)) = (answers.next(), answers.next(), answers.next())
            else {
                return Err(Absent::Error);
            };
            let held = value::held(&exists, range, longest).map_err(Absent::from)?;
            let generation = value::mark(seal, mark, marker).map_err(Absent::from)?;
            let Ok(generation) = generation else { continue };
            if let Some(response) = response(seal, held, place, (generation, now), longest)
                && Name::of(&response, name.weight).as_ref() == Some(name)
            {
                bytes += response.weight();
                found.push(response);
                if bytes > UNPACKED {
                    break;
                }
            }
        }
        let found = self.not_in_purged_groups(found, now).await?;
        Ok(found
            .into_iter()
            .filter(|response| {
                response.standing.meet(seq);
                !self.0.purges.is_purged(response)
            })
            .map(Arc::new)
            .collect())
    }

    /// Those of which no group has been purged since they were asked for.
    async fn not_in_purged_groups(
        &self,
        found: Vec<StoredResponse>,
        now: Timestamp,
    ) -> Result<Vec<StoredResponse>, Absent> {
        let seal = &self.0.seal;
        let of = |response: &StoredResponse| -> Vec<String> {
            Group::all(&response.key, &response.facts).map(|group| keys::group(seal, group)).collect()
        };
        let groups: Vec<Vec<String>> = found.iter().map(of).collect();
        if groups.iter().all(Vec::is_empty) {
            return Ok(found);
        }
        let question: Vec<Cmd> = groups.iter().flatten().map(|group| value::read_mark(group)).collect();
        let asked = self
            .0
            .reader
            .with(CALL, |mut connection| async move { ask_all(&mut connection, question).await });
        let mut marks = asked.await.map_err(Absent::from)?.into_iter();
        let mut stand = Vec::new();
        for (response, groups) in found.into_iter().zip(&groups) {
            let mut stands = true;
            for group in groups {
                let mark = marks.next().ok_or(Absent::Error)?;
                let at = value::mark(seal, mark, group).map_err(Absent::from)?.map(Timestamp::from_millis);
                stands &= at.is_ok_and(|at| at <= keys::believed(now) && response.facts.request_time > at);
            }
            if stands {
                stand.push(response);
            }
        }
        Ok(stand)
    }
}

/// The values that these answers to several [`value::read`]s are about.
fn pairs(answers: Vec<Value>, longest: u64) -> Result<Vec<Held>, Fault> {
    let mut answers = answers.into_iter();
    let mut held = Vec::new();
    while let Some(exists) = answers.next() {
        held.push(value::held(&exists, answers.next().ok_or(Fault::Nonsense)?, longest)?);
    }
    Ok(held)
}

/// A list, and when it was written; `None` where there is none that can be read.
fn list(seal: &Seal, held: Held, place: &str) -> Option<(Timestamp, Vec<Name>)> {
    let Held::Bytes(bytes) = held else { return None };
    hot::decode(&seal.open(bytes, place).ok()?)
}

/// The response that was found under `place`, if it is one that a lookup would take.
fn response(
    seal: &Seal,
    held: Held,
    place: &str,
    (generation, now): (u64, Timestamp),
    longest: u64,
) -> Option<StoredResponse> {
    let Held::Bytes(bytes) = held else { return None };
    let bytes = compression::expand(seal.open(bytes, place).ok()?, longest).ok()?;
    match decode_unasked(bytes, place).ok()? {
        Record::Response { generation: of, response } if of == generation => {
            let latest = response.facts.request_time.max(response.facts.response_time);
            (latest <= keys::believed(now)).then_some(response)
        }
        Record::Response { .. } | Record::Names { .. } => None,
    }
}
