//! Stand-in: only what `upstream` names.

mod gauges;

pub use gauges::UpstreamGauges;
