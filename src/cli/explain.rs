//! `larder explain`: asks a running Larder what would become of a request, and shows what it says.
//!
//! Knows how the answer reads for people.
//! Must not know: how anything is decided.
#![expect(clippy::indexing_slicing, reason = "a serde_json::Value gives null for what it does not have")]

use std::process::ExitCode;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::args::Explain;
use super::config_file::Source;
use super::whom::Named;
use super::{complain, exit, print, variable};
use crate::config::Config;

/// Has the Larder that is named say what would become of a request, by a file where that was named.
pub(super) fn explain(named: &Named, explain: &Explain) -> ExitCode {
    let by = named.source().filter(|_| explain.config.is_some());
    let larder = match by {
        None => named.asked(),
        Some(source) => match Config::parse(&source.text, &source.name, &variable) {
            Ok(config) => named.asked_as(source, &config),
            Err(problems) => {
                eprintln!("{problems}");
                return exit::CONFIG.into();
            }
        },
    };
    let larder = match larder {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    let wanted = match wanted(explain, by) {
        Ok(wanted) => wanted,
        Err(why) => return complain(&why, exit::USAGE),
    };
    match larder.post("/explain", serde_json::to_vec(&wanted).unwrap_or_default()) {
        Ok((StatusCode::OK, body)) => match serde_json::from_slice::<Value>(&body) {
            Ok(told) if explain.json => print(&format!("{told:#}\n")),
            Ok(told) => print(&text(&told)),
            Err(_) => larder.no_answer("what answers is no Larder"),
        },
        Ok((StatusCode::UNAUTHORIZED, _)) => larder.unauthorized(""),
        Ok((status, body)) => {
            let told: Value = serde_json::from_slice(&body).unwrap_or_default();
            let Some(why) = told["error"].as_str() else { return larder.other(status) };
            if status == StatusCode::UNPROCESSABLE_ENTITY {
                // Problems of the file, each of which says that it is one.
                eprintln!("{why}");
                return complain("not explained: that Larder takes the file for wrong", exit::FAILURE);
            }
            complain(&format!("not explained: {why}"), exit::FAILURE)
        }
        Err(error) => larder.no_answer(&error.to_string()),
    }
}

/// What is asked; with the file to judge by, and the variables that it names.
fn wanted(explain: &Explain, by: Option<&Source>) -> Result<Value, String> {
    let target = &*explain.target;
    if !(target.starts_with('/') || target.contains("://") || target == "*") {
        return Err(format!("`{target}` is no path: begin it with /"));
    }
    if target.contains(char::is_whitespace) {
        return Err(format!("`{target}` is no path: write a space as %20"));
    }
    let mut fields: Vec<[&str; 2]> = Vec::new();
    for line in &explain.field {
        let (name, value) = line.split_once(':').ok_or("-H: write a field as 'Name: value'")?;
        fields.push([name.trim(), value.trim()]);
    }
    let mut wanted = Map::new();
    wanted.insert("method".into(), explain.method.as_deref().unwrap_or("GET").into());
    wanted.insert("target".into(), explain.target.as_str().into());
    wanted.insert("fields".into(), json!(fields));
    wanted.extend(explain.data.as_ref().map(|data| ("body".into(), data.as_str().into())));
    wanted.extend(explain.from.map(|from| ("from".into(), from.to_string().into())));
    if let Some(source) = by {
        let other = json!({ "name": source.name, "text": source.text, "variables": variables(&source.text, &variable) });
        wanted.insert("config".into(), other);
    }
    Ok(wanted.into())
}

/// The variables that a file names, as far as they are set here: the running Larder has others.
fn variables(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Map<String, Value> {
    let names = text.split("${").skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name));
    names.filter_map(|name| Some((name.to_owned(), variable(name)?.into()))).collect()
}

/// An explanation for people.
fn text(told: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| out.push_str(&format!("{name:<10} {text}\n"));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let request = &told["request"];
    line("request", format!("{} {}", word(&request["method"]), word(&request["target"])));
    let assumed = if request["host_assumed"] == true { "  (assumed: say it by -H 'Host: …')" } else { "" };
    line("", format!("host {}{assumed}", word(&request["host"])));
    match request["https"].as_bool() {
        Some(true) => {
            line("", "by https, as a proxy says it that has ended TLS: X-Forwarded-Proto: https".to_owned())
        }
        Some(false) => line(
            "",
            "by http: nobody at that address is trusted to have ended TLS (trusted_proxies, --from)"
                .to_owned(),
        ),
        None => {}
    }
    if let Some(left_out) = names(&request["fields_left_out"]) {
        line("", format!("left out, as the origin does not get it from this client: {left_out}"));
    }
    let route = &told["route"];
    match route["name"].as_str() {
        Some(name) => {
            let at = match route["file"].as_str() {
                Some(file) => format!("{file}:{}", route["line"]),
                // It was started without one.
                None => format!("line {} of what `--print-config` prints", route["line"]),
            };
            line("route", format!("{name}  ({at}, upstream {})", word(&route["upstream"])));
        }
        None => line("route", "none".to_owned()),
    }
    for (nth, step) in told["key"]["steps"].as_array().into_iter().flatten().enumerate() {
        let mut notes: Vec<String> = Vec::new();
        notes.extend(names(&step["dropped"]).map(|dropped| format!("without {dropped}")));
        notes.extend((step["sorted"] == true).then(|| "sorted".to_owned()));
        let notes = if notes.is_empty() { String::new() } else { format!(": {}", notes.join(", ")) };
        let name = if nth == 0 { "key" } else { "" };
        line(name, format!("{}   [{}{notes}]", word(&step["key"]), word(&step["step"])));
    }
    // What Larder answers itself is looked up nowhere.
    if !told["memory"].is_null() {
        stored(told, &mut line);
    }
    if told["in_flight"] == true {
        line("", "a fetch for this key is on its way: the request may share it".to_owned());
    }
    let verdict = &told["verdict"];
    let more: Vec<&str> =
        ["tier", "reason", "detail"].iter().filter_map(|name| verdict[*name].as_str()).collect();
    let or = verdict["or"].as_str().map_or(String::new(), |or| format!(", or {or}, as the origin answers"));
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    let status = verdict["status"].as_u64().map_or(String::new(), |status| format!(" {status}"));
    line("verdict", format!("{}{status}{more}{or}", word(&verdict["outcome"]).to_uppercase()));
    line("", format!("{} [{}]", word(&verdict["why"]), word(&verdict["rfc"])));
    advice(&told["would_be_a_hit_if"], &mut line);
    out
}

/// What both tiers hold.
fn stored(told: &Value, line: &mut impl FnMut(&str, String)) {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let memory = &told["memory"];
    let variants = memory["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if variants.is_empty() {
        line("memory", "nothing".to_owned());
    }
    for (nth, variant) in variants.iter().enumerate() {
        line(if nth == 0 { "memory" } else { "" }, response(variant));
    }
    if let Some(why) = memory["known_uncacheable"].as_str() {
        line("", format!("known not to be storable: {why}"));
    }
    match &told["redis"] {
        Value::Null => line("redis", "not configured".to_owned()),
        redis if redis["response"].is_object() => line("redis", response(&redis["response"])),
        redis => {
            let (why, breaker) = (word(&redis["absent"]), word(&redis["breaker"]));
            line(
                "redis",
                match &*why {
                    "not-found" | "other-variant" | "damaged" => {
                        format!("nothing ({why}, breaker {breaker})")
                    }
                    _ => format!("not known: it could not be asked ({why})"),
                },
            );
        }
    }
}

fn advice(advice: &Value, line: &mut impl FnMut(&str, String)) {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let settings = advice["settings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let requests = advice["request"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut name = "a hit if";
    for setting in settings {
        let place = format!("in {} of line {}", word(&setting["table"]), advice["route_line"]);
        line(name, format!("`{}` {place}", word(&setting["line"])));
        line("", format!("  caution: {}", word(&setting["caution"])));
        name = "and if";
    }
    for request in requests {
        line(name, format!("it came {}", word(request)));
        name = "and if";
    }
    if advice["once_stored"] == true {
        line(name, "such a request has brought it before: nothing is stored yet".to_owned());
    }
}

/// A stored response in a line.
fn response(stored: &Value) -> String {
    let number = |name: &str| stored[name].as_f64().unwrap_or_default();
    let mut parts = vec![
        stored["status"].to_string(),
        format!(
            "age {} of {} by {}",
            seconds(number("age")),
            seconds(number("lifetime")),
            stored["lifetime_from"].as_str().unwrap_or("-")
        ),
        format!("{} bytes", stored["length"]),
    ];
    let vary = stored["vary"].as_object().into_iter().flatten();
    parts.extend(vary.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("(none)"))));
    parts.extend(names(&stored["tags"]).map(|tags| format!("tags {tags}")));
    for (name, told) in [("selected", "this one"), ("purged", "purged"), ("soft_purged", "purged softly")] {
        if stored[name] == true {
            parts.push(told.to_owned());
        }
    }
    parts.join(", ")
}

/// Of what is short, fractions count: a lifetime of 100 ms is none of 0 s.
fn seconds(time: f64) -> String {
    let decimals = match time {
        time if time < 1.0 => 3,
        time if time < 10.0 => 1,
        _ => 0,
    };
    let text = format!("{time:.decimals$}");
    let text = if decimals == 0 { text.as_str() } else { text.trim_end_matches('0').trim_end_matches('.') };
    format!("{text}s")
}

fn names(list: &Value) -> Option<String> {
    let names: Vec<&str> = list.as_array()?.iter().filter_map(Value::as_str).collect();
    (!names.is_empty()).then(|| names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_variables_that_a_file_names_go_with_it() {
        let set = |name: &str| (name != "UNSET").then(|| format!("{name}'s"));
        let found = variables("a = \"${ONE}\"\nb = \"${UNSET}${TWO}\" # ${", &set);
        assert_eq!(Value::Object(found), json!({ "ONE": "ONE's", "TWO": "TWO's" }));
    }

    #[test]
    fn a_lifetime_below_a_second_is_none_of_0_s() {
        for (time, text) in [
            (0.0, "0s"),
            (0.1, "0.1s"),
            (0.25, "0.25s"),
            (1.5, "1.5s"),
            (3.0, "3s"),
            (12.4, "12s"),
            (60.0, "60s"),
        ] {
            assert_eq!(seconds(time), text);
        }
        let stored = json!({ "status": 200, "age": 3.21, "lifetime": 0.1, "lifetime_from": "ttl.default", "length": 2 });
        assert_eq!(response(&stored), "200, age 3.2s of 0.1s by ttl.default, 2 bytes");
    }

    #[test]
    fn what_is_asked_is_what_was_written() {
        let explain = Explain {
            target: "/a".into(),
            field: vec!["Cookie: a=b".into(), "X:".into()],
            from: "192.0.2.1".parse().ok(),
            ..Explain::default()
        };
        let fields = json!([["Cookie", "a=b"], ["X", ""]]);
        let expected = json!({ "method": "GET", "target": "/a", "fields": fields, "from": "192.0.2.1" });
        assert_eq!(wanted(&explain, None), Ok(expected));
        assert!(wanted(&Explain { field: vec!["a".into()], ..explain.clone() }, None).is_err());
        for (target, why) in [("users/1", "begin it with /"), ("", "begin it with /"), ("/a b", "%20")] {
            let wrong = wanted(&Explain { target: target.into(), ..explain.clone() }, None);
            assert!(wrong.as_ref().is_err_and(|said| said.contains(why)), "{wrong:?}");
        }
    }
}
