//! A request's future, with the moves of interim heads that are tied to its being polled.
//!
//! Knows that it is polled only while nothing of its answer has been written, by hyper or by `server/alone.rs`. Must not
//! know: what it answers.
//!
//! Cancellation: dropping it takes the word from everyone who may still hold an
//! [`Interim`](super::Interim) of this request.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::line::Turn;

pin_project! {
    /// The future of one request. Interim heads move towards the client in its `poll` alone.
    pub struct Answering<F> {
        #[pin]
        answer: F,
        turn: Turn,
    }
}

impl<F: Future> Answering<F> {
    /// `answer`, preceded by what comes for `turn`.
    pub fn new(turn: Turn, answer: F) -> Self {
        Self { answer, turn }
    }
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = this.answer.poll(cx);
        // Also where it has just ended: what came before the final head goes before it.
        this.turn.collect(answer.is_pending().then(|| cx.waker()));
        answer
    }
}
