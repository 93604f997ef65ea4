//! Where Redis is: `redis = "redis://…"` in `[cache]`, or a table of it.
//!
//! Knows the forms of URLs that name one server, a socket, the sentinels of one, or nodes of a cluster, and
//! what may stand beside them. What may be a secret is never repeated in a message.
//! Must not know: how any of them is reached.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::address::{host_and_port, mistake};
use super::problems::Found;
use super::reader::{Text, Zero};
use super::section::Section;
use super::units::Mistake;

/// What to write, wherever it is no URL of Redis.
const EXAMPLE: &str = "write such as \"redis://127.0.0.1:6379\"";
/// Sentinels, or nodes of a cluster to begin with, at most.
const MOST: usize = 16;
/// Redis' own port, and its sentinels'.
const PORTS: (u16, u16) = (6379, 26379);

/// Where Redis is, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Where.
    pub place: Place,
    /// Over TLS, the sentinels too.
    pub tls: bool,
    /// The file with the certificates that are trusted; none: those that the system trusts.
    pub ca_file: Option<String>,
    /// What [`Config::read_secrets`](super::Config::read_secrets) has read there, each in DER.
    pub authorities: Vec<Vec<u8>>,
    /// The files with our own certificate and its key, where servers ask for one.
    pub identity_files: Option<(String, String)>,
    /// What was read there.
    pub identity: Option<Identity>,
    /// Who we are there.
    pub login: Login,
    /// The file with the password.
    pub password_file: Option<String>,
    /// Who we are to sentinels.
    pub sentinel_login: Login,
    /// Number of the database; a cluster has one.
    pub database: u32,
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One server.
    Server(Node),
    /// One server's socket, by its path.
    Socket(String),
    /// The server that these sentinels call the master of this name.
    Sentinel {
        /// Some of them, at least one.
        sentinels: Vec<Node>,
        /// The name.
        master: String,
    },
    /// The cluster that these are nodes of, at least one.
    Cluster(Vec<Node>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A name and a password, if any is needed. The password is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// None: the default user.
    pub user: Option<String>,
    /// None: nothing is said of who we are.
    pub password: Option<String>,
}

impl Login {
    /// A user shows a password.
    const fn is_whole(&self) -> bool {
        self.user.is_none() || self.password.is_some()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Login").field("user", &self.user).field("password", &password).finish()
    }
}

/// A certificate, and the key that proves it to be ours. The key is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those up to its authority, each in DER.
    pub chain: Vec<Vec<u8>>,
    /// The key, in PEM.
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates, …)", self.chain.len())
    }
}

impl Redis {
    fn at(place: Place, tls: bool) -> Self {
        let (login, sentinel_login) = (Login::default(), Login::default());
        let (ca_file, authorities, password_file, database) = (None, Vec::new(), None, 0);
        let (identity_files, identity) = (None, None);
        Self {
            place,
            tls,
            ca_file,
            authorities,
            identity_files,
            identity,
            login,
            password_file,
            sentinel_login,
            database,
        }
    }

    /// The same without its passwords and where they stand, which may change at any time.
    pub(super) fn but_for_passwords(&self) -> Self {
        let without = |login: &Login| Login { password: None, ..login.clone() };
        let (login, sentinel_login) = (without(&self.login), without(&self.sentinel_login));
        Self { login, sentinel_login, password_file: None, ..self.clone() }
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that does not repeat the URL: it may hold a password.
    pub fn from_url(text: &str) -> Result<Self, String> {
        url(text).and_then(with_password).map_err(|mistake| format!("{}: {}", mistake.message, mistake.help))
    }
}

/// `redis`, a URL or a table.
pub(super) fn read(section: &mut Section<'_>) -> Option<Redis> {
    let value = section.value("redis")?;
    if value.get_ref().as_table().is_some() {
        let table = section.section_of("redis", value)?;
        return of_table(table);
    }
    let text = section.reader.text(value)?;
    unshown(section, &text, url(&text.value).and_then(with_password))
}

/// A user without a password would be nobody: Redis would take us for its default user.
fn with_password(redis: Redis) -> Result<Redis, Mistake> {
    if redis.login.is_whole() { Ok(redis) } else { mistake(USER_ALONE.0, USER_ALONE.1) }
}

const USER_ALONE: (&str, &str) = (
    "a user of Redis has a password",
    "write it behind the user, such as user:${PASSWORD}@, or leave out the user",
);

/// A value that may be secret: a mistake does not repeat it.
fn unshown<T>(section: &Section<'_>, text: &Text, read: Result<T, Mistake>) -> Option<T> {
    let told = |m: Mistake| section.reader.report(Found::new(text.span.clone(), m.message).help(m.help));
    read.map_err(told).ok()
}

/// What is wrong in it has been told; then the result counts for nothing.
fn of_table(mut section: Section<'_>) -> Option<Redis> {
    let redis = place(&mut section);
    let redis = redis.map(|redis| beside(&mut section, redis));
    section.finish();
    redis
}

/// `url`, `sentinels` and `master`, or `cluster`.
fn place(section: &mut Section<'_>) -> Option<Redis> {
    let (url_text, master) = (section.text("url"), section.text("master"));
    let (sentinels, cluster) = (section.texts("sentinels"), section.texts("cluster"));
    let named = [url_text.is_some(), sentinels.is_some(), cluster.is_some()];
    if named.into_iter().filter(|named| *named).count() != 1 {
        let found = Found::new(section.span.clone(), "it is not said where Redis is, once");
        section.reader.report(found.help("write one of `url`, `sentinels` and `cluster`"));
        return None;
    }
    if let (Some(text), None) = (&master, &sentinels) {
        section.reader.refuse(
            text,
            "only sentinels know a master by its name",
            "write `sentinels` beside it",
        );
    }
    if let Some(text) = url_text {
        return unshown(section, &text, url(&text.value));
    }
    if let Some(list) = cluster {
        return nodes(section, "cluster", &list, PORTS.0)
            .map(|nodes| Redis::at(Place::Cluster(nodes), false));
    }
    let sentinels = nodes(section, "sentinels", &sentinels.unwrap_or_default(), PORTS.1);
    let Some(master) = master else {
        section.missing("master", "write the name that the sentinels know it by, such as \"mymaster\"");
        return None;
    };
    let name = section.reader.or_refuse(&master, master_name(&master.value));
    Some(Redis::at(Place::Sentinel { sentinels: sentinels?, master: name? }, false))
}

fn nodes(section: &Section<'_>, key: &str, list: &[Text], port: u16) -> Option<Vec<Node>> {
    if list.is_empty() || list.len() > MOST {
        let span = section.span_of(key).unwrap_or_else(|| section.span.clone());
        let found = Found::new(span, format!("from 1 to {MOST} of them"));
        section.reader.report(found.help(format!("write such as [\"127.0.0.1:{port}\"]")));
        return None;
    }
    let read = |text: &Text| section.reader.or_refuse(text, node(&text.value, port));
    // All of them, so that every mistake is told.
    let nodes: Vec<_> = list.iter().map(read).collect();
    nodes.into_iter().collect()
}

/// Who we are, the database, and TLS.
fn beside(section: &mut Section<'_>, mut redis: Redis) -> Redis {
    let url_password = redis.login.password.is_some();
    let user = plain(section, "user");
    let password = plain(section, "password");
    redis.password_file = whole_path(section, "password_file", "/etc/larder/redis.password");
    let several = [url_password, password.is_some(), redis.password_file.is_some()];
    if several.into_iter().filter(|given| *given).count() > 1 {
        let found = Found::new(section.span.clone(), "the password is given more than once");
        section.reader.report(found.help("write it in the URL, as `password`, or in `password_file`"));
    }
    redis.login.user = user.or(redis.login.user);
    redis.login.password = password.or(redis.login.password);
    // One that cannot be read has been told of.
    let has = |name| section.span_of(name).is_some();
    if !redis.login.is_whole() && !has("password") && !has("password_file") {
        let span = section.span_of("user").unwrap_or_else(|| section.span.clone());
        let found = Found::new(span, USER_ALONE.0);
        section
            .reader
            .report(found.help("write `password` or `password_file` beside it, or leave out the user"));
    }
    redis.sentinel_login =
        Login { user: plain(section, "sentinel_user"), password: plain(section, "sentinel_password") };
    if !matches!(redis.place, Place::Sentinel { .. }) && redis.sentinel_login != Login::default() {
        let found = Found::new(section.span.clone(), "there are no sentinels to say that to");
        section.reader.report(found.help("leave out `sentinel_user` and `sentinel_password`"));
    }
    if let (false, false, Some(span)) = (
        redis.sentinel_login.is_whole(),
        section.span_of("sentinel_password").is_some(),
        section.span_of("sentinel_user"),
    ) {
        let help = "write `sentinel_password` beside it, or leave out the user";
        section.reader.report(Found::new(span, "a user of sentinels has a password").help(help));
    }
    redis.database = section.count("database", redis.database, 0..=999_999_999);
    if let (Some(span), Place::Cluster(_)) = (section.span_of("database"), &redis.place)
        && redis.database > 0
    {
        section.reader.report(Found::new(span, "a cluster has one database").help("leave it out"));
    }
    let by_url = redis.tls;
    redis.tls = section.flag("tls", by_url);
    if let Some(span) = section.span_of("tls").filter(|_| by_url && !redis.tls) {
        // Not the one of the two that would send the password in the clear.
        let found = Found::new(span, "the URL says that TLS is spoken");
        section.reader.report(found.help("leave out `tls`, or write redis:// in the URL"));
    }
    redis.ca_file = whole_path(section, "ca_file", "/etc/larder/redis-ca.pem");
    if let Some(span) = section.span_of("ca_file").filter(|_| !redis.tls) {
        let found = Found::new(span, "without TLS nobody shows a certificate");
        section.reader.report(found.help("write rediss://, or tls = true"));
    }
    redis.identity_files = identity_files(section, redis.tls);
    if let Some(span) =
        section.span_of("tls").filter(|_| redis.tls && matches!(redis.place, Place::Socket(_)))
    {
        section.reader.report(Found::new(span, "no TLS is spoken over a local socket").help("leave it out"));
    }
    redis
}

/// Our own certificate and its key.
fn identity_files(section: &mut Section<'_>, tls: bool) -> Option<(String, String)> {
    let certificate = whole_path(section, "cert_file", "/etc/larder/redis-client.pem");
    let key = whole_path(section, "key_file", "/etc/larder/redis-client.key");
    let (of_certificate, of_key) = (section.span_of("cert_file"), section.span_of("key_file"));
    let one_alone = of_certificate.is_some() != of_key.is_some();
    if let Some(span) = of_certificate.or(of_key) {
        if !tls {
            let found = Found::new(span, "without TLS nobody asks for a certificate");
            section.reader.report(found.help("write rediss://, or tls = true"));
        } else if one_alone {
            let found = Found::new(span, "a certificate and its key are worth nothing without each other");
            section.reader.report(found.help("write both `cert_file` and `key_file`"));
        }
    }
    certificate.zip(key)
}

/// A name or a password: not empty. Its value is never repeated in a message.
fn plain(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.text(key)?;
    if text.value.is_empty() || text.value.contains(char::is_control) {
        let found = Found::new(text.span, "empty, or with a control character in it");
        section.reader.report(found.help("leave it out where Redis asks for none"));
        return None;
    }
    Some(text.value)
}

/// A file by its whole path. It is read where the configuration is put into force.
pub(super) fn whole_path(section: &mut Section<'_>, key: &'static str, such_as: &str) -> Option<String> {
    let text = section.text(key)?;
    if !text.value.starts_with('/') {
        let help = format!("write it from the root on, such as \"{such_as}\"");
        // Not by `refuse`: where the secret itself stands in the environment, it would be repeated.
        section.reader.report(Found::new(text.span, "a file is named by its whole path").help(help));
        return None;
    }
    Some(text.value)
}

/// `redis_lease`: the time of a lease.
pub(super) fn lease(section: &mut Section<'_>, default: Duration) -> Duration {
    let off = Zero::Refused("write fleet_collapse = false on the routes instead");
    let lease = section.duration("redis_lease", default, off);
    let (shortest, longest) = (Duration::from_millis(300), Duration::from_secs(60));
    if !lease.is_zero()
        && !(shortest..=longest).contains(&lease)
        && let Some(span) = section.span_of("redis_lease")
    {
        let found = Found::new(span, "too short to be prolonged in time, or longer than anybody waits");
        section.reader.report(found.help("write between \"300ms\" and \"1m\", such as \"3s\""));
    }
    lease
}

/// `namespace`: what all keys begin with.
pub(super) fn namespace(section: &mut Section<'_>, default: String) -> String {
    let Some(text) = section.text("namespace") else { return default };
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=32).contains(&text.value.len()) && text.value.bytes().all(fine) {
        return text.value;
    }
    let help = "write 1 to 32 letters, digits, - and _, such as \"larder\"";
    section.reader.refuse(&text, "not the name of a namespace", help);
    default
}

/// `scheme://[user:password@]host[:port][,host[:port]…][/master][/database]`, or `unix:///path`.
fn url(text: &str) -> Result<Redis, Mistake> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return mistake("Redis is given as a URL", EXAMPLE);
    };
    let (scheme, way) = scheme.split_once('+').unwrap_or((scheme, ""));
    let tls = match (scheme, way) {
        ("redis" | "valkey", "unix") | ("unix", "") => return socket(rest),
        ("redis" | "valkey", "" | "sentinel" | "cluster") => false,
        ("rediss" | "valkeys", "" | "sentinel" | "cluster") => true,
        _ => return mistake("not a scheme of Redis", EXAMPLE),
    };
    if rest.contains(['?', '#']) {
        return mistake(
            "a Redis URL ends with its database",
            "leave out ? and #; in a password write %3F and %23",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (read_login(login)?, hosts),
        None => (Login::default(), authority),
    };
    let (master, database) = match way {
        "sentinel" => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            (Some(master_name(master)?), database)
        }
        _ => (None, path),
    };
    let port = if way == "sentinel" { PORTS.1 } else { PORTS.0 };
    // With a stray / or @ in it, a password can end up where the host should be: not repeated.
    let unshown = |m: Mistake| Mistake { message: "not a Redis server's host and port".into(), ..m };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > MOST {
        return mistake(format!("more than {MOST} servers"), "name some of them; the others are learned");
    }
    let mut nodes = Vec::with_capacity(hosts.len());
    for host in hosts {
        nodes.push(node(host, port).map_err(|m| if m.help == WILDCARD { m } else { unshown(m) })?);
    }
    let place = match (way, master, nodes.len()) {
        ("sentinel", Some(master), _) => Place::Sentinel { sentinels: nodes, master },
        ("cluster", _, _) => Place::Cluster(nodes),
        (_, _, 1) => Place::Server(nodes.remove(0)),
        _ => {
            let help = "write redis+cluster:// for the nodes of a cluster, redis+sentinel:// for sentinels";
            return mistake("one Redis server is named here", help);
        }
    };
    let database = database_number(database)?;
    if database > 0 && matches!(place, Place::Cluster(_)) {
        return mistake("a cluster has one database", "leave out what stands behind the hosts");
    }
    Ok(Redis { login, database, ..Redis::at(place, tls) })
}

fn socket(path: &str) -> Result<Redis, Mistake> {
    if !path.starts_with('/') || path.len() < 2 {
        return mistake(
            "a socket is given by its whole path",
            "write such as \"unix:///run/redis/redis.sock\"",
        );
    }
    if path.contains(['?', '#']) {
        return mistake("only a path stands here", "leave out ? and #");
    }
    Ok(Redis::at(Place::Socket(path.to_owned()), false))
}

const WILDCARD: &str = "write the server's own, such as 127.0.0.1";

fn node(text: &str, default: u16) -> Result<Node, Mistake> {
    let (host, port) = host_and_port(text)?;
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return mistake("nothing can connect to a wildcard address", WILDCARD);
    }
    Ok(Node { host, port: port.unwrap_or(default) })
}

fn master_name(text: &str) -> Result<String, Mistake> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    mistake(
        "sentinels know a master by a name of letters, digits, ., - and _",
        "write such as \"redis+sentinel://127.0.0.1:26379/mymaster\"",
    )
}

fn database_number(text: &str) -> Result<u32, Mistake> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => mistake("a Redis database is a number", "write such as /0 at the end, or nothing"),
    }
}

/// `user:password`, `:password` or `user`, percent-encoded.
fn read_login(text: &str) -> Result<Login, Mistake> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let decoded = |text: &str| if text.contains('@') { None } else { percent_decoded(text) };
    let (Some(user), Some(password)) = (decoded(user), password.map_or(Some(None), |p| decoded(p).map(Some)))
    else {
        return mistake(
            "the password cannot be read",
            "percent-encode it: @ is %40, / is %2F, : is %3A, % is %25",
        );
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Login { user: given(user), password: password.and_then(given) })
}

/// What remains UTF-8 once decoded, of text without stray `%` or control characters.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit =
            || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (high, low) = (digit()?, digit()?);
        decoded.push(high * 16 + low);
    }
    String::from_utf8(decoded).ok().filter(|_| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{parse, with_rest};
    use super::*;

    fn at(host: &str, port: u16) -> Node {
        Node { host: host.into(), port }
    }

    fn login(user: Option<&str>, password: Option<&str>) -> Login {
        Login { user: user.map(str::to_owned), password: password.map(str::to_owned) }
    }

    #[test]
    fn a_url_says_where_and_as_whom() {
        let server = |host: &str, port| Place::Server(at(host, port));
        let sentinel =
            |sentinels: &[Node]| Place::Sentinel { sentinels: sentinels.to_vec(), master: "m".into() };
        let rows = [
            ("redis://127.0.0.1:6380", server("127.0.0.1", 6380), false, login(None, None), 0),
            ("redis://db", server("db", 6379), false, login(None, None), 0),
            ("redis://:p%40ss@db/3", server("db", 6379), false, login(None, Some("p@ss")), 3),
            ("redis://user:pa:ss@[::1]:1/", server("::1", 1), false, login(Some("user"), Some("pa:ss")), 0),
            ("valkey://db:1", server("db", 1), false, login(None, None), 0),
            ("rediss://db", server("db", 6379), true, login(None, None), 0),
            ("unix:///run/redis.sock", Place::Socket("/run/redis.sock".into()), false, login(None, None), 0),
            ("redis+sentinel://a/m", sentinel(&[at("a", 26379)]), false, login(None, None), 0),
            (
                "rediss+sentinel://u:p@a:1,b/m/2",
                sentinel(&[at("a", 1), at("b", 26379)]),
                true,
                login(Some("u"), Some("p")),
                2,
            ),
            (
                "redis+cluster://:p@a,b:7000",
                Place::Cluster(vec![at("a", 6379), at("b", 7000)]),
                false,
                login(None, Some("p")),
                0,
            ),
        ];
        for (text, place, tls, login, database) in rows {
            let want = Redis { login, database, ..Redis::at(place, tls) };
            assert_eq!(url(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_redis_is_refused_and_never_repeated() {
        let many = format!("redis+cluster://{}", ["a"; 17].join(","));
        let bad = [
            ("127.0.0.1:6379", "Redis is given as a URL"),
            ("redis-cluster://db", "not a scheme of Redis"),
            ("unix+sentinel:///a/m", "not a scheme of Redis"),
            ("redis://a:1,b:1", "one Redis server is named here"),
            (&many, "more than 16 servers"),
            ("http://db", "not a scheme of Redis"),
            ("redis://db/x", "a Redis database is a number"),
            ("redis+sentinel://db", "sentinels know a master by a name of letters, digits, ., - and _"),
            ("redis+sentinel://db/m/x", "a Redis database is a number"),
            ("redis+cluster://db/1", "a cluster has one database"),
            ("redis://db/0?protocol=resp3", "a Redis URL ends with its database"),
            ("redis://:p@ss@db", "the password cannot be read"),
            ("redis://user@db", "a user of Redis has a password"),
            ("redis://user:@db", "a user of Redis has a password"),
            ("redis+cluster://user@a,b", "a user of Redis has a password"),
            ("redis://:100%@db", "the password cannot be read"),
            ("redis://:%ff@db", "the password cannot be read"),
            ("redis://0.0.0.0", "nothing can connect to a wildcard address"),
            ("redis://", "not a Redis server's host and port"),
            ("redis://pass!word/@db", "not a Redis server's host and port"),
            ("unix://run/redis.sock", "a socket is given by its whole path"),
            ("unix:///run/redis.sock?db=1", "only a path stands here"),
        ];
        for (text, want) in bad {
            assert_eq!(url(text).and_then(with_password).unwrap_err().message, want, "{text}");
        }
    }

    fn table(rest: &str) -> Redis {
        parse(&with_rest(&format!("[cache.redis]\n{rest}")))
            .unwrap_or_else(|p| panic!("{p}"))
            .cache
            .redis
            .unwrap()
    }

    #[test]
    fn a_table_says_the_same_and_more() {
        assert_eq!(table("url = \"rediss://db/2\"\n"), url("rediss://db/2").unwrap());
        let sentinel = table("sentinels = [\"a\", \"b:1\"]\nmaster = \"m\"\ndatabase = 2\ntls = true\n");
        assert_eq!(sentinel, url("rediss+sentinel://a,b:1/m/2").unwrap());
        let cluster = table("cluster = [\"a\", \"b:7000\"]\nuser = \"u\"\npassword = \"${PASSWORD}\"\n");
        assert_eq!((&cluster.place, cluster.tls), (&url("redis+cluster://a,b:7000").unwrap().place, false));
        assert_eq!(cluster.login.user.as_deref(), Some("u"));
        assert!(cluster.login.password.as_deref().unwrap().contains("hunter"));
        assert!(!format!("{cluster:?}").contains("hunter"), "{cluster:?}");
        let files = table("url = \"rediss://db\"\npassword_file = \"/p\"\nca_file = \"/ca\"\n");
        assert_eq!((files.password_file.as_deref(), files.ca_file.as_deref()), (Some("/p"), Some("/ca")));
        let apart = table("url = \"redis://larder@db\"\npassword_file = \"/p\"\n");
        assert_eq!(
            (apart.login.user.as_deref(), apart.password_file.as_deref()),
            (Some("larder"), Some("/p"))
        );
        let sentinel =
            table("sentinels = [\"a\"]\nmaster = \"m\"\nsentinel_user = \"x\"\nsentinel_password = \"y\"\n");
        assert_eq!(sentinel.sentinel_login, login(Some("x"), Some("y")));
    }

    #[test]
    fn what_is_wrong_in_a_table_is_told() {
        let rows = [
            ("user = \"u\"", "it is not said where Redis is, once"),
            ("url = \"redis://a\"\ncluster = [\"b\"]", "it is not said where Redis is, once"),
            ("cluster = []", "from 1 to 16 of them"),
            ("cluster = [\"a b\"]", "`a b` is not a host"),
            ("cluster = [\"0.0.0.0\"]", "nothing can connect to a wildcard address"),
            ("sentinels = [\"a\"]", "`cache.redis.master` is missing"),
            ("sentinels = [\"a\"]\nmaster = \"a b\"", "sentinels know a master by a name"),
            ("url = \"redis://a\"\nmaster = \"m\"", "only sentinels know a master by its name"),
            ("url = \"redis://:p@a\"\npassword_file = \"/p\"", "the password is given more than once"),
            (
                "url = \"redis://a\"\npassword = \"p\"\npassword_file = \"/p\"",
                "the password is given more than once",
            ),
            ("url = \"redis://a\"\npassword = \"\"", "empty, or with a control character in it"),
            ("url = \"redis://a\"\nsentinel_password = \"p\"", "there are no sentinels to say that to"),
            ("url = \"redis://a\"\nca_file = \"/ca\"", "without TLS nobody shows a certificate"),
            ("url = \"redis://a\"\ncert_file = \"/c\"\nkey_file = \"/k\"", "without TLS nobody asks"),
            ("url = \"rediss://a\"\nkey_file = \"/k\"", "write both `cert_file` and `key_file`"),
            ("url = \"rediss://a\"\nca_file = \"ca\"", "a file is named by its whole path"),
            ("url = \"rediss://a\"\ntls = false", "the URL says that TLS is spoken"),
            ("url = \"redis://user@a\"", "a user of Redis has a password"),
            ("url = \"redis://a\"\nuser = \"u\"", "a user of Redis has a password"),
            (
                "sentinels = [\"a\"]\nmaster = \"m\"\nsentinel_user = \"u\"",
                "a user of sentinels has a password",
            ),
            ("url = \"unix:///a\"\ntls = true", "no TLS is spoken over a local socket"),
            ("cluster = [\"a\"]\ndatabase = 1", "a cluster has one database"),
            ("url = \"redis://a\"\ninsecure = true", "unknown key `insecure`"),
        ];
        for (text, want) in rows {
            let told = parse(&with_rest(&format!("[cache.redis]\n{text}\n"))).unwrap_err().to_string();
            assert!(told.contains(want), "{text}\n{told}");
        }
        let told =
            parse(&with_rest("[cache.redis]\nurl = \"redis://:${PASSWORD}@a b\"\n")).unwrap_err().to_string();
        assert!(!told.contains("hunter"), "{told}");
    }

    #[test]
    fn a_namespace_is_a_short_name() {
        let of = |name: &str| parse(&with_rest(&format!("[cache]\nnamespace = \"{name}\"\n")));
        assert_eq!(of("eu-1_b").unwrap().cache.namespace, "eu-1_b");
        for name in ["", "a:b", "a{b}", "a*", "é", &"a".repeat(33)] {
            assert!(of(name).unwrap_err().to_string().contains("not the name of a namespace"), "{name}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        assert_eq!(
            (at("db", 1).to_string().as_str(), at("::1", 2).to_string().as_str()),
            ("db:1", "[::1]:2")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(rediss?|unix)?(\\+(sentinel|cluster))?(://)?[\\[\\]@:/%a-f0-9.,]{0,16}|.{0,24}") {
            let _ = url(&text);
        }
    }
}
