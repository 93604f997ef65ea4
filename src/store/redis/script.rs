//! The changes that Redis makes as a whole: a purge of a URL, one of groups, a put, and the removal of
//! what is damaged.
//!
//! Knows the scripts and what they answer. Each is one `EVAL`, sent with its text, so that no node has to
//! know which scripts a Redis has seen. Of puts that are sent in one piece the first alone has the text: the others are
//! called by its hash, and once more by the text where a Redis does not know it (another node of a cluster). All keys of
//! a call are of one URL, hence on one node of a cluster. Why they are right stands in `keys`.
//! What stands under a key may be anything: a script that finds no mark where one should be takes it
//! that none is there, and writes over it. So no value can keep a purge from being taken, and no time to live:
//! one of ages is no number to Redis when it comes back from a script.
//! Must not know: who calls, or what a record holds.

use redis::{Cmd, ToRedisArgs, Value, cmd};

use super::keys;
use super::link::Fault;
use super::nodes::{Asker, ask, ask_all, ask_each};
use super::value::{self, Bad};
use crate::clock::Timestamp;
use crate::stored::{Damaged, Group, Seal};

/// What the scripts have in common: the number of a mark, `0` where none is there, and `?` where
/// something else is.
macro_rules! with_marks {
    ($script:literal) => {
        concat!(
            "\
local function number(key)
  local mark = redis.pcall('GET', key)
  if not mark then return '0' end
  return type(mark) == 'string' and string.match(mark, '^(%d+)%.') or '?'
end
",
            $script
        )
    };
}

/// Keys: marker, plain record. Arguments: mark of the new generation, least time to live, longest that any marker
/// needs. Answers whether the URL had not been purged for as long as a purge's marker lives.
///
/// The deletion comes first: a Redis whose memory is full refuses a `SET` unless the script has
/// changed something before it.
const PURGE: &str = with_marks!(
    "\
redis.call('UNLINK', KEYS[2])
local was = number(KEYS[1])
local left = math.min(redis.call('PTTL', KEYS[1]), tonumber(ARGV[3]))
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(left, tonumber(ARGV[2])))
if was == '0' then return 1 end
return 0"
);

/// Keys: marker, then each record's. Arguments: the generation that the fetch saw, the time that the
/// marker has to live (0 where none is needed), the mark of that generation, then for each record its
/// value and time to live. Answers whether it was put.
pub(super) const PUT: &str = with_marks!(
    "\
if number(KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[2 * i + 1])
end
local needed = tonumber(ARGV[2])
if needed > 0 and redis.call('PTTL', KEYS[1]) < needed then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
end
return 1"
);

/// The SHA-1 of [`PUT`], by which Redis calls a script that it knows.
pub(super) const PUT_HASH: &str = "e6fdfcc162293886a48ea4bdc88566360683c912";

/// Keys: the groups' markers. Arguments: when they were purged, in milliseconds, time to live, the latest
/// time that is believed, then for each its mark. A marker is never set back: another node's clock may be
/// ahead. But not by more than is believed.
const PURGE_GROUPS: &str = with_marks!(
    "\
for i = 1, #KEYS do
  local at = tonumber(number(KEYS[i])) or 0
  if at <= tonumber(ARGV[1]) or at > tonumber(ARGV[3]) then
    redis.call('SET', KEYS[i], ARGV[3 + i], 'PX', ARGV[2])
  else
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return 1"
);

/// Keys: the path's marker, its rule. Arguments: when it was purged, in milliseconds, time to live with a
/// rule, without, the latest time that is believed, and its mark.
const PURGE_PATH: &str = with_marks!(
    "\
local at = tonumber(number(KEYS[1])) or 0
local ttl = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 1 then ttl = tonumber(ARGV[2]) end
ttl = math.max(ttl, math.min(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2])))
if at <= tonumber(ARGV[1]) or at > tonumber(ARGV[4]) then
  redis.call('SET', KEYS[1], ARGV[5], 'PX', ttl)
else
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return 1"
);

/// Keys: what is damaged. Arguments: the longest that it can be where it was too long, the length and the last bytes of
/// what was read. It is removed where it is no string, is too long, or still what was read: somebody may
/// have written it anew.
const REMOVE: &str = "\
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return redis.call('UNLINK', KEYS[1]) end
local length = redis.call('STRLEN', KEYS[1])
local same = length == tonumber(ARGV[2])
  and redis.call('GETRANGE', KEYS[1], length - #ARGV[3], -1) == ARGV[3]
if same or length > tonumber(ARGV[1]) then return redis.call('UNLINK', KEYS[1]) end
return 0";

/// A record to be put.
pub(super) struct Set {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// Milliseconds to live.
    pub(super) ttl: u64,
}

/// What is put for one response: its records, all of one URL.
pub(super) struct Put {
    pub(super) url_hash: u128,
    /// The URL's generation when the fetch began.
    pub(super) seen: u64,
    pub(super) sets: Vec<Set>,
}

impl Put {
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |set: &Set| u64::try_from(set.value.len()).unwrap_or(u64::MAX);
        self.sets.iter().map(bytes).fold(0, u64::saturating_add)
    }
}

/// Gives the URL a new generation, which voids everything recorded under any earlier one, and
/// deletes the plain record, which mostly is all there is. Gives that generation if it is the first
/// for a while.
pub(super) async fn purge(seal: &Seal, mut connection: Asker, url_hash: u128) -> Result<Option<u64>, Fault> {
    let (generation, marker) = (keys::new_generation(), keys::marker(seal, url_hash));
    let mut call = eval(PURGE, &[&marker, &keys::plain(seal, url_hash)]);
    call.arg(seal.encode_mark(generation, &marker)).arg(keys::purged_ttl()).arg(keys::group_ttl());
    Ok(said_yes(ask(&mut connection, call).await?)?.then_some(generation))
}

/// Notes when groups, all of one origin, were purged. A time that stands there stays if it is later, up to
/// the latest that is `believed`.
pub(super) async fn purge_groups(
    seal: &Seal,
    mut connection: Asker,
    groups: &[Group],
    (at, believed): (Timestamp, Timestamp),
) -> Result<(), Fault> {
    let names: Vec<String> = groups.iter().map(|group| keys::group(seal, *group)).collect();
    let mut call = eval(PURGE_GROUPS, &names);
    call.arg(at.as_millis()).arg(keys::group_ttl()).arg(believed.as_millis());
    names.iter().for_each(|name| {
        call.arg(seal.encode_mark(at.as_millis(), name));
    });
    said_yes(ask(&mut connection, call).await?).map(drop)
}

/// Notes when all at a path was purged.
pub(super) async fn purge_path(
    seal: &Seal,
    mut connection: Asker,
    path: Group,
    at: Timestamp,
) -> Result<(), Fault> {
    let marker = keys::group(seal, path);
    let mut call = eval(PURGE_PATH, &[&marker, &keys::rule(seal, path)]);
    call.arg(at.as_millis()).arg(keys::group_ttl()).arg(keys::purged_ttl());
    call.arg(keys::believed(at).as_millis()).arg(seal.encode_mark(at.as_millis(), &marker));
    said_yes(ask(&mut connection, call).await?).map(drop)
}

/// Sets a path's rule, if one is given; gives when all at the path was purged, or what is wrong with
/// what says so.
///
/// In this order: a purge that comes after the second finds the rule that was set by the first, and
/// leaves a marker that outlives what is put now.
pub(super) async fn learn_rule(
    seal: &Seal,
    mut connection: Asker,
    path: Group,
    rule: Option<Vec<u8>>,
) -> Result<Result<Timestamp, Damaged>, Fault> {
    let (place, marker) = (keys::rule(seal, path), keys::group(seal, path));
    let set = rule.map(|rule| {
        let mut set = cmd("SET");
        set.arg(&place).arg(rule).arg("PX").arg(keys::group_ttl());
        set
    });
    let mut answers = ask_all(&mut connection, set.into_iter().chain([value::read_mark(&marker)])).await?;
    let read = value::mark(seal, answers.pop().ok_or(Fault::Nonsense)?, &marker)?;
    match answers.pop() {
        None | Some(Value::Okay) => Ok(read.map(Timestamp::from_millis)),
        Some(Value::ServerError(_)) => Err(Fault::Refused),
        Some(_) => Err(Fault::Nonsense),
    }
}

/// Removes what was found damaged, unless something else stands there by now.
pub(super) async fn remove(mut connection: Asker, key: &str, bad: &Bad) -> Result<(), Fault> {
    let mut call = eval(REMOVE, &[key]);
    call.arg(bad.longest).arg(bad.length).arg(&bad.last);
    said_yes(ask(&mut connection, call).await?).map(drop)
}

/// Puts each, if its URL's generation is still the one that was seen, all of them in one piece; says of each whether
/// Redis took it, or it had been purged meanwhile.
pub(super) async fn put_each(seal: &Seal, mut asker: Asker, puts: &[&Put]) -> Vec<Result<bool, Fault>> {
    let calls = puts.iter().enumerate().map(|(nth, put)| call(seal, put, nth == 0)).collect();
    let mut answers = ask_each(&mut asker, calls).await;
    let again = puts.iter().zip(&mut answers).filter(|(_, answer)| is_unknown(answer));
    let (by_text, places): (Vec<Cmd>, Vec<_>) = again.map(|(put, at)| (call(seal, put, true), at)).unzip();
    if !by_text.is_empty() {
        for (at, answer) in places.into_iter().zip(ask_each(&mut asker, by_text).await) {
            *at = answer;
        }
    }
    let judge = |answer: Result<Value, Fault>| match answer? {
        Value::ServerError(_) => Err(Fault::Refused),
        answer => said_yes(answer),
    };
    answers.into_iter().map(judge).collect()
}

/// It does not know the script, or lets nobody call one by its hash, or has no such command.
fn is_unknown(answer: &Result<Value, Fault>) -> bool {
    let Ok(Value::ServerError(error)) = answer else { return false };
    let no_command = || error.details().is_some_and(|said| said.starts_with("unknown command"));
    ["NOSCRIPT", "NOPERM"].contains(&error.code()) || no_command()
}

fn call(seal: &Seal, put: &Put, by_text: bool) -> Cmd {
    let marker = keys::marker(seal, put.url_hash);
    let mut call = if by_text { cmd("EVAL") } else { cmd("EVALSHA") };
    call.arg(if by_text { PUT } else { PUT_HASH }).arg(put.sets.len().saturating_add(1)).arg(&marker);
    for set in &put.sets {
        call.arg(&set.key);
    }
    call.arg(put.seen).arg(marker_ttl(seal, put)).arg(seal.encode_mark(put.seen, &marker));
    for set in &put.sets {
        call.arg(&set.value).arg(set.ttl);
    }
    call
}

/// The command that takes it out again.
pub(super) fn unlink(put: &Put) -> Cmd {
    let mut command = cmd("UNLINK");
    for set in &put.sets {
        command.arg(&set.key);
    }
    command
}

fn said_yes(answer: Value) -> Result<bool, Fault> {
    match answer {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        _ => Err(Fault::Nonsense),
    }
}

/// 0 for a plain record of a URL that was never purged: a purge can name it, and no marker stands
/// whose end would void it.
fn marker_ttl(seal: &Seal, put: &Put) -> u64 {
    let plain = keys::plain(seal, put.url_hash);
    if put.seen == 0 && put.sets.iter().all(|set| set.key == plain) {
        return 0;
    }
    keys::marker_ttl(put.sets.iter().map(|set| set.ttl).max().unwrap_or(0))
}

/// Calls a script on these keys; its arguments are to follow.
pub(super) fn eval<S: ToRedisArgs>(script: &str, names: &[S]) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(script).arg(names.len());
    for name in names {
        call.arg(name);
    }
    call
}
