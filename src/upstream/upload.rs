//! A client's body on its way in: how fast it must come, and how large it may be.
//!
//! Knows when somebody waits for it: only then does a silent client owe time. A body that nobody asks for, since
//! the origin takes no more just now, costs its client nothing.
//! Must not know: who asks for it, or what the client is told.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::BoxError;
use crate::pace::{Debt, Pace};

/// Why a client's body was given up. It is the client's doing, whoever was waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It came more slowly than [`Pace`] allows.
    TooSlow,
    /// It turned out to be larger than it may be.
    TooLarge,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSlow => "it came too slowly",
            Self::TooLarge => "it is larger than the route allows",
        })
    }
}

impl std::error::Error for Refused {}

/// A client's body, held to its pace and its size.
///
/// Once refused, it is let go of at once, so that the client's connection does not wait for somebody to drop it.
pub struct Upload<B = Incoming> {
    body: Option<B>,
    pace: Pace,
    debt: Debt,
    /// Somebody has been waiting for the client since.
    waiting: Option<Instant>,
    /// When to look whether the client is to be given up; most bodies need none.
    look: Option<Pin<Box<Sleep>>>,
    /// Bytes that it may yet bring.
    left: u64,
}

impl<B> Upload<B> {
    /// `body`, of at most `max` bytes.
    pub fn new(body: B, pace: Pace, max: u64) -> Self {
        Self { body: Some(body), pace, debt: Debt::default(), waiting: None, look: None, left: max }
    }

    fn refuse(&mut self, why: Refused) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        (self.body, self.look) = (None, None);
        Poll::Ready(Some(Err(why.into())))
    }

    /// Whether the client has kept us waiting for too long; if not, the task is woken when it has.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let due = *self.waiting.get_or_insert(now) + self.debt.left(&self.pace);
        if now >= due {
            return true;
        }
        let look = self.look.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if look.deadline() > due {
            look.as_mut().reset(due);
        }
        // Not moved for each piece of a body that comes well: it may be early, and is set anew then.
        while look.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            look.as_mut().reset(due);
        }
        false
    }

    fn came(&mut self, bytes: u64) -> Result<(), Refused> {
        if let Some(since) = self.waiting.take() {
            self.debt.wait(since.elapsed(), &self.pace);
        }
        self.debt.pay(bytes, &self.pace);
        self.left = self.left.checked_sub(bytes).ok_or(Refused::TooLarge)?;
        Ok(())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Upload<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.is_late(cx) => return this.refuse(Refused::TooSlow),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        match this.came(bytes as u64) {
            Ok(()) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Err(why) => this.refuse(why),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::upstream::testing::Fed;

    const PACE: Pace = Pace { rate: 100, grace: Duration::from_secs(10) };

    fn fed(max: u64) -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Upload<Fed>) {
        let (feeder, frames) = mpsc::channel(1);
        (feeder, Upload::new(Fed(frames), PACE, max))
    }

    async fn trickle(
        feeder: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
        piece: &'static [u8],
        every: Duration,
        pieces: usize,
    ) {
        for _ in 0..pieces {
            sleep(every).await;
            if feeder.send(Ok(Frame::data(Bytes::from_static(piece)))).await.is_err() {
                return;
            }
        }
    }

    async fn refused(mut upload: Upload<Fed>) -> (Option<Refused>, usize, Duration) {
        let (begun, mut came) = (Instant::now(), 0);
        let why = loop {
            match upload.frame().await {
                Some(Ok(frame)) => came += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(error)) => break error.downcast_ref::<Refused>().copied(),
                None => break None,
            }
        };
        assert!(upload.frame().await.is_none(), "nothing comes after the end");
        (why, came, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_is_given_up_soon_after_the_grace() {
        let (feeder, upload) = fed(u64::MAX);
        tokio::spawn(trickle(feeder, b"x", Duration::from_secs(1), 1000));
        let (why, came, after) = refused(upload).await;
        assert_eq!((why, came), (Some(Refused::TooSlow), 10));
        assert!(after >= PACE.grace && after < PACE.grace + Duration::from_secs(1), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_given_up_after_the_grace_and_lets_go_of_the_body() {
        let (feeder, upload) = fed(u64::MAX);
        let waiting = tokio::spawn(refused(upload));
        feeder.closed().await;
        let (why, came, after) = waiting.await.unwrap();
        assert_eq!((why, came, after.as_secs()), (Some(Refused::TooSlow), 0, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_and_honest_client_has_all_the_time_that_it_takes() {
        let (feeder, upload) = fed(u64::MAX);
        tokio::spawn(trickle(feeder, &[b'x'; 900], Duration::from_secs(9), 400));
        let (why, came, after) = refused(upload).await;
        assert_eq!((why, came, after.as_secs()), (None, 360_000, 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_asks_is_not_the_clients() {
        let (feeder, mut upload) = fed(u64::MAX);
        for _ in 0..100 {
            feeder.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
            advance(Duration::from_secs(60)).await;
            assert!(upload.frame().await.unwrap().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_it_may_be_is_given_up_at_that_byte() {
        for (max, want) in [(10, None), (9, Some(Refused::TooLarge))] {
            let (feeder, upload) = fed(max);
            tokio::spawn(trickle(feeder, b"12345", Duration::ZERO, 2));
            let (why, came, _) = refused(upload).await;
            assert_eq!((why, came), (want, if want.is_some() { 5 } else { 10 }));
        }
    }
}
