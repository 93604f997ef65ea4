//! Several real `redis-server`s as one: a cluster of three masters with a replica each, and a master with a
//! replica and sentinels; and certificates for those that speak TLS.
//!
//! Knows how each is put together by Redis' own commands, and waits until all agree. Timeouts are the
//! shortest that hold on a busy machine, so that a failover takes seconds. Everything ends when dropped.
//! Must not know: anything of Larder.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::redis::{RedisServer, Reply, free_port};
use super::within;

/// The longest that servers may take to agree.
const AGREED: Duration = Duration::from_secs(30);

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// What a server says of one thing, such as `role` in `INFO replication`.
pub fn info(server: &RedisServer, section: &str, name: &str) -> String {
    let text = server.command(&["INFO", section]).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().to_owned()
}

/// Three masters, and a replica of each.
pub struct Cluster {
    /// The masters.
    pub masters: Vec<RedisServer>,
    /// Of the master in the same place.
    pub replicas: Vec<RedisServer>,
}

impl Cluster {
    /// Starts one and waits until every node has all slots covered and every replica follows.
    pub fn start() -> Self {
        let mut ports = Vec::new();
        let mut node = || {
            let server = RedisServer::start_with(|| {
                let args = "--cluster-enabled yes --cluster-node-timeout 1000 --repl-diskless-sync-delay 0";
                [words(args), vec!["--cluster-port".into(), free_port().to_string()]].concat()
            });
            let bus = server.command(&["CONFIG", "GET", "cluster-port"]);
            let Reply::Array(pair) = bus else { panic!("{bus:?}") };
            ports.push((server.addr().port(), pair[1].clone().text()));
            server
        };
        let masters: Vec<_> = (0..3).map(|_| node()).collect();
        let replicas: Vec<_> = (0..3).map(|_| node()).collect();
        let cluster = Self { masters, replicas };
        for (nth, master) in cluster.masters.iter().enumerate() {
            let (first, last) = ([0, 5461, 10923][nth], [5460, 10922, 16383][nth]);
            done(master, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for (nth, node) in cluster.nodes().enumerate() {
            done(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(nth + 1).to_string()]);
        }
        for (port, bus) in &ports[1..] {
            done(&cluster.masters[0], &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), bus]);
        }
        let known = |node: &RedisServer| info_of_cluster(node).contains("cluster_known_nodes:6\r\n");
        assert!(within(AGREED, || cluster.nodes().all(known)), "not every node knows all others");
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            let id = master.command(&["CLUSTER", "MYID"]).text();
            let replicate = || replica.command(&["CLUSTER", "REPLICATE", &id]) == Reply::Simple("OK".into());
            assert!(within(AGREED, replicate), "it does not become a replica");
        }
        cluster.until_agreed();
        cluster
    }

    /// Some of its nodes, from which the others can be learned.
    pub fn url(&self) -> String {
        format!("redis+cluster://{},{}", self.masters[2].addr(), self.replicas[0].addr())
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The master of a slot.
    pub fn master_of(&self, slot: i64) -> usize {
        usize::from(slot > 5460) + usize::from(slot > 10922)
    }

    fn until_agreed(&self) {
        let good = |node: &RedisServer| info_of_cluster(node).contains("cluster_state:ok\r\n");
        let follows = |node: &RedisServer| info(node, "replication", "master_link_status") == "up";
        // All masters know all replicas, else none of them might take over.
        let all_known = |node: &RedisServer| {
            let told = node.command(&["CLUSTER", "NODES"]).text();
            told.lines().filter(|line| line.contains("slave")).count() == 3
        };
        let agreed =
            || self.nodes().all(good) && self.replicas.iter().all(follows) && self.nodes().all(all_known);
        assert!(within(AGREED, agreed), "the cluster does not come up");
    }
}

fn info_of_cluster(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "INFO"]).text()
}

fn done(server: &RedisServer, words: &[&str]) {
    assert_eq!(server.command(words), Reply::Simple("OK".into()), "{words:?}");
}

/// A master with a replica, and the sentinels that watch over them.
pub struct Sentinels {
    /// The master.
    pub master: RedisServer,
    /// Its replica.
    pub replica: RedisServer,
    /// The sentinels; two of three have to agree.
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts all and waits until every sentinel knows all others and the replica.
    pub fn start() -> Self {
        let quick = words("--repl-diskless-sync-delay 0");
        let master = RedisServer::start_with(|| quick.clone());
        let of = ["--replicaof".to_owned(), format!("127.0.0.1 {}", master.addr().port())];
        let replica = RedisServer::start_with(|| [&quick[..], &of].concat());
        let watched = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 2\nsentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n",
            master.addr().port()
        );
        let sentinels = (0..3).map(|_| RedisServer::sentinel(&watched)).collect();
        let all = Self { master, replica, sentinels };
        let knows = |sentinel: &RedisServer| {
            let told = sentinel.command(&["INFO", "sentinel"]).text();
            told.contains("status=ok") && told.contains("slaves=1,sentinels=3")
        };
        let follows = || info(&all.replica, "replication", "master_link_status") == "up";
        let agreed = within(AGREED, || all.sentinels.iter().all(knows) && follows());
        assert!(agreed, "the sentinels do not agree");
        all
    }

    /// `redis+sentinel://…/mymaster`
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|s| s.addr().to_string()).collect();
        format!("redis+sentinel://{}/mymaster", addresses.join(","))
    }

    /// Whether all sentinels name the replica by now.
    pub fn have_promoted(&self) -> bool {
        let port = self.replica.addr().port().to_string();
        let names = |sentinel: &RedisServer| {
            let told = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
            matches!(told, Reply::Array(pair) if pair.last() == Some(&Reply::Bulk(Some(port.clone().into_bytes()))))
        };
        self.sentinels.iter().all(names) && info(&self.replica, "replication", "role") == "master"
    }
}

/// An authority, and certificates by it, made by `openssl`.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Makes an authority, and a certificate by it for 127.0.0.1.
    pub fn make() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let run = |args: &[&str]| made.openssl(&[args, &key].concat());
        run(&[
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        run(&["req", "-subj", "/CN=redis", "-keyout", "redis.key", "-out", "redis.csr"]);
        std::fs::write(made.0.path().join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        made.openssl(&[
            "x509",
            "-req",
            "-in",
            "redis.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            "1",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "redis.pem",
        ]);
        made
    }

    /// The path of one of its files, such as `ca.pem`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What makes a server speak TLS on another free port, which stands first.
    pub fn args(&self) -> Vec<String> {
        let file = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let port = free_port().to_string();
        let mut args = vec!["--tls-port".to_owned(), port];
        args.extend([
            "--tls-cert-file".to_owned(),
            file("redis.pem"),
            "--tls-key-file".to_owned(),
            file("redis.key"),
        ]);
        args.extend([
            "--tls-ca-cert-file".to_owned(),
            file("ca.pem"),
            "--tls-auth-clients".to_owned(),
            "no".to_owned(),
        ]);
        args
    }

    fn openssl(&self, args: &[&str]) {
        let command =
            Command::new("openssl").args(args).current_dir(self.0.path()).stdin(Stdio::null()).output();
        let output =
            command.expect("the tests need openssl: install it, for example with `apt-get install openssl`");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
