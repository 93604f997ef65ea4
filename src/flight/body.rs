//! A body with one writer and many readers.
//!
//! While it may still be kept, every byte stays, so that a reader can join at any time. Once it has
//! outgrown what may be kept ([`Writer::stop_keeping`]), only the stretch that some reader has yet
//! to take stays: the writer then waits for room, and readers that hold everyone up for too long
//! are cut off. Memory is bounded either way.
//!
//! What is kept and becomes large lies in memory of its own ([`Writer::keep_apart`]), written there as it
//! comes and there when it is whole, so that it is never held twice. Readers who keep up are given the
//! chunks as they came, those behind copies of small pieces, since memory that is written cannot be shared.
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

use crate::apart::{self, Apart};

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

/// Whatever is given back when it is dropped.
trait Held: Send + Sync + fmt::Debug {}
impl<T: Send + Sync + fmt::Debug> Held for T {}

#[derive(Debug)]
struct State {
    /// All that is held, or what follows `passed`; beside `apart` the latest few, for who keeps up.
    chunks: VecDeque<Bytes>,
    /// How large the body becomes at most, and whether so large is what is expected, where it is to be
    /// kept in memory of its own once it is large.
    plan: Option<(usize, bool)>,
    /// All that has come, in memory of its own.
    apart: Option<Apart>,
    /// What was in it, once nothing more is written there, and which byte of the body is the first of it.
    passed: Option<Bytes>,
    passed_from: usize,
    /// The first bytes are held no longer.
    gone: bool,
    /// Index, counted from the start of the body, of the first chunk that is still here.
    first: usize,
    /// Bytes in `chunks`, but for those that are in `apart`, too.
    held: u64,
    /// Bytes written in all.
    written: u64,
    keeping: bool,
    end: Option<End>,
    readers: Vec<Option<Place>>,
    reading: usize,
    writer: Option<Waker>,
    /// What is held for the bytes up to there, while some reader has yet to take them.
    room: Option<(u64, Box<dyn Held>)>,
    /// What was held, and is not needed any more ([`change`]).
    spent: Option<Box<dyn Held>>,
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
    /// It has found nothing, and taken nothing since.
    asks: bool,
    waker: Option<Waker>,
}

/// A new body: its writer, and what readers are made from. `lag` in bytes.
pub(super) fn growing(lag: u64, lag_timeout: Duration) -> (Writer, Growing) {
    let state = Arc::new(Mutex::new(State {
        chunks: VecDeque::new(),
        plan: None,
        apart: None,
        passed: None,
        passed_from: 0,
        gone: false,
        first: 0,
        held: 0,
        written: 0,
        keeping: true,
        end: None,
        readers: Vec::new(),
        reading: 0,
        writer: None,
        room: None,
        spent: None,
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
        if state.gone || state.first > 0 || matches!(state.end, Some(End::Broken)) {
            return None;
        }
        let id = state.seat();
        Some(Reader { state: Arc::clone(&self.0), id, finished: false })
    }
}

/// Bytes that a reader behind the writer is given at a time while the body is written.
const COPIED: usize = 16 * 1024;
/// Bytes that a lone reader of a body that is not kept may lag by, at most.
const ALONE: u64 = 64 * 1024;
/// Bytes behind which a reader is a slow one.
const LAGS: u64 = apart::LARGE as u64;
/// Chunks that are shared with those who keep up, at most, and the bytes of all but the last of them.
const LATEST: usize = 4;
const LATEST_BYTES: usize = 128 * 1024;

impl Writer {
    /// Once the body is large, it is to be kept in memory of its own: of `most` bytes, and `exact` where so
    /// many are expected. More than these are kept, too, at the price of a copy at the end.
    pub fn keep_apart(&self, most: u64, exact: bool) {
        self.state.lock().plan = usize::try_from(most).ok().map(|most| (most, exact));
    }

    /// All that has come, in one piece. To be asked for at the end, and while the body is kept.
    pub fn gather(&self) -> Bytes {
        let held: Vec<Bytes> = {
            let mut state = self.state.lock();
            state.leave_apart();
            state.passed.iter().chain(&state.chunks).cloned().collect()
        };
        match held.as_slice() {
            [whole] if self.is_passed(whole) => whole.clone(),
            held => apart::gather(held),
        }
    }

    /// Whether this lies in memory of its own.
    fn is_passed(&self, piece: &Bytes) -> bool {
        self.state.lock().passed.as_ref().is_some_and(|passed| passed.as_ptr() == piece.as_ptr())
    }

    /// Adds a chunk and wakes the readers.
    pub fn push(&self, chunk: Bytes) {
        let mut state = self.state.lock();
        state.part(chunk.len());
        state.add(chunk);
        state.wake_readers();
    }

    /// From now on only what some reader has yet to take is held. `room` is what all that has come until now
    /// has been counted as, and is let go of when every reader has taken that.
    pub fn stop_keeping(&self, room: impl Send + Sync + fmt::Debug + 'static) {
        change(&self.state, |state| {
            state.room = Some((state.written, Box::new(room)));
            state.keeping = false;
            state.plan = None;
            state.leave_apart();
            state.let_go_of_what_was_read();
            state.trim();
        });
    }

    /// What is held for as long as anybody reads.
    pub fn hold(&self, held: impl Send + Sync + fmt::Debug + 'static) {
        self.state.lock().room = Some((u64::MAX, Box::new(held)));
    }

    /// Whether all is in memory of its own, so that no list grows with it.
    pub fn is_apart(&self) -> bool {
        self.state.lock().apart.is_some()
    }

    /// Bytes that some reader has yet to take.
    pub fn behind(&self) -> u64 {
        let state = self.state.lock();
        state.written.saturating_sub(state.least_taken().unwrap_or(state.written))
    }

    /// Whether some reader takes it more slowly than it comes, beyond what comes in bursts.
    pub fn lags(&self) -> bool {
        self.behind() > LAGS
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
                Err(_) => change(&self.state, State::cut_slowest),
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
            (state.apart, state.passed) = (None, None);
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
        if state.behind() < state.may_lag(self.lag) {
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

/// Changes the state. What is not needed any more is let go of outside of the lock: where it is counted, that may
/// have a whole tier looked through, and readers of other threads would wait for it.
fn change<R>(state: &Mutex<State>, change: impl FnOnce(&mut State) -> R) -> R {
    let mut locked = state.lock();
    let result = change(&mut locked);
    let spent = locked.spent.take();
    drop(locked);
    drop(spent);
    result
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

    /// From now on the body lies in memory of its own, where it becomes large by another `more` bytes.
    fn part(&mut self, more: usize) {
        let len = self.written.saturating_add(more as u64);
        if !self.keeping || len < apart::LARGE as u64 {
            return;
        }
        let Some((most, exact)) = self.plan.take() else { return };
        let Some(mut apart) = Apart::new(most, exact) else { return };
        if self.chunks.iter().all(|chunk| apart.push(chunk)) {
            self.apart = Some(apart);
            self.chunks.clear();
            self.held = 0;
            // Readers go on by what they have taken, and by chunks once these follow what is apart.
            self.readers.iter_mut().flatten().for_each(|place| place.next = 0);
        }
    }

    fn add(&mut self, chunk: Bytes) {
        let len = chunk.len() as u64;
        self.written = self.written.saturating_add(len);
        if self.apart.as_mut().is_some_and(|apart| !apart.push(&chunk)) {
            self.leave_apart();
        }
        if self.apart.is_none() {
            self.held = self.held.saturating_add(len);
        } else {
            let bytes = |chunks: &VecDeque<Bytes>| chunks.iter().map(Bytes::len).sum::<usize>();
            while self.chunks.len() >= LATEST || bytes(&self.chunks) > LATEST_BYTES {
                self.chunks.pop_front();
            }
        }
        self.chunks.push_back(chunk);
    }

    /// Nothing more is written to memory of its own: what is there can be shared.
    fn leave_apart(&mut self) {
        if let Some(apart) = self.apart.take() {
            self.chunks.clear();
            self.passed = Some(apart.finish());
        }
    }

    /// Where most of it has been read, the rest is held by itself.
    fn let_go_of_what_was_read(&mut self) {
        let Some((passed, least)) = self.passed.as_ref().zip(self.least_taken()) else { return };
        let taken = usize::try_from(least).unwrap_or(usize::MAX).min(passed.len());
        let rest = passed.get(taken..).unwrap_or_default();
        if rest.len() < passed.len() / 2 {
            (self.passed, self.passed_from) = (Some(apart::own(rest)), taken);
            self.gone = true;
        }
    }

    /// The next piece of what is or was apart, from the byte `at` on.
    fn piece(&self, at: usize) -> Option<Bytes> {
        if let Some(passed) = &self.passed {
            let at = at.checked_sub(self.passed_from)?;
            let end = at.saturating_add(COPIED).min(passed.len());
            return (at < end).then(|| passed.slice(at..end));
        }
        let apart = self.apart.as_ref().filter(|apart| at < apart.len())?;
        let mut start = apart.len();
        for chunk in self.chunks.iter().rev() {
            start = start.saturating_sub(chunk.len());
            if start == at && !chunk.is_empty() {
                return Some(chunk.clone());
            }
            if start < at {
                break;
            }
        }
        // Up to the first chunk that is shared, to go on with that.
        let end = if at < start { start } else { apart.len() };
        Some(apart.copy(at, end.min(at.saturating_add(COPIED))))
    }

    /// Bytes that some reader has yet to take.
    fn behind(&self) -> u64 {
        match self.passed {
            Some(_) => self.written.saturating_sub(self.least_taken().unwrap_or(self.written)),
            None => self.held,
        }
    }

    /// Bytes that are ready at most before more is waited for: `lag`, where somebody may be held up. A lone reader
    /// holds up nobody. One who waits for what comes is given a good piece at a time; one who takes what there is
    /// and does not ask for more is a slow client, for whom as little as possible is held.
    fn may_lag(&self, lag: u64) -> u64 {
        if self.reading > 1 {
            return lag;
        }
        let asks = self.readers.iter().flatten().any(|place| !place.cut && place.asks);
        lag.min(if asks { ALONE } else { 1 })
    }

    fn least_taken(&self) -> Option<u64> {
        self.readers.iter().flatten().filter(|place| !place.cut).map(|place| place.taken).min()
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
        let least = self.least_taken();
        let from = self.passed_from;
        let is_read = |passed: &Bytes, least: u64| least >= from.saturating_add(passed.len()) as u64;
        if self.passed.take_if(|passed| least.is_none_or(|least| is_read(passed, least))).is_some() {
            self.gone = true;
        }
        let spent = self.room.take_if(|(until, _)| least.is_none_or(|least| least >= *until));
        self.spent = self.spent.take().or(spent.map(|(_, held)| held));
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
        let Some(least) = self.least_taken() else { return };
        let readers = self.reading;
        let mut cut = 0;
        for place in self.readers.iter_mut().flatten().filter(|place| !place.cut && place.taken == least) {
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
        let at = self.readers.get(id).and_then(Option::as_ref).map_or(0, |place| place.taken);
        let piece = usize::try_from(at).ok().and_then(|at| self.piece(at));
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
        if let Some(piece) = piece {
            place.asks = false;
            place.taken = place.taken.saturating_add(piece.len() as u64);
            self.trim();
            return Poll::Ready(Read::Data(piece));
        }
        // The chunks are also in `apart`, which has been read to its end.
        let chunks = if self.apart.is_some() { None } else { Some(&self.chunks) };
        if let Some((chunks, at)) = chunks.zip(place.next.checked_sub(first))
            && let Some(chunk) = chunks.get(at)
        {
            let chunk = chunk.clone();
            place.asks = false;
            place.next += 1;
            place.taken = place.taken.saturating_add(chunk.len() as u64);
            self.trim();
            return Poll::Ready(Read::Data(chunk));
        }
        match &self.end {
            Some(End::Complete { trailers, .. }) => Poll::Ready(Read::End(trailers.clone())),
            Some(End::Broken) => Poll::Ready(Read::Broken),
            None => {
                place.asks = true;
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
        let read = change(&self.state, |state| state.poll_read(id, cx));
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
        change(&self.state, |state| state.leave(self.id));
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

    /// Pieces of another content each, of a size that is no multiple of anything.
    fn pieces(count: usize) -> Vec<Bytes> {
        (0..count).map(|nth| Bytes::from(vec![(nth % 251) as u8; 7_777])).collect()
    }

    /// Takes what there is, without waiting.
    fn drain(reader: &mut Reader) -> Vec<Bytes> {
        let next = || reader.frame().now_or_never().flatten();
        std::iter::from_fn(next).map(|frame| frame.unwrap().into_data().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_large_body_lies_in_memory_of_its_own_and_whoever_reads_it_reads_the_same() {
        for exact in [true, false] {
            let pieces = pieces(40);
            let all = pieces.concat();
            let (writer, growing) = body();
            writer.keep_apart(if exact { all.len() as u64 } else { 1 << 30 }, exact);
            let (mut keen, mut slow) = (growing.reader().unwrap(), growing.reader().unwrap());
            let (mut kept_up, mut taken) = (Vec::new(), Vec::new());
            for (nth, piece) in pieces.iter().enumerate() {
                writer.push(piece.clone());
                let now = drain(&mut keen);
                assert!(now.iter().all(|it| it.as_ptr() == piece.as_ptr()), "shared with who keeps up");
                kept_up.extend(now);
                if nth % 13 == 12 {
                    taken.extend(slow.frame().await.unwrap().unwrap().into_data());
                }
            }
            {
                let state = writer.state.lock();
                assert!(state.apart.is_some() && state.chunks.len() <= LATEST && state.held == 0);
            }
            let mut joined = growing.reader().unwrap();
            let (first, copied) = (drain(&mut joined), drain(&mut slow));
            assert!(first.iter().all(|piece| piece.len() <= COPIED));
            taken.extend(copied);
            let whole = writer.gather();
            assert_eq!(writer.gather().as_ptr(), whole.as_ptr(), "once, and never copied");
            let mut between = growing.reader().unwrap();
            assert!(between.frame().now_or_never().is_some());
            writer.complete(Some(whole.clone()), None);
            assert_eq!(
                (&whole, kept_up.concat(), taken.concat()),
                (&all.clone().into(), all.clone(), all.clone())
            );
            assert_eq!(first.concat(), all);
            assert!(now(&mut keen).unwrap().is_none() && now(&mut joined).unwrap().is_none());
            assert_eq!(drain(&mut between).concat(), all[COPIED..]);
            assert_eq!(drain(&mut growing.reader().unwrap()).concat(), all);
        }
    }

    #[tokio::test]
    async fn a_large_body_that_is_no_longer_kept_goes_on_from_what_came() {
        let pieces = pieces(40);
        let all = pieces.concat();
        let (writer, growing) = body();
        writer.keep_apart(1 << 30, false);
        let (mut keen, mut slow) = (growing.reader().unwrap(), growing.reader().unwrap());
        let (before, after) = pieces.split_at(30);
        before.iter().for_each(|piece| writer.push(piece.clone()));
        let mut kept_up = drain(&mut keen);
        let mut taken = vec![slow.frame().await.unwrap().unwrap().into_data().unwrap()];
        writer.stop_keeping(());
        assert!(writer.room().now_or_never().is_none(), "the slow one has yet to take it");
        taken.extend(drain(&mut slow));
        assert_eq!(writer.room().now_or_never(), Some(Room::Free));
        assert!(writer.state.lock().passed.is_none(), "let go of");
        assert!(growing.reader().is_none(), "the first bytes are gone");
        for piece in after {
            writer.push(piece.clone());
            kept_up.extend(drain(&mut keen));
        }
        taken.extend(drain(&mut slow));
        assert_eq!(writer.state.lock().held, 0);
        writer.complete(None, None);
        assert_eq!((kept_up.concat(), taken.concat()), (all.clone(), all));
    }

    #[tokio::test]
    async fn a_body_that_outgrows_its_memory_is_whole_all_the_same() {
        let pieces = pieces(40);
        let (writer, growing) = body();
        writer.keep_apart(apart::LARGE as u64 + 10_000, true);
        let reader = growing.reader().unwrap();
        pieces.iter().for_each(|piece| writer.push(piece.clone()));
        assert!(writer.state.lock().apart.is_none() && growing.reader().is_some());
        let whole = writer.gather();
        assert_eq!(whole, pieces.concat());
        writer.complete(None, None);
        assert_eq!(reader.collect().await.unwrap().to_bytes(), whole);
    }

    #[tokio::test]
    async fn a_small_body_stays_with_the_allocator() {
        let (writer, growing) = body();
        writer.keep_apart(1 << 20, false);
        writer.push(chunk("one "));
        writer.push(chunk("two"));
        assert!(writer.state.lock().apart.is_none());
        assert_eq!(writer.gather(), "one two");
        writer.complete(None, None);
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
        writer.stop_keeping(());
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
        writer.stop_keeping(());
        drop(reader);
        assert_eq!(writer.room().now_or_never(), Some(Room::NoReaders));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_holds_up_the_others_is_cut_and_a_lone_one_is_not() {
        let (writer, growing) = body();
        let mut fast = growing.reader().unwrap();
        let mut slow = growing.reader().unwrap();
        writer.stop_keeping(());
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
    #[tokio::test]
    async fn what_was_counted_for_a_body_that_is_not_kept_is_held_until_it_has_been_read() {
        let (room, held) = (Arc::new(()), |room: &Arc<()>| Arc::strong_count(room) > 1);
        let (writer, growing) = body();
        let mut reader = growing.reader().unwrap();
        writer.push(chunk("0123456789"));
        writer.stop_keeping(Arc::clone(&room));
        assert!(held(&room) && writer.behind() == 10);
        assert_eq!(drain(&mut reader).concat(), b"0123456789");
        assert!(!held(&room) && writer.behind() == 0);

        let (writer, growing) = body();
        let reader = growing.reader().unwrap();
        writer.push(chunk("0123456789"));
        writer.stop_keeping(Arc::clone(&room));
        drop(reader);
        assert!(!held(&room), "nobody is to read it");
    }

    #[tokio::test]
    async fn of_a_large_body_that_is_not_kept_only_the_rest_is_held() {
        let pieces = pieces(40);
        let (writer, growing) = body();
        writer.keep_apart(1 << 30, false);
        let mut reader = growing.reader().unwrap();
        pieces.iter().for_each(|piece| writer.push(piece.clone()));
        assert!(writer.lags() && writer.is_apart());
        let mut read = Vec::new();
        while writer.lags() {
            read.extend(reader.frame().await.unwrap().unwrap().into_data());
        }
        writer.stop_keeping(());
        assert!(growing.reader().is_none(), "the first bytes are gone");
        {
            let state = writer.state.lock();
            let held = state.passed.as_ref().map_or(0, Bytes::len) as u64;
            assert!(held <= LAGS && held == state.behind(), "{held}");
        }
        writer.push(chunk("the end"));
        writer.complete(None, None);
        while let Some(frame) = reader.frame().await {
            read.extend(frame.unwrap().into_data());
        }
        assert_eq!(read.concat(), [pieces.concat(), b"the end".to_vec()].concat());
    }

    #[tokio::test]
    async fn a_lone_reader_lags_by_little_however_far_others_may_and_by_one_piece_where_it_does_not_ask() {
        let (writer, growing) = Growing::new(1 << 20, Duration::from_secs(5));
        let mut reader = growing.reader().unwrap();
        writer.stop_keeping(());
        let half = || Bytes::from(vec![b'x'; ALONE as usize / 2]);
        // It waits for what comes, so it is given as much as it may lag by.
        assert_eq!(now(&mut reader), None);
        for _ in 0..2 {
            assert_eq!(writer.room().now_or_never(), Some(Room::Free));
            writer.push(half());
        }
        assert_eq!(writer.room().now_or_never(), None);
        // It takes what there is, and does not ask for more: a slow client.
        for left in [1, 0] {
            assert!(now(&mut reader).is_some());
            let room = writer.room().now_or_never();
            assert_eq!(room, (left == 0).then_some(Room::Free), "{left} left");
        }
        writer.push(half());
        assert_eq!(writer.room().now_or_never(), None, "one piece is enough");
        drop(reader);
        assert_eq!(writer.room().now_or_never(), Some(Room::NoReaders));
        let (writer, growing) = Growing::new(1 << 20, Duration::from_secs(5));
        let _readers = (growing.reader(), growing.reader());
        writer.stop_keeping(());
        writer.push(Bytes::from(vec![b'x'; ALONE as usize]));
        assert_eq!(writer.room().now_or_never(), Some(Room::Free));
    }

    /// Tells whether whoever held it was locked when it was let go of.
    #[derive(Debug)]
    struct Counted(Arc<Mutex<State>>, Arc<Mutex<Vec<bool>>>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.lock().push(self.0.is_locked());
        }
    }

    #[tokio::test]
    async fn what_is_counted_is_given_back_outside_of_the_lock() {
        let seen = Arc::<Mutex<Vec<bool>>>::default();
        for ends in [true, false] {
            let (writer, growing) = body();
            let mut reader = growing.reader().unwrap();
            writer.push(chunk("one"));
            writer.stop_keeping(Counted(Arc::clone(&writer.state), Arc::clone(&seen)));
            match ends {
                true => drop(reader),
                false => assert!(now(&mut reader).is_some()),
            }
        }
        assert_eq!(*seen.lock(), [false, false]);
    }
}
