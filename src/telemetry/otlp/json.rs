//! OTLP's JSON encoding of spans (`ExportTraceServiceRequest`), and what a collector answers to it.
//!
//! Knows that ids are hexadecimal there, 64-bit numbers strings, and kinds numbers.
//! Must not know: where it is sent.

use serde_json::{Value, json};

use super::span::{Attribute, Span};

/// `SpanFlags` of OTLP: that it is known whether the parent is another process's, and that it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

/// The attributes of the process, as every batch has them.
pub(super) fn resource(attributes: &[(String, String)]) -> Value {
    let attributes: Vec<Value> = attributes
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }))
        .collect();
    json!({ "attributes": attributes })
}

/// A batch as it is sent. `offset` added to a span's own time makes nanoseconds since the Unix epoch.
pub(super) fn encode(resource: &Value, spans: &[Span], offset: u64) -> Vec<u8> {
    let spans: Vec<Value> = spans.iter().map(|it| span(it, offset)).collect();
    let scope = json!({ "name": "larder", "version": env!("CARGO_PKG_VERSION") });
    let batch = json!({
        "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope, "spans": spans }] }]
    });
    // All keys are strings: it cannot fail.
    serde_json::to_vec(&batch).unwrap_or_default()
}

fn span(it: &Span, offset: u64) -> Value {
    let time = |nanos: u64| nanos.saturating_add(offset).to_string();
    let attributes: Vec<Value> =
        it.attributes.iter().map(|(key, value)| json!({ "key": key, "value": attribute(value) })).collect();
    let flags = u32::from(it.flags) | KNOWS_REMOTE | if it.is_remote { IS_REMOTE } else { 0 };
    let mut shown = json!({
        "traceId": format!("{:032x}", it.trace),
        "spanId": format!("{:016x}", it.id),
        "flags": flags,
        "name": it.name,
        "kind": it.kind as u8,
        "startTimeUnixNano": time(it.start),
        "endTimeUnixNano": time(it.end),
        "attributes": attributes,
    });
    if let Some(map) = shown.as_object_mut() {
        if let Some(parent) = it.parent {
            map.insert("parentSpanId".to_owned(), format!("{parent:016x}").into());
        }
        if it.failed {
            map.insert("status".to_owned(), json!({ "code": ERROR }));
        }
    }
    shown
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => json!({ "stringValue": text }),
        Attribute::Number(number) => json!({ "intValue": number.to_string() }),
        Attribute::Seconds(seconds) => json!({ "doubleValue": seconds }),
        Attribute::Flag(flag) => json!({ "boolValue": flag }),
    }
}

/// How many spans a collector says that it has not taken, of a batch that it has (`partialSuccess`).
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or(Value::Null);
    let count = answer.pointer("/partialSuccess/rejectedSpans");
    // A 64-bit number is a string in this encoding; some write it as a number all the same.
    count.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::super::finish::Finished;
    use super::super::span::tests::span;
    use super::*;

    #[test]
    fn a_batch_is_as_the_protocol_has_it() {
        let span = span(|r| Span::of_request(&Finished { path: "/users/1?a=b", ..r })).unwrap();
        let resource = resource(&[("service.name".to_owned(), "larder".to_owned())]);
        let batch: Value =
            serde_json::from_slice(&encode(&resource, &[span], 1_700_000_000_000_000_000)).unwrap();
        let of = &batch["resourceSpans"][0];
        assert_eq!(
            of["resource"]["attributes"],
            json!([{ "key": "service.name", "value": { "stringValue": "larder" } }])
        );
        let scope = &of["scopeSpans"][0];
        assert_eq!(scope["scope"]["name"], "larder");
        let span = &scope["spans"][0];
        let rows = [
            ("traceId", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
            ("spanId", json!("0000000000000007")),
            ("parentSpanId", json!("00f067aa0ba902b7")),
            ("flags", json!(0x301)),
            ("name", json!("GET users")),
            ("kind", json!(2)),
            ("startTimeUnixNano", json!("1700000000000000000")),
            ("endTimeUnixNano", json!("1700000000000812000")),
            ("status", Value::Null),
        ];
        for (name, value) in rows {
            assert_eq!(span[name], value, "{name}");
        }
        let attributes = span["attributes"].as_array().unwrap();
        for expected in [
            json!({ "key": "http.response.status_code", "value": { "intValue": "200" } }),
            json!({ "key": "url.query", "value": { "stringValue": "a=b" } }),
            json!({ "key": "larder.cache.tier", "value": { "stringValue": "memory" } }),
        ] {
            assert!(attributes.contains(&expected), "{expected} is not in {attributes:?}");
        }
    }

    #[test]
    fn what_a_collector_has_not_taken_is_read_in_either_form() {
        let rows = [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
            (r#"{"partialSuccess":{}}"#, 0),
            ("{}", 0),
            ("", 0),
            (r#"{"partialSuccess":{"rejectedSpans":"-1"}}"#, 0),
        ];
        for (answer, count) in rows {
            assert_eq!(rejected(answer.as_bytes()), count, "{answer}");
        }
    }
}
