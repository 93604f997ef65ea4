//! `POST /explain`: what would become of a request, without doing it.
//!
//! Knows what may be asked, and the bounds of it. A configuration that is sent along is judged by and forgotten;
//! it gets the variables that are sent with it, and none of this process's environment.
//! Must not know: how requests are served.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use crate::config::Config;
use crate::proxy::{self, Thought};
use crate::worker::{Snapshot, Worker};

use super::api::{Answer, error, file_read, json_answer};

/// Bytes of a request's body: a configuration's 1 MiB, written as JSON, and a request beside it.
const BODY: usize = 4 << 20;
/// Bytes of the content of the request that is asked about.
const CONTENT: usize = 256 << 10;
/// Fields of it.
const FIELDS: usize = 256;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "get")]
    method: String,
    target: String,
    #[serde(default)]
    fields: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    from: Option<IpAddr>,
    config: Option<Other>,
}

/// A configuration other than the one in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    name: String,
    text: String,
    #[serde(default)]
    variables: HashMap<String, String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// Says what would become of a request.
pub(super) async fn explain(worker: &Arc<Worker>, request: Request<Incoming>) -> Answer {
    let body = match Limited::new(request.into_body(), BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 4 MiB, or broke off"),
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(why) => {
            let text = format!(
                "the body must be such as {{\"target\": \"/path?a=1\", \"fields\": [[\"host\", \"a\"]]}}: {why}"
            );
            return error(StatusCode::BAD_REQUEST, &text);
        }
    };
    let thought = match checked(&wanted) {
        Ok(thought) => thought,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let in_force = worker.shared.snapshot.load_full();
    let (snapshot, file) = match wanted.config {
        None => (in_force, file_read(&worker.shared)),
        Some(other) => match judged_by(in_force, other).await {
            Ok((snapshot, file)) => (snapshot, Some(file)),
            Err(why) => return error(StatusCode::UNPROCESSABLE_ENTITY, &why),
        },
    };
    json_answer(StatusCode::OK, &proxy::explain(worker, &snapshot, &thought, file.as_deref()).await)
}

/// The configuration that is sent along, in place of the one in force. Reading it may take a while, which is nothing
/// for this thread.
async fn judged_by(in_force: Arc<Snapshot>, other: Other) -> Result<(Arc<Snapshot>, String), String> {
    let read = move || {
        let Other { name, text, variables } = other;
        let config = Config::parse(&text, &name, &|variable| variables.get(variable).cloned());
        config
            .map(|config| (Arc::new(in_force.only_to_ask(config)), name))
            .map_err(|problems| problems.to_string())
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_panicked| Err("it cannot be read; the log says where".to_owned()))
}

/// The request, if there can be such.
fn checked(wanted: &Wanted) -> Result<Thought, String> {
    let method =
        Method::from_bytes(wanted.method.as_bytes()).map_err(|_| "method: there is no such".to_owned())?;
    let target: Uri = wanted.target.parse().map_err(|why| format!("target: {why}"))?;
    if wanted.fields.len() > FIELDS {
        return Err(format!("fields: at most {FIELDS}"));
    }
    if wanted.body.len() > CONTENT {
        return Err(format!("body: at most {} KiB", CONTENT >> 10));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &wanted.fields {
        let read =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("field {name:?}: no such name"))?;
        // Its value may be a secret: it is not repeated.
        let value = HeaderValue::from_bytes(value.trim().as_bytes())
            .map_err(|_| format!("field {name:?}: a value cannot have these characters"))?;
        headers.append(read, value);
    }
    let from = wanted.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Thought { method, target, headers, body: Bytes::copy_from_slice(wanted.body.as_bytes()), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Thought, String> {
        checked(&serde_json::from_str(json).map_err(|why| why.to_string())?)
    }

    #[test]
    fn what_cannot_be_asked_is_said_without_its_values() {
        let long = "a".repeat(CONTENT + 1);
        for (json, why) in [
            (r#"{"target": "a b"}"#, "target"),
            (r#"{"target": "/", "method": "G T"}"#, "method"),
            (r#"{"target": "/", "fields": [["a b", "c"]]}"#, "no such name"),
            (r#"{"target": "/", "fields": [["cookie", "secret\n"], ["x", "se\u0000cret"]]}"#, "cannot have"),
            (r#"{"target": "/", "nonsense": 1}"#, "unknown field"),
            (&format!(r#"{{"target": "/", "body": "{long}"}}"#), "at most 256 KiB"),
        ] {
            let told = read(json).unwrap_err();
            assert!(told.contains(why) && !told.contains("cret"), "{told}");
        }
        let thought =
            read(r#"{"target": "/a?b", "fields": [["Cookie", "a=b"], ["cookie", "c=d"]]}"#).unwrap();
        assert_eq!((thought.method, thought.headers.get_all("cookie").iter().count()), (Method::GET, 2));
    }
}
