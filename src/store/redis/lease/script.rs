//! The changes that Redis makes as a whole to leases and inboxes.
//!
//! | key | value |
//! |---|---|
//! | `{record}:l:L` | the lease: its holder's token |
//! | `{record}:w:L` | a set: the nodes that wait for it |
//! | `{record}:b` | stands while nobody is to refresh the record: the last refresh failed |
//! | `…:{fleet}:in:N` | a list: what node `N` has been told and not yet heard |
//!
//! `{record}` is the key of what is fetched, so the first three stand on one node of a cluster with it. `L` tells
//! apart who may share a fetch (16 digits; 0 of a plain request for all of it), `N` is the node's name. All expire: a
//! lease and its waiters with the lease's time, an inbox after ten seconds.
//!
//! What stands under a key may be anything: what is of another kind, or would never expire, is taken for nothing and
//! written over. Each script answers with one string. Scripts are sent with their text, but for [`TAKE`]: it goes with
//! every lookup, so it is called by its hash, and by its text where a Redis does not know it yet.
//! Must not know: when to take a lease, or what is done with one.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use crate::store::redis::link::Fault;

/// Nodes that one giving back tells; any more find out when the lease's time is over.
const TOLD: usize = 256;
/// Bytes of the longest name of a node, and of the longest word.
const NAME: usize = 64;
pub(super) const WORD: usize = 192;
/// Words that an inbox holds, and that are read at once.
const WORDS: usize = 1024;
const AT_ONCE: usize = 256;
/// Milliseconds that an inbox outlives its latest word.
const INBOX: u64 = 10_000;
/// Bytes of the longest answer.
pub(super) const LONGEST: u64 = (AT_ONCE * (WORD + 1)) as u64;
/// The longest that any lease may have left, in milliseconds: what says more is none.
const MOST_LEFT: u64 = 60_000;

/// Keys: lease, waiters, rest, record. Arguments: token, the lease's time, the node's name, length and last bytes of
/// what stood under the record when it was looked at, and whether this is a refresh.
///
/// Answers `s` (something else stands there by now), `b` and milliseconds (a refresh is to rest), `t` (taken), or
/// `h` and milliseconds (held by another, who has been told that this node waits).
pub(super) const TAKE: &str = "\
local length = redis.pcall('STRLEN', KEYS[4])
if type(length) == 'number' then
  if length ~= tonumber(ARGV[4]) then return 's' end
  if length > 0 and redis.call('GETRANGE', KEYS[4], length - #ARGV[5], -1) ~= ARGV[5] then return 's' end
end
if ARGV[6] == '1' then
  local rest = redis.call('PTTL', KEYS[3])
  if rest > 0 and rest <= 60000 then return 'b ' .. rest end
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > 60000 or redis.call('TYPE', KEYS[1]).ok ~= 'string' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 't'
end
local is = redis.call('TYPE', KEYS[2]).ok
if is ~= 'set' and is ~= 'none' then redis.call('UNLINK', KEYS[2]) end
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], math.max(left, tonumber(ARGV[2])))
return 'h ' .. left";

/// The SHA-1 of [`TAKE`], by which Redis calls a script that it knows.
pub(super) const TAKE_HASH: &str = "1537c8a4d491ea3ba28af78a85e8d03ae65b8a21";

/// Keys: lease, waiters. Arguments: token, the lease's time. Answers `1` where it is still held.
const PROLONG: &str = "\
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return '0' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return '1'";

/// Keys: lease, waiters, rest. Arguments: token, milliseconds that refreshes are to rest (0: they need not), the most
/// nodes to name, and the longest name. Answers the names of those that wait; none where it is another's by now, who
/// will tell them.
const GIVE_BACK: &str = "\
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return '' end
redis.call('UNLINK', KEYS[1])
local names = {}
if redis.call('TYPE', KEYS[2]).ok == 'set' then
  for _, name in ipairs(redis.call('SRANDMEMBER', KEYS[2], ARGV[3])) do
    if #name <= tonumber(ARGV[4]) then names[#names + 1] = name end
  end
end
redis.call('UNLINK', KEYS[2])
if ARGV[2] ~= '0' then redis.call('SET', KEYS[3], '1', 'PX', ARGV[2]) end
return table.concat(names, ' ')";

/// Keys: inbox. Arguments: milliseconds to live, the most words that it holds, then the words.
const PUSH: &str = "\
local is = redis.call('TYPE', KEYS[1]).ok
if is ~= 'list' and is ~= 'none' then redis.call('UNLINK', KEYS[1]) end
for i = 3, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], -ARGV[2], -1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return '1'";

/// Keys: inbox. Arguments: words at once, and the longest. Answers the words, oldest first, each on a line.
const DRAIN: &str = "\
if redis.call('TYPE', KEYS[1]).ok ~= 'list' then redis.call('UNLINK', KEYS[1]) return '' end
local words = {}
for _, word in ipairs(redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  if #word <= tonumber(ARGV[2]) then words[#words + 1] = word end
end
redis.call('LTRIM', KEYS[1], ARGV[1], -1)
return table.concat(words, '\\n')";

/// What a lease is about, as the keys that it stands under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct Names {
    pub(in crate::store::redis) lease: String,
    pub(in crate::store::redis) waiters: String,
    pub(in crate::store::redis) rest: String,
    pub(in crate::store::redis) record: String,
}

/// What stood under a record when it was looked at: its length and its last bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct Fingerprint {
    pub(in crate::store::redis) length: u64,
    pub(in crate::store::redis) last: Vec<u8>,
}

/// What Redis says to who would take a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Taken,
    Held(Duration),
    Rest(Duration),
    Changed,
    /// It does not know the script.
    Unknown,
}

/// Who asks for a lease, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) token: &'a str,
    pub(super) time: Duration,
    pub(super) node: &'a str,
    pub(super) refresh: bool,
}

/// Asks for a lease by the script's hash, or by its text.
pub(super) fn take(names: &Names, asking: Asking<'_>, seen: &Fingerprint, by_text: bool) -> Cmd {
    let mut call = if by_text { cmd("EVAL") } else { cmd("EVALSHA") };
    call.arg(if by_text { TAKE } else { TAKE_HASH });
    call.arg(4).arg(&names.lease).arg(&names.waiters).arg(&names.rest).arg(&names.record);
    call.arg(asking.token).arg(millis(asking.time)).arg(asking.node);
    call.arg(seen.length).arg(&seen.last).arg(u8::from(asking.refresh));
    call
}

/// Reads the answer to [`take`].
pub(super) fn taken(answer: &Value) -> Result<Told, Fault> {
    let said = match answer {
        Value::BulkString(said) => std::str::from_utf8(said).map_err(|_| Fault::Nonsense)?,
        Value::ServerError(error) if error.code() == "NOSCRIPT" => return Ok(Told::Unknown),
        Value::ServerError(_) => return Err(Fault::Refused),
        _ => return Err(Fault::Nonsense),
    };
    let left = |said: &str| {
        let left = said.parse().ok().filter(|left| *left <= MOST_LEFT).ok_or(Fault::Nonsense)?;
        Ok::<_, Fault>(Duration::from_millis(left))
    };
    match said.split_once(' ') {
        None if said == "t" => Ok(Told::Taken),
        None if said == "s" => Ok(Told::Changed),
        Some(("h", rest)) => left(rest).map(Told::Held),
        Some(("b", rest)) => left(rest).map(Told::Rest),
        _ => Err(Fault::Nonsense),
    }
}

/// Prolongs a lease.
pub(super) fn prolong(names: &Names, token: &str, time: Duration) -> Cmd {
    let mut call = eval(PROLONG, &[&names.lease, &names.waiters]);
    call.arg(token).arg(millis(time));
    call
}

/// Gives a lease back; refreshes are to rest for so long.
pub(super) fn give_back(names: &Names, token: &str, rest: Duration) -> Cmd {
    let mut call = eval(GIVE_BACK, &[&names.lease, &names.waiters, &names.rest]);
    call.arg(token).arg(millis(rest).min(MOST_LEFT)).arg(TOLD).arg(NAME);
    call
}

/// Reads the answer to [`give_back`]: who waits. What can be no node's name is left out.
pub(super) fn waiting(answer: &Value) -> Vec<String> {
    let Value::BulkString(names) = answer else { return Vec::new() };
    let names = String::from_utf8_lossy(names);
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    names.split(' ').filter(is_name).map(str::to_owned).collect()
}

/// Tells a node.
pub(super) fn push(inbox: &str, words: &[String]) -> Cmd {
    let mut call = eval(PUSH, &[inbox]);
    call.arg(INBOX).arg(WORDS).arg(words);
    call
}

/// Waits for a word to be in an inbox, and leaves it there.
pub(super) fn wait(inbox: &str, longest: Duration) -> Cmd {
    let mut call = cmd("BLMOVE");
    call.arg(inbox).arg(inbox).arg("LEFT").arg("LEFT").arg(longest.as_secs_f64());
    call
}

/// Takes the words out of an inbox.
pub(super) fn drain(inbox: &str) -> Cmd {
    let mut call = eval(DRAIN, &[inbox]);
    call.arg(AT_ONCE).arg(WORD);
    call
}

/// Reads the answer to [`drain`].
pub(super) fn words(answer: &Value) -> Result<Vec<String>, Fault> {
    match answer {
        Value::BulkString(words) => Ok(String::from_utf8_lossy(words).lines().map(str::to_owned).collect()),
        Value::ServerError(_) => Err(Fault::Refused),
        _ => Err(Fault::Nonsense),
    }
}

fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(script).arg(keys.len()).arg(keys);
    call
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_is_nonsense_and_breaks_nothing() {
        let said = |said: &str| taken(&Value::BulkString(said.as_bytes().to_vec()));
        for (text, told) in [
            ("t", Ok(Told::Taken)),
            ("s", Ok(Told::Changed)),
            ("h 2900", Ok(Told::Held(Duration::from_millis(2_900)))),
            ("b 1", Ok(Told::Rest(Duration::from_millis(1)))),
            ("h 60001", Err(Fault::Nonsense)),
            ("h -1", Err(Fault::Nonsense)),
            ("h", Err(Fault::Nonsense)),
            ("", Err(Fault::Nonsense)),
            ("x 1", Err(Fault::Nonsense)),
        ] {
            assert_eq!(said(text), told, "{text}");
        }
        assert_eq!(taken(&Value::Okay), Err(Fault::Nonsense));
        let names = |said: &[u8]| waiting(&Value::BulkString(said.to_vec()));
        assert_eq!(names(b"larder-1 larder-2"), ["larder-1", "larder-2"]);
        assert!(names(b"").is_empty() && names(b"a:{b} \xff").is_empty() && waiting(&Value::Okay).is_empty());
    }
}
