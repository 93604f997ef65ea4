//! The command line: what may be written, and what `--help` says about it.
//!
//! Knows the forms of arguments. Parsing is pure: no file, no environment, no socket.
//! Must not know: what the commands do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Lint;

/// Where the public listener is unless told otherwise.
pub const LISTEN: &str = "127.0.0.1:8080";
/// Where the admin listener is unless told otherwise.
pub const ADMIN: &str = "127.0.0.1:9900";

/// Heading over what goes with `--to`.
const NO_FILE: &str = "In front of one API, without a file";

const EXAMPLES: &str = "\
Examples:
  larder demo                               see it work, with a sample API
  larder run --to http://127.0.0.1:3000     in front of an existing API, now
  larder run --to http://127.0.0.1:3000 --ttl 60s --print-config > proxy.toml
  larder run                                with ./proxy.toml
  larder check /etc/larder/proxy.toml       before a restart
  larder reload                             read ./proxy.toml anew, without one
  larder top                                watch the one with ./proxy.toml
  larder top --admin 127.0.0.1:9900         watch one that has no file
  larder purge --tag products               what has this tag is fetched anew
  larder explain GET /users/7               what would become of it, and why

Exit codes:
   0  done, or stopped as asked after requests in flight were finished
   1  something failed while running
   2  wrong arguments
  69  a listener cannot be bound: the address is in use or not allowed;
      or the Larder (or Redis) that is to be asked does not answer
  77  the Larder that is to be asked does not take the admin_token
  78  the configuration is missing or wrong, or takes a restart";

const RUN_EXAMPLES: &str = "\
Without -c and --to, the file is looked for in this order:
  1. $LARDER_CONFIG, where set
  2. ./proxy.toml
  3. /etc/larder/proxy.toml

Examples:
  larder run -c proxy.toml
  larder run --to http://127.0.0.1:3000
  larder run --to http://127.0.0.1:3000 --ttl 60s --redis redis://127.0.0.1:6379
  larder run --to http://127.0.0.1:3000 --print-config > proxy.toml

SIGTERM or Ctrl-C: requests in flight are finished, then it exits with 0; a
second one ends it at once, with 1, and cuts them off.
SIGHUP: the file is read anew, as by `larder reload`.";

const CHECK_EXAMPLES: &str = "\
Every problem is shown at once, each with its line. Exits with 0 where there is
none and with 78 where there is one; what works and is dangerous, or does
nothing, is a warning, and makes it 78 only with --deny warnings. Each warning
has a name, by which --allow lets it pass. Without a file it is looked for as
`larder run` does.

Examples:
  larder check proxy.toml
  larder check -c proxy.toml    the same
  larder check --deny warnings  in a pipeline that is to fail by them
  larder check --deny warnings --allow cached-post,ignored-cookies";

/// How each command that asks a running Larder is told which.
macro_rules! which_larder {
    () => {
        "\
Which Larder: the one whose admin address the file has, with its `admin_token`.
Without a file it is looked for as `larder run` does. A Larder without a file is
named by its address, such as --admin 127.0.0.1:9900; its token, if it has one,
is taken from $LARDER_ADMIN_TOKEN, or from a file that is named, too. One that
is not taken there makes the exit code 77.
"
    };
}

const RELOAD_EXAMPLES: &str = concat!(
    "\
The running Larder reads its own file anew, as on SIGHUP. What is wrong with it,
or takes a restart, is shown in whole; then nothing of it has come into force.
Requests in flight end under the configuration that they began with; what is
stored stays.

",
    which_larder!(),
    "
Exits with 0 where the file is in force, with 78 where it is wrong or takes a
restart, with 69 where no Larder answers, and with 1 where the one that answers
has read another file than this."
);

const PURGE_EXAMPLES: &str = concat!(
    "\
Everything that is named is purged in one request: 1,024 names at most.

",
    which_larder!(),
    "
Examples:
  larder purge --tag products --tag users
  larder purge --url https://example.org/users/1
  larder purge --prefix '/products/*'
  larder purge --prefix 'https://example.org/products/*' --soft
  larder purge --route users
  larder purge --all

Exits with 0 where it is purged; with 1 where it is not, or not everywhere, and
says which; with 2 where nothing is named; with 69 where no Larder answers; with
78 where the file is wrong or names no admin listener."
);
const STATUS_EXAMPLES: &str = concat!(
    "\
Tells whether the running Larder is ready, whether it hears of purges, its
Redis, its memory, and which nodes share that Redis.

",
    which_larder!(),
    "
Exits with 0 where all is well; with 1 where it is not ready, does not hear of
purges or is without its Redis, and says which; with 69 where no Larder answers;
with 78 where the file is wrong or names no admin listener."
);
const TOP_EXAMPLES: &str = concat!(
    "\
Shows, each second, hit ratios over the last minute, 10 minutes and hour, and
for each route what its misses are due to: the route that misses most first.
The figures are those of `GET /stats` (docs/stats.md).

",
    which_larder!(),
    "
Examples:
  larder top                    with ./proxy.toml
  larder top --admin 127.0.0.1:9900
  larder top --once             once, as text, of a second
  larder top --once --json      for programs

Ends with Ctrl-C. Exits with 69 where no Larder answers (any more), and with 78
where the file is wrong or names no admin listener."
);
const SLOW_EXAMPLES: &str = concat!(
    "\
Shows the last requests that took longer than `timing.slow_request`, or than
`slow_request` of their route, and where their time went (ms). Values that the
log does not show are not shown here either.

",
    which_larder!(),
    "
Examples:
  larder slow                   the last 20
  larder slow --tail            and those that come
  larder slow -n 0 --tail       those that come alone
  larder slow --tail --json     for programs, one JSON object a line

With --tail it ends with Ctrl-C. Exits with 69 where no Larder answers (any
more), and with 78 where the file is wrong or names no admin listener."
);
const EXPLAIN_EXAMPLES: &str = concat!(
    "\
Asks the running Larder, without doing any of it: which route takes the request,
how its key comes about, what each tier holds, what would become of it and by
which clause, and what would make it a hit. The configuration in force judges,
or, where one is named with -c, that file. Values of cookies and credentials are
not shown.

",
    which_larder!(),
    "
Examples:
  larder explain GET '/users/7?utm_source=x&b=2&a=1' -H 'Host: api.test'
  larder explain https://api.test/users/7 -H 'Cookie: s=1' --json
  larder explain --config new.toml GET /users/7

Exits with 0 where it is told, with 1 where that Larder refuses, with 69 where
no Larder answers, with 78 where the file is wrong."
);
const AUDIT_EXAMPLES: &str = "\
Walks through all keys of `cache.namespace`, on every master of a cluster, in
small steps; nothing else is looked at, and nothing is written. Some records are
read to tell which route they are of. It asks Redis itself, no running Larder.
Without a file it is looked for as `larder run` does. Of a Larder without a file
(`larder run --to`) name the Redis.

Examples:
  larder redis audit            of ./proxy.toml
  larder redis audit --redis redis://127.0.0.1:6379

Exits with 0 where every key expires, with 1 where one does not, with 69 where
Redis cannot be reached, with 78 where the file is wrong or has no Redis.";

const SIMULATE_EXAMPLES: &str = "\
Replays the requests of a log through the keys, rules and lifetimes of the file,
and through its memory tier, and shows per route the hit ratio and the requests
to the origin: as the log has them (now), and as they would be (then). At
several sizes of memory, too, up to what would hold everything.

The log is Larder's own (`log.access = \"json\"`), which says how long responses
are fresh, or nginx's combined format, which does not. Lines that are neither
are counted, and the first of them shown. Without -c the file is looked for as
`larder run` does. Nothing is asked and nothing is changed.

Examples:
  larder simulate --log access.jsonl
  larder simulate --log access.jsonl --config new.toml
  larder simulate --log nginx.log --host api.example.org --json

Exits with 1 where the log cannot be read or has no request, with 78 where the
file is wrong, or both are.";

const DEMO_EXAMPLES: &str = "\
Starts a small users API, Larder in front of it, and prints what to try.
A port that is in use is replaced by a free one. No Redis is needed.

What --print-config prints has every setting. Where the demo's value is not the
default, the line says what that is.

Examples:
  larder demo
  larder demo --redis redis://127.0.0.1:6379
  larder demo --print-config > reference.toml";

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "larder",
    version,
    about = "A caching reverse proxy with two tiers: memory, and a Redis that a fleet shares",
    after_help = EXAMPLES,
    arg_required_else_help = true
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve, with a configuration file or in front of one API
    Run(Run),
    /// Check a configuration file and show every problem with its line
    Check(Check),
    /// Have a running Larder read its configuration file anew
    Reload(Reload),
    /// Have a running Larder purge what it has stored
    Purge(Purge),
    /// Ask a running Larder how it is, and who else is in its fleet
    Status(Status),
    /// Watch what a running Larder answers from its cache, by route
    Top(Top),
    /// Show which requests were slow, and where their time went
    Slow(Slow),
    /// Ask a running Larder what would become of a request, and why
    Explain(Explain),
    /// Look into the Redis that a fleet shares
    #[command(arg_required_else_help = true)]
    Redis {
        /// What to do there
        #[command(subcommand)]
        of: OfRedis,
    },
    /// Replay a log: what would another configuration make of it
    Simulate(Simulate),
    /// Show it at work: a sample API with Larder in front of it
    Demo(Demo),
}

/// `larder run`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = RUN_EXAMPLES)]
#[command(override_usage = "larder run [FILE]\n       larder run --to URL [OPTIONS]")]
pub struct Run {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", conflicts_with = "to")]
    pub config: Option<PathBuf>,
    /// The same, without -c
    #[arg(value_name = "FILE", hide = true, conflicts_with_all = ["config", "to"])]
    pub file: Option<PathBuf>,
    /// The API's URL, such as http://127.0.0.1:3000
    #[arg(long, value_name = "URL", value_parser = origin, help_heading = NO_FILE)]
    pub to: Option<String>,
    /// Address to serve on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = address, help_heading = NO_FILE)]
    #[arg(requires = "to", conflicts_with_all = ["config", "file"])]
    pub listen: Option<SocketAddr>,
    /// Dashboard, metrics, purges [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR", value_parser = address, help_heading = NO_FILE)]
    #[arg(requires = "to", conflicts_with_all = ["config", "file"])]
    pub admin: Option<SocketAddr>,
    /// Keep what says nothing about caching so long, as 60s
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = NO_FILE)]
    #[arg(requires = "to", conflicts_with_all = ["config", "file"])]
    pub ttl: Option<String>,
    /// Share the cache through the Redis at this URL
    #[arg(long, value_name = "URL", value_parser = redis, help_heading = NO_FILE)]
    #[arg(requires = "to", conflicts_with_all = ["config", "file"])]
    pub redis: Option<String>,
    /// Print the proxy.toml that this amounts to; do not serve
    #[arg(long, help_heading = NO_FILE)]
    #[arg(requires = "to", conflicts_with_all = ["config", "file"])]
    pub print_config: bool,
}

/// `larder check`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = CHECK_EXAMPLES, override_usage = "larder check [FILE] [--deny warnings [--allow NAME]…]")]
pub struct Check {
    /// The same, as an option
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Configuration file, if not the one that is found
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Exit with 78 where there is one of these, too
    #[arg(long, value_name = "WHAT")]
    pub deny: Option<Deny>,
    /// Do not tell of warnings with this name (their `= name:` line)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = lint)]
    pub allow: Vec<Lint>,
}

/// What is taken for a mistake that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Deny {
    /// What works, and is dangerous or does nothing
    Warnings,
}

/// How a running Larder is named without its file.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct At {
    /// Ask the Larder with this admin address; needs no file
    #[arg(long, value_name = "ADDR", value_parser = admin_address)]
    pub admin: Option<SocketAddr>,
}

/// `larder reload`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = RELOAD_EXAMPLES, override_usage = "larder reload [FILE | --admin ADDR]")]
pub struct Reload {
    /// The same, as an option
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Configuration file, if not the one that is found
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
}

/// `larder status`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = STATUS_EXAMPLES)]
#[command(override_usage = "larder status [FILE | --admin ADDR] [--json]")]
pub struct Status {
    /// Configuration file of the Larder to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The same, without -c
    #[arg(value_name = "FILE", hide = true, conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `larder top`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = TOP_EXAMPLES)]
#[command(override_usage = "larder top [FILE | --admin ADDR] [--once] [--json]")]
pub struct Top {
    /// Configuration file of the Larder to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The same, without -c
    #[arg(value_name = "FILE", hide = true, conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
    /// Show them once, after a second of looking, and end
    #[arg(long)]
    pub once: bool,
    /// For programs: one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `larder slow`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = SLOW_EXAMPLES)]
#[command(override_usage = "larder slow [FILE | --admin ADDR] [--tail] [-n COUNT] [--json]")]
pub struct Slow {
    /// Configuration file of the Larder to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The same, without -c
    #[arg(value_name = "FILE", hide = true, conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
    /// Go on, and show each that comes
    #[arg(short = 'f', long)]
    pub tail: bool,
    /// Show so many of the last ones
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub lines: usize,
    /// For programs: one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `larder purge`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = PURGE_EXAMPLES)]
#[command(override_usage = "larder purge --tag TAG | --url URL | --all | … [OPTIONS]")]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub struct Purge {
    /// Configuration file of the Larder to ask
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
    /// What is named without saying what it is: refused, and told how to say it
    #[arg(value_name = "NAME", hide = true, value_parser = unsaid)]
    pub unsaid: Vec<Infallible>,
    /// Whatever the origin or its route has given this tag
    #[arg(long, value_name = "TAG", group = "what")]
    pub tag: Vec<String>,
    /// This URL, as clients ask for it
    #[arg(long, value_name = "URL", group = "what")]
    pub url: Vec<String>,
    /// Whatever has a path that begins so: '/products/*'
    #[arg(long, value_name = "PREFIX", group = "what")]
    pub prefix: Vec<String>,
    /// Whatever this [[route]] of the file has stored
    #[arg(long, value_name = "NAME", group = "what")]
    pub route: Vec<String>,
    /// Everything that is stored
    #[arg(long, group = "what")]
    pub all: bool,
    /// Keep it, but have the origin confirm it first
    #[arg(long)]
    pub soft: bool,
    /// Wait so long at most, such as 2s, for all nodes
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<String>,
}

/// `larder explain`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES, allow_missing_positional = true)]
#[command(override_usage = "larder explain [METHOD] TARGET [-H FIELD]… [OPTIONS]")]
pub struct Explain {
    /// Judge by this file, not by the configuration in force
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its address, in place of the file's
    #[command(flatten)]
    pub at: At,
    /// Method [default: GET]
    #[arg(value_name = "METHOD")]
    pub method: Option<String>,
    /// Path and query, or an absolute URL
    #[arg(value_name = "TARGET", required = true)]
    pub target: String,
    /// A field of the request, such as 'Cookie: s=1'
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    pub field: Vec<String>,
    /// Content (body) of the request
    #[arg(short, long, value_name = "TEXT")]
    pub data: Option<String>,
    /// Address that it would come from [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub from: Option<std::net::IpAddr>,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `larder redis …`
#[derive(Clone, Debug, Subcommand)]
pub enum OfRedis {
    /// Count keys and bytes, and say whether every key expires
    Audit(Audit),
}

/// `larder redis audit`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = AUDIT_EXAMPLES, override_usage = "larder redis audit [FILE | --redis URL]")]
pub struct Audit {
    /// Configuration file that names the Redis
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The same, without -c
    #[arg(value_name = "FILE", hide = true, conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Its URL, as `larder run --to … --redis` has it
    #[arg(long, value_name = "URL", value_parser = redis, conflicts_with_all = ["config", "file"])]
    pub redis: Option<String>,
}

/// `larder simulate`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = SIMULATE_EXAMPLES)]
pub struct Simulate {
    /// Access log to replay
    #[arg(short, long, value_name = "FILE")]
    pub log: PathBuf,
    /// Configuration file to try
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Host of the requests, where the log does not say
    #[arg(long, value_name = "NAME", default_value = "")]
    #[arg(hide_default_value = true)]
    pub host: String,
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `larder demo`
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct Demo {
    /// Address to serve on
    #[arg(long, value_name = "ADDR", default_value = LISTEN, value_parser = address)]
    pub listen: SocketAddr,
    /// Dashboard, metrics, purges
    #[arg(long, value_name = "ADDR", default_value = ADMIN, value_parser = address)]
    pub admin: SocketAddr,
    /// Use the Redis at this URL as the shared tier
    #[arg(long, value_name = "URL", value_parser = redis)]
    pub redis: Option<String>,
    /// Print the proxy.toml that this amounts to; do not serve
    #[arg(long)]
    pub print_config: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

/// The log and the demo show it as a URL, which may be pasted as it is.
fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix("http://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    bare.parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:9900 or [::1]:9900".to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    if text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return Err("Larder speaks no TLS to upstreams yet. Put something between that does, such as stunnel, nginx or \
                    HAProxy on this machine, and name where that listens: --to http://127.0.0.1:3000. Where the API can be \
                    reached without TLS, too, write http://"
            .to_owned());
    }
    let authority = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match authority {
        Some(authority) if is_authority(authority) => Ok(format!("http://{authority}")),
        Some(authority) => {
            let plain = "write a host and a port and nothing else, such as http://127.0.0.1:3000";
            match authority.split_once('/') {
                Some((host, path)) if is_authority(host) && !path.starts_with(['?', '#']) => {
                    Err(with_path(host, path.split(['?', '#']).next().unwrap_or_default()))
                }
                _ => Err(plain.to_owned()),
            }
        }
        None => Err(format!("write http:// in front, such as http://{}", text.trim_start_matches('/'))),
    }
}

/// What to do about an API that stands below a path.
fn with_path(host: &str, path: &str) -> String {
    let path = path.trim_end_matches('/');
    format!(
        "write http://{host} and nothing else: the path that a client asks for is sent on as it is, and nothing is put \
         before it, so clients ask for /{path}/… themselves. For what is below that alone, write a file \
         (--print-config) in which the [[route]] has match = {{ path = \"/{path}/*\" }}"
    )
}

/// A host with or without a port; no user, path, query or fragment.
fn is_authority(text: &str) -> bool {
    let parsed = text.parse::<http::uri::Authority>();
    parsed.is_ok_and(|authority| {
        !authority.host().is_empty() && has_good_port(&authority) && !text.contains('@')
    })
}

/// No port at all, or a number from 1 to 65535; `Authority` itself takes any digits.
fn has_good_port(authority: &http::uri::Authority) -> bool {
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    rest.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
}

/// How what is to be purged is named.
fn unsaid(text: &str) -> Result<Infallible, String> {
    Err(match (text.contains("://"), text.starts_with('/'), text.ends_with('*')) {
        (true, _, true) | (_, true, true) => format!("write --prefix '{text}'"),
        (true, _, false) => format!("write --url {text}"),
        (_, true, false) => format!(
            "write --url http://api.example{text}, with its host, or --prefix '{text}*' for all that begins so"
        ),
        (false, false, _) => format!("write --tag {text}, or --route {text}"),
    })
}

fn lint(text: &str) -> Result<Lint, String> {
    let known = Lint::ALL.iter().find(|lint| lint.as_str() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Lint::ALL.iter().map(|lint| lint.as_str()).collect();
        format!("write one of {}", names.join(", "))
    })
}

fn duration(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    if digits.parse::<u32>().is_ok() && !digits.starts_with('+') && ["ms", "s", "m", "h", "d"].contains(&unit)
    {
        return Ok(text.to_owned());
    }
    Err("write a whole number with its unit (ms, s, m, h or d), such as 60s".to_owned())
}

/// Which URLs name a Redis is the configuration's to say; that it is one at all is told here.
fn redis(text: &str) -> Result<String, String> {
    if text.contains("://") && !text.starts_with("http") {
        return Ok(text.to_owned());
    }
    Err("write a URL such as redis://127.0.0.1:6379".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split_whitespace()).map(|args| args.command)
    }

    fn help(command: &str) -> String {
        Args::try_parse_from(["larder", command, "--help"]).unwrap_err().to_string()
    }

    #[test]
    fn the_definitions_hold_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn run_takes_a_file_or_an_api() {
        let Ok(Command::Run(run)) = parse("larder run -c a.toml") else { panic!() };
        assert_eq!((run.config, run.to), (Some(PathBuf::from("a.toml")), None));
        let line = "larder run --to http://localhost:3000/ --listen [::1]:80 --admin 127.0.0.1:0 --ttl 60s \
                    --redis redis://127.0.0.1:6379 --print-config";
        let Ok(Command::Run(run)) = parse(line) else { panic!() };
        assert_eq!(run.to.as_deref(), Some("http://localhost:3000"));
        assert_eq!(run.listen, "[::1]:80".parse().ok());
        assert_eq!((run.ttl.as_deref(), run.print_config), (Some("60s"), true));
        let Ok(Command::Run(run)) = parse("larder run") else { panic!() };
        assert_eq!((run.config, run.to), (None, None));
    }

    #[test]
    fn a_file_may_be_named_without_its_option_but_not_twice() {
        let file = Some(PathBuf::from("a.toml"));
        assert!(matches!(parse("larder run a.toml"), Ok(Command::Run(run)) if run.file == file));
        assert!(matches!(parse("larder check a.toml"), Ok(Command::Check(check)) if check.file == file));
        assert!(matches!(parse("larder reload a.toml"), Ok(Command::Reload(reload)) if reload.file == file));
        let denied = parse("larder check --deny warnings a.toml");
        assert!(matches!(denied, Ok(Command::Check(check)) if check.file == file && check.deny.is_some()));
        let allowed = parse("larder check --allow no-drain,cached-post --allow wide-trust a.toml");
        let allow = vec![Lint::NoDrain, Lint::CachedPost, Lint::WideTrust];
        assert!(matches!(allowed, Ok(Command::Check(check)) if check.file == file && check.allow == allow));
        for command in ["run", "check", "reload"] {
            let error = parse(&format!("larder {command} a.toml -c b.toml")).unwrap_err();
            assert!(error.to_string().contains("cannot be used with"), "{error}");
        }
    }

    #[test]
    fn purge_takes_any_number_of_names() {
        let line =
            "larder purge -c a.toml --tag a --tag b --url http://a/ --prefix /x/* --route r --soft --wait 1s";
        let Ok(Command::Purge(purge)) = parse(line) else { panic!() };
        assert_eq!((purge.tag, purge.url), (vec!["a".to_owned(), "b".into()], vec!["http://a/".to_owned()]));
        assert_eq!((purge.prefix, purge.route), (vec!["/x/*".to_owned()], vec!["r".to_owned()]));
        assert_eq!((purge.all, purge.soft, purge.wait.as_deref()), (false, true, Some("1s")));
        assert!(matches!(parse("larder purge --all"), Ok(Command::Purge(purge)) if purge.all));
    }

    #[test]
    fn an_admin_address_may_be_pasted_from_the_log() {
        for address in ["[::1]:9", "http://[::1]:9", "http://[::1]:9/"] {
            let Ok(Command::Top(top)) = parse(&format!("larder top --admin {address}")) else { panic!() };
            assert_eq!(top.at.admin.map(|at| at.to_string()).as_deref(), Some("[::1]:9"), "{address}");
        }
    }

    #[test]
    fn explain_takes_a_request() {
        let line = "larder explain -c a.toml POST /a -H A:b -H C:d -d x --from ::1 --json";
        let Ok(Command::Explain(explain)) = parse(line) else { panic!() };
        assert_eq!((explain.method.as_deref(), explain.target.as_str()), (Some("POST"), "/a"));
        assert_eq!((explain.field.len(), explain.data.as_deref(), explain.json), (2, Some("x"), true));
        let Ok(Command::Explain(explain)) = parse("larder explain /a --json") else { panic!() };
        assert_eq!((explain.method, explain.target.as_str()), (None, "/a"));
        // The help has them as they are written: the one that may be left out first.
        let help = help("explain");
        let [method, target] = ["[METHOD]  Method", "<TARGET>  Path"].map(|at| help.find(at).unwrap());
        assert!(method < target, "{help}");
    }

    #[test]
    fn the_demo_has_its_own_addresses() {
        let Ok(Command::Demo(demo)) = parse("larder demo") else { panic!() };
        assert_eq!((demo.listen.to_string().as_str(), demo.admin.to_string().as_str()), (LISTEN, ADMIN));
    }

    #[test]
    fn wrong_arguments_are_usage_errors_that_say_what_to_write() {
        let rows = [
            ("larder run -c a.toml --to http://127.0.0.1:3000", "cannot be used with"),
            ("larder run a.toml --to http://127.0.0.1:3000", "cannot be used with"),
            ("larder run --ttl 60s", "--to <URL>"),
            ("larder run --listen 127.0.0.1:80", "--to <URL>"),
            ("larder run --print-config", "--to <URL>"),
            ("larder run -c a.toml --print-config", "cannot be used with"),
            ("larder run a.toml --print-config", "cannot be used with"),
            ("larder run a.toml --listen 127.0.0.1:1", "cannot be used with"),
            ("larder run a.toml --admin 127.0.0.1:1", "cannot be used with"),
            ("larder run a.toml --ttl 5s", "cannot be used with"),
            ("larder run a.toml --redis redis://a", "cannot be used with"),
            ("larder run --to 127.0.0.1:3000", "such as http://127.0.0.1:3000"),
            ("larder run --to https://api.example.org", "Put something between that does, such as stunnel"),
            (
                "larder run --to HTTPS://api.example.org",
                "name where that listens: --to http://127.0.0.1:3000",
            ),
            ("larder run --to http://127.0.0.1:3000/api", "write http://127.0.0.1:3000 and nothing else"),
            ("larder run --to http://127.0.0.1:3000/v1/api/?a=1", "match = { path = \"/v1/api/*\" }"),
            ("larder run --to http://127.0.0.1:3000?a=1", "and nothing else, such as"),
            ("larder run --to http://127.0.0.1:3000/?a=1", "and nothing else, such as"),
            ("larder purge http://a/b", "write --url http://a/b"),
            ("larder purge http://a/b/*", "write --prefix 'http://a/b/*'"),
            ("larder purge /b/*", "write --prefix '/b/*'"),
            ("larder purge /b", "with its host, or --prefix '/b*'"),
            ("larder purge products", "write --tag products, or --route products"),
            ("larder redis audit --redis 127.0.0.1:6379", "such as redis://"),
            ("larder redis audit a.toml --redis redis://a", "cannot be used with"),
            ("larder run --to http://user@127.0.0.1:3000", "and nothing else"),
            ("larder run --to http://127.0.0.1:99999", "and nothing else"),
            ("larder run --to http://127.0.0.1:", "and nothing else"),
            ("larder run --to http://", "and nothing else"),
            ("larder run --to http://a --ttl 60", "such as 60s"),
            ("larder run --to http://a --ttl s", "such as 60s"),
            ("larder run --to http://a --ttl 1.5h", "such as 60s"),
            ("larder run --to http://a --listen localhost:80", "such as 127.0.0.1:8080"),
            ("larder run --to http://a --redis 127.0.0.1:6379", "such as redis://"),
            ("larder explain", "<TARGET>"),
            ("larder explain -H A:b", "<TARGET>"),
            ("larder purge", "required arguments were not provided"),
            ("larder purge --soft", "required arguments were not provided"),
            ("larder purge --all --wait 1", "such as 60s"),
            ("larder top --admin localhost:9900", "such as 127.0.0.1:9900"),
            ("larder demo --listen 8080", "such as 127.0.0.1:8080"),
            ("larder check --deny errors", "[possible values: warnings]"),
            ("larder check --allow nonsense", "write one of shared-credentials, "),
            ("larder redis audit --to http://a", "unexpected argument"),
            ("larder rum", "similar subcommand exists: 'run'"),
        ];
        for (line, expected) in rows {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(super::super::exit::USAGE), "{line}");
            assert!(error.to_string().contains(expected), "{line}\n{error}");
        }
    }

    #[test]
    fn no_argument_at_all_shows_the_help() {
        let error = parse("larder").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn help_tells_the_commands_examples_and_exit_codes() {
        // However wide the column of the commands is.
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = flat(&Args::try_parse_from(["larder", "--help"]).unwrap_err().to_string());
        for expected in [
            "A caching reverse proxy with two tiers",
            "run       Serve, with a configuration file or in front of one API",
            "check     Check a configuration file",
            "reload    Have a running Larder read its configuration file anew",
            "purge     Have a running Larder purge what it has stored",
            "status    Ask a running Larder how it is",
            "simulate  Replay a log",
            "demo      Show it at work",
            "larder run --to http://127.0.0.1:3000",
            "Exit codes:",
            "69  a listener cannot be bound",
            "77  the Larder that is to be asked does not take the admin_token",
            "78  the configuration is missing or wrong",
        ] {
            assert!(text.contains(&flat(expected)), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn help_of_each_command_tells_its_arguments_within_80_columns() {
        let rows = [
            ("run", ["larder run --to URL", "--ttl <TIME>", "--print-config", "/etc/larder/proxy.toml"]),
            (
                "check",
                ["[FILE]", "--deny <WHAT>", "Every problem is shown at once", "Usage: larder check [FILE]"],
            ),
            ("reload", ["[FILE]", "as on SIGHUP", "78", "Usage: larder reload [FILE | --admin ADDR]"]),
            ("purge", ["--tag <TAG>", "larder purge --route users", "69", "Usage: larder purge"]),
            ("explain", ["-H, --header <FIELD>", "--json", "69", "Usage: larder explain"]),
            ("simulate", ["--log <FILE>", "--host <NAME>", "combined format", "Usage: larder simulate"]),
            ("top", ["--once", "--admin <ADDR>", "larder top --once --json", "Usage: larder top [FILE"]),
            (
                "status",
                ["-c, --config <FILE>", "--admin <ADDR>", "$LARDER_ADMIN_TOKEN", "Usage: larder status"],
            ),
            ("slow", ["-f, --tail", "--json", "[default: 20]", "Usage: larder slow"]),
            ("demo", ["[default: 127.0.0.1:8080]", "--redis <URL>", "--print-config", "a free one"]),
        ];
        assert!(help("--help").lines().all(|line| line.chars().count() <= 80));
        for (command, expected) in rows {
            let text = help(command);
            for sentence in expected {
                assert!(text.contains(sentence), "{sentence:?} is not in\n{text}");
            }
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn version_is_the_package_version() {
        let error = Args::try_parse_from(["larder", "--version"]).unwrap_err();
        assert_eq!(error.to_string(), format!("larder {}\n", env!("CARGO_PKG_VERSION")));
    }
}
