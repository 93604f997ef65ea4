//! Larder's own access log, in JSON: docs/logs.md tells its keys.
//!
//! Must not know: configurations.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::line::{Flaw, Line, Outcome, Reason, Result as Found, rfc3339};

#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(default, borrow)]
    scheme: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    status: u16,
    #[serde(borrow)]
    cache: Cow<'a, str>,
    #[serde(default, borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    collapsed: bool,
    dur_ms: f64,
    bytes_out: u64,
    #[serde(borrow)]
    end: Cow<'a, str>,
    // Larders before these were told write none of them.
    length: Option<u64>,
    age_s: Option<u64>,
    request: Option<Fields>,
    response: Option<Fields>,
}

/// An object of fields; what is none is left out.
struct Fields(HeaderMap);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut headers = HeaderMap::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                    let name = HeaderName::from_bytes(name.as_bytes());
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                        headers.insert(name, value);
                    }
                }
                Ok(Fields(headers))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

pub(super) fn read(text: &str) -> Result<Line<'_>, Flaw> {
    let keys: Keys<'_> = serde_json::from_str(text).map_err(|error| {
        let error = error.to_string();
        // Which line of one line it is in helps nobody.
        let why = error.split(" at line ").next().unwrap_or(&error);
        Flaw::new(format!("is none of an access log: {why}"))
    })?;
    let time = || Flaw::new(format!("has a time that is none: {:.40}", keys.ts));
    let result = match &*keys.cache {
        "hit" | "stale" => Found::Cached,
        "stale-if-error" => Found::StaleIfError,
        "miss" | "revalidated" => Found::Missed,
        "bypass" => Found::Bypassed,
        "failed" => Found::Failed,
        "local" => Found::Local,
        other => return Err(Flaw::new(format!("has `cache` {other:?}, which is no outcome"))),
    };
    let reason = match keys.reason.as_deref() {
        None => Reason::None,
        Some("upgrade") => Reason::Upgrade,
        Some("body") => Reason::Body,
        Some(_) => Reason::Other,
    };
    let micros = (keys.dur_ms * 1000.0).clamp(0.0, 1e15);
    Ok(Line {
        at: rfc3339(&keys.ts).ok_or_else(time)?,
        method: Method::from_bytes(keys.method.as_bytes()).map_err(|_| Flaw::new("has no method"))?,
        scheme: if keys.scheme.as_deref() == Some("https") { "https" } else { "http" },
        host: Some(keys.host),
        target: keys.path,
        status: keys.status,
        took: Some(Duration::from_micros(micros as u64)),
        bytes: keys.bytes_out,
        complete: keys.end == "complete",
        outcome: Some(Outcome { result, reason, collapsed: keys.collapsed }),
        request: keys.request.map(|fields| fields.0).unwrap_or_default(),
        answer: keys.response.map(|fields| fields.0),
        length: keys.length,
        age: keys.age_s.map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"2024-02-29T12:34:56.789Z","client":"192.0.2.7","method":"GET","scheme":"https","host":"a.test","path":"/u/1?a=\"b","status":200,"route":"users","cache":"hit","tier":"memory","reason":null,"detail":null,"collapsed":false,"dur_ms":0.812,"bytes_out":37,"end":"complete","length":37,"age_s":7,"request":{"accept":"*/*"},"response":{"vary":"accept","b\u0000d":"x"}}"#;

    #[test]
    fn a_line_of_larder_is_read() {
        let line = read(LINE).unwrap();
        assert_eq!(
            (line.scheme, line.host.as_deref(), &*line.target),
            ("https", Some("a.test"), "/u/1?a=\"b")
        );
        assert_eq!(line.outcome.map(|outcome| outcome.result), Some(Found::Cached));
        assert_eq!((line.took, line.age), (Some(Duration::from_micros(812)), Some(Duration::from_secs(7))));
        assert_eq!(line.request["accept"], "*/*");
        assert_eq!(line.answer.map(|answer| answer.len()), Some(1), "what is no field is left out");
        let old = LINE.replace(r#","length":37"#, "").split(r#","age_s""#).next().unwrap().to_owned() + "}";
        let line = read(&old).unwrap();
        assert!(line.answer.is_none() && line.length.is_none() && line.request.is_empty());
    }

    #[test]
    fn what_is_none_says_why() {
        let rows = [
            (LINE.replace("\"hit\"", "\"maybe\""), "which is no outcome"),
            (LINE.replace("2024-02-29T", "2024-02-29 "), "a time that is none"),
            (LINE.replace("\"method\":\"GET\",", ""), "missing field `method`"),
            (LINE.replace("\"GET\"", "\"G T\""), "no method"),
            ("{".to_owned(), "EOF"),
            (r#"{"level":"warn","msg":"slow request"}"#.to_owned(), "missing field"),
        ];
        for (text, why) in rows {
            let flaw = read(&text).unwrap_err().to_string();
            assert!(flaw.contains(why), "{text}: {flaw}");
        }
    }
}
