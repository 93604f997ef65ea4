//! An origin that does what a test scripts, byte by byte: answer, drip, stall, break off, reset.
//!
//! Knows raw sockets and one thread per connection; records every request that it gets and counts
//! connections. A script is chosen by a closure when the request has arrived.
//! Must not know: that a proxy is asking.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::wire::{self, Body, Fields};
use super::{Gate, PATIENCE};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Request target, as sent.
    pub target: String,
    /// Fields, in order.
    pub headers: Fields,
    /// Body, decoded from its framing; empty where the origin answers early.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Fields,
    /// Which request for this target it is, from 1.
    pub count: usize,
    /// Which connection it came on, from 1.
    pub connection: usize,
}

impl Request {
    /// First value of a field, `""` where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }
}

/// What the origin does with one request, step by step. The connection is then kept open, unless
/// the last step ends it.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    /// Bytes as they are.
    Send(Vec<u8>),
    /// Bytes of a body: left out for HEAD.
    Body(Vec<u8>),
    /// The same bytes so many times.
    Repeat(Vec<u8>, u64),
    Wait(Gate),
    Close,
    Reset,
    Stall,
    Echo,
}

impl Script {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A whole response with its Content-Length.
    pub fn respond(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len().to_string();
        let mut fields = headers.to_vec();
        if !matches!(status, 100..200 | 204 | 304) {
            fields.push(("Content-Length", &length));
        }
        Self::new().head(status, &fields).step(Step::Body(body.to_vec()))
    }

    /// `200 OK` with its Content-Length.
    pub fn ok(body: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Self {
        Self::respond(200, headers, body)
    }

    /// What another script does, after the steps so far.
    pub fn then(self, next: Self) -> Self {
        Self([self.0, next.0].concat())
    }

    /// What [`Script::ok`] does, after the steps so far.
    pub fn then_ok(self, body: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Self {
        self.then(Self::ok(body, headers))
    }

    /// The head of a chunked `200 OK`; [`Script::chunk`] and [`Script::last_chunk`] follow.
    pub fn chunked(headers: &[(&str, &str)]) -> Self {
        let mut fields = headers.to_vec();
        fields.push(("Transfer-Encoding", "chunked"));
        Self::new().head(200, &fields)
    }

    /// Sends a head with these fields and no others.
    pub fn head(self, status: u16, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.bytes(head + "\r\n")
    }

    /// Sends an interim response: a head without more.
    pub fn interim(status: u16, headers: &[(&str, &str)]) -> Self {
        Self::new().head(status, headers)
    }

    /// Sends bytes as they are.
    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Sends one chunk.
    pub fn chunk(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Body(wire::chunk(bytes.as_ref())))
    }

    /// Ends a chunked body.
    pub fn last_chunk(self) -> Self {
        self.step(Step::Body(wire::LAST_CHUNK.to_vec()))
    }

    /// Ends a chunked body with trailer fields.
    pub fn trailers(self, fields: &[(&str, &str)]) -> Self {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.step(Step::Body(format!("0\r\n{lines}\r\n").into_bytes()))
    }

    /// Sends the same bytes so many times, as fast as they are taken; see [`Origin::bytes_sent`].
    pub fn repeat(self, bytes: impl AsRef<[u8]>, times: u64) -> Self {
        self.step(Step::Repeat(bytes.as_ref().to_vec(), times))
    }

    /// Waits at a gate until the test opens it.
    pub fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Closes the connection cleanly.
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// Resets the connection.
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Falls silent until the peer goes away.
    pub fn stall(self) -> Self {
        self.step(Step::Stall)
    }

    /// Sends back whatever comes, until the peer ends: for an upgraded connection.
    pub fn echo(self) -> Self {
        self.step(Step::Echo)
    }

    fn step(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// A running origin; dropping it closes its listener and every connection.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    state: Arc<State>,
}

type Behaviour = dyn Fn(&Request) -> Script + Send + Sync;

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    answers_early: bool,
    bytes_sent: AtomicU64,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    counts: HashMap<String, usize>,
    connections: usize,
    open: HashMap<usize, TcpStream>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("requests", &self.seen.lock().unwrap().requests).finish_non_exhaustive()
    }
}

impl Origin {
    /// Starts on a free port. `behaviour` is asked once a request has arrived whole.
    pub fn start(behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), behaviour)
    }

    /// Starts on a given address: again where an earlier one was stopped.
    pub fn start_on(
        addr: SocketAddr,
        behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::launch(addr, State::default(), Arc::new(behaviour))
    }

    /// Starts an origin that answers when it has the head, ends its side, and ignores the body.
    pub fn early(behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        let state = State { answers_early: true, ..State::default() };
        Self::launch("127.0.0.1:0".parse().unwrap(), state, Arc::new(behaviour))
    }

    /// Starts an origin that answers everything with `200 OK`, this body and these fields.
    pub fn ok(body: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Self {
        let script = Script::ok(body, headers);
        Self::start(move |_| script.clone())
    }

    fn launch(addr: SocketAddr, state: State, behaviour: Arc<Behaviour>) -> Self {
        let listener = TcpListener::bind(addr).unwrap_or_else(|error| panic!("origin on {addr}: {error}"));
        // The standard library's 128 is too few for a crowd that comes at once.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let origin = Self { addr: listener.local_addr().unwrap(), state: Arc::new(state) };
        let state = Arc::clone(&origin.state);
        std::thread::spawn(move || accept(&listener, &state, &behaviour));
        origin
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Requests that came for this target.
    pub fn count(&self, target: &str) -> usize {
        self.state.seen.lock().unwrap().counts.get(target).copied().unwrap_or(0)
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.state.seen.lock().unwrap().requests.clone()
    }

    /// The latest request; panics where there was none.
    pub fn last(&self) -> Request {
        self.state.seen.lock().unwrap().requests.last().cloned().expect("the origin had no request")
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.seen.lock().unwrap().connections
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.state.seen.lock().unwrap().open.len()
    }

    /// Bytes that the peers' sockets have taken so far.
    pub fn bytes_sent(&self) -> u64 {
        self.state.bytes_sent.load(Ordering::Acquire)
    }

    /// Waits until so many requests have come in all; panics if they do not.
    pub fn wait_for_requests(&self, count: usize) {
        self.wait(&format!("{count} requests"), |seen| seen.requests.len() >= count);
    }

    /// Waits until exactly so many connections are open; panics if it does not come to that.
    pub fn wait_for_open_connections(&self, count: usize) {
        self.wait(&format!("{count} open connections"), |seen| seen.open.len() == count);
    }

    /// Closes every connection that is open now, and goes on listening.
    pub fn drop_connections(&self) {
        for stream in self.state.seen.lock().unwrap().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening and closes every connection. When this returns, connecting is refused.
    pub fn stop(&self) {
        if !self.state.stopping.swap(true, Ordering::AcqRel) {
            // Wakes the thread in accept(), which then lets go of the listener.
            let _ = TcpStream::connect(self.addr);
            assert!(super::within(PATIENCE, || TcpStream::connect(self.addr).is_err()), "still listening");
        }
        self.drop_connections();
    }

    fn wait(&self, what: &str, met: impl Fn(&Seen) -> bool) {
        let seen = self.state.seen.lock().unwrap();
        let (seen, timeout) =
            self.state.changed.wait_timeout_while(seen, PATIENCE, |seen| !met(seen)).unwrap();
        assert!(!timeout.timed_out(), "no {what} at the origin: {:?}", seen.requests);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, behaviour: &Arc<Behaviour>) {
    for stream in listener.incoming() {
        if state.stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (state, behaviour) = (Arc::clone(state), Arc::clone(behaviour));
        let number = state.opened(&stream);
        std::thread::spawn(move || {
            // An error here is the peer going away, or the script's own ending.
            let _ = converse(&stream, number, &state, &*behaviour);
            state.closed(number);
        });
    }
}

impl State {
    fn opened(&self, stream: &TcpStream) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.connections += 1;
        let number = seen.connections;
        seen.open.insert(number, stream.try_clone().unwrap());
        self.changed.notify_all();
        number
    }

    fn closed(&self, number: usize) {
        let stream = self.seen.lock().unwrap().open.remove(&number);
        if let Some(stream) = stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Lets go of our second handle, so that dropping the other one is what ends the connection.
    fn forget(&self, number: usize) {
        self.seen.lock().unwrap().open.remove(&number);
        self.changed.notify_all();
    }

    fn record(&self, mut request: Request) -> Request {
        let mut seen = self.seen.lock().unwrap();
        let count = seen.counts.entry(request.target.clone()).or_default();
        *count += 1;
        request.count = *count;
        seen.requests.push(request.clone());
        self.changed.notify_all();
        request
    }
}

fn converse(stream: &TcpStream, number: usize, state: &State, behaviour: &Behaviour) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = receive(&mut reader, stream, number, state.answers_early)? {
        let request = state.record(request);
        for step in behaviour(&request).0 {
            perform(step, &request, &mut reader, stream, state)?;
        }
        if state.answers_early {
            // Closing with the body unread would reset the connection and take the answer with it.
            stream.shutdown(Shutdown::Write)?;
            return io::copy(&mut reader, &mut io::sink()).map(drop);
        }
        if request.headers.lists("connection", "close") {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request; `None` where the peer closed in place of sending one.
fn receive(
    reader: &mut BufReader<&TcpStream>,
    mut stream: &TcpStream,
    connection: usize,
    without_body: bool,
) -> io::Result<Option<Request>> {
    let Some(head) = wire::read_head(reader)? else { return Ok(None) };
    let mut parts = head.first.split(' ').map(str::to_owned);
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut body = Body::default();
    if let Some(framing) = wire::stated_framing(&head.fields)?
        && !without_body
    {
        if head.fields.lists("expect", "100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        wire::read_body(reader, framing, &mut body)?;
    }
    let (headers, body, trailers) = (head.fields, body.bytes, body.trailers);
    Ok(Some(Request { method, target, headers, body, trailers, count: 0, connection }))
}

/// An error ends the connection: also the one that the script asked for.
fn perform(
    step: Step,
    request: &Request,
    reader: &mut BufReader<&TcpStream>,
    stream: &TcpStream,
    state: &State,
) -> io::Result<()> {
    match step {
        Step::Body(_) if request.method == "HEAD" => Ok(()),
        Step::Send(bytes) | Step::Body(bytes) => write_counted(stream, &bytes, state),
        Step::Repeat(bytes, times) => (0..times).try_for_each(|_| write_counted(stream, &bytes, state)),
        Step::Wait(gate) if gate.pass() => Ok(()),
        Step::Wait(_) => Err(over("the gate stayed shut")),
        Step::Close => Err(over("closed by the script")),
        Step::Reset => {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            state.forget(request.connection);
            Err(over("reset by the script"))
        }
        Step::Stall => io::copy(reader, &mut io::sink()).map(drop).and(Err(over("the peer went away"))),
        Step::Echo => echo(reader, stream).and(Err(over("the peer ended"))),
    }
}

/// In pieces, so that the count tells how far a slow reader has let us come.
fn write_counted(mut stream: &TcpStream, bytes: &[u8], state: &State) -> io::Result<()> {
    for piece in bytes.chunks(16 * 1024) {
        stream.write_all(piece)?;
        state.bytes_sent.fetch_add(piece.len() as u64, Ordering::AcqRel);
    }
    Ok(())
}

fn echo(reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}

fn over(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Scripted")
}
