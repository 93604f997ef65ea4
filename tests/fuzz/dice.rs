//! Chance from a number: the same number gives the same input, on every machine.
//!
//! Knows how words become a text, and how a text is damaged. Must not know: what is tested.

use http::{HeaderMap, HeaderName, HeaderValue};

/// SplitMix64: every seed gives a stream of its own.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of one input of one target.
    pub fn new(target: &str, number: u64) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(target.as_bytes(), number))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to just below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number with a liking for edges.
    pub fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => self.next() % 4,
            1 => self.next() % 1000,
            2 => *self.pick(&[0, 1, 255, 1 << 31, (1 << 31) - 1, u32::MAX.into(), u64::MAX, 1 << 63]),
            3 => 1 << self.below(64),
            _ => self.next() >> self.below(64),
        }
    }

    /// Up to `most` words in a row, damaged now and then.
    pub fn text(&mut self, words: &[&str], most: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..self.below(most + 1) {
            text.extend_from_slice(self.pick(words).as_bytes());
        }
        if self.one_in(2) {
            for _ in 0..=self.below(3) {
                self.damage(&mut text, words);
            }
        }
        text
    }

    /// One change anywhere.
    pub fn damage(&mut self, text: &mut Vec<u8>, words: &[&str]) {
        let at = self.below(text.len() + 1);
        match self.below(7) {
            0 => text.insert(at, self.next() as u8),
            1 if at < text.len() => text[at] = self.next() as u8,
            2 if at < text.len() => text[at] ^= 1 << self.below(8),
            3 if at < text.len() => drop(text.remove(at)),
            4 => text.truncate(at),
            5 => {
                let again = text[at..].to_vec();
                text.extend_from_slice(&again[..again.len().min(64)]);
            }
            _ => {
                let word = self.pick(words).as_bytes();
                text.splice(at..at, word.iter().copied());
            }
        }
    }

    /// Up to `lines` lines of a field.
    pub fn lines(&mut self, words: &[&str], lines: usize) -> Vec<HeaderValue> {
        (0..self.below(lines + 1)).map(|_| value(self.text(words, 12))).collect()
    }
}

/// What of the bytes a field value can hold; the rest becomes spaces.
pub fn value(mut bytes: Vec<u8>) -> HeaderValue {
    bytes
        .iter_mut()
        .filter(|byte| (**byte < 0x20 && **byte != b'\t') || **byte == 0x7f)
        .for_each(|byte| *byte = b' ');
    HeaderValue::from_bytes(&bytes).unwrap()
}

/// These lines of one field.
pub fn headers(name: &HeaderName, lines: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, line.clone());
    }
    headers
}
