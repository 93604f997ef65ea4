//! What the memory tier keeps under one key: the responses, and what is remembered of the key.
//!
//! Knows how a response is selected, how far a mark goes, and what all of it weighs.
//! Must not know: how resources are found, changed or given up.

use std::ops::Deref;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::clock::Timestamp;
use crate::pieces;
use crate::rules::{Normalize, NotStored};
use crate::stored::{CacheKey, StoredResponse};

/// What is stored under one key. Never changed: a change makes a new one that shares the responses. It is what moka holds,
/// and small: a piece of memory of its own would be one more that every hit waits for.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The responses, the most recent first.
    pub variants: Variants,
    /// By class; none where none has ever been set, which is so for most.
    pub(super) marks: Option<Arc<Marks>>,
    /// Bytes; no resource weighs more than moka can say.
    pub(super) weight: u32,
}

/// The responses of a resource. Most have one, which needs no list and says itself what its key is.
#[derive(Clone, Debug)]
pub enum Variants {
    /// There are marks alone, of this key.
    None(Arc<CacheKey>),
    /// This one.
    One(Arc<StoredResponse>),
    /// Several.
    Many(Arc<Several>),
}

/// Several responses of one key.
#[derive(Debug)]
pub struct Several {
    key: CacheKey,
    list: Box<[Arc<StoredResponse>]>,
}

impl Deref for Variants {
    type Target = [Arc<StoredResponse>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::None(_) => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(several) => &several.list,
        }
    }
}

impl<'a> IntoIterator for &'a Variants {
    type Item = &'a Arc<StoredResponse>;
    type IntoIter = std::slice::Iter<'a, Arc<StoredResponse>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Variants {
    /// These, all of this key.
    fn of(key: CacheKey, mut list: Vec<Arc<StoredResponse>>) -> Self {
        match (list.pop(), list.is_empty()) {
            (None, _) => Self::None(Arc::new(key)),
            (Some(one), true) => Self::One(one),
            (Some(last), false) => {
                // That of one of them, so that no other is held whose text nobody has counted.
                let key = last.key.clone();
                list.push(last);
                Self::Many(Arc::new(Several { key, list: list.into() }))
            }
        }
    }
}

/// A resource that is being put together.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) key: CacheKey,
    pub(super) variants: Vec<Arc<StoredResponse>>,
    pub(super) marks: Option<Arc<Marks>>,
}

/// A mark for each class.
type Marks = [Option<Mark>; Class::ALL.len()];

/// Which requests a mark is for: what makes a response uncacheable for one may not for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Without credentials.
    Plain,
    /// With `Authorization`, or with a `Cookie` that the route neither keys on nor ignores.
    Credentialed,
    /// With a field by which scripts choose what they want.
    Choosing,
    /// With both.
    CredentialedChoosing,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Credentialed, Self::Choosing, Self::CredentialedChoosing];

    /// The class of a request with or without these.
    pub const fn of(credentials: bool, choices: bool) -> Self {
        match (credentials, choices) {
            (false, false) => Self::Plain,
            (true, false) => Self::Credentialed,
            (false, true) => Self::Choosing,
            (true, true) => Self::CredentialedChoosing,
        }
    }

    /// Whether such a request carries credentials.
    pub const fn has_credentials(self) -> bool {
        matches!(self, Self::Credentialed | Self::CredentialedChoosing)
    }

    /// Whether such a request carries a field by which scripts choose.
    pub const fn chooses(self) -> bool {
        matches!(self, Self::Choosing | Self::CredentialedChoosing)
    }
}

/// What is remembered of a key until then, so that its requests do not wait in line for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) why: NotStored,
    pub(super) how: Marked,
    pub(super) until: Timestamp,
}

/// How far what is remembered of a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Hit-for-miss: its requests are known not to bring anything that may be stored, and go alone.
    Uncacheable,
    /// What one of its requests brought could not be shared; another may bring what can. So each that finds nobody
    /// fetching fetches for all, and nobody waits for what is then perhaps not for them.
    Unshared,
    /// What was brought could have been stored but for want of room: the next to ask is one too many to be sent on.
    Wanted,
}

impl Resource {
    /// The key; its hash led here, its text is what counts.
    pub fn key(&self) -> &CacheKey {
        match &self.variants {
            Variants::None(key) => key,
            Variants::One(one) => &one.key,
            Variants::Many(several) => &several.key,
        }
    }

    /// The response for a request with these fields: the most recent whose selecting fields match
    /// (§4.1).
    pub fn select(&self, headers: &HeaderMap, normalize: Normalize) -> Option<&Arc<StoredResponse>> {
        self.variants.iter().find(|variant| variant.is_for(headers, normalize))
    }

    /// Why requests of this class are known not to be cacheable now, if they are.
    pub fn marked(&self, class: Class, now: Timestamp) -> Option<NotStored> {
        self.marked_as(Marked::Uncacheable, class, now)
    }

    /// Why requests of this class do not wait for each other now, if so.
    pub fn unshared(&self, class: Class, now: Timestamp) -> Option<NotStored> {
        self.marked_as(Marked::Unshared, class, now)
    }

    /// Whether a request of this class was not long ago brought what there was no room to store.
    pub fn is_wanted(&self, class: Class, now: Timestamp) -> bool {
        self.marked_as(Marked::Wanted, class, now).is_some()
    }

    fn marked_as(&self, how: Marked, class: Class, now: Timestamp) -> Option<NotStored> {
        let mark = self.marks.as_ref().and_then(|marks| marks.get(class as usize).copied().flatten());
        mark.filter(|mark| mark.how == how && now < mark.until).map(|mark| mark.why)
    }

    /// The names by which the most recent response varies.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.variants.first().into_iter().flat_map(|variant| variant.selecting.names())
    }

    /// To be changed.
    pub(super) fn draft(&self) -> Draft {
        Draft { key: self.key().clone(), variants: self.variants.to_vec(), marks: self.marks.clone() }
    }

    pub(super) fn is_void(&self) -> bool {
        self.variants.is_empty() && self.marks.is_none()
    }
}

impl Draft {
    pub(super) fn empty(key: &CacheKey) -> Self {
        Self { key: key.clone(), variants: Vec::new(), marks: None }
    }

    pub(super) fn mark(&mut self, class: Class, new: Option<Mark>) {
        if new.is_none() && self.marks.is_none() {
            return;
        }
        let marks = Arc::make_mut(self.marks.get_or_insert_default());
        if let Some(mark) = marks.get_mut(class as usize) {
            *mark = new;
        }
        if marks.iter().all(Option::is_none) {
            self.marks = None;
        }
    }

    /// Bytes of memory that it takes where it is stored.
    pub(super) fn weight(&self) -> u64 {
        let variants = self.variants.iter().map(|variant| weight(variant)).fold(0, u64::saturating_add);
        let several = pieces::counted::<Several>() + pieces::of(size_of_val(&*self.variants));
        let list = if self.variants.len() > 1 { several } else { 0 };
        let marks = if self.marks.is_some() { pieces::counted::<Marks>() } else { 0 };
        // Each variant has counted the key that it shares; marks alone have one, too.
        let alone = || pieces::counted::<CacheKey>().saturating_add(self.key.weight());
        let key = if self.variants.is_empty() { alone() } else { 0 };
        let own = ENTRY + list + marks + key;
        variants.saturating_add(u64::try_from(own).unwrap_or(u64::MAX))
    }

    /// Of what [weighs](Self::weight) no more than moka can say.
    pub(super) fn done(self) -> Resource {
        let weight = u32::try_from(self.weight()).unwrap_or(u32::MAX);
        Resource { variants: Variants::of(self.key, self.variants), marks: self.marks, weight }
    }
}

/// What moka holds for an entry, from its sources: the key (32 bytes as the allocator gives them), its place in the table
/// (16, and 24 for one that is between a quarter and half full), the entry with the value (64), what is known of it
/// (64), its place in the queue (32), and where that is (48).
pub(super) const ENTRY: usize = 280;

pub(super) fn weight(response: &StoredResponse) -> u64 {
    u64::try_from(response.weight()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::slot::Slot;
    use super::*;
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};

    /// A byte more would have the allocator give it the next size.
    #[test]
    fn it_takes_no_more_than_it_did() {
        assert_eq!((size_of::<Resource>(), size_of::<Slot>(), pieces::counted::<Several>()), (32, 32, 64));
    }

    #[test]
    fn it_knows_its_key_however_many_responses_it_has() {
        let key = key("/");
        for count in 0..4 {
            let variants: Vec<_> = (0..count).map(|_| plain("/", b"x", Born::Here(0))).collect();
            let resource = Draft { key: key.clone(), variants: variants.clone(), marks: None }.done();
            assert_eq!((resource.key(), resource.variants.len()), (&key, count));
            let same = resource.variants.iter().zip(&variants).all(|(one, other)| Arc::ptr_eq(one, other));
            assert!(same && resource.draft().key == key);
        }
    }

    /// The text of the first that was ever kept would be held as long as the resource, and counted by nobody.
    #[test]
    fn it_holds_no_key_that_none_of_its_responses_counts() {
        for count in 2..4 {
            let variants: Vec<_> = (0..count).map(|_| plain("/", b"x", Born::Here(0))).collect();
            let resource = Draft { key: key("/"), variants, marks: None }.done();
            let text = |key: &CacheKey| key.url().as_ptr();
            assert!(resource.variants.iter().any(|variant| text(&variant.key) == text(resource.key())));
        }
    }
}
