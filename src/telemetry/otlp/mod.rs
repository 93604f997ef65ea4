//! Spans to who collects traces, over OTLP/HTTP.
//!
//! Whoever has a span never waits: it goes into a bounded queue, from which a thread of its own sends batches. A span
//! that finds the queue full is dropped and counted; one counts as waiting until the collector has taken it or it is
//! given up, so a collector that hangs makes Larder hold no more than the queue.
//! Must not know: what a request is, beyond what is handed in when it is over.

mod json;
mod post;
mod span;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use tokio::runtime;

use super::finish::Finished;
use super::gauges::SpanGauges;
use crate::clock::Clock;

pub use post::Collector;
use post::Refused;
use span::Span;
pub use span::{Asking, OriginAsked, RedisAsked};

/// Spans that are sent together at most.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Times that a batch is sent before it is given up.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, whatever the collector asks for: what waits meanwhile is in the queue.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How far the wall's time may be off before it is read anew: the spans of one trace are to be told by one clock.
const DRIFT: u64 = 100_000_000;

/// The way of spans out of the process.
#[derive(Debug)]
pub struct Spans(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    capacity: usize,
    clock: Clock,
    waiting: Mutex<Waiting>,
    /// There is a span, or the end has come.
    work: Condvar,
    /// None waits any more.
    idle: Condvar,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: Vec<Span>,
    /// Those that are being sent.
    in_hand: usize,
    closed: bool,
}

impl Spans {
    /// A queue of at most `capacity` spans, and a thread that sends them; `attributes` are of the process.
    ///
    /// # Errors
    /// The system refuses another thread, or what a runtime needs.
    pub fn new(
        collector: Collector,
        attributes: &[(String, String)],
        capacity: usize,
        clock: Clock,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            capacity,
            clock,
            waiting: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        });
        // A name that takes long to be resolved holds one thread, and not one for each batch.
        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let mut sender = Sender {
            queue: Arc::clone(&queue),
            collector,
            resource: json::resource(attributes),
            runtime,
            offset: 0,
            is_ill: false,
        };
        std::thread::Builder::new().name("otlp".to_owned()).spawn(move || sender.run())?;
        Ok(Self(queue))
    }

    /// A request is over. Never waits.
    pub(super) fn request(&self, r: &Finished) {
        if let Some(span) = Span::of_request(r) {
            self.0.push(span);
        }
    }

    /// An origin was asked for a request whose trace is sampled. Never waits.
    pub fn origin(&self, asking: &Asking<'_>, origin: &OriginAsked<'_>) {
        if asking.of.is_sampled() {
            self.0.push(Span::of_origin(drawn(), asking, origin));
        }
    }

    /// The same of Redis.
    pub fn redis(&self, asking: &Asking<'_>, found: &RedisAsked) {
        if asking.of.is_sampled() {
            self.0.push(Span::of_redis(drawn(), asking, found));
        }
    }

    /// What has become of them.
    pub fn gauges(&self) -> SpanGauges {
        let queue = &self.0;
        SpanGauges {
            sent: queue.sent.load(Relaxed),
            dropped: queue.dropped.load(Relaxed),
            failed: queue.failed.load(Relaxed),
            rejected: queue.rejected.load(Relaxed),
        }
    }

    /// Takes no more spans, and waits until those there are have been sent once, or for `within`; says whether none
    /// waits any more. Blocks the thread it is called on.
    pub fn stop(&self, within: Duration) -> bool {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        self.0.work.notify_one();
        !self.0.idle.wait_while_for(&mut waiting, |waiting| waiting.count() > 0, within).timed_out()
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.work.notify_one();
    }
}

/// An id for a span; zero is none.
fn drawn() -> u64 {
    let mut bits = [0; 8];
    let _none = getrandom::fill(&mut bits);
    u64::from_ne_bytes(bits).max(1)
}

impl Waiting {
    fn count(&self) -> usize {
        self.spans.len() + self.in_hand
    }
}

impl Queue {
    fn push(&self, span: Span) {
        let mut waiting = self.waiting.lock();
        if waiting.closed || waiting.count() >= self.capacity {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.spans.push(span);
        // At the first the thread begins to wait for others, and at a whole batch it need not.
        let wakes = matches!(waiting.spans.len(), 1 | BATCH);
        drop(waiting);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Waits for spans, and a little for more; none when closed and all are taken.
    fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        self.work.wait_while(&mut waiting, |waiting| waiting.spans.is_empty() && !waiting.closed);
        let gathers = |waiting: &mut Waiting| waiting.spans.len() < BATCH && !waiting.closed;
        self.work.wait_while_for(&mut waiting, gathers, GATHER);
        let count = waiting.spans.len().min(BATCH);
        waiting.in_hand = count;
        waiting.spans.drain(..count).collect()
    }

    /// Waits before another attempt; `false` where the end has come: then there is none.
    fn pause(&self, pause: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        self.work.wait_while_for(&mut waiting, |waiting| !waiting.closed, pause).timed_out()
    }

    /// The batch in hand is done with.
    fn done(&self) {
        let mut waiting = self.waiting.lock();
        waiting.in_hand = 0;
        if waiting.count() == 0 {
            self.idle.notify_all();
        }
    }
}

/// The queue's far end.
struct Sender {
    queue: Arc<Queue>,
    collector: Collector,
    resource: Value,
    runtime: runtime::Runtime,
    /// What makes of the process's own time nanoseconds since the Unix epoch.
    offset: u64,
    /// The last batch was given up.
    is_ill: bool,
}

impl Sender {
    fn run(&mut self) {
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return;
            }
            self.offset = self.offset_now();
            let encoded = Bytes::from(json::encode(&self.resource, &batch, self.offset));
            let count = batch.len() as u64;
            drop(batch);
            match self.send(&encoded) {
                Ok(rejected) => self.taken(count, rejected.min(count)),
                Err(why) => self.given_up(count, &why),
            }
            self.queue.done();
        }
    }

    /// Sends a batch as often as it may be; the error is for people.
    fn send(&self, batch: &Bytes) -> Result<u64, String> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.runtime.block_on(self.collector.post(batch.clone())) {
                Ok(rejected) => return Ok(rejected),
                Err(Refused::Ever(why)) => return Err(why),
                Err(Refused::ForNow(why, asked)) => {
                    let pause = asked.unwrap_or(pause).clamp(PAUSE, LONGEST_PAUSE);
                    if attempt >= ATTEMPTS || !self.queue.pause(pause) {
                        return Err(why);
                    }
                }
            }
            pause = pause.saturating_mul(2);
        }
        Ok(0)
    }

    fn taken(&mut self, count: u64, rejected: u64) {
        self.queue.sent.fetch_add(count - rejected, Relaxed);
        self.queue.rejected.fetch_add(rejected, Relaxed);
        if std::mem::take(&mut self.is_ill) {
            tracing::info!("the collector of traces takes spans again");
        }
    }

    fn given_up(&mut self, count: u64, why: &str) {
        self.queue.failed.fetch_add(count, Relaxed);
        if !std::mem::replace(&mut self.is_ill, true) {
            let (host, port) = (&self.collector.host, self.collector.port);
            tracing::warn!(spans = count, why, "the collector of traces at {host}:{port} takes no spans");
        }
    }

    /// Between the wall's time and the process's own, as before where that has not moved by much.
    fn offset_now(&self) -> u64 {
        let wall = self.queue.clock.now().as_millis().saturating_mul(1_000_000);
        let now = wall.saturating_sub(self.queue.clock.mono().nanos());
        if now.abs_diff(self.offset) > DRIFT { now } else { self.offset }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use super::super::finish::sample;
    use super::super::outcome::{Outcome, Source};
    use super::*;
    use crate::fields::trace::{Ids, Tracing};

    /// Long enough that only a hang takes it.
    const LONG: Duration = Duration::from_secs(30);

    fn spans(port: u16, capacity: usize) -> Spans {
        let collector = Collector {
            host: "127.0.0.1".into(),
            port,
            path: "/v1/traces".into(),
            headers: vec![],
            timeout: LONG,
        };
        Spans::new(collector, &[], capacity, Clock::system()).unwrap()
    }

    fn request(spans: &Spans) {
        let mut headers = http::HeaderMap::new();
        let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", sampled.parse().unwrap());
        let ids = Ids::of(&headers, Tracing::Accept, || 7 << 64);
        sample::with(&Outcome::new(Source::Local), |r| spans.request(&Finished { ids: Some(&ids), ..r }));
    }

    /// Takes a request, and answers it when told.
    fn collector() -> (u16, mpsc::Receiver<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                // Of the request whatever comes first: that it has come is all that counts here.
                let read = stream.read(&mut [0; 65_536]).unwrap();
                assert!(read > 0);
                if tell.send(stream).is_err() {
                    return;
                }
            }
        });
        (port, told)
    }

    fn answer(mut stream: TcpStream, status: &str) {
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}").unwrap();
    }

    #[test]
    fn a_collector_that_hangs_costs_spans_and_not_time_and_what_waits_is_bounded() {
        let (port, told) = collector();
        let spans = spans(port, 3);
        request(&spans);
        let first = told.recv_timeout(LONG).unwrap();
        // One is in hand, which still counts: two more fit.
        (0..4).for_each(|_| request(&spans));
        assert_eq!(spans.gauges(), SpanGauges { dropped: 2, ..SpanGauges::default() });
        assert!(!spans.stop(Duration::ZERO));
        answer(first, "200 OK");
        answer(told.recv_timeout(LONG).unwrap(), "200 OK");
        assert!(spans.stop(LONG));
        request(&spans);
        assert_eq!(spans.gauges(), SpanGauges { sent: 3, dropped: 3, ..SpanGauges::default() });
    }

    #[test]
    fn what_is_refused_is_sent_again_only_where_it_may_be() {
        let (port, told) = collector();
        let spans = spans(port, 10);
        request(&spans);
        answer(told.recv_timeout(LONG).unwrap(), "400 Bad Request");
        request(&spans);
        answer(told.recv_timeout(LONG).unwrap(), "503 Service Unavailable");
        answer(told.recv_timeout(LONG).unwrap(), "200 OK");
        assert!(spans.stop(LONG));
        assert_eq!(spans.gauges(), SpanGauges { sent: 1, failed: 1, ..SpanGauges::default() });
    }

    #[test]
    fn the_end_waits_for_no_further_attempt() {
        let (port, told) = collector();
        let spans = spans(port, 10);
        request(&spans);
        let stream = told.recv_timeout(LONG).unwrap();
        assert!(!spans.stop(Duration::ZERO));
        answer(stream, "503 Service Unavailable");
        assert!(spans.stop(LONG));
        assert_eq!(spans.gauges(), SpanGauges { failed: 1, ..SpanGauges::default() });
    }
}
