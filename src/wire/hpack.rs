//! The fields of an HTTP/2 head as they are packed (RFC 7541), read as far as it takes to find a `#` in a `:path`.
//!
//! RFC 9113 §8.3.1: `:path` is a path and a query; a fragment is part of neither. The library that makes a URI of
//! it cuts a fragment off without a word, before anybody could refuse it. So what goes by is altered where it
//! holds one: `#` becomes `>`, which is as long in either spelling and which the library does refuse, and the
//! stream is reset as one whose request is malformed (§8.1.1), and no other with it.
//! Where this loses the thread, the peer has broken RFC 7541, and h2 ends the connection (§4.3).
//! Knows how fields are packed. Must not know: what they mean, or frames.

use std::collections::VecDeque;

/// Bytes of a dynamic table at most: what we announce, by saying nothing (RFC 9113 §6.5.2).
const TABLE: u32 = 4096;
/// What an entry costs beside its name and value (RFC 7541 §4.1).
const ENTRY: u32 = 32;
/// Bytes of an integer at most behind its first: more is a fault to h2.
const BYTES: u32 = 4;

/// The name that is looked for.
const PATH: &[u8] = b":path";
/// What may not be in its value, and what it becomes.
const FRAGMENT: u8 = b'#';
const REFUSED: u8 = b'>';

/// Lengths of the names of the static table (RFC 7541 appendix A), the first being number 1.
const NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];
/// Where `:path` stands in it.
const STATIC_PATH: std::ops::RangeInclusive<u32> = 4..=5;

/// How many symbols have a code of so many bits (RFC 7541 appendix B). The codes are canonical: those of a length
/// follow one another in the order of their symbols, and the first follows the last of the shorter ones.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];
/// The symbols in the order of their codes, as far as anything is asked of them.
const SYMBOLS: &[u8] =
    b"012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#>";
/// The most bits of a code.
const LONGEST: u32 = 30;

/// A text that is unpacked bit by bit.
#[derive(Debug, Default)]
struct Huffman {
    bits: u64,
    have: u32,
}

impl Huffman {
    /// One more byte of the text.
    fn push(&mut self, byte: u8) {
        self.bits = self.bits << 8 | u64::from(byte);
        self.have += 8;
    }

    /// The next symbol's place in the order of the codes, where all its bits have come. What is left of a text at
    /// its end is ones, of which no code consists (§5.2).
    fn next(&mut self) -> Option<u32> {
        let (mut first, mut place, mut length) = (0_u64, 0, 0);
        for (bits, count) in CODES {
            if bits > self.have {
                return None;
            }
            first <<= bits - length;
            length = bits;
            let code = self.bits >> (self.have - bits) & ((1 << bits) - 1);
            if code < first + u64::from(count) {
                self.have -= bits;
                return u32::try_from(code.wrapping_sub(first)).ok().map(|number| place + number);
            }
            first += u64::from(count);
            place += count;
        }
        // No code at all: h2 ends the connection. Nothing is kept that could grow.
        self.have = self.have.min(LONGEST);
        None
    }
}

/// An entry of the dynamic table: only what the finding needs.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    name: u32,
    size: u32,
    path: bool,
}

/// What an integer is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    /// A whole field's place in the tables.
    Field,
    /// The place of its name, 0 where that is spelled out.
    Name,
    /// The size of the dynamic table.
    Size,
    /// The bytes of a text.
    Text,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A field's first byte.
    Field,
    /// A text's first byte.
    Text,
    /// More of an integer.
    More { what: Number, so_far: u32, bytes: u32 },
    /// So many bytes of a text.
    Inside(u32),
    /// Nothing that could be understood.
    Lost,
}

/// The packed fields of a connection.
#[derive(Debug)]
pub(super) struct Fields {
    at: At,
    /// The newest first.
    table: VecDeque<Entry>,
    size: u32,
    limit: u32,
    /// Of the field that is on its way: it enters the table, what is known of it, and whether this is its value.
    enters: bool,
    entry: Entry,
    value: bool,
    /// Of the text that is on its way.
    huffman: Option<Huffman>,
    length: u32,
    /// How much of `:path` its beginning is; `None`: it is another.
    alike: Option<usize>,
}

impl Default for Fields {
    /// Of a connection on which nothing has come.
    fn default() -> Self {
        Self {
            at: At::Field,
            table: VecDeque::new(),
            size: 0,
            limit: TABLE,
            enters: false,
            entry: Entry::default(),
            value: false,
            huffman: None,
            length: 0,
            alike: None,
        }
    }
}

impl Fields {
    /// Looks at more of a head, and alters a `:path` that holds a fragment.
    pub(super) fn watch(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some(first) = rest.first_mut() {
            let taken = match self.at {
                At::Lost => return,
                At::Field => self.begin_field(*first),
                At::Text => self.begin_text(*first),
                At::More { what, so_far, bytes } => self.go_on(*first, what, so_far, bytes),
                At::Inside(left) => {
                    let here = (left as usize).min(rest.len());
                    let (text, _) = rest.split_at_mut(here);
                    self.inside(text, left)
                }
            };
            rest = rest.get_mut(taken..).unwrap_or_default();
        }
    }

    /// The head is whole.
    pub(super) fn end(&mut self) {
        if !matches!(self.at, At::Field) {
            self.at = At::Lost;
        }
    }

    /// §6: what kind of field this is.
    fn begin_field(&mut self, byte: u8) -> usize {
        self.entry = Entry::default();
        (self.enters, self.value) = (byte & 0xc0 == 0x40, false);
        let (what, prefix) = match byte {
            0x80.. => (Number::Field, 7),
            0x40..=0x7f => (Number::Name, 6),
            0x20..=0x3f => (Number::Size, 5),
            _ => (Number::Name, 4),
        };
        self.integer(byte, what, prefix)
    }

    /// §5.2
    fn begin_text(&mut self, byte: u8) -> usize {
        self.huffman = (byte & 0x80 != 0).then(Huffman::default);
        (self.length, self.alike) = (0, Some(0));
        self.integer(byte, Number::Text, 7)
    }

    /// §5.1: an integer's first byte.
    fn integer(&mut self, byte: u8, what: Number, prefix: u32) -> usize {
        let mask = (1 << prefix) - 1;
        match u32::from(byte) & mask {
            full if full == mask => self.at = At::More { what, so_far: full, bytes: 0 },
            number => self.take(what, number),
        }
        1
    }

    /// §5.1: what follows it.
    fn go_on(&mut self, byte: u8, what: Number, so_far: u32, bytes: u32) -> usize {
        let so_far = so_far + (u32::from(byte & 0x7f) << (7 * bytes));
        match bytes + 1 {
            _ if byte & 0x80 == 0 => self.take(what, so_far),
            BYTES => self.at = At::Lost,
            bytes => self.at = At::More { what, so_far, bytes },
        }
        1
    }

    fn take(&mut self, what: Number, number: u32) {
        self.at = match what {
            Number::Field => At::Field,
            Number::Name if number == 0 => At::Text,
            Number::Name => match self.named(number) {
                Some(entry) => {
                    (self.entry, self.value) = (entry, true);
                    At::Text
                }
                None => At::Lost,
            },
            Number::Size if number > TABLE => At::Lost,
            Number::Size => {
                self.limit = number;
                self.make_room(0);
                At::Field
            }
            Number::Text if number == 0 => {
                self.end_text();
                return;
            }
            Number::Text => At::Inside(number),
        };
    }

    /// §2.3.3: what name the entry of this place has.
    fn named(&self, number: u32) -> Option<Entry> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        match NAMES.get(place) {
            Some(length) => {
                Some(Entry { name: u32::from(*length), size: 0, path: STATIC_PATH.contains(&number) })
            }
            None => self.table.get(place - NAMES.len()).copied(),
        }
    }

    /// A piece of a text of which so much was to come.
    fn inside(&mut self, text: &mut [u8], left: u32) -> usize {
        let taken = text.len();
        match (&mut self.huffman, self.value && !self.entry.path && !self.enters) {
            // Neither what it says nor how long it is unpacked matters.
            (_, true) => {}
            (Some(_), false) => text.iter_mut().for_each(|byte| *byte = self.unpack(*byte)),
            (None, false) => {
                self.length += u32::try_from(taken).unwrap_or(u32::MAX);
                if self.value && self.entry.path {
                    text.iter_mut().filter(|byte| **byte == FRAGMENT).for_each(|byte| *byte = REFUSED);
                } else if !self.value {
                    text.iter().for_each(|byte| self.compare(*byte));
                }
            }
        }
        match left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)) {
            0 => self.end_text(),
            left => self.at = At::Inside(left),
        }
        taken
    }

    /// One byte of a packed text; what it becomes.
    fn unpack(&mut self, byte: u8) -> u8 {
        let mut becomes = byte;
        let Some(mut huffman) = self.huffman.take() else { return byte };
        huffman.push(byte);
        while let Some(place) = huffman.next() {
            self.length += 1;
            let symbol = SYMBOLS.get(place as usize).copied();
            if !self.value {
                self.compare(symbol.unwrap_or_default());
            } else if self.entry.path && symbol == Some(FRAGMENT) {
                // The codes of the two differ in their last bit, which has come with this byte.
                becomes |= 1 << huffman.have;
            }
        }
        self.huffman = Some(huffman);
        becomes
    }

    /// One byte of a name.
    fn compare(&mut self, byte: u8) {
        self.alike = self.alike.filter(|at| PATH.get(*at) == Some(&byte)).map(|at| at + 1);
    }

    fn end_text(&mut self) {
        self.huffman = None;
        if self.value {
            if self.enters {
                self.enter();
            }
            self.at = At::Field;
        } else {
            self.entry = Entry { name: self.length, size: 0, path: self.alike == Some(PATH.len()) };
            self.value = true;
            self.at = At::Text;
        }
    }

    /// §4.4: a field that does not fit empties the table.
    fn enter(&mut self) {
        let size = ENTRY.saturating_add(self.entry.name).saturating_add(self.length);
        self.make_room(size);
        if size <= self.limit {
            self.table.push_front(Entry { size, ..self.entry });
            self.size += size;
        }
    }

    /// §4.3, §4.4
    fn make_room(&mut self, size: u32) {
        while self.size.saturating_add(size) > self.limit {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size = self.size.saturating_sub(oldest.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields that come before, where a name stands or how it is spelled, and whether it is a path's.
    type Row = (Vec<Vec<u8>>, Result<u8, &'static str>, bool);

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
    }

    /// In as few bits as there are: the codes of those symbols of which anything is asked.
    fn packed(text: &str) -> Vec<u8> {
        let (mut bits, mut codes, mut code, mut length) = (String::new(), Vec::new(), 0_u32, 0);
        for (long, count) in CODES {
            code <<= long - length;
            length = long;
            for _ in 0..count {
                codes.push(format!("{code:0width$b}", width = long as usize));
                code += 1;
            }
        }
        text.bytes().for_each(|byte| bits += &codes[SYMBOLS.iter().position(|s| *s == byte).unwrap()]);
        bits += &"1".repeat((8 - bits.len() % 8) % 8);
        let bits: Vec<_> = bits.chars().collect();
        bits.chunks(8)
            .map(|eight| u8::from_str_radix(&eight.iter().collect::<String>(), 2).unwrap())
            .collect()
    }

    /// A text with its length, below 127 bytes.
    fn text(text: &str, huffman: bool) -> Vec<u8> {
        let (packed, flag) = if huffman { (packed(text), 0x80) } else { (text.as_bytes().to_vec(), 0) };
        [&[flag | u8::try_from(packed.len()).unwrap()], &packed[..]].concat()
    }

    /// A field: how it is kept, where its name stands or how it is spelled, and its value.
    fn field(kind: u8, name: Result<u8, &str>, value: &str, huffman: bool) -> Vec<u8> {
        // §5.1: what does not fit into the prefix stands behind it.
        let name = match name {
            Ok(place) if kind == 0x40 && place < 63 => vec![kind | place],
            Ok(place) if kind == 0x40 => vec![kind | 63, place - 63],
            Ok(place) if place < 15 => vec![kind | place],
            Ok(place) => vec![kind | 15, place - 15],
            Err(name) => [&[kind], &text(name, huffman)[..]].concat(),
        };
        [name, text(value, huffman)].concat()
    }

    #[test]
    fn the_table_is_as_long_as_the_peers() {
        // RFC 7541 C.3, C.4 (requests), C.5, C.6 (responses, in a table of 256 bytes): heads, and the table's size.
        let rows: [(u32, [(&str, u32); 3]); 4] = [
            (
                4096,
                [
                    ("828684410f7777772e6578616d706c652e636f6d", 57),
                    ("828684be58086e6f2d6361636865", 110),
                    ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", 164),
                ],
            ),
            (
                4096,
                [
                    ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57),
                    ("828684be5886a8eb10649cbf", 110),
                    ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 164),
                ],
            ),
            (
                256,
                [
                    (
                        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e17\
                  68747470733a2f2f7777772e6578616d706c652e636f6d",
                        222,
                    ),
                    ("4803333037c1c0bf", 222),
                    (
                        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41\
                  53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b207665727369\
                  6f6e3d31",
                        215,
                    ),
                ],
            ),
            (
                256,
                [
                    (
                        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97\
                  c8e9ae82ae43d3",
                        222,
                    ),
                    ("4883640effc1c0bf", 222),
                    (
                        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd\
                  5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                        215,
                    ),
                ],
            ),
        ];
        for (limit, heads) in rows {
            for piece in [1, 3, usize::MAX] {
                let mut fields = Fields { limit, ..Fields::default() };
                for (hex, size) in heads {
                    let (mut head, before) = (bytes(hex), bytes(hex));
                    let whole = head.len();
                    head.chunks_mut(piece.min(whole)).for_each(|piece| fields.watch(piece));
                    fields.end();
                    assert_eq!(
                        (fields.size, fields.table.iter().map(|entry| entry.size).sum()),
                        (size, size)
                    );
                    assert_eq!(head, before, "what is no fragment is as it was");
                }
            }
        }
    }

    #[test]
    fn a_fragment_in_a_path_is_altered_wherever_its_name_comes_from_and_nothing_else_is() {
        let dynamic = 62;
        for huffman in [false, true] {
            for kind in [0x00, 0x10, 0x40] {
                let rows: Vec<Row> = vec![
                    (vec![], Ok(4), true),
                    (vec![], Ok(5), true),
                    (vec![], Ok(1), false),
                    (vec![], Ok(51), false),
                    (vec![], Err(":path"), true),
                    (vec![], Err(":paths"), false),
                    (vec![], Err("x:path"), false),
                    (vec![], Err("path"), false),
                    (vec![field(0x40, Ok(4), "/a", huffman)], Ok(dynamic), true),
                    (vec![field(0x40, Err(":path"), "/a", huffman)], Ok(dynamic), true),
                    (vec![field(0x40, Err("x-place"), "/a#b", huffman)], Ok(dynamic), false),
                    (
                        vec![field(0x40, Ok(4), "/a", huffman), field(0x40, Err("x-a"), "#", huffman)],
                        Ok(dynamic + 1),
                        true,
                    ),
                    // The one whose name it was has left the table: RFC 7541 §4.3.
                    (
                        vec![
                            field(0x40, Ok(4), "/a", huffman),
                            vec![0x3f, 9],
                            field(0x40, Err("x-b"), "1", huffman),
                        ],
                        Ok(dynamic),
                        false,
                    ),
                ];
                for (before, name, path) in rows {
                    for (value, want) in
                        [("/q#f", "/q>f"), ("/", "/"), ("#", ">"), ("/?a#b##", "/?a>b>>"), ("", "")]
                    {
                        let want = if path { want } else { value };
                        let last = field(kind, name, value, huffman);
                        let head = [before.concat(), last].concat();
                        let expected = [before.concat(), field(kind, name, want, huffman)].concat();
                        for piece in [1, 2, usize::MAX] {
                            let mut fields = Fields::default();
                            let (mut came, whole) = (head.clone(), head.len());
                            came.chunks_mut(piece.min(whole)).for_each(|piece| fields.watch(piece));
                            assert_eq!(came, expected, "{kind:x} {name:?} {value} {huffman} by {piece}");
                            assert!(matches!(fields.at, At::Field), "{:?}", fields.at);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_path_is_one_in_a_later_head_and_behind_an_integer_of_many_bytes() {
        let mut fields = Fields::default();
        let mut first = field(0x40, Ok(4), "/a", true);
        fields.watch(&mut first);
        fields.end();
        let long = format!("/{}#", "a".repeat(400));
        // 402 bytes: 127, and 275 in two bytes of seven bits.
        let mut second = [&[0x40 | 62, 0x7f, 0x80 | (275 & 0x7f) as u8, 2], long.as_bytes()].concat();
        fields.watch(&mut second);
        assert!(second.ends_with(b"aa>"));
    }

    #[test]
    fn what_is_no_packed_field_is_left_alone() {
        // A place beyond the table; a size beyond what was announced; an integer without end; a name of no place.
        for hex in ["7e022f23", "3fe21f04022f23", "7fffffffffff7f", "40"] {
            let (mut fields, mut head) = (Fields::default(), bytes(hex));
            fields.watch(&mut head);
            fields.end();
            assert!(matches!(fields.at, At::Lost), "{hex}: {:?}", fields.at);
            let mut next = field(0x40, Ok(4), "/#", false);
            fields.watch(&mut next);
            assert_eq!((head, next), (bytes(hex), field(0x40, Ok(4), "/#", false)));
        }
    }
}
