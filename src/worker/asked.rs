//! What a client asked for, as both machines see it.
//!
//! Read once when the request arrives, never changed after: what the origin is sent is made from
//! it, what the key is made of comes from it.
//! Must not know: routes or what is stored.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};

use crate::clock::Timestamp;
use crate::fields::trace::{Ids, Tracing};
use crate::rules::RequestFacts;
use crate::store::Reserved;

/// A request's content, read whole because it is part of the key.
#[derive(Clone, Debug)]
pub struct Content {
    /// The bytes.
    pub bytes: Bytes,
    /// Their part of the budget for bodies that are held.
    pub held: Arc<Reserved>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path and query, as received.
    pub target: PathAndQuery,
    /// `http` or `https`: how the client came, as far as Larder may believe it.
    pub scheme: &'static str,
    /// The host it is for, from `Host` or `:authority`: in lower case, without the scheme's own port.
    pub authority: String,
    /// Its fields, as received; shared by all that were sent with the same ones.
    pub headers: Arc<HeaderMap>,
    /// The version of HTTP it came by.
    pub version: Version,
    /// The connection's other end, or whom a header of the PROXY protocol names.
    pub peer: IpAddr,
    /// Whom the request is from: `peer`, or whom trusted proxies name.
    pub client: IpAddr,
    /// What the caching rules need to know of it.
    pub facts: RequestFacts,
    /// The client takes a trailer section (RFC 9110 §6.5.1, `TE: trailers`).
    pub takes_trailers: bool,
    /// When it arrived.
    pub at: Timestamp,
    /// What it is called, once somebody has asked: most hits nobody asks about.
    pub ids: OnceLock<Box<Ids>>,
}

impl Asked {
    /// What it is called to the origin and in the log: the same to all who ask.
    pub fn ids(&self, tracing: Tracing) -> &Ids {
        self.ids.get_or_init(|| Box::new(Ids::of(&self.headers, tracing, drawn)))
    }

    /// The same, where its trace is recorded, or somebody has asked before: most are not, and nothing is made for them.
    /// For who asks last: that it is not recorded is not remembered.
    pub fn ids_if_recorded(&self, tracing: Tracing) -> Option<&Ids> {
        if let Some(ids) = self.ids.get() {
            return Some(ids);
        }
        let ids = Ids::recorded(&self.headers, tracing, drawn)?;
        Some(self.ids.get_or_init(|| Box::new(ids)))
    }
}

/// Random bits; none where the system has none, which makes ids that are alike and nothing worse.
fn drawn() -> u128 {
    DRAWN.with_borrow_mut(|drawn| {
        drawn.pop().unwrap_or_else(|| {
            let mut bits = [0; AT_A_TIME * 16];
            let _none = getrandom::fill(&mut bits);
            let (words, _) = bits.as_chunks::<16>();
            drawn.extend(words.iter().map(|word| u128::from_ne_bytes(*word)));
            drawn.pop().unwrap_or_default()
        })
    })
}

/// Words that the system is asked for at a time: a request takes up to three, and asking takes longer than all else
/// that is done for an id.
const AT_A_TIME: usize = 64;

thread_local! {
    static DRAWN: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}
