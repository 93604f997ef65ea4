//! What is sent a second time, and what never is.

use std::time::Duration;

use http::Method;
use tokio::time::advance;

use crate::upstream::testing::*;
use crate::upstream::{RequestBody, Upstream};

/// An upstream with one kept connection, and the origin's end of it.
async fn kept(
    origin: &Origin,
    change: impl FnOnce(&mut crate::config::Upstream),
) -> (std::sync::Arc<Upstream>, Peer) {
    let up = upstream(origin, change);
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    assert_eq!(gauges(&up).idle, 1);
    (up, peer)
}

/// RFC 9112 §9.3.1: the origin closes a kept connection just as the next request is on its way.
#[tokio::test]
async fn a_get_on_a_connection_closed_just_then_is_sent_once_more() {
    for (method, reset) in
        [(Method::GET, false), (Method::GET, true), (Method::HEAD, false), (Method::OPTIONS, true)]
    {
        let origin = Origin::start().await;
        let (up, mut peer) = kept(&origin, |_| ()).await;
        let asked = ask(&up, request(method, "/again", RequestBody::empty()));
        let before = peer.head().await;
        if reset {
            peer.reset();
        } else {
            drop(peer);
        }
        let mut fresh = origin.accept().await;
        let after = fresh.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(before, after);
        whole(reply(asked).await).await.unwrap();
        let g = gauges(&up);
        assert_eq!((g.connects, g.reused, g.retries), (2, 1, 1));
    }
}

/// Who waits for an answer does not care how often it was asked for.
#[tokio::test]
async fn both_attempts_together_wait_no_longer_than_one() {
    let origin = Origin::start().await;
    let (up, mut peer) = kept(&origin, |cfg| cfg.timeout.first_byte = Duration::from_secs(10)).await;
    stop_time();
    let asked = ask(&up, get("/again"));
    peer.head().await;
    advance(Duration::from_secs(6)).await;
    drop(peer);
    let mut fresh = origin.accept().await;
    fresh.head().await;
    advance(Duration::from_secs(3)).await;
    rest().await;
    assert!(!asked.is_finished());
    advance(Duration::from_secs(1)).await;
    assert_eq!(failure(asked).await.as_str(), "first-byte-timeout");
    assert_eq!(gauges(&up).retries, 1);
}

/// It accepts, and breaks off before it has answered anything: its listener is up, its service is not.
#[tokio::test]
async fn a_server_that_breaks_off_is_left_out_while_another_answers() {
    let (broken, sound) = (Origin::start().await, Origin::start().await);
    let cfg = settings(vec![broken.server.clone(), sound.server.clone()]);
    let (clock, stepper) = crate::clock::Clock::stepped(crate::clock::Timestamp::from_secs(1));
    let up = Upstream::new(&cfg, clock, 1);
    let asked = ask(&up, get("/"));
    let mut peer = broken.accept().await;
    peer.head().await;
    peer.reset();
    let mut other = sound.accept().await;
    let head = other.answer(OK).await;
    assert!(head.starts_with("GET / HTTP/1.1"), "{head}");
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    // For a second it is not asked at all.
    for _ in 0..4 {
        exchange(&up, &mut other).await;
    }
    // What may have been acted upon is not sent again, on whatever server.
    stepper.advance(Duration::from_secs(1));
    let asked = ask(&up, post("/", "order"));
    let mut peer = broken.accept().await;
    peer.head().await;
    peer.reset();
    assert_eq!(failure(asked).await.as_str(), "reset");
    exchange(&up, &mut other).await;
}

#[tokio::test]
async fn where_every_server_breaks_off_each_is_asked_once() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let cfg = settings(vec![one.server.clone(), two.server.clone()]);
    let up = Upstream::new(&cfg, crate::clock::Clock::system(), 1);
    let asked = ask(&up, get("/"));
    for origin in [one, two] {
        let mut peer = origin.accept().await;
        peer.head().await;
        drop(peer);
    }
    assert_eq!(failure(asked).await.as_str(), "reset");
}

/// A kept connection that was closed says nothing of its server, but another is asked first.
#[tokio::test]
async fn a_closed_connection_leads_to_another_server_and_back_where_that_is_dead() {
    let (origin, (absent, _held)) = (Origin::start().await, Origin::absent());
    let cfg = settings(vec![origin.server.clone(), absent]);
    let up = Upstream::new(&cfg, crate::clock::Clock::system(), 1);
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
    let asked = ask(&up, get("/again"));
    peer.head().await;
    drop(peer);
    origin.accept().await.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
}

#[tokio::test]
async fn the_second_attempt_is_the_last() {
    let origin = Origin::start().await;
    let (up, mut peer) = kept(&origin, |_| ()).await;
    let asked = ask(&up, get("/again"));
    peer.head().await;
    drop(peer);
    let mut fresh = origin.accept().await;
    fresh.head().await;
    drop(fresh);
    assert_eq!(failure(asked).await.as_str(), "reset");
    assert_eq!(gauges(&up).retries, 1);
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn the_second_attempt_needs_no_place_in_a_full_queue() {
    let origin = Origin::start().await;
    let change = |cfg: &mut crate::config::Upstream| {
        cfg.pool.max_connections = 1;
        cfg.pool.queue = 0;
    };
    let (up, mut peer) = kept(&origin, change).await;
    let asked = ask(&up, get("/again"));
    peer.head().await;
    drop(peer);
    origin.accept().await.answer(OK).await;
    whole(reply(asked).await).await.unwrap();
}

#[tokio::test]
async fn what_may_have_been_acted_upon_is_not_sent_again() {
    let delete = request(Method::DELETE, "/", RequestBody::empty());
    let unknown = request(Method::from_bytes(b"FROB").unwrap(), "/", RequestBody::empty());
    let (feeder, body) = fed();
    for asking in [post("/", "data"), delete, unknown, request(Method::GET, "/", body)] {
        let origin = Origin::start().await;
        let (up, mut peer) = kept(&origin, |_| ()).await;
        let asked = ask(&up, asking);
        peer.head().await;
        drop(peer);
        assert_eq!(failure(asked).await.as_str(), "reset");
        assert_eq!((gauges(&up).connects, gauges(&up).retries), (1, 0));
    }
    drop(feeder);
}

#[tokio::test]
async fn a_get_on_a_fresh_connection_is_not_sent_again() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    drop(peer);
    assert_eq!(failure(asked).await.as_str(), "reset");
    assert_eq!(gauges(&up).retries, 0);
}

#[tokio::test]
async fn nonsense_is_not_asked_for_again() {
    let origin = Origin::start().await;
    let (up, mut peer) = kept(&origin, |_| ()).await;
    let asked = ask(&up, get("/"));
    peer.answer("HTTP/1.1 what\r\n\r\n").await;
    assert_eq!(failure(asked).await.as_str(), "protocol");
    assert_eq!(gauges(&up).retries, 0);
}

/// hyper gives a request back that it has not begun to write.
#[tokio::test]
async fn a_request_of_which_nothing_was_written_is_sent_again_whatever_its_method() {
    let origin = Origin::start().await;
    let (up, mut peer) = kept(&origin, |_| ()).await;
    // So that hyper has the connection.
    let asked = ask(&up, post("/", "data"));
    peer.head().await;
    assert_eq!(peer.bytes(4).await, b"data");
    peer.say(OK).await;
    whole(reply(asked).await).await.unwrap();
    until(|| gauges(&up).idle == 1).await;
    // The task that drives the connection will end before it looks at the next request.
    up.pools[0].stop_kept();
    let answered = async {
        let mut fresh = origin.accept().await;
        let head = fresh.answer(OK).await;
        assert!(head.starts_with("POST / "), "{head}");
        assert_eq!(fresh.bytes(4).await, b"data");
        fresh
    };
    let (forwarded, _fresh) =
        tokio::join!(soon(up.forward(0, post("/", "data"), &once_more, None, Duration::ZERO)), answered);
    whole(forwarded.unwrap()).await.unwrap();
    let g = gauges(&up);
    assert_eq!((g.connects, g.reused, g.retries), (2, 2, 1));
}
