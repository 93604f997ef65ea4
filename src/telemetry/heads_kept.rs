//! What the access log keeps of the heads of a request and of its answer: what caches go by, so that
//! `larder simulate` can judge the request again.
//!
//! Knows which fields that are, and that what proves who somebody is never stands there.
//! Must not know: what the fields mean.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPIRES, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, PRAGMA, RANGE,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::redact;
use crate::fields::vary::Vary;
use crate::fields::{claims, no_vary_search, targeted};

/// Longer values are cut, so that lines are bounded.
const LONGEST: usize = 512;

const OF_REQUESTS: [HeaderName; 14] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    COOKIE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    PRAGMA,
    RANGE,
    HeaderName::from_static("upgrade"),
];

const OF_ANSWERS: [HeaderName; 18] = [
    AGE,
    CACHE_CONTROL,
    targeted::CDN_CACHE_CONTROL,
    targeted::LARDER_CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    LOCATION,
    no_vary_search::NO_VARY_SEARCH,
    PRAGMA,
    SET_COOKIE,
    VARY,
];

/// The fields of an answer, as an object.
pub(super) struct Answer<'a>(pub(super) &'a HeaderMap);

/// The fields of a request, as an object: those that caches go by, those that the answer varies on, and those that
/// are part of the key.
pub(super) struct Request<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) answer: Option<&'a HeaderMap>,
    pub(super) keyed: &'a [HeaderName],
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for name in OF_ANSWERS.iter().filter(|name| self.0.contains_key(*name)) {
            object.serialize_entry(name.as_str(), &value(self.0, name))?;
        }
        object.end()
    }
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let varies = match self.answer.map(Vary::parse) {
            Some(Vary::Names(names)) => names,
            _ => Vec::new(),
        };
        // In the order of the request, which has none of them twice.
        let wanted = |name: &&HeaderName| {
            OF_REQUESTS.contains(name)
                || varies.contains(name)
                || self.keyed.contains(name)
                || chooses_or_tells_who(name)
        };
        let mut object = serializer.serialize_map(None)?;
        for name in self.headers.keys().filter(wanted) {
            object.serialize_entry(name.as_str(), &value(self.headers, name))?;
        }
        object.end()
    }
}

fn chooses_or_tells_who(name: &HeaderName) -> bool {
    let told = claims::told(name.as_str());
    told.chooses || told.credential
}

/// All lines of a field as one, without what must not be read in a log.
fn value(headers: &HeaderMap, name: &HeaderName) -> String {
    if *name == SET_COOKIE {
        // That there is one is what counts.
        return redact::WORD.to_owned();
    }
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let separator = if *name == COOKIE { "; " } else { ", " };
    let mut text = lines.collect::<Vec<_>>().join(separator);
    if *name == COOKIE {
        text = redact::cookie(&text);
    } else if *name == AUTHORIZATION || claims::told(name.as_str()).credential {
        text = redact::word(text.as_bytes());
    }
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_proves_who_somebody_is_is_told_apart_and_not_told() {
        let headers = fields(&[
            ("authorization", "Bearer hunter2"),
            ("cookie", "sid=hunter2; theme=dark"),
            ("x-api-key", "hunter2"),
            ("user-agent", "curl"),
            ("x-tenant", "7"),
            ("accept", "text/html"),
        ]);
        let answer = fields(&[("vary", "user-agent"), ("set-cookie", "sid=hunter2"), ("server", "s")]);
        let keyed = [HeaderName::from_static("x-tenant")];
        let request = Request { headers: &headers, answer: Some(&answer), keyed: &keyed };
        let (request, answer) =
            (serde_json::to_string(&request).unwrap(), serde_json::to_string(&Answer(&answer)).unwrap());
        assert!(!request.contains("hunter2") && !answer.contains("hunter2"), "{request} {answer}");
        let request: serde_json::Value = serde_json::from_str(&request).unwrap();
        for (name, value) in [("user-agent", "curl"), ("x-tenant", "7"), ("accept", "text/html")] {
            assert_eq!(request[name], value, "{name}");
        }
        for name in ["authorization", "x-api-key"] {
            assert!(request[name].as_str().unwrap().starts_with("redacted-"), "{name}");
        }
        let cookie = request["cookie"].as_str().unwrap();
        assert!(cookie.starts_with("sid=redacted-") && cookie.contains("; theme=redacted-"), "{cookie}");
        assert_eq!(answer, r#"{"set-cookie":"redacted","vary":"user-agent"}"#);
    }

    #[test]
    fn lines_of_one_field_are_one_and_long_ones_are_cut() {
        let long: &'static str = "x".repeat(4 * LONGEST).leak();
        let headers =
            fields(&[("cache-control", "no-cache"), ("cache-control", "max-age=1"), ("accept", long)]);
        let request = Request { headers: &headers, answer: None, keyed: &[] };
        let request = serde_json::to_value(&request).unwrap();
        assert_eq!(request["cache-control"], "no-cache, max-age=1");
        assert_eq!(request["accept"].as_str().unwrap().len(), LONGEST);
    }
}
