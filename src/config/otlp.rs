//! `[otlp]`: who collects traces, and what is told.
//!
//! Knows the forms of an endpoint and of what is sent with each batch. Without an endpoint there is no collector.
//! Must not know: what a span is.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::problems::Found;
use super::reader::{Text, Zero};
use super::section::Section;
use super::units::Mistake;
use super::{Lint, Otlp, Sample, address, check, redis};
use crate::fields::trace::Tracing;

/// What is appended to an endpoint without a path: where collectors take traces (OTLP/HTTP).
const SIGNAL: &str = "/v1/traces";

/// Reads the table; none where it has no endpoint.
pub(super) fn read(top: &mut Section<'_>, trace: Tracing) -> Option<Otlp> {
    let mut section = top.section("otlp")?;
    let (s, d) = (&mut section, Otlp::default());
    let endpoint = s.text("endpoint");
    let place = endpoint.as_ref().and_then(|text| {
        let read = endpoint_of(&text.value);
        read.map_err(|mistake| s.reader.refuse(&unrepeated(text), mistake.message, mistake.help)).ok()
    });
    let (host, port, path) = place.unwrap_or((d.host, d.port, d.path));
    let otlp = Otlp {
        host,
        port,
        path,
        headers: s.section("headers").map(headers).unwrap_or_default(),
        headers_file: redis::whole_path(s, "headers_file", "/etc/larder/otlp.headers"),
        sample: check::sample(s, "sample", d.sample),
        timeout: s.duration("timeout", d.timeout, Zero::Refused("write such as \"10s\"")),
        queue: s.count("queue", d.queue, 1..=1_000_000),
        service_name: s.text("service_name").map_or(d.service_name, |text| text.value),
        attributes: s.section("attributes").map(attributes).unwrap_or_default(),
    };
    if endpoint.is_none() && s.span_of("endpoint").is_none() {
        let found =
            Found::warning(Lint::NoEndpoint, s.span.clone(), "there is no `endpoint`: no traces are sent");
        s.reader.report(found.help("write such as endpoint = \"http://127.0.0.1:4318\""));
    } else if !cfg!(feature = "otlp")
        && let Some(span) = s.span_of("endpoint")
    {
        let found = Found::new(span, "this Larder was built without the feature `otlp`");
        s.reader.report(found.help("leave it out, or build with --features otlp"));
    }
    let does_nothing = match trace {
        Tracing::Off => s.span_of("endpoint").zip(Some("`log.trace` is \"off\": no request has a trace")),
        Tracing::Accept => s.span_of("sample").zip(Some(
            "this is of the traces that Larder begins, and `log.trace` is \"accept\": it begins none",
        )),
        Tracing::Make(_) => None,
    };
    if let Some((span, why)) = does_nothing {
        let found = Found::warning(Lint::NoTraces, span, why);
        s.reader.report(found.help("write log.trace = \"make\", or leave this out"));
    }
    section.finish();
    endpoint.map(|_| otlp)
}

/// A URL may hold a password, which is not repeated.
fn unrepeated(text: &Text) -> Text {
    Text { from_env: text.from_env && !text.value.contains('@'), ..text.clone() }
}

fn endpoint_of(text: &str) -> Result<(String, u16, String), Mistake> {
    let example = "write such as \"http://127.0.0.1:4318\"";
    if text.starts_with("https://") {
        return address::mistake(
            "Larder does not speak TLS to collectors",
            "name one on this machine, which sends on over TLS",
        );
    }
    let Some(rest) = text.strip_prefix("http://") else {
        return address::mistake("an endpoint is written as a URL", example);
    };
    if rest.contains('@') {
        return address::mistake("an endpoint carries no user or password", "set Authorization in `headers`");
    }
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
    let (host, port) = address::host_and_port(authority)?;
    let path = path.trim_end_matches('/');
    if !path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
        return address::mistake("an endpoint is a host, a port and a path alone", example);
    }
    let path = if path.ends_with(SIGNAL) { path.to_owned() } else { format!("{path}{SIGNAL}") };
    Ok((host, port.unwrap_or(4318), path))
}

/// Fields by which the connection and the message are ruled.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
];

fn headers(section: Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (key, value) in section.entries() {
        let refuse = |span, message: &str, help: &str| {
            section.reader.report(Found::new(span, message).help(help));
        };
        let Some(text) = section.reader.text(value) else { continue };
        match field(key.get_ref(), &text.value) {
            Ok(field) => headers.push(field),
            Err(Unfit::Name) => refuse(key.span(), "not a field name", "write such as \"x-api-key\""),
            Err(Unfit::Ours) => refuse(key.span(), "Larder writes this field itself", "leave it out"),
            // Not repeated: most that are set here are secrets.
            Err(Unfit::Value) => refuse(text.span, "not a field value", "write visible ASCII"),
        }
    }
    headers
}

/// Why a field cannot be sent.
enum Unfit {
    Name,
    Ours,
    Value,
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Unfit> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unfit::Name)?;
    if OURS.contains(&name) {
        return Err(Unfit::Ours);
    }
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| Unfit::Value)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The fields of a file, `Name: value` on each line, `#` before a comment. A sentence where it has another; no value
/// is repeated.
pub(super) fn fields_of(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut fields = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = line.split_once(':').and_then(|(name, value)| field(name.trim(), value).ok());
        fields.push(read.ok_or_else(|| format!("line {number} is not such as «x-api-key: …»"))?);
    }
    Ok(fields)
}

fn attributes(section: Section<'_>) -> Vec<(String, String)> {
    let entries = section.entries().into_iter();
    entries
        .filter_map(|(key, value)| Some((key.get_ref().to_string(), section.reader.text(value)?.value)))
        .collect()
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            // On this machine: whoever collects for many is reached by way of an agent, which holds what waits.
            host: "127.0.0.1".to_owned(),
            port: 4318,
            path: SIGNAL.to_owned(),
            headers: Vec::new(),
            headers_file: None,
            // Who asks for traces wants to see one; `log.trace` says which there are.
            sample: Sample { some: 1, of: 1 },
            // What OTLP's own exporters give.
            timeout: Duration::from_secs(10),
            // A few seconds of a thousand a second; some 4 MiB at most, as spans come.
            queue: 4096,
            service_name: "larder".to_owned(),
            attributes: Vec::new(),
        }
    }
}
