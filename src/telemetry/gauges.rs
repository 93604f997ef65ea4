//! What the tiers say about themselves, for the exposition.
//!
//! Plain figures. Must not know: who fills them in, or how they are shown.

/// The memory tier.
#[derive(Clone, Debug, Default)]
pub struct MemoryGauges {
    /// Stored keys.
    pub entries: u64,
    /// Bytes they weigh.
    pub bytes: u64,
    /// Bytes they may weigh.
    pub budget: u64,
    /// Bytes of bodies on their way into the cache.
    pub in_flight: u64,
    /// Lookups.
    pub lookups: u64,
    /// Lookups that found the key.
    pub hits: u64,
    /// Responses kept.
    pub inserts: u64,
    /// Variants dropped because a key had too many.
    pub variants_capped: u64,
}

/// The Redis tier.
#[derive(Clone, Debug, Default)]
pub struct RedisGauges {
    /// A connection stands.
    pub up: bool,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// Lookups.
    pub gets: u64,
    /// Lookups that found a response.
    pub hits: u64,
    /// Lookups that were answered, but found none.
    pub misses: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that were not answered in time.
    pub deadline_exceeded: u64,
    /// Calls that were not made, because the breaker was open or too many were under way.
    pub refused: u64,
    /// Values that could not be read.
    pub damaged: u64,
    /// Responses written.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Writes that were not tried.
    pub dropped_writes: u64,
    /// Bytes that wait to be written.
    pub queue_bytes: u64,
}
