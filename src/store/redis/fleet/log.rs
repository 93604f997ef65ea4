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
use redis::{Cmd, Value, cmd};

use super::follower::{Dropped, Entry, Question, Told};
use crate::store::redis::link::Fault;
use crate::stored::{Nonce, Seal};

/// Entries of each stream in one answer.
const PAGE: usize = 128;
/// Bytes of the longest answer: two pages of the longest entries.
pub(super) const LONGEST: u64 = 4 * 1024 * 1024;

/// Milliseconds that the keys live without anybody asking.
const TTL: u64 = 8 * 24 * 3600 * 1000;
/// Milliseconds after which a node that says nothing is struck off.
const FORGET: u64 = 60_000;

/// Before each script: a head that is none is made anew, and with it everything. A stream that lacks what was
/// last added to it has been evicted: whatever stood in it is lost, and whoever did not hear of it is told so.
///
/// The first command is one that writes and needs no memory: after it, a Redis whose memory is full refuses
/// none of the others.
macro_rules! with_head {
    ($script:literal) => {
        concat!(
            "\
local function must_be(key, kind)
  local is = redis.call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then redis.call('UNLINK', key) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
must_be(KEYS[1], 'hash') must_be(KEYS[2], 'stream') must_be(KEYS[3], 'stream') must_be(KEYS[4], 'hash')
local run = redis.call('HGET', KEYS[1], 'run')
local head = tonumber(redis.call('HGET', KEYS[1], 'n') or 'x')
if not run or not head then
  run, head = ARGV[2], 0
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'run', run, 'n', 0)
end
local function dropped(of) return tonumber(redis.call('HGET', KEYS[1], of) or 0) or 0 end
local function plain(number) return string.format('%.0f', number) end
for key, of in pairs({[KEYS[2]] = 'named', [KEYS[3]] = 'marked'}) do
  local last = dropped('last ' .. of)
  if last > dropped(of) and last <= head then
    local held = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    if not held or tonumber(string.match(held[1], '^(%d+)')) < last then
      redis.call('HSET', KEYS[1], of, plain(head))
    end
  end
end
",
            $script,
            "
"
        )
    };
}

/// A stream with a number that was never given is none of ours: whatever stood in it is lost.
/// Arguments after the first two: the question's run, number and token; the node's name and what it says of
/// itself; entries in a page.
const FOLLOW: &str = with_head!(
    "\
local from, known = 0, 1
local named, marked = dropped('named'), dropped('marked')
if run == ARGV[3] then
  from = tonumber(ARGV[4])
  if from > head then known = 0 end
  if known == 1 and from > 0 then
    local id = plain(from) .. '-0'
    local at = redis.call('XRANGE', KEYS[2], id, id)[1] or redis.call('XRANGE', KEYS[3], id, id)[1]
    if at then
      if ARGV[5] ~= '0' and at[2][2] ~= ARGV[5] then known = 0 end
    elseif from > named and from > marked then known = 0 end
  end
end
for key, of in pairs({[KEYS[2]] = 'named', [KEYS[3]] = 'marked'}) do
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if last and tonumber(string.match(last[1], '^(%d+)')) > head then
    redis.call('UNLINK', key)
    redis.call('HSET', KEYS[1], of, plain(head))
    if of == 'named' then named = head else marked = head end
  end
end
local found, upto = {}, head
if known == 1 then
  for nth, key in ipairs({KEYS[2], KEYS[3]}) do
    local page = redis.call('XRANGE', key, plain(from + 1) .. '-0', '+', 'COUNT', ARGV[8])
    for _, entry in ipairs(page) do
      local n = tonumber(string.match(entry[1], '^(%d+)'))
      found[#found + 1] = {n, entry[2][2] or '', entry[2][4] or '', nth}
    end
    if #page == tonumber(ARGV[8]) then upto = math.min(upto, found[#found][1]) end
  end
end
table.sort(found, function(a, b) return a[1] < b[1] end)
local out = {table.concat({run, plain(head), plain(named), plain(marked), known, plain(upto), #found}, ' ') .. '\\n'}
for _, entry in ipairs(found) do
  out[#out + 1] = plain(entry[1]) .. ' ' .. entry[2] .. ' ' .. entry[4] .. ' ' .. #entry[3] .. '\\n' .. entry[3]
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[4], ARGV[6], plain(time[1] * 1000 + math.floor(time[2] / 1000)) .. ' ' .. ARGV[7])
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return table.concat(out)"
);

/// Arguments after the first two: 2 for the named or 3 for the marked; which of both in words; token,
/// purge, and how many the stream may hold.
const ADD: &str = with_head!(
    "\
local stream = KEYS[tonumber(ARGV[3])]
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
local id = plain(n) .. '-0'
local added = redis.pcall('XADD', stream, id, 't', ARGV[5], 'p', ARGV[6])
if type(added) == 'table' and added.err then
  redis.call('UNLINK', stream)
  redis.call('HSET', KEYS[1], ARGV[4], plain(n - 1))
  redis.call('XADD', stream, id, 't', ARGV[5], 'p', ARGV[6])
end
redis.call('HSET', KEYS[1], 'last ' .. ARGV[4], plain(n))
while redis.call('XLEN', stream) > tonumber(ARGV[7]) do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  redis.call('XDEL', stream, oldest)
  redis.call('HSET', KEYS[1], ARGV[4], string.match(oldest, '^(%d+)'))
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

/// Arguments after the first two: milliseconds after which a node is struck off.
const NODES: &str = with_head!(
    "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {plain(now)}
local all = redis.call('HGETALL', KEYS[4])
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^(%d+) '))
  if not seen or now - seen > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[4], all[i])
  else out[#out + 1] = all[i] .. ' ' .. all[i + 1] end
end
return table.concat(out, '\\n')"
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
        call.arg(name).arg(says).arg(PAGE);
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
        let (nth, name) = match stream {
            Stream::Named => (2, "named"),
            Stream::Marked => (3, "marked"),
        };
        let mut call = self.eval(ADD, offered);
        call.arg(nth).arg(name).arg(hex(*token)).arg(sealed).arg(most);
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
        let mut call = cmd("EVAL");
        call.arg(script).arg(self.keys.len()).arg(&self.keys[..]).arg(TTL).arg(hex(offered));
        call
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

fn text(answer: Value) -> Result<Vec<u8>, Fault> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        Value::ServerError(_) => Err(Fault::Refused),
        _ => Err(Fault::Nonsense),
    }
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

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn hex_or_none(token: u64) -> String {
    if token == 0 { "0".to_owned() } else { hex(token) }
}

fn from_hex(text: &str) -> Option<u64> {
    if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}
