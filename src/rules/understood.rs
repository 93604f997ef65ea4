//! What was understood of responses lately, so that what most of an origin's say alike is read once.
//!
//! Knows which fields [`Said`] is read from, byte for byte: two responses of one status that have these alike have said
//! the same. On each thread, so that nobody waits, and bounded. That it is remembered changes nothing but the time that
//! it takes.
//! Must not know: what any of them means.

use std::cell::RefCell;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::facts::Said;
use crate::lately::Lately;

/// What a thread has at hand.
const KNOWN: usize = 32;
/// Bytes of these fields beyond which nothing is remembered: nobody says the like twice.
const LONGEST: usize = 512;

thread_local! {
    static LATELY: RefCell<Lately<Known>> = const { RefCell::new(Lately::new(KNOWN)) };
}

struct Known {
    words: Words,
    understood: Understood,
}

const SET_COOKIE: u8 = 10;
const ALLOW_ORIGIN: u8 = 11;

/// The fields that [`Said`] is read from, numbered.
fn number(name: &str) -> Option<u8> {
    Some(match name {
        "larder-cache-control" => 1,
        "cdn-cache-control" => 2,
        "cache-control" => 3,
        "vary" => 4,
        "content-language" => 5,
        "content-encoding" => 6,
        "cache-groups" => 7,
        "no-vary-search" => 8,
        "content-range" => 9,
        "set-cookie" => SET_COOKIE,
        // By which it varies on `Origin`.
        "access-control-allow-origin" => ALLOW_ORIGIN,
        _ => return None,
    })
}

/// What a response has said, and whether a targeted field says how it is cached (RFC 9213).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Understood {
    pub(super) said: Arc<Said>,
    pub(super) targeted: bool,
}

/// A status, and the lines of the fields that are understood, as they came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    status: u16,
    lines: Vec<u8>,
}

impl Words {
    pub(super) fn of(status: u16) -> Self {
        Self { status, lines: Vec::with_capacity(64) }
    }

    /// Takes a line, if it is one of these fields.
    pub(super) fn take(&mut self, name: &str, value: &[u8]) {
        let Some(field) = number(name) else { return };
        self.lines.push(field);
        match field {
            // That it is there is all that counts.
            SET_COOKIE => {}
            // Whether it lets in all, or one.
            ALLOW_ORIGIN => self.lines.push(if value.trim_ascii() == b"*" { b'*' } else { b'1' }),
            _ => self.lines.extend_from_slice(value),
        }
        // Which no value holds.
        self.lines.push(0);
    }

    /// What they mean: as it was understood before, or as it is read now.
    ///
    /// `read` is given these fields of `all` and no others: it cannot go by what is not compared.
    pub(super) fn understood<'a>(
        self,
        all: impl Iterator<Item = (&'a HeaderName, &'a [u8])>,
        read: impl FnOnce(&HeaderMap) -> Understood,
    ) -> Understood {
        let read = || {
            let mut only = HeaderMap::new();
            for (name, value) in all.filter(|(name, _)| number(name.as_str()).is_some()) {
                // What stands in a head is a value.
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    only.append(name, value);
                }
            }
            read(&only)
        };
        if self.lines.len() > LONGEST {
            return read();
        }
        let known = LATELY.with_borrow_mut(|known| {
            known.find(|known| known.words == self).map(|known| known.understood.clone())
        });
        known.unwrap_or_else(|| {
            let understood = read();
            let known = Known { words: self, understood: understood.clone() };
            LATELY.with_borrow_mut(|lately| lately.put(known));
            understood
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{AT, headers};
    use super::*;
    use crate::rules::ResponseFacts;

    fn known() -> usize {
        LATELY.with_borrow(Lately::len)
    }

    #[test]
    fn what_is_said_alike_is_read_once_and_few_are_remembered() {
        let of = |control: &str| {
            ResponseFacts::of(200, &headers(&[&format!("cache-control: {control}"), "etag: \"x\""]), AT, AT)
        };
        let (one, two) = (of("max-age=60"), of("max-age=60"));
        assert!(Arc::ptr_eq(&one.said, &two.said));
        assert!(!Arc::ptr_eq(&one.said, &of("max-age=61").said));
        (0..100).for_each(|age| drop(of(&format!("max-age={age}"))));
        assert_eq!(known(), KNOWN);
        assert!(!Arc::ptr_eq(&one.said, &of("max-age=60").said), "the oldest gives way");
        let (before, long) = (known(), format!("max-age=60, x={}", "y".repeat(LONGEST)));
        assert!(!Arc::ptr_eq(&of(&long).said, &of(&long).said) && known() == before);
    }

    #[test]
    fn what_lets_one_origin_in_is_not_taken_for_what_lets_in_all() {
        let of = |allowed: &str| {
            let lines = ["cache-control: max-age=60", &format!("access-control-allow-origin: {allowed}")];
            ResponseFacts::of(200, &headers(&lines), AT, AT)
        };
        let (all, one, other) = (of("*"), of("https://a.example"), of("https://b.example"));
        assert!(one.vary.names(&http::header::ORIGIN) && !all.vary.names(&http::header::ORIGIN));
        assert!(Arc::ptr_eq(&one.said, &other.said), "many that are let in, one at a time, take one place");
        assert!(!of(" * ").vary.names(&http::header::ORIGIN));
    }

    proptest! {
        /// Fields are seldom alike in all but one thing: here they often are.
        #[test]
        fn what_is_remembered_is_what_would_be_read(
            responses in prop::collection::vec(
                (
                    prop_oneof![Just(200u16), Just(206), Just(404)],
                    prop::collection::vec(
                        (
                            prop_oneof![
                                Just("cache-control"), Just("cdn-cache-control"), Just("larder-cache-control"),
                                Just("vary"), Just("content-language"), Just("content-encoding"), Just("set-cookie"),
                                Just("access-control-allow-origin"), Just("cache-groups"), Just("no-vary-search"), Just("content-range"), Just("pragma"),
                                Just("expires"), Just("age"), Just("date"), Just("etag"), Just("last-modified"),
                            ],
                            prop_oneof![
                                Just("max-age=1"), Just("private"), Just("no-store, max-age=1"), Just("*"),
                                Just("gzip"), Just("en"), Just("\"a\""), Just("params"), Just("bytes 0-1/2"), Just(""),
                            ],
                        ),
                        0..4,
                    ),
                ),
                1..40,
            ),
        ) {
            for (status, lines) in responses {
                let mut map = HeaderMap::new();
                for (name, value) in lines {
                    map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
                }
                let remembered = ResponseFacts::of(status, &map, AT, AT);
                LATELY.with_borrow_mut(Lately::clear);
                prop_assert_eq!(&remembered, &ResponseFacts::of(status, &map, AT, AT));
                // Again, so that there is something to be confused with.
                LATELY.with_borrow_mut(Lately::clear);
                let _one = ResponseFacts::of(status, &map, AT, AT);
            }
        }
    }
}
