//! A second server beside one that does not begin its answer: when there is one, whose answer is taken, and what it
//! means for the first.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::task::JoinHandle;
use tokio::time::advance;

use crate::clock::{Clock, Stepper, Timestamp};
use crate::config;
use crate::interim::{Counts, Interim, Line};
use crate::upstream::testing::*;
use crate::upstream::{RequestBody, Upstream};

const AFTER: Duration = Duration::from_secs(4);
const FIRST_BYTE: Duration = Duration::from_secs(10);
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";

/// Time passes. Timers count whole milliseconds, and the moment that a test begins is none.
async fn pass(time: Duration) {
    advance(time + Duration::from_millis(1)).await;
}

/// Two servers, the first of which is asked first; a second one is asked after [`AFTER`]. Time stands still.
struct Pair {
    up: Arc<Upstream>,
    stepper: Stepper,
    one: Origin,
    two: Origin,
}

impl Pair {
    async fn new(change: impl FnOnce(&mut config::Upstream)) -> Self {
        let (one, two) = (Origin::start().await, Origin::start().await);
        let mut cfg = settings(vec![one.server.clone(), two.server.clone()]);
        (cfg.timeout.hedge_after, cfg.timeout.first_byte) = (Some(AFTER), FIRST_BYTE);
        change(&mut cfg);
        let (clock, stepper) = Clock::stepped(Timestamp::from_secs(1_000_000));
        Self { up: Upstream::new(&cfg, clock, 1), stepper, one, two }
    }

    /// A GET that both servers have been sent, the second after [`AFTER`].
    async fn both(&self) -> (JoinHandle<Answer>, Peer, Peer) {
        let asked = ask(&self.up, get("/"));
        let mut first = self.one.accept().await;
        first.head().await;
        let second = self.hedge().await;
        (asked, first, second)
    }

    /// The hedge that comes when it is time.
    async fn hedge(&self) -> Peer {
        pass(AFTER).await;
        let mut second = self.two.accept().await;
        assert!(second.head().await.starts_with("GET / HTTP/1.1"));
        second
    }

    /// Hedges sent to and won by each server.
    fn hedges(&self) -> [(u64, u64); 2] {
        let of = |nth: usize| (self.up.gauges()[nth].hedges, self.up.gauges()[nth].hedges_won);
        [of(0), of(1)]
    }

    async fn until_closed(&self) {
        until(|| self.up.gauges().iter().all(|server| server.open == 0 && server.waiting == 0)).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_a_request_and_says_nothing_is_not_waited_for_alone() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let asked = ask(&pair.up, get("/"));
    let mut first = pair.one.accept().await;
    first.head().await;
    pass(AFTER - Duration::from_secs(1)).await;
    rest().await;
    assert_eq!(pair.hedges(), [(0, 0), (0, 0)], "not yet");
    pass(Duration::from_secs(1)).await;
    let mut second = pair.two.accept().await;
    second.answer(WELL).await;
    let forwarded = reply(asked).await;
    assert!(forwarded.times.hedge.is_some_and(|alone| alone >= AFTER), "{:?}", forwarded.times);
    assert_eq!(*forwarded.server, format!("127.0.0.1:{}", pair.two.server.port));
    assert_eq!(whole(forwarded).await.unwrap(), "well");
    assert_eq!(pair.hedges(), [(0, 0), (1, 1)]);
    // It may still be at work on it: closed, and the slot given back.
    assert_eq!(first.until_closed().await, b"");
    until(|| pair.up.gauges()[0].open == 0).await;
    assert_eq!(pair.up.gauges()[1].idle, 1, "the winner's may serve others");
}

#[tokio::test]
async fn the_first_server_wins_if_it_is_the_first_after_all() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, mut first, mut second) = pair.both().await;
    first.say(OK).await;
    let forwarded = reply(asked).await;
    assert_eq!(forwarded.times.hedge, None);
    assert_eq!(whole(forwarded).await.unwrap(), "ok");
    second.until_closed().await;
    until(|| pair.up.gauges()[1].open == 0).await;
    assert_eq!(pair.hedges(), [(0, 0), (1, 0)]);
    assert_eq!(pair.up.gauges()[0].idle, 1);
}

/// The time limits are the request's, whoever works on it.
#[tokio::test]
async fn both_attempts_lie_within_the_first_byte_timeout() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, mut first, mut second) = pair.both().await;
    pass(FIRST_BYTE - AFTER - Duration::from_secs(1)).await;
    rest().await;
    assert!(!asked.is_finished());
    pass(Duration::from_secs(1)).await;
    assert_eq!(failure(asked).await.as_str(), "first-byte-timeout");
    first.until_closed().await;
    second.until_closed().await;
    pair.until_closed().await;
    assert_eq!(pair.hedges(), [(0, 0), (1, 0)]);
}

#[tokio::test]
async fn both_attempts_lie_within_the_total_timeout() {
    stop_time();
    let pair = Pair::new(|cfg| cfg.timeout.total = Duration::from_secs(6)).await;
    let (asked, ..) = pair.both().await;
    pass(Duration::from_secs(2)).await;
    assert_eq!(failure(asked).await.as_str(), "total-timeout");
    pair.until_closed().await;
}

#[tokio::test]
async fn both_attempts_are_dropped_where_the_client_leaves() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, mut first, mut second) = pair.both().await;
    asked.abort();
    first.until_closed().await;
    second.until_closed().await;
    pair.until_closed().await;
}

/// RFC 9110 §15.6: who says 5xx "is aware that it has erred": the other may not have.
#[tokio::test]
async fn an_error_of_one_server_waits_for_the_other_and_a_good_answer_is_taken_at_once() {
    stop_time();
    const BAD: &str = "HTTP/9 what\r\n\r\n";
    const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    // Who says what, in this order; what the client gets.
    let rows: [(&[(usize, &str)], &str); 9] = [
        (&[(0, BUSY), (1, WELL)], "200"),
        (&[(1, BUSY), (0, WELL)], "200"),
        (&[(0, MISSING)], "404"),
        (&[(1, MISSING)], "404"),
        (&[(1, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"), (0, BUSY)], "503"),
        (&[(0, BUSY), (1, BAD)], "503"),
        (&[(1, BUSY), (0, BAD)], "503"),
        (&[(1, BAD), (0, WELL)], "200"),
        (&[(0, BAD), (1, WELL)], "200"),
    ];
    for (words, expected) in rows {
        let pair = Pair::new(|_| ()).await;
        let (asked, first, second) = pair.both().await;
        let mut peers = [first, second];
        for (nth, (who, word)) in words.iter().enumerate() {
            rest().await;
            assert!(!asked.is_finished(), "{words:?}: {nth}");
            peers[*who].say(word).await;
            // Until it has come: what is not given out is nowhere to be seen.
            for _ in 0..8 {
                tokio::task::yield_now().await;
                rest().await;
            }
        }
        let answer = soon(asked).await.unwrap().unwrap();
        assert_eq!(answer.response.status().as_str(), expected, "{words:?}");
        whole(answer).await.unwrap();
        until_unused(&pair.up).await;
    }
}

#[tokio::test]
async fn an_error_in_hand_is_given_when_the_other_server_has_let_its_time_pass() {
    stop_time();
    for who in [0, 1] {
        let pair = Pair::new(|_| ()).await;
        let (asked, first, second) = pair.both().await;
        let mut peers = [first, second];
        peers[who].say(BUSY).await;
        until(|| pair.up.answers.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
        assert!(!asked.is_finished());
        pass(FIRST_BYTE - AFTER).await;
        let answer = reply(asked).await;
        assert_eq!(answer.response.status().as_u16(), 503);
        assert_eq!(whole(answer).await.unwrap(), "busy");
    }
}

/// Without a hedge it would have been given at once.
#[tokio::test]
async fn an_error_of_the_first_server_waits_a_second_for_the_hedge_and_no_longer() {
    stop_time();
    let second = Duration::from_secs(1);
    let pair = Pair::new(|_| ()).await;
    let (asked, mut first, mut other) = pair.both().await;
    first.say(BUSY).await;
    until(|| pair.up.answers.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    pass(second - Duration::from_millis(100)).await;
    rest().await;
    assert!(!asked.is_finished());
    pass(Duration::from_millis(100)).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "busy");
    other.until_closed().await;
    // One that comes later waits no more, and where less is slow than that, it is as long.
    for (after, gone) in [(AFTER, second), (second / 10, second / 10)] {
        let pair = Pair::new(|cfg| cfg.timeout.hedge_after = Some(after)).await;
        let (asked, mut first, _second) = pair.both().await;
        pass(gone).await;
        rest().await;
        first.say(BUSY).await;
        assert_eq!(whole(reply(asked).await).await.unwrap(), "busy");
    }
}

/// Neither attempt is worth a third one, and each failure is the first's to tell.
#[tokio::test]
async fn where_both_servers_break_off_the_request_has_failed() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, first, second) = pair.both().await;
    drop(second);
    until(|| pair.up.gauges()[1].open == 0).await;
    assert!(!asked.is_finished(), "the first may answer yet");
    drop(first);
    assert_eq!(failure(asked).await.as_str(), "reset");
    pair.until_closed().await;
}

#[tokio::test]
async fn a_first_server_that_breaks_off_leaves_the_hedge_to_answer() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, first, mut second) = pair.both().await;
    first.reset();
    until(|| pair.up.gauges()[0].open == 0).await;
    second.say(WELL).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    assert_eq!(pair.two.pending().await, 0, "it was not asked a third time");
}

/// A kept connection that was closed just then says nothing of its server, for a hedge as for any request.
#[tokio::test]
async fn a_hedge_on_a_connection_closed_just_then_is_sent_once_more() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, mut first, mut second) = pair.both().await;
    second.say(WELL).await;
    whole(reply(asked).await).await.unwrap();
    first.until_closed().await;
    let asked = ask(&pair.up, get("/"));
    let mut first = pair.one.accept().await;
    first.head().await;
    pass(AFTER).await;
    second.head().await;
    drop(second);
    pair.two.accept().await.answer(WELL).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    let gauges = &pair.up.gauges()[1];
    assert_eq!((gauges.hedges, gauges.hedges_won, gauges.retries), (2, 2, 1));
}

fn counted() -> (Interim, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let interim = Line::new("us", Arc::clone(&counts)).open().interim();
    (interim, counts)
}

/// RFC 9110 §15.2: they are advisory. Those of the server that loses are about an answer that the client never gets.
#[tokio::test]
async fn with_two_servers_at_work_no_interim_response_is_passed_on() {
    stop_time();
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    let pair = Pair::new(|_| ()).await;
    let (interim, counts) = counted();
    let up = Arc::clone(&pair.up);
    let asked =
        tokio::spawn(
            async move { up.forward(0, get("/"), &once_more, Some(&interim), Duration::ZERO).await },
        );
    let mut first = pair.one.accept().await;
    first.head().await;
    let mut second = pair.hedge().await;
    first.say(HINTS).await;
    second.say(&[HINTS, WELL].concat()).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    // Nobody takes them here, so each that is passed on counts as dropped.
    assert_eq!(counts.dropped(), 0);
}

/// It has said that it is at work, which is more than a server that hangs does.
#[tokio::test]
async fn a_server_that_has_sent_an_interim_response_is_waited_for() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (interim, counts) = counted();
    let up = Arc::clone(&pair.up);
    let asked =
        tokio::spawn(
            async move { up.forward(0, get("/"), &once_more, Some(&interim), Duration::ZERO).await },
        );
    let mut first = pair.one.accept().await;
    first.answer("HTTP/1.1 102 Processing\r\n\r\n").await;
    until(|| counts.dropped() == 1).await;
    pass(AFTER).await;
    rest().await;
    // And what it says later is passed on as ever.
    first.say("HTTP/1.1 102 Processing\r\n\r\n").await;
    until(|| counts.dropped() == 2).await;
    first.say(OK).await;
    whole(reply(asked).await).await.unwrap();
    assert_eq!(pair.hedges(), [(0, 0), (0, 0)]);
}

/// RFC 9110 §9.2.1, §9.2.2: what may have been acted upon is not sent twice.
#[tokio::test]
async fn only_what_may_be_sent_again_is_hedged() {
    stop_time();
    let (feeder, body) = fed();
    for asking in [
        post("/", "order"),
        request(Method::DELETE, "/", RequestBody::empty()),
        request(Method::GET, "/", body),
    ] {
        let pair = Pair::new(|_| ()).await;
        let asked = ask(&pair.up, asking);
        let mut first = pair.one.accept().await;
        first.head().await;
        pass(AFTER).await;
        rest().await;
        first.say(OK).await;
        whole(reply(asked).await).await.unwrap();
        assert_eq!(pair.hedges(), [(0, 0), (0, 0)]);
    }
    drop(feeder);
    let pair = Pair::new(|_| ()).await;
    let query = request(Method::QUERY, "/", RequestBody::whole("all of it".into()));
    let asked = ask(&pair.up, query);
    let mut first = pair.one.accept().await;
    first.head().await;
    pass(AFTER).await;
    let mut second = pair.two.accept().await;
    second.head().await;
    assert_eq!(second.bytes(9).await, b"all of it");
    second.say(WELL).await;
    whole(reply(asked).await).await.unwrap();
}

#[tokio::test]
async fn nothing_is_hedged_where_it_is_off_or_would_come_too_late() {
    stop_time();
    let off = |cfg: &mut config::Upstream| cfg.timeout.hedge_after = None;
    let late = |cfg: &mut config::Upstream| cfg.timeout.hedge_after = Some(FIRST_BYTE);
    for change in [off as fn(&mut config::Upstream), late] {
        let pair = Pair::new(change).await;
        let asked = ask(&pair.up, get("/"));
        let mut first = pair.one.accept().await;
        first.head().await;
        pass(FIRST_BYTE).await;
        assert_eq!(failure(asked).await.as_str(), "first-byte-timeout");
        assert_eq!(pair.hedges(), [(0, 0), (0, 0)]);
    }
}

/// It takes what is free, and stands in nobody's way.
#[tokio::test]
async fn a_server_at_its_limit_is_sent_no_hedge_until_it_has_room() {
    stop_time();
    let pair = Pair::new(|cfg| cfg.pool.max_connections = 1).await;
    let asked = ask(&pair.up, get("/"));
    let mut first = pair.one.accept().await;
    first.head().await;
    let other = ask(&pair.up, get("/other"));
    let mut second = pair.two.accept().await;
    second.head().await;
    pass(AFTER).await;
    rest().await;
    assert_eq!(pair.hedges(), [(0, 0), (0, 0)]);
    second.say(OK).await;
    whole(reply(other).await).await.unwrap();
    // Nobody tells of its room: it is looked at again after a moment.
    pass(Duration::from_millis(150)).await;
    second.answer(WELL).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    assert_eq!(pair.hedges(), [(0, 0), (1, 1)]);
}

/// A black hole: the connection is neither made nor refused.
#[tokio::test]
async fn a_server_that_cannot_even_be_connected_to_is_not_waited_for_alone() {
    let (hole, _full) = Origin::hole();
    let two = Origin::start().await;
    let mut cfg = settings(vec![hole, two.server.clone()]);
    (cfg.timeout.hedge_after, cfg.timeout.first_byte) = (Some(AFTER), FIRST_BYTE);
    stop_time();
    let up = Upstream::new(&cfg, Clock::system(), 1);
    let asked = ask(&up, get("/"));
    until(|| up.gauges()[0].open == 1).await;
    rest().await;
    pass(AFTER).await;
    two.accept().await.answer(WELL).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    until(|| up.gauges()[0].open == 0).await;
    // What is not safe to send twice has not been sent at all: the next server, after `timeout.connect`.
    cfg.timeout.connect = Duration::from_secs(2);
    let up = Upstream::new(&cfg, Clock::system(), 1);
    let asked = ask(&up, post("/", "order"));
    until(|| up.gauges()[0].open == 1).await;
    rest().await;
    pass(Duration::from_secs(2)).await;
    two.accept().await.answer(WELL).await;
    assert_eq!(whole(reply(asked).await).await.unwrap(), "well");
    assert_eq!(up.gauges()[0].connect_errors, 1);
}

/// The first few find out, and cost their client the wait; the others go elsewhere.
#[tokio::test]
async fn a_server_that_lets_three_hedges_win_and_answers_nobody_is_left_out() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let (asked, _first, mut second) = pair.both().await;
    second.say(WELL).await;
    whole(reply(asked).await).await.unwrap();
    for _ in 0..2 {
        until_unused(&pair.up).await;
        let asked = ask(&pair.up, get("/"));
        let mut first = pair.one.accept().await;
        first.head().await;
        pass(AFTER).await;
        second.answer(WELL).await;
        whole(reply(asked).await).await.unwrap();
    }
    assert_eq!(pair.hedges(), [(0, 0), (3, 3)]);
    // Whatever the method.
    for _ in 0..3 {
        exchange(&pair.up, &mut second).await;
    }
    // After a second, one request tries it; others do not, least of all one that may not be sent twice.
    pair.stepper.advance(Duration::from_secs(1));
    let asked = ask(&pair.up, post("/", "order"));
    second.answer(WELL).await;
    whole(reply(asked).await).await.unwrap();
    let trial = ask(&pair.up, get("/"));
    let mut first = pair.one.accept().await;
    first.head().await;
    exchange(&pair.up, &mut second).await;
    // It is well again, and has as many as the other.
    first.say(OK).await;
    whole(reply(trial).await).await.unwrap();
    until_unused(&pair.up).await;
    for _ in 0..2 {
        let asked = [ask(&pair.up, get("/")), ask(&pair.up, get("/"))];
        first.answer(OK).await;
        second.answer(OK).await;
        for asked in asked {
            whole(reply(asked).await).await.unwrap();
        }
    }
}

/// What may be sent once only fails as before, and yet leads to the server's being left out.
#[tokio::test]
async fn a_server_that_answers_no_post_while_another_does_is_left_out() {
    stop_time();
    let pair = Pair::new(|_| ()).await;
    let mut second = None;
    for _ in 0..3 {
        let silent = ask(&pair.up, post("/", "order"));
        let mut first = pair.one.accept().await;
        first.head().await;
        let asked = ask(&pair.up, post("/", "order"));
        let mut peer = match second.take() {
            Some(peer) => peer,
            None => pair.two.accept().await,
        };
        peer.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
        second = Some(peer);
        pass(FIRST_BYTE).await;
        assert_eq!(failure(silent).await.as_str(), "first-byte-timeout");
        until_unused(&pair.up).await;
    }
    let mut second = second.unwrap();
    for _ in 0..3 {
        let asked = ask(&pair.up, post("/", "order"));
        second.answer(OK).await;
        whole(reply(asked).await).await.unwrap();
    }
}

/// An endpoint that takes its time on every server is nobody's fault.
#[tokio::test]
async fn a_server_that_answers_others_meanwhile_is_not_left_out_for_being_slow() {
    const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stop_time();
    let pair = Pair::new(|_| ()).await;
    for round in 0..6 {
        let slow = ask(&pair.up, get("/slow"));
        let mut first = pair.one.accept().await;
        first.head().await;
        // One for each, so that the first server says something while it is slow.
        let others = [ask(&pair.up, get("/")), ask(&pair.up, get("/"))];
        pair.two.accept().await.answer(LAST).await;
        pair.one.accept().await.answer(LAST).await;
        for asked in others {
            whole(reply(asked).await).await.unwrap();
        }
        pass(AFTER).await;
        pair.two.accept().await.answer(LAST).await;
        whole(reply(slow).await).await.unwrap();
        first.until_closed().await;
        pair.until_closed().await;
        assert_eq!(pair.hedges(), [(0, 0), (round + 1, round + 1)]);
        // The turn comes round to the first server.
        pair.up.turn.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    assert!(!pair.up.pools[0].health.is_silent());
}

/// The bound is there for origins that are slow because they have too much to do.
#[tokio::test]
async fn where_both_servers_are_slow_a_tenth_of_the_requests_is_hedged() {
    stop_time();
    let pair = Pair::new(|cfg| {
        (cfg.pool.max_connections, cfg.pool.queue) = (200, 0);
    })
    .await;
    let asked: Vec<_> = (0..100).map(|_| ask(&pair.up, get("/"))).collect();
    until(|| pair.up.gauges().iter().map(|server| server.open).sum::<u64>() == 100).await;
    let mut peers = Vec::new();
    for _ in 0..50 {
        peers.extend([pair.one.accept().await, pair.two.accept().await]);
    }
    for peer in &mut peers {
        peer.head().await;
    }
    pass(AFTER).await;
    until(|| pair.hedges().iter().map(|of| of.0).sum::<u64>() == 10).await;
    rest().await;
    pass(FIRST_BYTE - AFTER - Duration::from_secs(1)).await;
    rest().await;
    assert_eq!(pair.hedges().iter().map(|of| of.0).sum::<u64>(), 10, "the burst, and no more");
    for peer in &mut peers {
        peer.say(OK).await;
    }
    for asked in asked {
        whole(reply(asked).await).await.unwrap();
    }
    assert!(pair.up.pools.iter().all(|pool| !pool.health.is_silent()));
}

/// A hang must not starve of the bound: all that wait for a silent server are answered, however many.
#[tokio::test]
async fn all_requests_that_a_silent_server_holds_are_answered_by_the_other() {
    stop_time();
    let pair = Pair::new(|cfg| {
        (cfg.pool.max_connections, cfg.pool.queue) = (200, 0);
    })
    .await;
    let asked: Vec<_> = (0..100).map(|_| ask(&pair.up, get("/"))).collect();
    until(|| pair.up.gauges().iter().map(|server| server.open).sum::<u64>() == 100).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut peer = pair.one.accept().await;
        peer.head().await;
        silent.push(peer);
    }
    pair.two.serve();
    until(|| asked.iter().filter(|asked| asked.is_finished()).count() == 50).await;
    pass(AFTER).await;
    for asked in asked {
        assert_eq!(whole(reply(asked).await).await.unwrap(), "ok");
    }
    let gauges = pair.up.gauges();
    assert_eq!((gauges[1].hedges, gauges[1].hedges_won), (50, 50));
    until(|| pair.up.gauges()[0].open == 0).await;
}

#[tokio::test]
async fn tunnels_of_a_former_configuration_count_on() {
    let origin = Origin::start().await;
    let mut cfg = settings(vec![origin.server.clone()]);
    cfg.pool.max_tunnels = 2;
    let before = Upstream::new(&cfg, Clock::system(), 1);
    let open = [before.tunnel(), before.tunnel()].map(|tunnel| tunnel.ok().unwrap());
    assert_eq!(before.tunnel().err(), Some(2));
    cfg.pool.max_tunnels = 3;
    let after = Upstream::in_place_of(Some(&before), &cfg, Clock::system(), 1);
    drop(before);
    let third = after.tunnel().ok().unwrap();
    assert_eq!(after.tunnel().err(), Some(3));
    drop((open, third));
    assert!((0..3).map(|_| after.tunnel()).collect::<Vec<_>>().iter().all(Result::is_ok));
}
