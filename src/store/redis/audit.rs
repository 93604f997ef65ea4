//! What stands in Redis: counted key by key, within the namespace alone.
//!
//! Knows how keys are walked through in steps of bounded size (`SCAN` with a pattern), on each server that holds
//! any, and what is told of them: how many of each kind, how large, and which have no expiry. By which URL a
//! record is stored stands in the record alone, so some are read for that. Nothing is written.
//! Must not know: routes; a URL's name among them is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value, cmd};
use tokio::time::timeout;

use super::client::Client;
use super::link::{AbortOnDrop, Fault, ask, ask_all};
use super::servers::{self, Servers, Target, View};
use super::value::{self, Held};
use super::{compression, keys};
use crate::config;
use crate::stored::{Seal, decode_url};

/// For one step, and for saying who we are. Nobody waits but whoever asked.
const STEP: Duration = Duration::from_secs(5);
/// For the nodes of a cluster to be learned.
const LEARN: Duration = Duration::from_secs(5);
/// Keys that Redis is asked to look at in one step.
const COUNT: u64 = 500;
/// Members of one step's answer: a hash table that is being grown gives more than it was asked for.
const MEMBERS: u64 = 100_000;
/// Bytes of one step's answer.
const LONGEST_STEP: u64 = 16 << 20;
/// Records that are read for their URLs, on each server; evenly spread.
const READ: u64 = 2_000;
/// Names that are told of those without expiry.
const NAMED: usize = 20;

/// What stands in Redis.
#[derive(Debug, Default)]
pub struct Audit {
    /// The servers that were walked through.
    pub servers: Vec<String>,
    /// Keys and bytes of each kind.
    pub kinds: BTreeMap<String, Sum>,
    /// Records that were read, by what their URLs are called.
    pub names: BTreeMap<String, Sum>,
    /// Keys without expiry: there must be none.
    pub without_expiry: u64,
    /// Some of these.
    pub named: Vec<String>,
}

/// How many, and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Keys.
    pub keys: u64,
    /// Bytes that Redis says they take; of the values alone where it does not say.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Audit {
    /// Walks through all keys of the namespace. `called` says what a record's URL is called.
    ///
    /// # Errors
    /// A sentence where a server cannot be reached or does not answer: a part is not told for the whole.
    pub async fn make(cfg: &config::Cache, called: &dyn Fn(&str) -> String) -> Result<Self, String> {
        let redis = cfg.redis.as_ref().ok_or("no Redis is configured")?;
        let servers = Servers::start(redis)?;
        let walk = Walk {
            seal: Seal::new(&cfg.redis_secrets).in_namespace(&cfg.namespace),
            pattern: format!("{}:*", cfg.namespace),
            longest: value::longest_record(cfg.redis_max_object),
            called,
        };
        let mut audit = Self::default();
        for (target, name) in targets(&servers).await? {
            let told = walk.through(&target, &mut audit).await;
            let node = told.map_err(|why| format!("{name}: {why}"))?;
            audit.servers.push(node.map_or(name, |node| node.to_string()));
        }
        Ok(audit)
    }
}

/// All that hold keys.
async fn targets(servers: &Servers) -> Result<Vec<(Target, String)>, String> {
    if !servers.is_cluster() {
        return Ok(vec![(servers.only(), "redis".to_owned())]);
    }
    let mut views = servers.views();
    let known = timeout(LEARN, views.wait_for(|view| matches!(view, View::Known(_)))).await;
    drop(known);
    let Some(topology) = servers.topology() else {
        let why = match &*views.borrow() {
            View::Unknown(why) => why.clone(),
            View::Unasked | View::Known(_) => "no answer in time".to_owned(),
        };
        return Err(format!("no node of the cluster tells who is in it: {why}"));
    };
    Ok(topology.masters().map(|node| (servers.node(node), node.to_string())).collect())
}

struct Walk<'a> {
    seal: Seal,
    pattern: String,
    longest: u64,
    called: &'a dyn Fn(&str) -> String,
}

impl Walk<'_> {
    /// Gives which server it was.
    async fn through(&self, target: &Target, audit: &mut Audit) -> Result<Option<config::Node>, String> {
        let reached = target.clone().with_arrays(MEMBERS).reach(LONGEST_STEP).await?;
        let spoken = timeout(STEP, servers::speak(&reached.hello, reached.line, 8)).await;
        let (connection, _driver): (_, AbortOnDrop<()>) =
            spoken.map_err(|_| "no connection in time".to_owned())??;
        let said = |fault: Fault| fault.as_str().to_owned();
        let size = match step(&connection, [cmd("DBSIZE")]).await.map_err(said)?.as_slice() {
            [Value::Int(size)] => u64::try_from(*size).unwrap_or(0),
            _ => return Err("it does not say how many keys it holds".to_owned()),
        };
        // Each step looks at some keys, so there is an end; a server that never comes to it is left.
        let most = size.saturating_mul(4) / COUNT + 1_000;
        let every = (size / READ).max(1);
        let (mut cursor, mut seen) = ("0".to_owned(), 0u64);
        for _ in 0..most {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(COUNT);
            let (next, names) = scanned(timeout(STEP, ask(&connection, scan)).await)?;
            self.weigh(&connection, &names, (every, &mut seen), audit).await.map_err(said)?;
            if next == "0" {
                return Ok(reached.node);
            }
            cursor = next;
        }
        Err("its keys come to no end".to_owned())
    }

    async fn weigh(
        &self,
        connection: &Client,
        names: &[String],
        (every, seen): (u64, &mut u64),
        audit: &mut Audit,
    ) -> Result<(), Fault> {
        let of = |name: &'static str, key: &String| {
            let mut command = cmd(name);
            if name == "MEMORY" {
                command.arg("USAGE");
            }
            command.arg(key);
            command
        };
        let question = names.iter().flat_map(|key| [of("PTTL", key), of("MEMORY", key), of("STRLEN", key)]);
        let answers = step(connection, question).await?;
        for (name, told) in names.iter().zip(answers.chunks(3)) {
            let [Value::Int(left), usage, length] = told else { return Err(Fault::Nonsense) };
            // Gone meanwhile.
            if *left == -2 {
                continue;
            }
            let bytes = match (usage, length) {
                (Value::Int(bytes), _) | (_, Value::Int(bytes)) => u64::try_from(*bytes).unwrap_or(0),
                _ => 0,
            };
            if *left == -1 {
                audit.without_expiry = audit.without_expiry.saturating_add(1);
                if audit.named.len() < NAMED {
                    // Somebody else may have named it, and it goes to a terminal.
                    audit.named.push(name.escape_debug().to_string());
                }
            }
            let kind = keys::kind(&self.seal, name);
            audit.kinds.entry(kind.unwrap_or("others").to_owned()).or_default().add(bytes);
            if matches!(kind, Some("records" | "variants")) {
                if seen.is_multiple_of(every) {
                    let called = self.name_of(connection, name).await?;
                    audit.names.entry(called).or_default().add(bytes);
                }
                *seen = seen.saturating_add(1);
            }
        }
        Ok(())
    }

    /// What the URL of a record is called.
    async fn name_of(&self, connection: &Client, place: &str) -> Result<String, Fault> {
        let [exists, range] =
            <[Value; 2]>::try_from(step(connection, value::read(place, self.longest)).await?)
                .map_err(|_| Fault::Nonsense)?;
        let read = match value::held(&exists, range, self.longest)? {
            Held::Bytes(bytes) => self
                .seal
                .open(bytes, place)
                .and_then(|bytes: Bytes| compression::expand(bytes, self.longest))
                .and_then(|bytes| decode_url(bytes, place)),
            Held::Nothing => return Ok("(gone meanwhile)".to_owned()),
            Held::Bad(bad) => Err(bad.why),
        };
        Ok(read.map_or_else(|why| format!("(damaged: {})", why.as_str()), |url| (self.called)(&url)))
    }
}

async fn step(connection: &Client, question: impl IntoIterator<Item = Cmd>) -> Result<Vec<Value>, Fault> {
    timeout(STEP, ask_all(connection, question)).await.unwrap_or(Err(Fault::Deadline))
}

/// Where to go on, and the names so far.
fn scanned(
    answer: Result<Result<Value, Fault>, tokio::time::error::Elapsed>,
) -> Result<(String, Vec<String>), String> {
    let answer =
        answer.map_err(|_| "no answer in time".to_owned())?.map_err(|fault| fault.as_str().to_owned())?;
    let text = |value: Value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    };
    let parts = match answer {
        Value::Array(parts) => <[Value; 2]>::try_from(parts).ok(),
        _ => None,
    };
    let Some([cursor, Value::Array(names)]) = parts else {
        return Err("that is no answer to SCAN".to_owned());
    };
    let cursor = text(cursor).ok_or("that is no answer to SCAN")?;
    // A name that is no text is none of ours, whatever it begins with.
    let named = |value: Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    Ok((cursor, names.into_iter().filter_map(named).collect()))
}
