//! The few things that were of use lately, the latest first.
//!
//! Knows that what is sought next is most likely what was found last, and that each that is new is compared with all
//! of them, so that they have to be few.
//! Must not know: what they are, or whose.

/// No more than so many.
#[derive(Debug)]
pub struct Lately<T> {
    list: Vec<T>,
    most: usize,
}

impl<T> Lately<T> {
    /// None, of at most so many.
    pub const fn new(most: usize) -> Self {
        Self { list: Vec::new(), most }
    }

    /// The one that is sought, which is the latest from now on.
    pub fn find(&mut self, is: impl FnMut(&T) -> bool) -> Option<&T> {
        let place = self.list.iter().position(is)?;
        if let Some(before) = self.list.get_mut(..=place) {
            before.rotate_right(1);
        }
        self.list.first()
    }

    /// Adds one that is not there; the oldest gives way.
    pub fn put(&mut self, one: T) {
        self.list.truncate(self.most.saturating_sub(1));
        self.list.insert(0, one);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_stays_and_the_oldest_gives_way() {
        let mut lately = Lately::new(3);
        (1..=3).for_each(|one| lately.put(one));
        assert_eq!(lately.find(|one| *one == 1), Some(&1));
        lately.put(4);
        assert_eq!(
            [1, 2, 3, 4].map(|one| lately.find(|known| *known == one).is_some()),
            [true, false, true, true]
        );
        assert_eq!((lately.len(), lately.is_empty()), (3, false));
        lately.clear();
        assert!(lately.is_empty());
    }
}
