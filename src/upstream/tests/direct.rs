//! A request that is a head alone is answered without hyper as it would be with it.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::upstream::testing::*;
use crate::upstream::{Forwarded, RequestBody};

/// What came of a request.
#[derive(Debug, PartialEq)]
struct Came {
    head: Option<(StatusCode, Version, HeaderMap)>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    error: Option<&'static str>,
    /// The connection was kept for the next.
    kept: bool,
}

async fn all(forwarded: Forwarded) -> (Vec<u8>, Option<HeaderMap>, Option<&'static str>) {
    let (mut body, mut data, mut trailers) = (forwarded.response.into_body(), Vec::new(), None);
    while let Some(frame) = soon(body.frame()).await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Err(error) => {
                assert!(!body.is_end_stream(), "a body that broke off looks complete");
                return (data, trailers, Some(error.as_str()));
            }
        }
    }
    assert!(body.is_end_stream());
    (data, trailers, None)
}

/// Has an origin say this in pieces of so many bytes, and then nothing, or its end.
async fn came(method: &Method, by_hyper: bool, words: &str, pieces: usize, ends: bool) -> Came {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let body = if by_hyper { RequestBody::whole("x".into()) } else { RequestBody::empty() };
    let asked = ask(&up, request(method.clone(), "/", body));
    let mut peer = origin.accept().await;
    peer.head().await;
    if by_hyper {
        assert_eq!(peer.bytes(1).await, b"x");
    }
    let words = words.as_bytes().to_vec();
    let saying = tokio::spawn(async move {
        for piece in words.chunks(pieces) {
            // Who has heard enough closes.
            if peer.stream.write_all(piece).await.is_err() {
                break;
            }
            rest().await;
        }
        if ends {
            let _ = peer.stream.shutdown().await;
        }
        peer
    });
    let answer = soon(asked).await.unwrap();
    let mut came = Came { head: None, body: Vec::new(), trailers: None, error: None, kept: false };
    match answer {
        Err(error) => came.error = Some(error.as_str()),
        Ok(forwarded) => {
            let head = &forwarded.response;
            came.head = Some((head.status(), head.version(), head.headers().clone()));
            (came.body, came.trailers, came.error) = all(forwarded).await;
        }
    }
    let peer = soon(saying).await.unwrap();
    until(|| gauges(&up).open == gauges(&up).idle).await;
    came.kept = !ends && gauges(&up).idle == 1;
    drop(peer);
    until(|| gauges(&up).open == 0).await;
    came
}

#[tokio::test]
async fn what_an_origin_says_means_the_same_as_to_hyper_however_it_is_cut() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{ok}transfer-encoding: chunked\r\n");
    let rows: Vec<(Method, String)> = [
        // RFC 9112 §6.3.
        format!("{ok}content-length: 5\r\n\r\nhello"),
        format!("{ok}content-length: 0\r\n\r\n"),
        format!("{ok}Content-Length:5\t\r\nX:  a b\t\r\nx:\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhello"),
        format!("{chunked}\r\n5\r\nhello\r\n3;x=y\r\n!!!\r\n0\r\n\r\n"),
        format!("{chunked}trailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\n\r\n"),
        format!("{chunked}\r\n0\r\n\r\n"),
        "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"1\"\r\n\r\n".to_owned(),
        format!("{ok}connection: close\r\ncontent-length: 5\r\n\r\nhello"),
        format!("{ok}connection: x-y, Close\r\ncontent-length: 5\r\n\r\nhello"),
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        // §4: without a reason, or with one of its own.
        "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 299 All Well\r\ncontent-length: 0\r\n\r\n".to_owned(),
        // RFC 9110 §15.2.
        format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{ok}content-length: 1\r\n\r\n!"),
        // Wrong in the head.
        "HTTP/1.1 OK\r\n\r\n".to_owned(),
        "HTTP/2 200 OK\r\n\r\n".to_owned(),
        "\u{15}\u{3}\u{1}".to_owned(),
        format!("{ok}content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        format!("{chunked}content-length: 5\r\n\r\nhello"),
        format!("{ok}transfer-encoding: gzip\r\n\r\nhello"),
        format!("{ok}x : y\r\n\r\n"),
        format!("{ok}x: y\r\n z\r\n\r\n"),
        format!("{ok}x: \u{1}\r\n\r\n"),
        format!("{ok}x\r\n\r\n"),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(65),
    ]
    .into_iter()
    .map(|words| (Method::GET, words))
    .chain([
        // RFC 9110 §9.3.2.
        (Method::HEAD, format!("{ok}content-length: 5\r\n\r\n")),
        (Method::HEAD, format!("{chunked}\r\n")),
        (Method::DELETE, format!("{ok}content-length: 5\r\n\r\nhello")),
        (Method::OPTIONS, format!("{ok}content-length: 0\r\n\r\n")),
        (Method::POST, format!("{ok}content-length: 5\r\n\r\nhello")),
    ])
    .collect();
    for (method, words) in &rows {
        for pieces in [usize::MAX, 1] {
            let direct = came(method, false, words, pieces, false).await;
            let by_hyper = came(method, true, words, pieces, false).await;
            assert_eq!(direct, by_hyper, "{method} {words:?} in pieces of {pieces}");
        }
    }
}

#[tokio::test]
async fn the_end_of_a_connection_means_the_same_as_to_hyper() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{ok}transfer-encoding: chunked\r\n\r\n");
    for words in [
        // All of it, by its end (RFC 9112 §6.3, last rule).
        &format!("{ok}\r\nhello"),
        &format!("{ok}\r\n"),
        "HTTP/1.0 200 OK\r\n\r\nhello",
        &format!("{ok}content-length: 5\r\n\r\nhello"),
        &format!("{chunked}0\r\n\r\n"),
        // Not all of it.
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nx: y\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        &format!("{ok}content-length: 5\r\n\r\nhell"),
        &format!("{ok}content-length: 5\r\n\r\n"),
        &chunked,
        &format!("{chunked}5\r\nhel"),
        &format!("{chunked}5\r\nhello\r\n"),
        &format!("{chunked}5\r\nhello\r\n0\r\n"),
        &format!("{chunked}5\r\nhello\r\n0\r\nx: y\r\n"),
    ] {
        for pieces in [usize::MAX, 1] {
            let direct = came(&Method::GET, false, words, pieces, true).await;
            let by_hyper = came(&Method::GET, true, words, pieces, true).await;
            assert_eq!(direct, by_hyper, "{words:?} in pieces of {pieces}");
        }
    }
}

/// Response splitting: what comes with an answer and is none of it fails that answer, and no other is made of it.
#[tokio::test]
async fn what_comes_behind_an_answer_fails_it_and_is_nobodys() {
    for words in [
        format!("{OK}{OK}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{OK}"),
        format!("HTTP/1.1 304 Not Modified\r\n\r\n{OK}"),
        format!("{OK}!"),
    ] {
        let came = came(&Method::GET, false, &words, usize::MAX, false).await;
        assert_eq!((came.error, came.kept), (Some("protocol"), false), "{words:?}");
    }
}

#[tokio::test]
async fn what_comes_later_closes_the_connection_that_nobody_asks_anything_on() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let mut peer = Some({
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
        peer
    });
    until(|| gauges(&up).idle == 1).await;
    peer.as_mut().unwrap().say(OK).await;
    until(|| gauges(&up).open == 0).await;
    let flaws = gauges(&up).flaws;
    assert!(flaws.contains(&("unasked-bytes", 1)), "{flaws:?}");
    let asked = ask(&up, get("/"));
    origin.accept().await.answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown").await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "own");
}

/// Nothing tells who asks that bytes came a moment before, but the kernel.
#[tokio::test]
async fn what_came_just_before_a_request_is_not_its_answer() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    // No task runs between the two, so nobody has been told.
    let stray = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
    assert_eq!(peer.stream.try_write(stray).unwrap(), stray.len());
    let asked = up.forward(0, get("/"), &once_more, None, Duration::ZERO);
    let (forwarded, _) = tokio::join!(soon(asked), async { origin.accept().await.answer(OK).await });
    assert_eq!(whole(forwarded.unwrap()).await.unwrap(), "ok");
    assert_eq!(gauges(&up).retries, 1);
}

#[tokio::test]
async fn all_of_an_answer_that_has_come_leaves_the_connection_to_others_before_it_is_read() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    let first = reply(asked).await;
    let asked = ask(&up, get("/"));
    peer.answer(OK).await;
    let second = reply(asked).await;
    assert_eq!(whole(first).await.unwrap(), "ok");
    assert_eq!(whole(second).await.unwrap(), "ok");
    assert_eq!(gauges(&up).connects, 1);
}

#[tokio::test]
async fn a_connection_that_hyper_has_to_have_is_given_to_it_and_stays_with_it() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    for _ in 0..2 {
        let asked = ask(&up, post("/", "data"));
        peer.head().await;
        assert_eq!(peer.bytes(4).await, b"data");
        peer.say(OK).await;
        whole(reply(asked).await).await.unwrap();
        until(|| gauges(&up).idle == 1).await;
        exchange(&up, &mut peer).await;
    }
    assert_eq!(gauges(&up).connects, 1);
    drop(peer);
    until(|| gauges(&up).open == 0).await;
}
