//! Origins that break off, dawdle, or talk nonsense; clients that break off.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;

use crate::clock::Clock;
use crate::pace::Pace;
use crate::upstream::testing::*;
use crate::upstream::{OriginError, RequestBody, Upstream};

#[tokio::test]
async fn no_server_answers() {
    let ((one, _holds_one), (two, _holds_two)) = (Origin::absent(), Origin::absent());
    let cfg = settings(vec![one, two]);
    let up = Upstream::new(&cfg, Clock::system(), 1);
    let error = failure(ask(&up, get("/"))).await;
    assert_eq!(error.as_str(), "connect-failed");
    assert!(up.gauges().iter().all(|g| (g.open, g.connect_errors) == (0, 1)), "each was tried");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_failure_to_connect() {
    // Too long a label: known to be wrong without asking a name server.
    let host = format!("{}.invalid", "x".repeat(64));
    let cfg = settings(vec![crate::config::Server { host, port: 80 }]);
    let up = Upstream::new(&cfg, Clock::system(), 1);
    assert_eq!(failure(ask(&up, get("/"))).await.as_str(), "connect-failed");
}

#[tokio::test]
async fn a_server_that_swallows_connections_is_given_up_within_the_connect_timeout() {
    // A listener whose queue is full drops what comes.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _fills_it = std::net::TcpStream::connect(address).unwrap();

    let origin = Origin::start().await;
    let swallows = crate::config::Server { host: "127.0.0.1".into(), port: address.port() };
    let mut cfg = settings(vec![swallows.clone()]);
    cfg.timeout.connect = Duration::from_millis(100);
    let up = Upstream::new(&cfg, Clock::system(), 1);
    assert_eq!(failure(ask(&up, get("/"))).await.as_str(), "connect-timeout");

    cfg.servers = vec![swallows, origin.server.clone()];
    let up = Upstream::new(&cfg, Clock::system(), 1);
    let asked = ask(&up, get("/"));
    origin.accept().await.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
}

#[tokio::test]
async fn an_origin_that_does_not_speak_http_is_a_protocol_failure() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(300));
    for words in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        &long,
        &many,
    ] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.head().await;
        // All of it may not be taken.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, words.as_bytes()).await;
        assert_eq!(failure(asked).await.as_str(), "protocol", "{words:.60}");
        until(|| gauges(&up).open == 0).await;
    }
}

#[tokio::test]
async fn a_body_shorter_than_promised_is_incomplete() {
    for words in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort",
    ] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(words).await;
        drop(peer);
        let mut body = reply(asked).await.response.into_body();
        let error = loop {
            match soon(body.frame()).await {
                Some(Ok(frame)) => assert_eq!(frame.into_data().unwrap(), "short"),
                Some(Err(error)) => break error,
                None => panic!("the body looks complete"),
            }
        };
        assert_eq!(error.as_str(), "incomplete", "{words:?}");
        assert!(!http_body::Body::is_end_stream(&body), "a failed body never looks complete");
        until(|| gauges(&up).open == 0).await;
    }
}

#[tokio::test]
async fn a_connection_reset_within_the_body_is_an_error() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
    let forwarded = reply(asked).await;
    peer.reset();
    assert_eq!(whole(forwarded).await.unwrap_err().as_str(), "reset");
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn chunks_that_make_no_sense_are_an_error_and_the_connection_is_closed() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    let forwarded = reply(asked).await;
    peer.say("zz\r\n").await;
    let error = whole(forwarded).await.unwrap_err();
    assert_eq!(error.as_str(), "protocol", "{error}");
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
    assert_eq!(flaws(&up), [("chunk-framing", 1)]);
}

#[tokio::test]
async fn bytes_after_the_end_of_a_response_fail_it_where_they_come_with_it() {
    for words in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
        "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(words).await;
        assert_eq!(failure(asked).await.as_str(), "protocol");
        peer.until_closed().await;
        until(|| gauges(&up).open == 0).await;
        assert_eq!((flaws(&up), gauges(&up).retries), (vec![("unasked-bytes", 1)], 0));
    }
}

/// Its content may come with the head or a moment later; then it must not meet who asks next.
#[tokio::test]
async fn after_a_head_that_was_once_answered_with_content_no_connection_is_used_again() {
    let head = || request(Method::HEAD, "/", RequestBody::empty());
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
    for late in [false, true] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, head());
        let mut peer = origin.accept().await;
        if late {
            peer.answer(HEAD).await;
            whole(reply(asked).await).await.unwrap();
            until_unused(&up).await;
            peer.say("ok").await;
        } else {
            peer.answer(OK).await;
            assert_eq!(whole(reply(asked).await).await.unwrap(), "");
        }
        peer.until_closed().await;
        until(|| gauges(&up).open == 0).await;
        assert_eq!(flaws(&up), [("unasked-bytes", 1)], "late: {late}");
        // The next one is answered as it ought to be, or would have been a moment later.
        let asked = ask(&up, head());
        let mut peer = origin.accept().await;
        peer.answer(HEAD).await;
        whole(reply(asked).await).await.unwrap();
        peer.until_closed().await;
        // Of a GET nothing is feared.
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
        until_unused(&up).await;
        assert_eq!(gauges(&up).idle, 1, "late: {late}");
    }
}

#[tokio::test]
async fn bytes_that_come_while_a_connection_waits_close_it() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    until_unused(&up).await;
    peer.say("\r\n").await;
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
    assert_eq!(flaws(&up), [("unasked-bytes", 1)]);
}

/// They lie in the socket, but no event has told hyper yet: it used to send the request, and then took them
/// for its answer.
#[tokio::test]
async fn bytes_that_nobody_has_noticed_yet_are_not_the_next_answer() {
    for (method, body) in [(Method::GET, None), (Method::POST, Some("order"))] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
        until_unused(&up).await;
        rest().await;
        // This thread has no time to look for events until the request is with hyper.
        let stray = std::os::fd::AsFd::as_fd(&peer.stream).try_clone_to_owned().unwrap();
        let mut stray = std::net::TcpStream::from(stray);
        std::io::Write::write_all(&mut stray, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").unwrap();
        let request = body.map_or_else(|| get("/"), |body| post("/", body));
        assert_eq!(request.method(), method);
        let asked = ask(&up, request);
        let mut fresh = origin.accept().await;
        fresh.answer(OK).await;
        assert_eq!(whole(reply(asked).await).await.unwrap(), "ok", "{method}");
        // Nothing had been sent, so it may be sent again whatever the method.
        assert_eq!((flaws(&up), gauges(&up).retries), (vec![("unasked-bytes", 1)], 1));
        assert_eq!(peer.until_closed().await, b"", "the request was not sent there");
    }
}

#[tokio::test]
async fn the_end_of_a_connection_that_nobody_has_noticed_yet_costs_no_request() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    until_unused(&up).await;
    rest().await;
    drop(peer);
    let asked = ask(&up, post("/", "order"));
    let mut fresh = origin.accept().await;
    fresh.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    assert_eq!((flaws(&up), gauges(&up).retries), (vec![], 1));
}

#[tokio::test]
async fn an_origin_that_speaks_first_is_not_asked() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.min_idle = 1);
    let task = tokio::spawn(Upstream::maintain(std::sync::Arc::downgrade(&up), 0));
    let mut peer = origin.accept().await;
    peer.say("220 mail.test ESMTP\r\n").await;
    assert_eq!(peer.until_closed().await, b"");
    task.abort();
}

#[tokio::test]
async fn an_origin_that_does_not_begin_to_answer_is_too_slow() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.first_byte = Duration::from_millis(50));
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert_eq!(failure(asked).await.as_str(), "first-byte-timeout");
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
    assert_eq!(gauges(&up).retries, 0);
}

#[tokio::test]
async fn an_upload_is_not_cut_while_it_makes_progress() {
    let limit = Duration::from_millis(300);
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.first_byte = limit);
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.head().await;
    for _ in 0..8 {
        tokio::time::sleep(limit / 6).await;
        assert!(feeder.feed(b"piece").await);
    }
    // More than `first_byte` in all; now the upload is complete, and it is the origin that is silent.
    let clock = Clock::system();
    let fed = clock.mono();
    drop(feeder);
    assert_eq!(failure(asked).await.as_str(), "first-byte-timeout");
    // The last piece may have been taken a little before it was seen to be.
    assert!(clock.mono().since(fed) >= limit / 2);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_the_clients_failure() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.first_byte = Duration::from_millis(50));
    let (feeder, body) = fed_at(Pace { rate: 1000, grace: Duration::from_millis(300) });
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert!(feeder.feed(b"piece").await);
    let error = failure(asked).await;
    assert!(error.is_the_clients());
    assert_eq!(error.as_str(), "request-timeout", "{error}");
    feeder.until_dropped().await;
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn the_total_timeout_ends_an_exchange_before_its_head() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.total = Duration::from_millis(50));
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert_eq!(failure(asked).await.as_str(), "total-timeout");
    peer.until_closed().await;
}

#[tokio::test]
async fn the_total_timeout_ends_an_exchange_within_its_body() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.total = Duration::from_millis(300));
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome").await;
    let error = whole(reply(asked).await).await.unwrap_err();
    assert!(matches!(error, OriginError::TotalTimeout { .. }), "{error}");
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_early_answer_leaves_no_connection_in_the_pool() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    assert!(feeder.feed(b"begin").await);
    peer.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    // The client is not asked for the rest.
    feeder.until_dropped().await;
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_early_answer_leaves_none_there_even_when_the_upload_ends_soon_after() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    drop(feeder);
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

/// Whoever answers before it has all of a request may not read the rest, or may take it for another request.
#[tokio::test]
async fn an_early_answer_leaves_none_there_even_when_the_upload_ends_before_the_answer() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
    let forwarded = reply(asked).await;
    assert!(feeder.feed(b"all").await);
    drop(feeder);
    peer.bytes(b"3\r\nall\r\n0\r\n\r\n".len()).await;
    peer.say("ok").await;
    assert_eq!(whole(forwarded).await.unwrap(), "ok");
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_interim_response_during_the_upload_is_no_early_answer() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(feeder.feed(b"all").await);
    drop(feeder);
    peer.bytes(b"3\r\nall\r\n0\r\n\r\n".len()).await;
    peer.say(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    until(|| gauges(&up).idle == 1).await;
}

#[tokio::test]
async fn an_early_answer_is_heard_even_when_the_origin_closes_on_the_upload() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert!(feeder.feed(b"unread").await);
    let text = "big".repeat(10_000);
    peer.say(&format!("HTTP/1.1 413 Content Too Large\r\ncontent-length: 30000\r\n\r\n{text}")).await;
    let forwarded = reply(asked).await;
    // Closing with unread bytes resets the connection under the upload, and writing fails while
    // most of the answer has not been read yet.
    peer.stream.readable().await.unwrap();
    drop(peer);
    for _ in 0..8 {
        feeder.feed(b"more").await;
        tokio::task::yield_now().await;
    }
    assert_eq!(whole(forwarded).await.unwrap(), text);
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_the_clients_failure() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert!(feeder.feed(b"begin").await);
    feeder.fail().await;
    let error = failure(asked).await;
    assert_eq!(error.as_str(), "request-body", "{error}");
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_upload_shorter_than_its_length_is_the_clients_failure() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (feeder, body) = fed();
    let mut request = request(Method::POST, "/", body);
    request.headers_mut().insert("content-length", "10".parse().unwrap());
    let asked = ask(&up, request);
    let mut peer = origin.accept().await;
    peer.head().await;
    assert!(feeder.feed(b"begin").await);
    drop(feeder);
    assert_eq!(failure(asked).await.as_str(), "request-body");
    peer.until_closed().await;
}
