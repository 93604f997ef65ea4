//! `timeout.total` holds whether or not anybody asks for the answer.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance};

use crate::upstream::OriginError;
use crate::upstream::pool::{Grant, Want};
use crate::upstream::testing::*;

const TOTAL: Duration = Duration::from_secs(10);
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome";
const MOMENT: Duration = Duration::from_millis(2);

fn one_connection(cfg: &mut crate::config::Upstream) {
    cfg.pool.max_connections = 1;
    cfg.timeout.total = TOTAL;
}

/// Who has waited for another's fetch first has what is left of its time.
#[tokio::test]
async fn who_has_waited_before_waits_no_longer_than_the_total() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let late =
        soon(up.forward(0, get("/"), &once_more, None, TOTAL)).await.map(|it| it.response.into_parts().0);
    assert_eq!(late.unwrap_err().as_str(), "total-timeout");
    assert_eq!(gauges(&up).connects, 0, "the origin is not asked for whom there is no time");

    let waiting = std::sync::Arc::clone(&up);
    let asked = tokio::spawn(async move { waiting.forward(0, get("/"), &once_more, None, TOTAL / 2).await });
    let mut peer = origin.accept().await;
    peer.head().await;
    advance(TOTAL / 2 - MOMENT).await;
    rest().await;
    assert!(!asked.is_finished());
    advance(MOMENT * 2).await;
    assert_eq!(failure(asked).await.as_str(), "total-timeout");
    peer.until_closed().await;
}

/// The same for the time to the head, of which a little is left in any case.
#[tokio::test]
async fn who_has_waited_before_has_what_is_left_of_the_time_to_the_first_byte() {
    const FIRST: Duration = Duration::from_secs(2);
    const LEAST: Duration = Duration::from_millis(250);
    stop_time();
    for (waited, left) in
        [(Duration::ZERO, FIRST), (FIRST - 3 * LEAST, 3 * LEAST), (FIRST, LEAST), (2 * FIRST, LEAST)]
    {
        let origin = Origin::start().await;
        let up = upstream(&origin, |cfg| cfg.timeout.first_byte = FIRST);
        let asking = std::sync::Arc::clone(&up);
        let asked = tokio::spawn(async move { asking.forward(0, get("/"), &once_more, None, waited).await });
        let mut peer = origin.accept().await;
        peer.head().await;
        advance(left - MOMENT).await;
        rest().await;
        assert!(!asked.is_finished(), "{waited:?}");
        advance(MOMENT * 2).await;
        assert_eq!(failure(asked).await.as_str(), "first-byte-timeout", "{waited:?}");
        peer.until_closed().await;
        // Who waits for another first is not cut short by a head that may take as long as it may.
        let patience = up.patience(waited);
        assert_eq!(patience, if waited.is_zero() { Duration::from_secs(120) } else { left });
    }
}

#[tokio::test]
async fn a_body_that_nobody_polls_makes_room_for_a_waiting_request() {
    stop_time();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = format!("{chunked}{}", "4\r\nsome\r\n".repeat(10_000));
    let by_length = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}", "x".repeat(500_000));
    for words in [HALF, chunked, &endless, &by_length] {
        let origin = Origin::start().await;
        let up = upstream(&origin, one_connection);
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.head().await;
        let (mut reader, mut writer) = peer.stream.into_split();
        let words = words.to_owned();
        // What is not taken cannot be written either.
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(words.as_bytes()).await;
            writer
        });
        let mut body = reply(asked).await.response.into_body();
        advance(TOTAL / 2).await;
        let next = ask(&up, get("/next"));
        until(|| gauges(&up).waiting == 1).await;
        advance(TOTAL / 2 - MOMENT).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gauges(&up).waiting, 1, "not before its time");

        advance(MOMENT * 2).await;
        let mut another = origin.accept().await;
        another.answer(OK).await;
        assert_eq!(whole(reply(next).await).await.unwrap(), "ok");
        assert_eq!((gauges(&up).open, gauges(&up).idle), (1, 1));
        // The origin hears of it: an end, or a reset where not all it sent was taken.
        let _ = soon(reader.read(&mut [0])).await;
        drop(soon(writing).await);

        let error = soon(body.frame()).await.unwrap().unwrap_err();
        assert!(matches!(error, OriginError::TotalTimeout { limit: TOTAL, .. }), "{error}");
        assert!(!http_body::Body::is_end_stream(&body), "a failed body never looks complete");
    }
}

#[tokio::test]
async fn a_body_that_is_waited_for_is_woken_when_its_time_is_over_however_short_or_long() {
    stop_time();
    for millis in [1, 20, 999, 1001, 3_600_000] {
        let total = Duration::from_millis(millis);
        let origin = Origin::start().await;
        let up = upstream(&origin, |cfg| {
            cfg.timeout.total = total;
            cfg.timeout.first_byte = total * 2;
        });
        let begun = Instant::now();
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n").await;
        let mut body = reply(asked).await.response.into_body();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "some");
        let waiting = tokio::spawn(async move { body.frame().await });
        tokio::task::yield_now().await;
        advance(total + MOMENT).await;
        let error = soon(waiting).await.unwrap().unwrap().unwrap_err();
        assert_eq!((error.as_str(), begun.elapsed()), ("total-timeout", total + MOMENT));
        peer.until_closed().await;
        until(|| gauges(&up).open == 0).await;
    }
}

#[tokio::test]
async fn an_origin_that_never_pauses_is_held_to_it_too() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\n\r\n").await;
    let pouring = tokio::spawn(async move { while peer.stream.write_all(&[7; 65536]).await.is_ok() {} });
    let mut body = reply(asked).await.response.into_body();
    let reading = tokio::spawn(async move {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("the body looks complete"),
            }
        }
    });
    advance(TOTAL + MOMENT).await;
    assert_eq!(soon(reading).await.unwrap().as_str(), "total-timeout");
    soon(pouring).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_stands_still_after_an_early_answer_makes_room() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let (feeder, body) = fed();
    let asked = ask(&up, request(Method::POST, "/", body));
    let mut peer = origin.accept().await;
    assert!(feeder.feed(b"begin").await);
    peer.answer(HALF).await;
    let mut answer = reply(asked).await.response.into_body();
    advance(TOTAL + MOMENT).await;
    feeder.until_dropped().await;
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
    let error = soon(answer.frame()).await.unwrap().unwrap_err();
    assert_eq!(error.as_str(), "total-timeout");
}

#[tokio::test]
async fn a_request_that_is_not_polled_while_it_waits_for_the_head_makes_room() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    // By a kept connection, on which a reset alone would be a reason to ask again.
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(first).await).await.unwrap();
    let mut asked = Box::pin(up.forward(0, get("/"), &once_more, None, Duration::ZERO));
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    peer.head().await;
    let next = tokio::spawn({
        let pool = std::sync::Arc::clone(&up.pools[0]);
        async move { pool.checkout(0, Want::Any, crate::clock::Mono::default()).await }
    });
    until(|| gauges(&up).waiting == 1).await;
    advance(TOTAL + MOMENT).await;
    assert!(matches!(soon(next).await.unwrap(), Ok((Grant::Open(_), _))));
    peer.until_closed().await;
    let error = soon(asked).await.map(|_| ()).unwrap_err();
    assert_eq!(error.as_str(), "total-timeout");
    assert_eq!(gauges(&up).retries, 0);
}

#[tokio::test]
async fn the_time_that_a_request_has_waited_in_line_counts() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let second = ask(&up, get("/"));
    until(|| gauges(&up).waiting == 1).await;
    advance(TOTAL - Duration::from_secs(1)).await;
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    peer.answer(HALF).await;
    let held = reply(second).await;
    advance(Duration::from_secs(1) + MOMENT).await;
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
    assert_eq!(whole(held).await.unwrap_err().as_str(), "total-timeout");
}

#[tokio::test]
async fn a_connection_given_back_and_used_again_has_all_its_time_anew() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        one_connection(cfg);
        cfg.pool.max_age = Duration::from_secs(100_000);
    });
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    for pause in [0, 3, 9, 10, 25, 1, 7] {
        // Nothing is due while it waits in the pool, and an exchange is due by its own begin alone.
        advance(Duration::from_secs(pause)).await;
        let asked = ask(&up, get("/"));
        peer.answer(HALF).await;
        let held = reply(asked).await;
        advance(TOTAL - MOMENT).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        peer.say("-thing").await;
        assert_eq!(whole(held).await.unwrap(), "some-thing", "after {pause} s");
        until(|| gauges(&up).idle == 1).await;
    }
    assert_eq!(gauges(&up).connects, 1);
    // And the last one is held to it still.
    let asked = ask(&up, get("/"));
    peer.answer(HALF).await;
    let held = reply(asked).await;
    advance(TOTAL + MOMENT).await;
    peer.until_closed().await;
    assert_eq!(whole(held).await.unwrap_err().as_str(), "total-timeout");
}

/// RFC 9110 §7.8
#[tokio::test]
async fn an_upgraded_connection_outlives_it() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let mut request = get("/chat");
    request.headers_mut().insert("upgrade", "chat".parse().unwrap());
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    let asked = ask(&up, request);
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n").await;
    let mut forwarded = reply(asked).await;
    // Before anybody has taken it over, and after.
    advance(TOTAL * 3).await;
    let upgraded = soon(hyper::upgrade::on(&mut *forwarded.response)).await.unwrap();
    drop(forwarded);
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    advance(TOTAL * 3).await;
    stream.write_all(b"there").await.unwrap();
    assert_eq!(peer.bytes(5).await, b"there");
    peer.say("and back").await;
    let mut heard = [0; 8];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, gauges(&up).open), (b"and back", 1));
    drop(stream);
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn an_upgrade_whose_request_stands_still_makes_room() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, one_connection);
    let (feeder, body) = fed();
    let mut request = request(Method::POST, "/chat", body);
    request.headers_mut().insert("upgrade", "chat".parse().unwrap());
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    let asked = ask(&up, request);
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n").await;
    let mut forwarded = reply(asked).await;
    let upgraded = hyper::upgrade::on(&mut *forwarded.response);
    advance(TOTAL + MOMENT).await;
    assert!(soon(upgraded).await.is_err());
    peer.until_closed().await;
    feeder.until_dropped().await;
    until(|| gauges(&up).open == 0).await;
}

/// hyper ends a body like that of a connection that closes, when the task that drives it is dropped.
#[tokio::test]
async fn a_body_whose_drivers_thread_has_ended_does_not_look_complete() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let asked = {
        let up = std::sync::Arc::clone(&up);
        other.spawn(async move { up.forward(1, get("/"), &once_more, None, Duration::ZERO).await })
    };
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n").await;
    let mut body = reply(asked).await.response.into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "some");
    other.shutdown_background();
    let error = soon(body.frame()).await.unwrap().unwrap_err();
    assert_eq!(error.as_str(), "reset", "{error}");
    until(|| gauges(&up).open == 0).await;
}
