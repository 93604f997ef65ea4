//! One value as Redis gives it: how it is asked for, so that it is never larger than it may be, and what
//! can be wrong with it.
//!
//! Knows that whatever stands under a key may have been put there by anybody: `GETRANGE` gives as much of
//! a value as is asked for, and says of a list or a hash that it is none.
//! Must not know: what a value means.

use redis::{Cmd, Value, cmd};

use super::lease::Fingerprint;
use super::link::Fault;
use crate::stored::{Damaged, LONGEST_MARK, Seal};

/// Bytes of a record beside its content: fields, key, what the request said, and 8 for each tag, which are twice
/// what the shortest take in their field.
const HEAD: u64 = 512 * 1024;
/// Bytes of a path's rule; longer ones are not remembered either.
pub(super) const LONGEST_RULE: u64 = 8 * 1024;
/// Bytes at the end of a damaged value by which it is known again.
const LAST: usize = 16;

/// Bytes of the longest record, where contents may have `max_object`.
pub(super) const fn longest_record(max_object: u64) -> u64 {
    max_object.saturating_add(HEAD)
}

/// What stands under a key.
#[derive(Debug)]
pub(super) enum Held {
    /// Nothing.
    Nothing,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Something that is no value of ours.
    Bad(Bad),
}

/// Something that is no value of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) why: Damaged,
    /// Bytes that were read of it.
    pub(super) length: u64,
    /// The last of them.
    pub(super) last: Vec<u8>,
    /// Bytes beyond which whatever stands there is too long, too.
    pub(super) longest: u64,
}

impl Bad {
    pub(super) fn new(why: Damaged, bytes: &[u8]) -> Self {
        let last = bytes.get(bytes.len().saturating_sub(LAST)..).unwrap_or_default().to_vec();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // No more was read than shows that it is too long.
        let longest = if why == Damaged::TooLarge { length.saturating_sub(1) } else { u64::MAX };
        Self { why, length, last, longest }
    }

    /// By which it is told whether it is still what stands there.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { length: self.length, last: self.last.clone() }
    }
}

/// Asks for a value, one byte more than it may have; two commands, since an absent one has no bytes, too.
pub(super) fn read(key: &str, longest: u64) -> [Cmd; 2] {
    [exists(key), range(key, longest)]
}

/// Asks whether there is a value.
pub(super) fn exists(key: &str) -> Cmd {
    let mut command = cmd("EXISTS");
    command.arg(key);
    command
}

/// Asks for a mark. An empty one is taken for none: whoever could empty it could remove it.
pub(super) fn read_mark(key: &str) -> Cmd {
    range(key, LONGEST_MARK as u64)
}

/// Asks for the bytes of a value, one more than it may have.
pub(super) fn range(key: &str, longest: u64) -> Cmd {
    // With room for its words: each look has two of these.
    let mut command = Cmd::with_capacity(4, key.len().saturating_add(32));
    command.arg("GETRANGE").arg(key).arg(0).arg(longest);
    command
}

/// What the two answers to [`read`] say.
pub(super) fn held(exists: &Value, range: Value, longest: u64) -> Result<Held, Fault> {
    match (text(range)?, exists) {
        (Ok(bytes), _) if bytes.len() as u64 > longest => Ok(Held::Bad(Bad::new(Damaged::TooLarge, &bytes))),
        (Ok(bytes), Value::Int(0)) if bytes.is_empty() => Ok(Held::Nothing),
        (Ok(bytes), Value::Int(_)) if bytes.is_empty() => Ok(Held::Bad(Bad::new(Damaged::Empty, &bytes))),
        (Ok(bytes), Value::Int(_)) => Ok(Held::Bytes(bytes)),
        (Err(why), Value::Int(_)) => Ok(Held::Bad(Bad::new(why, &[]))),
        (_, Value::ServerError(_)) => Err(Fault::Refused),
        _ => Err(Fault::Nonsense),
    }
}

/// What the answer to [`read_mark`] says; an absent one is 0.
pub(super) fn mark(seal: &Seal, answer: Value, place: &str) -> Result<Result<u64, Damaged>, Fault> {
    Ok(text(answer)?.and_then(|bytes| if bytes.is_empty() { Ok(0) } else { seal.decode_mark(&bytes, place) }))
}

/// The string that Redis has answered with.
pub(super) fn text(answer: Value) -> Result<Result<Vec<u8>, Damaged>, Fault> {
    match answer {
        Value::BulkString(bytes) => Ok(Ok(bytes)),
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Err(Damaged::WrongType)),
        Value::ServerError(_) => Err(Fault::Refused),
        _ => Err(Fault::Nonsense),
    }
}
