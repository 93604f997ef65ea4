//! The dashboard: in a real browser, what it shows, does and looks like; over sockets, who is given what of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "dashboard/browser.rs"]
#[allow(clippy::disallowed_methods, reason = "a browser is waited for by the system's clock")]
mod browser;
mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use browser::{Browser, Page};
use support::process::run_to_end;
use support::{Connection, Gate, Larder, Origin, PATIENCE, Script, client, get, within};

const HOST: (&str, &str) = ("Host", "api.test");
const HTML: (&str, &str) = ("Accept", "text/html,*/*;q=0.8");

fn config(origin: &Origin, more: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{more}
[upstream.o]
servers = ["{}"]
[[route]]
name = "off"
match = {{ path = "/off/*" }}
upstream = "o"
cache = false
[[route]]
name = "api"
match = {{ path = "/api/*" }}
upstream = "o"
[route.cache]
ttl.default = "10m"
"#,
        origin.url()
    )
}

/// What of it may stand in a URL of a request would end a text in a script.
const QUOTES: &str = "/api/x?q=');document.title='taken'//${document.title='taken'}";
/// A name that would be markup, if it were ever taken for it.
const MARKUP: &str = "<img/src=x/onerror=document.title='taken'>";

fn origin() -> Origin {
    Origin::start(|request| match request.target.split('?').next().unwrap() {
        "/api/private" => Script::ok("x", &[("Cache-Control", "private")]),
        "/api/session" => Script::ok("x", &[("Set-Cookie", "a=b")]),
        "/api/x" => {
            // An origin that takes its time, so that there are slow requests.
            std::thread::sleep(Duration::from_millis(15));
            Script::ok("x", &[])
        }
        _ => Script::ok("0123456789", &[]),
    })
}

/// Requests of which each one's fate is known; gives how many.
fn send_the_mix(larder: &Larder) -> u64 {
    let mut sent = 0;
    let mut ask = |path: &str, fields: &[(&str, &str)], x_cache: &str| {
        sent += 1;
        let answer = get(larder.proxy(), path, &[&[HOST], fields].concat());
        assert_eq!(answer.header("x-cache"), x_cache, "{path}");
    };
    ask("/api/a", &[], "MISS");
    (0..9).for_each(|_| ask("/api/a", &[], "HIT"));
    (0..6).for_each(|nth| ask(&format!("/api/cold?nth={nth}"), &[], "MISS"));
    (0..7).for_each(|_| ask("/api/a", &[("Cookie", "a=b")], "BYPASS"));
    (0..5).for_each(|_| ask("/api/private", &[], "MISS"));
    (0..8).for_each(|_| ask("/api/session", &[], "MISS"));
    ask(QUOTES, &[], "MISS");
    (0..3).for_each(|_| ask("/off/a", &[], "BYPASS"));
    sent
}

fn settled(larder: &Larder, total: u64) -> Value {
    let mut stats = Value::Null;
    let settled = within(PATIENCE, || {
        stats = larder.stats();
        stats["active"] == 0 && stats["total"] == total
    });
    assert!(settled, "{total} requests were sent: {stats:#}");
    stats
}

/// As people read it.
fn grouped(n: &Value) -> String {
    let digits = n.as_u64().unwrap().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(of: &Value) -> String {
    if of["looked"] == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", (of["requests"].as_f64().unwrap() * 1000.0 + 1e-9).floor() / 10.0)
}

/// What the page shows: text and value of each figure of all together, then of each route.
fn figures(page: &Page) -> Value {
    page.value(
        "(() => {
            const shown = (element) => [element.textContent, element.dataset.value];
            const ids = ['ratio-1m', 'ratio-1h', 'ratio-all', 'requests', 'active', 'failed', 'saved', 'hit-p50', 'hit-p99', 'miss-p50', 'miss-p99'];
            const all = Object.fromEntries(ids.map((id) => [id, shown(document.getElementById(id))]));
            const rows = [...document.querySelectorAll('#route-rows > tr[data-route]')];
            const cells = (row) => Object.fromEntries([...row.querySelectorAll('td[data-name]')].map((cell) => [cell.dataset.name, shown(cell)]));
            return { all, routes: Object.fromEntries(rows.map((row) => [row.dataset.route, cells(row)])) };
        })()",
    )
}

/// The same, made of what `/stats` says.
fn expected(stats: &Value) -> Value {
    let float = |n: &Value| {
        n.as_f64().map_or(String::new(), |n| if n == 0.0 { "0".to_owned() } else { format!("{n}") })
    };
    let count = |n: &Value| json!([grouped(n), n.to_string()]);
    let ratio = |of: &Value| json!([percent(of), float(&of["requests"])]);
    let all = &stats["all"];
    let mut shown = json!({
        "ratio-1m": ratio(&all["hit_ratios"]["1m"]),
        "ratio-1h": ratio(&all["hit_ratios"]["1h"]),
        "ratio-all": ratio(&all["hit_ratios"]["all"]),
        "requests": count(&all["requests"]),
        "active": count(&stats["active"]),
        "failed": count(&stats["failed"]),
        "saved": count(&all["origin_requests_saved"]),
    });
    for (id, of, part) in [
        ("hit-p50", "hits", "p50_s"),
        ("hit-p99", "hits", "p99_s"),
        ("miss-p50", "misses", "p50_s"),
        ("miss-p99", "misses", "p99_s"),
    ] {
        shown[id] = json!(float(&all["durations"]["1m"][of][part]));
    }
    let mut routes = json!({});
    for (name, of) in stats["routes"].as_object().unwrap().iter().filter(|(name, _)| *name != "-") {
        let missed: u64 = of["misses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        routes[name] = json!({
            "hit 1m": ratio(&of["hit_ratios"]["1m"]),
            "hit 1h": ratio(&of["hit_ratios"]["1h"]),
            "memory": count(&of["hits"]["memory"]),
            "redis": count(&of["hits"]["redis"]),
            "stale": count(&of["stale"]),
            "missed": count(&json!(missed)),
            "p99 hit": json!(float(&of["durations"]["1m"]["hits"]["p99_s"])),
            "p99 miss": json!(float(&of["durations"]["1m"]["misses"]["p99_s"])),
        });
    }
    json!({ "all": shown, "routes": routes })
}

/// Whether all that is expected is shown; what has no text of its own here is compared by value.
fn agrees(shown: &Value, expected: &Value) -> bool {
    // JSON is read here to the last digit but one.
    let near = |shown: &Value, wanted: &str| {
        let numbers = (shown.as_str().unwrap_or_default().parse::<f64>(), wanted.parse::<f64>());
        match numbers {
            (Ok(shown), Ok(wanted)) => (shown - wanted).abs() <= wanted.abs() * 1e-12,
            _ => *shown == *wanted,
        }
    };
    let same = |(name, wanted): (&String, &Value), shown: &Value| match wanted {
        Value::String(value) => near(&shown[name][1], value),
        both => shown[name][0] == both[0] && near(&shown[name][1], both[1].as_str().unwrap()),
    };
    let all =
        |shown: &Value, expected: &Value| expected.as_object().unwrap().iter().all(|one| same(one, shown));
    let routes = expected["routes"].as_object().unwrap();
    all(&shown["all"], &expected["all"]) && routes.iter().all(|(name, of)| all(&shown["routes"][name], of))
}

/// Waits until the page shows what `/stats` says at the same time.
fn shows_the_stats(page: &Page, larder: &Larder) {
    let (mut shown, mut wanted) = (Value::Null, Value::Null);
    let agree = within(browser::PATIENCE, || {
        (wanted, shown) = (expected(&larder.stats()), figures(page));
        agrees(&shown, &wanted)
    });
    assert!(agree, "shown\n{shown:#}\nexpected\n{wanted:#}");
}

/// Where pictures go, if anybody wants to see them.
fn picture(name: &str) -> Option<PathBuf> {
    std::env::var_os("LARDER_SCREENSHOTS").map(|folder| PathBuf::from(folder).join(format!("{name}.png")))
}

fn is_silent_and_stays_here(page: &Page, larder: &Larder) {
    assert_eq!(page.errors(), Vec::<Value>::new());
    let here = format!("http://{}/", larder.admin());
    let asked = page.told("Network.requestWillBeSent");
    let asked: Vec<&str> = asked.iter().map(|request| request["request"]["url"].as_str().unwrap()).collect();
    assert!(asked.len() > 6, "{asked:?}");
    for url in asked {
        assert!(url.starts_with(&here), "{url}");
    }
}

#[test]
fn the_page_shows_what_stats_says_moves_opens_purges_and_explains() {
    let origin = origin();
    let top = "purge_from = [\"127.0.0.1\"]\n[timing]\nslow_request = \"10ms\"";
    let larder = Larder::start(&config(&origin, top));
    let sent = send_the_mix(&larder);
    let stats = settled(&larder, sent);
    assert_eq!((sent, &stats["routes"]["api"]["bypass"]), (40, &json!(7)));
    let browser = Browser::start();
    let page = browser.page(1360, 900, false);
    page.open(&format!("http://{}/", larder.admin()));
    page.wait_for(&format!("document.getElementById('requests')?.textContent === '{sent}'"));
    shows_the_stats(&page, &larder);

    // `larder top` and `/metrics` say the same.
    let admin = larder.admin().to_string();
    let top = run_to_end(&["top", "--admin", &admin, "--once", "--json"], larder.directory());
    let top: Value = serde_json::from_str(&top.out).unwrap();
    let shown = figures(&page);
    assert_eq!(shown["all"]["requests"][1], top["all"]["requests"].to_string());
    for route in top["routes"].as_array().unwrap().iter().filter(|route| route["route"] != "-") {
        let row = &shown["routes"][route["route"].as_str().unwrap()];
        assert_eq!(row["missed"][1], route["missed"].to_string());
        assert_eq!(row["memory"][1], route["hits"]["memory"].to_string());
        assert_eq!(row["mostly"][1].as_str().unwrap(), route["top_miss_cause"].as_str().unwrap_or(""));
    }
    assert_eq!(shown["routes"]["api"]["memory"][1], "9");
    metrics_agree(&page, &larder);

    // What to tune next: eight answers with a cookie of their own, seven requests with one.
    let tips = page.text("document.getElementById('advice').innerText");
    assert!(tips.contains("set_cookie = \"strip\"") && tips.contains("cookies = \"ignore\""), "{tips}");
    assert!(
        tips.contains("8 requests of the last ten minutes") && tips.contains("[route.cache] of line"),
        "{tips}"
    );

    // The figures move by themselves.
    (0..1_200).for_each(|_| drop(get(larder.proxy(), "/api/a", &[HOST])));
    page.wait_for("document.getElementById('requests').textContent === '1,240'");
    page.wait_for("document.querySelectorAll('[data-route=api] .spark rect').length > 0");
    shows_the_stats(&page, &larder);

    // A route opens and closes by key, and tells its reasons, keys and history.
    page.value("document.querySelector('[data-route=api] button').focus()");
    page.press("Enter");
    page.wait_for(
        "document.querySelector('[data-route=api] button').getAttribute('aria-expanded') === 'true'",
    );
    let cold = stats["routes"]["api"]["miss_causes"]["cold"].as_u64().unwrap();
    page.wait_for(&format!("/cold\\s*{cold}/.test(document.querySelector('tr.detail').innerText)"));
    let detail = page.text("document.querySelector('tr.detail').innerText");
    for words in [
        "uncacheable",
        "set-cookie",
        "private",
        "cookie",
        "http://api.test/api/a",
        "origin's, else 10m",
        "line ",
    ] {
        assert!(detail.contains(words), "{words} is not in\n{detail}");
    }
    assert_eq!(page.value("document.querySelectorAll('tr.detail canvas').length"), 1);
    page.picture(picture("desktop-light").as_deref());

    // Nothing that comes from outside is taken for markup or for a script.
    page.wait_for("document.getElementById('slow-rows').innerText.includes('/api/')");
    (0..20).for_each(|nth| drop(get(larder.proxy(), &format!("{QUOTES}{nth}"), &[HOST])));
    page.wait_for("document.body.innerText.includes(\"?q=');document.title='taken'\")");
    let body = json!({ "tags": [MARKUP] }).to_string();
    assert_eq!(client::request(larder.admin(), "POST", "/purge", &[], body.as_bytes()).status, 200);
    page.wait_for("document.getElementById('purges').innerText.includes('<img/src=x/onerror=')");
    assert_eq!(page.value("[document.images.length, document.title]"), json!([0, "Larder"]));
    page.value("document.querySelector('[data-route=api] button').focus()");
    page.press(" ");
    page.wait_for("document.querySelector('tr.detail') === null");

    purges_and_explains(&page, &larder);
    is_silent_and_stays_here(&page, &larder);

    // What cannot be purged is told, too; Chromium shows such an answer in its console.
    page.value("document.getElementById('purge-name').value = ''");
    page.value("document.getElementById('purge-name').focus()");
    page.write("no url");
    page.press("Enter");
    page.wait_for("document.getElementById('purge-said').innerText.includes('must be absolute')");
}

/// The samples of `/metrics`, by name and labels.
fn samples(larder: &Larder) -> BTreeMap<String, f64> {
    let text = client::get(larder.admin(), "/metrics", &[("Host", "localhost")]).text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What `/metrics` says of each figure of the table.
fn metrics_agree(page: &Page, larder: &Larder) {
    let (mut shown, mut told) = (figures(page), samples(larder));
    let sum = |told: &BTreeMap<String, f64>, family: &str, route: &str, labels: &[&str]| -> f64 {
        let of = format!("{family}{{route=\"{route}\"");
        let all = told.iter().filter(|(name, _)| name.starts_with(&of));
        all.filter(|(name, _)| labels.iter().all(|label| name.contains(label))).map(|(_, n)| n).sum()
    };
    let mut agrees = || {
        (shown, told) = (figures(page), samples(larder));
        let routes = shown["routes"].as_object().unwrap();
        let value = |of: &Value| of[1].as_str().unwrap().parse::<f64>().unwrap();
        let rows = routes.iter().all(|(route, row)| {
            let requests = |labels: &[&str]| sum(&told, "larder_requests_total", route, labels);
            let ratio = |window: &str| {
                let window = format!("window=\"{window}\"");
                sum(&told, "larder_hit_ratio", route, &[&window, "of=\"requests\""])
            };
            value(&row["memory"]) == requests(&["result=\"hit\"", "tier=\"memory\""])
                && value(&row["redis"]) == requests(&["result=\"hit\"", "tier=\"redis\""])
                && value(&row["stale"]) == requests(&["result=\"stale"])
                && value(&row["missed"]) == sum(&told, "larder_misses_total", route, &[])
                && (value(&row["hit 1m"]) - ratio("1m")).abs() < 1e-9
                && (value(&row["hit 1h"]) - ratio("1h")).abs() < 1e-9
        });
        let all: f64 =
            told.iter().filter(|(n, _)| n.starts_with("larder_requests_total")).map(|(_, n)| n).sum();
        rows && routes.len() > 1 && value(&shown["all"]["requests"]) == all
    };
    assert!(within(browser::PATIENCE, &mut agrees), "{shown:#}\n{told:#?}");
}

fn purges_and_explains(page: &Page, larder: &Larder) {
    let explained = |verdict: &str| {
        page.value("document.getElementById('explain-url').focus()");
        page.press("Enter");
        page.wait_for(&format!("document.getElementById('explain-said').innerText.startsWith('{verdict}')"));
        assert_eq!(get(larder.proxy(), "/api/a", &[HOST]).header("x-cache"), verdict);
        page.text("document.getElementById('explain-said').innerText")
    };
    page.value("document.getElementById('explain-url').focus()");
    page.write("http://api.test/api/a");
    let said = explained("HIT");
    assert!(said.contains("api (line ") && said.contains("of 600 s by ttl.default"), "{said}");

    page.value("document.getElementById('purge-name').focus()");
    page.write("http://api.test/api/a");
    page.press("Enter");
    page.wait_for(
        "document.getElementById('purge-said').innerText.includes('Purged: http://api.test/api/a')",
    );
    page.wait_for("document.getElementById('purges').innerText.includes('url 1: http://api.test/api/a')");
    let said = explained("MISS");
    assert!(said.contains("nothing"), "{said}");

    // What is purged by the method stands there, too, with who did it.
    let fields = [HOST, ("Fastly-Soft-Purge", "1")];
    assert_eq!(client::request(larder.proxy(), "PURGE", "/api/a?by=method", &fields, b"").status, 200);
    page.wait_for("document.getElementById('purges').innerText.includes('api.test/api/a?by=method')");
    let row = page.text("document.querySelector('#purges tr').innerText");
    assert!(row.contains("softly") && row.contains("PURGE from 127.0.0.1"), "{row}");
}

#[test]
fn it_is_read_in_dark_and_light_and_on_a_telephone_and_used_by_keys_alone() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, "[timing]\nslow_request = \"10ms\""));
    settled(&larder, send_the_mix(&larder));
    let browser = Browser::start();
    let page = browser.page(390, 844, true);
    page.open(&format!("http://{}/", larder.admin()));
    page.wait_for("document.querySelectorAll('#route-rows button').length >= 2");
    let ground = || page.text("getComputedStyle(document.body).backgroundColor");
    let dark = ground();
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    page.value("document.querySelector('[data-route=api] button').click()");
    page.wait_for("document.querySelectorAll('tr.detail .keys li').length > 0");
    assert_eq!(page.value(fits), true, "nothing stands out to the side");
    page.picture(picture("phone-dark").as_deref());
    page.prefers(false);
    let light = ground();
    assert_ne!(dark, light);
    page.picture(picture("phone-light").as_deref());

    // Whoever wants it otherwise than the system has it so.
    page.resize(1360, 900);
    for expected in ["light", "dark", "system"] {
        page.value("document.getElementById('theme').focus()");
        page.press("Enter");
        assert_eq!(page.text("document.getElementById('theme').textContent"), format!("Theme: {expected}"));
        assert_eq!(ground(), if expected == "dark" { dark.clone() } else { light.clone() });
        page.picture(picture(&format!("desktop-{expected}")).as_deref());
    }
    // All that is read stands out from what it stands on (WCAG 2.1, 1.4.3), in both.
    for is_dark in [false, true] {
        page.prefers(is_dark);
        let faint = page.value(CONTRAST);
        assert_eq!(faint, json!([]), "dark: {is_dark}");
    }

    page.value("document.querySelector('[data-route=api] button').click()");
    // From the top, Tab leads to everything that can be used, in its order, and each says what it is.
    page.value("document.activeElement.blur(); window.scrollTo(0, 0)");
    let usable = "[...document.querySelectorAll('a[href], button, input, select')].filter((element) => element.offsetParent !== null || element.classList.contains('skip'))";
    let count = page.value(&format!("{usable}.length")).as_u64().unwrap();
    assert!(count > 15, "{count}");
    page.value("window.reached = []; document.body.tabIndex = -1; document.body.focus()");
    for _ in 0..count {
        page.press("Tab");
        page.value("window.reached.push(document.activeElement)");
    }
    let lost = page.value(&format!(
        "{usable}.filter((element, at) => window.reached[at] !== element).map((element) => element.outerHTML)"
    ));
    assert_eq!(lost, json!([]));
    let nameless = page.value(&format!(
        "{usable}.filter((e) => !(e.textContent.trim() || e.ariaLabel || (e.labels && e.labels.length))).map((e) => e.outerHTML)"
    ));
    assert_eq!(nameless, json!([]));
    is_silent_and_stays_here(&page, &larder);
}

/// Texts whose colour differs too little from what is behind them.
const CONTRAST: &str = "(() => {
    const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = rgb(getComputedStyle(at).backgroundColor);
            if (colour.length === 3) return colour;
        }
        return [255, 255, 255];
    };
    const faint = new Set();
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || element.offsetParent === null) continue;
        const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
    }
    return [...faint];
})()";

#[test]
fn where_a_token_is_asked_for_the_page_asks_for_it_and_keeps_it_for_itself() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, "admin_token = \"a-token-of-some-length-0123\""));
    get(larder.proxy(), "/api/a", &[HOST]);
    let browser = Browser::start();
    let page = browser.page(1000, 700, false);
    page.open(&format!("http://{}/", larder.admin()));
    page.wait_for("document.activeElement?.id === 'token-text'");
    assert_eq!(page.value("document.getElementById('board').hidden"), true);
    page.write("wrong");
    page.press("Enter");
    page.wait_for("document.getElementById('token-said').textContent.includes('not its token')");
    page.picture(picture("token").as_deref());
    page.write("a-token-of-some-length-0123");
    page.press("Enter");
    page.wait_for("document.getElementById('requests').textContent === '1'");
    let kept =
        page.value("[sessionStorage.length, JSON.stringify(localStorage), document.cookie, location.href]");
    assert_eq!(kept, json!([1, "{}", "", format!("http://{}/", larder.admin())]));
    page.value("document.getElementById('purge-name').focus()");
    page.write("http://api.test/api/a");
    page.press("Enter");
    page.wait_for("document.getElementById('purge-said').innerText.includes('Purged')");
    assert_eq!(get(larder.proxy(), "/api/a", &[HOST]).header("x-cache"), "MISS");
}

#[test]
fn the_page_and_its_parts_are_given_to_browsers_with_what_forbids_all_else() {
    let larder = Larder::start(&config(&origin(), ""));
    let page = get(larder.admin(), "/", &[HTML]);
    let text = page.text();
    let parts: Vec<&str> = text.split('"').filter(|part| part.starts_with("/dashboard/")).collect();
    assert_eq!(parts.len(), 6, "{parts:?}");
    let kinds =
        [("js", "text/javascript"), ("css", "text/css"), ("svg", "image/svg+xml"), ("/", "text/html")];
    for path in parts.into_iter().chain(["/"]) {
        let answer = get(larder.admin(), path, &[HTML]);
        let kind = kinds.iter().find(|(end, _)| path.ends_with(end)).unwrap().1;
        assert!(
            answer.status == 200 && answer.header("content-type").starts_with(kind),
            "{path}: {answer:?}"
        );
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-cache");
        let tag = answer.header("etag");
        let again = get(larder.admin(), path, &[HTML, ("If-None-Match", tag)]);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag), "{path}");
        assert_eq!(get(larder.admin(), path, &[HTML, ("If-None-Match", "\"1\"")]).status, 200);
        let head = client::request(larder.admin(), "HEAD", path, &[HTML], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    // A program is given a list of what there is, and the page is for reading alone.
    assert!(get(larder.admin(), "/", &[]).text().contains("GET  /stats"));
    assert_eq!(client::request(larder.admin(), "POST", "/", &[HTML], b"").status, 405);
    assert_eq!(client::request(larder.admin(), "POST", "/events", &[], b"").status, 405);
    assert_eq!(get(larder.admin(), "/dashboard/nothing.js", &[]).status, 404);
    assert_eq!(get(larder.admin(), "/dashboard/route?name=nobody", &[]).status, 404);
    assert_eq!(get(larder.admin(), "/dashboard/route?name=api", &[]).json()["config"]["upstream"], "o");
}

#[test]
fn figures_want_the_token_and_no_other_site_gets_any_or_changes_anything() {
    let origin = origin();
    let open = Larder::start(&config(&origin, ""));
    let guarded = Larder::start(&config(&origin, "admin_token = \"a-token-of-some-length-0123\""));
    assert_eq!(get(guarded.admin(), "/", &[HTML]).status, 200, "the page holds nothing of anybody's");
    for path in ["/events", "/dashboard/route?name=api", "/stats", "/"] {
        assert_eq!(get(guarded.admin(), path, &[]).status, 401, "{path}");
    }
    let right = ("Authorization", "Bearer a-token-of-some-length-0123");
    assert_eq!(first_event(guarded.admin(), &[right]).1["version"], env!("CARGO_PKG_VERSION"));

    for path in ["/events", "/dashboard/route?name=api", "/slow?wait=1s"] {
        for site in ["cross-site", "same-site"] {
            assert_eq!(get(open.admin(), path, &[("Sec-Fetch-Site", site)]).status, 403, "{path} {site}");
        }
    }
    // A name that was made to lead here is not this listener's.
    assert_eq!(get(open.admin(), "/", &[HTML, ("Host", "evil.test")]).status, 403);

    let own = format!("http://{}", open.admin());
    let purge = |fields: &[(&str, &str)]| {
        let body = br#"{"url": "http://api.test/api/a"}"#;
        client::request(open.admin(), "POST", "/purge", fields, body).status
    };
    let json = ("Content-Type", "application/json");
    let ours = [("Origin", own.as_str()), json, ("Larder-Dashboard", "1"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(purge(&ours), 200);
    let others =
        [("Origin", "http://evil.test"), json, ("Larder-Dashboard", "1"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(purge(&others), 403);
    assert_eq!(purge(&ours[..2]), 403, "a form of this very origin, were there one");
}

/// What others have written is as they have released it, and lies beside its licence.
#[test]
fn the_charts_are_drawn_by_uplot_as_it_was_released() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/admin/dashboard/page/vendor");
    for (file, digest) in [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    ] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{file}");
    }
    let licence = std::fs::read_to_string(folder.join("uPlot.LICENSE.txt")).unwrap();
    assert!(licence.starts_with("The MIT License (MIT)"));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 3, "nothing else lies there");
}

/// Opens a stream and takes its first event.
fn first_event(admin: SocketAddr, fields: &[(&str, &str)]) -> (Connection, Value) {
    let mut connection = Connection::open(admin);
    connection.write_head("GET", "/events", fields);
    let head = connection.response_head("GET");
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"), "{head:?}");
    assert_eq!(head.header("connection"), "close");
    let event = next_event(&mut connection).expect("an event");
    (connection, event)
}

/// The next event; `None` where the body has ended as a body should.
fn next_event(connection: &mut Connection) -> Option<Value> {
    let chunk = String::from_utf8(connection.read_chunk()).unwrap();
    let data = chunk.lines().find_map(|line| line.strip_prefix("data: "))?;
    Some(serde_json::from_str(data).unwrap())
}

#[test]
fn eight_pages_may_look_on_and_each_that_goes_makes_room() {
    let larder = Larder::start(&config(&origin(), ""));
    let mut looking: Vec<_> = (0..8).map(|_| first_event(larder.admin(), &[])).collect();
    let refused = get(larder.admin(), "/events", &[]);
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"), "{}", refused.text());
    assert_eq!(get(larder.admin(), "/stats", &[]).status, 200, "others are answered");
    // Those who look on are told each second, without what they have.
    let (connection, first) = &mut looking[0];
    let second = next_event(connection).unwrap();
    assert!(first["history"].is_object() && second["history"].is_null());
    assert!(second["stats"]["uptime_s"].as_f64() > first["stats"]["uptime_s"].as_f64());
    looking.pop();
    assert!(within(PATIENCE, || {
        let mut connection = Connection::open(larder.admin());
        connection.write_head("GET", "/events", &[]);
        connection.response_head("GET").status == 200
    }));
}

#[test]
fn who_looks_on_and_reads_nothing_is_cut_off_and_holds_up_nobody() {
    let origin = origin();
    let mut config = config(&origin, "[limits]\nadmin_time = \"30s\"");
    for nth in 0..200 {
        config.push_str(&format!(
            "[[route]]\nname = \"route-{nth}-{}\"\nmatch = {{ path = \"/r{nth}/*\" }}\nupstream = \"o\"\n",
            "x".repeat(40)
        ));
    }
    let larder = Larder::start(&config);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&larder.admin().into()).unwrap();
    let mut deaf: std::net::TcpStream = socket.into();
    std::io::Write::write_all(&mut deaf, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut good, _) = first_event(larder.admin(), &[]);
    larder.err.wait_for_line(|line| line.contains("cut off"), Duration::from_secs(60));
    // What had been sent is all that comes: the body is not ended, but broken off.
    deaf.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    let _reset_or_end = deaf.read_to_end(&mut rest);
    assert!(rest.len() < 2_000_000 && !rest.ends_with(b"\r\n0\r\n\r\n"), "{}", rest.len());
    assert!(next_event(&mut good).is_some(), "who reads is told on");
}

#[test]
fn a_stream_ends_as_a_body_should_before_its_connection_is_too_old() {
    let larder = Larder::start(&config(&origin(), "[limits]\nadmin_time = \"300ms\""));
    let mut connection = Connection::open(larder.admin());
    connection.write_head("GET", "/events", &[]);
    let mut answer = connection.response_head("GET");
    connection.finish(&mut answer);
    assert!(answer.complete && answer.text().matches("event: ").count() > 1, "{answer:?}");
    assert!(connection.closes());
}

#[test]
fn who_looks_on_sees_a_larder_stop_and_is_told_its_end() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok("x", &[]));
    let mut larder = Larder::start(&config(&origin, "[limits]\nlame_duck = \"0s\""));
    let (mut looking, first) = first_event(larder.admin(), &[]);
    assert_eq!(first["stopping"], false);
    let mut asking = Connection::open(larder.proxy());
    asking.write_head("GET", "/api/slow", &[HOST]);
    origin.wait_for_requests(1);
    larder.terminate();
    let stopping = (0..30).find_map(|_| next_event(&mut looking).filter(|event| event["stopping"] == true));
    assert_eq!(stopping.expect("it says that it stops")["stats"]["active"], 1);
    gate.open();
    assert_eq!(asking.response("GET").status, 200);
    // Whatever is still told, then the last chunk.
    while next_event(&mut looking).is_some() {}
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}
