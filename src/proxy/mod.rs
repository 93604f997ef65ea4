//! The client side: receives a request, looks it up, waits for a fetch or passes it on, delivers.
//!
//! Each box is one function that returns the next [`Step`], and each step owns its data, so a wrong
//! order does not compile.
//! Must not know: tiers' insides, connections, how a fetch is made.
//!
//! ```text
//! receive → read (the content, where it is part of the key)
//!         → lookup (memory)
//!            ├ fresh ............... deliver
//!            ├ in grace ............ deliver, fill
//!            ├ miss, must validate . wait ⇄ fill
//!            └ hit-for-miss ........ pass → deliver
//!         unsafe, upgrade, off ..... pass (gather the body, forward) → deliver
//!         PURGE .................... purge → deliver
//! ```
//!
//! A plain request that memory can answer takes none of these steps ([`short`]), by the same rules; one that it cannot
//! answer has been received there.
//!
//! Cancellation: a client that leaves drops the future of [`handle`]. The [`report::Report`] in the
//! step then tells telemetry; a fill goes on without it; a pass drops its connection.

mod adopting;
mod beginning;
mod body;
mod content;
mod deliver;
mod encoding;
mod exchange;
mod explain;
mod failure;
mod gather;
mod head;
mod judge;
mod lookup;
mod multipart;
mod pass;
mod purging;
mod rate;
mod receive;
mod report;
mod short;
mod transform;
mod tunnel;
mod wait;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::interim::Interim;
use crate::wire::Fault;
use crate::worker::Worker;

pub use body::Delivery;
use content::Read;
use deliver::Deliver;
use exchange::Exchange;
pub use explain::{Thought, explain};
pub use head::{Begun, CACHE_STATUS, Headed};
use pass::Pass;
use purging::Purging;
pub use short::{Arrival, AtOnce, Short, Ways, answer as answer_at_once};
use transform::Transform;
pub use tunnel::Host;
use wait::Wait;

/// What to do next with a request.
enum Step {
    /// Read its content, then look into the memory tier.
    Read(Box<Read>),
    /// Look into the memory tier.
    Lookup(Box<Exchange>),
    /// Wait for a fetch.
    Wait(Box<Wait>),
    /// Bring what is stored into the form that the client reads.
    Transform(Box<Transform>),
    /// Forward it alone.
    Pass(Box<Pass>),
    /// Purge what it names.
    Purge(Box<Purging>),
    /// Answer.
    Deliver(Box<Deliver>),
}

/// Who asks, and what its connection knows of the request.
pub struct Client {
    /// The connection's other end.
    pub peer: IpAddr,
    /// The way for interim responses, where they are taken.
    pub interim: Option<Interim>,
    /// What is wrong with the head's bytes.
    pub fault: Option<Fault>,
}

/// Answers one request.
pub async fn handle(worker: Arc<Worker>, client: Client, request: Request<Incoming>) -> Response<Delivery> {
    #[cfg(test)]
    let path = request.uri().path().to_owned();
    let step = receive::receive(worker, client, request);
    #[cfg(test)]
    crate::telemetry::failpoint::at("handle", &path);
    run(step).await
}

/// The same of a plain request that has been [read](answer_at_once) and not been answered at once.
pub async fn handle_plain(
    worker: Arc<Worker>,
    arrival: Box<Arrival>,
    interim: Option<Interim>,
) -> Response<Delivery> {
    #[cfg(test)]
    let path = arrival.path().to_owned();
    let step = receive::received(worker, *arrival, interim);
    #[cfg(test)]
    crate::telemetry::failpoint::at("handle", &path);
    run(step).await
}

async fn run(mut step: Step) -> Response<Delivery> {
    loop {
        step = match step {
            Step::Lookup(exchange) => lookup::lookup(exchange),
            // Each has a place of its own only once it is taken: a hit takes none, and hyper moves this future, with
            // room for all that it may wait for, three times before it is polled.
            Step::Read(read) => Box::pin(read.run()).await,
            Step::Wait(wait) => Box::pin(wait.run()).await,
            Step::Transform(transform) => Box::pin(transform.run()).await,
            Step::Pass(pass) => Box::pin(pass.run()).await,
            Step::Purge(purging) => Box::pin(purging.run()).await,
            Step::Deliver(deliver) => return deliver.response(),
        };
    }
}

/// The answer to a request whose [`handle`] has panicked: it is to be sent in place of the one that never
/// came. Its report was dropped on the way, and has told of it.
pub fn bug() -> Response<Full<Bytes>> {
    deliver::bug()
}

#[cfg(test)]
mod tests {
    /// The future of a request is moved as it is made: a large one costs every hit, whatever step it is that
    /// makes it large.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<A, B, C, T>(_: impl Fn(A, B, C) -> T) -> usize {
            std::mem::size_of::<T>()
        }
        for size in [size(super::handle), size(super::handle_plain)] {
            assert!(size <= 1024, "{size} bytes");
        }
    }
}
