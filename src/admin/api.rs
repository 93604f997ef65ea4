//! What the admin listener answers.
//!
//! Must not know: sockets, or who may ask (`access`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::telemetry::Format;
use crate::worker::{NotReloaded, Reloaded, Shared, Worker};

use super::dashboard::{self, Events};
use super::visitors::Visit;
use super::{Admin, access, explain, fleet, gauges, purge, slow};

pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

const INDEX: &str = "\
Larder, admin listener

  GET  /          in a browser: all of it, live
  GET  /events    what that page is told each second (server-sent events)
  GET  /stats     requests, hit ratios per route and tier (JSON)
  GET  /metrics   the same and more (Prometheus, or OpenMetrics by Accept)
  GET  /slow      the last slow requests (JSON); ?since=LAST&wait=5s holds the answer back until there is
                  a new one
  GET  /fleet     the nodes that share this Redis, and whether each hears of purges (JSON)
  GET  /livez     alive?
  GET  /readyz    ready for requests? (503 while stopping, or until the warm start is over)
  POST /purge     {\"urls\": […], \"tags\": […], \"prefixes\": [\"/products/*\"], \"routes\": […]} or
                  {\"all\": true}, with \"soft\": true to have it validated and not forgotten
  POST /reload    read the configuration anew; what is wrong changes nothing
  POST /explain   {\"target\": \"/path?a=1\", \"fields\": [[\"host\", \"a.test\"]]}: what would become of such a
                  request, without doing it (larder explain)
";

/// Answers one request.
pub(super) async fn answer(admin: &Admin, visit: &Visit, request: Request<Incoming>) -> Answer {
    let worker = &admin.worker;
    let path = request.uri().path().to_owned();
    // What a probe asks for tells nothing; but only to who reads.
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let probe = reads && matches!(path.as_str(), "/livez" | "/readyz" | "/healthz");
    let page = reads && dashboard::has(&path) && (path != "/" || dashboard::is_wanted(request.headers()));
    let open = probe || page;
    let config = &worker.shared.snapshot.load_full().config;
    let token = config.admin_token.clone();
    // Where this machine is all that guards it, only this machine's own names lead here.
    let unguarded =
        token.is_none() && config.admin.is_some_and(|address| address.ip().to_canonical().is_loopback());
    if unguarded && !probe && !access::is_named_plainly(request.uri(), request.headers()) {
        return error(StatusCode::FORBIDDEN, "ask for it as localhost or by its address");
    }
    if let Some((status, why)) = access::refuse(request.method(), request.headers(), token.as_deref(), open) {
        return error(status, why);
    }
    if page && let Some(part) = dashboard::asset(&path, request.headers()) {
        return part;
    }
    match path.as_str() {
        "/purge" if request.method() == Method::POST => purge::purge(admin, request).await,
        "/reload" if request.method() == Method::POST => reload(worker).await,
        // In a box, since it is rare and large.
        "/explain" if request.method() == Method::POST => Box::pin(explain::explain(worker, request)).await,
        "/purge" | "/reload" | "/explain" => not_allowed("POST"),
        "/" | "/stats" | "/metrics" | "/slow" | "/fleet" | "/livez" | "/readyz" | "/healthz" if !reads => {
            not_allowed("GET, HEAD")
        }
        "/events" | "/dashboard/route" if request.method() != Method::GET => not_allowed("GET"),
        "/events" | "/dashboard/route" if !access::is_not_from_elsewhere(request.headers()) => {
            error(StatusCode::FORBIDDEN, "this is for the page at / of this listener")
        }
        // It takes one of a few places.
        "/slow" if request.uri().query().is_some() && !access::is_not_from_elsewhere(request.headers()) => {
            error(StatusCode::FORBIDDEN, "another site's page may not wait here")
        }
        "/events" => events(admin, visit),
        "/dashboard/route" => of_route(worker, request.uri().query().unwrap_or_default()),
        "/" => text(INDEX.to_owned()),
        "/stats" => json_answer(StatusCode::OK, &stats(worker)),
        "/metrics" => metrics(worker, request.headers()),
        "/slow" => slow::slow(worker, &request).await,
        "/fleet" => fleet::nodes(worker).await,
        "/livez" => json_answer(StatusCode::OK, &json!({ "status": "alive" })),
        "/readyz" | "/healthz" => ready(worker),
        _ => error(StatusCode::NOT_FOUND, "no such page; GET / lists what there is"),
    }
}

/// The answer to a request that took longer than `limits.admin_time`.
pub(super) fn too_slow() -> Answer {
    error(StatusCode::REQUEST_TIMEOUT, "the request took too long")
}

/// How things are now, and then each second.
fn events(admin: &Admin, visit: &Visit) -> Answer {
    let Some(seat) = admin.streams.sit(visit.number()) else {
        let mut answer =
            error(StatusCode::SERVICE_UNAVAILABLE, "as many pages look on as may, or Larder stops");
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return answer;
    };
    let first = dashboard::event(&admin.worker, true);
    let mut answer = Response::new(Either::Right(admin.streams.events(&seat, first, visit.ends())));
    visit.looks_on(seat);
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // It lasts as long as the connection: the next one has all of another's time.
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// All of one route: `name=…`.
fn of_route(worker: &Worker, query: &str) -> Answer {
    let name = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "name");
    match name.and_then(|(_, name)| dashboard::of_route(worker, &name)) {
        Some(route) => json_answer(StatusCode::OK, &route),
        None => error(StatusCode::NOT_FOUND, "there is no such route; write /dashboard/route?name=NAME"),
    }
}

fn stats(worker: &Worker) -> Value {
    worker.shared.snapshot.load().metrics.stats(&gauges::gather(worker))
}

fn metrics(worker: &Worker, headers: &HeaderMap) -> Answer {
    // RFC 9110 §5.3: several lines are one list.
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = worker.shared.snapshot.load().metrics.exposition(&gauges::gather(worker), format);
    with_type(StatusCode::OK, text, format.content_type())
}

/// Ready unless stopping, or reading what others have named ([`Warming`](crate::worker::Warming)). A shared tier that is down makes Larder slower, not useless.
fn ready(worker: &Worker) -> Answer {
    if worker.shared.draining.load(Ordering::Acquire) {
        return json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "stopping" }));
    }
    if !worker.shared.warming.is_over() {
        let loaded = worker.shared.warming.gauges().loaded;
        return json_answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "warming", "loaded": loaded }),
        );
    }
    let gauges = gauges::gather(worker);
    let mut degraded: Vec<String> = Vec::new();
    if gauges.redis.is_some_and(|redis| !redis.up) {
        degraded.push("redis is down: memory only".to_owned());
    }
    let coherence = gauges.fleet.map(|fleet| {
        if fleet.state != "ok" {
            degraded.push(format!(
                "purges have not been heard for {:.1} s: what the origin has not confirmed within {} is validated first",
                fleet.lag.as_secs_f64(),
                fleet.when_lost.map_or("its lifetime".to_owned(), |limit| format!("{limit:?}")),
            ));
        }
        json!({ "state": fleet.state, "lag_s": fleet.lag.as_secs_f64(), "bound_s": fleet.bound.as_secs_f64() })
    });
    json_answer(StatusCode::OK, &json!({ "status": "ready", "degraded": degraded, "coherence": coherence }))
}

/// Puts another configuration in force. Reading it may block, which is nothing for this thread.
async fn reload(worker: &Worker) -> Answer {
    let shared = Arc::clone(&worker.shared);
    // Whoever asks may have another file in mind than this process has.
    match tokio::task::spawn_blocking(move || (shared.reload(), file_read(&shared))).await {
        Ok((Ok(Reloaded { routes, upstreams, warning }), file)) => json_answer(
            StatusCode::OK,
            &json!({
                "reloaded": true, "file": file, "routes": routes, "upstreams": upstreams, "warning": warning
            }),
        ),
        Ok((Err(why), file)) => {
            let status = match &why {
                NotReloaded::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
                NotReloaded::NoFile | NotReloaded::NeedsRestart { .. } => StatusCode::CONFLICT,
            };
            let names =
                if let NotReloaded::NeedsRestart { names, .. } = &why { names.as_slice() } else { &[] };
            let answer = json!({
                "reloaded": false, "file": file, "error": why.message(), "lines": why.lines(), "restart": names
            });
            json_answer(status, &answer)
        }
        Err(_panicked) => error(StatusCode::INTERNAL_SERVER_ERROR, "the reload failed; the log says where"),
    }
}

/// The file that a reload reads, as text.
pub(super) fn file_read(shared: &Shared) -> Option<String> {
    shared.reloads.file().map(|file| file.display().to_string())
}

pub(super) fn error(status: StatusCode, why: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "error": why }));
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "the method is not for this page; see Allow");
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    with_type(status, text, "application/json")
}

fn text(text: String) -> Answer {
    with_type(StatusCode::OK, text, "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, text: String, kind: &'static str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(text.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
