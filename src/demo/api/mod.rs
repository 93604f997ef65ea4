//! The sample users API: a small HTTP/1.1 service such as people already have.
//!
//! Knows connections and how to stop; `routes` knows the resources, `users` the data. It sends no
//! Cache-Control but on `/users/me`, as existing APIs do.
//! Must not know: that Larder stands in front of it.

mod reply;
mod routes;
mod users;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use routes::Api;

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 1024;
/// For a request's head to arrive, and for a kept connection to stay idle.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// For requests in flight, once told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown` says true or its sender is gone, then lets requests in flight finish,
/// 5 seconds at most. Runs on the current tokio runtime, which needs I/O and time enabled.
///
/// # Errors
/// Where the runtime does not take the listener.
pub async fn serve(
    listener: std::net::TcpListener,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let api = Arc::new(Api::new(clock));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = told(&mut shutdown) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            stream = accept(&listener), if connections.len() < CONNECTIONS => {
                connections.spawn(connection(stream, Arc::clone(&api), shutdown.clone()));
            }
        }
    }
    drop(listener);
    // Whatever is not done by then is dropped with the set: the client sees its connection end.
    let _ = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Waits until told to stop. A sender that is gone can say nothing more, and counts as told.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The next connection. Dropping this loses none: accepting is one step.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, or a client that left already: neither is helped by spinning.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, api: Arc<Api>, mut shutdown: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // An error is the client's leaving or its malformed request, which hyper has answered.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = told(&mut shutdown) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Timestamp;

    /// The API on a thread of its own; dropping it stops it and waits for its end.
    struct Running {
        at: SocketAddr,
        stop: watch::Sender<bool>,
        thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    }

    impl Running {
        fn start() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let (stop, told) = watch::channel(false);
            let (clock, _) = Clock::stepped(Timestamp::from_secs(1_700_000_000));
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(serve(listener, clock, told))
            });
            Self { at, stop, thread: Some(thread) }
        }

        fn connect(&self) -> std::net::TcpStream {
            let stream = std::net::TcpStream::connect(self.at).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        }

        /// Sends a request that ends its connection and gives the head, and the body as JSON.
        fn ask(&self, method: &str, target: &str, body: &str) -> (String, Value) {
            let (head, body) = self.ask_raw(method, target, body);
            (head, serde_json::from_str(&body).unwrap_or(Value::Null))
        }

        fn ask_raw(&self, method: &str, target: &str, body: &str) -> (String, String) {
            let mut stream = self.connect();
            let length = body.len();
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            // The server may answer and close before it has read all of a body that is too large.
            let _ = stream.write_all(body.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.stop.send(true);
            if let Some(thread) = self.thread.take() {
                thread.join().unwrap().unwrap();
            }
        }
    }

    fn status(head: &str) -> &str {
        head.split(' ').nth(1).unwrap()
    }

    #[test]
    fn a_user_is_found_by_id_after_the_pretended_database() {
        let api = Running::start();
        let clock = Clock::system();
        let start = clock.mono();
        let (head, user) = api.ask("GET", "/users/1", "");
        assert!(clock.mono().since(start) >= Duration::from_millis(100));
        assert_eq!(status(&head), "200");
        assert!(head.contains("content-type: application/json"));
        assert!(!head.contains("cache-control"));
        assert_eq!(user["id"], 1);
        for field in ["name", "email", "created_at"] {
            assert!(user[field].is_string(), "{field}: {user}");
        }
    }

    #[test]
    fn what_is_not_there_is_a_404_in_json() {
        let api = Running::start();
        for target in ["/users/100000", "/users/abc", "/users/0", "/nothing", "/users/1/posts", "/users/"] {
            let (head, body) = api.ask("GET", target, "");
            assert_eq!(status(&head), "404", "{target}");
            assert!(body["error"].is_string(), "{target}");
        }
    }

    #[test]
    fn the_list_is_limited_and_counted() {
        let api = Running::start();
        for (target, count) in
            [("/users", 20), ("/users?limit=3", 3), ("/users?limit=0", 0), ("/users?a=b&limit=100", 100)]
        {
            let (head, list) = api.ask("GET", target, "");
            assert_eq!(status(&head), "200", "{target}");
            assert_eq!(
                (list["count"].as_u64(), list["users"].as_array().unwrap().len()),
                (Some(count), count as usize)
            );
        }
        for target in ["/users?limit=x", "/users?limit=-1", "/users?limit=101"] {
            assert_eq!(status(&api.ask("GET", target, "").0), "400", "{target}");
        }
    }

    #[test]
    fn a_created_user_has_a_location_and_is_found_there() {
        let api = Running::start();
        let (head, user) = api.ask("POST", "/users", r#"{"name":"Ada","email":"Ada@example.org"}"#);
        assert_eq!(status(&head), "201");
        assert_eq!(user["created_at"], "2023-11-14T22:13:20Z");
        let location = format!("/users/{}", user["id"]);
        assert!(head.contains(&format!("location: {location}")), "{head}");
        assert_eq!(api.ask("GET", &location, "").1, user);
        let (head, body) = api.ask("POST", "/users", r#"{"name":"Bob","email":"ada@EXAMPLE.org"}"#);
        assert_eq!(status(&head), "409");
        assert_eq!(body["field"], "email");
    }

    #[test]
    fn a_bad_user_is_refused_and_told_why() {
        let api = Running::start();
        let rows = [
            ("", "400", Value::Null),
            ("{", "400", Value::Null),
            ("[]", "422", Value::Null),
            (r#"{"email":"a@b.c"}"#, "422", json!("name")),
            (r#"{"name":" ","email":"a@b.c"}"#, "422", json!("name")),
            (r#"{"name":7,"email":"a@b.c"}"#, "422", json!("name")),
            (r#"{"name":"A"}"#, "422", json!("email")),
            (r#"{"name":"A","email":"nowhere"}"#, "422", json!("email")),
        ];
        for (sent, expected, field) in rows {
            let (head, body) = api.ask("POST", "/users", sent);
            assert_eq!(status(&head), expected, "{sent}");
            assert_eq!(body["field"], field, "{sent}");
            assert!(body["error"].is_string(), "{sent}");
        }
    }

    #[test]
    fn a_batch_creates_what_it_can_and_tells_of_the_rest() {
        let api = Running::start();
        let list = r#"[{"name":"A","email":"a@b.c"},{"name":"B"},{"name":"C","email":"a@b.c"},7]"#;
        let (head, report) = api.ask("POST", "/users/batch-create", list);
        assert_eq!(status(&head), "200");
        assert_eq!((&report["total"], &report["success_count"]), (&json!(4), &json!(1)));
        assert_eq!(report["successful"][0]["name"], "A");
        let failed: Vec<_> =
            report["errors"].as_array().unwrap().iter().map(|e| (&e["index"], &e["field"])).collect();
        assert_eq!(
            failed,
            [(&json!(1), &json!("email")), (&json!(2), &json!("email")), (&json!(3), &Value::Null)]
        );
        let wrapped = r#"{"users":[{"name":"D","email":"d@b.c"}]}"#;
        assert_eq!(api.ask("POST", "/users/batch-create", wrapped).1["success_count"], 1);
        for neither in ["{}", "7", r#"{"users":7}"#] {
            assert_eq!(status(&api.ask("POST", "/users/batch-create", neither).0), "422", "{neither}");
        }
    }

    #[test]
    fn every_third_flaky_answer_is_a_503() {
        let api = Running::start();
        let statuses: Vec<String> =
            (0..6).map(|_| status(&api.ask("GET", "/flaky", "").0).to_owned()).collect();
        assert_eq!(statuses, ["200", "200", "503", "200", "200", "503"]);
    }

    #[test]
    fn slow_takes_the_time_it_is_asked_to() {
        let api = Running::start();
        let clock = Clock::system();
        let start = clock.mono();
        let (_, body) = api.ask("GET", "/slow?ms=150", "");
        assert!(clock.mono().since(start) >= Duration::from_millis(150));
        assert_eq!(body["slept_ms"], 150);
        assert_eq!(status(&api.ask("GET", "/slow?ms=soon", "").0), "400");
    }

    #[test]
    fn only_the_private_resource_says_anything_about_caching() {
        let api = Running::start();
        assert!(api.ask("GET", "/users/me", "").0.contains("cache-control: private"));
        for target in ["/", "/users", "/users/1", "/slow?ms=0", "/flaky", "/nothing"] {
            assert!(!api.ask("GET", target, "").0.contains("cache-control"), "{target}");
        }
    }

    #[test]
    fn head_is_get_without_the_body() {
        let api = Running::start();
        let length = api.ask_raw("GET", "/users/1", "").1.len();
        let (head, body) = api.ask_raw("HEAD", "/users/1", "");
        assert_eq!(status(&head), "200");
        assert!(head.contains(&format!("content-length: {length}")), "{head}");
        assert_eq!(body, "");
    }

    #[test]
    fn a_method_that_is_not_allowed_is_told_which_are() {
        let api = Running::start();
        let rows = [
            ("DELETE", "/users/1", "GET, HEAD"),
            ("PUT", "/users", "GET, HEAD, POST"),
            ("GET", "/users/batch-create", "POST"),
            ("POST", "/slow", "GET, HEAD"),
        ];
        for (method, target, allow) in rows {
            let (head, _) = api.ask(method, target, "");
            assert_eq!(status(&head), "405", "{method} {target}");
            assert!(head.contains(&format!("allow: {}", allow.to_ascii_lowercase())), "{head}");
        }
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_whether_or_not_its_length_is_known() {
        let api = Running::start();
        let chunk = format!("10001\r\n{}", "x".repeat(65537));
        for (framing, body) in [("Content-Length: 65537", ""), ("Transfer-Encoding: chunked", chunk.as_str())]
        {
            let mut stream = api.connect();
            let head = format!("POST /users HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 413", "{framing}");
        }
    }

    #[test]
    fn stopping_lets_a_request_in_flight_finish_and_refuses_new_ones() {
        let api = Running::start();
        let mut stream = api.connect();
        stream.write_all(b"GET /flaky HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        // On this connection, which the server surely has, two requests: one is in flight when it stops.
        stream.write_all(b"GET /slow?ms=300 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        let at = api.at;
        let reading = std::thread::spawn(move || {
            let _ = stream.read_to_end(&mut rest);
            String::from_utf8_lossy(&rest).into_owned()
        });
        // A second request answered means that the first one, sent before it, is being served.
        api.ask("GET", "/users/1", "");
        drop(api);
        assert!(reading.join().unwrap().contains("\"slept_ms\":300"));
        assert!(std::net::TcpStream::connect(at).is_err());
    }
}
