//! Bodies that are encoded on their way to clients.
//!
//! Knows two ways: one body for one client ([`Encoding`]), and a body on its way into the cache, which
//! is encoded once for everyone who asks for that coding, and kept so beside it ([`join`]).
//! What has come from the origin is never held back by the encoder: when nothing more is at hand, it
//! is flushed.
//! Must not know: who gets which coding, heads.
//!
//! Cancellation: a body that is dropped ends its encoder. A body encoded for all is encoded to its end
//! as long as it may be kept or somebody reads it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::coding::Encoder;
use crate::fields::content_coding::Coding;
use crate::fill::CHUNK;
use crate::flight::{Growing, Reader, Room, Writer};
use crate::stored::{Copy, Form, StoredResponse};
use crate::worker::{Fetched, Shared, Snapshot};

/// Bytes that are encoded before other requests of the thread get their turn: one or two milliseconds.
const TURN: usize = 32 * 1024;

/// Any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body in another coding. Trailers are left out: they may speak of the bytes as they were.
pub(super) struct Encoding<B> {
    inner: B,
    /// None once the body is over.
    encoder: Option<Encoder>,
    /// Taken from `inner` and not yet encoded.
    waiting: Bytes,
    /// Encoded and not yet flushed.
    unflushed: bool,
    /// The thread is due to somebody else.
    tired: bool,
    taken: u64,
    given: u64,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl<B> Encoding<B> {
    /// `inner` in this coding; given back where too many bodies are being encoded.
    pub(super) fn of(inner: B, coding: Coding, shared: &Arc<Shared>) -> Result<Self, B> {
        let Some((permit, encoder)) = shared.press.stream().zip(Encoder::new(coding).ok()) else {
            return Err(inner);
        };
        Ok(Self {
            inner,
            encoder: Some(encoder),
            waiting: Bytes::new(),
            unflushed: false,
            tired: false,
            taken: 0,
            given: 0,
            shared: Arc::clone(shared),
            _permit: permit,
        })
    }

    /// Encodes some of what waits; what came out, if anything.
    fn encode(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let turn = self.waiting.split_to(self.waiting.len().min(TURN));
        encoder.write(&turn)?;
        self.taken = self.taken.saturating_add(turn.len() as u64);
        (self.unflushed, self.tired) = (true, true);
        Ok(Some(encoder.take()).filter(|out| !out.is_empty()))
    }

    fn flush(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        self.unflushed = false;
        encoder.flush()?;
        Ok(Some(encoder.take()).filter(|out| !out.is_empty()))
    }

    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        let out = encoder.finish()?;
        self.shared.press.went_out(self.taken, self.given.saturating_add(out.len() as u64));
        Ok(Some(out).filter(|out| !out.is_empty()))
    }

    fn give(&mut self, out: Option<Bytes>) -> Option<Frame<Bytes>> {
        self.given = self.given.saturating_add(out.as_ref().map_or(0, |out| out.len() as u64));
        out.map(Frame::data)
    }
}

impl<B> Body for Encoding<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while this.encoder.is_some() {
            if std::mem::take(&mut this.tired) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let out = if this.waiting.is_empty() {
                match Pin::new(&mut this.inner).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        this.waiting = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        this.encoder = None;
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    Poll::Ready(None) => this.finish(),
                    Poll::Pending if this.unflushed => this.flush(),
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                this.encode()
            };
            match out.map(|out| this.give(out)) {
                Ok(None) => {}
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

/// A reader of the same body in this coding; the given one back where it cannot be had.
///
/// The first one who asks has it encoded, as a task of its own; the others read what comes of it.
pub(super) fn join(
    fetched: &Arc<Fetched>,
    plain: Reader,
    coding: Coding,
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
) -> Result<Reader, Reader> {
    let config = &snapshot.config.cache;
    let mut encoded = fetched.forms.encoded.lock();
    if let Some((_, growing)) = encoded.iter().find(|(known, _)| *known == coding) {
        return growing.reader().ok_or(plain);
    }
    let source = Encoding::of(plain, coding, shared)?;
    let (writer, growing) = Growing::new(config.lag, config.lag_timeout);
    let Some(reader) = growing.reader() else { return Err(source.inner) };
    encoded.push((coding, growing));
    let pump = Pump { fetched: Arc::clone(fetched), coding, shared: Arc::clone(shared), writer };
    tokio::spawn(pump.run(source, config.max_object));
    Ok(reader)
}

/// Encodes a body for everyone who reads it so.
struct Pump {
    fetched: Arc<Fetched>,
    coding: Coding,
    shared: Arc<Shared>,
    writer: Writer,
}

impl Pump {
    /// Returning early drops the writer: readers see a broken body, and nothing is kept.
    async fn run(self, mut source: Encoding<Reader>, max: u64) {
        let mut reserved = self.shared.memory.in_flight().try_reserve(0);
        let mut came = Vec::new();
        if reserved.is_none() {
            self.writer.stop_keeping(());
        }
        while let Some(frame) = source.frame().await {
            let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) else { return };
            let more = data.len() as u64;
            let keep = self.writer.written().saturating_add(more) <= max;
            if reserved.as_mut().is_some_and(|reserved| !keep || !reserved.grow(more.saturating_add(CHUNK))) {
                came = Vec::new();
                self.writer.stop_keeping(reserved.take().map(|held| held.leave(self.writer.behind())));
            } else if reserved.is_some() {
                came.push(data.clone());
            }
            if self.writer.room().await == Room::NoReaders {
                return;
            }
            self.writer.push(data);
        }
        let whole = reserved.is_some().then(|| StoredResponse::compact(&came));
        if let Some(whole) = &whole {
            let (key, copies) = (&self.fetched.key, &self.fetched.forms.copies);
            let smaller = (whole.len() as u64) < source.taken;
            let copy = if smaller { Copy::Made(whole.clone()) } else { Copy::None };
            self.shared.memory.attach(key, copies, Form::Encoded(self.coding), copy);
        }
        self.writer.complete(whole, None);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::OnceLock;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;
    use crate::coding::decode;
    use crate::worker::tests::worker;

    /// A body in these pieces; `None` = nothing is at hand for a moment.
    struct Pieces(VecDeque<Option<Vec<u8>>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn shared() -> &'static Arc<Shared> {
        static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();
        SHARED.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(worker("", "")).shared
        })
    }

    /// What comes of it, and how often the thread was given back in between.
    fn drive(mut body: Encoding<Pieces>) -> (Vec<u8>, usize) {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut out, mut pauses) = (Vec::new(), 0);
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => pauses += 1,
                Poll::Ready(None) => return (out, pauses),
                Poll::Ready(Some(frame)) => {
                    let data = frame.unwrap().into_data().unwrap();
                    assert!(!data.is_empty());
                    out.extend_from_slice(&data);
                }
            }
        }
    }

    fn encoding(pieces: Vec<Option<Vec<u8>>>, coding: Coding) -> Encoding<Pieces> {
        Encoding::of(Pieces(pieces.into()), coding, shared()).unwrap_or_else(|_| panic!("no encoder is free"))
    }

    #[test]
    fn one_large_piece_does_not_hold_the_thread() {
        for coding in Coding::ALL {
            let body = vec![b'x'; 10 * TURN];
            let (out, pauses) = drive(encoding(vec![Some(body.clone())], coding));
            assert_eq!(decode(coding, &out, body.len()).unwrap(), body, "{coding:?}");
            assert_eq!(pauses, 10, "{coding:?}");
        }
    }

    #[test]
    fn all_that_has_come_is_given_before_it_waits_for_more() {
        for coding in Coding::ALL {
            let mut body = encoding(vec![Some(b"event".to_vec()), None, None], coding);
            let mut cx = Context::from_waker(Waker::noop());
            let mut out = Vec::new();
            while body.inner.0.len() > 1 || !body.waiting.is_empty() || body.unflushed {
                if let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
                    out.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
            }
            // Without its end, which has not come.
            let whole = [&out[..], &encoding_end(coding)].concat();
            assert!(decode(coding, &whole, 100).is_ok_and(|body| body == "event"), "{coding:?}: {out:?}");
        }
    }

    /// The bytes that end a body of this coding, of which "event" has been flushed.
    fn encoding_end(coding: Coding) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).unwrap();
        encoder.write(b"event").unwrap();
        encoder.flush().unwrap();
        encoder.take();
        encoder.finish().unwrap().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_body_comes_back_however_it_is_cut(pieces: Vec<Option<Vec<u8>>>) {
            let body: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
            for coding in Coding::ALL {
                let (out, _) = drive(encoding(pieces.clone(), coding));
                prop_assert_eq!(decode(coding, &out, body.len()).unwrap(), body.clone());
            }
        }
    }
}
