//! The room's tests as a whole: files in, configurations or problems out.

mod masks;
mod mistakes;
mod shipped;

use std::time::Duration;

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::fields::content_coding::Coding;
use crate::rules::{
    Authorization, ClientCacheControl, Cookies, Heuristic, Methods, Normalize, SetCookie, Ttl,
};
use crate::stored::{DotSegments, Slashes};

fn env(name: &str) -> Option<String> {
    match name {
        "LARDER_TOKEN" => Some("a-long-secret".into()),
        "PORT" => Some("3001".into()),
        "THREADS" => Some("3".into()),
        "ON" => Some("false".into()),
        "BAD" => Some("nonsense".into()),
        "PASSWORD" => Some("hunter@2".into()),
        _ => None,
    }
}

pub(super) fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, "proxy.toml", &env)
}

const REST: &str = "\n[upstream.api]\nservers = [\"http://127.0.0.1:3000\"]\n\
                    [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";

/// A file that is good but for `top`, which stands first.
pub(super) fn with_rest(top: &str) -> String {
    format!("{top}{REST}")
}

/// A file that is good but for `lines` at the end of its only route.
fn with_route(lines: &str) -> String {
    format!("{REST}{lines}")
}

#[test]
fn what_only_the_running_larder_knows_keeps_nobody_from_asking_it() {
    let unset = |_: &str| None;
    for setting in [
        "cache.redis = \"${URL}\"",
        "cache.redis = \"redis://:${PW}@h\"",
        "cache.redis = { url = \"${URL}\" }",
        "cache.redis = { sentinels = [\"a:1\"], master = \"${M}\" }",
        "cache.redis = { sentinels = [\"${A}\"], master = \"m\" }",
        "cache.redis = { cluster = [\"${A}\"] }",
        "cache.memory = \"${MEMORY}\"",
        "listen = \"${LISTEN}\"",
        "workers = 2\n[upstream.b]\nservers = [\"${SERVER}\"]",
    ] {
        let text = with_rest(&format!("admin = \"127.0.0.1:9\"\n{setting}\n"));
        let admin = Config::admin_of_good(&text, "proxy.toml", &unset);
        assert_eq!(admin.unwrap_or_else(|wrong| panic!("{setting}: {wrong}")).0.unwrap().port(), 9);
        assert!(Config::parse(&text, "proxy.toml", &unset).is_err(), "{setting}");
    }
    for wrong in
        ["admin = \"${A}\"\n", "admin_token = \"${T}\"\n", "cache.redis = { master = \"${M}\", oops = 1 }\n"]
    {
        assert!(Config::admin_of_good(&with_rest(wrong), "proxy.toml", &unset).is_err(), "{wrong}");
    }
}

/// `(line, column, message, help)` of every problem.
fn told(text: &str) -> Vec<(usize, usize, String, String)> {
    let problems = parse(text).err().unwrap_or_else(|| panic!("no problem in:\n{text}"));
    problems.iter().map(|p| (p.line, p.column, p.message.clone(), p.help.clone())).collect()
}

#[test]
fn the_environment_fills_strings_numbers_and_flags() {
    let text = with_rest("workers = \"${THREADS}\"\nadmin = \"0.0.0.0:1\"\nadmin_token = \"${LARDER_TOKEN}\"\n[timing]\nprocess_time = \"${ON}\"\n")
        .replace("3000", "${PORT}");
    let config = parse(&text).unwrap();
    assert_eq!((config.workers, config.timing.process_time), (3, false));
    assert_eq!(config.admin_token.as_deref(), Some("a-long-secret"));
    assert_eq!(config.upstreams[0].servers[0].port, 3001);
}

#[test]
fn what_the_environment_lacks_is_told_at_its_name() {
    let text = with_rest("admin_token = \"${NOPE}\"");
    let help = "set NOPE, or write $${ for a plain ${";
    assert_eq!(told(&text), [(1, 16, "the environment has no `NOPE`".into(), help.into())]);
    assert_eq!(told(&with_rest("admin_token = \"x${NOPE\""))[0].1, 17);
}

#[test]
fn a_value_from_the_environment_is_shown_unless_it_may_be_secret() {
    let shown = |top: &str| parse(&with_rest(top)).unwrap_err().to_string();
    let plain = shown("listen = \"${BAD}\"");
    assert!(plain.contains("= help: with the environment's values this reads \"nonsense\""), "{plain}");
    let secret = shown("[cache]\nredis = \"redis://:${PASSWORD}@db\"\n");
    assert!(secret.contains("the password cannot be read") && !secret.contains("hunter"), "{secret}");
    let server = REST.replace("http://", "http://u:${PASSWORD}@");
    let secret = parse(&server).unwrap_err().to_string();
    assert!(secret.contains("carries no user or password") && !secret.contains("hunter"), "{secret}");
}

#[test]
fn a_written_value_makes_the_defaults_give_way() {
    let config = parse(&with_rest("[cache]\nmemory = \"8MiB\"\nredis_queue = \"64KiB\"\n")).unwrap();
    assert_eq!((config.cache.max_object, config.cache.redis_max_object), (8 << 20, 64 << 10));
    let config = parse(&REST.replace("[[route]]", "pool.max_connections = 4\n[[route]]")).unwrap();
    let pool = config.upstreams[0].pool;
    assert_eq!((pool.max_idle, pool.max_connections, pool.max_tunnels), (4, 4, 2));
    for (written, hedge_after) in [
        ("timeout.first_byte = \"3s\"", Some(1500)),
        ("timeout = { first_byte = \"3s\", hedge_after = \"3s\" }", Some(3000)),
        ("timeout.hedge_after = \"off\"", None),
    ] {
        let config = parse(&REST.replace("[[route]]", &format!("{written}\n[[route]]"))).unwrap();
        let found = config.upstreams[0].timeout.hedge_after.map(|after| after.as_millis());
        assert_eq!(found, hedge_after, "{written}");
    }
}

#[test]
fn words_stand_for_their_values() {
    let top = "admin = \"off\"\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n\
               [timing]\nslow_request = \"off\"\n[log]\nformat = \"json\"\naccess = \"text\"\nlevel = \"warn, larder::slow=off\"\n";
    let config = parse(&with_rest(top)).unwrap();
    assert_eq!((config.admin, config.timing.slow_request), (None, None));
    assert_eq!((config.listen.len(), config.trusted_proxies.len()), (2, 2));
    assert!(config.listen.iter().all(|listen| !listen.proxy_protocol));
    assert_eq!((config.log.format, config.log.access), (LogFormat::Json, Access::Text));
}

#[test]
fn who_collects_traces_is_named_by_a_url_alone() {
    let of = |endpoint: &str| parse(&with_rest(&format!("[otlp]\nendpoint = \"{endpoint}\"\n")));
    for (endpoint, host, port, path) in [
        ("http://a", "a", 4318, "/v1/traces"),
        ("http://A.b:80/", "a.b", 80, "/v1/traces"),
        ("http://[::1]:4318/otlp", "::1", 4318, "/otlp/v1/traces"),
        ("http://a/v1/traces", "a", 4318, "/v1/traces"),
        ("http://a/otlp/v1/traces/", "a", 4318, "/otlp/v1/traces"),
    ] {
        let otlp = of(endpoint).unwrap().otlp.unwrap();
        assert_eq!((otlp.host.as_str(), otlp.port, otlp.path.as_str()), (host, port, path), "{endpoint}");
    }
    for (endpoint, message) in [
        ("a:4318", "written as a URL"),
        ("https://a", "does not speak TLS"),
        ("http://u:hunter2@a", "no user or password"),
        ("http://a/b?c", "a host, a port and a path alone"),
        ("http://a:0", "not a port"),
        ("http://a b", "is not a host"),
    ] {
        let told = of(endpoint).unwrap_err().to_string();
        assert!(told.contains(message) && !told.contains("hunter2"), "{endpoint}: {told}");
    }
    let of = |rest: &str| parse(&with_rest(&format!("[otlp]\nendpoint = \"http://a\"\n{rest}\n")));
    for (rest, message) in [
        ("headers = { \"a b\" = \"c\" }", "not a field name"),
        ("headers = { Host = \"c\" }", "Larder writes this field itself"),
        ("headers = { X-Api-Key = \"hunter2\\u0001\" }", "not a field value"),
        ("sample = \"2/1\"", "not a part of all"),
        ("sample = \"0/1\"", "not a part of all"),
        ("timeout = \"0s\"", "zero makes no sense"),
        ("headers_file = \"x\"", "by its whole path"),
        ("nonsense = 1", "unknown key"),
    ] {
        let told = of(rest).unwrap_err().to_string();
        assert!(told.contains(message) && !told.contains("hunter2"), "{rest}: {told}");
    }
    assert_eq!(parse(&with_rest("")).unwrap().otlp, None);
    let silent = parse(&with_rest("[otlp]\nqueue = 7\n")).unwrap();
    let names: Vec<_> = silent.warnings.iter().filter_map(|warning| warning.name).collect();
    assert_eq!((silent.otlp, names), (None, vec![Lint::NoEndpoint]));
}

#[test]
fn a_route_has_a_limit_for_slow_requests_of_its_own_where_it_says_so() {
    for (timing, route, limit) in [
        ("", "", Some(1000)),
        ("\"2s\"", "", Some(2000)),
        ("\"off\"", "", None),
        ("\"2s\"", "\"off\"", None),
        ("\"off\"", "\"50ms\"", Some(50)),
        ("", "\"0s\"", Some(0)),
    ] {
        let line =
            |value: &str| if value.is_empty() { String::new() } else { format!("slow_request = {value}\n") };
        let text = with_rest(&format!("[timing]\n{}", line(timing))) + "\n" + &line(route);
        let config = parse(&text).unwrap();
        assert_eq!(config.routes[0].slow_request.map(|limit| limit.as_millis()), limit, "{timing} {route}");
    }
}

#[test]
fn a_listener_may_be_a_table_that_asks_for_the_proxy_protocol() {
    let rows: [(&str, &[(&str, bool)]); 4] = [
        ("listen = { address = \"[::]:1\", proxy_protocol = true }", &[("[::]:1", true)]),
        ("listen = { address = \"[::]:1\" }", &[("[::]:1", false)]),
        (
            "listen = [\"1.1.1.1:1\", { address = \"1.1.1.1:2\", proxy_protocol = true }]",
            &[("1.1.1.1:1", false), ("1.1.1.1:2", true)],
        ),
        (
            "[[listen]]\naddress = \"1.1.1.1:1\"\n[[listen]]\naddress = \"1.1.1.1:2\"",
            &[("1.1.1.1:1", false), ("1.1.1.1:2", false)],
        ),
    ];
    for (text, want) in rows {
        let found = parse(&with_rest(text)).unwrap_or_else(|p| panic!("{p}")).listen;
        let found: Vec<_> = found.iter().map(|l| (l.address.to_string(), l.proxy_protocol)).collect();
        let want: Vec<_> = want.iter().map(|(address, on)| ((*address).to_owned(), *on)).collect();
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn a_route_may_have_several_rate_limits() {
    let limits = |lines: &str| {
        parse(&with_route(lines)).unwrap_or_else(|p| panic!("{p}")).routes[0].rate_limits.clone()
    };
    let of = |count, secs, burst, by, clients| {
        let rate = crate::rate::Rate::new(count, Duration::from_secs(secs), burst);
        RateLimit { rate, by, clients }
    };
    let header = || RateBy::Header(HeaderName::from_static("x-api-key"));
    assert_eq!(limits(""), []);
    assert_eq!(limits("rate_limit = { rate = \"30/m\" }"), [of(30, 60, 30, RateBy::Address, 65_536)]);
    let both = "rate_limit = [{ rate = \"9/s\", burst = 5, by = \"address\", clients = 2000 }, { rate = \"1/h\", by = { header = \"X-Api-Key\" } }]";
    assert_eq!(limits(both), [of(9, 1, 5, RateBy::Address, 2000), of(1, 3600, 1, header(), 65_536)]);
    let table = "[route.rate_limit]\nrate = \"1/s\"\nby.header = \"X-Api-Key\"";
    assert_eq!(limits(table), [of(1, 1, 1, header(), 65_536)]);
}

#[test]
fn a_routes_cache_is_read_into_policy_and_key() {
    let lines = "[route.cache]\nttl = { default = \"1s\", override = \"2s\", max = \"3s\" }\nstale_while_revalidate = \"4s\"\n\
                 heuristic = { percent = 20, max = \"6s\" }\nclient_cache_control = \"ignore\"\n\
                 stale_if_error = \"0s\"\nstale_if_disconnected = \"7s\"\nkeep = \"5s\"\ncookies = [\"lang\", \"lang\", \"ab\"]\nauthorization = \"per-credential\"\n\
                 set_cookie = \"strip\"\nvary.normalize = [\"Accept-Language\"]\nmethods = [\"GET\", \"QUERY\"]\nmax_request_body = \"1KiB\"\n\
                 [route.cache.key]\nignore_query = [\"utm_*\"]\nheaders = [\"Accept-Language\", \"accept-language\"]\n\
                 dot_segments = \"resolve\"\nslashes = \"merge\"\n";
    let lines = &lines.replace("keep = ", "deception_guard = false\nkeep = ");
    let cache = parse(&with_route(lines)).unwrap().routes[0].cache.clone().unwrap();
    let secs = |s| Some(Duration::from_secs(s));
    let names = vec!["lang".to_owned(), "ab".to_owned()];
    assert_eq!(cache.policy.ttl, Ttl { default: secs(1), r#override: secs(2), max: secs(3) });
    assert_eq!((cache.policy.stale_while_revalidate, cache.policy.stale_if_error), (secs(4), secs(0)));
    assert_eq!((cache.policy.keep, cache.policy.set_cookie), (Duration::from_secs(5), SetCookie::Strip));
    assert_eq!(cache.policy.cookies, Cookies::Key(names.clone()));
    assert_eq!((cache.policy.stale_if_disconnected, cache.policy.deception_guard), (secs(7), false));
    let heuristic = Heuristic { percent: 20, max: Duration::from_secs(6) };
    assert_eq!(cache.policy.heuristic, Some(heuristic));
    assert_eq!(cache.policy.client_cache_control, ClientCacheControl::Ignore);
    assert_eq!(cache.policy.normalize, Normalize { accept_language: true });
    assert_eq!(cache.policy.authorization, Authorization::PerCredential);
    assert_eq!((cache.key.cookies, cache.key.per_credential), (names, true));
    assert_eq!(cache.key.headers, ["accept-language"]);
    assert_eq!(cache.key.ignore_query[0].as_str(), "utm_*");
    assert_eq!(
        (cache.policy.methods, cache.max_request_body),
        (Methods { get: true, query: true, ..Methods::NONE }, 1024)
    );
    assert_eq!((cache.key.dot_segments, cache.key.slashes), (DotSegments::Resolve, Slashes::Merge));
}

#[test]
fn a_guess_can_be_switched_off_and_each_of_its_parts_has_a_default() {
    let heuristic = |lines: &str| {
        let cache = parse(&with_route(&format!("[route.cache]\n{lines}"))).unwrap().routes[0].cache.clone();
        cache.unwrap().policy.heuristic.map(|heuristic| (heuristic.percent, heuristic.max.as_secs()))
    };
    for (lines, expected) in [
        ("", Some((10, 86_400))),
        ("heuristic = \"off\"", None),
        ("heuristic.percent = 50", Some((50, 86_400))),
        ("heuristic.max = \"1h\"", Some((10, 3600))),
    ] {
        assert_eq!(heuristic(lines), expected, "{lines}");
    }
}

#[test]
fn a_sample_is_a_part_of_all_hits_and_evenly_spread() {
    let verify = |line: &str| parse(&with_rest(&format!("[cache]\n{line}\n"))).unwrap().cache.verify;
    assert_eq!((verify(""), verify("verify = \"off\"")), (None, None));
    for (line, some, of, taken) in [
        ("verify = \"1/1\"", 1, 1, vec![0, 1, 2, 3, 4, 5]),
        ("verify = \"1/3\"", 1, 3, vec![0, 3]),
        ("verify = \"2/3\"", 2, 3, vec![0, 2, 3, 5]),
        ("verify = \"1 / 1000\"", 1, 1000, vec![0]),
    ] {
        let sample = verify(line).unwrap();
        assert_eq!((sample.some, sample.of), (some, of), "{line}");
        assert_eq!((0..6).filter(|number| sample.takes(*number)).collect::<Vec<u64>>(), taken, "{line}");
        assert!(!sample.takes(u64::MAX) || some == of || u64::MAX % u64::from(of) == 0, "{line}");
    }
    for wrong in ["0/1", "2/1", "1/0", "1", "/", "1/x", "-1/2", "1/4294967296", "", "on", "1/2/3"] {
        let found = told(&with_rest(&format!("[cache]\nverify = \"{wrong}\"\n")));
        let [(2, 10, message, help)] = &found[..] else { panic!("{wrong}: {found:?}") };
        assert_eq!(
            (message.as_str(), help.as_str()),
            ("not a part of all hits", "write such as \"1/1000\", or \"off\"")
        );
    }
}

#[test]
fn caching_is_on_unless_a_route_says_false() {
    let cache = |lines| parse(&with_route(lines)).unwrap().routes[0].cache.clone();
    assert_eq!(cache(""), Some(RouteCache::default()));
    assert_eq!(cache("cache = true"), Some(RouteCache::default()));
    assert_eq!(cache("cache = false"), None);
}

#[test]
fn compression_is_off_unless_a_route_asks_for_it() {
    let compress = |lines| parse(&with_route(lines)).unwrap().routes[0].compress.clone();
    assert_eq!(compress(""), None);
    assert_eq!(compress("compress = false"), None);
    assert_eq!(compress("compress = true"), Some(Compress::default()));
    let lines = "[route.compress]\ncodings = [\"gzip\", \"br\", \"gzip\"]\nmin_size = \"1B\"\nmax_size = \"1KiB\"\n\
                 types = [\"Text/HTML\", \"*+json\"]\n";
    let expected = Compress {
        codings: vec![Coding::Gzip, Coding::Brotli],
        min_size: 1,
        max_size: 1024,
        types: vec!["text/html".into(), "*+json".into()],
    };
    assert_eq!(compress(lines), Some(expected));
}

#[test]
fn header_edits_and_match_are_read() {
    let text = with_route(
        "request_headers = { set = { X-A = \"1\" }, remove = [\"X-Debug\"] }\nresponse_headers.remove = \"Server\"\n",
    )
    .replace("path = \"/*\"", "path = [\"/a\", \"/b/*\"], host = [\"A.com\", \"*.B.com\", \"[::1]\"], method = [\"GET\", \"PURGE\"]");
    let route = parse(&text).unwrap().routes[0].clone();
    assert_eq!(route.request_headers.set, [("x-a".parse().unwrap(), "1".parse().unwrap())]);
    assert_eq!(route.request_headers.remove, ["x-debug"]);
    assert_eq!(route.response_headers.remove, ["server"]);
    assert_eq!(route.matcher.paths, [PathPattern::Exact("/a".into()), PathPattern::Prefix("/b/".into())]);
    let hosts = [
        HostPattern::Exact("a.com".into()),
        HostPattern::Suffix(".b.com".into()),
        HostPattern::Exact("::1".into()),
    ];
    assert_eq!(route.matcher.hosts, hosts);
    assert_eq!(route.matcher.methods, [Method::GET, Method::from_bytes(b"PURGE").unwrap()]);
    assert_eq!(route.line, 4);
}

#[test]
fn no_route_is_an_index_and_the_first_match_wins() {
    let text = with_route("[[route]]\nname = \"b\"\nmatch.path = [\"/a\", \"/b\"]\nupstream = \"api\"\n")
        .replace("/*", "/a");
    let config = parse(&text).unwrap();
    let route = |path| config.route(&Method::GET, "h", path);
    assert_eq!((route("/a"), route("/b"), route("/c")), (Some(0), Some(1), None));
}

#[test]
fn something_else_in_place_of_a_word_is_answered_with_the_words() {
    let shown = parse(&format!("[log]\naccess = true\n{REST}")).unwrap_err().to_string();
    assert!(shown.contains("expected a word, found a boolean") && shown.contains("\"json\" or "), "{shown}");
}

#[test]
fn a_name_written_twice_is_told_beside_a_mistake_in_match() {
    let route =
        |method: &str| format!("[[route]]\nname = \"a\"\nmatch.method = \"{method}\"\nupstream = \"api\"\n");
    let text = with_route(&(route("get") + &route("PUT"))).replace("/*", "/x");
    let shown = parse(&text).unwrap_err().to_string();
    assert!(shown.contains("upper case") && shown.contains("two routes are named `a`"), "{shown}");
}

#[test]
fn the_demos_changes_keep_what_the_checks_promise() {
    let at = |text: &str| text.parse().unwrap();
    let demo = || parse(REST).unwrap().with_listen(at("127.0.0.1:18080"));
    assert_eq!(demo().listen, vec![at("127.0.0.1:18080").into()]);
    assert_eq!(demo().with_admin(Some(at("[::1]:0"))).unwrap().admin, Some(at("[::1]:0")));
    assert!(demo().with_admin(Some(at("0.0.0.0:1"))).is_err());
    assert!(demo().with_admin(Some(at("127.0.0.1:18080"))).is_err());
    assert_eq!(
        demo().with_redis(Some("redis://db")).unwrap().cache.redis,
        Redis::from_url("redis://db").ok()
    );
    assert!(demo().with_redis(Some("db")).is_err());
    let server = Server { host: "127.0.0.1".into(), port: 5 };
    let changed = demo().with_servers("api", vec![server.clone()]).unwrap();
    assert_eq!(changed.upstreams[0].servers, std::slice::from_ref(&server));
    assert!(demo().with_servers("api", vec![]).is_err() && demo().with_servers("x", vec![server]).is_err());
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_problems_that_can_be_shown(text in ".{0,200}") {
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty() && !problems.to_string().is_empty());
        }
    }

    #[test]
    fn the_shipped_file_with_any_part_replaced_is_read_or_refused(
        at in 0usize..7000, len in 0usize..40, with in "[\\[\\]{}\"=.#\n\t a-z0-9é$]{0,8}",
    ) {
        let chars: Vec<char> = super::reference::uncommented().chars().collect();
        let (start, end) = (at.min(chars.len()), (at + len).min(chars.len()));
        let text: String = chars[..start].iter().chain(with.chars().collect::<Vec<_>>().iter()).chain(&chars[end..]).collect();
        if let Err(problems) = parse(&text) {
            for p in &problems {
                prop_assert!(p.line >= 1 && p.column >= 1 && p.line <= text.split('\n').count());
            }
            prop_assert!(problems.to_string().ends_with(" in proxy.toml"));
        }
    }
}

#[test]
fn a_warm_start_is_a_table_or_false_and_off_where_it_would_read_nothing() {
    let warm_start = |line: &str| parse(&with_rest(&format!("[cache]\n{line}\n"))).unwrap().cache.warm_start;
    let usual = Cache::default().warm_start.unwrap();
    for line in ["", "warm_start = true", "warm_start = {}"] {
        assert_eq!(warm_start(line), Some(usual), "{line}");
    }
    for line in ["warm_start = false", "warm_start = { keys = 0 }", "warm_start = { time = \"0s\" }"] {
        assert_eq!(warm_start(line), None, "{line}");
    }
    let some = "warm_start = { keys = 7, time = \"1s\", every = \"100ms\" }";
    let (time, every) = (Duration::from_secs(1), Duration::from_millis(100));
    assert_eq!(warm_start(some), Some(WarmStart { keys: 7, time, every }));
    for (line, expected, help) in [
        ("warm_start = \"off\"", "expected a table", "false"),
        ("warm_start = { keys = 100001 }", "out of range", "from 0 to 100000"),
        ("warm_start = { every = \"0s\" }", "", "warm_start = false"),
        ("warm_start = { every = \"99ms\" }", "more often", "at least \"100ms\""),
        ("warm_start = { key = 7 }", "unknown key `key`", "`keys`"),
    ] {
        let found = told(&with_rest(&format!("[cache]\n{line}\n")));
        let [(_, _, message, told)] = &found[..] else { panic!("{line}: {found:?}") };
        assert!(message.contains(expected) && told.contains(help), "{line}: {found:?}");
    }
}
