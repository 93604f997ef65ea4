//! A stored response: what the origin said, when, and for which request.
//!
//! Knows that only a permit of `rules::storing` makes one, that nothing in it may hold on to a
//! connection's read buffer, and what it weighs in memory.
//! Must not know: freshness, routes, or where it is kept.

use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::CacheKey;
use crate::clock::Timestamp;
use crate::rules::{ResponseFacts, SelectingFields, Storable, stored_fields};

/// A response as it is kept, in either tier.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    /// Status.
    pub status: StatusCode,
    /// The fields that are stored (§3.1), in their order, repeats kept.
    pub headers: HeaderMap,
    /// The same, understood.
    pub facts: ResponseFacts,
    /// The whole body.
    pub body: Bytes,
    /// The request's fields that `Vary` named (§4.1).
    pub selecting: SelectingFields,
    /// What it is stored under.
    pub key: Arc<CacheKey>,
    /// By what a purge judges it.
    pub born: Born,
    /// Keeps others from making one without a permit.
    sealed: (),
}

/// By what a purge judges a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// Fetched by this process; the number of the latest purge when the fetch began.
    Here(u64),
    /// Read from Redis: judged by the time of its request.
    Elsewhere,
}

/// A complete response of the origin, about to be stored.
#[derive(Debug)]
pub struct Received<'a> {
    /// Status.
    pub status: StatusCode,
    /// All of its fields; those that may not be stored are left out here.
    pub headers: &'a HeaderMap,
    /// When the request was sent (§4.2.3).
    pub request_time: Timestamp,
    /// When the head came (§4.2.3).
    pub response_time: Timestamp,
    /// The whole body, in memory of its own: see [`StoredResponse::compact`].
    pub body: Bytes,
    /// The request's fields that `Vary` named (§4.1).
    pub selecting: SelectingFields,
    /// What it is to be stored under.
    pub key: Arc<CacheKey>,
    /// By what a purge will judge it.
    pub born: Born,
}

impl StoredResponse {
    /// Makes a response that the rules allow to be stored, without the fields they do not.
    pub fn new(permit: Storable, received: Received<'_>) -> Self {
        let headers = compact_fields(&stored_fields(received.headers, &permit));
        let times = (received.request_time, received.response_time);
        let Received { status, body, selecting, key, born, .. } = received;
        Self::from_record(status, headers, times, body, selecting, key, born)
    }

    /// The same body with the fields that a 304 has freshened (§3.2), confirmed by a fetch that
    /// was `born` so.
    pub fn freshened(&self, headers: HeaderMap, facts: ResponseFacts, born: Born) -> Self {
        Self { headers: compact_fields(&headers), facts, born, ..self.clone() }
    }

    /// One piece of memory, exactly as large as the chunks together. A chunk as it comes from a
    /// connection is a part of a larger read buffer and would keep all of that alive.
    pub fn compact(chunks: &[Bytes]) -> Bytes {
        let mut whole = Vec::with_capacity(chunks.iter().map(Bytes::len).sum());
        chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        Bytes::from(whole)
    }

    /// Bytes of memory it takes: body, fields, its share of the key, and what holds them together.
    /// An estimate from the layout of the types, on the high side.
    pub fn weight(&self) -> usize {
        let fields: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let repeats = self.headers.len().saturating_sub(self.headers.keys_len());
        let selecting: usize =
            self.selecting.parts().map(|(name, value)| SELECTING + name.as_str().len() + value.map_or(0, <[u8]>::len)).sum();
        [
            size_of::<Self>(),
            COUNTERS,
            self.body.len(),
            fields,
            self.headers.capacity().saturating_mul(FIELD),
            repeats.saturating_mul(FIELD),
            selecting,
            self.key.heap(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// For the codec, whose records come from what once had a permit.
    pub(super) fn from_record(
        status: StatusCode,
        headers: HeaderMap,
        (request_time, response_time): (Timestamp, Timestamp),
        body: Bytes,
        selecting: SelectingFields,
        key: Arc<CacheKey>,
        born: Born,
    ) -> Self {
        // Understood from the stored fields, so that it means the same in both tiers.
        let facts = ResponseFacts::of(status.as_u16(), &headers, request_time, response_time);
        Self { status, headers, facts, body, selecting, key, born, sealed: () }
    }
}

/// A slot of a `HeaderMap` with its share of the index.
const FIELD: usize = 112;
/// One selecting field.
const SELECTING: usize = 64;
/// Reference counts, allocator rounding, and the facts' own small allocations.
const COUNTERS: usize = 192;

/// The same fields with all values in one piece of memory of their own. As hyper gives them, values
/// are parts of a connection's read buffer.
fn compact_fields(headers: &HeaderMap) -> HeaderMap {
    let values = Vec::with_capacity(headers.values().map(HeaderValue::len).sum());
    let values = headers.values().fold(values, |mut values, value| {
        values.extend_from_slice(value.as_bytes());
        values
    });
    let mut values = Bytes::from(values);
    let mut compacted = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        let own = values.split_to(value.len().min(values.len()));
        // What was a valid value stays one.
        compacted.append(name, HeaderValue::from_maybe_shared(own).unwrap_or_else(|_| value.clone()));
    }
    compacted
}
