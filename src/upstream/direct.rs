//! A connection to an origin that is spoken to without hyper: requests without content, and their answers.
//!
//! Most requests to an origin are a head alone. For them hyper's client takes a task beside that of who asks, two
//! channels between the two and two buffers, which cost more than all that is said. Here who asks writes and reads. What
//! an answer may be is judged by the scanner of [`wire`](crate::wire), as it is for hyper, before any of it is taken;
//! what is left to do is to cut it up ([`answer`](super::answer)).
//!
//! A connection has a keeper, a task that sees to what nobody who asks could: that it is closed when its time is over
//! ([`Due`]), whether or not anybody reads, and when something comes on it while nobody has asked for anything.
//! Must not know: the pool's queue, retries, what an answer is for.
//!
//! Cancellation: who asks and is dropped drops the [`Conn`](super::connection::Conn), which closes the socket; nothing
//! is ever asked on it again.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::answer;
use super::body::{RequestBody, Sent};
use super::connection::{Cause, Unanswered};
use super::due::Due;
use super::pool::Slot;
use super::socket::{peek, peer_gone, refused};
use crate::fields::hop;
use crate::interim::Interim;
use crate::scratch;
use crate::wire::{Asked, Flaw, Part, ResponseScanner};

/// Bytes of the first read of an answer at most: what comes with a head is copied. On a connection whose last answer was
/// [large](LARGE), little more than a head: what follows is then read to where it stays.
const FIRST: usize = 16 * 1024;
const FIRST_OF_LARGE: usize = 4 * 1024;
/// Bytes of content that make an answer large, beside what has come with its head.
const LARGE: u64 = 32 * 1024;
/// Pieces of content that are smaller are copied out of the buffer that they were read into, and it is used again.
const SMALL: usize = 16 * 1024;

/// A connection to an origin.
pub(super) struct Direct {
    /// Nothing once it is closed, or hyper has it.
    open: Mutex<Option<Open>>,
    keeper: OnceLock<Waker>,
    due: Arc<Due>,
}

/// What is open of it.
pub(super) struct Open {
    pub(super) stream: TcpStream,
    pub(super) scanner: ResponseScanner,
    pub(super) slot: Slot,
    /// Who waits for what comes next.
    reader: Option<Waker>,
    /// The last answer was the last: its origin has said so, or has sent more than that.
    spoiled: bool,
    /// Bytes of the next first read at most.
    first: usize,
}

impl Direct {
    pub(super) fn new(stream: TcpStream, scanner: ResponseScanner, slot: Slot, due: Arc<Due>) -> Arc<Self> {
        let open = Open { stream, scanner, slot, reader: None, spoiled: false, first: FIRST };
        Arc::new(Self { open: Mutex::new(Some(open)), keeper: OnceLock::new(), due })
    }

    /// Has its keeper look at once by when its exchange is over.
    pub(super) fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.wake_by_ref();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open.lock().is_none()
    }

    /// What it consists of, for hyper; nothing of it is left here.
    pub(super) fn take(&self) -> Option<Open> {
        self.open.lock().take()
    }

    /// Closes it. Who waits for something that was to come on it is told.
    pub(super) fn close(&self) {
        // Not under the lock: its slot goes to others.
        let open = self.open.lock().take();
        if let Some(reader) = open.and_then(|mut open| open.reader.take()) {
            reader.wake();
        }
    }

    /// Whether it can wait for the next request: the answer has ended, and nothing has come after it. What comes from
    /// now on is for its keeper to see.
    pub(super) fn rests(&self) -> bool {
        let mut open = self.open.lock();
        let Some(line) = open.as_mut().filter(|line| line.scanner.is_idle() && !line.spoiled) else {
            return false;
        };
        // Who has asked may be over.
        line.reader = None;
        // A keeper that has not run yet looks by itself.
        let Some(keeper) = self.keeper.get() else { return true };
        match line.poll_unasked(&mut Context::from_waker(keeper)) {
            Poll::Pending => true,
            Poll::Ready(came) => {
                line.count_unasked(&came);
                false
            }
        }
    }

    /// Sends a request without content, and waits for its answer's head. Gives with it what has come of the content.
    ///
    /// # Errors
    /// When none came: the connection is of no use any more.
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: &Request<RequestBody>,
        asked: Asked,
        sent: &Sent,
        interim: Option<&Interim>,
    ) -> Result<Response<Content>, Unanswered> {
        let mut asking = Asking {
            words: answer::request(request, request.body().ready()),
            written: 0,
            began: false,
            deaf: false,
            came: Vec::new(),
            asked,
            sent,
            interim,
        };
        let answer = poll_fn(|cx| self.poll_ask(cx, &mut asking)).await;
        match answer {
            Ok((head, ready)) => Ok(head.map(|()| Content::new(Arc::clone(self), ready))),
            Err(error) => Err(Unanswered { cause: Cause::Direct(error), unsent: !asking.began }),
        }
    }

    fn poll_ask(&self, cx: &mut Context<'_>, asking: &mut Asking<'_>) -> Poll<io::Result<Answer>> {
        let mut open = self.open.lock();
        let Some(line) = open.as_mut() else { return Poll::Ready(Err(closed())) };
        line.poll_write(cx, asking)?;
        let answer = line.poll_head(cx, asking);
        if answer.is_pending() {
            line.wait(cx);
        }
        answer
    }

    /// What comes next of an answer's content: at most `most` bytes, none only at the end.
    fn poll_content(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        content: &mut Ready,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let mut open = self.open.lock();
        let Some(line) = open.as_mut() else { return Poll::Ready(Err(closed())) };
        let polled = line.poll_content(cx, most, content, buffer);
        if polled.is_pending() {
            line.wait(cx);
        }
        // It has ended with its connection.
        let over =
            (polled.is_ready() && line.scanner.ends_with_connection() && content.ended).then(|| open.take());
        drop(open);
        drop(over);
        polled
    }
}

/// An answer's head, and what came with it.
type Answer = (Response<()>, Ready);

/// A request on its way.
struct Asking<'a> {
    words: Vec<u8>,
    written: usize,
    /// The kernel has taken some of it.
    began: bool,
    /// The origin has gone, and may have answered before it went.
    deaf: bool,
    /// The beginning of a head whose end has not come.
    came: Vec<u8>,
    asked: Asked,
    sent: &'a Sent,
    interim: Option<&'a Interim>,
}

/// What has come of an answer's content and was not given out.
#[derive(Debug, Default)]
pub(super) struct Ready {
    data: Bytes,
    /// The trailer section as it came, its empty line among it.
    trailers: Vec<u8>,
    /// All of it has come.
    ended: bool,
}

impl Open {
    /// Waits under this name from now on; the socket has been asked already.
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Ready with how many bytes have come, as far as one knows, that nobody has asked for: 0 at the end.
    fn poll_unasked(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            // An event of the past says nothing of now.
            match self.stream.try_io(Interest::READABLE, || peek(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn count_unasked(&self, came: &io::Result<usize>) {
        if came.as_ref().is_ok_and(|came| *came > 0) {
            self.count(Flaw::Unasked);
        }
    }

    /// Writes what is left of a request, as far as the kernel takes it.
    ///
    /// What came before the first byte is nobody's answer. tokio knows of it by an event, which may come later, so the
    /// kernel itself is asked (`socket.rs` says more).
    fn poll_write(&mut self, cx: &mut Context<'_>, asking: &mut Asking<'_>) -> io::Result<()> {
        if !asking.began {
            match peek(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(0) => return Err(closed()),
                Ok(_) => return Err(self.refuse(Flaw::Unasked)),
            }
        }
        while !asking.deaf
            && let Some(rest) = asking.words.get(asking.written..).filter(|rest| !rest.is_empty())
        {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    if !std::mem::replace(&mut asking.began, true) {
                        self.scanner.ask(asking.asked);
                        self.spoiled = false;
                    }
                    asking.written = asking.written.saturating_add(bytes);
                }
                // An origin that refuses a request may have said so before it went.
                Poll::Ready(Err(error)) if asking.began && peer_gone(&error) => asking.deaf = true,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads to the end of the final response's head.
    fn poll_head(&mut self, cx: &mut Context<'_>, asking: &mut Asking<'_>) -> Poll<io::Result<Answer>> {
        if !asking.began {
            return Poll::Pending;
        }
        loop {
            let answer = scratch::with_bytes(self.first, |room| {
                let mut room = ReadBuf::new(room);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
                match room.filled() {
                    [] => Poll::Ready(Err(unfinished())),
                    bytes => Poll::Ready(self.heads(bytes, asking)),
                }
            });
            if let Some(answer) = ready!(answer)? {
                return Poll::Ready(Ok(answer));
            }
        }
    }

    /// Takes heads, to that of the final response, and then what came with it.
    fn heads(&mut self, bytes: &[u8], asking: &mut Asking<'_>) -> io::Result<Option<Answer>> {
        let (mut begun, mut at) = (0, 0);
        while at < bytes.len() {
            let (finals, interims) = (self.scanner.finals(), self.scanner.interims());
            at = at.saturating_add(self.take(bytes.get(at..).unwrap_or_default())?.0);
            let is_final = self.scanner.finals() != finals;
            if !is_final && self.scanner.interims() == interims {
                continue;
            }
            let head = bytes.get(begun..at).unwrap_or_default();
            let head = match asking.came.is_empty() {
                true => Bytes::copy_from_slice(head),
                false => {
                    asking.came.extend_from_slice(head);
                    Bytes::from(std::mem::take(&mut asking.came))
                }
            };
            begun = at;
            let head = answer::response(&head).ok_or_else(|| self.refuse(Flaw::Syntax))?;
            if is_final {
                // An origin that has answered before it had all of the request may take the rest for another.
                if asking.written < asking.words.len() || self.may_be_more() {
                    asking.sent.answered_early();
                }
                self.spoiled = closes(head.headers());
                let rest = bytes.get(at..).unwrap_or_default();
                return Ok(Some((head, self.with_head(rest)?)));
            }
            if asking.sent.hear()
                && let Some(interim) = asking.interim
            {
                interim.pass(head.status(), head.headers());
            }
        }
        asking.came.extend_from_slice(bytes.get(begun..).unwrap_or_default());
        Ok(None)
    }

    /// What came with the head of the final response. All of it belongs to that response or none is good; but many
    /// servers send content with the answer to a HEAD by mistake. The head is then whole and means what it says; what
    /// follows is nobody's, and neither is anything after it.
    fn with_head(&mut self, rest: &[u8]) -> io::Result<Ready> {
        let mut ready = Ready { ended: self.scanner.is_idle(), ..Ready::default() };
        if ready.ended && !rest.is_empty() && self.scanner.is_of_head() {
            self.spoiled = true;
            self.count(Flaw::Unasked);
            return Ok(ready);
        }
        self.decode(rest, &mut ready)?;
        let is_large = self.scanner.content_left().is_some_and(|left| left >= LARGE);
        self.first = if is_large { FIRST_OF_LARGE } else { FIRST };
        Ok(ready)
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        content: &mut Ready,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        // As large a piece as there may be, with no copy. What it is read into ends with the content, so nothing of what
        // may follow is in it.
        let left = self.scanner.content_left().and_then(|left| usize::try_from(left).ok());
        if let Some(left) = left.filter(|left| *left >= SMALL) {
            let room = left.min(most);
            if buffer.capacity() < room.min(SMALL) {
                *buffer = BytesMut::with_capacity(room);
            }
            let mut place = buffer.limit(room);
            let read = ready!(pin!(self.stream.read_buf(&mut place)).poll(cx))?;
            if read == 0 {
                return Poll::Ready(Err(unfinished()));
            }
            self.scanner.read(buffer).map_err(|flaw| self.refuse(flaw))?;
            content.data = match buffer.len() < SMALL {
                true => {
                    let piece = Bytes::copy_from_slice(buffer);
                    buffer.clear();
                    piece
                }
                false => buffer.split().freeze(),
            };
            content.ended = self.scanner.is_idle();
            return Poll::Ready(Ok(()));
        }
        // It is not needed any more.
        *buffer = BytesMut::new();
        loop {
            let read = scratch::with_bytes(most, |room| {
                let mut room = ReadBuf::new(room);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
                let bytes = room.filled();
                if bytes.is_empty() {
                    content.ended = self.scanner.ends_with_connection();
                    let end = if content.ended { Ok(()) } else { Err(unfinished()) };
                    return Poll::Ready(end);
                }
                Poll::Ready(self.decode(bytes, content))
            });
            ready!(read)?;
            // Frames of chunks alone are nothing yet.
            if content.ended || !content.data.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes the content out of what came.
    fn decode(&mut self, bytes: &[u8], ready: &mut Ready) -> io::Result<()> {
        let (mut rest, mut data) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (taken, part) = self.take(rest)?;
            let (these, others) = rest.split_at(taken.min(rest.len()));
            match part {
                // Mostly all of it is one piece.
                Part::Content if others.is_empty() && data.is_empty() => {
                    ready.data = Bytes::copy_from_slice(these);
                }
                Part::Content => {
                    if data.is_empty() {
                        data.reserve_exact(rest.len());
                    }
                    data.extend_from_slice(these);
                }
                Part::Trailer => ready.trailers.extend_from_slice(these),
                Part::Frame => {}
            }
            rest = others;
        }
        if !data.is_empty() {
            // Nobody holds on to much more than there is of it.
            ready.data = match data.capacity() / 8 * 7 > data.len() {
                true => Bytes::copy_from_slice(&data),
                false => Bytes::from(data),
            };
        }
        ready.ended = self.scanner.is_idle();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<(usize, Part)> {
        self.scanner.take(bytes).map_err(|flaw| self.refuse(flaw))
    }

    /// Whether what follows the head that has come may be of no use to anybody: a HEAD's answer whose content comes a
    /// moment later would be taken for the answer to who asks next.
    fn may_be_more(&self) -> bool {
        self.scanner.is_of_head() && self.slot.fills_heads()
    }

    fn refuse(&self, flaw: Flaw) -> io::Error {
        self.count(flaw);
        refused(flaw)
    }

    fn count(&self, flaw: Flaw) {
        self.slot.count(flaw, self.scanner.is_of_head());
    }
}

/// Whether the origin ends the connection with this answer (RFC 9112 §9.6).
fn closes(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONNECTION)
        && hop::connection_options(headers).iter().any(|option| option.as_str() == "close")
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection was closed")
}

fn unfinished() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the message")
}

/// An answer's content as it comes.
pub(super) struct Content {
    direct: Arc<Direct>,
    ready: Ready,
    /// Bytes that were not given out, where the head has said how many there are.
    left: Option<u64>,
    buffer: BytesMut,
}

impl Content {
    fn new(direct: Arc<Direct>, ready: Ready) -> Self {
        let to_come = direct.open.lock().as_ref().and_then(|line| line.scanner.content_left());
        let left = match (to_come, ready.ended && ready.trailers.is_empty()) {
            (Some(left), _) => Some(left.saturating_add(ready.data.len() as u64)),
            (None, true) => Some(ready.data.len() as u64),
            (None, false) => None,
        };
        Self { direct, ready, left, buffer: BytesMut::new() }
    }

    /// All of it has come, and was taken from the connection.
    pub(super) const fn has_come(&self) -> bool {
        self.ready.ended
    }

    /// Nothing is left to be given out.
    pub(super) fn is_over(&self) -> bool {
        self.ready.ended && self.ready.data.is_empty() && self.ready.trailers.is_empty()
    }

    /// Bytes that were not given out, where that is known.
    pub(super) const fn left(&self) -> Option<u64> {
        self.left
    }

    /// What comes next, at most `most` bytes of content.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Piece>>> {
        if self.ready.data.is_empty() && !self.ready.ended {
            ready!(self.direct.poll_content(cx, most, &mut self.ready, &mut self.buffer))?;
        }
        Poll::Ready(Ok(self.next()))
    }

    /// What has come and was not given out.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if !self.ready.data.is_empty() {
            let data = std::mem::take(&mut self.ready.data);
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            return Some(Piece::Data(data));
        }
        let trailers = std::mem::take(&mut self.ready.trailers);
        let trailers = answer::fields(&Bytes::from(trailers)).filter(|fields| !fields.is_empty());
        trailers.map(Piece::Trailers)
    }
}

/// A piece of an answer's content.
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Looks at a connection while nobody asks anything on it: whatever comes then, its end too, ends it.
///
/// However it is dropped, the connection is closed, unless hyper has it.
pub(super) struct Keeper(pub(super) Arc<Direct>);

impl Future for Keeper {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let direct = &self.0;
        if direct.keeper.get().is_none() {
            direct.keeper.get_or_init(|| cx.waker().clone());
            // Who has begun an exchange just before could not wake it, so it looks once more by when that is over.
            cx.waker().wake_by_ref();
        }
        let mut open = direct.open.lock();
        let Some(line) = open.as_mut() else { return Poll::Ready(()) };
        // Under the lock: who asks reads after this, and is woken then in place of this task.
        if direct.due.is_set() {
            return Poll::Pending;
        }
        let came = ready!(line.poll_unasked(cx));
        line.count_unasked(&came);
        let closed = open.take();
        drop(open);
        drop(closed);
        Poll::Ready(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.close();
    }
}
