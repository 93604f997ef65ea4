//! Messages of HTTP/1.1 as bytes: a request's head from its fields, a response's fields from its head.
//!
//! What is read here has passed the scanner of [`wire`](crate::wire), so it is known to have the form that RFC 9112 gives
//! it; this only cuts it up. An origin names most of its answers' fields alike, so the names of late are remembered, and
//! the map that they make is copied and given its values.
//! Must not know: sockets, where a message ends, what it means.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};

use crate::fields::hop;
use crate::lately::Lately;
use crate::wire::field_line;

/// Fields that a response is given on its way to a client, mostly.
const MORE: usize = 8;
/// Bytes of a field's line, mostly, and rather less.
const LINE: usize = 24;
/// Fields for which room is made before they are seen, at most: a head may have one of 100 KiB, and room for thousands
/// would be many times that.
const FORESEEN: usize = 256;
/// Bytes of a request's head, mostly.
const HEAD: usize = 512;

/// Lists of names that a thread remembers: as many as it talks to origins that answer in different ways.
const SHAPES: usize = 4;
/// Sections of other names, one of which takes the place of a list that has been of no use the longest: to make one costs
/// more than to cut up a section, so where more lists take turns than are remembered, most of these stay.
const STRANGERS: u32 = 16;
/// Fields in such a list at most, and bytes of a section: who sends more sends other names the next time, too.
const SHAPED: (usize, usize) = (32, 4096);

thread_local! {
    /// No more than [`SHAPES`], of [`SHAPED`] each; names alone, no values.
    static LATELY: RefCell<Lately<Shape>> = const { RefCell::new(Lately::new(SHAPES)) };
    /// How many sections there have been whose names were not remembered.
    static MET: Cell<u32> = const { Cell::new(0) };
}

/// The fields of a request that is a head alone, as they are written: made once for all requests that have the same.
#[derive(Clone, Debug)]
pub struct Ready {
    lines: Arc<[u8]>,
    /// For whoever does not write them.
    fields: Arc<HeaderMap>,
}

impl Ready {
    /// Of these; not where the request asks for more than an answer, or is bound to its connection.
    pub fn of(fields: Arc<HeaderMap>) -> Option<Self> {
        let others = [header::EXPECT, header::TRANSFER_ENCODING, header::UPGRADE];
        if others.iter().any(|name| fields.contains_key(name)) || hop::binds_the_connection(&fields) {
            return None;
        }
        let mut lines = Vec::with_capacity(HEAD);
        write(&fields, &mut lines);
        Some(Self { lines: lines.into(), fields })
    }

    /// The same in a map.
    pub(super) fn to_map(&self) -> HeaderMap {
        (*self.fields).clone()
    }
}

fn write(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        // There is nothing to be framed.
        if *name == header::TRANSFER_ENCODING {
            continue;
        }
        field_line(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

/// The head of a request without content, to its empty line (RFC 9112 §3, §5). `ready`: its fields, which then are not in
/// its map.
pub(super) fn request<B>(request: &Request<B>, ready: Option<&Ready>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD);
    // By its parts, since a path may be left out (RFC 9112 §3.2.1: "the client MUST send "/" as the path").
    let (path, query) = (request.uri().path(), request.uri().query());
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    for part in [request.method().as_str(), " ", path, mark, query, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    match ready {
        Some(ready) => out.extend_from_slice(&ready.lines),
        None => write(request.headers(), &mut out),
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A response by its head, to its empty line; `None` where it is none after all.
pub(super) fn response(head: &Bytes) -> Option<Response<()>> {
    let end = memchr::memchr(b'\n', head)?;
    // RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`; "A client SHOULD ignore the reason-phrase content".
    let line = head.get(..end)?.strip_suffix(b"\r")?;
    let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = match line.get(7)? {
        b'0' => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    *response.headers_mut() = fields(&head.slice(end.checked_add(1)?..))?;
    Some(response)
}

/// The fields of a section, to its empty line, if all of them are (RFC 9112 §5).
pub(super) fn fields(section: &Bytes) -> Option<HeaderMap> {
    if section.is_empty() {
        return Some(HeaderMap::new());
    }
    LATELY.with_borrow_mut(|lately| {
        let mut spans = [Span::default(); SHAPED.0];
        if let Some(shape) = lately.find(|shape| shape.place(section, &mut spans)) {
            return shape.filled(section, &spans);
        }
        let fields = cut(section)?;
        let met = MET.get().wrapping_add(1);
        MET.set(met);
        if (lately.len() < SHAPES || met.is_multiple_of(STRANGERS))
            && let Some(shape) = Shape::of(section, &fields)
        {
            lately.put(shape);
        }
        Some(fields)
    })
}

/// The same of any, field by field.
fn cut(section: &Bytes) -> Option<HeaderMap> {
    // It may turn out to need more.
    let mut map = HeaderMap::with_capacity((section.len() / LINE).min(FORESEEN).saturating_add(MORE));
    for line in lines(section) {
        let (name, span) = line?;
        map.append(HeaderName::from_bytes(name).ok()?, span.value(section)?);
    }
    Some(map)
}

/// Where a value is in its section.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from: usize,
    to: usize,
}

impl Span {
    /// Of a line from `begin` on that is so much, its name and colon `before` the value: without the white space around
    /// it.
    fn of(begin: usize, line: &[u8], before: usize) -> Option<Self> {
        let value = line.get(before..)?;
        let ahead = value.iter().take_while(|byte| is_white(**byte)).count();
        let behind = value.iter().skip(ahead).rev().take_while(|byte| is_white(**byte)).count();
        let from = begin.checked_add(before)?.checked_add(ahead)?;
        Some(Self { from, to: begin.checked_add(line.len())?.checked_sub(behind)? })
    }

    fn value(self, section: &Bytes) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(section.slice(self.from..self.to)).ok()
    }
}

/// The lines of a section to its empty line: each one's name and where its value is, or nothing where it has none.
fn lines(section: &[u8]) -> impl Iterator<Item = Option<(&[u8], Span)>> {
    bare_lines(section).map(|line| {
        let (begin, line) = line?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, Span::of(begin, line, colon.checked_add(1)?)?))
    })
}

/// The lines of a section to its empty line, without their ends; and where each begins.
fn bare_lines(section: &[u8]) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    let mut begin = 0;
    let mut ends = memchr::memchr_iter(b'\n', section);
    std::iter::from_fn(move || {
        let end = ends.next()?;
        let line = section.get(begin..end).and_then(|line| line.strip_suffix(b"\r"));
        let from = std::mem::replace(&mut begin, end.saturating_add(1));
        line.is_none_or(|line| !line.is_empty()).then(|| line.map(|line| (from, line)))
    })
}

/// How the fields of a section are named.
#[derive(Debug)]
struct Shape {
    /// As they came, each with its colon: another spelling is another list.
    names: Vec<Box<[u8]>>,
    /// One for each, in their order, with no values.
    map: HeaderMap,
}

impl Shape {
    /// That of a section and its fields, if it is worth remembering and each field is there once: a map has the lines of
    /// one field together, wherever they stood.
    fn of(section: &[u8], fields: &HeaderMap) -> Option<Self> {
        let (most, longest) = SHAPED;
        if fields.len() > most || fields.len() != fields.keys_len() || section.len() > longest {
            return None;
        }
        let name = |line: Option<(&[u8], Span)>| Some([line?.0, b":"].concat().into_boxed_slice());
        let names = lines(section).map(name).collect::<Option<_>>()?;
        let mut map = HeaderMap::with_capacity(fields.len().saturating_add(MORE));
        map.extend(fields.keys().map(|name| (name.clone(), HeaderValue::from_static(""))));
        Some(Self { names, map })
    }

    /// Whether a section is named so, and where its values are then.
    fn place(&self, section: &[u8], spans: &mut [Span]) -> bool {
        let mut lines = bare_lines(section);
        let all = self.names.iter().zip(spans).all(|(name, span)| {
            let Some((begin, line)) = lines.next().flatten().filter(|(_, line)| line.starts_with(name))
            else {
                return false;
            };
            Span::of(begin, line, name.len()).map(|found| *span = found).is_some()
        });
        all && lines.next().is_none()
    }

    /// The fields of a section that has its values there.
    fn filled(&self, section: &Bytes, spans: &[Span]) -> Option<HeaderMap> {
        let mut map = self.map.clone();
        for (value, span) in map.values_mut().zip(spans) {
            *value = span.value(section)?;
        }
        Some(map)
    }
}

const fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_cut_into_its_fields() {
        type Row<'a> = (&'a str, u16, Version, &'a [(&'a str, &'a str)]);
        let rows: &[Row<'_>] = &[
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Version::HTTP_11, &[]),
            ("HTTP/1.0 404\r\nA: b\r\n\r\n", 404, Version::HTTP_10, &[("a", "b")]),
            ("HTTP/1.1 599 \r\nA:\r\n\r\n", 599, Version::HTTP_11, &[("a", "")]),
            // RFC 9112 §5: `field-name ":" OWS field-value OWS`.
            (
                "HTTP/1.1 200 OK\r\nX:\t b:  c \t \r\nX: \t\r\n\r\n",
                200,
                Version::HTTP_11,
                &[("x", "b:  c"), ("x", "")],
            ),
        ];
        for (head, status, version, want) in rows {
            let response = response(&Bytes::from_static(head.as_bytes())).unwrap();
            let fields =
                response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!((response.status().as_u16(), response.version()), (*status, *version), "{head}");
            assert_eq!(fields.collect::<Vec<_>>(), *want, "{head}");
        }
    }

    #[test]
    fn what_asks_for_more_than_an_answer_is_not_made_ready() {
        for (name, value) in [
            ("upgrade", "x"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            // RFC 4559 §5: who is logged in is a property of the connection.
            ("authorization", "Negotiate x"),
        ] {
            let fields =
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            assert!(Ready::of(Arc::new(fields)).is_none(), "{name}");
        }
    }

    #[test]
    fn fields_are_the_same_whether_or_not_their_names_came_before() {
        let sections = [
            "A: 1\r\nB: 2\r\nContent-Type: x/y\r\n\r\n",
            "A: 3\r\nB:  4 \t\r\nContent-Type:\r\n\r\n",
            // Others, and the same in another order, in another spelling, more and fewer of them.
            "B: 2\r\nA: 1\r\nContent-Type: x/y\r\n\r\n",
            "a: 1\r\nB: 2\r\nContent-Type: x/y\r\n\r\n",
            "A: 1\r\nB: 2\r\nContent-Type: x/y\r\nD: 5\r\n\r\n",
            "A: 1\r\nB: 2\r\n\r\n",
            "AB: 1\r\nB: 2\r\n\r\n",
            // Repeats, which a map has together.
            "A: 1\r\nB: 2\r\nA: 3\r\n\r\n",
            "A: 1\r\nA: 2\r\nB: 3\r\n\r\n",
            "\r\n",
            "A: 1\r\n",
            // No field, and no value (RFC 9110 §5.5).
            "A: 1\r\nB 2\r\n\r\n",
            "A: 1\r\nB: \x01\r\n\r\n",
        ];
        for section in sections.iter().chain(&sections).chain(sections.iter().rev()) {
            let section = Bytes::from_static(section.as_bytes());
            assert_eq!(fields(&section), cut(&section), "{section:?}");
        }
        let remembered = LATELY.with_borrow(|lately| lately.len());
        assert_eq!(remembered, SHAPES);
    }

    #[test]
    fn no_more_is_remembered_than_names_that_may_come_again() {
        let many: String = (0..=SHAPED.0).map(|nth| format!("X-{nth}: 1\r\n")).collect();
        let long = format!("A: {}\r\n\r\n", "x".repeat(SHAPED.1));
        for section in [many + "\r\n", long, "A: 1\r\nA: 2\r\n\r\n".into(), "A\r\n\r\n".into()] {
            fields(&Bytes::from(section));
        }
        assert!(LATELY.with_borrow(|lately| lately.is_empty()));
    }

    #[test]
    fn lists_that_take_turns_do_not_drive_each_other_out_each_time() {
        let section = |nth: usize| Bytes::from(format!("X-{nth}: 1\r\n\r\n"));
        let known = |nth: usize| {
            let section = section(nth);
            let mut spans = [Span::default(); SHAPED.0];
            LATELY.with_borrow_mut(|lately| lately.find(|shape| shape.place(&section, &mut spans)).is_some())
        };
        let turns = SHAPES * 100;
        let found = (0..turns).filter(|turn| {
            let nth = turn % (SHAPES + 1);
            let found = known(nth);
            fields(&section(nth)).unwrap();
            found
        });
        assert!(found.count() * 10 > turns * 6);
        // Others come in, if they come again and again.
        (0..STRANGERS).for_each(|_| drop(fields(&section(1_000))));
        assert!(known(1_000));
    }

    #[test]
    fn a_large_field_is_given_no_room_for_thousands_of_small_ones() {
        let head = format!("HTTP/1.1 200 OK\r\nSurrogate-Key: {}\r\n\r\n", "t ".repeat(60_000));
        let response = response(&Bytes::from(head)).unwrap();
        assert!(response.headers().capacity() <= 1024, "{}", response.headers().capacity());
    }

    #[test]
    fn a_request_is_written_as_it_is_to_be_read() {
        for (uri, target) in [("/a?b=c", "/a?b=c"), ("/", "/"), ("/?", "/?"), ("http://x?", "/?"), ("*", "*")]
        {
            let request = Request::builder().method("GET").uri(uri).header("host", "x").header("x-y", "z: 1");
            let request = request.body(()).unwrap();
            let want = format!("GET {target} HTTP/1.1\r\nhost: x\r\nx-y: z: 1\r\n\r\n");
            let ready = Ready::of(Arc::new(request.headers().clone())).unwrap();
            for ready in [None, Some(&ready)] {
                assert_eq!(String::from_utf8(super::request(&request, ready)).unwrap(), want);
            }
            assert_eq!(ready.to_map(), *request.headers());
        }
    }
}
