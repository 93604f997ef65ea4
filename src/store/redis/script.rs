//! The changes that Redis makes as a whole: a purge of a URL, one of groups, and a put.
//!
//! Knows the scripts and what they answer. Each is one `EVAL`, sent with its text (a few hundred
//! bytes beside a response), so that no node has to know which scripts a Redis has seen. All keys of
//! a call are of one URL, hence on one node of a cluster. Why they are right stands in `keys`.
//! Must not know: who calls, or what a record holds.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};

use super::keys;
use super::link::{Fault, ask};
use crate::clock::Timestamp;
use crate::stored::Group;

/// Keys: marker, plain record. Arguments: new generation, least time to live. Answers whether the URL
/// had not been purged for as long as a purge's marker lives.
///
/// The deletion comes first: a Redis whose memory is full refuses a `SET` unless the script has
/// changed something before it.
const PURGE: &str = "\
redis.call('UNLINK', KEYS[2])
local was = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(left, tonumber(ARGV[2])))
if was and was ~= '0' then return 0 end
return 1";

/// Keys: marker, then each record's. Arguments: the generation that the fetch saw, the time that the
/// marker has to live (0 where none is needed), then for each record its value and time to live.
/// Answers whether it was put.
const PUT: &str = "\
local now = redis.call('GET', KEYS[1]) or '0'
if now ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i - 1], 'PX', ARGV[2 * i])
end
local needed = tonumber(ARGV[2])
if needed > 0 and redis.call('PTTL', KEYS[1]) < needed then
  redis.call('SET', KEYS[1], now, 'PX', ARGV[2])
end
return 1";

/// Keys: the groups' markers. Arguments: when they were purged, time to live. A marker is never set
/// back: another node's clock may be ahead.
const PURGE_GROUPS: &str = "\
for i = 1, #KEYS do
  local at = tonumber(redis.call('GET', KEYS[i]) or '0') or 0
  redis.call('SET', KEYS[i], string.format('%.0f', math.max(at, tonumber(ARGV[1]))), 'PX', ARGV[2])
end
return redis.status_reply('OK')";

/// Keys: the path's marker, its rule. Arguments: when it was purged, time to live with a rule, without.
const PURGE_PATH: &str = "\
local at = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
local ttl = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 1 then ttl = tonumber(ARGV[2]) end
ttl = math.max(ttl, redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], string.format('%.0f', math.max(at, tonumber(ARGV[1]))), 'PX', ttl)
return redis.status_reply('OK')";

/// A record to be put.
pub(super) struct Set {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// Milliseconds to live.
    pub(super) ttl: u64,
}

/// Gives the URL a new generation, which voids everything recorded under any earlier one, and
/// deletes the plain record, which mostly is all there is. Gives that generation if it is the first
/// for a while.
pub(super) async fn purge(
    mut connection: MultiplexedConnection,
    url_hash: u128,
) -> Result<Option<u64>, Fault> {
    let generation = keys::new_generation();
    let mut call = eval(PURGE, &[&keys::marker(url_hash), &keys::plain(url_hash)]);
    call.arg(generation).arg(keys::purged_ttl());
    match ask(&mut connection, &call).await? {
        Value::Int(1) => Ok(Some(generation)),
        Value::Int(0) => Ok(None),
        _ => Err(Fault::Nonsense),
    }
}

/// Notes when groups, all of one origin, were purged.
pub(super) async fn purge_groups(
    mut connection: MultiplexedConnection,
    groups: Arc<[Group]>,
    at: Timestamp,
) -> Result<(), Fault> {
    let names: Vec<String> = groups.iter().map(|group| keys::group(*group)).collect();
    let mut call = eval(PURGE_GROUPS, &names.iter().map(String::as_str).collect::<Vec<_>>());
    call.arg(at.as_millis()).arg(keys::group_ttl());
    match ask(&mut connection, &call).await? {
        Value::Okay => Ok(()),
        _ => Err(Fault::Nonsense),
    }
}

/// Notes when all at a path was purged.
pub(super) async fn purge_path(
    mut connection: MultiplexedConnection,
    path: Group,
    at: Timestamp,
) -> Result<(), Fault> {
    let mut call = eval(PURGE_PATH, &[&keys::group(path), &keys::rule(path)]);
    call.arg(at.as_millis()).arg(keys::group_ttl()).arg(keys::purged_ttl());
    match ask(&mut connection, &call).await? {
        Value::Okay => Ok(()),
        _ => Err(Fault::Nonsense),
    }
}

/// Sets a path's rule, if one is given; gives when all at the path was purged.
///
/// In this order: a purge that comes after the second finds the rule that was set by the first, and
/// leaves a marker that outlives what is put now.
pub(super) async fn learn_rule(
    mut connection: MultiplexedConnection,
    path: Group,
    rule: Option<Vec<u8>>,
) -> Result<Timestamp, Fault> {
    if let Some(rule) = rule {
        let mut call = cmd("SET");
        call.arg(keys::rule(path)).arg(rule).arg("PX").arg(keys::group_ttl());
        ask(&mut connection, &call).await?;
    }
    let marker = ask(&mut connection, cmd("GET").arg(keys::group(path))).await?;
    let at = super::string(marker).and_then(super::read_generation).ok_or(Fault::Nonsense)?;
    Ok(Timestamp::from_millis(at))
}

/// The call that puts `sets`, all of one URL, if its generation is still the one that was `seen`.
pub(super) fn put(url_hash: u128, seen: u64, sets: &[Set]) -> Cmd {
    let marker = keys::marker(url_hash);
    let mut names = vec![marker.as_str()];
    names.extend(sets.iter().map(|set| set.key.as_str()));
    let mut call = eval(PUT, &names);
    call.arg(seen).arg(marker_ttl(url_hash, seen, sets));
    for set in sets {
        call.arg(&set.value).arg(set.ttl);
    }
    call
}

/// Sends what [`put`] made; gives whether Redis took it, or had been purged meanwhile.
pub(super) async fn was_put(mut connection: MultiplexedConnection, call: Cmd) -> Result<bool, Fault> {
    match ask(&mut connection, &call).await? {
        Value::Int(1) => Ok(true),
        Value::Int(0) => Ok(false),
        _ => Err(Fault::Nonsense),
    }
}

/// 0 for a plain record of a URL that was never purged: a purge can name it, and no marker stands
/// whose end would void it.
fn marker_ttl(url_hash: u128, seen: u64, sets: &[Set]) -> u64 {
    let plain = keys::plain(url_hash);
    if seen == 0 && sets.iter().all(|set| set.key == plain) {
        return 0;
    }
    keys::marker_ttl(sets.iter().map(|set| set.ttl).max().unwrap_or(0))
}

fn eval(script: &str, names: &[&str]) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(script).arg(names.len()).arg(names);
    call
}
