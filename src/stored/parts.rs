//! Parts of a representation: what is held of it when not all is (RFC 9111 §3.3, §3.4).
//!
//! Knows how parts of one and the same representation are put together, what is missing between
//! them, and how many there may be. That they are of the same representation is for the caller to
//! have made sure (RFC 9110 §15.3.7.3: "only ... if they all have in common the same strong
//! validator").
//! Must not know: fields, validators, who asks.

use bytes::Bytes;

use crate::apart;
use crate::fields::range::{ContentRange, Span};
use crate::pieces;

/// Pieces that one response may consist of; beyond it the smallest is given up. Whoever reads a file
/// in small jumps all over it gains little from a cache, and each piece costs memory of its own.
pub const MOST_PIECES: usize = 64;

/// What is held of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Some of it.
    Parts(Box<Parts>),
}

/// Some of a representation: never nothing, never all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Length of the whole.
    length: u64,
    /// In order; they do not overlap, but may touch.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    first: u64,
    bytes: Bytes,
}

impl Piece {
    /// The first byte after it.
    fn end(&self) -> u64 {
        self.first.saturating_add(self.bytes.len() as u64)
    }

    /// What of it lies from `start` on and before `end`.
    fn between(&self, start: u64, end: u64) -> Option<Self> {
        let (start, end) = (start.max(self.first), end.min(self.end()));
        if start >= end {
            return None;
        }
        let at = |offset: u64| usize::try_from(offset.saturating_sub(self.first)).ok();
        let range = at(start)?..at(end)?;
        // Both lie within the piece.
        Some(Self { first: start, bytes: self.bytes.slice(range) })
    }
}

impl Content {
    /// The bytes of a whole one.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Parts(_) => None,
        }
    }

    /// All that is held of it.
    pub fn bodies(&self) -> impl Iterator<Item = &Bytes> {
        let parts: &[Piece] = if let Self::Parts(parts) = self { &parts.pieces } else { &[] };
        self.whole().into_iter().chain(parts.iter().map(|piece| &piece.bytes))
    }

    /// Length of the representation, not of what is held of it.
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.length,
        }
    }

    /// What a 206 with the first of the parts would say; `None` for the whole.
    pub fn range(&self) -> Option<ContentRange> {
        let Self::Parts(parts) = self else { return None };
        let piece = parts.pieces.first()?;
        let span = Span { first: piece.first, last: piece.end().saturating_sub(1) };
        Some(ContentRange { span: Some(span), length: Some(parts.length) })
    }

    /// Bytes held.
    pub fn held(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.held(),
        }
    }

    /// Bytes of memory that these take.
    pub fn weight(&self) -> usize {
        match self {
            Self::Whole(bytes) => pieces::of(bytes.len()),
            Self::Parts(parts) => {
                parts.pieces.iter().map(|piece| pieces::of(piece.bytes.len())).fold(0, usize::saturating_add)
            }
        }
    }

    /// How many pieces of memory hold it.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Whole(_) => 1,
            Self::Parts(parts) => parts.pieces.len(),
        }
    }

    /// The bytes of a span, in order; `None` where not all of them are held.
    pub fn cut(&self, span: Span) -> Option<Vec<Bytes>> {
        match self {
            Self::Whole(bytes) => {
                let at = |offset: u64| usize::try_from(offset).ok().filter(|at| *at <= bytes.len());
                let range = at(span.first)?..at(span.end())?;
                (range.start <= range.end).then(|| vec![bytes.slice(range)])
            }
            Self::Parts(parts) => parts.cut(span),
        }
    }
}

impl Parts {
    /// One piece that begins at `first` of a representation of `length` bytes; all of it is a
    /// [`Content::Whole`]. `None` where it is empty or does not fit.
    pub fn of(length: u64, first: u64, bytes: Bytes) -> Option<Content> {
        let end = first.checked_add(bytes.len() as u64)?;
        if bytes.is_empty() || end > length {
            return None;
        }
        if bytes.len() as u64 == length {
            return Some(Content::Whole(bytes));
        }
        Some(Content::Parts(Box::new(Self { length, pieces: vec![Piece { first, bytes }] })))
    }

    /// From what [`Self::list`] gave; `None` where it is nothing that this type could hold.
    pub(super) fn from_list(length: u64, list: Vec<(u64, Bytes)>) -> Option<Self> {
        let pieces: Vec<_> = list.into_iter().map(|(first, bytes)| Piece { first, bytes }).collect();
        let ends = pieces.iter().map(|piece| piece.first.checked_add(piece.bytes.len() as u64));
        let mut before = 0;
        for (piece, end) in pieces.iter().zip(ends) {
            if piece.bytes.is_empty() || piece.first < before {
                return None;
            }
            before = end?;
        }
        let parts = Self { length, pieces };
        let some = (1..=MOST_PIECES).contains(&parts.pieces.len()) && before <= length && !parts.is_all();
        some.then_some(parts)
    }

    /// Each piece and where it begins, in order; for writing down.
    pub(super) fn list(&self) -> impl ExactSizeIterator<Item = (u64, &Bytes)> {
        self.pieces.iter().map(|piece| (piece.first, &piece.bytes))
    }

    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    /// Length of the whole.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// With one more piece, which counts where it overlaps what is held. `None` where it does not fit.
    pub fn with(&self, first: u64, bytes: Bytes) -> Option<Content> {
        let new = Piece { first, bytes };
        let end = first.checked_add(new.bytes.len() as u64)?;
        if new.bytes.is_empty() || end > self.length {
            return None;
        }
        let before = self.pieces.iter().filter_map(|piece| piece.between(0, first));
        let after = self.pieces.iter().filter_map(|piece| piece.between(end, u64::MAX));
        let pieces: Vec<Piece> = before.chain([new]).chain(after).collect();
        let mut parts = Self { length: self.length, pieces };
        if parts.is_all() {
            let all: Vec<Bytes> = parts.pieces.into_iter().map(|piece| piece.bytes).collect();
            return Some(Content::Whole(apart::gather(&all)));
        }
        parts.bound();
        Some(Content::Parts(Box::new(parts)))
    }

    /// The smallest span that holds all that is missing of `span`; `None` where nothing is.
    pub fn missing(&self, span: Span) -> Option<Span> {
        let mut first = span.first;
        for piece in &self.pieces {
            if piece.first <= first && piece.end() > first {
                first = piece.end();
            }
        }
        if first > span.last {
            return None;
        }
        // Backwards from the end in the same way; `last` cannot pass `first`, which is missing.
        let mut end = span.end();
        for piece in self.pieces.iter().rev() {
            if piece.first < end && piece.end() >= end {
                end = piece.first;
            }
        }
        Some(Span { first, last: end.saturating_sub(1) })
    }

    fn cut(&self, span: Span) -> Option<Vec<Bytes>> {
        if self.missing(span).is_some() {
            return None;
        }
        let within = self.pieces.iter().filter_map(|piece| piece.between(span.first, span.end()));
        Some(within.map(|piece| piece.bytes).collect())
    }

    fn is_all(&self) -> bool {
        self.length > 0 && self.missing(Span { first: 0, last: self.length.saturating_sub(1) }).is_none()
    }

    /// Gives up the smallest pieces above the number.
    fn bound(&mut self) {
        while self.pieces.len() > MOST_PIECES {
            let smallest = self.pieces.iter().enumerate().min_by_key(|(_, piece)| piece.bytes.len());
            let Some((at, _)) = smallest else { return };
            self.pieces.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: &[u8] = b"0123456789";

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    /// The bytes of [`ALL`] that the spans name.
    fn holding(spans: &[(u64, u64)]) -> Content {
        let piece = |(first, last): (u64, u64)| Bytes::from_static(&ALL[first as usize..=last as usize]);
        let mut content = Parts::of(10, spans[0].0, piece(spans[0])).unwrap();
        for one in &spans[1..] {
            let Content::Parts(parts) = &content else { panic!("whole too early") };
            content = parts.with(one.0, piece(*one)).unwrap();
        }
        content
    }

    fn text(content: &Content, first: u64, last: u64) -> Option<String> {
        let bytes = content.cut(span(first, last))?.concat();
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_missing_is_asked_for_in_one_piece() {
        for (held, asked, missing) in [
            (&[(0, 4)][..], (0, 9), Some((5, 9))),
            (&[(0, 4)], (2, 4), None),
            (&[(0, 4)], (3, 7), Some((5, 7))),
            (&[(5, 9)], (0, 9), Some((0, 4))),
            (&[(5, 9)], (9, 9), None),
            (&[(2, 3), (6, 7)], (0, 9), Some((0, 9))),
            (&[(0, 1), (4, 5), (8, 9)], (0, 9), Some((2, 7))),
            (&[(0, 1), (2, 3)], (0, 3), None),
            (&[(2, 3), (0, 1)], (1, 4), Some((4, 4))),
            (&[(4, 5)], (0, 1), Some((0, 1))),
        ] {
            let Content::Parts(parts) = holding(held) else { panic!() };
            let found = parts.missing(span(asked.0, asked.1)).map(|span| (span.first, span.last));
            assert_eq!(found, missing, "{held:?} {asked:?}");
        }
    }

    #[test]
    fn pieces_are_put_together_and_all_of_them_are_the_whole() {
        let content = holding(&[(0, 4), (7, 9)]);
        assert_eq!((content.length(), content.held(), content.pieces()), (10, 8, 2));
        assert_eq!(text(&content, 1, 3).as_deref(), Some("123"));
        assert_eq!(text(&content, 4, 7), None);
        assert_eq!(content.whole(), None);
        let said = ContentRange { span: Some(span(0, 4)), length: Some(10) };
        assert_eq!(content.range(), Some(said));
        let content = holding(&[(0, 4), (7, 9), (3, 7)]);
        assert_eq!(content, Content::Whole(Bytes::from_static(ALL)));
        assert_eq!(text(&content, 9, 9).as_deref(), Some("9"));
        assert_eq!(text(&content, 9, 10), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bytes = Bytes::from_static(b"ab");
        assert_eq!(Parts::of(10, 9, bytes.clone()), None);
        assert_eq!(Parts::of(10, u64::MAX, bytes.clone()), None);
        assert_eq!(Parts::of(10, 0, Bytes::new()), None);
        assert_eq!(Parts::of(2, 0, bytes.clone()), Some(Content::Whole(bytes.clone())));
        let Content::Parts(parts) = holding(&[(0, 4)]) else { panic!() };
        assert_eq!(parts.with(9, bytes), None);
    }

    #[test]
    fn of_too_many_pieces_the_smallest_is_given_up() {
        let length = 10_000;
        let Some(Content::Parts(mut parts)) = Parts::of(length, 0, Bytes::from_static(b"a")) else {
            panic!()
        };
        for nth in 1..=MOST_PIECES as u64 {
            let Some(Content::Parts(more)) = parts.with(nth * 10, Bytes::from_static(b"ab")) else {
                panic!()
            };
            parts = more;
        }
        assert_eq!(parts.pieces.len(), MOST_PIECES);
        assert_eq!(parts.missing(span(0, 0)), Some(span(0, 0)), "the one of one byte");
    }

    #[test]
    fn a_list_that_no_parts_could_give_is_refused() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        for (length, list) in [
            (10, vec![]),
            (10, vec![(0, bytes(""))]),
            (10, vec![(0, bytes("abc")), (2, bytes("c"))]),
            (10, vec![(5, bytes("a")), (0, bytes("b"))]),
            (10, vec![(9, bytes("ab"))]),
            (2, vec![(0, bytes("ab"))]),
            (10, vec![(u64::MAX, bytes("ab"))]),
            (10_000, (0..=MOST_PIECES as u64).map(|nth| (nth * 2, bytes("a"))).collect()),
        ] {
            assert_eq!(Parts::from_list(length, list.clone()), None, "{list:?} of {length}");
        }
    }

    proptest! {
        #[test]
        fn parts_hold_what_was_put_in_and_nothing_else(
            spans in prop::collection::vec((0..40u64, 1..15u64), 1..12), first in 0..40u64, more in 0..20u64,
        ) {
            let all: Vec<u8> = (0..40).collect();
            let cut = |first: u64, end: u64| Bytes::copy_from_slice(&all[first as usize..end as usize]);
            let mut held = [false; 40];
            let mut content = None;
            for (first, count) in spans {
                let end = (first + count).min(40);
                let next = match &content {
                    None => Parts::of(40, first, cut(first, end)),
                    Some(Content::Parts(parts)) => parts.with(first, cut(first, end)),
                    whole => whole.clone(),
                };
                held[first as usize..end as usize].fill(true);
                content = next;
            }
            let content = content.unwrap();
            prop_assert_eq!(content.held(), held.iter().filter(|held| **held).count() as u64);
            prop_assert_eq!(content.whole().is_some(), held.iter().all(|held| *held));
            let asked = span(first, (first + more).min(39));
            let wanted: Vec<usize> = (asked.first as usize..=asked.last as usize).collect();
            match content.cut(asked) {
                Some(bytes) => prop_assert_eq!(bytes.concat(), &all[asked.first as usize..=asked.last as usize]),
                None => prop_assert!(wanted.iter().any(|at| !held[*at])),
            }
            if let Content::Parts(parts) = &content {
                let list: Vec<_> = parts.list().map(|(first, bytes)| (first, bytes.clone())).collect();
                prop_assert_eq!(Parts::from_list(40, list), Some(Parts::clone(parts)));
                let missing: Vec<usize> = wanted.iter().copied().filter(|at| !held[*at]).collect();
                let expected = missing.first().zip(missing.last()).map(|(a, b)| span(*a as u64, *b as u64));
                prop_assert_eq!(parts.missing(asked), expected);
            }
        }
    }
}
