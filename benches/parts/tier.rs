//! How long a request may be kept by what the memory tier does beside it: what is given up, the order of what stays.
//!
//! Knows a full tier in which new ones come in all the time. Must not know: how moka does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use larder::config::{Config, SHIPPED};
use larder::store::{Class, Memory, PURGES, Purges};
use larder::stored::{CacheKey, KeyPolicy};

use super::response_of;

/// Bytes of the tier, URLs that are asked for, and bytes of a body at most.
const MEMORY: u64 = 64 << 20;
const URLS: u64 = 100_000;
const BODY: u64 = 8 * 1024;
/// Too long.
const LONG: Duration = Duration::from_millis(1);

/// Looks up and keeps so many times, each alone timed, and as often does the same without a tier: on a machine that does
/// other things, too, some of any take long.
pub fn housekeeping(times: u32) {
    println!("{:14} {:>8} {:>9} {:>9} {:>9}  longest, µs", "", "p50, ns", "p99.9", "p99.99", "over 1 ms");
    let mut config = Config::parse(SHIPPED, "proxy.toml", &|_| None).unwrap().cache;
    config.memory = MEMORY;
    let (memory, purges) = (Memory::new(&config), Purges::new(PURGES));
    // Full before anything is timed.
    requests(URLS as u32 * 2).for_each(|(key, body)| {
        ask(&memory, &purges, key, &body);
    });
    let (mut looks, mut keeps, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for (key, body) in requests(times) {
        let begun = Instant::now();
        drop(std::hint::black_box(response_of(0, key.clone(), std::slice::from_ref(&body))));
        alone.push(begun.elapsed());
        match ask(&memory, &purges, key, &body) {
            (look, None) => looks.push(look),
            (look, Some(keep)) => {
                looks.push(look);
                keeps.push(keep);
            }
        }
    }
    for (name, mut all) in [("look", looks), ("keep", keeps), ("without a tier", alone)] {
        all.sort_unstable();
        let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize].as_nanos();
        let long = all.iter().filter(|took| **took > LONG).count();
        let longest: Vec<_> = all.iter().rev().take(5).map(Duration::as_micros).collect();
        println!("{name:14} {:8} {:9} {:9} {long:9}  {longest:?}", at(0.5), at(0.999), at(0.9999));
    }
}

/// How long it took to look, and where nothing was there, to keep.
fn ask(memory: &Memory, purges: &Purges, key: CacheKey, body: &Bytes) -> (Duration, Option<Duration>) {
    let begun = Instant::now();
    let found = memory.find(&key);
    let look = begun.elapsed();
    if found.is_some() {
        return (look, None);
    }
    let response = Arc::new(response_of(0, key, std::slice::from_ref(body)));
    let begun = Instant::now();
    memory.keep(response, Class::Plain, purges);
    (look, Some(begun.elapsed()))
}

/// URLs, few of which are asked for often, and their bodies.
fn requests(times: u32) -> impl Iterator<Item = (CacheKey, Bytes)> {
    let content = Bytes::from(vec![b'x'; BODY as usize]);
    let (none, policy, mut state) = (HeaderMap::new(), KeyPolicy::default(), 0x9e37_79b9_7f4a_7c15_u64);
    (0..times).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The smallest of three: those at the beginning are asked for most.
        let rank = (0..3).map(|nth| (state >> (20 * nth)) % URLS).min().unwrap_or_default();
        let key = CacheKey::of("http", "api.test", &format!("/{rank}"), None, &none, &policy);
        let length = 1024 + rank.wrapping_mul(2_654_435_761) % (BODY - 1024);
        (key, content.slice(..length as usize))
    })
}
