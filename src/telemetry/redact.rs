//! What stands in a log in place of a secret.
//!
//! Two secrets that are the same have the same word, and others another, so that a log still tells which
//! requests were alike; the word is a keyed digest, whose key is made when the process starts and never
//! leaves it, so that nobody can try secrets against a log.
//! Must not know: who logs.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// What all words begin with, and what stands where not even that is told apart.
pub(super) const WORD: &str = "redacted";
/// Bytes of the digest that are shown: two of a million secrets have the same word once in 500 logs.
const SHOWN: usize = 6;

static KEY: LazyLock<Option<[u8; 32]>> = LazyLock::new(|| {
    let mut key = [0; 32];
    getrandom::fill(&mut key).ok().map(|()| key)
});

/// The word for a secret.
pub(super) fn word(secret: &[u8]) -> String {
    let mut word = WORD.to_owned();
    // Without a key a digest could be tried against: then they are all alike.
    let Some(key) = *KEY else { return word };
    word.push('-');
    // The key has the length of a block of none of both sides: its end cannot be taken for a secret's beginning.
    for byte in Sha256::new().chain_update(key).chain_update(secret).finalize().iter().take(SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(word, "{byte:02x}");
    }
    word
}

/// A `Cookie` with a word in place of each value.
pub(super) fn cookie(text: &str) -> String {
    let crumbs = text.split(';').map(|crumb| match crumb.trim().split_once('=') {
        Some((name, value)) => format!("{name}={}", word(value.as_bytes())),
        // No name: all of it may be the secret.
        None => word(crumb.trim().as_bytes()),
    });
    crumbs.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_has_the_same_word_and_another_has_another() {
        assert_eq!(word(b"a"), word(b"a"));
        assert_ne!(word(b"a"), word(b"b"));
        assert!(
            word(b"hunter2").len() == "redacted-".len() + 2 * SHOWN && !word(b"hunter2").contains("hunter2")
        );
    }

    #[test]
    fn a_cookie_keeps_its_names() {
        let text = cookie("a=1; b=2;c=1; lone");
        let words: Vec<_> = text.split("; ").collect();
        assert_eq!(words.len(), 4);
        assert_eq!(words[0].strip_prefix("a="), words[2].strip_prefix("c="));
        assert_ne!(words[0].strip_prefix("a="), words[1].strip_prefix("b="));
        assert!(!text.contains("lone"));
    }
}
