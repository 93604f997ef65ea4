//! A connection of HTTP/1.1 that has no hyper: plain requests, one after the other, answered as soon as they can be.
//!
//! Knows the order of things: what memory can answer is answered where it is read (`short.rs`); any other plain request
//! is answered by its future, whose answer is written here (`reply.rs`) before the next request is looked at. Meanwhile
//! it is looked whether the client is still there, by reading on as far as there is nothing to be read yet.
//! Must not know: how a request is answered. Whatever is not plain it leaves to hyper.
//!
//! Cancellation: a client that leaves, as far as can be told from its socket, has the future of its request or what is
//! left of its answer dropped at once.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::{CONNECTION, HeaderValue};
use hyper::rt::{Read, Write};

use super::answer::{Content, answer_plain};
use super::life::Life;
use super::reply::Reply;
use super::streams::Held;
use super::watched::{Next, Watched};
use crate::fields::date::Written;
use crate::interim::{Answering, Line};
use crate::proxy::Arrival;
use crate::telemetry::{Cut, Cuts};
use crate::worker::Worker;

thread_local! {
    static DATE: RefCell<Written> = RefCell::default();
}

/// A connection without hyper.
pub(super) struct Alone<T> {
    watched: Watched<T>,
    worker: Arc<Worker>,
    life: Arc<Life>,
    cuts: Arc<Cuts>,
    /// Requests that it may have in all (`limits.requests`).
    most: u64,
    /// The way of interim responses, once there has been a request that may have some.
    line: Option<Arc<Line>>,
    under_way: Option<UnderWay>,
}

/// A request that is being answered. In boxes: most connections wait.
enum UnderWay {
    /// Its answer is awaited; and whether its client ends the connection with it.
    Asked(Pin<Box<dyn Future<Output = Response<Held<Content>>> + Send>>, bool),
    /// Its answer is being written.
    Answered(Box<Reply<Held<Content>>>),
}

/// What comes of a connection that has no hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It has ended.
    Ended,
    /// Something has come that is hyper's.
    ForHyper,
}

impl<T> Alone<T> {
    pub(super) fn new(
        watched: Watched<T>,
        worker: Arc<Worker>,
        life: Arc<Life>,
        cuts: Arc<Cuts>,
        most: u64,
    ) -> Self {
        Self { watched, worker, life, cuts, most, line: None, under_way: None }
    }

    /// Has it end once what has been asked is answered and written.
    pub(super) const fn end(&mut self) {
        self.watched.end();
    }

    /// What hyper goes on with.
    pub(super) fn into_watched(self) -> Watched<T> {
        self.watched
    }

    /// A request has come that memory alone cannot answer.
    fn begin(&mut self, arrival: Box<Arrival>) {
        let (number, mut running) = self.life.begin();
        let (worker, closes) = (Arc::clone(&self.worker), arrival.closes());
        if closes {
            self.life.promise();
        }
        let last = (number >= self.most).then(|| Arc::clone(&self.cuts));
        let shared = &self.worker.shared;
        let line = self.line.get_or_insert_with(|| Line::new(&shared.pseudonym, Arc::clone(&shared.interim)));
        let turn = line.open();
        let interim = turn.interim();
        let answer = async move {
            let mut response = answer_plain(worker, arrival, interim).await;
            running.answer();
            if let Some(noted) = last {
                // RFC 9112 §9.6: told with the last answer, so that no request is lost.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                noted.count(Cut::Requests);
            }
            response.map(|body| Held::new(body, running))
        };
        self.under_way = Some(UnderWay::Asked(Box::pin(Answering::new(turn, answer)), closes));
    }
}

impl<T: Read + Write + Unpin> Alone<T> {
    /// Answers what comes, for as long as it is plain.
    ///
    /// Cancellation: what has come and not been answered is kept here.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Over>> {
        self.watched.begin_turn();
        loop {
            if self.under_way.is_some() {
                ready!(self.poll_under_way(cx))?;
            }
            match ready!(self.watched.poll_next_alone(cx))? {
                Next::Asked(arrival) => self.begin(arrival),
                Next::Ended => return Poll::Ready(Ok(Over::Ended)),
                Next::ForHyper => return Poll::Ready(Ok(Over::ForHyper)),
            }
        }
    }

    /// Goes on with the request at hand, until its answer is written.
    fn poll_under_way(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As hyper has it, which does not answer who says no more. Looked at once: it wakes this task from now on.
        if self.watched.is_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        loop {
            match &mut self.under_way {
                None => return Poll::Ready(Ok(())),
                Some(UnderWay::Asked(answer, closes)) => {
                    let is_written = self.watched.poll_written(cx)?.is_ready();
                    if let Some(line) = self.line.as_ref().filter(|_| is_written) {
                        line.written();
                    }
                    let (answer, closes) = (answer.as_mut().poll(cx), *closes);
                    let interim = self.line.as_ref().map(|line| line.take_waiting()).unwrap_or_default();
                    if !interim.is_empty() {
                        self.watched.outgoing().buffer().extend_from_slice(&interim);
                    }
                    match answer {
                        Poll::Ready(response) => self.answer(response, closes)?,
                        Poll::Pending if interim.is_empty() => return Poll::Pending,
                        Poll::Pending => {}
                    }
                }
                Some(UnderWay::Answered(reply)) => {
                    if self.watched.ends_turn() {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let outgoing = self.watched.outgoing();
                    let before = outgoing.len();
                    let body = match reply.poll_body(cx, outgoing) {
                        // It is not made to look whole: what drops the connection sees to that.
                        Poll::Ready(Err(_broken)) => {
                            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                        }
                        Poll::Ready(Ok(())) => Poll::Ready(reply.is_over()),
                        Poll::Pending => Poll::Pending,
                    };
                    let more = outgoing.len().saturating_sub(before);
                    self.watched.spend(more);
                    // The head goes out with what of the body is there.
                    ready!(self.watched.poll_written(cx))?;
                    if ready!(body) {
                        if reply.closes() {
                            self.watched.end();
                        }
                        self.under_way = None;
                    }
                }
            }
        }
    }

    /// Begins to write an answer.
    fn answer(&mut self, response: Response<Held<Content>>, closes: bool) -> io::Result<()> {
        // What the future holds is let go of first: nobody is told anything more by it.
        self.under_way = None;
        let closes = closes || self.watched.is_closing();
        let (worker, out) = (&self.worker, self.watched.outgoing().buffer());
        let reply = DATE.with_borrow_mut(|date| {
            let date = if Reply::is_dated(&response) { &[] } else { date.at(worker.now()) };
            Reply::begin(response, closes, date, out)
        });
        let reply = reply.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.under_way = Some(UnderWay::Answered(Box::new(reply)));
        Ok(())
    }
}
