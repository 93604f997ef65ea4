//! The origin of all attack cases: keeps every byte of every request, and says what of it is not plainly
//! well formed, as the strictest and the most careless of servers would each stumble over it.
//!
//! Knows HTTP/1.1 syntax, and how each case wants its origin to behave. Must not know: that a proxy asks,
//! or what is safe.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::script::{Attack, Case, Origin};
use super::support::PATIENCE;

/// What only concerns one connection, and so must not come from a proxy's client (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
];

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Method, as sent.
    pub method: String,
    /// Target, as sent.
    pub target: String,
    /// Fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Content, as far as it came.
    pub body: Vec<u8>,
    /// Whether all of it came.
    pub whole: bool,
    /// What is not plainly well formed.
    pub problems: Vec<String>,
}

impl Request {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The number of the case that it belongs to: of its target, else of its Host.
    fn case(&self) -> Option<usize> {
        number_in(&self.target).or_else(|| self.field("host").and_then(number_in))
    }
}

/// `17` of `/c17/x`.
fn number_in(text: &str) -> Option<usize> {
    let mut rest = text;
    while let Some(at) = rest.find('c') {
        rest = &rest[at + 1..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if let Ok(number) = rest[..digits].parse() {
            return Some(number);
        }
    }
    None
}

/// A running origin.
pub struct Target {
    addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    cases: Vec<Case>,
    requests: Mutex<HashMap<Option<usize>, Vec<Request>>>,
}

impl Target {
    /// Starts it, for these cases.
    pub fn start(cases: &[Case]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).listen(1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State { cases: cases.to_vec(), requests: Mutex::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // An error is the peer going away.
                std::thread::spawn(move || drop(converse(&stream, &state)));
            }
        });
        Self { addr, state }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What has come of a case so far, in order; of `None`, what belongs to no case.
    pub fn requests(&self, case: Option<usize>) -> Vec<Request> {
        self.state.requests.lock().unwrap().get(&case).cloned().unwrap_or_default()
    }
}

impl State {
    /// Keeps a request, and tells how many of its case there are now.
    fn keep(&self, request: &Request) -> usize {
        let mut requests = self.requests.lock().unwrap();
        let of_case = requests.entry(request.case()).or_default();
        of_case.push(request.clone());
        of_case.iter().filter(|it| it.target == request.target).count()
    }

    fn case(&self, request: &Request) -> Option<&Case> {
        self.cases.get(request.case()?.checked_sub(1)?)
    }
}

fn converse(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = head(&mut reader)? {
        let early = state.case(&request).is_some_and(|it| it.origin == Origin::Early);
        if early {
            state.keep(&request);
            return answer_early(&request, &mut reader, stream);
        }
        let read = body(&mut reader, &mut request);
        let count = state.keep(&request);
        read?;
        let case = state.case(&request);
        let (bytes, ends) = answer(case, &request, count);
        (&mut &*stream).write_all(&bytes)?;
        if ends {
            stream.shutdown(Shutdown::Write)?;
        }
    }
    Ok(())
}

/// What a case's origin says to a request, and whether that is the end of the connection.
fn answer(case: Option<&Case>, request: &Request, count: usize) -> (Vec<u8>, bool) {
    let brief = format!("{} {}", request.method, request.target);
    let plain = |fields: &str, body: &str| (ok(request, fields, body), false);
    match case.map(|case| (&case.origin, &case.attack)) {
        Some((Origin::Reflects, _)) => plain("Cache-Control: max-age=60\r\n", &reflection(request)),
        Some((Origin::Page, _)) => {
            let fields = "Content-Type: text/html\r\nLast-Modified: Thu, 01 Jan 2015 00:00:00 GMT\r\n";
            plain(fields, &format!("page {count} of a user"))
        }
        Some((Origin::Errs(status, word), _)) => match reflection(request).to_lowercase().contains(word) {
            true => {
                let head = format!("HTTP/1.1 {status} Error\r\nCache-Control: max-age=60\r\n");
                (format!("{head}Content-Length: 4\r\n\r\nevil").into_bytes(), false)
            }
            false => plain("Cache-Control: max-age=60\r\n", "fine"),
        },
        Some((Origin::Answers, Attack::Answer(bytes))) if count == 1 && is_first(case, request) => {
            (bytes.clone(), true)
        }
        Some((Origin::AnswersAndStays, Attack::Answer(bytes))) if count == 1 && is_first(case, request) => {
            (bytes.clone(), false)
        }
        _ => plain("Cache-Control: no-store\r\n", &brief),
    }
}

fn is_first(case: Option<&Case>, request: &Request) -> bool {
    case.is_some_and(|case| request.target == format!("/c{}", case.number))
}

fn ok(request: &Request, fields: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    if request.method == "HEAD" { head.into_bytes() } else { format!("{head}{body}").into_bytes() }
}

/// Everything of a request but what the proxy says of itself.
fn reflection(request: &Request) -> String {
    let fields: String = request
        .fields
        .iter()
        .filter(|(name, _)| name != "via")
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    let content = String::from_utf8_lossy(&request.body);
    format!("{} {}\n{fields}\n{content}", request.method, request.target)
}

/// Answers at once; then swallows whatever comes. A request of somebody else that a proxy sent on this
/// connection would wait for its answer in vain.
fn answer_early(request: &Request, reader: &mut impl Read, mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(&ok(request, "Cache-Control: no-store\r\n", "early"))?;
    io::copy(reader, &mut io::sink()).map(drop)
}

/// Reads a head; `None` where the peer ended before its first byte.
fn head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        let before = raw.len();
        reader.read_until(b'\n', &mut raw)?;
        if raw.len() == before {
            let left_over = Request {
                problems: vec![format!("half a head: {}", raw.escape_ascii())],
                ..Request::default()
            };
            return Ok((!raw.is_empty()).then_some(left_over));
        }
    }
    let mut request = Request::default();
    let mut lines =
        raw[..raw.len() - 4].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if raw.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') {
        request.problems.push("a bare line feed".to_owned());
    }
    request_line(lines.next().unwrap_or_default(), &mut request);
    lines.for_each(|line| field_line(line, &mut request));
    judge_fields(&mut request);
    Ok(Some(request))
}

fn request_line(line: &[u8], request: &mut Request) {
    let text = String::from_utf8_lossy(line).into_owned();
    let parts: Vec<&str> = text.split(' ').collect();
    match parts[..] {
        [method, target, "HTTP/1.1"] if is_token(method.as_bytes()) => {
            let form = target.starts_with('/') || (target == "*" && method == "OPTIONS");
            if !form || target.contains('#') || !target.bytes().all(|b| b.is_ascii_graphic()) {
                request.problems.push(format!("target {target:?}"));
            }
            (request.method, request.target) = (method.to_owned(), target.to_owned());
        }
        _ => {
            request.problems.push(format!("request line {text:?}"));
            request.target = text;
        }
    }
}

fn field_line(line: &[u8], request: &mut Request) {
    let text = String::from_utf8_lossy(line).into_owned();
    let (name, value) = text.split_once(':').unwrap_or((&text, ""));
    let controls = line.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f);
    if !is_token(name.as_bytes()) || !text.contains(':') || controls {
        request.problems.push(format!("field line {text:?}"));
    }
    let value = value.trim_matches([' ', '\t']);
    request.fields.push((name.to_ascii_lowercase(), value.to_owned()));
}

fn judge_fields(request: &mut Request) {
    let mut problems = Vec::new();
    let all = |name: &str| -> Vec<&str> {
        request.fields.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str()).collect()
    };
    let (hosts, codings, lengths) = (all("host"), all("transfer-encoding"), all("content-length"));
    if !matches!(hosts[..], [host] if is_host(host)) {
        problems.push(format!("Host {hosts:?}"));
    }
    match (&codings[..], &lengths[..]) {
        ([], []) | (["chunked"], []) => {}
        ([], [length]) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {}
        _ => problems.push(format!("Transfer-Encoding {codings:?}, Content-Length {lengths:?}")),
    }
    for (name, value) in &request.fields {
        // Servers that hand fields on as variables tell no `_` from a `-`.
        let plain = name.replace('_', "-");
        let framing = ["transfer-encoding", "content-length", "host"].contains(&plain.as_str());
        if HOP_BY_HOP.contains(&plain.as_str()) || (framing && plain != *name) {
            problems.push(format!("{name}: {value}"));
        }
    }
    request.problems.append(&mut problems);
}

/// A name of letters, digits, dots, dashes and underscores, or an address in brackets; perhaps a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let address = |it: &str| it.parse::<std::net::Ipv6Addr>().is_ok();
    let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inside) => address(inside),
        None => !host.is_empty() && host.chars().all(name),
    };
    host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|_| !port.starts_with('+')))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Reads the content; an error where it does not come whole.
fn body(reader: &mut impl BufRead, request: &mut Request) -> io::Result<()> {
    if request.field("transfer-encoding").is_some() {
        chunks(reader, request)?;
    } else if let Some(length) = request.field("content-length") {
        let length = length.parse().unwrap_or(0);
        exactly(reader, length, &mut request.body)?;
    }
    request.whole = true;
    Ok(())
}

fn chunks(reader: &mut impl BufRead, request: &mut Request) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let size = line.strip_suffix(b"\r\n").and_then(|it| std::str::from_utf8(it).ok());
        let Some(size) =
            size.filter(|it| !it.starts_with('+')).and_then(|it| u64::from_str_radix(it, 16).ok())
        else {
            if !line.is_empty() {
                request.problems.push(format!("chunk size {}", line.escape_ascii()));
            }
            return Err(io::ErrorKind::InvalidData.into());
        };
        exactly(reader, size, &mut request.body)?;
        let mut end = Vec::new();
        reader.read_until(b'\n', &mut end)?;
        if end != b"\r\n" {
            if !end.is_empty() {
                request.problems.push(format!("after a chunk: {}", end.escape_ascii()));
            }
            return Err(io::ErrorKind::InvalidData.into());
        }
        if size == 0 {
            return Ok(());
        }
    }
}

fn exactly(reader: &mut impl Read, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let read = reader.take(length).read_to_end(into)?;
    if u64::try_from(read).is_ok_and(|read| read == length) {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
