//! What stands in a log in place of a secret.
//!
//! Two secrets that are the same have the same word, and others another, so that a log still tells which
//! requests were alike; the word is a keyed digest, whose key is made when the process starts and never
//! leaves it, so that nobody can try secrets against a log.
//! Must not know: who logs.

use std::borrow::Cow;
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

/// A path with a word in place of the value of each argument of its query that has one of these names, which are
/// in lower case.
pub(super) fn path<'a>(path: &'a str, names: &[String]) -> Cow<'a, str> {
    let Some((before, query)) = path.split_once('?') else { return Cow::Borrowed(path) };
    // Which of the two divides arguments is the origin's to know.
    let is_secret = |argument: &str| {
        let name = argument.split('=').next().unwrap_or_default();
        let mut decoded = form_urlencoded::parse(name.as_bytes());
        let name = decoded.next().map_or_else(String::new, |(name, _)| name.to_ascii_lowercase());
        // `a[token]` is a token, too, to who reads brackets.
        let name = name.trim_end_matches(']').rsplit('[').find(|part| !part.is_empty()).unwrap_or_default();
        names.iter().any(|known| known == name)
    };
    if names.is_empty() || !query.split(['&', ';']).any(is_secret) {
        return Cow::Borrowed(path);
    }
    let mut shown = format!("{before}?");
    for argument in query.split_inclusive(['&', ';']) {
        let divider = argument.trim_start_matches(|c| c != '&' && c != ';');
        let argument = argument.strip_suffix(['&', ';']).unwrap_or(argument);
        match argument.split_once('=').filter(|_| is_secret(argument)) {
            Some((name, value)) => {
                let _ = write!(shown, "{name}={}", word(value.as_bytes()));
            }
            None => shown.push_str(argument),
        }
        shown.push_str(divider);
    }
    Cow::Owned(shown)
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
    fn secrets_in_a_query_are_not_shown_however_their_names_are_written() {
        let names = ["token".to_owned(), "x-sig".to_owned()];
        let rows = [
            ("/a?token=hunter2", "/a?token="),
            ("/a?b=1&TOKEN=hunter2&c=2", "/a?b=1&TOKEN="),
            ("/a?b=1;token=hunter2;c=2", "/a?b=1;token="),
            ("/a?%74oken=hunter2", "/a?%74oken="),
            ("/a?user[token]=hunter2", "/a?user[token]="),
            ("/a?token[]=hunter2", "/a?token[]="),
            ("/a?X-Sig=a=hunter2", "/a?X-Sig="),
        ];
        for (text, begins) in rows {
            let shown = path(text, &names);
            assert!(shown.starts_with(&format!("{begins}redacted-")), "{text}: {shown}");
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
        assert!(path("/a?b=1&token=x&c=2", &names).ends_with("&c=2"));
        for text in ["/a", "/a?", "/a?b=token", "/token=1", "/a?token", "/a?tokens=1"] {
            assert_eq!(path(text, &names), text);
        }
        assert_eq!(path("/a?token=1", &[]), "/a?token=1");
        assert_eq!(path("/a?token=1", &names), path("/a?token=1", &names), "alike is alike");
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
