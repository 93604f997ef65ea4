//! `larder redis audit`: counts what stands in Redis, and says whether all of it expires.
//!
//! Knows which route a URL is of, and how the figures are shown.
//! Must not know: how keys are walked through.

use std::fmt::Write as _;
use std::process::ExitCode;

use http::Method;
use tokio::runtime;

use super::config_file::Source;
use super::{complain, exit, print, serve};
use crate::config::Config;
use crate::store::{Audit, Sum};

/// Walks through Redis and shows what is there.
pub(super) fn audit(source: &Source) -> ExitCode {
    let config = match serve::parse(&source.text, &source.name) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.cache.redis.is_none() {
        return complain(&format!("{} has no cache.redis", source.name), exit::CONFIG);
    }
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), exit::FAILURE),
    };
    let called = |url: &str| route_of(&config, url);
    match runtime.block_on(Audit::make(&config.cache, &called)) {
        Ok(audit) => tell(&audit, &config.cache.namespace),
        Err(why) => complain(&format!("redis cannot be audited: {why}"), exit::UNAVAILABLE),
    }
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
    route
        .and_then(|index| config.routes.get(index))
        .map_or_else(|| "(no route)".to_owned(), |r| r.name.clone())
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
    let named = audit.named.join("\n       ");
    complain(&format!("{} keys never expire, such as\n       {named}", audit.without_expiry), exit::FAILURE)
}

fn row(text: &mut String, (name, keys, bytes): (&str, &str, &str)) {
    let _ = writeln!(text, "  {name:<24} {keys:>12} {bytes:>16}");
}

#[cfg(test)]
mod tests {
    use super::*;

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
