//! A body with one writer and many readers.
//!
//! While it may still be kept, every byte stays, so that a reader can join at any time. Once it has
//! outgrown what may be kept ([`Writer::stop_keeping`]), only the stretch that some reader has yet
//! to take stays: the writer then waits for room, and readers that hold everyone up for too long
//! are cut off. Memory is bounded either way.
//!
//! Lag policy: the fill is slowed to the slowest reader for as long as `lag_timeout`, then the
//! slowest are cut, unless one reader alone is left: a lone slow client is nobody's burden.
//!
//! Cancellation: a reader that is dropped frees its place and wakes the writer. A writer that is
//! dropped before the end breaks the body: readers get an error, never a clean end.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

/// The body ended before it was complete, or this reader was cut off for lagging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response ended before it was complete")
    }
}

impl std::error::Error for Broken {}

/// A body that may still be growing; hands out [`Reader`]s.
#[derive(Clone, Debug)]
pub struct Growing(Arc<Mutex<State>>);

/// The one that writes. Dropping it before [`Writer::complete`] breaks the body.
#[derive(Debug)]
pub struct Writer {
    state: Arc<Mutex<State>>,
    lag: u64,
    lag_timeout: Duration,
}

/// One that reads, from the first byte.
#[derive(Debug)]
pub struct Reader {
    state: Arc<Mutex<State>>,
    id: usize,
    finished: bool,
}

/// What waiting for room came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Go on writing.
    Free,
    /// Nobody reads any more, and nothing is kept: stop.
    NoReaders,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Index, counted from the start of the body, of the first chunk that is still here.
    first: usize,
    /// Bytes in `chunks`.
    held: u64,
    /// Bytes written in all.
    written: u64,
    keeping: bool,
    end: Option<End>,
    readers: Vec<Option<Place>>,
    reading: usize,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum End {
    /// All of it, in one piece where it was kept whole.
    Complete {
        whole: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    Broken,
}

#[derive(Debug, Default)]
struct Place {
    next: usize,
    taken: u64,
    cut: bool,
    waker: Option<Waker>,
}

/// A new body: its writer, and what readers are made from. `lag` in bytes.
pub(super) fn growing(lag: u64, lag_timeout: Duration) -> (Writer, Growing) {
    let state = Arc::new(Mutex::new(State {
        chunks: VecDeque::new(),
        first: 0,
        held: 0,
        written: 0,
        keeping: true,
        end: None,
        readers: Vec::new(),
        reading: 0,
        writer: None,
    }));
    (Writer { state: Arc::clone(&state), lag, lag_timeout }, Growing(state))
}

impl Growing {
    /// A new body. When it is no longer kept, readers may lag by `lag` bytes, and one that holds up
    /// the others for longer than `lag_timeout` is cut off.
    pub fn new(lag: u64, lag_timeout: Duration) -> (Writer, Self) {
        growing(lag, lag_timeout)
    }

    /// A reader from the first byte; `None` when the first bytes are gone or the body is broken.
    pub fn reader(&self) -> Option<Reader> {
        let mut state = self.0.lock();
        if state.first > 0 || matches!(state.end, Some(End::Broken)) {
            return None;
        }
        let id = state.seat();
        Some(Reader { state: Arc::clone(&self.0), id, finished: false })
    }
}

impl Writer {
    /// Adds a chunk and wakes the readers.
    pub fn push(&self, chunk: Bytes) {
        let mut state = self.state.lock();
        let len = chunk.len() as u64;
        state.written = state.written.saturating_add(len);
        state.held = state.held.saturating_add(len);
        state.chunks.push_back(chunk);
        state.wake_readers();
    }

    /// From now on only what some reader has yet to take is held.
    pub fn stop_keeping(&self) {
        let mut state = self.state.lock();
        state.keeping = false;
        state.trim();
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// Waits until readers have taken enough for another chunk. At once while the body is kept.
    ///
    /// Cancellation: nothing is lost, the body stays as it is.
    pub async fn room(&self) -> Room {
        loop {
            match tokio::time::timeout(self.lag_timeout, poll_fn(|cx| self.poll_room(cx))).await {
                Ok(room) => return room,
                Err(_) => self.state.lock().cut_slowest(),
            }
        }
    }

    /// The body is complete. `whole` is all of it in one piece where it was kept: readers go on from
    /// there and the chunks are let go.
    pub fn complete(self, whole: Option<Bytes>, trailers: Option<HeaderMap>) {
        let mut state = self.state.lock();
        if whole.is_some() {
            state.chunks.clear();
            state.held = 0;
        }
        state.end = Some(End::Complete { whole, trailers });
        state.wake_readers();
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Room> {
        let mut state = self.state.lock();
        if state.keeping {
            return Poll::Ready(Room::Free);
        }
        if state.reading == 0 {
            return Poll::Ready(Room::NoReaders);
        }
        if state.held < self.lag {
            return Poll::Ready(Room::Free);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(End::Broken);
            state.wake_readers();
        }
    }
}

impl State {
    fn seat(&mut self) -> usize {
        self.reading += 1;
        let place = Some(Place::default());
        if let Some((id, free)) = self.readers.iter_mut().enumerate().find(|(_, seat)| seat.is_none()) {
            *free = place;
            return id;
        }
        self.readers.push(place);
        self.readers.len() - 1
    }

    fn leave(&mut self, id: usize) {
        let Some(place) = self.readers.get_mut(id).and_then(Option::take) else { return };
        // A reader that was cut has been counted out already.
        if !place.cut {
            self.reading = self.reading.saturating_sub(1);
        }
        self.trim();
    }

    fn wake_readers(&mut self) {
        for place in self.readers.iter_mut().flatten() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// Lets go of what every reader has taken, unless the body is kept.
    fn trim(&mut self) {
        if self.keeping {
            return;
        }
        let slowest = self.slowest().unwrap_or(usize::MAX);
        while self.first < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.first += 1;
            self.held = self.held.saturating_sub(chunk.len() as u64);
        }
        self.wake_writer();
    }

    fn slowest(&self) -> Option<usize> {
        self.readers.iter().flatten().filter(|place| !place.cut).map(|place| place.next).min()
    }

    /// Cuts off those who hold up the others; never the last one.
    fn cut_slowest(&mut self) {
        let Some(slowest) = self.slowest() else { return };
        let readers = self.reading;
        let mut cut = 0;
        for place in self.readers.iter_mut().flatten().filter(|place| !place.cut && place.next == slowest) {
            if cut + 1 >= readers {
                break;
            }
            place.cut = true;
            cut += 1;
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
        self.reading = self.reading.saturating_sub(cut);
        self.trim();
    }

    fn poll_read(&mut self, id: usize, cx: &mut Context<'_>) -> Poll<Read> {
        let first = self.first;
        let Some(place) = self.readers.get_mut(id).and_then(Option::as_mut) else {
            return Poll::Ready(Read::Broken);
        };
        if place.cut {
            return Poll::Ready(Read::Broken);
        }
        if let Some(End::Complete { whole: Some(whole), trailers }) = &self.end {
            let taken = usize::try_from(place.taken).unwrap_or(usize::MAX).min(whole.len());
            place.taken = whole.len() as u64;
            let rest = whole.slice(taken..);
            return Poll::Ready(if rest.is_empty() { Read::End(trailers.clone()) } else { Read::Data(rest) });
        }
        if let Some(chunk) = place.next.checked_sub(first).and_then(|at| self.chunks.get(at)) {
            let chunk = chunk.clone();
            place.next += 1;
            place.taken = place.taken.saturating_add(chunk.len() as u64);
            self.trim();
            return Poll::Ready(Read::Data(chunk));
        }
        match &self.end {
            Some(End::Complete { trailers, .. }) => Poll::Ready(Read::End(trailers.clone())),
            Some(End::Broken) => Poll::Ready(Read::Broken),
            None => {
                if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    place.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

enum Read {
    Data(Bytes),
    End(Option<HeaderMap>),
    Broken,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let id = self.id;
        let read = self.state.lock().poll_read(id, cx);
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Read::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Read::End(trailers)) => {
                self.finished = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Poll::Ready(Read::Broken) => {
                self.finished = true;
                Poll::Ready(Some(Err(Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.finished
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.state.lock().leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    const LAG: u64 = 10;

    fn body() -> (Writer, Growing) {
        Growing::new(LAG, Duration::from_secs(5))
    }

    fn chunk(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    async fn all(reader: Reader) -> Result<String, Broken> {
        let bytes = reader.collect().await?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// What is there to read now, without waiting.
    fn now(reader: &mut Reader) -> Option<Option<Result<String, Broken>>> {
        reader.frame().now_or_never().map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
            })
        })
    }

    #[tokio::test]
    async fn readers_that_join_at_any_time_read_the_same() {
        let (writer, growing) = body();
        let early = growing.reader().unwrap();
        writer.push(chunk("one "));
        let middle = growing.reader().unwrap();
        writer.push(chunk("two"));
        writer.complete(None, None);
        let late = growing.reader().unwrap();
        for reader in [early, middle, late] {
            assert_eq!(all(reader).await.unwrap(), "one two");
        }
    }

    #[tokio::test]
    async fn a_reader_half_way_goes_on_from_the_whole() {
        let (writer, growing) = body();
        let mut reader = growing.reader().unwrap();
        writer.push(chunk("one "));
        assert_eq!(now(&mut reader), Some(Some(Ok("one ".into()))));
        writer.push(chunk("two"));
        let whole = chunk("one two");
        writer.complete(Some(whole), None);
        assert_eq!(all(reader).await.unwrap(), "two");
        assert_eq!(all(growing.reader().unwrap()).await.unwrap(), "one two");
    }

    #[tokio::test]
    async fn a_dropped_writer_breaks_the_body_and_never_ends_it_cleanly() {
        let (writer, growing) = body();
        let reader = growing.reader().unwrap();
        writer.push(chunk("half"));
        drop(writer);
        assert_eq!(all(reader).await, Err(Broken));
        assert!(growing.reader().is_none());
    }

    #[tokio::test]
    async fn what_is_no_longer_kept_is_held_only_for_who_has_yet_to_take_it() {
        let (writer, growing) = body();
        let mut reader = growing.reader().unwrap();
        writer.push(chunk("0123456789"));
        assert_eq!(writer.room().await, Room::Free);
        writer.stop_keeping();
        assert!(writer.room().now_or_never().is_none(), "the window is full");
        assert!(now(&mut reader).is_some());
        assert_eq!(writer.room().now_or_never(), Some(Room::Free));
        assert_eq!(writer.state.lock().held, 0);
        assert!(growing.reader().is_none(), "the first bytes are gone");
    }

    #[tokio::test]
    async fn without_readers_an_unkept_body_stops() {
        let (writer, growing) = body();
        let reader = growing.reader().unwrap();
        writer.push(chunk("0123456789"));
        writer.stop_keeping();
        drop(reader);
        assert_eq!(writer.room().now_or_never(), Some(Room::NoReaders));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_holds_up_the_others_is_cut_and_a_lone_one_is_not() {
        let (writer, growing) = body();
        let mut fast = growing.reader().unwrap();
        let mut slow = growing.reader().unwrap();
        writer.stop_keeping();
        writer.push(chunk("0123456789"));
        assert!(now(&mut fast).is_some());
        assert_eq!(writer.room().await, Room::Free, "after the lag timeout the slow one is cut");
        assert_eq!(now(&mut slow), Some(Some(Err(Broken))));
        drop(slow);
        writer.push(chunk("abcdefghij"));
        let waited = tokio::time::timeout(Duration::from_secs(60), writer.room()).await;
        assert!(waited.is_err(), "a lone reader is waited for");
        assert_eq!(now(&mut fast), Some(Some(Ok("abcdefghij".into()))));
    }

    #[tokio::test]
    async fn trailers_come_after_the_body() {
        let (writer, growing) = body();
        let reader = growing.reader().unwrap();
        writer.push(chunk("x"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        writer.complete(None, Some(trailers.clone()));
        let collected = reader.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
    }
}
