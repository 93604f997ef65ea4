//! Who waits for a connection, in which order, and how long.

use std::time::Duration;

use crate::upstream::pool::{Grant, Want};
use crate::upstream::testing::*;

#[tokio::test]
async fn requests_beyond_max_connections_wait_in_line_and_are_served_in_order() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let first = ask(&up, get("/0"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let mut line = Vec::new();
    for place in 1..=4 {
        line.push(ask(&up, get(&format!("/{place}"))));
        until(|| gauges(&up).waiting == place).await;
    }
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    for (place, asked) in line.into_iter().enumerate() {
        let head = peer.answer(OK).await;
        assert!(head.starts_with(&format!("GET /{} ", place + 1)), "{head}");
        whole(reply(asked).await).await.unwrap();
    }
    let g = gauges(&up);
    assert_eq!((g.open, g.idle, g.waiting, g.connects, g.reused), (1, 1, 0, 1, 4));
}

#[tokio::test]
async fn a_closed_connection_lets_the_next_in_line_open_one() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let second = ask(&up, get("/"));
    until(|| gauges(&up).waiting == 1).await;
    drop(peer);
    assert_eq!(failure(first).await.as_str(), "reset");
    origin.accept().await.answer(OK).await;
    whole(reply(second).await).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        cfg.pool.max_connections = 1;
        cfg.pool.queue = 1;
    });
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let second = ask(&up, get("/"));
    until(|| gauges(&up).waiting == 1).await;
    assert_eq!(failure(ask(&up, get("/"))).await.as_str(), "queue-full");
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    peer.answer(OK).await;
    whole(reply(second).await).await.unwrap();
}

#[tokio::test]
async fn waiting_ends_with_the_queue_timeout_and_leaves_no_hole() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        cfg.pool.max_connections = 1;
        cfg.pool.queue_timeout = Duration::from_millis(50);
    });
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    assert_eq!(failure(ask(&up, get("/"))).await.as_str(), "queue-timeout");
    assert_eq!(gauges(&up).waiting, 0);
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    exchange(&up, &mut peer).await;
}

#[tokio::test]
async fn a_waiter_that_leaves_is_passed_over() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let first = ask(&up, get("/first"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let leaver = ask(&up, get("/leaver"));
    until(|| gauges(&up).waiting == 1).await;
    let stayer = ask(&up, get("/stayer"));
    until(|| gauges(&up).waiting == 2).await;
    leaver.abort();
    until(|| gauges(&up).waiting == 1).await;
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    let head = peer.answer(OK).await;
    assert!(head.starts_with("GET /stayer "), "{head}");
    whole(reply(stayer).await).await.unwrap();
}

#[tokio::test]
async fn a_second_attempt_goes_to_the_front_is_never_refused_and_gets_a_fresh_connection() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        cfg.pool.max_connections = 1;
        cfg.pool.queue = 1;
    });
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    let waits = ask(&up, get("/waits"));
    until(|| gauges(&up).waiting == 1).await;
    let pool = std::sync::Arc::clone(&up.pools[0]);
    let again =
        tokio::spawn(async move { pool.checkout(0, Want::Fresh, crate::clock::Mono::default()).await });
    until(|| gauges(&up).waiting == 2).await;
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    // The connection is sound, but used: it is closed to make room.
    peer.until_closed().await;
    let Ok((Grant::Open(slot), _)) = soon(again).await.unwrap() else { panic!("the right to open one") };
    assert_eq!(gauges(&up).waiting, 1);
    drop(slot);
    origin.accept().await.answer(OK).await;
    whole(reply(waits).await).await.unwrap();
}

#[tokio::test]
async fn a_second_attempt_closes_a_kept_connection_to_make_room() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(first).await).await.unwrap();
    let granted = soon(up.pools[0].checkout(0, Want::Fresh, crate::clock::Mono::default())).await;
    assert!(matches!(granted, Ok((Grant::Open(_), _))));
    peer.until_closed().await;
    drop(granted);
    until(|| gauges(&up).open == 0).await;
}
