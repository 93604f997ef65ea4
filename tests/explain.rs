//! `POST /explain` and `larder explain`, against real processes: what is predicted is what then happens, and what is
//! advised makes a hit.
//!
//! Every combination of a policy, a state of what is stored and a request has a URL of its own, and so has its twin,
//! which is asked about and left alone until the advice has been followed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use support::front::{HOST, cache_status, ttl};
use support::process::run_to_end;
use support::{
    Connection, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, client, unused_address,
    within,
};

/// What each route says under `[route.cache]`; `off` stands for `cache = false`.
const POLICIES: [&str; 20] = [
    "",
    "cookies = \"bypass\"",
    "cookies = \"ignore\"",
    "cookies = [\"s\"]",
    "authorization = \"share\"",
    "authorization = \"per-credential\"",
    "ttl.override = \"60s\"",
    "ttl.default = \"60s\"",
    "client_cache_control = \"ignore\"",
    "key.ignore_query = [\"utm_*\"]",
    "key.headers = [\"Accept-Language\"]",
    "vary.normalize = [\"accept-language\"]",
    "stale_while_revalidate = \"1h\"",
    "off",
    "methods = [\"GET\", \"HEAD\", \"POST\", \"QUERY\"]\nmax_request_body = \"24B\"",
    "ttl.max = \"90s\"",
    "key.slashes = \"merge\"\nkey.dot_segments = \"resolve\"",
    "range = \"fill\"\nset_cookie = \"strip\"",
    "methods = [\"GET\"]",
    "key.headers = [\"X-Api-Key\"]\nno_vary_search = false",
];

/// What the origin says in each state. `Age` makes a response old at once, so that nothing waits.
const STATES: [(&str, &[(&str, &str)]); 17] = [
    ("cold", &[("Cache-Control", "max-age=600")]),
    ("fresh", &[("Cache-Control", "max-age=600"), ("ETag", "\"v\"")]),
    ("public", &[("Cache-Control", "public, max-age=600"), ("ETag", "\"v\"")]),
    ("silent", &[("ETag", "\"v\"")]),
    ("stale", &[("Cache-Control", "max-age=60"), ("Age", "100"), ("ETag", "\"v\"")]),
    ("strict", &[("Cache-Control", "max-age=60, must-revalidate"), ("Age", "100"), ("ETag", "\"v\"")]),
    (
        "grace",
        &[("Cache-Control", "max-age=60, stale-while-revalidate=600"), ("Age", "100"), ("ETag", "\"v\"")],
    ),
    ("no-cache", &[("Cache-Control", "max-age=600, no-cache"), ("ETag", "\"v\"")]),
    ("vary", &[("Cache-Control", "public, max-age=600"), ("Vary", "Accept-Language"), ("ETag", "\"v\"")]),
    ("private", &[("Cache-Control", "private, max-age=600")]),
    ("no-store", &[("Cache-Control", "no-store")]),
    ("set-cookie", &[("Cache-Control", "max-age=600"), ("Set-Cookie", "a=b")]),
    ("purged", &[("Cache-Control", "max-age=600"), ("ETag", "\"v\"")]),
    ("soft", &[("Cache-Control", "max-age=600"), ("ETag", "\"v\"")]),
    ("unread", &[("Cache-Control", "max-age=600"), ("Content-Encoding", "compress"), ("ETag", "\"v\"")]),
    ("part", &[("Cache-Control", "max-age=600"), ("ETag", "\"v\"")]),
    ("any-query", &[("Cache-Control", "max-age=600"), ("No-Vary-Search", "params"), ("ETag", "\"v\"")]),
];

/// A method, what follows the path, fields, and a content.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

const REQUESTS: [Asked; 33] = [
    ("GET", "", &[], ""),
    ("GET", "", &[("Cookie", "s=secret-1")], ""),
    ("GET", "", &[("Authorization", "Bearer secret-2")], ""),
    ("GET", "", &[("Cookie", "s=secret-1"), ("Authorization", "Bearer secret-2")], ""),
    ("GET", "", &[("X-Api-Key", "secret-3")], ""),
    ("GET", "", &[("Cache-Control", "no-cache")], ""),
    ("GET", "", &[("Pragma", "no-cache")], ""),
    ("GET", "", &[("Cache-Control", "no-store")], ""),
    ("GET", "", &[("Cache-Control", "max-age=0")], ""),
    ("GET", "", &[("Cache-Control", "max-age=90")], ""),
    ("GET", "", &[("Cache-Control", "max-stale")], ""),
    ("GET", "", &[("Cache-Control", "min-fresh=700")], ""),
    ("GET", "", &[("Cache-Control", "only-if-cached")], ""),
    ("GET", "?utm_source=x", &[], ""),
    ("GET", "?b=2&a=1", &[], ""),
    ("GET", "", &[("Accept-Language", "de")], ""),
    ("GET", "", &[("Accept-Language", "de;q=0.9, en;q=0.1")], ""),
    ("GET", "", &[("Accept-Language", "fr")], ""),
    ("GET", "", &[("Accept-Encoding", "identity")], ""),
    ("HEAD", "", &[], ""),
    ("GET", "", &[("Range", "bytes=0-1")], ""),
    ("GET", "", &[("Range", "bytes=0-0,2-3")], ""),
    ("GET", "", &[("If-None-Match", "\"v\"")], ""),
    ("GET", "", &[("If-Match", "\"v\"")], ""),
    ("GET", "/../", &[], ""),
    ("GET", "//", &[], ""),
    ("POST", "", &[], "abc"),
    ("POST", "", &[("Content-Type", "application/json")], "{\"query\":\"mutation{a}\"}"),
    ("QUERY", "", &[("Content-Type", "text/plain")], "longer than the route has it"),
    ("GET", "", &[], "abc"),
    ("GET", "", &[("Range", "bytes=5-6")], ""),
    ("PUT", "", &[], "abc"),
    ("GET", "", &[("X-Requested-With", "XMLHttpRequest")], ""),
];

/// A policy, and the lines that it gets.
type Changed = (usize, Vec<String>);

/// A case, what its request is to be like, and whether such a one has to bring the response first.
type Twin = (Case, Vec<String>, bool);

/// Why the origin's own answer may not be stored, whatever is advised.
const OF_THE_ORIGIN: [&str; 4] = ["private", "no-store", "set-cookie", "no-lifetime"];

/// Does as the state says that the path names, and confirms what it has said.
fn behave(request: &Request) -> Script {
    let state = request.target.split('/').nth(2).unwrap_or_default();
    let said = STATES.iter().find(|(name, _)| *name == state).map_or(&[][..], |(_, said)| *said);
    if request.header("if-none-match") == "\"v\"" {
        return Script::respond(304, said, "");
    }
    let body = "0123456789";
    let range = request.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let ends = range.and_then(|(first, last)| first.parse::<usize>().ok().zip(last.parse::<usize>().ok()));
    match ends.and_then(|(first, last)| Some((first, last, body.get(first..=last)?))) {
        Some((first, last, part)) if state == "part" => {
            let range = format!("bytes {first}-{last}/10");
            Script::respond(206, &[said, &[("Content-Range", &range)]].concat(), part)
        }
        _ => Script::ok(body, said),
    }
}

fn config(origin: &Origin, top: &str, policies: &[String]) -> String {
    let mut text = format!(
        "listen = \"127.0.0.1:0\"\n{top}\nworkers = 1\nlog.level = \"info,larder::admin::purge=off\"\n[upstream.o]\nservers = [\"{}\"]\n",
        origin.url()
    );
    for (nth, policy) in policies.iter().enumerate() {
        text +=
            &format!("[[route]]\nname = \"p{nth}\"\nmatch = {{ path = \"/p{nth}/*\" }}\nupstream = \"o\"\n");
        text += &match policy.strip_prefix("off") {
            Some("") => "cache = false\n".to_owned(),
            // As advised: turned on, or with a table in place of that.
            Some(changed) => format!("{changed}\n"),
            None => format!("[route.cache]\n{policy}\n"),
        };
    }
    text
}

fn policies() -> Vec<String> {
    POLICIES.iter().map(|policy| (*policy).to_owned()).collect()
}

/// One of the combinations.
#[derive(Clone, Copy, Debug)]
struct Case {
    policy: usize,
    state: usize,
    request: usize,
}

impl Case {
    fn state(&self) -> &'static str {
        STATES[self.state].0
    }

    /// `twin` is 0 or 1.
    fn path(&self, twin: usize) -> String {
        format!("/p{}/{}/{}-{twin}", self.policy, self.state(), self.request)
    }

    fn target(&self, twin: usize) -> String {
        let name = format!("{}-{twin}", self.request);
        match REQUESTS[self.request].1 {
            // The same resource in another writing.
            "/../" => format!("{}/../{name}", self.path(twin)),
            "//" => format!("/p{}/{}//{name}", self.policy, self.state()),
            query => self.path(twin) + query,
        }
    }

    /// Brings what is stored into its state.
    fn prepare(&self, connection: &mut Connection, admin: &mut Connection, twin: usize) {
        if self.state() == "cold" {
            return;
        }
        let path = self.path(twin);
        let mut fields = vec![("Host", HOST), ("Accept-Language", "de")];
        fields.extend((self.state() == "part").then_some(("Range", "bytes=0-3")));
        let response = connection.request("GET", &path, &fields, b"");
        assert!(matches!(response.status, 200 | 206), "{self:?}");
        let soft = self.state() == "soft";
        if soft || self.state() == "purged" {
            let body = json!({ "url": format!("http://{HOST}{path}"), "soft": soft }).to_string();
            let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
            assert_eq!(admin.request("POST", "/purge", &headers, body.as_bytes()).status, 200);
        }
    }

    fn send(&self, larder: &Larder, twin: usize, fields: &[(String, String)]) -> Response {
        let (method, _, _, body) = REQUESTS[self.request];
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client::request(larder.proxy(), method, &self.target(twin), &fields, body.as_bytes())
    }

    fn fields(&self) -> Vec<(String, String)> {
        let own = REQUESTS[self.request].2.iter();
        [("Host", HOST)]
            .iter()
            .chain(own)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn explained(&self, admin: &mut Connection, twin: usize) -> Value {
        let (method, _, _, body) = REQUESTS[self.request];
        let wanted = json!({
            "method": method, "target": self.target(twin), "fields": self.fields(), "body": body
        });
        let response = explain(admin, &wanted);
        assert_eq!(response.status, 200, "{self:?}: {}", response.text());
        let text = response.text();
        assert!(!text.contains("secret-"), "no value of a secret is told: {text}");
        response.json()
    }
}

fn explain(admin: &mut Connection, wanted: &Value) -> Response {
    let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
    admin.request("POST", "/explain", &headers, wanted.to_string().as_bytes())
}

/// All policies in all states; of the requests `every` nth, so that each meets each policy and each state.
fn cases(every: usize) -> Vec<Case> {
    let all = (0..POLICIES.len()).flat_map(|policy| {
        (0..STATES.len())
            .flat_map(move |state| (0..REQUESTS.len()).map(move |request| Case { policy, state, request }))
    });
    all.filter(|case| (case.policy + 7 * case.state + 3 * case.request).is_multiple_of(every)).collect()
}

/// What is wrong with a prediction, by what then came of the request.
fn differs(verdict: &Value, response: &Response) -> Option<String> {
    let status = cache_status(response);
    let part = |name: &str| {
        status.split("; ").find_map(|part| part.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let happened = match response.header("x-cache") {
        "" => "local".to_owned(),
        word => word.to_lowercase(),
    };
    // The origin confirms what it can be asked to.
    let expected = match verdict["or"].as_str() {
        Some("revalidated") => "revalidated",
        _ => verdict["outcome"].as_str().unwrap(),
    };
    let wrong = |what: &str, told: &dyn std::fmt::Debug| {
        Some(format!("{what}: {told:?} was predicted; {happened}, {} {status}", response.status))
    };
    if happened != expected {
        return wrong("outcome", &expected);
    }
    let reason = verdict["reason"].as_str().unwrap_or_default();
    let told = if happened == "bypass" && part("fwd=") == "bypass" { part("detail=") } else { part("fwd=") };
    if happened != "local" && told != reason {
        return wrong("reason", &reason);
    }
    if let Some(tier) = verdict["tier"].as_str()
        && (part("detail=") != tier || (ttl(response) - verdict["ttl"].as_i64().unwrap()).abs() > 2)
    {
        return wrong("tier and ttl", &(tier, &verdict["ttl"]));
    }
    if let Some(expected) = verdict["status"].as_u64()
        && expected != u64::from(response.status)
    {
        return wrong("status", &expected);
    }
    // What the origin says now may say more than what was known before.
    let detail = verdict["detail"].as_str().unwrap_or_default();
    if status.contains("; stored") && !detail.is_empty() && part("detail=") != detail {
        return wrong("detail", &detail);
    }
    assert!(verdict["rfc"].as_str().is_some_and(|rfc| rfc.starts_with("RFC ")), "{verdict}");
    assert!(verdict["why"].as_str().is_some(), "{verdict}");
    None
}

/// A policy in which this line has taken the place of the one with the same name.
fn with_line(policy: &str, line: &str) -> String {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let kept = policy.lines().filter(|old| name(old) != name(line));
    kept.chain([line]).collect::<Vec<_>>().join("\n")
}

/// The fields of a request that came as advised.
fn as_advised(mut fields: Vec<(String, String)>, request: &str) -> Vec<(String, String)> {
    if let Some(names) = request.strip_prefix("without ") {
        let names: Vec<&str> = names.split(" and ").collect();
        fields.retain(|(name, _)| !names.contains(&name.to_lowercase().as_str()));
    } else if let Some((name, value)) = request.strip_prefix("with ").and_then(|field| field.split_once(": "))
    {
        fields.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        fields.push((name.to_owned(), value.to_owned()));
    }
    fields
}

fn reload(larder: &Larder, text: &str) {
    fs::write(larder.directory().join("proxy.toml"), text).unwrap();
    let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
    let response = client::request(larder.admin(), "POST", "/reload", &headers, b"");
    assert_eq!(response.status, 200, "{}\n{text}", response.text());
}

/// The lines of an advice, what the request would be like, and whether it has to bring the response first.
fn advised(told: &Value) -> Option<(Vec<String>, Vec<String>, bool)> {
    let advice = told["would_be_a_hit_if"].as_object()?;
    let settings = advice["settings"].as_array().unwrap().iter();
    let lines = settings.map(|setting| {
        assert!(setting["caution"].as_str().is_some_and(|caution| !caution.is_empty()), "{setting}");
        setting["line"].as_str().unwrap().to_owned()
    });
    let requests = advice["request"].as_array().unwrap().iter();
    let requests = requests.map(|request| request.as_str().unwrap().to_owned()).collect();
    Some((lines.collect(), requests, advice["once_stored"].as_bool().unwrap()))
}

#[test]
fn what_is_predicted_happens_and_what_is_advised_makes_a_hit() {
    let origin = Origin::start(behave);
    let top = "admin = \"127.0.0.1:0\"";
    let larder = Larder::start(&config(&origin, top, &policies()));
    let cases = cases(8);
    assert!(cases.len() >= 1000, "{}", cases.len());
    let (mut wrong, mut outcomes) = (Vec::new(), BTreeMap::<String, usize>::new());
    let mut followed: BTreeMap<Changed, Vec<Twin>> = BTreeMap::new();
    for chunk in cases.chunks(100) {
        // Few requests on a connection: there is an end to how long the admin listener keeps one.
        let mut connection = Connection::open(larder.proxy());
        let mut admin = Connection::open(larder.admin());
        for case in chunk {
            (0..2).for_each(|twin| case.prepare(&mut connection, &mut admin, twin));
            let told = case.explained(&mut admin, 0);
            let response = case.send(&larder, 0, &case.fields());
            let verdict = &told["verdict"];
            if let Some(why) = differs(verdict, &response) {
                wrong.push(format!(
                    "{case:?} {:?} {} {:?}: {why}",
                    POLICIES[case.policy],
                    case.state(),
                    REQUESTS[case.request]
                ));
            }
            let outcome =
                ["outcome", "reason", "detail"].map(|name| verdict[name].as_str().unwrap_or("-")).join(" ");
            *outcomes.entry(outcome).or_default() += 1;
            // The twin is asked about for itself: nothing has happened to it.
            let twin = case.explained(&mut admin, 1);
            assert_eq!(twin["verdict"]["outcome"], verdict["outcome"], "{case:?}");
            if let Some((lines, requests, once_stored)) = advised(&twin) {
                followed.entry((case.policy, lines)).or_default().push((*case, requests, once_stored));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    for outcome in [
        "hit - -",
        "stale - -",
        "local - only-if-cached",
        "miss uri-miss -",
        "miss uri-miss purged",
        "miss uri-miss private",
        "miss uri-miss no-store",
        "miss uri-miss set-cookie",
        "miss uri-miss head",
        "miss uri-miss range",
        "miss vary-miss -",
        "miss partial -",
        "miss stale -",
        "miss stale no-cache",
        "miss stale soft-purged",
        "miss request -",
        "miss request request-no-cache",
        "miss request request-max-age",
        "miss request request-min-fresh",
        "miss request coding",
        "bypass authorization -",
        "bypass body -",
        "bypass cookie -",
        "bypass large-body -",
        "bypass may-change -",
        "bypass method -",
        "bypass off -",
        "bypass path -",
        "bypass request-no-store -",
    ] {
        assert!(outcomes.contains_key(outcome), "{outcome} never came up: {outcomes:#?}");
    }

    let (mut hits, mut brought, mut missed) = (0, 0, Vec::new());
    for ((policy, lines), twins) in &followed {
        let mut changed = policies();
        for line in lines {
            // A minute is advice for what was just stored; on a slow machine it is over by now.
            let line = line.replace("ttl.override = \"1m\"", "ttl.override = \"1h\"");
            changed[*policy] =
                with_line(&changed[*policy], &line.replace("ttl.default = \"60s\"", "ttl.default = \"1h\""));
        }
        reload(&larder, &config(&origin, top, &changed));
        for (case, requests, once_stored) in twins {
            let fields = requests.iter().fold(case.fields(), |fields, request| as_advised(fields, request));
            let mut response = case.send(&larder, 1, &fields);
            if *once_stored {
                let status = cache_status(&response);
                assert!(status.contains("fwd=uri-miss"), "{case:?}: {status}");
                if status.split("detail=").nth(1).is_some_and(|why| OF_THE_ORIGIN.contains(&why)) {
                    continue;
                }
                brought += 1;
                response = case.send(&larder, 1, &fields);
                // What the origin sends past its lifetime, or wants to confirm, is stored all the same.
                let status = cache_status(&response);
                if status.contains("; hit") || status.contains("fwd=stale") {
                    continue;
                }
            }
            match response.header("x-cache") {
                "HIT" => hits += 1,
                _ => missed.push(format!(
                    "{case:?} {:?} {} {:?} {lines:?} {requests:?}: {}",
                    POLICIES[case.policy],
                    case.state(),
                    REQUESTS[case.request],
                    cache_status(&response)
                )),
            }
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), hits + missed.len(), missed.join("\n"));
    let advice: std::collections::BTreeSet<&str> =
        followed.keys().flat_map(|(_, lines)| lines).map(|line| line.split(" =").next().unwrap()).collect();
    for setting in
        ["cookies", "authorization", "client_cache_control", "ttl.override", "ttl.max", "key.ignore_query"]
    {
        assert!(advice.contains(setting), "{setting} is never advised: {advice:?}");
    }
    assert!(hits >= 200 && brought >= 20, "{hits}, {brought}");
}

#[test]
fn what_a_request_carries_is_said_to_keep_it_out_before_and_after_it_was_sent() {
    let origin = Origin::ok("x", &[]);
    let policies = vec!["ttl.default = \"60s\"".to_owned(), "off".to_owned()];
    let larder = Larder::start(&config(&origin, "admin = \"127.0.0.1:0\"", &policies));
    let mut admin = Connection::open(larder.admin());
    let mut ask = |method: &str, path: &str, field: (&str, &str)| {
        let wanted = json!({ "method": method, "target": path, "fields": [["Host", HOST], field] });
        explain(&mut admin, &wanted).json()
    };
    for (field, word, clause, setting) in [
        (("Cookie", "s=1"), "cookie", "RFC 9111 §3", "cookies = \"ignore\""),
        (("Authorization", "Basic eDp5"), "authorization", "RFC 9111 §3.5", "authorization = \"share\""),
    ] {
        let path = format!("/p0/{word}");
        for before in
            ["nothing is stored under the key, and ", "the last one like this brought nothing to store"]
        {
            let told = ask("GET", &path, field);
            let verdict = &told["verdict"];
            assert_eq!((&verdict["outcome"], &verdict["not_stored"]), (&json!("miss"), &json!(word)));
            assert_eq!(verdict["rfc"], clause);
            let why = verdict["why"].as_str().unwrap();
            let brings =
                format!("what a request with {} brings is stored only if the origin itself", field.0);
            assert!(why.starts_with(before) && why.contains(&brings), "{why}");
            let advice = &told["would_be_a_hit_if"];
            assert_eq!(
                (&advice["settings"][0]["line"], &advice["once_stored"]),
                (&json!(setting), &json!(true))
            );
            assert_eq!(larder.get(&path, &[("Host", HOST), field]).header("x-cache"), "MISS");
        }
    }
    // Both at once take two settings, also where one of them was known before.
    let both = [("Host", HOST), ("Cookie", "s=1"), ("Authorization", "Basic eDp5")];
    for path in ["/p0/both", "/p0/cookie"] {
        let wanted = json!({ "target": path, "fields": both });
        let told = explain(&mut Connection::open(larder.admin()), &wanted);
        let lines = told.json()["would_be_a_hit_if"]["settings"].as_array().map(Vec::len);
        assert_eq!(lines, Some(2), "{}", told.text());
    }
    // A route that is off says so at once, and what else keeps a request from bringing anything is told by it.
    let off = ask("GET", "/p1/x", ("X-None", ""));
    assert_eq!(off["verdict"]["outcome"], "bypass");
    assert_eq!(off["would_be_a_hit_if"]["settings"][0]["line"], "cache = true");
    for (method, field, word, says) in [
        ("HEAD", ("X-None", ""), "head", "whether what a GET brings is stored, `explain GET` says"),
        ("HEAD", ("Cookie", "s=1"), "head", "what a request with Cookie brings is stored only if the origin"),
        (
            "HEAD",
            ("Authorization", "Basic eDp5"),
            "head",
            "what a request with Authorization brings is stored",
        ),
        ("HEAD", ("X-Requested-With", "XMLHttpRequest"), "head", "Vary names that"),
        ("GET", ("If-Match", "\"v\""), "condition", "the origin's to judge"),
        ("GET", ("Range", "bytes=0-0,2-3"), "range", "several ranges"),
        ("GET", ("X-Requested-With", "XMLHttpRequest"), "unvaried", "Vary names that"),
    ] {
        let told = ask(method, "/p0/cold", field);
        assert_eq!(told["verdict"]["not_stored"], word, "{told:#}");
        assert!(told["verdict"]["why"].as_str().unwrap().contains(says), "{told:#}");
    }
    assert_eq!(ask("GET", "/p0/cold", ("X-None", ""))["verdict"]["not_stored"], Value::Null);
}

#[test]
fn an_options_that_larder_answers_itself_has_its_reason() {
    let origin = Origin::start(behave);
    let larder = Larder::start(&config(&origin, "admin = \"127.0.0.1:0\"", &policies()));
    let mut admin = Connection::open(larder.admin());
    for (target, field, rfc, says) in [
        ("*", ("X-None", ""), "RFC 9110 §9.3.7", "asks about the server as such"),
        ("/p0/cold", ("Max-Forwards", "0"), "RFC 9110 §7.6.2", "may go no further (Max-Forwards: 0)"),
    ] {
        let wanted = json!({ "method": "OPTIONS", "target": target, "fields": [("Host", HOST), field] });
        let told = explain(&mut admin, &wanted).json();
        let verdict = &told["verdict"];
        assert_eq!((&verdict["detail"], &verdict["status"]), (&json!("options"), &json!(204)), "{told:#}");
        assert_eq!(verdict["rfc"], rfc, "{told:#}");
        assert!(verdict["why"].as_str().unwrap().contains(says), "{told:#}");
    }
}

#[test]
fn what_redis_holds_is_predicted_too() {
    let (redis, origin) = (RedisServer::start(), Origin::start(behave));
    let cache = format!(
        "[cache]\nredis = \"{}\"\nredis_deadline = \"2s\"\nwarm_start = false\n[upstream.o]",
        redis.url()
    );
    let text = config(&origin, "admin = \"127.0.0.1:0\"", &policies()).replace("[upstream.o]", &cache);
    let (filler, asked) = (Larder::start(&text), Larder::start(&text));
    for larder in [&filler, &asked] {
        let up = || larder.stats()["tiers"]["redis"]["up"] == true;
        assert!(within(PATIENCE, up), "{:#}", larder.stats()["tiers"]);
    }
    let cases = cases(64);
    assert!(cases.len() >= 100, "{}", cases.len());
    let mut connection = Connection::open(filler.proxy());
    let mut admin = Connection::open(filler.admin());
    let mut wanted = 0;
    for case in &cases {
        case.prepare(&mut connection, &mut admin, 0);
        let told = case.explained(&mut admin, 0);
        let stored =
            told["memory"]["variants"].as_array().is_some_and(|it| it.iter().any(|it| it["purged"] == false));
        wanted += u64::from(stored && case.state() != "cold");
    }
    let written = || filler.stats()["tiers"]["redis"]["writes"].as_u64().unwrap() >= wanted / 2;
    assert!(within(PATIENCE, written), "{:#}", filler.stats()["tiers"]);
    let still = || filler.stats()["tiers"]["redis"]["queue_bytes"] == 0;
    assert!(within(PATIENCE, still), "{:#}", filler.stats()["tiers"]);

    let mut admin = Connection::open(asked.admin());
    let (mut wrong, mut tiers) = (Vec::new(), 0);
    for case in &cases {
        let told = case.explained(&mut admin, 0);
        let response = case.send(&asked, 0, &case.fields());
        tiers += usize::from(told["verdict"]["tier"] == "redis");
        if let Some(why) = differs(&told["verdict"], &response) {
            let what = (POLICIES[case.policy], case.state(), REQUESTS[case.request]);
            wrong.push(format!("{what:?}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(tiers >= 10, "{tiers} hits in Redis");
}

#[test]
fn to_explain_has_no_effect() {
    let origin = Origin::start(behave);
    let text = config(&origin, "admin = \"127.0.0.1:0\"", &policies());
    let limited =
        text.replace("name = \"p0\"\n", "name = \"p0\"\nrate_limit = { rate = \"1/h\", burst = 2 }\n");
    let larder = Larder::start(&limited);
    let case = Case { policy: 0, state: 4, request: 0 };
    let mut admin = Connection::open(larder.admin());
    case.prepare(&mut Connection::open(larder.proxy()), &mut admin, 0);
    let figures = || {
        let mut stats = larder.stats();
        // What passes with time.
        for name in ["uptime_s", "process"] {
            stats.as_object_mut().unwrap().remove(name);
        }
        let counts = ["total", "failed", "routes", "tiers"].map(|name| stats[name].clone());
        (counts, origin.requests().len())
    };
    let before = figures();
    for _ in 0..5 {
        let told = case.explained(&mut admin, 0);
        assert_eq!(
            (&told["verdict"]["outcome"], &told["verdict"]["reason"]),
            (&json!("miss"), &json!("stale"))
        );
    }
    assert_eq!(figures(), before, "nothing was counted, nothing fetched");
    // What is left of its rate is left.
    assert_eq!(case.send(&larder, 0, &case.fields()).header("x-cache"), "REVALIDATED");
    let told = case.explained(&mut admin, 0);
    assert_eq!((&told["verdict"]["outcome"], &told["verdict"]["status"]), (&json!("local"), &json!(429)));
    assert_eq!(case.send(&larder, 0, &case.fields()).status, 429);
}

#[test]
fn the_answer_tells_route_key_and_what_is_stored() {
    let origin = Origin::start(|_| {
        Script::ok(
            "12345",
            &[("Cache-Control", "s-maxage=600"), ("Age", "7"), ("Vary", "Accept"), ("Cache-Tag", "one, two")],
        )
    });
    let policies: Vec<String> =
        vec!["key.ignore_query = [\"utm_*\"]\ncookies = [\"s\"]\nkey.headers = [\"X-Tenant\"]".to_owned()];
    let larder = Larder::start(&config(&origin, "admin = \"127.0.0.1:0\"", &policies));
    let fields = [
        ("Host", "API.test:80"),
        ("Cookie", "s=hidden"),
        ("X-Tenant", "t"),
        ("Accept", "text/html"),
        ("X-Forwarded-Host", "b"),
    ];
    client::get(larder.proxy(), "/p0/7?utm_source=x&b=2&a=1", &fields);
    let wanted = json!({ "target": "/p0/7?utm_source=y&b=2&a=1", "fields": fields });
    let told = explain(&mut Connection::open(larder.admin()), &wanted).json();
    assert_eq!(told["route"]["name"], "p0");
    let text = fs::read_to_string(larder.directory().join("proxy.toml")).unwrap();
    let line = text.lines().position(|line| line == "[[route]]").unwrap() + 1;
    assert_eq!(told["route"]["line"], line);
    assert!(told["route"]["file"].as_str().unwrap().ends_with("proxy.toml"), "{told:#}");
    assert_eq!(told["request"]["fields_left_out"], json!(["x-forwarded-host"]));
    let steps: Vec<(&str, &str)> = told["key"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["step"].as_str().unwrap(), step["key"].as_str().unwrap()))
        .collect();
    assert_eq!(
        steps,
        [
            ("as received", "http://API.test:80/p0/7?utm_source=y&b=2&a=1"),
            ("scheme, host and path", "http://api.test/p0/7"),
            ("query", "http://api.test/p0/7?a=1&b=2"),
            ("fields", "http://api.test/p0/7?a=1&b=2 h:x-tenant=t;c:s=…;"),
        ]
    );
    assert_eq!(told["key"]["steps"][2]["dropped"], json!(["utm_source=y"]));
    assert_eq!(told["key"]["steps"][2]["sorted"], true);
    let stored = &told["memory"]["variants"][0];
    assert!((7.0..60.0).contains(&stored["age"].as_f64().unwrap()), "{stored:#}");
    assert_eq!((&stored["lifetime"], &stored["lifetime_from"]), (&json!(600.0), &json!("s-maxage")));
    assert_eq!(
        (&stored["tags"], &stored["vary"]),
        (&json!(["one", "two"]), &json!({ "accept": "text/html" }))
    );
    assert_eq!(
        (&stored["length"], &stored["selected"], &told["redis"]),
        (&json!(5), &json!(true), &Value::Null)
    );
    let verdict = &told["verdict"];
    assert_eq!((&verdict["outcome"], &verdict["rfc"]), (&json!("hit"), &json!("RFC 9111 §4.2")));
    assert_eq!(told["would_be_a_hit_if"], Value::Null);
}

#[test]
fn a_purge_from_where_none_is_taken_is_told_as_it_is_answered() {
    let origin = Origin::start(behave);
    let nobody = Larder::start(&config(&origin, "admin = \"127.0.0.1:0\"", &policies()));
    let here = "admin = \"127.0.0.1:0\"\npurge_from = [\"127.0.0.1\"]";
    let here = Larder::start(&config(&origin, here, &policies()));
    for (larder, from, status) in
        [(&nobody, "127.0.0.1", 405), (&here, "127.0.0.1", 200), (&here, "192.0.2.1", 405)]
    {
        let mut admin = Connection::open(larder.admin());
        let wanted =
            json!({ "method": "PURGE", "target": "/p0/a", "fields": [["Host", HOST]], "from": from });
        let told: Value = serde_json::from_slice(&explain(&mut admin, &wanted).body).unwrap();
        assert_eq!(told["verdict"]["status"], status, "{from}: {told:#}");
        if from == "127.0.0.1" {
            let answer = client::request(larder.proxy(), "PURGE", "/p0/a", &[("Host", HOST)], b"");
            assert_eq!(answer.status, status, "{}", answer.text());
        }
    }
}

#[test]
fn an_https_url_is_explained_as_whoever_ends_tls_would_ask_for_it() {
    let origin = Origin::start(behave);
    for (top, by, key) in [
        ("trusted_proxies = [\"127.0.0.1\"]", "by https, as a proxy says it", "https://api.test/p0/cold"),
        ("", "by http: nobody at that address is trusted", "http://api.test/p0/cold"),
    ] {
        let larder = Larder::start(&config(&origin, &format!("admin = \"127.0.0.1:0\"\n{top}"), &policies()));
        client::get(larder.proxy(), "/p0/cold", &[("Host", "api.test"), ("X-Forwarded-Proto", "https")]);
        let admin = larder.admin().to_string();
        let args = ["explain", "https://api.test/p0/cold", "--admin", &admin];
        let told = run_to_end(&args, larder.directory());
        let is_told = |words: &str| told.out.contains(words);
        // What is not believed was asked for by http, and is stored so.
        assert!(is_told(by) && is_told(key) && is_told("HIT"), "{top}: {}", told.out);
        let itself = [&args[..], &["-H", "X-Forwarded-Proto: https"]].concat();
        let itself = run_to_end(&itself, larder.directory());
        assert!(itself.out.contains(key) && !itself.out.contains(by), "{}", itself.out);
    }
}

#[test]
fn what_larder_answers_itself_is_said_to_be_looked_up_nowhere() {
    let origin = Origin::start(behave);
    let larder = Larder::start(&config(&origin, "admin = \"127.0.0.1:0\"", &policies()));
    let admin = larder.admin().to_string();
    let told =
        run_to_end(&["explain", "PURGE", "http://api.test/p0/a", "--admin", &admin], larder.directory());
    assert!(told.out.contains("LOCAL 405 (purge"), "{}", told.out);
    for line in ["\nmemory ", "\nredis "] {
        assert!(!told.out.contains(line), "{}", told.out);
    }
}

#[test]
fn who_may_not_ask_or_asks_too_much_is_refused() {
    let origin = Origin::start(behave);
    let larder = Larder::start(&config(
        &origin,
        "admin = \"127.0.0.1:0\"\nadmin_token = \"0123456789abcdef0123456789abcdef\"",
        &policies(),
    ));
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("Host", "localhost"), ("Content-Type", "application/json")], headers].concat();
        client::request(larder.admin(), "POST", "/explain", &headers, body)
    };
    let token = [("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    let body = json!({ "target": "/p0/a" }).to_string();
    assert_eq!(post(&[], body.as_bytes()).status, 401);
    assert_eq!(post(&token, body.as_bytes()).status, 200);
    assert_eq!(post(&token, &vec![b' '; (4 << 20) + 1]).status, 413);
    assert_eq!(post(&token, b"{}").status, 400);
    let other = json!({ "target": "/", "config": { "name": "new.toml", "text": "listen = 1" } }).to_string();
    let wrong = post(&token, other.as_bytes());
    assert!(wrong.status == 422 && wrong.text().contains("new.toml"), "{}", wrong.text());
    // None of this process's own variables are at hand for what is sent.
    let other =
        json!({ "target": "/", "config": { "name": "n", "text": "[log]\nlevel = \"${PATH}\"" } }).to_string();
    assert!(post(&token, other.as_bytes()).text().contains("PATH"));
    let listed = client::request(larder.admin(), "GET", "/explain", &[("Host", "localhost"), token[0]], b"");
    assert_eq!((listed.status, listed.header("allow")), (405, "POST"));
}

#[test]
fn the_command_tells_it_for_people_and_by_another_file() {
    let (origin, admin) = (Origin::start(behave), unused_address());
    let top = format!("admin = \"{admin}\"");
    let text = config(&origin, &top, &policies());
    let larder = Larder::start(&text);
    let host = format!("Host: {HOST}");
    client::get(larder.proxy(), "/p0/fresh/1", &[("Host", HOST)]);
    let run = |args: &[&str]| {
        let all = [&["explain"][..], args, &["-H", &host]].concat();
        run_to_end(&all, larder.directory())
    };
    let told = run(&["GET", "/p0/fresh/1?utm_source=x", "-H", "Cookie: s=secret-9"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    for words in [
        "route      p0  (",
        "proxy.toml:",
        "[as received]",
        "memory     nothing",
        "redis      not configured",
        "verdict    MISS (uri-miss)",
        "[RFC 9111 §3]",
        "a hit if   `key.ignore_query = [\"utm_source\"]` in [route.cache] of line",
    ] {
        assert!(told.out.contains(words), "{words:?} is not in\n{}", told.out);
    }
    assert!(!told.out.contains("secret-9"), "{}", told.out);
    let other = larder.directory().join("new.toml");
    let mut changed = policies();
    changed[0] = "key.ignore_query = [\"utm_source\"]".to_owned();
    fs::write(&other, config(&origin, &top, &changed)).unwrap();
    let json = run(&["--config", "new.toml", "GET", "/p0/fresh/1?utm_source=x", "--json"]);
    let told: Value = serde_json::from_str(&json.out).unwrap_or_else(|_| panic!("{json:?}"));
    assert_eq!((&told["verdict"]["outcome"], &told["route"]["file"]), (&json!("hit"), &json!("new.toml")));
    fs::write(&other, "listen = 1").unwrap();
    assert_eq!(run(&["--config", "new.toml", "/"]).code, Some(78));
    assert_eq!(larder.stats()["total"], 1, "none of it was a request");
    drop(larder);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("proxy.toml"), text).unwrap();
    assert_eq!(run_to_end(&["explain", "/"], folder.path()).code, Some(69));
}
