//! What happened, and how long it took: for headers, metrics and logs.
//!
//! The upper floors write marks into a [`Timeline`], set an [`Outcome`], and call [`finish()`] once
//! when the response's body ends. That one call feeds the metrics, the slow-request log and the
//! access log, so the three cannot tell different stories.
//! Knows the words and forms in which all of this is shown.
//! Must not know: how a response was made, the configuration, or who scrapes and reads.

mod access;
mod cache_status;
mod cause;
mod cuts;
mod exposition;
mod families;
mod finish;
mod gauges;
mod heads;
mod heads_kept;
mod hints;
mod histogram;
mod lines;
mod live;
mod logs;
mod metrics;
mod noted;
mod openmetrics;
mod otlp;
mod outcome;
mod paced;
mod panics;
mod proxy_headers;
mod recent;
mod redact;
mod slow;
mod stamp;
mod stats;
mod timeline;
mod top_keys;
mod tunnels;
mod windows;

pub use access::{AccessLog, Form};
pub use cause::Cause;
pub use cuts::{Cut, Cuts};
pub use families::{FAMILIES, Family, MetricType};
pub use finish::{End, Finished, Heads as FinishedHeads, finish};
pub use gauges::{
    CodingGauges, FleetGauges, Gauges, LeaseGauges, MemoryGauges, RedisGauges, SpanGauges, UpstreamGauges,
    WarmGauges,
};
pub use heads::{HeadRefused, Heads};
pub use hints::{Hints, Setting};
pub use logs::{Messages, init};
pub use metrics::{Metrics, NONE, Shard};
pub use openmetrics::Format;
pub use otlp::{Asking, Collector, OriginAsked, RedisAsked, Spans};
pub use outcome::{Bypass, Detail, Kind, Miss, Outcome, Source, Tier};
pub use paced::Paced;
#[cfg(test)]
pub(crate) use panics::{failpoint, note};
pub use panics::{install_panic_hook, panics, supervise};
pub use proxy_headers::{HeaderRefused, ProxyHeaders};
pub use slow::{SlowRequest, SlowRequests};
pub use timeline::{Phase, Timeline, write_process_time};
pub use tunnels::{TunnelEnd, Tunnels};
pub use windows::hit_ratio;
