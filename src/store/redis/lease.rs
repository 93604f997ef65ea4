//! One fetch for the fleet: who fetches a key is one node, and the others wait for what it brings.
//!
//! Knows that a lease is a key beside the record that it is for, with a token by chance and a short life: it
//! is taken with the very question that finds nothing stored, prolonged while the fetch goes on, and given
//! back with the write of what was fetched. So a miss that nobody else has pays no round trip for it, and
//! a node that dies holds up the others for [`LIFE`] at most.
//!
//! | key | value |
//! |---|---|
//! | `{record}:l` | the holder's token |
//! | `{record}:w` | a set: the names of the nodes that wait |
//! | `{record}:b` | there while a refresh has failed of late |
//! | `…:{fleet}:in:NODE` | a list: what a node that waits is to be told |
//!
//! Who does not get the lease is noted as waiting in the same step; whoever gives it back takes the notes and
//! tells just those nodes. All of it is advice: a lease that is lost, or a word that does not arrive, costs a
//! fetch or a wait of [`LIFE`], never an answer.
//! Must not know: what a fetch is, or what is stored.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::link::Fault;

/// How long a lease lives unless it is prolonged.
pub(super) const LIFE: Duration = Duration::from_secs(3);
/// How often it is: of three times two may be lost.
pub(super) const PROLONG: Duration = Duration::from_secs(1);
/// Words that may wait for a node.
const WORDS: usize = 4096;
/// Milliseconds that they do.
const WORDS_FOR: u64 = 10_000;

/// Keys: record, lease, waiting. Arguments: token, life, this node's name, whether it is wanted although
/// something stands there. Answers 0 where something stands there, -1 where the lease is ours, else how
/// many milliseconds it is another's.
const TAKE: &str = "\
if ARGV[4] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return -1 end
redis.call('SADD', KEYS[3], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return math.max(redis.call('PTTL', KEYS[2]), 1)";

/// Keys: lease. Arguments: token, life. Answers whether it still was ours.
const KEEP: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

/// Keys: lease, waiting. Arguments: token. Answers the names of who waits, each on a line.
const GIVE_BACK: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '' end
local names = redis.call('SMEMBERS', KEYS[2])
redis.call('UNLINK', KEYS[1], KEYS[2])
return table.concat(names, '\\n')";

/// Keys: the lists of nodes. Arguments: the word, how many may wait, and for how long.
const TELL: &str = "\
for i = 1, #KEYS do
  if redis.call('LLEN', KEYS[i]) < tonumber(ARGV[2]) then redis.call('RPUSH', KEYS[i], ARGV[1]) end
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
return 1";

/// Keys: this node's list. Answers all of it, each on a line, and empties it.
const HEAR: &str = "\
local words = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('UNLINK', KEYS[1])
return table.concat(words, '\\n')";

/// Whose turn it is to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something stands there: nobody's.
    Nobodys,
    /// Ours.
    Ours,
    /// Another's, for so long unless it is prolonged.
    Anothers(Duration),
}

/// The keys of one lease, all on the node of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) record: String,
}

impl Place {
    fn lease(&self) -> String {
        format!("{}:l", self.record)
    }

    fn waiting(&self) -> String {
        format!("{}:w", self.record)
    }

    /// Asks for the lease. `although` something stands there, or only where nothing does.
    pub(super) fn take(&self, token: u64, node: &str, although: bool) -> Cmd {
        let keys = [self.record.as_str(), &self.lease(), &self.waiting()];
        let mut call = eval(TAKE, &keys);
        call.arg(hex(token)).arg(millis(LIFE)).arg(node).arg(u8::from(although));
        call
    }

    /// Prolongs it.
    pub(super) fn keep(&self, token: u64) -> Cmd {
        let mut call = eval(KEEP, &[&self.lease()]);
        call.arg(hex(token)).arg(millis(LIFE));
        call
    }

    /// Gives it back.
    pub(super) fn give_back(&self, token: u64) -> Cmd {
        let mut call = eval(GIVE_BACK, &[&self.lease(), &self.waiting()]);
        call.arg(hex(token));
        call
    }

    /// The number by which those who wait know it.
    pub(super) fn hash(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(self.record.as_bytes())
    }
}

/// Whose turn the answer to [`Place::take`] says it is; whatever goes wrong, everybody's: `None`.
pub(super) fn turn(answer: &Value) -> Option<Turn> {
    match answer {
        Value::Int(0) => Some(Turn::Nobodys),
        Value::Int(-1) => Some(Turn::Ours),
        Value::Int(left) => {
            let left = Duration::from_millis(u64::try_from(*left).ok()?);
            Some(Turn::Anothers(left.min(LIFE)))
        }
        _ => None,
    }
}

/// Who waits, by the answer to [`Place::give_back`].
pub(super) fn waiting(answer: Value) -> Result<Vec<String>, Fault> {
    Ok(lines(answer)?.filter(|name| is_name(name)).take(MOST_WAITING).collect())
}

/// Nodes that are told of one fetch.
const MOST_WAITING: usize = 1024;

/// A word to who waits for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// What was fetched stands in Redis.
    Stored(u128),
    /// It does not, and will not: each fetches for itself.
    NotStored(u128),
    /// There is a purge to be heard of.
    Purged,
}

impl Word {
    fn text(self) -> String {
        match self {
            Self::Stored(lease) => format!("s{lease:032x}"),
            Self::NotStored(lease) => format!("n{lease:032x}"),
            Self::Purged => "p".to_owned(),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        match kind {
            "p" if rest.is_empty() => Some(Self::Purged),
            "s" => u128::from_str_radix(rest, 16).ok().map(Self::Stored),
            "n" => u128::from_str_radix(rest, 16).ok().map(Self::NotStored),
            _ => None,
        }
    }
}

/// Tells these nodes.
pub(super) fn tell(prefix: &str, nodes: &[String], word: Word) -> Cmd {
    let keys: Vec<String> = nodes.iter().map(|node| inbox(prefix, node)).collect();
    let mut call = eval(TELL, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    call.arg(word.text()).arg(WORDS).arg(WORDS_FOR);
    call
}

/// Waits for words to this node for `wait`, and takes them: two commands, of which the second answers.
///
/// The first only waits: it moves the first word to where it is. Only so does a wait answer with one
/// string and leave a key that expires.
pub(super) fn hear(prefix: &str, node: &str, wait: Duration) -> [Cmd; 2] {
    let inbox = inbox(prefix, node);
    let mut wait_for = cmd("BLMOVE");
    wait_for.arg(&inbox).arg(&inbox).arg("LEFT").arg("LEFT").arg(wait.as_secs_f64());
    [wait_for, eval(HEAR, &[&inbox])]
}

/// The words that the answers to [`hear`] bring.
pub(super) fn heard(mut answers: Vec<Value>) -> Result<Vec<Word>, Fault> {
    let words = answers.pop().ok_or(Fault::Nonsense)?;
    Ok(lines(words)?.filter_map(|text| Word::read(&text)).collect())
}

fn inbox(prefix: &str, node: &str) -> String {
    format!("{prefix}{{fleet}}:in:{node}")
}

fn lines(answer: Value) -> Result<impl Iterator<Item = String>, Fault> {
    let bytes = match answer {
        Value::BulkString(bytes) => bytes,
        Value::ServerError(_) => return Err(Fault::Refused),
        _ => return Err(Fault::Nonsense),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    Ok(lines.into_iter())
}

/// Whoever writes names into Redis must not choose our keys.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(script).arg(keys.len()).arg(keys);
    call
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
