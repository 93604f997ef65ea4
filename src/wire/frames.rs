//! The frames of a client's HTTP/2 connection, as far as they tell where a request's head begins and ends.
//!
//! Knows the nine bytes before each frame (RFC 9113 §4.1), and which bytes of a payload are a head's packed fields:
//! those are looked at by who can read them. A head is a HEADERS frame and the CONTINUATIONs behind it, and nothing
//! else may come between (§4.3): while one is on its way the whole connection waits for it.
//! Must not know: time, what a head says, or whether the frames make sense: that is for who reads them.

use super::hpack::Fields;

/// Bytes before the first frame (§3.4).
const PREFACE: u32 = 24;
/// Bytes before each frame's payload.
const HEAD: usize = 9;
/// Types of frames (§6.2, §6.10), and the flag that says that it holds a head's last part.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// What stands before the fields of a HEADERS frame: a byte that says how much padding is behind them, and five on
/// what goes before what (§6.2).
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: u32 = 5;

/// What has been seen of a connection.
#[derive(Debug)]
pub struct Frames {
    /// What there is of the next frame's first bytes.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of a payload that are still to come.
    left: u32,
    /// Heads that have begun, and whether the last of them is on its way.
    begun: u64,
    open: bool,
    /// The payload that is on its way is the last of a head.
    last: bool,
    /// Of that payload: how it is told how much padding there is, what is to come before the fields, and of them.
    padded: bool,
    before: u32,
    /// What the stream is said to depend on, as far as that has come.
    depends: u32,
    fields_left: u32,
    fields: Fields,
}

impl Default for Frames {
    /// Of a connection of which nothing has been seen.
    fn default() -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            left: PREFACE,
            begun: 0,
            open: false,
            last: false,
            padded: false,
            before: 0,
            depends: 0,
            fields_left: 0,
            fields: Fields::default(),
        }
    }
}

impl Frames {
    /// Looks at what has come. A `:path` that is none is altered so that it is refused.
    pub fn watch(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self.left {
                0 => self.take_head(bytes),
                left => bytes.len().min(left as usize),
            };
            if self.left > 0 && self.have == 0 {
                let (payload, _) = bytes.split_at_mut(taken);
                self.look_inside(payload);
                self.left = self.left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
            } else if self.have == HEAD {
                (self.have, self.left) = (0, self.length());
                self.begin_payload();
            }
            if self.left == 0 && self.have == 0 && self.last {
                (self.open, self.last) = (false, false);
                self.fields.end();
            }
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    /// §6.2, §6.10: where the fields of the frame whose head is whole begin and end.
    fn begin_payload(&mut self) {
        let [_, _, _, kind, flags, ..] = self.head;
        let first = kind == HEADERS;
        self.padded = first && flags & PADDED != 0;
        (self.before, self.depends) = (u32::from(self.padded), 0);
        if first && flags & PRIORITY != 0 {
            self.before += PRIORITY_BYTES;
        }
        self.fields_left = match kind {
            HEADERS | CONTINUATION => self.left.saturating_sub(self.before),
            _ => 0,
        };
    }

    /// A piece of a frame's payload.
    fn look_inside(&mut self, payload: &mut [u8]) {
        let before = payload.len().min(self.before as usize);
        if let Some(padding) = payload.first()
            && std::mem::take(&mut self.padded)
        {
            self.fields_left = self.fields_left.saturating_sub(u32::from(*padding));
        }
        for byte in payload.iter().take(before) {
            // The four bytes before the last, where there is a priority at all.
            if (2..=PRIORITY_BYTES).contains(&self.before) {
                self.depends = self.depends << 8 | u32::from(*byte);
            }
            self.before -= 1;
            if self.before == 0 && self.depends_on_itself() {
                self.fields_left = 0;
            }
        }
        let here = (payload.len() - before).min(self.fields_left as usize);
        if let Some(fields) = payload.get_mut(before..before + here) {
            self.fields.watch(fields);
            self.fields_left = self.fields_left.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
        }
    }

    /// RFC 7540 §5.3.1: no stream depends on itself. h2 resets it without a look at its fields, so none of them is in the
    /// table from which later ones are taken.
    fn depends_on_itself(&self) -> bool {
        let [.., flags, one, two, three, four] = self.head;
        let stream = u32::from_be_bytes([one, two, three, four]);
        flags & PRIORITY != 0 && (self.depends ^ stream) & 0x7fff_ffff == 0
    }

    /// The number of the head that is on its way, if one is.
    pub fn head(&self) -> Option<u64> {
        self.open.then_some(self.begun)
    }

    /// Takes what there is of a frame's first bytes; how much.
    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let had = self.have;
        for (slot, byte) in self.head.iter_mut().skip(had).zip(bytes) {
            *slot = *byte;
            self.have += 1;
        }
        let [_, _, _, kind, flags, ..] = self.head;
        if had < 4 && self.have >= 4 && kind == HEADERS && !self.open {
            (self.begun, self.open) = (self.begun + 1, true);
        }
        if self.have == HEAD {
            self.last = self.open && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        }
        self.have - had
    }

    fn length(&self) -> u32 {
        let [high, middle, low, ..] = self.head;
        u32::from_be_bytes([0, high, middle, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        // A payload that looks like the beginning of a head.
        [&size[1..], &[kind, flags, 0, 0, 0, 1], &vec![HEADERS; length]].concat()
    }

    #[test]
    fn a_head_is_open_from_its_first_frames_type_to_its_last_byte_however_it_comes() {
        // Each row: frames, and the number of the head that is open after each of them.
        let rows: [&[(Vec<u8>, Option<u64>)]; 6] = [
            &[(frame(HEADERS, END_HEADERS, 20), None), (frame(HEADERS, END_HEADERS | 1, 0), None)],
            &[
                (frame(HEADERS, 1, 20), Some(1)),
                (frame(CONTINUATION, 0, 0), Some(1)),
                (frame(CONTINUATION, 4, 7), None),
            ],
            &[(frame(DATA, END_HEADERS, 70_000), None), (frame(HEADERS, 0, 0), Some(1))],
            &[
                (frame(HEADERS, 0, 1), Some(1)),
                (frame(CONTINUATION, 4, 0), None),
                (frame(HEADERS, 0, 1), Some(2)),
            ],
            // Not allowed, and told by who reads it: the head is not over by it.
            &[(frame(HEADERS, 0, 1), Some(1)), (frame(DATA, 4, 1), Some(1)), (frame(HEADERS, 4, 1), None)],
            &[(frame(CONTINUATION, 4, 9), None), (frame(CONTINUATION, 0, 9), None)],
        ];
        for row in rows {
            for piece in [1, 2, 5, 9, 4096, usize::MAX] {
                let mut frames = Frames::default();
                frames.watch(&mut [0xff; PREFACE as usize]);
                for (number, (bytes, want)) in row.iter().enumerate() {
                    bytes.clone().chunks_mut(piece.min(bytes.len())).for_each(|piece| frames.watch(piece));
                    assert_eq!(frames.head(), *want, "{number} of {row:?}, {piece} at a time");
                }
            }
        }
    }

    #[test]
    fn a_head_has_begun_with_its_type_and_has_not_ended_before_its_last_byte() {
        let (mut frames, mut head) = (Frames::default(), frame(HEADERS, END_HEADERS, 3));
        frames.watch(&mut [0xff; PREFACE as usize]);
        let open: Vec<_> = head
            .iter_mut()
            .map(|byte| {
                frames.watch(std::slice::from_mut(byte));
                frames.head().is_some()
            })
            .collect();
        assert_eq!(open, [false, false, false, true, true, true, true, true, true, true, true, false]);
    }

    #[test]
    fn a_stream_that_depends_on_itself_leaves_no_name_behind() {
        // Indexed: `:path` by its static place, then by that of the newest entry.
        let (first, second) = ([0x44, 2, b'/', b'a'], [0x7e, 2, b'/', b'#']);
        for (depends, want) in [(1, b'#'), (3, b'>')] {
            let block = |flags, before: &[u8], fields: &[u8]| {
                let length = u8::try_from(before.len() + fields.len()).unwrap();
                [&[0, 0, length, HEADERS, flags | END_HEADERS, 0, 0, 0, 1], before, fields].concat()
            };
            let mut bytes = block(PADDED | PRIORITY, &[0, 0, 0, 0, depends, 9], &first);
            let after = block(0, &[], &second);
            for piece in [1, usize::MAX] {
                let mut frames = Frames::default();
                frames.watch(&mut [0xff; PREFACE as usize]);
                let whole = bytes.len();
                bytes.chunks_mut(piece.min(whole)).for_each(|piece| frames.watch(piece));
                let mut after = after.clone();
                frames.watch(&mut after);
                assert_eq!(after.last(), Some(&want), "{depends}");
            }
        }
    }
}
