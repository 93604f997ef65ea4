//! The log of purges as it is kept in Redis, and the nodes that follow it.
//!
//! | key | value |
//! |---|---|
//! | `…:{fleet}:head` | a hash: `run`, `n` (the latest number), `named` and `marked` (the latest dropped of each), `last named` and `last marked` (the latest added) |
//! | `…:{fleet}:named` | a stream of purges that the log alone knows: of tags, prefixes, routes, everything |
//! | `…:{fleet}:marked` | one of those that have a marker of their own as well: of URLs, groups, paths |
//! | `…:{fleet}:nodes` | a hash: what each node last said of itself, and when by Redis's clock |
//!
//! Both streams have one numbering; they are two, so that the writes of a busy API, which purge a URL each,
//! do not push purges of tags out of a bounded log. All four keys have one hash tag: each change is one
//! script, on one node of a cluster. All expire a week after the last node has asked.
//!
//! Each script is one `EVAL` with its text, and answers with one string: so what may come is bounded by its
//! length, as it is for all that Redis answers. What stands under a key may be anything: what is of another
//! kind is removed. An entry is sealed as a record is, and bound to its token.
//! Must not know: what a purge means, or when to ask.

use bytes::Bytes;
use redis::{Cmd, Value};

use super::follower::{Dropped, Entry, Question, Told};
use crate::store::redis::link::Fault;
use crate::store::redis::{script, value};
use crate::stored::{self, LONGEST_URL, Nonce, Seal};

/// Entries of each stream in one answer.
const PAGE: usize = 128;
/// Bytes of purges after which a page ends. Most are of some hundred.
const PAGE_BYTES: usize = 1024 * 1024;
/// Bytes of the longest answer: two pages.
pub(super) const LONGEST: u64 = 4 * 1024 * 1024;
/// Bytes of the longest entry, sealed. A longer one is none of ours.
const LONGEST_ENTRY: usize = LONGEST_URL + 1024;
/// Entries that one addition takes out of a stream at most: a record that has become smaller is reached by and by.
const TRIMMED: usize = 256;

/// Milliseconds that the keys live without anybody asking.
const TTL: u64 = 8 * 24 * 3600 * 1000;
/// Milliseconds after which a node that says nothing is struck off.
const FORGET: u64 = 60_000;
/// Nodes on the list beyond which those are sought that have been silent for so long, though nobody asks for them.
const MANY_NODES: usize = 1_000;

/// Before each script: what the keys say is made to agree. A head that is none is made anew, and with it
/// everything. A stream that does not end in what was added last has been evicted, or is another's: whatever stood
/// in it is lost, and whoever did not hear of it is told so.
///
/// The first command is one that writes and needs no memory: after it, a Redis whose memory is full refuses
/// none of the others.
macro_rules! with_head {
    ($script:literal) => {
        concat!(
            "\
local streams = {{KEYS[2], 'named'}, {KEYS[3], 'marked'}}
local function plain(number) return string.format('%.0f', number) end
local function whole(text)
  if type(text) ~= 'string' or #text > 16 then return nil end
  if text ~= '0' and not string.match(text, '^[1-9]%d*$') then return nil end
  local number = tonumber(text)
  return number < 9007199254740992 and number or nil
end
local function word(text)
  return type(text) == 'string' and #text == 16 and not string.match(text, '[^0-9a-f]')
    and text ~= '0000000000000000'
end
local function number(entry) return whole(string.match(entry[1], '^(%d+)-0$')) end
local function must_be(key, kind)
  local is = redis.call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then redis.call('UNLINK', key) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
must_be(KEYS[1], 'hash') must_be(KEYS[2], 'stream') must_be(KEYS[3], 'stream') must_be(KEYS[4], 'hash')
local run, head = redis.call('HGET', KEYS[1], 'run'), whole(redis.call('HGET', KEYS[1], 'n'))
if not word(run) or not head then
  run, head = ARGV[2], 0
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'run', run, 'n', 0)
end
local dropped = {}
local function lose(key, of)
  redis.call('UNLINK', key)
  redis.call('HSET', KEYS[1], of, plain(head), 'last ' .. of, plain(head))
  dropped[of] = head
end
for _, stream in ipairs(streams) do
  local key, of = stream[1], stream[2]
  local last = whole(redis.call('HGET', KEYS[1], 'last ' .. of) or '0')
  local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  dropped[of] = whole(redis.call('HGET', KEYS[1], of) or '0')
  local agree = last and last <= head and dropped[of] and dropped[of] <= last
  if agree and newest then agree = number(newest) == last and last > dropped[of]
  elseif agree then agree = last == dropped[of] end
  if not agree then lose(key, of) end
end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function nodes(forget)
  local at, all, left = now(), redis.call('HGETALL', KEYS[4]), {}
  for i = 1, #all, 2 do
    local seen, says = string.match(all[i + 1], '^(%d+) (.*)$')
    seen = whole(seen)
    if not seen or at - seen > tonumber(forget) then redis.call('HDEL', KEYS[4], all[i])
    else
      if seen > at then
        seen = at
        redis.call('HSET', KEYS[4], all[i], plain(at) .. ' ' .. says)
      end
      left[#left + 1] = all[i] .. ' ' .. plain(seen) .. ' ' .. says
    end
  end
  return at, left
end
",
            $script,
            "
"
        )
    };
}

/// A stream in which anything stands that was never written is lost.
/// Arguments after the first two: the question's run, number and token; the node's name and what it says of
/// itself; entries in a page, and bytes of the longest; nodes on the list beyond which the silent are sought,
/// and milliseconds after which one is; bytes after which a page ends.
const FOLLOW: &str = with_head!(
    "\
local from, known = 0, 1
if run == ARGV[3] then
  from = tonumber(ARGV[4])
  if from > head then known = 0 end
  if known == 1 and from > 0 then
    local id = plain(from) .. '-0'
    local at = redis.call('XRANGE', KEYS[2], id, id)[1] or redis.call('XRANGE', KEYS[3], id, id)[1]
    if at then
      if ARGV[5] ~= '0' and at[2][2] ~= ARGV[5] then known = 0 end
    elseif from > dropped.named and from > dropped.marked then known = 0 end
  end
end
local found, given, upto = {}, {}, head
if known == 1 then
  for nth, stream in ipairs(streams) do
    local key, of = stream[1], stream[2]
    local page = redis.call('XRANGE', key, plain(from + 1) .. '-0', '+', 'COUNT', ARGV[8])
    local ours, last, bytes, full = {}, nil, 0, #page == tonumber(ARGV[8])
    for _, entry in ipairs(page) do
      local n, token, payload = number(entry), entry[2][2], entry[2][4] or ''
      if not n or given[n] or not word(token) then ours = nil break end
      if #payload > tonumber(ARGV[9]) then payload = '' end
      ours[#ours + 1], last, bytes = {n, token, payload, nth}, n, bytes + #payload
      if bytes > tonumber(ARGV[12]) then full = true break end
    end
    if not ours then lose(key, of)
    else
      for _, entry in ipairs(ours) do
        found[#found + 1] = entry
        given[entry[1]] = true
      end
      if full then upto = math.min(upto, last) end
    end
  end
end
table.sort(found, function(a, b) return a[1] < b[1] end)
local counts = {run, plain(head), plain(dropped.named), plain(dropped.marked), known, plain(upto), #found}
local out = {table.concat(counts, ' ') .. '\\n'}
for _, entry in ipairs(found) do
  out[#out + 1] = plain(entry[1]) .. ' ' .. entry[2] .. ' ' .. entry[4] .. ' ' .. #entry[3] .. '\\n' .. entry[3]
end
redis.call('HSET', KEYS[4], ARGV[6], plain(now()) .. ' ' .. ARGV[7])
if redis.call('HLEN', KEYS[4]) > tonumber(ARGV[10]) then nodes(ARGV[11]) end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return table.concat(out)"
);

/// Arguments after the first two: 1 for the named or 2 for the marked; token, purge, how many the stream may
/// hold, and how many are taken out at most.
const ADD: &str = with_head!(
    "\
local key, of = streams[tonumber(ARGV[3])][1], streams[tonumber(ARGV[3])][2]
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
local id = plain(n) .. '-0'
local added = redis.pcall('XADD', key, id, 't', ARGV[4], 'p', ARGV[5])
if type(added) == 'table' and added.err then
  lose(key, of)
  redis.call('XADD', key, id, 't', ARGV[4], 'p', ARGV[5])
end
redis.call('HSET', KEYS[1], 'last ' .. of, plain(n))
local held = redis.call('XLEN', key)
local over = math.min(held - tonumber(ARGV[6]), tonumber(ARGV[7]))
if over > 0 then
  local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', over)
  redis.call('XTRIM', key, 'MAXLEN', held - over)
  redis.call('HSET', KEYS[1], of, string.match(oldest[#oldest][1], '^(%d+)'))
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return run .. ' ' .. plain(n)"
);

/// Arguments after the first two: the run that is to be no more.
const RENEW: &str = with_head!(
    "\
if run == ARGV[3] then redis.call('HSET', KEYS[1], 'run', ARGV[2]) run = ARGV[2] end
return run"
);

/// Arguments after the first two: milliseconds after which a node is struck off. One that was last seen later than
/// now, by a server whose clock was ahead, counts from now.
const NODES: &str = with_head!(
    "\
local at, left = nodes(ARGV[3])
table.insert(left, 1, plain(at))
return table.concat(left, '\\n')"
);

/// Arguments after the first two: the node's name.
const LEAVE: &str = with_head!("redis.call('HDEL', KEYS[4], ARGV[3]) return run");

/// In which stream a purge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The log alone knows of it.
    Named,
    /// It has a marker of its own.
    Marked,
}

/// The keys of a fleet.
#[derive(Clone, Debug)]
pub(super) struct Log {
    keys: [String; 4],
    seal: Seal,
}

impl Log {
    /// `prefix` ends in a colon.
    pub(super) fn new(prefix: &str, seal: Seal) -> Self {
        let key = |name| format!("{prefix}{{fleet}}:{name}");
        Self { keys: [key("head"), key("named"), key("marked"), key("nodes")], seal }
    }

    /// Asks for what comes after what is known, and says of the node `name` what it says of itself.
    pub(super) fn follow(&self, question: Question, offered: u64, name: &str, says: &str) -> Cmd {
        let mut call = self.eval(FOLLOW, offered);
        call.arg(hex(question.run)).arg(question.n).arg(hex_or_none(question.token));
        call.arg(name).arg(says).arg(PAGE).arg(LONGEST_ENTRY).arg(MANY_NODES).arg(FORGET).arg(PAGE_BYTES);
        call
    }

    /// Adds a purge; `None` where it cannot be sealed. `most` = how many the stream holds.
    pub(super) fn add(
        &self,
        entry: &Entry,
        (offered, most): (u64, u64),
        nonce: impl FnOnce() -> Option<Nonce>,
    ) -> Option<Cmd> {
        let Entry { token, stream, payload, .. } = entry;
        let sealed = self.seal.close(payload.to_vec(), &self.place(*token), nonce)?;
        let nth = match stream {
            Stream::Named => 1,
            Stream::Marked => 2,
        };
        let mut call = self.eval(ADD, offered);
        call.arg(nth).arg(hex(*token)).arg(sealed).arg(most).arg(TRIMMED);
        Some(call)
    }

    /// Gives the log another run, unless it has another already.
    pub(super) fn renew(&self, old: u64, new: u64) -> Cmd {
        let mut call = self.eval(RENEW, new);
        call.arg(hex(old));
        call
    }

    /// Asks for all nodes.
    pub(super) fn nodes(&self, offered: u64) -> Cmd {
        let mut call = self.eval(NODES, offered);
        call.arg(FORGET);
        call
    }

    /// Strikes a node off.
    pub(super) fn leave(&self, offered: u64, name: &str) -> Cmd {
        let mut call = self.eval(LEAVE, offered);
        call.arg(name);
        call
    }

    fn eval(&self, script: &str, offered: u64) -> Cmd {
        let mut call = script::eval(script, &self.keys);
        call.arg(TTL).arg(hex(offered));
        call
    }

    /// The key that all of it stands beside.
    pub(super) fn head(&self) -> &str {
        let [head, ..] = &self.keys;
        head
    }

    fn place(&self, token: u64) -> String {
        let [head, ..] = &self.keys;
        format!("{head}:{token:016x}")
    }

    /// Reads the answer to [`follow`](Self::follow). An entry that cannot be read has an empty payload.
    pub(super) fn told(&self, answer: Value) -> Result<Told, Fault> {
        let bytes = Bytes::from(text(answer)?);
        read_told(&bytes).map(|told| self.opened(told)).ok_or(Fault::Nonsense)
    }

    fn opened(&self, mut told: Told) -> Told {
        for entry in &mut told.entries {
            let opened = self.seal.open(entry.payload.to_vec(), &self.place(entry.token));
            entry.payload = opened.unwrap_or_default();
        }
        told
    }
}

/// Reads the answer to [`Log::add`]: run and number.
pub(super) fn added(answer: Value) -> Result<(u64, u64), Fault> {
    let bytes = text(answer)?;
    let line = std::str::from_utf8(&bytes).map_err(|_| Fault::Nonsense)?;
    let (run, n) = line.split_once(' ').ok_or(Fault::Nonsense)?;
    from_hex(run).zip(n.parse().ok()).ok_or(Fault::Nonsense)
}

/// What a node has said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) name: String,
    /// Milliseconds since then.
    pub(super) silent: u64,
    pub(super) says: String,
}

/// Reads the answer to [`Log::nodes`]. What cannot be read is left out.
pub(super) fn nodes(answer: Value) -> Result<Vec<Said>, Fault> {
    let bytes = text(answer)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let now: u64 = lines.next().and_then(|now| now.parse().ok()).ok_or(Fault::Nonsense)?;
    let said = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let (seen, says) = rest.split_once(' ')?;
        let silent = now.saturating_sub(seen.parse().ok()?);
        Some(Said { name: name.to_owned(), silent, says: says.to_owned() })
    };
    Ok(lines.filter_map(said).collect())
}

/// The string that each script answers with.
fn text(answer: Value) -> Result<Vec<u8>, Fault> {
    value::text(answer)?.map_err(|_| Fault::Refused)
}

fn read_told(bytes: &Bytes) -> Option<Told> {
    let mut rest = bytes.clone();
    let first = line(&mut rest)?;
    let mut words = std::str::from_utf8(&first).ok()?.split(' ');
    let run = from_hex(words.next()?)?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (head, named, marked) = (number()?, number()?, number()?);
    let (known, upto, count) = (number()? == 1, number()?, number()?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let about = line(&mut rest)?;
        let mut words = std::str::from_utf8(&about).ok()?.split(' ');
        let (n, token) = (words.next()?.parse().ok()?, words.next().and_then(from_hex)?);
        let stream = match words.next()? {
            "1" => Stream::Named,
            "2" => Stream::Marked,
            _ => return None,
        };
        let length: usize = words.next()?.parse().ok()?;
        if length > rest.len() {
            return None;
        }
        entries.push(Entry { n, token, stream, payload: rest.split_to(length) });
    }
    let ordered = entries.windows(2).all(|pair| matches!(pair, [a, b] if a.n < b.n));
    (run != 0 && ordered && rest.is_empty()).then_some(Told {
        run,
        head,
        dropped: Dropped { named, marked },
        known,
        entries,
        upto,
    })
}

fn line(rest: &mut Bytes) -> Option<Bytes> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest.split_to(end);
    let _newline = rest.split_to(1);
    Some(line)
}

/// As runs and tokens are written.
pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn hex_or_none(token: u64) -> String {
    if token == 0 { "0".to_owned() } else { hex(token) }
}

/// What [`hex`] has written.
pub(super) fn from_hex(text: &str) -> Option<u64> {
    stored::from_hex(text).map(u64::from_be_bytes)
}
