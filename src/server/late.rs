//! A connection of HTTP/1.1 that has a hyper from its first request on that is not plain.
//!
//! Knows the order: alone, then with hyper, which keeps it. Must not know: what is asked, or how either answers.
//!
//! Cancellation: dropped with its connection, with whatever either has under way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, Write};

use super::alone::{Alone, Over};
use super::connection::Ending;
use super::watched::Watched;

/// A connection, first without and then with hyper.
#[expect(clippy::large_enum_variant, reason = "most stay what they begin as")]
pub(super) enum Late<T, F, C> {
    /// Nothing has come so far that is hyper's; and how to serve it with hyper.
    Alone(Alone<T>, F),
    /// On its way from one to the other.
    Passing,
    Served(Pin<Box<C>>),
}

impl<T, F, C> Late<T, F, C>
where
    F: FnOnce(Watched<T>) -> C,
{
    pub(super) const fn new(alone: Alone<T>, serve: F) -> Self {
        Self::Alone(alone, serve)
    }
}

/// Nothing in it is pinned but what is boxed.
impl<T, F, C> Unpin for Late<T, F, C> {}

impl<T, F, C> Future for Late<T, F, C>
where
    T: Read + Write + Unpin,
    F: FnOnce(Watched<T>) -> C,
    C: Future<Output = Result<(), hyper::Error>>,
{
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Served(connection) => return connection.as_mut().poll(cx),
                Self::Alone(alone, _) => match ready!(alone.poll(cx)) {
                    Ok(Over::ForHyper) => {}
                    // What goes wrong with a client's socket is its own.
                    Ok(Over::Ended) | io::Result::Err(_) => return Poll::Ready(Ok(())),
                },
                Self::Passing => return Poll::Ready(Ok(())),
            }
            if let Self::Alone(alone, serve) = std::mem::replace(this, Self::Passing) {
                *this = Self::Served(Box::pin(serve(alone.into_watched())));
            }
        }
    }
}

impl<T, F, C> Ending for Late<T, F, C>
where
    Self: Future<Output = C::Output>,
    C: Ending,
{
    fn end(self: Pin<&mut Self>) {
        match self.get_mut() {
            Self::Served(connection) => connection.as_mut().end(),
            Self::Alone(alone, _) => alone.end(),
            Self::Passing => {}
        }
    }
}
