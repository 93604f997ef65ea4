//! What Larder says about itself.

pub mod gauges;
pub mod outcome;
