//! The shipped `proxy.toml` against the code: complete, right, and with the same defaults.

use std::time::Duration;

use super::super::reference::uncommented;
use super::super::{Config, Policy, RouteCache, SHIPPED, check, reader};
use super::{REST, env, parse};
use crate::coding::Compress;
use crate::rules::Ttl;

fn defaults() -> Config {
    parse(REST).unwrap()
}

#[test]
fn the_shipped_file_has_no_problem_and_shows_every_default() {
    let (shipped, default) = (parse(SHIPPED).unwrap_or_else(|p| panic!("{p}")), defaults());
    assert_eq!((&shipped.listen, shipped.admin), (&default.listen, default.admin));
    assert_eq!((shipped.workers, &shipped.trusted_proxies), (default.workers, &default.trusted_proxies));
    assert_eq!(shipped.log, default.log);
    assert_eq!(shipped.cache, default.cache);
    assert_eq!(shipped.timing, default.timing);
    assert_eq!(shipped.limits, default.limits);
    assert_eq!(shipped.upstreams[0].servers, default.upstreams[0].servers);
    assert_eq!(shipped.upstreams[0].timeout, default.upstreams[0].timeout);
    assert_eq!(shipped.upstreams[0].pool, default.upstreams[0].pool);
    assert_eq!(shipped.routes.last().unwrap().cache, Some(RouteCache::default()));
}

#[test]
fn the_shipped_files_commented_settings_are_right_too() {
    let config = parse(&uncommented()).unwrap_or_else(|p| panic!("{p}"));
    let (policy, default) = (config.routes[0].cache.clone().unwrap().policy, Policy::default());
    assert_eq!(policy.stale_if_disconnected, Some(default.disconnected(false)));
    assert_eq!((policy.keep, policy.cookies), (default.keep, default.cookies));
    assert_eq!(policy.heuristic, default.heuristic);
    assert_eq!(policy.client_cache_control, default.client_cache_control);
    assert_eq!((policy.authorization, policy.set_cookie), (default.authorization, default.set_cookie));
    assert_eq!(policy.range, default.range);
    assert_eq!(policy.methods, default.methods);
    assert_eq!(config.routes[0].compress, Some(Compress::default()));
    assert_eq!(config.routes[0].rate_limits.len(), 1);
    let (cache, default) = (config.routes[0].cache.clone().unwrap(), RouteCache::default());
    assert_eq!(cache.max_request_body, default.max_request_body);
    assert_eq!(cache.group_invalidation, default.group_invalidation);
    assert_eq!(cache.no_vary_search, default.no_vary_search);
    assert_eq!(cache.fleet_collapse, default.fleet_collapse);
    assert!(config.cache.redis.is_some() && config.admin_token.is_some());
    assert!(config.routes.iter().any(|r| r.matcher.regex.is_some() && r.cache.is_none()));
}

#[test]
fn the_shipped_file_names_every_setting_there_is() {
    let text = uncommented();
    let file = toml::de::DeTable::parse(&text).unwrap();
    let reader = reader::Reader::new(&text, &env);
    check::config(&reader, file.get_ref(), text.len());
    let asked = reader.asked();
    assert!(asked.len() > 50, "{asked:?}");
    for (path, _) in &asked {
        assert!(asked.contains(&(path.clone(), true)), "`{path}` is not in proxy.toml");
    }
}

#[test]
fn every_line_of_the_shipped_file_that_sets_something_says_why() {
    // Route and upstream names, and what repeats an earlier line, need no reason of their own.
    let plain = ["name", "upstream", "match", "servers", "ttl.default", "cache"];
    for line in uncommented().lines().filter(|l| l.contains(" = ") && !l.starts_with('#')) {
        let key = line.split(" = ").next().unwrap();
        assert!(line.contains(" # ") || plain.contains(&key), "{line}");
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn the_demo_sends_each_of_its_requests_to_the_route_made_for_it() {
    let config = parse(SHIPPED).unwrap();
    let rows = [
        ("GET", "/users/1", "user"),
        ("POST", "/users/batch-create", "user"),
        ("GET", "/users", "users"),
        ("POST", "/users", "users"),
        ("GET", "/slow", "slow"),
        ("GET", "/flaky", "flaky"),
        ("GET", "/", "other-paths"),
        ("GET", "/other", "other-paths"),
    ];
    for (method, path, want) in rows {
        let index = config.route(&method.parse().unwrap(), "127.0.0.1", path).unwrap();
        assert_eq!(config.routes[index].name, want, "{method} {path}");
    }
    let user = config.routes[0].cache.clone().unwrap();
    let secs = |s| Some(Duration::from_secs(s));
    assert_eq!(user.policy.ttl, Ttl { default: secs(60), ..Ttl::default() });
    assert_eq!((user.policy.stale_while_revalidate, user.policy.stale_if_error), (secs(30), secs(600)));
}

#[test]
fn the_configuration_in_the_readme_is_good() {
    let readme = include_str!("../../../README.md");
    let block = readme.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let config = parse(block).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(
        config.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(),
        ["products", "rest"]
    );
}
