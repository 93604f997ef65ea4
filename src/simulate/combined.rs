//! nginx's combined format (Apache's, too).
//!
//! `addr - user [time] "GET /path HTTP/1.1" status bytes "referer" "agent"`: it knows no host, no duration, and
//! nothing of what caches go by. What stands behind is not looked at.
//! Must not know: configurations.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use super::line::{Flaw, Line, common};

pub(super) fn read(text: &str) -> Result<Line<'_>, Flaw> {
    let flaw = || Flaw::new("is neither JSON nor the combined format");
    let (_, rest) = text.split_once(" [").ok_or_else(flaw)?;
    let (time, rest) = rest.split_once("] \"").ok_or_else(flaw)?;
    let at = common(time).ok_or_else(|| Flaw::new(format!("has a time that is none: {time:.40}")))?;
    let (request, rest) = quoted(rest).ok_or_else(flaw)?;
    let mut numbers = rest.split_ascii_whitespace();
    let status = numbers.next().and_then(|n| n.parse().ok()).ok_or_else(|| Flaw::new("has no status"))?;
    let bytes = numbers.next().and_then(|n| if n == "-" { Some(0) } else { n.parse().ok() });
    let bytes = bytes.ok_or_else(|| Flaw::new("has no size"))?;
    let none = || Flaw::new("has a request that is none");
    let (method, request) = request.split_once(' ').ok_or_else(none)?;
    let target = request.rsplit_once(" HTTP/").map_or(request, |(target, _)| target);
    Ok(Line {
        at,
        method: Method::from_bytes(method.as_bytes()).map_err(|_| none())?,
        scheme: "http",
        host: None,
        target: Cow::Borrowed(target),
        status,
        took: None,
        bytes,
        complete: true,
        outcome: None,
        request: HeaderMap::new(),
        answer: None,
        length: None,
        age: None,
    })
}

/// Up to the quote that ends it, and what follows; nginx writes a quote within as `\x22`, Apache as `\"`.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nginx_is_read() {
        let text = r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "GET /a?b=\x22c HTTP/1.1" 200 2326 "http://r/" "x \" y""#;
        let line = read(text).unwrap();
        assert_eq!((line.method.as_str(), &*line.target), ("GET", "/a?b=\\x22c"));
        assert_eq!((line.status, line.bytes, line.at.as_secs()), (200, 2326, 971_211_336));
        assert!(line.outcome.is_none() && line.host.is_none());
        let dash = read(r#"::1 - bob [10/Oct/2000:13:55:36 +0000] "HEAD / HTTP/2.0" 304 - "-" "-""#).unwrap();
        assert_eq!((dash.bytes, &*dash.target), (0, "/"));
    }

    #[test]
    fn what_is_none_says_why() {
        let rows = [
            ("nonsense", "neither JSON"),
            (r#"a - - [yesterday] "GET / HTTP/1.1" 200 1"#, "a time that is none"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" - 1"#, "no status"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200"#, "no size"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "\x16\x03\x01" 400 157"#, "a request that is none"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1"#, "neither JSON"),
        ];
        for (text, why) in rows {
            let flaw = read(text).unwrap_err().to_string();
            assert!(flaw.contains(why), "{text}: {flaw}");
        }
    }
}
