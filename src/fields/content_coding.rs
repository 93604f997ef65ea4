//! `Content-Encoding` and the names of content codings (RFC 9110 §8.4).
//!
//! Knows the registered codings that Larder can read and write, and how many a response has.
//! Must not know: how anything is coded, or what a client accepts.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::list;

/// A content coding that Larder can read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `zstd` (RFC 8878, RFC 9659)
    Zstd,
    /// `br` (RFC 7932)
    Brotli,
    /// `gzip`, and `x-gzip`, which is the same (§8.4.1.3)
    Gzip,
    /// `deflate`: the zlib format, despite its name (§8.4.1.2)
    Deflate,
}

/// How a response's content is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentCoding {
    /// Not at all.
    #[default]
    Identity,
    /// By one coding that Larder knows.
    One(Coding),
    /// By one that it does not, or by several.
    Other,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// The registered name (§8.4.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Self> {
        let name = canonical(name);
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }
}

impl ContentCoding {
    /// From all `Content-Encoding` lines of a response. `identity` should not stand there (§8.4)
    /// and says nothing where it does.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut codings = names(headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes));
        match (codings.next(), codings.next()) {
            (None, _) => Self::Identity,
            (Some(name), None) => Coding::of(name).map_or(Self::Other, Self::One),
            (Some(_), Some(_)) => Self::Other,
        }
    }
}

/// The names of the codings in these lines of `Content-Encoding`, in the order they were applied (§8.4).
pub fn names<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines.flat_map(list::members).filter(|name| !name.eq_ignore_ascii_case(b"identity"))
}

/// Whether it is the name of a coding that is registered (RFC 9110 §16.6.1).
pub fn is_registered(name: &[u8]) -> bool {
    let registered = [
        "aes128gcm",
        "br",
        "compress",
        "dcb",
        "dcz",
        "deflate",
        "exi",
        "gzip",
        "identity",
        "pack200-gzip",
        "zstd",
    ];
    let name = canonical(name);
    registered.into_iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The name that stands for the same: "a recipient SHOULD consider" the old ones equivalent
/// (§8.4.1.1, §8.4.1.3).
pub(super) fn canonical(name: &[u8]) -> &[u8] {
    if name.eq_ignore_ascii_case(b"x-gzip") || name.eq_ignore_ascii_case(b"x-compress") {
        return name.get(2..).unwrap_or(name);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> ContentCoding {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, line.parse().unwrap());
        }
        ContentCoding::of(&headers)
    }

    #[test]
    fn what_nobody_has_registered_is_told_apart() {
        for (name, registered) in [
            ("gzip", true),
            ("X-GZIP", true),
            ("Compress", true),
            ("aes128gcm", true),
            ("foo", false),
            ("", false),
        ] {
            assert_eq!(is_registered(name.as_bytes()), registered, "§16.6.1 {name}");
        }
    }

    #[test]
    fn a_response_has_no_coding_one_or_others() {
        use ContentCoding::{Identity, One, Other};
        for (clause, lines, expected) in [
            ("§8.4 absent", &[][..], Identity),
            ("§8.4 empty", &[""], Identity),
            ("§8.4 identity ought not to be said", &["identity"], Identity),
            ("§8.4.1.3", &["gzip"], One(Coding::Gzip)),
            ("§8.4.1 any case", &["GZip"], One(Coding::Gzip)),
            ("§8.4.1.3 the old name", &["x-gzip"], One(Coding::Gzip)),
            ("§8.4.1.2", &["deflate"], One(Coding::Deflate)),
            ("RFC 7932", &["br"], One(Coding::Brotli)),
            ("RFC 8878", &["zstd"], One(Coding::Zstd)),
            ("§8.4 beside identity", &["identity, br"], One(Coding::Brotli)),
            ("§8.4.1.1 not ours", &["compress"], Other),
            ("another", &["aws-chunked"], Other),
            ("§8.4 two", &["gzip, br"], Other),
            ("§8.4 two lines", &["gzip", "gzip"], Other),
        ] {
            assert_eq!(of(lines), expected, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn names_come_back() {
        for coding in Coding::ALL {
            assert_eq!(Coding::of(coding.as_str().as_bytes()), Some(coding));
        }
        assert_eq!(Coding::of(b"identity"), None);
        assert_eq!(Coding::of(b"x-br"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read(bytes: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(CONTENT_ENCODING, value);
            }
            let _ = ContentCoding::of(&headers);
        }
    }
}
