//! The sample API's resources: what each path and method does.
//!
//! Knows paths, methods, queries and the pretended database's time.
//! Must not know: connections, or how users are kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::users::{self, Refusal, User, Users};
use crate::clock::Clock;

/// What a look into the pretended database takes.
const DATABASE: Duration = Duration::from_millis(100);
/// The longest that `/slow` sleeps.
const SLOWEST: Duration = Duration::from_secs(30);
/// Bytes of a request's body.
const BODY: usize = 64 * 1024;
/// For a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Users in a list, unless the query says otherwise, and at most.
const LISTED: usize = 20;
const LISTED_AT_MOST: usize = 100;

/// The service's state.
pub(super) struct Api {
    clock: Clock,
    users: Mutex<Users>,
    flaky: AtomicU64,
}

/// What a path names.
enum Resource {
    Index,
    Users,
    Batch,
    Me,
    User(u64),
    Slow,
    Flaky,
    Nothing,
}

impl Resource {
    fn at(path: &str) -> Self {
        match path {
            "/" => Self::Index,
            "/users" => Self::Users,
            "/users/batch-create" => Self::Batch,
            "/users/me" => Self::Me,
            "/slow" => Self::Slow,
            "/flaky" => Self::Flaky,
            _ => {
                path.strip_prefix("/users/").and_then(|id| id.parse().ok()).map_or(Self::Nothing, Self::User)
            }
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Users => "GET, HEAD, POST",
            Self::Batch => "POST",
            _ => "GET, HEAD",
        }
    }
}

impl Api {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, users: Mutex::new(Users::sample()), flaky: AtomicU64::new(0) }
    }

    /// Answers one request. Dropping this changes nothing but what is already created.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let resource = Resource::at(request.uri().path());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let creates = *request.method() == Method::POST;
        match resource {
            Resource::Nothing => reply::not_found("resource"),
            Resource::Index if reads => index(),
            Resource::Users if reads => self.list(&query),
            Resource::User(id) if reads => self.user(id).await,
            Resource::Me if reads => self.me().await,
            Resource::Slow if reads => slow(&query).await,
            Resource::Flaky if reads => self.flaky(),
            Resource::Users if creates => {
                read(request).await.map_or_else(|refused| refused, |body| self.create(&body))
            }
            Resource::Batch if creates => {
                read(request).await.map_or_else(|refused| refused, |body| self.batch(&body))
            }
            other => reply::not_allowed(other.methods()),
        }
    }

    fn list(&self, query: &str) -> Reply {
        match number(query, "limit", LISTED as u64).filter(|limit| *limit <= LISTED_AT_MOST as u64) {
            Some(limit) => {
                let users = self.users.lock().first(usize::try_from(limit).unwrap_or(LISTED_AT_MOST));
                reply::value(StatusCode::OK, &json!({ "count": users.len(), "users": users }))
            }
            None => reply::error(
                StatusCode::BAD_REQUEST,
                &format!("limit is a number from 0 to {LISTED_AT_MOST}"),
            ),
        }
    }

    async fn user(&self, id: u64) -> Reply {
        tokio::time::sleep(DATABASE).await;
        match self.users.lock().get(id) {
            Some(user) => reply::value(StatusCode::OK, user),
            None => reply::not_found("user"),
        }
    }

    /// The one resource that says something about caching: that it is for one client alone.
    async fn me(&self) -> Reply {
        let mut reply = self.user(1).await;
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        reply
    }

    fn create(&self, body: &Value) -> Reply {
        match self.try_create(body) {
            Ok(user) => {
                let mut reply = reply::value(StatusCode::CREATED, &user);
                if let Ok(location) = HeaderValue::from_str(&format!("/users/{}", user.id)) {
                    reply.headers_mut().insert(LOCATION, location);
                }
                reply
            }
            Err(refusal) => reply::value(refusal.status(), &refused(&refusal)),
        }
    }

    fn try_create(&self, body: &Value) -> Result<User, Refusal> {
        let new = users::check(body)?;
        self.users.lock().create(new, self.clock.now())
    }

    fn batch(&self, body: &Value) -> Reply {
        let Some(list) = body.as_array().or_else(|| body.get("users")?.as_array()) else {
            let text = "a batch is a list of users, or {\"users\": [...]}";
            return reply::error(StatusCode::UNPROCESSABLE_ENTITY, text);
        };
        let (mut successful, mut errors) = (Vec::new(), Vec::new());
        for (index, item) in list.iter().enumerate() {
            match self.try_create(item) {
                Ok(user) => successful.push(user),
                Err(refusal) => errors.push(with_index(refused(&refusal), index)),
            }
        }
        let count = successful.len();
        let report = json!({ "successful": successful, "errors": errors, "total": list.len(), "success_count": count });
        reply::value(StatusCode::OK, &report)
    }

    fn flaky(&self) -> Reply {
        let attempt = self.flaky.fetch_add(1, Ordering::Relaxed) + 1;
        if attempt.is_multiple_of(3) {
            return reply::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "this fails every third time that it is asked",
            );
        }
        reply::value(StatusCode::OK, &json!({ "attempt": attempt }))
    }
}

fn index() -> Reply {
    let resources =
        ["/users?limit=N", "/users/{id}", "/users/me", "/users/batch-create", "/slow?ms=N", "/flaky"];
    reply::value(StatusCode::OK, &json!({ "resources": resources }))
}

async fn slow(query: &str) -> Reply {
    let Some(millis) = number(query, "ms", 1000) else {
        return reply::error(StatusCode::BAD_REQUEST, "ms is a number of milliseconds");
    };
    let nap = Duration::from_millis(millis).min(SLOWEST);
    tokio::time::sleep(nap).await;
    reply::value(StatusCode::OK, &json!({ "slept_ms": nap.as_millis() }))
}

/// A whole number of the query; `absent` where the query does not have it, `None` where it is none.
fn number(query: &str, name: &str, absent: u64) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    match pairs.find(|(key, _)| *key == name) {
        Some((_, value)) => value.parse().ok(),
        None => Some(absent),
    }
}

/// The request's body as JSON, within its bounds of size and time; or the refusal.
async fn read<B>(request: Request<B>) -> Result<Value, Reply>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.body().size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    let body = match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(reply::error(StatusCode::BAD_REQUEST, "the body ended early")),
        Err(_) => return Err(reply::error(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    serde_json::from_slice(&body)
        .map_err(|error| reply::error(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {error}")))
}

fn too_large() -> Reply {
    reply::error(StatusCode::PAYLOAD_TOO_LARGE, &format!("a body has at most {BODY} bytes"))
}

fn refused(refusal: &Refusal) -> Value {
    match refusal.field() {
        Some(field) => json!({ "error": refusal.to_string(), "field": field }),
        None => json!({ "error": refusal.to_string() }),
    }
}

fn with_index(mut error: Value, index: usize) -> Value {
    if let Some(fields) = error.as_object_mut() {
        fields.insert("index".to_owned(), json!(index));
    }
    error
}
