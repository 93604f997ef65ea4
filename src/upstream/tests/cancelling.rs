//! A client may leave at any moment: no slot, place in line or connection may leak for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Clock;
use crate::upstream::Upstream;
use crate::upstream::testing::*;

/// Polls `future` at most `times` times, each time it is woken, then drops it.
async fn poll_at_most<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut left = times;
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx).map(Some);
        if left == 0 && polled.is_pending() { Poll::Ready(None) } else { polled }
    })
    .await
}

#[tokio::test]
async fn an_exchange_dropped_at_any_await_leaks_nothing() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        cfg.pool.max_connections = 1;
        cfg.timeout.connect = Duration::from_secs(1);
    });
    origin.serve();
    let mut finished = 0;
    let mut times = 1;
    while finished < 3 {
        // Each number of polls with a kept connection at hand, and with none.
        let exchange = async {
            let forwarded = up.forward(0, get("/"), &once_more, None, Duration::ZERO).await.unwrap();
            whole(forwarded).await.unwrap();
        };
        finished += usize::from(soon(poll_at_most(times, exchange)).await.is_some());
        until_unused(&up).await;
        whole(soon(up.forward(0, get("/"), &once_more, None, Duration::ZERO)).await.unwrap()).await.unwrap();
        until_unused(&up).await;
        assert!(gauges(&up).open <= 1);
        times += 1;
    }
    assert!(times > 4, "some were dropped on the way");
}

#[tokio::test]
async fn two_attempts_dropped_at_any_await_leak_nothing() {
    // It takes connections and reads nothing.
    let (silent, sound) = (Origin::start().await, Origin::start().await);
    let mut cfg = settings(vec![silent.server.clone(), sound.server.clone()]);
    (cfg.pool.max_connections, cfg.timeout.hedge_after) = (1, Some(Duration::from_millis(1)));
    sound.serve();
    let up = Upstream::new(&cfg, Clock::system(), 1);
    // How many polls it takes is for the machine to say: all numbers again and again, until some had both under way.
    let (mut finished, mut hedged) = (0, 0);
    for times in (1..12).cycle().take(1_200) {
        up.turn.store(0, Ordering::Relaxed);
        // Its time has not come to be left out, and all hedges are to be had.
        up.pools[0].health.answered(up.answers.fetch_add(1, Ordering::AcqRel) + 1);
        (0..100).for_each(|_| up.hedging.earn());
        let exchange = async {
            whole(up.forward(0, get("/"), &once_more, None, Duration::ZERO).await.unwrap()).await.unwrap();
        };
        let before = up.gauges()[1].hedges;
        let whole = soon(poll_at_most(times, exchange)).await.is_some();
        until_unused(&up).await;
        assert!(up.gauges().iter().all(|server| server.open <= 1));
        finished += usize::from(whole);
        hedged += usize::from(!whole && up.gauges()[1].hedges > before);
        if finished >= 3 && hedged >= 3 {
            return;
        }
    }
    panic!("{hedged} were dropped with both under way, and {finished} came to their end");
}

#[tokio::test]
async fn waiters_dropped_while_being_served_hand_on_what_they_got() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| cfg.pool.max_connections = 1);
    let first = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;

    // Two in line whose futures this test holds, so that nothing runs them.
    let mut leaver = Box::pin(up.forward(0, get("/leaver"), &once_more, None, Duration::ZERO));
    assert!(poll_at_most(1, leaver.as_mut()).await.is_none());
    let mut next = Box::pin(up.forward(0, get("/next"), &once_more, None, Duration::ZERO));
    assert!(poll_at_most(1, next.as_mut()).await.is_none());
    assert_eq!(gauges(&up).waiting, 2);

    // The connection is handed to the first of them, who never takes it.
    peer.say(OK).await;
    whole(reply(first).await).await.unwrap();
    until(|| gauges(&up).waiting == 1).await;
    drop(leaver);
    assert_eq!(gauges(&up).waiting, 0);
    let (forwarded, head) = tokio::join!(soon(next), peer.answer(OK));
    assert!(head.starts_with("GET /next "), "{head}");
    whole(forwarded.unwrap()).await.unwrap();

    // The same with a slot: the connection is closed while two wait.
    let first = ask(&up, get("/"));
    peer.head().await;
    let mut leaver = Box::pin(up.forward(0, get("/leaver"), &once_more, None, Duration::ZERO));
    assert!(poll_at_most(1, leaver.as_mut()).await.is_none());
    let next = ask(&up, get("/next"));
    until(|| gauges(&up).waiting == 2).await;
    drop(peer);
    // A kept connection closed without an answer: tried again, so it is in line as well.
    until(|| gauges(&up).retries == 1).await;
    drop(leaver);
    for _ in 0..2 {
        let mut peer = origin.accept().await;
        peer.answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        peer.until_closed().await;
    }
    whole(reply(first).await).await.unwrap();
    whole(reply(next).await).await.unwrap();
    until(|| gauges(&up).open == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_origin_thinks_closes_the_connection() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.head().await;
    asked.abort();
    peer.until_closed().await;
    until(|| gauges(&up).open == 0).await;
}

#[test]
fn many_threads_that_come_and_go_share_few_connections() {
    let up = Arc::new(std::sync::OnceLock::new());
    let (ready, begin) = std::sync::mpsc::channel();
    let (over, done) = tokio::sync::oneshot::channel::<()>();
    let shared = Arc::clone(&up);
    let served = std::thread::spawn(move || {
        block_on(async {
            let origin = Origin::start().await;
            let built = upstream(&origin, |cfg| {
                cfg.pool.max_connections = 3;
                cfg.pool.queue = 1000;
            });
            assert!(shared.set(built).is_ok());
            origin.serve();
            ready.send(()).unwrap();
            let _ = done.await;
        });
    });
    begin.recv().unwrap();
    let up: &Arc<_> = up.get().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            scope.spawn(move || block_on(crowd(Arc::clone(up), worker)));
        }
    });
    block_on(until(|| gauges(up).waiting == 0));
    // Their runtimes are gone, and their connections with them.
    block_on(until(|| gauges(up).open == 0));
    over.send(()).unwrap();
    served.join().unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Thirty clients, each with ten exchanges, a third of them left in the middle.
async fn crowd(up: Arc<crate::upstream::Upstream>, worker: usize) {
    let clients: Vec<_> = (0..30)
        .map(|client| {
            let up = Arc::clone(&up);
            tokio::spawn(async move {
                for round in 0..10 {
                    let exchange = async {
                        whole(up.forward(worker, get("/"), &once_more, None, Duration::ZERO).await?)
                            .await
                            .map_err(drop)
                            .or(Ok(Default::default()))
                    };
                    let polls = if (client + round) % 3 == 0 { 1 + round } else { usize::MAX };
                    if let Some(Err(error)) = soon(poll_at_most(polls, exchange)).await {
                        // Another worker's runtime may end under a connection that this one uses.
                        let error: crate::upstream::ForwardError = error;
                        assert_eq!(error.as_str(), "reset");
                    }
                    assert!(gauges(&up).open <= 3);
                }
            })
        })
        .collect();
    for client in clients {
        soon(client).await.unwrap();
    }
}
