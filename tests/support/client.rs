//! A client of HTTP/1.1 that sees every byte: raw requests in, exactly what came back out.
//!
//! Knows a TCP connection and its timeouts. A response that ends early is not an error here but a
//! [`Response`] with `complete: false`.
//! Must not know: caching, or what Larder ought to answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::wire::{self, Body, Fields, Framing, Head};

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Fields, in order.
    pub headers: Fields,
    /// Body, decoded from its framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Fields,
    /// False where the connection ended, or fell silent, before the body did.
    pub complete: bool,
    /// How the body was framed; `None` where the response has none by definition.
    pub framing: Option<Framing>,
    /// Status codes of interim responses (1xx but 101) that came first.
    pub interim: Vec<u16>,
    /// The fields of each of those.
    pub interim_headers: Vec<Fields>,
    /// Version on the status line, such as `HTTP/1.1`.
    pub version: String,
}

impl Response {
    /// First value of a field, `""` where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics, showing the body, if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

/// `GET path` on a connection of its own. Panics if no response head comes.
pub fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    request(addr, "GET", path, headers, b"")
}

/// Any request with a body of known length, on a connection of its own. Panics if no head comes.
pub fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut connection = Connection::open(addr);
    connection.request(method, path, headers, body)
}

/// Sends bytes as they are and reads one response. Panics if no head comes.
pub fn send(addr: SocketAddr, bytes: &[u8]) -> Response {
    let mut connection = Connection::open(addr);
    connection.write(bytes);
    let method = String::from_utf8_lossy(bytes.split(|b| *b == b' ').next().unwrap_or_default()).into_owned();
    connection.response(&method)
}

/// A connection that is kept open.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    addr: SocketAddr,
}

impl Connection {
    /// Connects; panics where that fails.
    pub fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).unwrap_or_else(|error| panic!("no connection to {addr}: {error}"))
    }

    /// Connects, with [`PATIENCE`] for connecting, reading and writing.
    pub fn try_open(addr: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&addr, PATIENCE)?, addr)
    }

    fn of(stream: TcpStream, addr: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), addr })
    }

    /// Connects from another address of this machine, such as 127.0.0.2.
    pub fn open_from(from: &str, addr: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
        socket.connect_timeout(&addr.into(), PATIENCE).unwrap();
        Self::of(socket.into(), addr).unwrap()
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sets how long one read may wait.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream().set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends bytes as they are; panics if the peer does not take them.
    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap_or_else(|error| panic!("writing to {}: {error}", self.addr));
    }

    /// Sends bytes as they are.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends the head of a request, with a `Host` unless one is given.
    pub fn write_head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let bytes = head(self.addr, method, path, headers);
        self.write(bytes.as_bytes());
    }

    /// Sends a request with a body of known length and reads its response.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.write_request(method, path, headers, body);
        self.response(method)
    }

    /// Sends a request with a body of known length.
    pub fn write_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if !body.is_empty() {
            headers.push(("Content-Length", &length));
        }
        let mut bytes = head(self.addr, method, path, &headers).into_bytes();
        bytes.extend_from_slice(body);
        self.write(&bytes);
    }

    /// Reads a whole response; panics if no head comes.
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|error| panic!("no response from {}: {error}", self.addr))
    }

    /// Reads a whole response; an error where no whole head comes.
    pub fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.try_response_head(method)?;
        self.finish(&mut response);
        Ok(response)
    }

    /// Reads a response's head alone; panics if none comes. [`Connection::read_some`] and
    /// [`Connection::finish`] read on.
    pub fn response_head(&mut self, method: &str) -> Response {
        self.try_response_head(method).unwrap_or_else(|error| panic!("no head from {}: {error}", self.addr))
    }

    /// Reads a response's head alone, after any interim ones.
    pub fn try_response_head(&mut self, method: &str) -> io::Result<Response> {
        let (mut interim, mut interim_headers) = (Vec::new(), Vec::new());
        loop {
            let head = wire::read_head(&mut self.reader)?
                .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a response"))?;
            let response = started(head, method)?;
            if !(100..200).contains(&response.status) || response.status == 101 {
                return Ok(Response { interim, interim_headers, ..response });
            }
            interim.push(response.status);
            interim_headers.push(response.headers);
        }
    }

    /// Reads one interim response (1xx); panics if something else comes.
    pub fn interim(&mut self) -> u16 {
        self.interim_head().status
    }

    /// The same, with its fields.
    pub fn interim_head(&mut self) -> Response {
        let head = wire::read_head(&mut self.reader).unwrap().expect("closed before an interim response");
        let response = started(head, "GET").unwrap();
        let status = response.status;
        assert!((100..200).contains(&status), "{status} in place of an interim response");
        response
    }

    /// Everything that comes until the peer closes, as it is.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{} does not close: {e}", self.addr));
        bytes
    }

    /// Reads the rest of a response's body.
    pub fn finish(&mut self, response: &mut Response) {
        let mut body = Body { bytes: std::mem::take(&mut response.body), ..Body::default() };
        response.complete = match response.framing {
            Some(framing) => wire::read_body(&mut self.reader, framing, &mut body).is_ok(),
            None => true,
        };
        (response.body, response.trailers) = (body.bytes, body.trailers);
    }

    /// Reads exactly `length` bytes of what comes, framing included; panics if they do not come.
    /// For a body that is still on its way, or for a connection that was upgraded.
    pub fn read_some(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{length} bytes did not come: {e}"));
        bytes
    }

    /// Reads one chunk of a chunked body; empty for the last one, whose trailers are left unread.
    pub fn read_chunk(&mut self) -> Vec<u8> {
        let line = wire::read_line(&mut self.reader).unwrap().expect("closed before a chunk");
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let bytes = self.read_some(length);
        if length > 0 {
            assert_eq!(self.read_some(2), b"\r\n");
        }
        bytes
    }

    /// Whether the peer closes, with nothing more sent; waits for it as long as a read may.
    pub fn closes(&mut self) -> bool {
        let came = self.reader.fill_buf();
        let is_closed = match &came {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
            }
        };
        if !is_closed {
            eprintln!("in place of the end came {:?}", came.map(String::from_utf8_lossy));
        }
        is_closed
    }

    /// Ends our side; the peer may still send.
    pub fn end_writing(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away with a reset in place of a clean end.
    pub fn reset(self) {
        let stream = self.reader.into_inner();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn head(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {addr}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn started(head: Head, method: &str) -> io::Result<Response> {
    let mut parts = head.first.splitn(3, ' ');
    let version = parts.next().unwrap_or_default().to_owned();
    let status =
        parts.next().and_then(|code| code.parse::<u16>().ok()).filter(|_| version.starts_with("HTTP/1."));
    let status = status.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is no status line", head.first))
    })?;
    Ok(Response {
        status,
        framing: response_framing(method, status, &head.fields)?,
        headers: head.fields,
        body: Vec::new(),
        trailers: Fields::default(),
        complete: false,
        interim: Vec::new(),
        interim_headers: Vec::new(),
        version,
    })
}

/// RFC 9112 §6.3: HEAD, 1xx, 204 and 304 have no body whatever their fields say.
fn response_framing(method: &str, status: u16, fields: &Fields) -> io::Result<Option<Framing>> {
    if method == "HEAD" || (100..200).contains(&status) || status == 204 || status == 304 {
        return Ok(None);
    }
    Ok(Some(wire::stated_framing(fields)?.unwrap_or(Framing::Close)))
}
