//! Bytes on their way from a socket through a scanner to hyper.
//!
//! Of hyper's own buffer nobody may look at what has been put there without `unsafe`, so what is read goes through one
//! buffer of each thread first. Nothing waits in it.
//! Must not know: whose bytes they are, or what is looked for.

use std::cell::RefCell;

use hyper::rt::ReadBuf;

/// Bytes of one read at most.
const SIZE: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into());
}

/// Hands out an empty buffer of at most `most` bytes, to be read into and looked at. For one read of a socket: whoever
/// has it does not ask for another.
pub fn with<R>(most: usize, read: impl FnOnce(ReadBuf<'_>) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        let room = most.min(scratch.len());
        read(ReadBuf::new(scratch.get_mut(..room).unwrap_or_default()))
    })
}

/// The same, as bytes of which nobody says what was in them before.
pub fn with_bytes<R>(most: usize, read: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        let room = most.min(scratch.len());
        read(scratch.get_mut(..room).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_no_larger_than_it_may_be() {
        for (most, room) in [(0, 0), (5, 5), (SIZE, SIZE), (usize::MAX, SIZE)] {
            with(most, |mut buf| {
                assert!(buf.filled().is_empty());
                let mut cursor = buf.unfilled();
                assert_eq!(cursor.remaining(), room);
                cursor.put_slice(&vec![b'x'; room]);
            });
        }
    }
}
