//! Interim responses: what they mean for time limits and for a second attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::advance;

use crate::interim::{Counts, Interim, Line};
use crate::upstream::Upstream;
use crate::upstream::testing::*;

const PROCESSING: &str = "HTTP/1.1 102 Processing\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nset-cookie: a=1\r\n\r\n";

/// A way to a client that has left, and the count of what has come on it.
fn counted() -> (Interim, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let line = Line::new("us", Arc::clone(&counts));
    let interim = line.open().interim();
    (interim, counts)
}

fn ask_with(upstream: &Arc<Upstream>, interim: Interim) -> JoinHandle<Answer> {
    let upstream = Arc::clone(upstream);
    tokio::spawn(
        async move { upstream.forward(0, get("/"), &once_more, Some(&interim), Duration::ZERO).await },
    )
}

#[tokio::test]
async fn they_are_handed_on_and_nothing_of_them_is_in_the_final_response() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let (interim, counts) = counted();
    let asked = ask_with(&up, interim);
    let mut peer = origin.accept().await;
    peer.answer(&[HINTS, PROCESSING, OK].concat()).await;
    let forwarded = reply(asked).await;
    assert_eq!(counts.dropped(), 2);
    let names: Vec<_> = forwarded.response.headers().keys().cloned().collect();
    assert_eq!(names, ["content-length"]);
    assert_eq!(whole(forwarded).await.unwrap(), "ok");
    assert_eq!(gauges(&up).idle, 1, "the connection is ready for more");
}

#[tokio::test]
async fn each_starts_the_first_byte_timeout_anew_and_the_total_bounds_them_all() {
    stop_time();
    let origin = Origin::start().await;
    let up = upstream(&origin, |cfg| {
        cfg.timeout.first_byte = Duration::from_secs(10);
        cfg.timeout.total = Duration::from_secs(60);
    });
    for (interims, last, cause) in [(1, 11, "first-byte-timeout"), (7, 5, "total-timeout")] {
        let (interim, counts) = counted();
        let asked = ask_with(&up, interim);
        let mut peer = origin.accept().await;
        peer.head().await;
        for come in 0..interims {
            advance(Duration::from_secs(8)).await;
            assert!(!asked.is_finished(), "{come} have come");
            peer.say(PROCESSING).await;
            until(|| counts.dropped() == come + 1).await;
        }
        advance(Duration::from_secs(last)).await;
        assert_eq!(failure(asked).await.as_str(), cause);
        peer.until_closed().await;
    }
}

#[tokio::test]
async fn an_origin_that_has_begun_to_work_on_a_request_is_not_sent_it_again() {
    let origin = Origin::start().await;
    let up = upstream(&origin, |_| ());
    let asked = ask(&up, get("/"));
    let mut peer = origin.accept().await;
    peer.answer(OK).await;
    whole(reply(asked).await).await.unwrap();

    let asked = ask(&up, get("/again"));
    peer.answer(PROCESSING).await;
    drop(peer);
    assert_eq!(failure(asked).await.as_str(), "reset");
    assert_eq!((gauges(&up).reused, gauges(&up).retries), (1, 0));
}
