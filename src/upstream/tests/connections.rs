//! Which connections are kept, reused, closed; upgrades; several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clock::Clock;
use crate::upstream::testing::*;
use crate::upstream::{Leave, RequestBody, Upstream};

#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/one?q=1"));
    let mut peer = origin.accept().await;
    let head = peer.answer(OK).await;
    assert!(head.starts_with("GET /one?q=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: origin.test\r\n"), "{head}");
    let first = reply(asked).await;
    assert!(first.times.connect.is_some());
    assert_eq!(&*first.server, &format!("127.0.0.1:{}", origin.server.port));
    assert_eq!(whole(first).await.unwrap(), "ok");

    let asked = ask(&up, get("/two"));
    peer.answer(OK).await;
    let second = reply(asked).await;
    assert_eq!(second.times.connect, None);
    assert_eq!(whole(second).await.unwrap(), "ok");
    let g = gauges(&up);
    assert_eq!((g.open, g.idle, g.connects, g.reused, g.retries), (1, 1, 1, 1, 0));
}

#[tokio::test]
async fn a_response_without_a_body_gives_the_connection_back_at_once() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, request(Method::HEAD, "/", RequestBody::empty()));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let held = reply(asked).await;
    until(|| gauges(&up).idle == 1).await;
    for words in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let asked = ask(&up, get("/"));
        peer.answer(words).await;
        let another = reply(asked).await;
        until(|| gauges(&up).idle == 1).await;
        assert_eq!(whole(another).await.unwrap(), "");
    }
    drop(held);
    assert_eq!(gauges(&up).connects, 1);
}

#[tokio::test]
async fn a_connection_that_the_origin_will_close_is_not_kept() {
    for words in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let origin = Origin::start().await;
        let up = upstream(&origin, |_| ());
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        peer.answer(words).await;
        assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
        peer.until_closed().await;
        until(|| gauges(&up).open == 0).await;
    }
}

#[tokio::test]
async fn a_body_dropped_early_closes_the_connection() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nsome of it").await;
    drop(reply(asked).await);
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn trailers_come_through() {
    use http_body_util::BodyExt;
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n")
        .await;
    let body = soon(reply(asked).await.response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "ok");
    until(|| gauges(&up).idle == 1).await;
}

/// RFC 9110 §15.2
#[tokio::test]
async fn interim_responses_are_passed_over() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, post("/", "data"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(peer.bytes(4).await, b"data");
    peer.say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
    peer.say("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
    let reply = reply(asked).await;
    assert_eq!(reply.response.status(), StatusCode::CREATED);
    assert!(!reply.response.headers().contains_key("link"));
    until(|| gauges(&up).idle == 1).await;
}

#[tokio::test]
async fn a_request_of_another_version_goes_out_as_http_1_1() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    for version in [Version::HTTP_10, Version::HTTP_2, Version::HTTP_3] {
        let mut request = get("/");
        *request.version_mut() = version;
        let asked = ask(&up, request);
        let mut peer = origin.accept().await;
        let head = peer.answer("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
        drop(reply(asked).await);
    }
}

/// RFC 9110 §7.8
#[tokio::test]
async fn an_upgraded_connection_keeps_its_slot_until_it_is_closed() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.timeout.total = Duration::from_millis(300));
    let mut request = get("/chat");
    request.headers_mut().insert("upgrade", "chat".parse().unwrap());
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    let asked = ask(&up, request);
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\nhello")
        .await;
    let mut forwarded = reply(asked).await;
    assert_eq!(forwarded.response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = soon(hyper::upgrade::on(&mut *forwarded.response)).await.unwrap();
    drop(forwarded);
    let mut stream = hyper_util::rt::TokioIo::new(upgraded);
    let mut heard = [0; 5];
    soon(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
    // Longer than `total`, which has ended with the 101.
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"there").await.unwrap();
    assert_eq!(peer.bytes(5).await, b"there");
    assert_eq!((gauges(&up).open, gauges(&up).idle), (1, 0));
    drop(stream);
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

/// RFC 9110 §15.2.2
#[tokio::test]
async fn an_upgrade_that_was_not_asked_for_is_refused() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\n\r\n").await;
    assert_eq!(failure(asked).await.as_str(), "protocol");
    peer.until_closed().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_origin_closes_is_dropped_at_once() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    assert_eq!(gauges(&up).idle, 1);
    drop(peer);
    until(|| (gauges(&up).open, gauges(&up).idle) == (0, 0)).await;
}

#[tokio::test]
async fn kept_connections_beyond_max_idle_are_closed() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_idle = 1);
    let (one, two) = (ask(&up, get("/")), ask(&up, get("/")));
    let (mut a, mut b) = (origin.accept().await, origin.accept().await);
    a.answer(OK).await;
    b.answer(OK).await;
    whole(reply(one).await).await.unwrap();
    whole(reply(two).await).await.unwrap();
    until(|| (gauges(&up).open, gauges(&up).idle) == (1, 1)).await;
}

#[tokio::test]
async fn a_connection_unused_for_idle_timeout_is_not_used_again() {
    let origin = Origin::start().await;
    let (up, stepper) = stepped(&origin, |cfg| cfg.pool.idle_timeout = Duration::from_secs(4));
    let asked = ask(&up, get("/"));
    let mut first = origin.accept().await;
    first.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    stepper.advance(Duration::from_millis(3999));
    exchange(&up, &mut first).await;
    stepper.advance(Duration::from_secs(4));
    let asked = ask(&up, get("/"));
    let mut second = origin.accept().await;
    first.until_closed().await;
    second.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    assert_eq!(gauges(&up).connects, 2);
}

#[tokio::test]
async fn a_connection_older_than_max_age_is_not_used_again_however_busy() {
    let origin = Origin::start().await;
    let (up, stepper) = stepped(&origin, |cfg| cfg.pool.max_age = Duration::from_secs(5));
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    stepper.advance(Duration::from_secs(3));
    exchange(&up, &mut peer).await;
    // It grows too old in the middle of an exchange: closed at its end.
    let asked = ask(&up, get("/"));
    peer.head().await;
    stepper.advance(Duration::from_secs(2));
    peer.say(OK).await;
    whole(reply(asked).await).await.unwrap();
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn maintain_reaps_what_is_old_and_keeps_min_idle_warm() {
    let origin = Origin::start().await;
    let (up, stepper) = stepped(&origin, |cfg| {
        cfg.pool.min_idle = 2;
        cfg.pool.idle_timeout = Duration::from_secs(1);
    });
    let task = tokio::spawn(Upstream::maintain(std::sync::Arc::downgrade(&up), 0));
    let (mut a, mut b) = (origin.accept().await, origin.accept().await);
    until(|| gauges(&up).idle == 2).await;
    stepper.advance(Duration::from_secs(1));
    a.until_closed().await;
    b.until_closed().await;
    let (_c, mut d) = (origin.accept().await, origin.accept().await);
    until(|| (gauges(&up).open, gauges(&up).idle) == (2, 2)).await;
    // A warm connection serves the first request without connecting.
    exchange(&up, &mut d).await;
    task.abort();
}

#[tokio::test]
async fn each_worker_keeps_its_share_warm() {
    let server = Origin::start().await.serve();
    let mut cfg = settings(vec![server]);
    cfg.pool.min_idle = 3;
    let up = Upstream::new(&cfg, Clock::system(), 2);
    let second = tokio::spawn(Upstream::maintain(std::sync::Arc::downgrade(&up), 1));
    until(|| gauges(&up).idle == 1).await;
    let first = tokio::spawn(Upstream::maintain(std::sync::Arc::downgrade(&up), 0));
    until(|| gauges(&up).idle == 3).await;
    assert_eq!(gauges(&up).connects, 3);
    first.abort();
    second.abort();
}

#[tokio::test]
async fn a_worker_prefers_the_connections_it_opened() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let open = async |worker| {
        let up = std::sync::Arc::clone(&up);
        let asked =
            tokio::spawn(async move { up.forward(worker, get("/"), &once_more, None, Duration::ZERO).await });
        let mut peer = origin.accept().await;
        peer.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
        (peer, reply(asked).await)
    };
    let (a, first) = open(0).await;
    let (b, second) = open(1).await;
    let mut peers = [a, b];
    for peer in &mut peers {
        peer.say("k").await;
    }
    whole(first).await.unwrap();
    whole(second).await.unwrap();
    // The third opened none and gets the one used last.
    for (worker, opener) in [(0, 0), (1, 1), (2, 1)] {
        let peer = &mut peers[opener];
        let task = std::sync::Arc::clone(&up);
        let asked =
            tokio::spawn(
                async move { task.forward(worker, get("/"), &once_more, None, Duration::ZERO).await },
            );
        peer.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
    }
}

#[tokio::test]
async fn the_server_with_the_fewest_connections_in_use_is_asked() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let cfg = settings(vec![one.server.clone(), two.server.clone()]);
    let up = Upstream::new(&cfg, Clock::system(), 1);
    let first = ask(&up, get("/"));
    let mut a = one.accept().await;
    a.head().await;
    let second = ask(&up, get("/"));
    let mut b = two.accept().await;
    b.answer(OK).await;
    whole(reply(second).await).await.unwrap();
    // The second server is free again, the first is not, whoever's turn it is.
    for _ in 0..3 {
        exchange(&up, &mut b).await;
    }
    a.say(OK).await;
    whole(reply(first).await).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_is_passed_over_for_a_second_then_tried_again() {
    let ((absent, _held), origin) = (Origin::absent(), Origin::start().await);
    let cfg = settings(vec![absent, origin.server.clone()]);
    let (clock, stepper) = Clock::stepped(crate::clock::Timestamp::from_secs(1));
    let up = Upstream::new(&cfg, clock, 1);
    let errors = || up.gauges()[0].connect_errors;
    // Whatever the method: nothing has been sent.
    let asked = ask(&up, post("/", "data"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    assert_eq!(peer.bytes(4).await, b"data");
    whole(reply(asked).await).await.unwrap();
    assert_eq!(errors(), 1);
    for _ in 0..4 {
        exchange(&up, &mut peer).await;
    }
    assert_eq!(errors(), 1);
    stepper.advance(Duration::from_secs(1));
    for _ in 0..2 {
        exchange(&up, &mut peer).await;
    }
    assert_eq!(errors(), 2);
}

#[tokio::test]
async fn a_name_is_resolved_and_all_its_addresses_are_tried() {
    // `localhost` may be ::1 first, where nobody listens.
    let mut origin = Origin::start().await;
    origin.server.host = "localhost".into();
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    origin.accept().await.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
}

/// Ten thousand pieces of 20 bytes used to hold 76 MB until the last of them had come.
struct While(Arc<AtomicBool>);

impl Leave for While {
    fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_large_body_is_read_in_large_pieces_for_as_long_as_it_has_leave() {
    const SIZE: usize = 8 << 20;
    const USUAL: usize = 32 << 10;
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let leave = Arc::new(AtomicBool::new(true));
    for has_leave in [false, true] {
        let asked = ask(&up, get("/"));
        let mut peer = origin.accept().await;
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n");
        peer.answer(&head).await;
        tokio::spawn(async move { peer.stream.write_all(&vec![b'x'; SIZE]).await });
        let mut body = reply(asked).await.response.into_body();
        if has_leave {
            body.read_much(While(Arc::clone(&leave)));
        }
        let (mut came, mut largest, mut after) = (0, 0, Vec::new());
        while let Some(frame) = soon(body.frame()).await {
            let piece = frame.unwrap().into_data().unwrap().len();
            (came, largest) = (came + piece, largest.max(piece));
            if !leave.load(Ordering::Relaxed) {
                after.push(piece);
            } else if largest > USUAL {
                leave.store(false, Ordering::Relaxed);
                assert!(came < SIZE / 2, "{came}");
            }
        }
        assert_eq!((came, largest > USUAL), (SIZE, has_leave), "{largest}");
        assert_eq!(after.is_empty(), !has_leave);
        // What had been read by then was on its way.
        assert!(after.iter().skip(4).all(|piece| *piece < USUAL), "{after:?}");
        assert_eq!(Arc::strong_count(&leave), 1, "it is given back before the end of the body");
    }
}

/// Ten idle connections used to hold 128 KiB each for as long as they were kept, which nobody counted. Those without
/// hyper hold nothing.
#[tokio::test]
async fn connections_that_have_carried_large_bodies_are_few_soon_after_they_have() {
    for (large, left) in [(false, 10), (true, 8)] {
        let origin = Origin::start().await;
        let (up, stepper) = stepped(&origin, |cfg| (cfg.pool.max_connections, cfg.pool.max_idle) = (16, 16));
        let asked: Vec<_> = (0..10).map(|_| ask(&up, post("/", "data"))).collect();
        let mut peers = Vec::new();
        for _ in 0..10 {
            let mut peer = origin.accept().await;
            peer.head().await;
            assert_eq!(peer.bytes(4).await, b"data");
            peer.say(OK).await;
            peers.push(peer);
        }
        for asked in asked {
            let mut answer = reply(asked).await;
            if large {
                answer.response.body_mut().read_much(While(Arc::default()));
            }
            whole(answer).await.unwrap();
        }
        up.pools[0].reap();
        assert_eq!(gauges(&up).idle, 10, "they may be used at once");
        stepper.advance(Duration::from_secs(2));
        up.pools[0].reap();
        until(|| (gauges(&up).open, gauges(&up).idle) == (left, left)).await;
    }
}

#[tokio::test]
async fn small_pieces_do_not_hold_on_to_the_buffer_that_they_came_in() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let pieces = "4\r\nsome\r\n4\r\nmore\r\n0\r\n\r\n";
    let mut peer = origin.accept().await;
    peer.answer(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{pieces}")).await;
    let mut body = reply(asked).await.response.into_body();
    let piece = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((piece.as_ref(), piece.is_unique()), (&b"somemore"[..], true));
    assert!(soon(body.frame()).await.is_none());
    // By hyper, which cuts them from its buffer.
    let asked = ask(&up, post("/", "data"));
    peer.head().await;
    assert_eq!(peer.bytes(4).await, b"data");
    peer.say(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{pieces}")).await;
    let mut body = reply(asked).await.response.into_body();
    for text in ["some", "more"] {
        let piece = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((piece.as_ref(), piece.is_unique()), (text.as_bytes(), true));
    }
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn what_the_upper_floors_hold_can_move_between_threads_and_is_not_large() {
    fn movable<T: Send + Unpin + 'static>() {}
    movable::<crate::upstream::OriginBody>();
    movable::<RequestBody>();
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let forwarding = up.forward(0, get("/"), &once_more, None, Duration::ZERO);
    assert!(size_of_val(&forwarding) <= 2832, "{}", size_of_val(&forwarding));
}

#[tokio::test]
async fn a_retired_upstream_keeps_nothing_and_serves_those_who_still_come_to_it() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.min_idle = 1);
    let maintaining = tokio::spawn(Upstream::maintain(std::sync::Arc::downgrade(&up), 0));
    let mut kept = origin.accept().await;
    until(|| gauges(&up).idle == 1).await;
    up.retire();
    kept.until_closed().await;
    soon(maintaining).await.unwrap();
    let asked = ask(&up, get("/"));
    let mut last = origin.accept().await;
    last.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    last.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn one_in_place_of_another_counts_on_for_the_servers_that_stay() {
    let origin = Origin::start().await;
    let mut cfg = settings(vec![origin.server.clone(), origin.server.clone()]);
    let first = Upstream::new(&cfg, Clock::system(), 1);
    let asked = ask(&first, get("/"));
    origin.accept().await.answer(OK).await;
    reply(asked).await;
    cfg.timeout.connect = Duration::from_millis(1);
    let second = Upstream::in_place_of(Some(&first), &cfg, Clock::system(), 1);
    let connects = |up: &Upstream| up.gauges().iter().map(|server| server.connects).collect::<Vec<_>>();
    assert_eq!(connects(&second).iter().sum::<u64>(), 1);
    assert_eq!(connects(&second), connects(&first));
    let elsewhere = settings(vec![crate::config::Server { host: "other.test".into(), port: 1 }]);
    assert_eq!(connects(&Upstream::in_place_of(Some(&second), &elsewhere, Clock::system(), 1)), [0]);
}
