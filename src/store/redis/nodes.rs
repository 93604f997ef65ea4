//! The links to all servers that hold keys, as one: to the one server, or to each master of a cluster.
//!
//! Knows which link a command goes over, by the slot of its key, and what to do when a node says that the key
//! is elsewhere: `MOVED` is followed once and has the cluster looked at anew, `ASK` is followed once, all
//! within the deadline of the call. A master that cannot be reached makes its slots absent and no others.
//!
//! The crate's own client for clusters is not used: its tries and waits are its own (16 of them, 1.28 s and
//! more between two, at connecting without any bound), and an answer under it is watched by nobody.
//! Must not know: what is asked, or what a value means.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Arg, Cmd, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::link::{AbortOnDrop, Fault, Link, Phase, question};
use super::reach::{Member, Panel, Reach};
use super::servers::{Servers, View};
use super::topology::{Redirection, Topology, slot_of};
use crate::config::{self, Node};
use crate::telemetry::supervise;

/// The most masters that have a link each.
const MOST_LINKS: usize = 500;

/// Links for one purpose. They end when the last of these and of its [`Asker`]s is dropped.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    shared: Arc<Shared>,
    _keeper: Option<Arc<AbortOnDrop<()>>>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    servers: Servers,
    deadline: Duration,
    longest: u64,
    reach: Arc<Reach>,
    panel: Arc<Panel>,
    /// The one server's; in a cluster none.
    only: Option<Link>,
    /// A cluster's, by node.
    links: Mutex<BTreeMap<Node, Arc<Link>>>,
}

/// Asks, until its time is over.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    shared: Arc<Shared>,
    until: Instant,
}

impl Nodes {
    /// Begins to connect to all that hold keys. `deadline` and `longest` are each [`Link`]'s.
    pub(super) fn start(
        name: &'static str,
        servers: &Servers,
        deadline: Duration,
        longest: u64,
        reach: &Arc<Reach>,
    ) -> Self {
        let panel = Arc::new(Panel::new());
        let only = (!servers.is_cluster()).then(|| {
            let member = Member::join(reach).shown_on(&panel, String::new());
            Link::start(name, servers.only(), deadline, longest, member)
        });
        let is_cluster = only.is_none();
        let (servers, reach, links) = (servers.clone(), Arc::clone(reach), Mutex::default());
        let shared = Arc::new(Shared { name, servers, deadline, longest, reach, panel, only, links });
        let kept = Arc::clone(&shared);
        let keeper = is_cluster.then(|| {
            let keep = move || follow(Arc::clone(&kept));
            Arc::new(AbortOnDrop(tokio::spawn(supervise("redis nodes", keep))))
        });
        Self { shared, _keeper: keeper }
    }

    /// Runs `calls`, all of what they ask within `bound`.
    ///
    /// If the future is dropped, what was asked may still be carried out and its answer is thrown away, as
    /// [`Link::send`] says.
    pub(super) async fn with<T, C, F>(&self, bound: Duration, calls: C) -> Result<T, Fault>
    where
        C: FnOnce(Asker) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let until = Instant::now() + bound;
        calls(Asker { shared: Arc::clone(&self.shared), until }).await
    }

    /// From now on connections are made with these passwords.
    pub(super) fn login_as(&self, redis: &config::Redis) {
        self.shared.servers.login_as(redis);
    }

    /// Where the breakers stand now, together: closed while any is.
    pub(super) fn phase(&self) -> Phase {
        self.shared.panel.phase()
    }

    /// Tells of every change of that.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.shared.panel.phases()
    }

    /// Which server has this key, and how often the link to it has broken. One that is back by now leads to a Redis that
    /// may have been set back, and so does the link to another server.
    pub(super) fn breaks(&self, key: &str) -> (String, u64) {
        let node = match &self.shared.only {
            Some(_) => String::new(),
            None => {
                let topology = self.shared.servers.topology();
                topology
                    .and_then(|it| it.owner(slot_of(key.as_bytes())).map(Node::to_string))
                    .unwrap_or_default()
            }
        };
        let breaks = self.shared.panel.breaks(&node);
        (node, breaks)
    }

    /// Whether every server is reached.
    pub(super) fn is_whole(&self) -> bool {
        self.shared.panel.is_whole()
    }

    /// The link to the one server.
    #[cfg(test)]
    pub(super) fn only(&self) -> Option<&Link> {
        self.shared.only.as_ref()
    }
}

impl Asker {
    /// What is left of its time.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Sends commands, to each server those of its keys in one piece, and gives their answers in order, errors of
/// Redis among them. One that is not answered is a fault of all.
pub(super) async fn ask_all(
    asker: &mut Asker,
    commands: impl IntoIterator<Item = Cmd>,
) -> Result<Vec<Value>, Fault> {
    let Some(link) = &asker.shared.only else {
        let commands: Vec<Cmd> = commands.into_iter().collect();
        return asker.shared.ask_cluster(asker.until, commands).await.into_iter().collect();
    };
    let question = question(commands);
    link.ask(asker.until, &question).await
}

/// The same of commands that have nothing to do with each other: a server that does not answer, or a slot that nobody
/// has, is a fault of those that it was asked, and of no others.
pub(super) async fn ask_each(asker: &mut Asker, commands: Vec<Cmd>) -> Vec<Result<Value, Fault>> {
    let Some(link) = &asker.shared.only else {
        return asker.shared.ask_cluster(asker.until, commands).await;
    };
    let count = commands.len();
    match link.ask(asker.until, &question(commands)).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(fault) => vec![Err(fault); count],
    }
}

/// Sends one command and gives its answer; an error that Redis answers is a [`Fault::Refused`].
pub(super) async fn ask(asker: &mut Asker, command: Cmd) -> Result<Value, Fault> {
    let answers = ask_all(asker, [command]).await?;
    match <[Value; 1]>::try_from(answers) {
        Ok([Value::ServerError(_)]) => Err(Fault::Refused),
        Ok([answer]) => Ok(answer),
        Err(_) => Err(Fault::Nonsense),
    }
}

impl Shared {
    /// By the node of each command's key, an answer or a fault to each.
    async fn ask_cluster(&self, until: Instant, commands: Vec<Cmd>) -> Vec<Result<Value, Fault>> {
        // Nobody has been found to ask for it.
        let mut all = vec![Err(Fault::Open); commands.len()];
        let Some(topology) = self.servers.topology() else { return all };
        let mut parts: Vec<(&Node, Vec<(usize, Cmd)>)> = Vec::new();
        for (index, command) in commands.into_iter().enumerate() {
            let Some(node) = key_of(&command).and_then(|key| topology.owner(slot_of(key))) else {
                self.servers.look_again();
                continue;
            };
            // Asked: no answer is then none that was not asked for.
            if let Some(at) = all.get_mut(index) {
                *at = Err(Fault::Nonsense);
            }
            match parts.iter_mut().find(|(known, _)| *known == node) {
                Some((_, part)) => part.push((index, command)),
                None => parts.push((node, vec![(index, command)])),
            }
        }
        let asked = parts.into_iter().map(|(node, part)| async move {
            let (places, commands): (Vec<usize>, Vec<Cmd>) = part.into_iter().unzip();
            let answers = self.ask_node(until, node, commands).await;
            places.into_iter().zip(answers)
        });
        for answers in join_all(asked).await {
            for (place, answer) in answers {
                if let Some(at) = all.get_mut(place) {
                    *at = answer;
                }
            }
        }
        all
    }

    /// Asks one node, and once more whomever it names instead; an answer or a fault to each command.
    async fn ask_node(&self, until: Instant, node: &Node, commands: Vec<Cmd>) -> Vec<Result<Value, Fault>> {
        let count = commands.len();
        let asked = question(&commands);
        let Some(link) = self.link(node) else { return vec![Err(Fault::Open); count] };
        link.tried(until).await;
        let mut answers: Vec<Result<Value, Fault>> = match link.send(until, &asked).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(fault) => return vec![Err(fault); count],
        };
        let redirections: Vec<_> =
            answers.iter().map(|answer| redirection(answer.as_ref().ok()?, node)).collect();
        if let Some(to) = redirections.iter().flatten().next() {
            self.servers.look_again();
            let meant = commands
                .into_iter()
                .zip(&redirections)
                .enumerate()
                .filter(|(_, (_, known))| known.as_ref() == Some(to))
                .map(|(place, (command, _))| (place, command));
            let (places, commands): (Vec<usize>, Vec<Cmd>) = meant.unzip();
            let second: Vec<Result<Value, Fault>> = match self.ask_instead(until, commands, to).await {
                Ok(second) => second.into_iter().map(Ok).collect(),
                Err(fault) => vec![Err(fault); places.len()],
            };
            for (place, answer) in places.into_iter().zip(second) {
                if let Some(at) = answers.get_mut(place) {
                    *at = answer;
                }
            }
        }
        self.settled(answers)
    }

    /// Asks whom a redirection names.
    async fn ask_instead(
        &self,
        until: Instant,
        commands: Vec<Cmd>,
        to: &Redirection,
    ) -> Result<Vec<Value>, Fault> {
        let link = self.find(until, &commands, to).await?;
        link.tried(until).await;
        let asked = commands.into_iter().flat_map(|command| {
            let asking = to.once.then(|| cmd("ASKING"));
            asking.into_iter().chain([command])
        });
        let answers = link.send(until, &question(asked)).await?;
        let step = if to.once { 2 } else { 1 };
        Ok(answers.into_iter().skip(step - 1).step_by(step).collect())
    }

    /// Who was asked once more and names yet another is not followed: the topology will tell. While a slot is on its
    /// way, a command of several keys is answered only where all of them are: that is its own, and the others have
    /// theirs.
    fn settled(&self, mut answers: Vec<Result<Value, Fault>>) -> Vec<Result<Value, Fault>> {
        let mut is_amiss = false;
        for answer in &mut answers {
            let Ok(Value::ServerError(error)) = answer else { continue };
            match error.code() {
                "MOVED" | "ASK" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" => *answer = Err(Fault::Refused),
                "TRYAGAIN" => {}
                _ => continue,
            }
            is_amiss = true;
        }
        if is_amiss {
            self.servers.look_again();
        }
        answers
    }

    /// The link to whomever a redirection means. One that is not known is waited for: the next look tells.
    async fn find(&self, until: Instant, commands: &[Cmd], to: &Redirection) -> Result<Arc<Link>, Fault> {
        let known = self.servers.topology().and_then(|topology| topology.called(&to.to).cloned());
        if let Some(link) = known.and_then(|node| self.link(&node)) {
            return Ok(link);
        }
        let slot = slot_of(commands.first().and_then(key_of).ok_or(Fault::Nonsense)?);
        let mut views = self.servers.views();
        views.mark_unchanged();
        let changed = timeout_at(until, views.changed()).await;
        changed.map_err(|_| Fault::Deadline)?.map_err(|_| Fault::Open)?;
        let topology = self.servers.topology().ok_or(Fault::Open)?;
        let node = topology.called(&to.to).or_else(|| topology.owner(slot)).ok_or(Fault::Open)?;
        self.follow(&topology);
        self.link(node).ok_or(Fault::Open)
    }

    fn link(&self, node: &Node) -> Option<Arc<Link>> {
        self.links.lock().get(node).cloned()
    }

    /// A link to each master, and to nobody else.
    fn follow(&self, topology: &Topology) {
        follow_in(&mut self.links.lock(), topology, |master| {
            let member = Member::join(&self.reach).shown_on(&self.panel, master.to_string());
            let target = self.servers.node(master);
            Arc::new(Link::start(self.name, target, self.deadline, self.longest, member))
        });
    }
}

/// Drops what is of no master, and starts what is missing, up to [`MOST_LINKS`] in all.
fn follow_in<L>(links: &mut BTreeMap<Node, L>, topology: &Topology, start: impl Fn(&Node) -> L) {
    let masters: BTreeSet<&Node> = topology.masters().collect();
    links.retain(|node, _| masters.contains(node));
    for master in topology.masters() {
        if links.len() >= MOST_LINKS {
            return;
        }
        if !links.contains_key(master) {
            links.insert(master.clone(), start(master));
        }
    }
}

/// Follows the cluster for ever: links to whoever is a master.
async fn follow(shared: Arc<Shared>) {
    let mut views = shared.servers.views();
    // Stands for the cluster while nobody tells who is in it.
    let mut nobody = Some(Member::join(&shared.reach).shown_on(&shared.panel, String::new()));
    loop {
        let view = views.borrow_and_update().clone();
        match view {
            View::Known(topology) => {
                shared.follow(&topology);
                nobody = None;
            }
            View::Unknown(why) => {
                if let Some(member) = &nobody {
                    member.down(&why);
                    member.turn(Phase::Open);
                }
            }
            View::Unasked => {}
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

fn redirection(answer: &Value, from: &Node) -> Option<Redirection> {
    let Value::ServerError(error) = answer else { return None };
    Redirection::read(error.code(), error.details()?, from)
}

/// The first key of a command. All that are ours have one, and all keys of a command have one tag.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    match words.next()? {
        // Script, number of keys, keys.
        b"EVAL" | b"EVALSHA" => words.nth(2),
        _ => words.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cluster_gets_more_links_than_there_may_be_however_it_changes() {
        let of = |ports: std::ops::Range<u16>| {
            let line = |port| format!("id{port} h:{port}@1 master - 0 0 1 connected {port}\n");
            Topology::read(&ports.map(line).collect::<String>(), &Node { host: "h".into(), port: 1 }, false)
                .unwrap()
        };
        let (mut links, most) = (BTreeMap::new(), u16::try_from(MOST_LINKS).unwrap());
        for (what, masters, from, count) in [
            ("few", 1..4, 1, 3),
            ("too many", 1..2 * most, 1, MOST_LINKS),
            ("others stand first", 100..2 * most, 100, MOST_LINKS),
            ("few again", 7..9, 7, 2),
        ] {
            follow_in(&mut links, &of(masters), |_| ());
            assert_eq!((links.len(), links.keys().next().unwrap().port), (count, from), "{what}");
        }
    }

    #[test]
    fn a_command_goes_by_its_first_key() {
        let of = |words: &[&str]| {
            let mut command = cmd(words[0]);
            command.arg(&words[1..]);
            key_of(&command).map(<[u8]>::to_vec)
        };
        assert_eq!(of(&["GETRANGE", "k", "0", "1"]).as_deref(), Some(&b"k"[..]));
        assert_eq!(of(&["EVAL", "return '{x}'", "1", "k", "v"]).as_deref(), Some(&b"k"[..]));
        assert_eq!(of(&["EVALSHA", "0a1b", "2", "k", "l", "v"]).as_deref(), Some(&b"k"[..]));
        assert_eq!(of(&["PING"]), None);
    }
}
