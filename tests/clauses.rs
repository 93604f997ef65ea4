//! Runs the scripts of `tests/clauses/`: client, Larder and origin over real sockets, from memory alone
//! and with a Redis, where Larder is started anew between any two steps; both come to the same.
//!
//! Knows the scripts' form, which their `README.md` tells. All scripts go side by side, step by step,
//! so that a restart serves them all. Must not know: what any clause asks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "clauses/script.rs"]
mod script;
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use script::{Answer, Field, Script, Step};
use support::front::HOST;
use support::{Larder, Origin, PATIENCE, RedisServer, Request, Response, client, within};

/// The routes that a script may run on, and what they say under `[route.cache]`.
const ROUTES: [(&str, &str); 17] = [
    ("plain", ""),
    ("ttl", "ttl.default = \"10m\""),
    ("stale", "stale_while_revalidate = \"10m\"\nstale_if_error = \"10m\""),
    ("error", "stale_if_error = \"10m\""),
    ("per", "authorization = \"per-credential\""),
    ("strip", "set_cookie = \"strip\""),
    ("keep", "set_cookie = \"keep\""),
    ("lang", "vary.normalize = [\"accept-language\"]"),
    ("query", "methods = [\"GET\", \"HEAD\", \"QUERY\"]"),
    ("ignore", "key.ignore_query = [\"utm_*\"]"),
    ("tenant", "key.headers = [\"X-Tenant\"]"),
    ("cookie", "cookies = [\"lang\"]\nttl.default = \"10m\""),
    ("share", "authorization = \"share\"\ncookies = \"ignore\"\nttl.default = \"10m\""),
    ("override", "ttl.override = \"10m\""),
    ("max", "ttl.max = \"60s\""),
    ("deaf", "client_cache_control = \"ignore\""),
    ("off", OFF),
];

/// In place of a `[route.cache]`.
const OFF: &str = "cache = false";

/// No fewer, so that a script that is lost is noticed.
const AT_LEAST: usize = 100;

/// What the origin is to answer, by path: each request takes the next.
type Answers = Arc<Mutex<HashMap<String, Vec<Answer>>>>;

#[test]
fn every_script_comes_out_from_memory_and_from_redis_alike() {
    let scripts = script::read(now()).unwrap_or_else(|mistakes| panic!("\n{}\n", mistakes.join("\n")));
    let unknown: Vec<_> = scripts
        .iter()
        .filter(|s| ROUTES.iter().all(|(name, _)| *name != s.route))
        .map(|s| &s.title)
        .collect();
    assert!(unknown.is_empty(), "unknown routes: {unknown:?}");
    assert!(scripts.len() >= AT_LEAST, "{} scripts, not {AT_LEAST}", scripts.len());
    // Side by side: most of the time of each goes into starting and stopping processes.
    let (memory, redis) = std::thread::scope(|scope| {
        let memory = scope.spawn(|| run(&scripts, None));
        let redis = run(&scripts, Some(&RedisServer::start()));
        (memory.join().unwrap(), redis)
    });
    let mut complaints = [memory.complaints, redis.complaints].concat();
    for (place, one) in &memory.answers {
        let other = &redis.answers[place];
        if one != other {
            complaints.push(format!("{place}: from memory {one:#?}, from Redis {other:#?}"));
        }
    }
    let steps: usize = scripts.iter().map(|script| script.steps.len()).sum();
    println!("{} scripts with {steps} steps, each in both forms", scripts.len());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_mistake_in_a_script_is_told_with_its_line() {
    for (text, mistake) in [
        ("> GET", "stands in no script"),
        ("== 9111 4 title", "is no clause"),
        ("== 9111 §4 title\n< 200 one HIT hit", "no request before it"),
        ("== 9111 §4 title\n> GET\n< 200 one", "status, body, X-Cache"),
        ("== 9111 §4 title\n> GET\n! two one", "is no status"),
        ("== 9111 §4 title\n> GET\n% 200 one", "is no line of a script"),
        ("== 9111 §4 title\n> GET\n< 200 one HIT hit | age", "is no field"),
        ("== 9111 §4 title\n> GET\n> GET", "expects nothing"),
    ] {
        let mistakes = script::parse("scripts.txt", text, now()).expect_err(text);
        assert!(
            mistakes[0].starts_with("scripts.txt:") && mistakes[0].contains(mistake),
            "{text:?}: {mistakes:?}"
        );
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[derive(Default)]
struct Outcome {
    complaints: Vec<String>,
    /// By script and step: what the client got, but for what differs from run to run.
    answers: HashMap<String, Vec<String>>,
}

/// Runs all scripts; with a Redis, through a new Larder at each step.
fn run(scripts: &[Script], redis: Option<&RedisServer>) -> Outcome {
    let answers: Answers = Arc::default();
    let asked = Arc::clone(&answers);
    let origin = Origin::start(move |request| answer(&asked, request));
    let configuration = configuration(&origin, redis);
    let mut outcome = Outcome::default();
    let most = scripts.iter().map(|script| script.steps.len()).max().unwrap();
    let mut larder = start(&configuration, redis);
    for nth in 0..most {
        if nth > 0 && redis.is_some() {
            larder.terminate();
            // The end of a process writes what waits for Redis.
            assert_eq!(larder.wait_exit(PATIENCE), Some(0));
            larder = start(&configuration, redis);
        }
        for (number, script) in scripts.iter().enumerate() {
            let Some(step) = script.steps.get(nth) else { continue };
            let place = format!("{} {} step {} ({})", script.place, script.clause, nth + 1, script.title);
            let path = format!("/{}/{number}{}", script.route, step.query);
            let played = Play {
                larder: &larder,
                origin: &origin,
                answers: &answers,
                step,
                path,
                from_redis: redis.is_some(),
            };
            match played.play() {
                Ok(told) => drop(outcome.answers.insert(place, told)),
                Err(complaint) => {
                    let form = if redis.is_some() { "Redis" } else { "memory" };
                    outcome.answers.insert(place.clone(), Vec::new());
                    outcome.complaints.push(format!("{place}, {form}: {complaint}"));
                }
            }
        }
    }
    outcome
}

fn configuration(origin: &Origin, redis: Option<&RedisServer>) -> String {
    let tier = redis.map_or(String::new(), |redis| {
        format!("[cache]\nredis = \"{}\"\nredis_deadline = \"5s\"\n", redis.url())
    });
    let routes = ROUTES.map(|(name, cache)| {
        let cache = if cache == OFF { OFF.into() } else { format!("[route.cache]\n{cache}") };
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}/*\" }}\nupstream = \"o\"\n{cache}\n"
        )
    });
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n{tier}[upstream.o]\nservers = [\"{}\"]\n{}",
        origin.url(),
        routes.join("")
    )
}

fn start(configuration: &str, redis: Option<&RedisServer>) -> Larder {
    let larder = Larder::start(configuration);
    if redis.is_some() {
        let up = || larder.stats()["tiers"]["redis"]["up"] == true;
        assert!(within(PATIENCE, up), "Redis is not used: {:#}", larder.stats()["tiers"]);
    }
    larder
}

fn answer(answers: &Answers, request: &Request) -> support::Script {
    let path = request.target.split('?').next().unwrap();
    let mut answers = answers.lock().unwrap();
    let left = answers.entry(path.to_owned()).or_default();
    let next = if left.is_empty() { None } else { Some(left.remove(0)) };
    match next {
        Some(Answer::Close) => {
            left.push(Answer::Close);
            support::Script::new().close()
        }
        Some(Answer::Respond { status, body, fields }) => {
            let mut head = format!("HTTP/1.1 {status} Scripted\r\n").into_bytes();
            for Field { name, value } in &fields {
                head.extend_from_slice(format!("{name}: ").as_bytes());
                head.extend_from_slice(value);
                head.extend_from_slice(b"\r\n");
            }
            let told = fields.iter().any(|field| field.name.eq_ignore_ascii_case("content-length"));
            if !told && status != 204 && status != 304 {
                head.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
            }
            head.extend_from_slice(b"\r\n");
            if request.method != "HEAD" {
                head.extend_from_slice(body.as_bytes());
            }
            support::Script::new().bytes(head)
        }
        // Nobody should have asked: the counts tell, and so does this.
        None => support::Script::respond(500, &[], "not in the script"),
    }
}

/// One step of one script.
struct Play<'a> {
    larder: &'a Larder,
    origin: &'a Origin,
    answers: &'a Answers,
    step: &'a Step,
    path: String,
    from_redis: bool,
}

impl Play<'_> {
    fn play(&self) -> Result<Vec<String>, String> {
        let target = self.path.split('?').next().unwrap().to_owned();
        let asked = || {
            self.origin
                .requests()
                .into_iter()
                .filter(|request| {
                    request.target.starts_with(&format!("{target}?")) || request.target == target
                })
                .collect::<Vec<_>>()
        };
        let before = asked().len();
        self.answers.lock().unwrap().insert(target.clone(), self.step.answers.clone());
        let mut result = self.ask();
        if self.step.eventually {
            within(PATIENCE, || {
                result = self.ask();
                result.is_ok()
            });
        }
        let told = result?;
        let (least, most) = (self.step.answers.len(), self.step.answers.len() + self.retries());
        if self.step.behind {
            within(PATIENCE, || asked().len() >= before + least);
        }
        let came = asked();
        let times = came.len() - before;
        if !(least..=most).contains(&times) {
            return Err(format!("the origin was asked {times} times, not {least}"));
        }
        match came.get(before) {
            Some(request) => {
                self.step.seen.iter().try_for_each(|seen| seen.holds(&all(&request.headers, seen.name())))?
            }
            None if self.step.seen.is_empty() => {}
            None => return Err("the origin saw nothing".into()),
        }
        Ok(told)
    }

    /// A request on a connection that was open already is tried again on a new one.
    fn retries(&self) -> usize {
        self.step.answers.iter().filter(|answer| matches!(answer, Answer::Close)).count()
    }

    /// What the client got, if it is what it should have got.
    fn ask(&self) -> Result<Vec<String>, String> {
        let bytes = |field: &Field| [field.name.as_bytes(), b": ", &field.value, b"\r\n"].concat();
        let mut fields: Vec<u8> = self.step.fields.iter().flat_map(bytes).collect();
        if !self.step.content.is_empty() {
            fields.extend(format!("Content-Length: {}\r\n", self.step.content.len()).bytes());
        }
        let head =
            format!("{} {} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n", self.step.method, self.path);
        let got = client::send(
            self.larder.proxy(),
            &[head.as_bytes(), &fields, b"\r\n", self.step.content.as_bytes()].concat(),
        );
        let want = &self.step.want;
        let body = if want.body == "*" { "*".to_owned() } else { got.text() };
        let told = match want.told.strip_suffix(" *") {
            Some(_) => format!("{} *", got.header("x-cache")),
            None => self.told(&got),
        };
        let found = format!("{} {} {told}", got.status, body);
        let wanted = format!("{} {} {}", want.status, want.body, want.told);
        if found != wanted {
            return Err(format!("{found:?}, not {wanted:?}"));
        }
        let emptied = self.from_redis && !self.step.eventually;
        if emptied && support::front::cache_status(&got).ends_with("detail=memory") {
            return Err("from memory, which the restart has emptied".into());
        }
        if !got.complete {
            return Err("the body broke off".into());
        }
        want.fields.iter().try_for_each(|seen| seen.holds(&all(&got.headers, seen.name())))?;
        Ok(self.lasting(&got, &told))
    }

    /// `X-Cache`, and `Cache-Status` without the name and the ttl; either tier is told as memory.
    fn told(&self, got: &Response) -> String {
        let status = support::front::cache_status(got);
        let parts = status.split("; ").skip(1).filter(|part| !part.starts_with("ttl="));
        let tier = |part: &str| {
            if self.from_redis { part.replace("detail=redis", "detail=memory") } else { part.to_owned() }
        };
        let cache = got.headers.get("x-cache").unwrap_or("-");
        format!("{cache} {}", parts.map(tier).collect::<Vec<_>>().join("; "))
    }

    /// What must not differ between the tiers: all but times and names of the process.
    fn lasting(&self, got: &Response, told: &str) -> Vec<String> {
        const PASSING: [&str; 7] =
            ["age", "date", "via", "x-process-time", "server-timing", "cache-status", "x-cache"];
        let lasting = |(name, value): &(String, String)| {
            let name = name.to_ascii_lowercase();
            (!PASSING.contains(&name.as_str())).then(|| format!("{name}: {value}"))
        };
        let mut lines: Vec<String> = got.headers.0.iter().filter_map(lasting).collect();
        lines.push(format!("{} {:?} {told}", got.status, got.text()));
        lines
    }
}

fn all(fields: &support::wire::Fields, name: &str) -> Vec<String> {
    fields.all(name).map(str::to_owned).collect()
}
