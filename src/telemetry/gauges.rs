//! Stand-in: only what `upstream` names.

/// One server of an upstream, at one moment; the counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamGauges {
    /// The upstream's name.
    pub upstream: String,
    /// The server, `host:port`.
    pub server: String,
    /// Connections open or being opened.
    pub open: u64,
    /// Of these, connections that wait for a request.
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Connections opened.
    pub connects: u64,
    /// Connections that could not be opened.
    pub connect_errors: u64,
    /// Requests sent on a connection that was kept.
    pub reused: u64,
    /// Requests sent a second time.
    pub retries: u64,
}
