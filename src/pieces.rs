//! How much memory an allocation takes, which is more than was asked for.
//!
//! Knows the sizes in which the allocator gives memory: as mimalloc's documentation has them, four to each doubling,
//! so that the worst is a fifth too much; up to 64 bytes in steps of 16. glibc's are closer, so what is weighed by
//! these is weighed on the high side there. A cache that counted what it asked for would hold a tenth more than it
//! may.
//! Must not know: what is in it.

use std::mem::size_of;

/// What a piece of so many bytes takes. Nothing for none.
pub const fn of(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=64 => bytes.next_multiple_of(16),
        // The last of them in its own place: a page's worth from here on, as the system has it.
        _ if bytes > LARGE => bytes.saturating_add(PAGE - 1) / PAGE * PAGE,
        _ => bytes.next_multiple_of(step(bytes)),
    }
}

/// What something takes that is held with two counters before it, as an `Arc` does.
pub const fn counted<T>() -> usize {
    of(size_of::<T>() + 2 * size_of::<usize>())
}

/// Larger pieces are the system's own.
const LARGE: usize = 128 * 1024;
const PAGE: usize = 4096;

/// A quarter of the power of two below it: for what is between 1,025 and 2,048 it is 256.
const fn step(bytes: usize) -> usize {
    1 << ((bytes - 1).ilog2() - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_allocator_has() {
        let sizes = [
            (0, 0),
            (1, 8),
            (9, 16),
            (17, 32),
            (64, 64),
            (65, 80),
            (81, 96),
            (128, 128),
            (129, 160),
            (1024, 1024),
            (1025, 1280),
            (5000, 5120),
            (5121, 6144),
            (LARGE, LARGE),
            (LARGE + 1, LARGE + PAGE),
        ];
        for (asked, taken) in sizes {
            assert_eq!(of(asked), taken, "{asked}");
        }
        assert_eq!(counted::<[u8; 48]>(), 64);
        assert!(of(usize::MAX) >= usize::MAX - PAGE, "no overflow");
    }
}
