//! Every metric that Larder exposes, each declared once with its sentence.
//!
//! The exposition's `# HELP` comes from here, and so may a document or a dashboard.
//! Must not know: the values.

/// A metric's declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name in the exposition.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// A metric's type, in Prometheus' sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl MetricType {
    /// The word of the exposition's `# TYPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($ident:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $ident: Family =
            Family { name: $name, kind: MetricType::$kind, help: $help };)*
        /// Every metric, in the exposition's order.
        pub const FAMILIES: &[Family] = &[$($ident),*];
    };
}

families! {
    REQUESTS: Counter "larder_requests_total"
        "Finished requests by route, result and the tier that answered (- where none did).";
    MISSES: Counter "larder_misses_total"
        "Requests that looked into the cache and found nothing that could answer them, by reason (fwd of RFC 9211); revalidated and failed ones included.";
    MISS_CAUSES: Counter "larder_miss_causes_total"
        "The same requests by what would have spared the miss: cold is what was never here, evicted what more memory would have kept.";
    BYPASSES: Counter "larder_bypasses_total"
        "Requests that were forwarded without looking into the cache, by reason.";
    NOT_STORED: Counter "larder_not_stored_total"
        "Requests whose response was not stored, by reason.";
    VERIFIED: Counter "larder_verified_total"
        "Hits that were fetched again and compared (cache.verify), by what was found: unkeyed and planted are responses that were not for everyone they were given to.";
    COLLAPSED: Counter "larder_collapsed_total"
        "Requests that shared another request's fetch.";
    RESPONSES: Counter "larder_responses_total"
        "Responses by route and class of status.";
    RESPONSE_BYTES: Counter "larder_response_bytes_total"
        "Bytes of response bodies delivered.";
    LOOKUP_BYTES: Counter "larder_lookup_bytes_total"
        "Bytes of response bodies delivered to requests that looked into the cache, by whether it answered: cached or missed.";
    HIT_RATIO: Gauge "larder_hit_ratio"
        "Answered by the cache, of requests that looked into it, or of the bytes of their bodies (label of), over the last minute, 10 minutes, hour and since the start, per route; 0 where none looked.";
    OVERALL_HIT_RATIO: Gauge "larder_overall_hit_ratio"
        "The same of all routes together.";
    ORIGIN_FETCHES: Counter "larder_origin_fetches_total"
        "Times the origin was asked, refreshes in the background included.";
    ORIGIN_SAVED: Gauge "larder_origin_saved_seconds"
        "Estimate of the time for which the origin did not have to work: requests that a tier answered by itself, times what a fetch of the route takes on average.";
    RATE_LIMITED: Counter "larder_rate_limited_total"
        "Requests that a route's rate limit refused with a 429.";
    RATE_FORGOTTEN: Counter "larder_rate_limit_forgotten_total"
        "Clients whose count a route's rate limit gave up for another's, since it tells no more apart (clients); some of them may then have asked more often than the limit says.";
    REQUEST_DURATION: Histogram "larder_request_duration_seconds"
        "Time from a request's head to its response's last byte, by result.";
    PHASE_DURATION: Histogram "larder_phase_duration_seconds"
        "Time that requests spent in each phase, of those that went through it.";
    ORIGIN_DURATION: Histogram "larder_origin_fetch_duration_seconds"
        "Time from asking the origin to its response's head.";
    ACTIVE: Gauge "larder_requests_active"
        "Requests begun and not yet over.";
    FAILED: Counter "larder_requests_failed_total"
        "Requests answered with a status of 500 or above, or whose body could not be completed.";
    CLIENT_CLOSED: Counter "larder_client_closed_total"
        "Requests whose client left before the end of the response; they are not failures.";
    SLOW: Counter "larder_slow_requests_total"
        "Requests that took longer than timing.slow_request, or than slow_request of their route.";
    CONNECTIONS: Gauge "larder_client_connections"
        "Open connections of clients.";
    TUNNELS: Gauge "larder_tunnels"
        "Open connections that have left HTTP (upgrades); larder_client_connections counts them, too.";
    TUNNELS_ENDED: Counter "larder_tunnels_ended_total"
        "Tunnels that have ended, by end: closed by either side, idle for limits.tunnel_idle, or stopped with Larder.";
    PROXY_HEADERS: Counter "larder_proxy_headers_refused_total"
        "Connections closed since they did not begin with a good header of the PROXY protocol, by reason.";
    HEADS: Counter "larder_heads_refused_total"
        "Heads of HTTP/1 requests that were answered 400, 414 or 431 before they were requests, and are in no other count, by reason.";
    CUTS: Counter "larder_connections_ended_total"
        "Connections of clients, and streams of them, that Larder ended before the client did, by the limit that was reached.";
    INTERIM: Counter "larder_interim_responses_total"
        "Interim responses (1xx) of origins on their way to a client of HTTP/1.1, by result: passed, or dropped since it had left, read too slowly, or had been sent too many.";
    TIER_LOOKUPS: Counter "larder_tier_lookups_total"
        "Times a tier was to be asked for a response.";
    TIER_HITS: Counter "larder_tier_hits_total"
        "Times a tier held what it was asked for, fresh or not.";
    TIER_MISSES: Counter "larder_tier_misses_total"
        "Times a tier answered that it does not hold what it was asked for.";
    MEMORY_ENTRIES: Gauge "larder_memory_entries"
        "Keys stored in the memory tier.";
    MEMORY_BYTES: Gauge "larder_memory_bytes"
        "Weight of what the memory tier holds: bodies, headers, keys and overhead.";
    MEMORY_BUDGET: Gauge "larder_memory_budget_bytes"
        "What the memory tier and the process around it may take (cache.memory).";
    MEMORY_IN_FLIGHT: Gauge "larder_memory_in_flight_bytes"
        "Bytes of bodies on their way into the cache.";
    MEMORY_LINGERING: Gauge "larder_memory_lingering_bytes"
        "Bytes of bodies that the memory tier has given up and slow clients still read; the tier holds so much less.";
    MEMORY_INSERTS: Counter "larder_memory_inserts_total"
        "Responses kept in the memory tier.";
    MEMORY_CAPPED: Counter "larder_memory_variants_capped_total"
        "Variants dropped from the memory tier because their key had more than cache.variants.";
    CODING_ENCODED: Counter "larder_bodies_encoded_total"
        "Bodies encoded for clients, whole or while they streamed; a copy that is kept is counted once.";
    CODING_DECODED: Counter "larder_bodies_decoded_total"
        "Stored bodies decoded for clients that do not accept the coding they are stored in.";
    CODING_SAVED: Counter "larder_encoding_saved_bytes_total"
        "Bytes of bodies that clients did not have to be sent because Larder encoded them.";
    REDIS_UP: Gauge "larder_redis_up"
        "1 where every worker is connected to Redis, else 0.";
    REDIS_BREAKER: Gauge "larder_redis_breaker_state"
        "1 for the state in which the breaker before Redis is (the worst of all workers), 0 for the others.";
    REDIS_ERRORS: Counter "larder_redis_errors_total"
        "Times Redis, or the connection to it, failed.";
    REDIS_DEADLINE: Counter "larder_redis_deadline_exceeded_total"
        "Times Redis did not answer within cache.redis_deadline.";
    REDIS_REFUSED: Counter "larder_redis_refused_total"
        "Times Redis was not asked: the breaker was open, or too many calls were under way.";
    REDIS_DAMAGED: Counter "larder_redis_damaged_total"
        "Values read from Redis that were damaged or not Larder's, by what was wrong with them; each is a miss and is replaced.";
    REDIS_WRITES: Counter "larder_redis_writes_total"
        "Values written to Redis.";
    REDIS_WRITTEN: Counter "larder_redis_written_bytes_total"
        "Bytes written to Redis.";
    REDIS_READ: Counter "larder_redis_read_bytes_total"
        "Bytes of records that lookups have read from Redis.";
    REDIS_WRITE_ERRORS: Counter "larder_redis_write_errors_total"
        "Writes to Redis that failed.";
    REDIS_DROPPED: Counter "larder_redis_dropped_writes_total"
        "Writes to Redis that were dropped: for a full queue, or purged since they were fetched.";
    REDIS_QUEUE: Gauge "larder_redis_queue_bytes"
        "Bytes that wait to be written to Redis.";
    FLEET_STATE: Gauge "larder_fleet_state"
        "1 for how it stands between this node and the fleet's purges: ok, lagging or lost.";
    FLEET_LAG: Gauge "larder_fleet_lag_seconds"
        "How long ago this node's knowledge of purges was complete.";
    FLEET_BOUND: Gauge "larder_fleet_bound_seconds"
        "The longest lag at which memory is trusted (cache.coherence).";
    FLEET_POSITION: Gauge "larder_fleet_position"
        "The number of the latest purge that this node knows.";
    FLEET_APPLIED: Counter "larder_fleet_purges_applied_total"
        "Purges applied, of this node and of others.";
    FLEET_TOLD: Counter "larder_fleet_purges_told_total"
        "Purges told to the other nodes.";
    FLEET_UNTOLD: Gauge "larder_fleet_purges_waiting"
        "Purges that wait for Redis to be told to the other nodes.";
    FLEET_LOST: Counter "larder_fleet_purges_lost_total"
        "Purges given up since too many waited: in their place, all nodes validate whatever they hold.";
    FLEET_RESUMED: Counter "larder_fleet_log_resumed_total"
        "Times Redis had lost the log of purges, or was set back.";
    FLEET_HORIZONS: Counter "larder_fleet_horizons_total"
        "Times this node had missed more purges than the log holds, and trusted nothing older.";
    LEASES_HEARS: Gauge "larder_leases_hears"
        "1 while this node can be told of the other nodes' fetches, else 0: then it fetches for itself.";
    LEASES_HELD: Gauge "larder_leases_held"
        "Fetches that this node does for the whole fleet at the moment.";
    LEASES_WAITING: Gauge "larder_leases_waiting"
        "Fetches that wait for another node's at the moment.";
    LEASES: Counter "larder_leases_total"
        "Fetches that had been asked for with a lease, by what came of it: taken, waited (another node had it), or alone (nobody could say, so this node fetched for itself).";
    LEASES_WOKEN: Counter "larder_leases_woken_total"
        "Ends of waits for another node's fetch: stored, not-stored, or expired (nothing was heard within the lease's time).";
    WARM_LOADED: Gauge "larder_warm_start_loaded"
        "Responses that were read into memory before this node said that it was ready.";
    WARM_SKIPPED: Gauge "larder_warm_start_skipped"
        "Responses that others had named for that, and that were gone, stale, purged or in memory already.";
    WARM_SECONDS: Gauge "larder_warm_start_seconds"
        "How long that took.";
    WARM_NAMED: Gauge "larder_warm_start_named"
        "Responses that this node has named to others, the last time.";
    UPSTREAM_CONNECTIONS: Gauge "larder_upstream_connections"
        "Open connections to a server by state, idle or busy.";
    UPSTREAM_WAITING: Gauge "larder_upstream_waiting_requests"
        "Requests that wait for a connection to a server.";
    UPSTREAM_CONNECTS: Counter "larder_upstream_connects_total"
        "Connections made to a server.";
    UPSTREAM_CONNECT_ERRORS: Counter "larder_upstream_connect_errors_total"
        "Connections to a server that could not be made.";
    UPSTREAM_REUSED: Counter "larder_upstream_reused_connections_total"
        "Requests sent on a connection that had served another before.";
    UPSTREAM_RETRIES: Counter "larder_upstream_retries_total"
        "Requests sent again because a kept-alive connection turned out to be closed, or a server broke off while there was another.";
    UPSTREAM_HEDGES: Counter "larder_upstream_hedges_total"
        "Requests sent to a server beside another that had not begun its answer (timeout.hedge_after).";
    UPSTREAM_HEDGES_WON: Counter "larder_upstream_hedges_won_total"
        "Of these, those that the second server answered first.";
    UPSTREAM_FLAWS: Counter "larder_upstream_flaws_total"
        "Times a server sent what is not one well-formed response, by what was wrong with it; the connection was closed.";
    ACCESS_DROPPED: Counter "larder_access_log_dropped_total"
        "Access-log lines dropped because stdout was too slow.";
    SPANS: Counter "larder_spans_total"
        "Spans for the collector of traces (otlp), by result: sent; dropped, since otlp.queue was full; failed, since it did not answer or refused them; rejected, by its own word.";
    FETCHES: Gauge "larder_fetches_in_flight"
        "Fetches on behalf of everyone who waits for them, refreshes in the background included.";
    TASKS: Gauge "larder_tasks"
        "Tasks that have begun and not ended, on all threads: one for each connection, fetch and upkeep.";
    PANICS: Counter "larder_panics_total"
        "Bugs of Larder's that ended a task; the log has the place of each.";
    RELOADS: Counter "larder_reloads_total"
        "Reloads of the configuration by result: done, or refused, after which the former stays in force.";
    UPTIME: Gauge "larder_uptime_seconds"
        "Time since the start of the process.";
    BUILD: Gauge "larder_build_info"
        "Always 1; the label says which version runs.";
    RESIDENT: Gauge "process_resident_memory_bytes"
        "Memory that the process has, as the system counts it; larder_memory_bytes and larder_memory_in_flight_bytes are parts of it.";
    STARTED: Gauge "process_start_time_seconds"
        "When the process was started, in seconds since the Unix epoch.";
}
