//! Other forms of a stored body: encoded, or without the coding that the origin gave it.
//!
//! Knows one place for each form, filled at most once. They belong to the bytes: a response that a
//! 304 freshened shares them, another body has its own. Nothing here is written to the shared tier:
//! what is lost is made again.
//! Must not know: how a form is made, or for whom.

use std::mem::size_of;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::fields::content_coding::Coding;
use crate::pieces;

/// A form of a body other than the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Without the coding that it is stored in.
    Decoded,
    /// In this coding.
    Encoded(Coding),
}

/// The forms that have been made of one body. Of most bodies none is, and then there is next to
/// nothing.
#[derive(Debug, Default)]
pub struct Copies {
    made: OnceLock<Box<Places>>,
}

type Places = [OnceLock<Copy>; FORMS];

/// A form that was made, or why there is none to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copy {
    /// All of it.
    Made(Bytes),
    /// It would be no smaller than what is stored, or cannot be made of it.
    None,
}

/// The decoded one, and one for each coding.
const FORMS: usize = 1 + Coding::ALL.len();

impl Copy {
    /// Bytes of memory that it takes at most, where it is kept.
    pub fn weight(&self) -> usize {
        own().saturating_add(self.held())
    }

    fn held(&self) -> usize {
        match self {
            Self::Made(bytes) => pieces::of(bytes.len()),
            Self::None => 0,
        }
    }
}

impl Copies {
    /// The copy in this form, if it was tried already.
    pub fn get(&self, form: Form) -> Option<&Copy> {
        self.made.get()?.get(place(form))?.get()
    }

    /// Keeps a copy. Where two were made at once the first stays.
    pub fn keep(&self, form: Form, copy: Copy) {
        let made = self.made.get_or_init(Box::default);
        if let Some(place) = made.get(place(form)) {
            let _first_stays = place.set(copy);
        }
    }

    /// Bytes of memory that the copies take.
    pub fn weight(&self) -> usize {
        let Some(made) = self.made.get() else { return 0 };
        let held = |place: &OnceLock<Copy>| place.get().map_or(0, Copy::held);
        made.iter().map(held).fold(own(), usize::saturating_add)
    }
}

/// What is there as soon as there is one form.
const fn own() -> usize {
    pieces::counted::<Copies>() + pieces::of(size_of::<Places>())
}

fn place(form: Form) -> usize {
    match form {
        Form::Decoded => 0,
        Form::Encoded(coding) => 1 + coding as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_a_place_of_its_own_and_the_first_copy_stays() {
        let copies = Copies::default();
        let forms: Vec<_> =
            Coding::ALL.into_iter().map(Form::Encoded).chain([Form::Decoded]).enumerate().collect();
        for (nth, form) in &forms {
            assert_eq!(copies.get(*form), None);
            copies.keep(*form, Copy::Made(Bytes::from(vec![0; nth + 1])));
            copies.keep(*form, Copy::None);
        }
        for (nth, form) in &forms {
            assert_eq!(copies.get(*form), Some(&Copy::Made(Bytes::from(vec![0; nth + 1]))));
        }
        assert_eq!(copies.weight(), own() + 4 * 8 + 8);
    }

    #[test]
    fn what_could_not_be_made_is_remembered_and_weighs_nothing() {
        let copies = Copies::default();
        copies.keep(Form::Decoded, Copy::None);
        assert_eq!(copies.get(Form::Decoded), Some(&Copy::None));
        assert_eq!(copies.weight(), own());
        assert_eq!(Copies::default().weight(), 0, "of most bodies there is no other form");
    }
}
