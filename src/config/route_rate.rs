//! `rate_limit` of a route: how often each client may ask.
//!
//! Knows these keys, and `"100/s"`.
//! Must not know: how requests are counted, or what is answered to too many.

use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::address::mistake;
use super::problems::Found;
use super::reader::{Text, Value};
use super::section::Section;
use super::units::Mistake;
use super::{RateBy, RateLimit};
use crate::rate::Rate;

/// Clients that a limit tells apart by default: more than ask at once of most APIs, in 1.1 MiB.
const CLIENTS: usize = 65_536;
/// The most requests of a rate or a burst; beyond it nothing is limited.
const MOST: u32 = 1_000_000;
const EXAMPLE: &str = "write such as \"100/s\"; s, m and h are known";

/// Reads a route's limits: a table, or a list of them. None where it is not there: how much is too much,
/// only the operator knows.
pub(super) fn read(route: &mut Section<'_>) -> Vec<RateLimit> {
    let Some(value) = route.value("rate_limit") else { return Vec::new() };
    let values: Vec<&Value<'_>> = match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    };
    if values.is_empty() {
        let found = Found::new(value.span(), "an empty list of limits limits nothing");
        route.reader.report(found.help("write { rate = \"100/s\" }, or leave it out for no limit"));
    }
    let mut limits = Vec::new();
    for value in values {
        let Some(limit) = route.section_of("rate_limit", value).and_then(limit) else { continue };
        if limits.contains(&limit) {
            let found = Found::new(value.span(), "this limit is already listed");
            route.reader.report(found.help("leave it out: each request would count twice"));
        }
        limits.push(limit);
    }
    limits
}

fn limit(mut section: Section<'_>) -> Option<RateLimit> {
    let s = &mut section;
    let text = s.text("rate");
    if s.span_of("rate").is_none() {
        s.missing("rate", "write rate = \"100/s\"");
    }
    let rate = text.and_then(|text| s.reader.or_refuse(&text, rate(&text.value)));
    // What the rate gives in its own unit of time: "30/m" lets 30 come together, once a minute.
    let default = rate.map_or(1, |(count, _)| count);
    let burst = s.count("burst", default, 1..=MOST);
    let by = s.value("by").map_or(Some(RateBy::Address), |value| by(s, value));
    let clients = s.count("clients", CLIENTS, 1024..=16_777_216);
    section.finish();
    let (count, per) = rate?;
    Some(RateLimit { rate: Rate::new(count, per, burst), by: by?, clients })
}

/// `100/s`, as a count and a time.
fn rate(text: &str) -> Result<(u32, Duration), Mistake> {
    let Some((count, unit)) = text.split_once('/') else {
        let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let help = if number { format!("write \"{text}/s\"") } else { EXAMPLE.to_owned() };
        return mistake("not a rate", help);
    };
    let (count_text, digits) = (count, count.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(count) = count.parse().ok().filter(|count| digits && (1..=MOST).contains(count)) else {
        return mistake("not a rate", format!("write a number from 1 to {MOST} before the slash"));
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => {
            let meant = ["s", "m", "h"].into_iter().find(|unit| other.to_lowercase().starts_with(unit));
            let help = meant.map_or(EXAMPLE.to_owned(), |unit| format!("write \"{count_text}/{unit}\""));
            return mistake(format!("unknown unit `{other}`"), help);
        }
    };
    Ok((count, Duration::from_secs(seconds)))
}

/// `"address"`, or `{ header = "…" }`.
fn by<'a>(section: &Section<'a>, value: &'a Value<'a>) -> Option<RateBy> {
    let help = "write \"address\", or { header = \"X-Api-Key\" }";
    if value.get_ref().as_table().is_none() {
        let text = section.reader.text(value)?;
        if text.value != "address" {
            section.reader.refuse(&text, "not what clients can be told by", help);
            return None;
        }
        return Some(RateBy::Address);
    }
    let mut part = section.section_of("by", value)?;
    let text = part.text("header");
    let name = text.as_ref().and_then(|text: &Text| HeaderName::from_bytes(text.value.as_bytes()).ok());
    match (&text, &name) {
        (Some(text), None) => part.reader.refuse(text, "not a field name", "write such as \"X-Api-Key\""),
        (None, _) if part.span_of("header").is_none() => {
            part.reader.report(Found::new(part.span.clone(), "`by` says nothing").help(help));
        }
        _ => {}
    }
    part.finish();
    name.map(RateBy::Header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit_of_time() {
        for (text, count, seconds) in
            [("100/s", 100, 1), ("30/m", 30, 60), ("1/h", 1, 3600), ("1000000/s", MOST, 1)]
        {
            assert_eq!(rate(text), Ok((count, Duration::from_secs(seconds))), "{text}");
        }
        let before = "write a number from 1 to 1000000 before the slash";
        for (text, message, help) in [
            ("100", "not a rate", "write \"100/s\""),
            ("", "not a rate", EXAMPLE),
            ("fast", "not a rate", EXAMPLE),
            ("0/s", "not a rate", before),
            ("-1/s", "not a rate", before),
            ("+1/s", "not a rate", before),
            ("1.5/s", "not a rate", before),
            ("1000001/s", "not a rate", before),
            ("/s", "not a rate", before),
            ("5/min", "unknown unit `min`", "write \"5/m\""),
            ("5/Second", "unknown unit `Second`", "write \"5/s\""),
            ("5/d", "unknown unit `d`", EXAMPLE),
            ("5/", "unknown unit ``", EXAMPLE),
        ] {
            let want = Mistake { message: message.into(), help: help.into() };
            assert_eq!(rate(text), Err(want), "{text}");
        }
    }
}
