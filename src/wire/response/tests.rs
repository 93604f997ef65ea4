//! Each rule by a response that keeps it and by those that do not, whole and byte by byte.

use super::{Asked, Limits, ResponseScanner};
use crate::wire::Flaw;

const LIMITS: Limits = Limits { section: 1024, fields: 8, interims: 3 };

/// What a scanner has to say of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// One response, to its last byte.
    Whole,
    /// More may come, and be part of it.
    Open,
    Wrong(Flaw),
}
use Is::{Open, Whole, Wrong};

fn scanner(asked: Asked) -> ResponseScanner {
    let mut scanner = ResponseScanner::new(LIMITS);
    scanner.ask(asked);
    scanner
}

fn seen(asked: Asked, bytes: &[u8], segment: usize) -> Is {
    let mut scanner = scanner(asked);
    for segment in bytes.chunks(segment) {
        match scanner.read(segment) {
            Err(flaw) => {
                assert_eq!(scanner.read(b"x"), Err(flaw), "a flaw is for good");
                return Wrong(flaw);
            }
            Ok(taken) if taken < segment.len() => {
                assert!(asked == Asked::Head && scanner.is_beyond(), "of nothing else a part is taken");
                assert_eq!(scanner.read(b"x"), Err(Flaw::Unasked), "and nothing after it");
                return Wrong(Flaw::Unasked);
            }
            Ok(_) => assert!(!scanner.is_beyond()),
        }
    }
    if scanner.is_idle() { Whole } else { Open }
}

fn check(asked: Asked, bytes: &[u8], expected: Is) {
    for segment in [bytes.len().max(1), 1, 2, 7] {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(seen(asked, bytes, segment), expected, "{asked:?} in pieces of {segment}: {text:?}");
    }
    if expected == Whole {
        let more = [bytes, b"\r"].concat();
        assert_eq!(seen(asked, &more, more.len()), Wrong(Flaw::Unasked), "nothing may follow");
        let less = bytes.split_last().map(|(_, less)| less).unwrap_or_default();
        assert_eq!(seen(asked, less, 1), Open, "and all of it is needed");
    }
}

/// A head of these lines.
fn head(lines: &[&str]) -> Vec<u8> {
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn a_status_line_is_a_version_a_code_and_maybe_a_reason() {
    for line in
        ["HTTP/1.1 200 OK", "HTTP/1.0 200 ", "HTTP/1.1 200", "HTTP/1.1 999 \u{e9}y \t z", "HTTP/1.1 404 a:b"]
    {
        check(Asked::Other, &head(&[line, "content-length: 0"]), Whole);
    }
    for line in [
        "",
        "\r\nHTTP/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.10 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 1000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 200 O\x00K",
        "ICY 200 OK",
        "SSH-2.0-OpenSSH_9.6",
        "GET / HTTP/1.1",
    ] {
        check(Asked::Other, &head(&[line, "content-length: 0"]), Wrong(Flaw::StatusLine));
    }
}

#[test]
fn a_field_is_a_name_a_colon_and_a_value_in_one_line() {
    for (line, expected) in [
        ("x:", Whole),
        ("x: \t ", Whole),
        ("!#$%&'*+-.^_`|~0aZ: a\tb \u{e9}", Whole),
        ("no colon", Wrong(Flaw::FieldName)),
        (": x", Wrong(Flaw::FieldName)),
        ("x : y", Wrong(Flaw::FieldName)),
        ("x\t: y", Wrong(Flaw::FieldName)),
        ("x y: z", Wrong(Flaw::FieldName)),
        ("x\u{e9}: y", Wrong(Flaw::FieldName)),
        ("x\x00: y", Wrong(Flaw::FieldName)),
        ("(x): y", Wrong(Flaw::FieldName)),
        ("x: a\x00b", Wrong(Flaw::FieldValue)),
        ("x: a\x7fb", Wrong(Flaw::FieldValue)),
        ("x: a\x1bb", Wrong(Flaw::FieldValue)),
        ("x: a\rb", Wrong(Flaw::BareCr)),
        ("x: a\r\r\nb: c", Wrong(Flaw::BareCr)),
        ("x: a\nb: c", Wrong(Flaw::BareLf)),
        ("x: a\r\n b", Wrong(Flaw::Folded)),
        ("x: a\r\n\tb", Wrong(Flaw::Folded)),
    ] {
        check(Asked::Other, &head(&[OK, "content-length: 0", line]), expected);
    }
    check(Asked::Other, &head(&[OK, " x: y", "content-length: 0"]), Wrong(Flaw::Folded));
    check(Asked::Other, b"HTTP/1.1 200 OK\n\n", Wrong(Flaw::BareLf));
    check(Asked::Other, b"HTTP/1.1 200 OK\r\nx: y\r\n\n", Wrong(Flaw::BareLf));
}

#[test]
fn a_length_is_one_number() {
    for value in ["0", "00", " \t0 "] {
        check(Asked::Other, &head(&[OK, &format!("Content-Length:{value}")]), Whole);
    }
    check(Asked::Other, &[head(&[OK, "CONTENT-length: 007"]), b"seven b".to_vec()].concat(), Whole);
    check(Asked::Other, &head(&[OK, "content-length: 9223372036854775807"]), Open);
    for value in
        ["", "-1", "+1", "0x5", "5 5", "1.0", "5;", "9223372036854775808", "18446744073709551617", "\u{661}"]
    {
        let wrong = head(&[OK, &format!("content-length: {value}")]);
        check(Asked::Other, &wrong, Wrong(Flaw::Length));
    }
    for lines in [&["5", "5"][..], &["5", "6"], &["5, 5"], &["5,6"], &["0", ""], &[","]] {
        let lines: Vec<_> = lines.iter().map(|value| format!("content-length: {value}")).collect();
        let mut all = vec![OK];
        all.extend(lines.iter().map(String::as_str));
        check(Asked::Other, &head(&all), Wrong(Flaw::DoubledLength));
    }
}

#[test]
fn the_one_transfer_coding_is_chunked_alone_and_without_a_length() {
    let body = |lines: &[&str]| [head(lines), b"2\r\nok\r\n0\r\n\r\n".to_vec()].concat();
    check(Asked::Other, &body(&[OK, "transfer-encoding: chunked"]), Whole);
    check(Asked::Other, &body(&[OK, "Transfer-Encoding:\tChunKed "]), Whole);
    for value in [
        "",
        "gzip",
        "identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked, chunked",
        "identity, chunked",
        "gzip, chunked",
        ",chunked",
        "chunked,",
        "chunked\u{a0}",
    ] {
        let wrong = body(&[OK, &format!("transfer-encoding: {value}")]);
        check(Asked::Other, &wrong, Wrong(Flaw::Coding));
    }
    let twice = body(&[OK, "transfer-encoding: chunked", "transfer-encoding: chunked"]);
    check(Asked::Other, &twice, Wrong(Flaw::Coding));
    check(Asked::Other, &body(&["HTTP/1.0 200 OK", "transfer-encoding: chunked"]), Wrong(Flaw::Coding));
    let (length, coding) = ("content-length: 0", "transfer-encoding: chunked");
    for lines in [[OK, length, coding], [OK, coding, length]] {
        check(Asked::Other, &body(&lines), Wrong(Flaw::LengthAndCoding));
    }
}

#[test]
fn a_chunk_is_its_size_in_hexadecimal_its_bytes_and_crlf() {
    let chunked = head(&[OK, "transfer-encoding: chunked"]);
    for (body, expected) in [
        ("0\r\n\r\n", Whole),
        ("00\r\n\r\n", Whole),
        ("A\r\n0123456789\r\n0\r\n\r\n", Whole),
        ("a;x\r\n0123456789\r\n0;y=\"z\"\r\n\r\n", Whole),
        ("2 ; x=1\r\nok\r\n0\r\n\r\n", Whole),
        ("0000000000000000002\r\nok\r\n0\r\n\r\n", Whole),
        ("2\r\nok\r\n", Open),
        ("7fffffffffffffff\r\n", Open),
        ("8000000000000000\r\n", Wrong(Flaw::Chunk)),
        ("10000000000000000\r\n", Wrong(Flaw::Chunk)),
        ("\r\n", Wrong(Flaw::Chunk)),
        ("0x2\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("-1\r\n", Wrong(Flaw::Chunk)),
        ("+2\r\nok\r\n", Wrong(Flaw::Chunk)),
        (" 2\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("2 \r\nok\r\n", Wrong(Flaw::Chunk)),
        ("2 ;\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("2;\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("2 x\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("g\r\n", Wrong(Flaw::Chunk)),
        ("2;x\x00y\r\nok\r\n", Wrong(Flaw::Chunk)),
        ("2;x\ry\r\nok\r\n", Wrong(Flaw::BareCr)),
        ("2\nok\r\n", Wrong(Flaw::BareLf)),
        ("2\r\nok0\r\n\r\n", Wrong(Flaw::Chunk)),
        ("2\r\nok\n0\r\n\r\n", Wrong(Flaw::Chunk)),
        ("2\r\nok\r0\r\n\r\n", Wrong(Flaw::Chunk)),
        ("2\r\nokay\r\n0\r\n\r\n", Wrong(Flaw::Chunk)),
    ] {
        check(Asked::Other, &[&chunked, body.as_bytes()].concat(), expected);
    }
}

#[test]
fn a_trailer_section_is_of_fields_and_frames_nothing() {
    let chunked = head(&[OK, "transfer-encoding: chunked"]);
    for (trailers, expected) in [
        ("x-sum: 1\r\ny: z\r\n", Whole),
        ("content-length: 5\r\n", Wrong(Flaw::Trailer)),
        ("Transfer-Encoding: chunked\r\n", Wrong(Flaw::Trailer)),
        ("x : y\r\n", Wrong(Flaw::FieldName)),
        ("HTTP/1.1 200 OK\r\n", Wrong(Flaw::FieldName)),
        ("x: y\n", Wrong(Flaw::BareLf)),
        ("x: y\r\n z\r\n", Wrong(Flaw::Folded)),
    ] {
        let body = format!("2\r\nok\r\n0\r\n{trailers}\r\n");
        check(Asked::Other, &[&chunked, body.as_bytes()].concat(), expected);
    }
}

#[test]
fn what_has_no_content_ends_with_its_head() {
    let (length, coding) = ("content-length: 5", "transfer-encoding: chunked");
    let (no_content, not_modified) = ("HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified");
    for (asked, lines, expected) in [
        (Asked::Head, &[OK, length][..], Whole),
        (Asked::Head, &[OK, coding], Whole),
        (Asked::Head, &[OK], Whole),
        (Asked::Head, &["HTTP/1.1 404 Not Found", length], Whole),
        (Asked::Head, &[OK, length, coding], Wrong(Flaw::LengthAndCoding)),
        (Asked::Other, &[not_modified, length], Whole),
        (Asked::Other, &[not_modified], Whole),
        (Asked::Other, &[no_content], Whole),
        (Asked::Other, &[no_content, "content-length: 0"], Whole),
        (Asked::Other, &[no_content, length], Wrong(Flaw::Contentless)),
        (Asked::Other, &[no_content, coding], Wrong(Flaw::Contentless)),
        (Asked::Other, &["HTTP/1.1 205 Reset Content", "content-length: 0"], Whole),
        (Asked::Other, &["HTTP/1.1 205 Reset Content", length], Wrong(Flaw::Contentless)),
        (Asked::Other, &["HTTP/1.1 205 Reset Content"], Open),
        (Asked::Connect, &[OK], Open),
        (Asked::Connect, &["HTTP/1.1 407 No", "content-length: 0"], Whole),
    ] {
        check(asked, &head(lines), expected);
    }
    let reset = head(&["HTTP/1.1 205 Reset Content", coding]);
    check(Asked::Other, &[&reset, &b"0\r\n\r\n"[..]].concat(), Whole);
    check(Asked::Other, &[&reset, &b"1\r\nx"[..]].concat(), Wrong(Flaw::Contentless));
    check(
        Asked::Other,
        &[head(&["HTTP/1.1 205 Reset Content"]), b"x".to_vec()].concat(),
        Wrong(Flaw::Contentless),
    );
    let close = [head(&[OK]), b"HTTP/1.1 200 OK\r\n\r\n\n\x00".to_vec()].concat();
    check(Asked::Other, &close, Open);
}

#[test]
fn interim_responses_are_heads_and_not_too_many() {
    let interim = |count: usize, more: &[&str]| {
        let lines = [&["HTTP/1.1 103 Early Hints", "link: </a>"], more].concat();
        [head(&lines).repeat(count), head(&[OK, "content-length: 0"])].concat()
    };
    check(Asked::Other, &interim(3, &[]), Whole);
    check(Asked::Other, &interim(1, &["content-length: 0"]), Whole);
    check(Asked::Other, &interim(4, &[]), Wrong(Flaw::Interims));
    check(Asked::Other, &interim(1, &["content-length: 2"]), Wrong(Flaw::Contentless));
    check(Asked::Other, &interim(1, &["transfer-encoding: chunked"]), Wrong(Flaw::Contentless));
    let with_body = [head(&["HTTP/1.1 100 Continue"]), b"body\r\n".to_vec()].concat();
    check(Asked::Other, &with_body, Wrong(Flaw::StatusLine));
    // They are counted for each request.
    let mut scanner = scanner(Asked::Other);
    for finals in 1..=3 {
        scanner.read(&interim(3, &[])).unwrap();
        assert_eq!((scanner.is_idle(), scanner.finals()), (true, finals));
        scanner.ask(Asked::Head);
    }
}

#[test]
fn protocols_are_switched_when_asked_only() {
    let switch = head(&["HTTP/1.1 101 Switching Protocols", "upgrade: x"]);
    check(Asked::Upgrade, &[&switch[..], b"any\nthing\x00"].concat(), Open);
    check(Asked::Other, &switch, Wrong(Flaw::UnaskedUpgrade));
    check(Asked::Head, &switch, Wrong(Flaw::UnaskedUpgrade));
    check(Asked::Upgrade, &head(&[OK, "content-length: 0"]), Whole);
}

#[test]
fn sections_lines_and_fields_have_a_limit() {
    let long = |length: usize| head(&[OK, "content-length: 0", &"x".repeat(length)]);
    check(Asked::Other, &long(2000), Wrong(Flaw::TooLarge));
    let endless = [&b"HTTP/1.1 200 "[..], &b"x".repeat(2000)].concat();
    assert_eq!(seen(Asked::Other, &endless, 100), Wrong(Flaw::TooLarge), "without an end of line");
    assert_eq!(seen(Asked::Other, b"HTTP/2", 1), Wrong(Flaw::StatusLine), "whatever comes after it");
    let many = |count: usize| head(&[&[OK, "content-length: 0"][..], &vec!["x: y"; count]].concat());
    check(Asked::Other, &many(7), Whole);
    check(Asked::Other, &many(8), Wrong(Flaw::TooLarge));
    let chunked = head(&[OK, "transfer-encoding: chunked"]);
    let trailers = |count: usize| [&chunked[..], b"0\r\n", &b"x: y\r\n".repeat(count), b"\r\n"].concat();
    check(Asked::Other, &trailers(8), Whole);
    check(Asked::Other, &trailers(9), Wrong(Flaw::TooLarge));
    check(Asked::Other, &[&chunked[..], b"2;", &b"x".repeat(5000)].concat(), Wrong(Flaw::TooLarge));
    // Each section anew.
    let heads = [head(&["HTTP/1.1 103 Early Hints", &format!("x: {}", "y".repeat(900))]), many(7)].concat();
    check(Asked::Other, &heads, Whole);
}

#[test]
fn bytes_that_nobody_asked_for_end_the_connection() {
    let mut idle = ResponseScanner::new(LIMITS);
    assert_eq!(idle.clone().read(b""), Ok(0));
    assert_eq!(idle.read(b"HTTP/1.1 200 OK\r\n"), Err(Flaw::Unasked));
    idle.ask(Asked::Other);
    assert_eq!(idle.read(b"H"), Err(Flaw::Unasked), "also when a request follows");
    let mut two = scanner(Asked::Other);
    two.ask(Asked::Other);
    assert_eq!(two.read(b"H"), Err(Flaw::Unasked), "one request at a time");
}

#[test]
fn what_comes_with_the_answer_to_a_head_is_left_out_and_ends_the_connection() {
    let whole = head(&[OK, "content-length: 2"]);
    for more in [&b"ok"[..], b"HTTP/1.1 200 OK\r\n\r\n"] {
        let mut scanner = scanner(Asked::Head);
        assert_eq!(scanner.read(&[&whole[..], more].concat()), Ok(whole.len()));
        assert!(scanner.is_beyond() && !scanner.is_idle());
        assert_eq!(scanner.clone().read(b"x"), Err(Flaw::Unasked));
        scanner.ask(Asked::Other);
        assert_eq!(scanner.read(&whole), Err(Flaw::Unasked), "nor is anything asked on it");
    }
    let interim = [head(&["HTTP/1.1 103 Early Hints"]), whole.clone()].concat();
    assert_eq!(
        scanner(Asked::Head).read(&interim),
        Ok(interim.len()),
        "an answer goes on after an interim one"
    );
    let other = [&head(&[OK, "content-length: 0"])[..], b"ok"].concat();
    assert_eq!(scanner(Asked::Other).read(&other), Err(Flaw::Unasked), "of others nothing is taken");
}
