//! `larder redis audit`: counts what stands in Redis, and says whether all of it expires.
//!
//! Knows which route a URL is of, and how the figures are shown.
//! Must not know: how keys are walked through.

use std::fmt::Write as _;
use std::process::ExitCode;

use http::Method;
use tokio::runtime;

use super::config_file::Source;
use super::shown::{self, counted};
use super::{complain, exit, print, serve};
use crate::config::Config;
use crate::store::{Audit, Fault, Sum};

/// Walks through Redis and shows what is there.
pub(super) fn audit(source: &Source) -> ExitCode {
    let config = match serve::parse(&source.text, &source.name) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(redis) = &config.cache.redis else {
        let text = format!("{} has no cache.redis: set it, or name a Redis by --redis URL", source.name);
        return complain(&text, exit::CONFIG);
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), exit::FAILURE),
    };
    let called = |url: &str| route_of(&config, url);
    match runtime.block_on(Audit::make(&config.cache, &called)) {
        Ok(audit) => tell(&audit, &config.cache.namespace),
        Err(why) => {
            let why = meant(&why, &source.name, redis.tls);
            complain(&format!("redis cannot be audited: {why}"), exit::UNAVAILABLE)
        }
    }
}

/// Why Redis was not asked to the end, and where that is known, what to look at in `source`, which names it and may have
/// it asked over TLS.
fn meant(why: &str, source: &str, over_tls: bool) -> String {
    // Of the only server nothing else is known than that.
    let why = why.strip_prefix("redis: ").unwrap_or(why);
    let (of, word) =
        why.rsplit_once(": ").map_or((String::new(), why), |(of, word)| (format!("{of}: "), word));
    let place = format!("check the address that {source} has");
    let todo = match (Fault::told_as(word), word) {
        (Some(Fault::Nonsense), _) => {
            format!("{place}: 6379 is the usual port of a Redis, 26379 that of a sentinel")
        }
        (Some(Fault::Lost), _) => {
            let or = if over_tls { "" } else { ", and whether what listens there wants TLS: rediss://" };
            format!("{place}{or}; or it has no connection free (maxclients)")
        }
        (Some(Fault::Refused), _) => format!(
            "it may want a password, which {source} has to have, or more rights for this user: docs/security.md"
        ),
        (Some(Fault::NotHere), _) => {
            "it may be loading still, a replica, or one of a cluster: redis+cluster://".to_owned()
        }
        (_, "that is no address") => {
            let says = "it does not say where its master is";
            return format!(
                "{of}{says}\n       it may be no sentinel: {place}. 26379 is the usual port of one; a Redis that no \
                 sentinel watches is redis://"
            );
        }
        _ if word.starts_with("received corrupt message") => {
            format!("{place}: it seems to speak no TLS: redis:// in place of rediss://")
        }
        _ if word.ends_with("in time") => {
            // It waits for the rest of what it takes for a command.
            let or = if over_tls { ", or it speaks no TLS (redis:// in place of rediss://)" } else { "" };
            format!("{place}, and whether that server is at work: redis-cli PING{or}")
        }
        _ => return why.to_owned(),
    };
    format!("{of}{word}\n       {todo}")
}

/// The route that a GET of a stored URL takes now.
fn route_of(config: &Config, url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at_checked(at).unwrap_or((rest, "/")),
        None => (rest, "/"),
    };
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let route = config.route(&Method::GET, host.unwrap_or_default(), path);
    route.and_then(|index| config.routes.get(index)).map_or_else(|| shown::route(None), |r| r.name.clone())
}

fn tell(audit: &Audit, namespace: &str) -> ExitCode {
    let mut text = format!("{namespace}: on {}\n\n", audit.servers.join(", "));
    let total = audit.kinds.values().fold(Sum::default(), |all, sum| Sum {
        keys: all.keys.saturating_add(sum.keys),
        bytes: all.bytes.saturating_add(sum.bytes),
    });
    row(&mut text, ("", "keys", "bytes"));
    for (name, sum) in audit.kinds.iter().map(|(name, sum)| (name.as_str(), sum)).chain([("all", &total)]) {
        row(&mut text, (name, &sum.keys.to_string(), &sum.bytes.to_string()));
    }
    if !audit.names.is_empty() {
        let read: u64 = audit.names.values().map(|sum| sum.keys).sum();
        let _ = writeln!(text, "\nby route, of {read} records that were read:");
        for (name, sum) in &audit.names {
            row(&mut text, (name, &sum.keys.to_string(), &sum.bytes.to_string()));
        }
    }
    if audit.without_expiry == 0 {
        text.push_str("\nevery key expires\n");
        return print(&text);
    }
    let _ = print(&text);
    complain(&endless(audit, namespace), exit::FAILURE)
}

/// What never expires, and what to do about it.
fn endless(audit: &Audit, namespace: &str) -> String {
    let keys = counted(audit.without_expiry, "key");
    let (never, them, they, such) = match audit.without_expiry {
        1 => ("expires", "it", "it is", ""),
        _ => ("expire", "them", "they are", ", such as"),
    };
    let named = audit.named.join("\n       ");
    format!(
        "{keys} never {never}{such}\n       {named}\n       \
         Larder gives an end to each of its own. Where {they} another program's, set another cache.namespace than \
         `{namespace}`;\n       \
         else give {them} one (redis-cli EXPIRE KEY 604800), or delete {them} (redis-cli UNLINK KEY)"
    )
}

fn row(text: &mut String, (name, keys, bytes): (&str, &str, &str)) {
    let _ = writeln!(text, "  {name:<24} {keys:>12} {bytes:>16}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_by_what_it_says_of_the_server_and_what_to_look_at() {
        let of = |server: &str, fault: Fault| format!("{server}: {}", fault.as_str());
        for (why, says) in [
            (
                &*of("redis", Fault::Nonsense),
                "what answers there does not speak the protocol of Redis\n       check the address that f has",
            ),
            (
                &of("redis: sentinel [::1]:1", Fault::Nonsense),
                "sentinel [::1]:1: what answers there does not",
            ),
            (&of("10.0.0.1:6379", Fault::Lost), "10.0.0.1:6379: the connection was closed"),
            (&of("redis", Fault::Lost), "rediss://; or it has no connection free (maxclients)"),
            (&of("redis", Fault::Deadline), "no answer in time\n       check"),
            ("redis: no connection in time", "no connection in time\n       check"),
            ("redis: sentinel [::1]:1: that is no address", "it may be no sentinel: check"),
            (&of("redis", Fault::Refused), "which f has to have"),
            (&of("redis", Fault::NotHere), "redis+cluster://"),
            ("redis: received corrupt message of type InvalidContentType", "to speak no TLS"),
            ("redis: Connection refused (os error 111)", "Connection refused (os error 111)"),
            ("no Redis is configured", "no Redis is configured"),
        ] {
            let told = meant(why, "f", false);
            assert!(told.starts_with(says) || told.contains(&format!(" {says}")), "{why}: {told}");
        }
    }

    #[test]
    fn what_does_not_answer_over_tls_may_speak_none() {
        for why in [
            "redis: no answer in time",
            "redis: no connection in time",
            "redis: sentinel [::1]:26379: no answer in time",
            "no node of the cluster tells who is in it: 10.0.0.1:7000 does not answer in time",
        ] {
            let told = meant(why, "f", true);
            assert!(told.ends_with("or it speaks no TLS (redis:// in place of rediss://)"), "{told}");
            assert!(!meant(why, "f", false).contains("TLS"), "{why}");
        }
        assert!(!meant(&format!("redis: {}", Fault::Lost.as_str()), "f", true).contains("rediss://"));
    }

    #[test]
    fn one_key_without_an_end_is_told_as_one() {
        let audit = Audit { without_expiry: 1, named: vec!["a:b".into()], ..Audit::default() };
        let told = endless(&audit, "a");
        assert!(told.starts_with("1 key never expires\n       a:b\n       Larder"), "{told}");
        assert!(
            told.contains("Where it is another program's") && told.ends_with("(redis-cli UNLINK KEY)"),
            "{told}"
        );
    }

    #[test]
    fn a_stored_url_is_of_the_route_that_takes_it() {
        let text = "[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n\
                    [[route]]\nname = \"users\"\nmatch = { path = \"/users/*\", host = \"api.test\" }\nupstream = \"o\"\n\
                    [[route]]\nname = \"six\"\nmatch = { host = \"::1\" }\nupstream = \"o\"\n";
        let config = Config::parse(text, "f", &|_| None).unwrap_or_else(|p| panic!("{p}"));
        for (url, route) in [
            ("http://api.test/users/1?a=1", "users"),
            ("https://api.test:8443/users/1?#", "users"),
            ("http://api.test/orders", "(no route)"),
            ("http://[::1]:80/", "six"),
            ("nonsense", "(no route)"),
        ] {
            assert_eq!(route_of(&config, url), route, "{url}");
        }
    }
}
