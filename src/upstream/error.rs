//! How an exchange with an origin fails: one word each for metrics, one sentence each for people.
//!
//! Knows which server was asked, and how hyper names its failures.
//! Must not know: which status a client gets for it (`proxy` decides), or who asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::wire::Flaw;

/// Where a failure happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The upstream's name in the configuration.
    pub upstream: Arc<str>,
    /// The server, `host:port`.
    pub server: Arc<str>,
}

/// Why no response head came from an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardError {
    /// No connection: refused, unreachable, or the name does not resolve.
    Connect {
        /// The last server tried.
        at: Place,
        /// The operating system's words.
        cause: Arc<str>,
    },
    /// No connection within `timeout.connect`.
    ConnectTimeout {
        /// The last server tried.
        at: Place,
        /// `timeout.connect`.
        limit: Duration,
    },
    /// All connections are in use and as many requests wait as may wait.
    QueueFull {
        /// The server with the fewest requests.
        at: Place,
    },
    /// All connections stayed in use for `pool.queue_timeout`.
    QueueTimeout {
        /// The server whose connections were waited for.
        at: Place,
        /// `pool.queue_timeout`.
        limit: Duration,
    },
    /// The request was sent, and for `timeout.first_byte` nothing came back.
    FirstByteTimeout {
        /// The server asked.
        at: Place,
        /// `timeout.first_byte`.
        limit: Duration,
    },
    /// `timeout.total` passed before a response head came.
    TotalTimeout {
        /// The server asked last.
        at: Place,
        /// `timeout.total`.
        limit: Duration,
    },
    /// The connection was closed or reset before a response head.
    Reset {
        /// The server asked.
        at: Place,
        /// What the connection reported.
        cause: Arc<str>,
    },
    /// What came back is not an HTTP/1 response, or its head is too large.
    Protocol {
        /// The server asked.
        at: Place,
        /// What was wrong with it.
        flaw: Flaw,
    },
    /// The request's body could not be read to its end: the client's doing, not the origin's.
    RequestBody {
        /// The server that was being sent the body.
        at: Place,
        /// What the body reported.
        cause: Arc<str>,
    },
    /// The request's body came too slowly (`limits.body_rate`): the client's doing, not the origin's.
    SlowRequestBody {
        /// The server that was being sent the body.
        at: Place,
    },
    /// The request's body turned out to be larger than the route allows (`max_body`).
    LargeRequestBody {
        /// The server that was being sent the body.
        at: Place,
    },
}

impl ForwardError {
    /// Whether it is the client's doing: nothing is known of the origin by it.
    pub fn is_the_clients(&self) -> bool {
        matches!(
            self,
            Self::RequestBody { .. } | Self::SlowRequestBody { .. } | Self::LargeRequestBody { .. }
        )
    }

    /// The word for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect-failed",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::QueueFull { .. } => "queue-full",
            Self::QueueTimeout { .. } => "queue-timeout",
            Self::FirstByteTimeout { .. } => "first-byte-timeout",
            Self::TotalTimeout { .. } => "total-timeout",
            Self::Reset { .. } => "reset",
            Self::Protocol { .. } => "protocol",
            Self::RequestBody { .. } => "request-body",
            Self::SlowRequestBody { .. } => "request-timeout",
            Self::LargeRequestBody { .. } => "request-too-large",
        }
    }

    /// A route without an upstream was to be asked.
    pub fn nowhere() -> Self {
        let at = Place { upstream: "-".into(), server: "no server".into() };
        Self::Connect { at, cause: "the route has no upstream".into() }
    }

    /// An answer that no request of ours allows, noticed by whoever read it.
    pub fn unasked(upstream: &str, flaw: Flaw) -> Self {
        Self::Protocol { at: Place { upstream: upstream.into(), server: "a server".into() }, flaw }
    }

    /// The server that failed, or was tried last.
    pub fn place(&self) -> &Place {
        match self {
            Self::Connect { at, .. }
            | Self::ConnectTimeout { at, .. }
            | Self::QueueFull { at }
            | Self::QueueTimeout { at, .. }
            | Self::FirstByteTimeout { at, .. }
            | Self::TotalTimeout { at, .. }
            | Self::Reset { at, .. }
            | Self::Protocol { at, .. }
            | Self::RequestBody { at, .. }
            | Self::SlowRequestBody { at }
            | Self::LargeRequestBody { at } => at,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of upstream \"{}\"", self.server, self.upstream)
    }
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { at, cause } => write!(f, "cannot connect to {at}: {cause}"),
            Self::ConnectTimeout { at, limit } => write!(f, "no connection to {at} within {limit:?}"),
            Self::QueueFull { at } => {
                write!(f, "all connections to {at} are in use and the queue for them is full")
            }
            Self::QueueTimeout { at, limit } => {
                write!(f, "all connections to {at} stayed in use for {limit:?}")
            }
            Self::FirstByteTimeout { at, limit } => {
                write!(f, "{at} did not begin to answer within {limit:?}")
            }
            Self::TotalTimeout { at, limit } => write!(f, "{at} did not answer within {limit:?}"),
            Self::Reset { at, cause } => write!(f, "{at} closed the connection without an answer: {cause}"),
            Self::Protocol { at, flaw } => write!(f, "{at} did not answer in HTTP/1: {flaw}"),
            Self::RequestBody { at, cause } => {
                write!(f, "the request's body broke off on its way to {at}: {cause}")
            }
            Self::SlowRequestBody { at } => write!(f, "the request's body came too slowly for {at}"),
            Self::LargeRequestBody { at } => write!(f, "the request's body is too large for {at}"),
        }
    }
}

impl std::error::Error for ForwardError {}

/// Why a response's body did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginError {
    /// The connection ended before the body did.
    Incomplete {
        /// The server asked.
        at: Place,
    },
    /// The connection was reset, or broke in another way.
    Reset {
        /// The server asked.
        at: Place,
        /// What the connection reported.
        cause: Arc<str>,
    },
    /// The body's framing makes no sense.
    Protocol {
        /// The server asked.
        at: Place,
        /// What was wrong with it.
        flaw: Flaw,
    },
    /// `timeout.total` passed before the body's end.
    TotalTimeout {
        /// The server asked.
        at: Place,
        /// `timeout.total`.
        limit: Duration,
    },
}

impl OriginError {
    /// The word for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Incomplete { .. } => "incomplete",
            Self::Reset { .. } => "reset",
            Self::Protocol { .. } => "protocol",
            Self::TotalTimeout { .. } => "total-timeout",
        }
    }

    /// What hyper's word for a broken response body means.
    pub(super) fn of(error: &hyper::Error, at: Place) -> Self {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        if let Some(flaw) = flaw(error) {
            return Self::Protocol { at, flaw };
        }
        match io_kind(error) {
            Some(UnexpectedEof) => Self::Incomplete { at },
            // hyper's chunk decoder says these of sizes and line ends that are none.
            Some(InvalidData | InvalidInput) => Self::Protocol { at, flaw: Flaw::Chunk },
            None if error.is_incomplete_message() => Self::Incomplete { at },
            _ => Self::Reset { at, cause: words(error) },
        }
    }
}

impl OriginError {
    /// The same of a connection that was spoken to directly.
    pub(super) fn of_io(error: &std::io::Error, at: Place) -> Self {
        if let Some(flaw) = flaw_of(error) {
            return Self::Protocol { at, flaw };
        }
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Incomplete { at },
            _ => Self::Reset { at, cause: words(error) },
        }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { at } => write!(f, "{at} closed the connection before the body's end"),
            Self::Reset { at, cause } => write!(f, "the connection to {at} broke within the body: {cause}"),
            Self::Protocol { at, flaw } => write!(f, "{at} sent a body that makes no sense: {flaw}"),
            Self::TotalTimeout { at, limit } => write!(f, "{at} did not finish its answer within {limit:?}"),
        }
    }
}

impl std::error::Error for OriginError {}

/// An error and its causes, as one line.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> Arc<str> {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.into()
}

/// What the scanner of the connection has found wrong, if that is how it ended.
pub(super) fn flaw(error: &hyper::Error) -> Option<Flaw> {
    flaw_of(io_error(error)?)
}

/// The same, by the error of the socket.
pub(super) fn flaw_of(error: &std::io::Error) -> Option<Flaw> {
    error.get_ref()?.downcast_ref().copied()
}

fn io_kind(error: &hyper::Error) -> Option<std::io::ErrorKind> {
    io_error(error).map(std::io::Error::kind)
}

/// The first I/O error among an error's causes.
fn io_error(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_own_word_and_names_upstream_and_server() {
        let at = || Place { upstream: "api".into(), server: "10.0.0.1:80".into() };
        let (limit, cause) = (Duration::from_millis(1500), Arc::<str>::from("why"));
        let all = [
            ForwardError::Connect { at: at(), cause: cause.clone() },
            ForwardError::ConnectTimeout { at: at(), limit },
            ForwardError::QueueFull { at: at() },
            ForwardError::QueueTimeout { at: at(), limit },
            ForwardError::FirstByteTimeout { at: at(), limit },
            ForwardError::TotalTimeout { at: at(), limit },
            ForwardError::Reset { at: at(), cause: cause.clone() },
            ForwardError::Protocol { at: at(), flaw: Flaw::Syntax },
            ForwardError::RequestBody { at: at(), cause },
            ForwardError::SlowRequestBody { at: at() },
            ForwardError::LargeRequestBody { at: at() },
        ];
        let mut words: Vec<_> = all.iter().map(ForwardError::as_str).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len());
        for error in all {
            let sentence = error.to_string();
            assert!(sentence.contains("10.0.0.1:80 of upstream \"api\""), "{sentence}");
            assert_eq!(error.place(), &at());
        }
    }
}
