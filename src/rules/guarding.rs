//! What is not stored though RFC 9111 would allow it: what one client could plant for all the others.
//!
//! Two guards. An error is not stored where the request that met it was of a size or a writing that
//! origins choke on; and what calls itself a static file and is something else is not stored on
//! anybody's word but the origin's own. (That errors which speak of a message are never stored is a matter of
//! their status: [`storing`](super::storing).) All by comparing slices, without allocation.
//! Must not know: keys, routes, what is stored.

use http::{HeaderMap, header};

use super::facts::ResponseFacts;
use super::policy::Policy;
use super::reasons::NotStored;

/// A request and the fields of its answer, as far as the guards look at them.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// Path and query as the origin saw them.
    pub target: &'a str,
    /// The request's fields.
    pub asked: &'a HeaderMap,
    /// The response's fields.
    pub answer: &'a HeaderMap,
}

/// Bytes of a request's target and fields above which an error that answers it may be due to them alone.
/// Servers refuse heads from 8 KiB on (and lines from 8,190 bytes); what browsers send without cookies is
/// below 2 KiB.
const LARGE: usize = 4096;

/// Fields of a request above which the same holds; servers refuse from 100 on, browsers send about 20.
const MANY: usize = 64;

/// Whether the guards let a response be stored that [`storing`](super::storing) would.
///
/// # Errors
/// The guard that does not.
pub fn guard(seen: &Exchanged<'_>, resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    if resp.status >= 400 && is_odd(seen) {
        return Err(NotStored::OddRequest);
    }
    // §5.2.2.9, §5.2.2.10: who says one of these speaks of caches that serve others, and of this response.
    let shared = resp.directives.public || resp.directives.s_maxage.is_some();
    if policy.deception_guard && !shared && deceives(seen, resp) {
        return Err(NotStored::Deception);
    }
    Ok(())
}

/// Whether a request is so large, or so written, that an error may answer just that.
fn is_odd(seen: &Exchanged<'_>) -> bool {
    let size = seen.asked.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
    let size = size.fold(seen.target.len(), usize::saturating_add);
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    size > LARGE
        || seen.asked.len() > MANY
        || !seen.asked.values().all(|value| value.as_bytes().iter().all(plain))
}

/// Whether a page is given under the name of a static file. An origin that takes `/account/x.css` for
/// `/account` answers whoever is lured there with their own page; a route that caches styles for all would
/// then hand it to whoever asks next. Only of success: what an error or a redirect under such a name says is
/// that no such file is there.
fn deceives(seen: &Exchanged<'_>, resp: &ResponseFacts) -> bool {
    if !(200..300).contains(&resp.status) {
        return false;
    }
    let path = seen.target.split('?').next().unwrap_or_default();
    // A response without a type says nothing that could disagree.
    let said = seen.answer.get(header::CONTENT_TYPE).map(|value| essence(value.as_bytes()));
    let said = said.filter(|said| !said.is_empty());
    said.zip(file_kind(path)).is_some_and(|(said, kind)| !kind.may_be(said))
}

/// What a file's name says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Style,
    Script,
    /// What programs read, and an API may well answer.
    Data,
    Image,
    /// An image that is text.
    Drawing,
    Font,
    Media,
    /// Whatever is fetched to be kept: archives, documents, programs.
    Download,
}

/// The extensions that caches and their operators take for static files.
const EXTENSIONS: [(&[&str], Kind); 8] = [
    (&["css"], Kind::Style),
    (&["js", "mjs", "cjs"], Kind::Script),
    (&["map", "json", "xml", "rss", "atom"], Kind::Data),
    (
        &["png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "bmp", "tif", "tiff", "apng", "jxl", "heic"],
        Kind::Image,
    ),
    (&["svg", "svgz"], Kind::Drawing),
    (&["woff", "woff2", "ttf", "otf", "eot"], Kind::Font),
    (
        &[
            "mp3", "mp4", "m4a", "m4v", "webm", "ogg", "oga", "ogv", "opus", "wav", "flac", "aac", "avi",
            "mov", "mkv", "mid", "midi", "m3u8", "mpd", "ts", "vtt",
        ],
        Kind::Media,
    ),
    (
        &[
            "pdf", "zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "tar", "jar", "apk", "dmg", "exe",
            "msi", "iso", "bin", "deb", "rpm", "class", "swf", "wasm", "doc", "docx", "xls", "xlsx", "ppt",
            "pptx", "odt", "csv", "txt", "eps", "ps", "psd",
        ],
        Kind::Download,
    ),
];

/// The longest extension of all.
const LONGEST: usize = 5;

impl Kind {
    fn of(extension: &[u8]) -> Option<Self> {
        let named = |names: &[&str]| names.iter().any(|name| extension.eq_ignore_ascii_case(name.as_bytes()));
        EXTENSIONS.iter().find(|(names, _)| named(names)).map(|(_, kind)| *kind)
    }

    /// Whether honest servers give such a file this type: by its registration, by a name from before it, or,
    /// knowing none, as bytes.
    fn may_be(self, said: &[u8]) -> bool {
        if is(
            said,
            &[
                "application/octet-stream",
                "binary/octet-stream",
                "application/x-download",
                "application/force-download",
            ],
        ) {
            return true;
        }
        match self {
            Self::Style => is(said, &["text/css"]),
            // The registered type (RFC 9239), its many older names, and what scripts are made of.
            Self::Script => {
                ends(said, "javascript")
                    || ends(said, "ecmascript")
                    || is(said, &["text/jscript", "text/livescript", "application/typescript"])
            }
            // Of an API's own names, such as `/users/1.json`. XHTML is XML.
            Self::Data => !is(said, &["text/html"]),
            Self::Image => begins(said, "image/"),
            Self::Drawing => begins(said, "image/") || is(said, &["text/xml", "application/xml"]),
            Self::Font => {
                begins(said, "font/")
                    || begins(said, "application/font-")
                    || begins(said, "application/x-font-")
                    || is(said, &["application/vnd.ms-fontobject", "application/x-woff"])
            }
            // Playlists and subtitles are text, and a .ts may be the source of a script.
            Self::Media => {
                begins(said, "audio/")
                    || begins(said, "video/")
                    || begins(said, "application/vnd.")
                    || is(
                        said,
                        &[
                            "application/ogg",
                            "application/mp4",
                            "application/x-mpegurl",
                            "application/dash+xml",
                        ],
                    )
                    || is(said, &["text/vtt", "text/plain", "application/typescript", "text/typescript"])
            }
            // Of these there are more types than anybody can list; what they are not is a page or an API's answer.
            Self::Download => !is_page(said),
        }
    }
}

/// What browsers show as a page, and what APIs answer.
fn is_page(said: &[u8]) -> bool {
    is(said, &["text/html", "application/xhtml+xml", "text/xml", "application/xml"])
        || ends(said, "json")
        || is(said, &["application/x-www-form-urlencoded", "multipart/form-data"])
}

fn is(said: &[u8], types: &[&str]) -> bool {
    types.iter().any(|known| said.eq_ignore_ascii_case(known.as_bytes()))
}

fn begins(said: &[u8], with: &str) -> bool {
    said.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
}

fn ends(said: &[u8], with: &str) -> bool {
    let end = said.len().checked_sub(with.len()).and_then(|at| said.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(with.as_bytes()))
}

/// A media type without its parameters (RFC 9110 §8.3.1).
fn essence(value: &[u8]) -> &[u8] {
    value.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default().trim_ascii()
}

/// What the last segment of a path calls itself, wherever somebody may take its name to end: at its end, at
/// what servers cut paths at (`;`, `?`, `#`, NUL, line breaks, spaces), plain or encoded.
fn file_kind(path: &str) -> Option<Kind> {
    let (mut found, mut before) = (None, None);
    let mut name = Name::default();
    let mut empty = true;
    for byte in Decoded(path.as_bytes()) {
        match byte {
            b'/' | b'\\' => {
                found = name.end().or(found);
                if !empty {
                    (before, found, empty) = (found, None, true);
                }
                name = Name::default();
            }
            b';' | b'?' | b'#' | b',' | b':' | b'&' | 0..=b' ' | 0x7f => {
                found = name.end().or(found);
                name = Name::default();
                empty = false;
            }
            _ => {
                name.push(byte);
                empty = false;
            }
        }
    }
    let found = name.end().or(found);
    // `/x.css/` is `/x.css` to many.
    if empty { before } else { found }
}

/// The end of a name, from its last dot on.
#[derive(Default)]
struct Name {
    dotted: bool,
    bytes: [u8; LONGEST],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if byte == b'.' {
            (self.dotted, self.length) = (true, 0);
            return;
        }
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// What its extension says.
    fn end(&self) -> Option<Kind> {
        // A longer one is none that is known.
        self.bytes.get(..self.length).filter(|_| self.dotted).and_then(Kind::of)
    }
}

/// A path's bytes, percent-decoded as often as two servers in a row may do it.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = match self.0 {
            // Of `%25XX`, the second decoding reads `%XX`.
            [b'%', b'2', b'5', high, low, rest @ ..] => match hex(*high, *low) {
                Some(byte) => (byte, rest),
                None => (b'%', self.0.get(3..).unwrap_or_default()),
            },
            [b'%', high, low, rest @ ..] => match hex(*high, *low) {
                Some(byte) => (byte, rest),
                None => (b'%', self.0.get(1..).unwrap_or_default()),
            },
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        self.0 = rest;
        Some(byte)
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use proptest::prelude::*;

    fn verdict(target: &str, asked: &[&str], status: u16, answer: &[&str]) -> Result<(), NotStored> {
        let (asked, fields) = (headers(asked), headers(answer));
        let seen = Exchanged { target, asked: &asked, answer: &fields };
        guard(&seen, &response(status, answer), &plain())
    }

    fn deception(target: &str, content_type: &str) -> bool {
        verdict(target, &[], 200, &[&format!("content-type: {content_type}")]) == Err(NotStored::Deception)
    }

    #[test]
    fn a_page_under_the_name_of_a_static_file_is_found_in_any_writing() {
        for target in [
            "/account/x.css",
            "/account/x.CSS",
            "/account/x.css?y=1",
            "/account/x.css/",
            "/account/x.css//",
            "/account/.css",
            "/account;x.css",
            "/account;.css",
            "/account%3bx.css",
            "/account%3Fx.css",
            "/account%23x.css",
            "/account%00x.css",
            "/account%0ax.css",
            "/account%0A.css",
            "/account%2fx.css",
            "/account%5cx.css",
            "/account\\x.css",
            "/account/x.css;jsessionid=1",
            "/account/x.css%3by",
            "/account/x.css%3fy.html",
            "/account/x.css%00",
            "/account/x.css%20",
            "/account/x.css%0d%0ay",
            "/account/x.%63ss",
            "/account/x%2ecss",
            "/account%253bx.css",
            "/account/x.css%253by",
            "/account/x.tar.gz",
            "/account/x.js",
            "/account/x.woff2",
            "/account/x.ico",
            "/account/x.mp4",
            "/account/x.pdf",
            "/account/x.svg",
            "/account/x.txt",
        ] {
            for html in
                ["text/html", "TEXT/HTML; charset=utf-8", "text/html,text/css", "application/xhtml+xml"]
            {
                assert!(deception(target, html), "{target} {html}");
            }
        }
    }

    #[test]
    fn what_does_not_call_itself_a_static_file_is_none() {
        for target in [
            "/",
            "/account",
            "/account/",
            "/css",
            "/x.css/account",
            "/x.html",
            "/x.php",
            "/v1.2/users",
            "/users/a.b",
            "/x.cssx",
            "/x.stylesheet",
            "/x?y=z.css",
            "/a%2",
            "/a%",
            "/.",
            "/x.",
        ] {
            assert!(!deception(target, "text/html"), "{target}");
        }
    }

    #[test]
    fn what_honest_servers_say_of_a_file_agrees_with_its_name() {
        for (target, types) in [
            ("/x.css", &["text/css", "text/css;charset=utf-8", "Text/CSS"][..]),
            (
                "/x.js",
                &[
                    "text/javascript",
                    "application/javascript",
                    "application/x-javascript",
                    "text/ecmascript",
                    "text/jscript",
                ],
            ),
            ("/x.mjs", &["text/javascript"]),
            ("/x.js.map", &["application/json", "application/octet-stream"]),
            ("/x.png", &["image/png", "image/webp", "image/avif"]),
            ("/x.ico", &["image/x-icon", "image/vnd.microsoft.icon"]),
            ("/x.svg", &["image/svg+xml", "text/xml", "application/xml"]),
            ("/x.woff2", &["font/woff2", "application/font-woff2", "application/octet-stream"]),
            ("/x.ttf", &["font/ttf", "application/x-font-ttf", "binary/octet-stream"]),
            ("/x.eot", &["application/vnd.ms-fontobject"]),
            ("/x.mp4", &["video/mp4", "application/mp4"]),
            ("/x.m3u8", &["application/vnd.apple.mpegurl", "application/x-mpegURL"]),
            ("/x.ts", &["video/mp2t", "application/typescript"]),
            ("/x.wasm", &["application/wasm"]),
            ("/x.pdf", &["application/pdf"]),
            ("/x.zip", &["application/zip", "application/x-zip-compressed"]),
            ("/x.csv", &["text/csv", "text/plain"]),
            ("/robots.txt", &["text/plain", "text/plain; charset=utf-8"]),
            ("/users/1.json", &["application/json", "application/problem+json", "text/plain"]),
            ("/feed.xml", &["application/rss+xml", "text/xml", "application/xhtml+xml"]),
        ] {
            for honest in types {
                assert!(!deception(target, honest), "{target} {honest}");
            }
        }
        assert!(verdict("/x.css", &[], 200, &[]).is_ok(), "no type says nothing");
        assert!(verdict("/x.css", &[], 200, &["content-type:"]).is_ok(), "nor does an empty one");
    }

    #[test]
    fn an_apis_answer_is_no_style_and_no_image() {
        for (target, said) in [
            ("/me/x.css", "application/json"),
            ("/me/x.js", "application/json"),
            ("/me/x.js.map", "text/html"),
            ("/me/x.json", "text/html"),
            ("/me/x.txt", "application/json"),
            ("/me/x.png", "application/problem+json"),
            ("/me/x.zip", "application/vnd.api+json"),
            ("/me/x.woff", "text/plain"),
            ("/me/x.js", "text/plain"),
            ("/me/x.jpg", "text/css"),
        ] {
            assert!(deception(target, said), "{target} {said}");
        }
    }

    #[test]
    fn the_origins_word_on_sharing_and_the_routes_on_the_guard_count() {
        let html = "content-type: text/html";
        for (control, expected) in [
            ("max-age=60", Err(NotStored::Deception)),
            ("must-revalidate, max-age=60", Err(NotStored::Deception)),
            ("public, max-age=60", Ok(())),
            ("s-maxage=60", Ok(())),
        ] {
            let control = format!("cache-control: {control}");
            assert_eq!(verdict("/account/x.css", &[], 200, &[html, &control]), expected, "{control}");
        }
        for status in [301, 302, 404, 410, 500] {
            assert!(
                verdict("/x.css", &[], status, &[html]).is_ok(),
                "{status} says that no such file is there"
            );
        }
        for status in [200, 203, 206, 299] {
            assert!(verdict("/x.css", &[], status, &[html]).is_err(), "{status}");
        }
        let off = Policy { deception_guard: false, ..plain() };
        let (asked, answer) = (headers(&[]), headers(&[html]));
        let seen = Exchanged { target: "/x.css", asked: &asked, answer: &answer };
        assert_eq!(guard(&seen, &response(200, &[html]), &off), Ok(()));
    }

    #[test]
    fn an_error_to_an_odd_request_is_no_ones_but_its_senders() {
        let large = format!("x-a: {}", "a".repeat(LARGE));
        let lines: Vec<_> = (0..=MANY).map(|nth| format!("x-{nth}: a")).collect();
        let many: Vec<&str> = lines.iter().map(String::as_str).collect();
        let long = format!("/{}", "a".repeat(LARGE));
        for (target, asked) in
            [("/", &[large.as_str()][..]), ("/", &many), (&long, &[]), ("/", &["x-a: \u{e9}"])]
        {
            for status in [401, 403, 404, 410, 500, 503] {
                assert_eq!(verdict(target, asked, status, &[]), Err(NotStored::OddRequest), "{status}");
            }
            for status in [200, 301, 302] {
                assert_eq!(verdict(target, asked, status, &[]), Ok(()), "{status} is no error");
            }
        }
        let plain = ["user-agent: a\tb", "accept: */*", "x-a: ~!@#$%^&*()"];
        assert_eq!(verdict("/?q", &plain, 404, &[]), Ok(()));
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in "(/|\\\\|%2f|%5C|;|%3b|\\.|%2e|%|%25|%00|x|css|js|\u{e9}){0,12}") {
            let _ = file_kind(&path);
            // However a name begins, its end decides.
            let asset = format!("{path}/x.css");
            prop_assert_eq!(file_kind(&asset), Some(Kind::Style));
        }
    }
}
