//! The answers of one connection: each is counted until it is over, and those of HTTP/2 are held to a pace.
//!
//! Knows that on HTTP/2 a client may keep an answer from going out for as long as it likes: by a window that it
//! does not open, on a connection that otherwise lives. So each such request is a task that ends, and with it
//! everything that it holds, when its client has owed too much time.
//! Must not know: what is answered.
//!
//! Cancellation: a stream's task that ends before its answer has the stream reset (CANCEL).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::life::Running;
use crate::pace::{Debt, Pace};
use crate::proxy::{Begun, Headed};
use crate::telemetry::{Cut, Cuts};

/// Bytes of a body that are handed to a stream at a time: all of a stored body at once would be gone out as far
/// as can be told, whatever the client's window.
const PIECE: usize = 64 * 1024;
/// Bytes of an answer on HTTP/1 that may wait in hyper's buffer before more is asked for. hyper itself takes as
/// much as the largest head, and a piece more, which for thousands of slow clients is a lot.
const AHEAD: u64 = 16 * 1024;
/// No such moment.
const NEVER: u64 = u64::MAX;

/// An answer's body on its way to the connection. `B` is the body itself.
pub(super) struct Held<B> {
    body: B,
    /// Apart, since hyper moves this about and most have none.
    flow: Option<Box<Outflow>>,
    /// Bytes handed to hyper, and how many had gone out on the connection before the first of them.
    handed: (u64, u64),
    /// Until it is dropped, the request is being answered.
    running: Running,
}

/// What a body of HTTP/2 has been asked for, and by when it must be asked again.
struct Outflow {
    flow: Arc<Flow>,
    pace: Pace,
    debt: Debt,
    /// When the last piece was handed over, and its size.
    handed: Option<(Instant, usize)>,
    /// What is left of a large piece.
    rest: Bytes,
}

/// What the task of a stream knows of its body.
pub(super) struct Flow {
    opened: Instant,
    /// When its client is given up, nanoseconds after `opened`.
    due: AtomicU64,
}

impl Flow {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), due: AtomicU64::new(NEVER) })
    }

    fn set(&self, due: Option<Instant>) {
        let since = |due: Instant| u64::try_from(due.saturating_duration_since(self.opened).as_nanos());
        self.due.store(due.map_or(NEVER, |due| since(due).unwrap_or(NEVER)), Ordering::Relaxed);
    }

    fn due(&self) -> Option<Instant> {
        let due = self.due.load(Ordering::Relaxed);
        (due != NEVER).then(|| self.opened + Duration::from_nanos(due))
    }
}

impl<B> Held<B> {
    /// An answer on HTTP/1, whose socket sees to its pace.
    pub(super) fn new(body: B, running: Running) -> Self {
        let handed = (0, running.written());
        Self { body, flow: None, handed, running }
    }

    /// An answer on a stream of its own.
    pub(super) fn on_stream(body: B, running: Running, flow: Arc<Flow>, pace: Pace) -> Self {
        let flow = Outflow { flow, pace, debt: Debt::default(), handed: None, rest: Bytes::new() };
        Self { body, flow: Some(Box::new(flow)), handed: (0, 0), running }
    }
}

impl<B> Held<B> {
    /// Whether enough of it waits to go out. The head and what frames the body go out, too, so that it is never
    /// taken to wait when all has gone.
    fn is_ahead(&self) -> bool {
        let (handed, before) = self.handed;
        handed.saturating_sub(self.running.written().saturating_sub(before)) > AHEAD
    }
}

impl Outflow {
    /// The client has room again.
    fn asked(&mut self) {
        if let Some((since, bytes)) = self.handed.take() {
            self.debt.wait(since.elapsed(), &self.pace);
            self.debt.pay(bytes as u64, &self.pace);
            self.flow.set(None);
        }
    }

    /// It is the client's turn.
    fn hand(&mut self, piece: &mut Bytes) {
        if piece.len() > PIECE {
            self.rest = piece.split_off(PIECE);
        }
        let now = Instant::now();
        self.handed = Some((now, piece.len()));
        self.flow.set(Some(now + self.debt.left(&self.pace)));
    }
}

impl<B: Headed> Headed for Held<B> {
    fn take_begun(&mut self) -> Option<Begun> {
        self.body.take_begun()
    }

    fn is_dated(&self) -> Option<bool> {
        self.body.is_dated()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(flow) = &mut this.flow else {
            if this.is_ahead() {
                // Asked again after waiting: what goes out later wakes.
                this.running.wait_for_outflow(cx);
                return Poll::Pending;
            }
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
            match &frame {
                // On HTTP/2 the stream is reset, and the connection goes on.
                Some(Err(_)) => this.running.break_off(),
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    this.handed.0 = this.handed.0.saturating_add(bytes as u64);
                }
                None => {}
            }
            return Poll::Ready(frame);
        };
        flow.asked();
        let frame = match flow.rest.is_empty() {
            true => std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)),
            false => Some(Ok(Frame::data(std::mem::take(&mut flow.rest)))),
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(frame.map_data(|mut piece| {
            flow.hand(&mut piece);
            piece
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.flow.as_ref().is_none_or(|flow| flow.rest.is_empty()) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.flow.as_ref().map_or(0, |flow| flow.rest.len()) as u64;
        let (hint, mut all) = (self.body.size_hint(), SizeHint::new());
        all.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper().and_then(|upper| upper.checked_add(rest)) {
            all.set_upper(upper);
        }
        all
    }
}

/// Makes a task of each stream of a connection.
#[derive(Clone)]
pub(super) struct Streams {
    /// Of the stream whose future is just being made: hyper makes a task of it before it makes another.
    next: Arc<Mutex<Option<Arc<Flow>>>>,
    cuts: Arc<Cuts>,
}

impl Streams {
    pub(super) fn new(cuts: Arc<Cuts>) -> Self {
        Self { next: Arc::default(), cuts }
    }

    /// A request has come, whose task is made next.
    pub(super) fn begin(&self) -> Arc<Flow> {
        let flow = Flow::new();
        *self.next.lock() = Some(Arc::clone(&flow));
        flow
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        match self.next.lock().take() {
            Some(flow) => {
                tokio::spawn(Stream { stream, flow, look: None, cuts: Arc::clone(&self.cuts) });
            }
            // Not a request.
            None => {
                tokio::spawn(stream);
            }
        }
    }
}

pin_project! {
    /// The task of a stream, until its client is given up.
    struct Stream<F> {
        #[pin]
        stream: F,
        flow: Arc<Flow>,
        look: Option<Pin<Box<Sleep>>>,
        cuts: Arc<Cuts>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(due) = this.flow.due() else { return Poll::Pending };
        let look = this.look.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if look.deadline() > due {
            look.as_mut().reset(due);
        }
        while look.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                this.cuts.count(Cut::SlowReader);
                return Poll::Ready(());
            }
            look.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::time::{advance, timeout};

    use super::super::life::Life;
    use super::*;

    const PACE: Pace = Pace { rate: 1000, grace: Duration::from_secs(10) };

    fn held(bytes: usize) -> (Held<Full<Bytes>>, Arc<Flow>) {
        let (flow, body) = (Flow::new(), Full::new(Bytes::from(vec![b'x'; bytes])));
        (Held::on_stream(body, Life::new(Instant::now()).begin().1, Arc::clone(&flow), PACE), flow)
    }

    fn stream(flow: &Arc<Flow>) -> (Stream<std::future::Pending<()>>, Arc<Cuts>) {
        let cuts = Arc::<Cuts>::default();
        let (stream, look) = (std::future::pending(), None);
        (Stream { stream, flow: Arc::clone(flow), look, cuts: Arc::clone(&cuts) }, cuts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_takes_nothing_ends_after_the_grace() {
        let (mut body, flow) = held(PIECE * 2);
        let (mut stream, cuts) = stream(&flow);
        // While nothing has been handed over, it is not the client who is waited for.
        assert!(timeout(PACE.grace * 9, &mut stream).await.is_err());
        body.frame().await.unwrap().unwrap();
        let begun = Instant::now();
        stream.await;
        assert_eq!((begun.elapsed().as_secs(), cuts.of(Cut::SlowReader)), (10, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_takes_its_time_and_pays_for_it_goes_on() {
        let (mut body, flow) = held(PIECE * 100);
        let (mut stream, _) = stream(&flow);
        for _ in 0..100 {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), PIECE);
            assert!(timeout(PACE.grace / 2, &mut stream).await.is_err());
        }
        assert!(body.is_end_stream() && body.frame().await.is_none());
        advance(PACE.grace).await;
        assert!(timeout(PACE.grace, &mut stream).await.is_err(), "all of it is gone");
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_the_same_body() {
        for bytes in [0, 1, PIECE, PIECE + 1, PIECE * 3 + 7] {
            let (mut body, _) = held(bytes);
            assert_eq!(body.size_hint().exact(), Some(bytes as u64));
            let mut seen = 0;
            while let Some(frame) = body.frame().await {
                seen += frame.unwrap().into_data().unwrap().len();
                assert_eq!(body.size_hint().exact(), Some((bytes - seen) as u64));
                assert_eq!(body.is_end_stream(), seen == bytes);
            }
            assert_eq!(seen, bytes);
        }
    }
}
