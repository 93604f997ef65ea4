//! A connection to Redis: questions go out in the order in which they are asked, and each gets its answers.
//!
//! Knows that answers come in the order of the questions, so that each question has a place in a row until all of its
//! answers have come, also where nobody waits for them any more. An answer that nobody has asked for, or that is none
//! ([`frames`](super::frames)), ends the connection, and all that wait with it.
//!
//! What is asked is put beside what others ask, and one task, the [`Driver`], sends and reads for all of them: what is
//! asked in one turn of a thread goes out in one write. How a command is written, and what an error or an array says, is
//! for the `redis` crate; its own client is not used, since a lookup took it 33,000 instructions of the 112,000 of a hit.
//! Must not know: what is asked, how long it may take, or when a connection is good.
//!
//! Cancellation: whoever asks may be dropped at any point; what was asked is sent all the same, and what is answered to
//! it is thrown away in its place. Where the driver is dropped, all who wait learn that the connection is lost.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::oneshot;

use super::dial::Socket;
use super::frames::Frames;
use super::question::{Fault, Question};

/// Bytes that are read at once at least, and at most ahead of what a long string is known to need.
const READ: (usize, usize) = (8 * 1024, 256 * 1024);

/// What answers may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of the longest string.
    pub(super) longest: u64,
    /// Members of an array, in all; none: no answer is an array.
    pub(super) members: u64,
}

/// Asks. Any number of these lead to one connection.
#[derive(Clone)]
pub(super) struct Client(Arc<Mutex<Row>>);

impl fmt::Debug for Client {
    /// Without what is to be sent, which may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(…)")
    }
}

/// What waits, and what is to be sent.
struct Row {
    unsent: Vec<u8>,
    asked: VecDeque<Place>,
    /// Places that there may be.
    most: usize,
    /// The connection has ended: why.
    over: Option<Fault>,
    driver: Option<Waker>,
}

/// The place of a question, until all of it is answered.
struct Place {
    due: usize,
    answers: Vec<Value>,
    to: oneshot::Sender<Vec<Value>>,
}

/// Moves the bytes of a connection, until it ends.
pub(super) struct Driver {
    row: Arc<Mutex<Row>>,
    socket: Socket,
    sending: Vec<u8>,
    sent: usize,
    /// Something was written that may not be on its way yet.
    unflushed: bool,
    read: BytesMut,
    /// Bytes of `read` in which no answer ends.
    seen: usize,
    frames: Frames,
}

impl Client {
    /// One over a connection on which nothing is under way, and its driver. At most so many questions may be.
    pub(super) fn over(socket: Socket, bounds: Bounds, most: usize) -> (Self, Driver) {
        let (unsent, asked) = (Vec::new(), VecDeque::new());
        let row = Arc::new(Mutex::new(Row { unsent, asked, most, over: None, driver: None }));
        let driver = Driver {
            row: Arc::clone(&row),
            socket,
            sending: Vec::new(),
            sent: 0,
            unflushed: false,
            read: BytesMut::new(),
            seen: 0,
            frames: Frames::new(bounds.longest, bounds.members),
        };
        (Self(row), driver)
    }

    /// Asks, and gives all that is answered.
    pub(super) async fn exchange(&self, question: &Question) -> Result<Vec<Value>, Fault> {
        let answers = self.ask(question)?;
        answers.await.map_err(|_| self.0.lock().over.unwrap_or(Fault::Lost))
    }

    fn ask(&self, question: &Question) -> Result<oneshot::Receiver<Vec<Value>>, Fault> {
        let (to, answers) = oneshot::channel();
        let driver = {
            let mut row = self.0.lock();
            if let Some(why) = row.over {
                return Err(why);
            }
            if row.asked.len() >= row.most {
                return Err(Fault::Full);
            }
            let due = question.answers();
            row.asked.push_back(Place { due, answers: Vec::with_capacity(due), to });
            row.unsent.extend_from_slice(question.bytes());
            row.driver.take()
        };
        driver.into_iter().for_each(Waker::wake);
        Ok(answers)
    }
}

impl Row {
    /// An answer to the first that waits.
    fn answer(&mut self, answer: Value) -> Result<(), Fault> {
        let place = self.asked.front_mut().ok_or(Fault::Nonsense)?;
        place.answers.push(answer);
        place.due = place.due.saturating_sub(1);
        if place.due == 0
            && let Some(Place { answers, to, .. }) = self.asked.pop_front()
        {
            // Given up by whoever asked: thrown away.
            let _ = to.send(answers);
        }
        Ok(())
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let sent = this.send(context);
        let why = match (sent, this.receive(context)) {
            (Err(why), _) | (Ok(()), Poll::Ready(why)) => why,
            (Ok(()), Poll::Pending) => return Poll::Pending,
        };
        this.end(why);
        Poll::Ready(())
    }
}

impl Driver {
    /// Sends what is to be sent, as far as that goes now.
    fn send(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            if self.sent >= self.sending.len() {
                self.sending.clear();
                self.sent = 0;
                let mut row = self.row.lock();
                if row.unsent.is_empty() {
                    // Under the same lock as the look: whatever comes from now on wakes this task.
                    row.driver = Some(context.waker().clone());
                    break;
                }
                std::mem::swap(&mut row.unsent, &mut self.sending);
                if row.unsent.capacity() > READ.1 {
                    row.unsent = Vec::new();
                }
            }
            let rest = self.sending.get(self.sent..).unwrap_or_default();
            match Pin::new(&mut self.socket).poll_write(context, rest) {
                Poll::Ready(Ok(written)) if written > 0 => self.sent += written,
                Poll::Ready(_) => return Err(Fault::Lost),
                Poll::Pending => break,
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Fault::Lost),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads and gives out answers for as long as there are any. Ready when the connection has ended.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        loop {
            let wanted = usize::try_from(self.frames.left()).unwrap_or(READ.1);
            self.read.reserve(wanted.clamp(READ.0, READ.1));
            match ready!(pin!(self.socket.read_buf(&mut self.read)).poll(context)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Fault::Lost),
            }
            if let Err(why) = self.give_out() {
                return Poll::Ready(why);
            }
        }
    }

    fn give_out(&mut self) -> Result<(), Fault> {
        let mut row = self.row.lock();
        loop {
            let news = self.read.get(self.seen..).unwrap_or_default();
            match self.frames.end_in(news).map_err(|_| Fault::Nonsense)? {
                Some(more) => {
                    let end = self.seen.saturating_add(more);
                    let answer = value(self.read.get(..end).unwrap_or_default())?;
                    if end > READ.1 {
                        // Not kept at hand: what is behind it is little.
                        self.read = BytesMut::from(self.read.get(end..).unwrap_or_default());
                    } else {
                        self.read.advance(end);
                    }
                    self.seen = 0;
                    row.answer(answer)?;
                }
                None => {
                    self.seen = self.read.len();
                    return Ok(());
                }
            }
        }
    }

    fn end(&self, why: Fault) {
        let mut row = self.row.lock();
        row.over.get_or_insert(why);
        row.unsent = Vec::new();
        // Who waits finds its sender gone, and then why.
        row.asked.clear();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end(Fault::Lost);
    }
}

/// What a whole answer says.
fn value(frame: &[u8]) -> Result<Value, Fault> {
    let plain = match frame {
        [b'$', ..] => string(frame),
        [b':', number @ .., b'\r', b'\n'] => {
            std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).map(Value::Int)
        }
        b"+OK\r\n" => Some(Value::Okay),
        _ => None,
    };
    match plain {
        Some(value) => Ok(value),
        None => redis::parse_redis_value(frame).map_err(|_| Fault::Nonsense),
    }
}

/// A string of this length: that of what stands between its line and its end.
fn string(frame: &[u8]) -> Option<Value> {
    let line = memchr::memchr(b'\n', frame)?;
    let content = frame.get(line.saturating_add(1)..)?.strip_suffix(b"\r\n")?;
    Some(Value::BulkString(content.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use redis::cmd;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::super::question::question;
    use super::*;

    const BOUNDS: Bounds = Bounds { longest: 1_000_000, members: 0 };

    fn client(room: usize) -> (Client, DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(room);
        let (client, driver) = Client::over(Box::new(near), BOUNDS, 4);
        (client, far, tokio::spawn(driver))
    }

    fn pings(count: usize) -> Question {
        question(vec![cmd("PING"); count - 1])
    }

    async fn heard(far: &mut DuplexStream, question: &Question) {
        let mut heard = vec![0; question.bytes().len()];
        timeout(Duration::from_secs(10), far.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, question.bytes());
    }

    #[tokio::test]
    async fn each_gets_its_own_answers_in_the_order_of_the_questions() {
        let (client, mut far, _driver) = client(1024);
        let (first, second) = (pings(1), pings(2));
        let asked = async { tokio::join!(client.exchange(&first), client.exchange(&second)) };
        let server = async {
            heard(&mut far, &first).await;
            heard(&mut far, &second).await;
            for byte in b"$3\r\na\r\n\r\n:-7\r\n-ERR no\r\n" {
                far.write_all(&[*byte]).await.unwrap();
            }
        };
        let ((one, two), ()) = tokio::join!(asked, server);
        assert_eq!(one, Ok(vec![Value::BulkString(b"a\r\n".to_vec())]));
        let two = two.unwrap();
        assert!(matches!(two.as_slice(), [Value::Int(-7), Value::ServerError(_)]), "{two:?}");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_its_place_to_its_own_answer() {
        let (client, mut far, _driver) = client(1024);
        let (given_up, wanted) = (pings(1), pings(1));
        drop(client.ask(&given_up).unwrap());
        let server = async {
            heard(&mut far, &given_up).await;
            heard(&mut far, &wanted).await;
            far.write_all(b"+one\r\n+OK\r\n").await.unwrap();
        };
        let (answers, ()) = tokio::join!(client.exchange(&wanted), server);
        assert_eq!(answers, Ok(vec![Value::Okay]));
    }

    #[tokio::test]
    async fn what_is_larger_than_any_buffer_goes_and_comes_whole() {
        let (client, mut far, _driver) = client(512);
        let mut large = cmd("ECHO");
        large.arg(vec![b'x'; 700_000]);
        let asked = question([large]);
        let server = async {
            heard(&mut far, &asked).await;
            far.write_all(b"$700000\r\n").await.unwrap();
            far.write_all(&[b'y'; 700_000]).await.unwrap();
            far.write_all(b"\r\n:1\r\n").await.unwrap();
        };
        let (answers, ()) = tokio::join!(client.exchange(&asked), server);
        assert_eq!(answers, Ok(vec![Value::BulkString(vec![b'y'; 700_000]), Value::Int(1)]));
    }

    #[tokio::test]
    async fn a_large_answer_leaves_no_large_buffer() {
        for size in (300_000..1_000_000).step_by(50_000) {
            let (near, mut far) = duplex(64 * 1024);
            let (client, mut driver) = Client::over(Box::new(near), BOUNDS, 4);
            let asked = pings(1);
            let answers = client.ask(&asked).unwrap();
            let server = async {
                heard(&mut far, &asked).await;
                far.write_all(format!("${size}\r\n").as_bytes()).await.unwrap();
                far.write_all(&vec![b'y'; size]).await.unwrap();
                far.write_all(b"\r\n").await.unwrap();
            };
            tokio::select! {
                () = &mut driver => panic!("it has ended"),
                answers = async { tokio::join!(server, answers).1 } => drop(answers.unwrap()),
            }
            // All that it takes, also what is behind it: to make room for more than fits would move it.
            let mut whole = std::mem::take(&mut driver.read);
            let most = (0..2_000_000).step_by(8 * 1024).take_while(|more| whole.try_reclaim(*more)).last();
            assert!(most.unwrap_or(0) <= READ.1, "{size}: {most:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_asked_for_ends_the_connection() {
        for (said, why) in [
            (&b":1\r\n:2\r\n"[..], Fault::Nonsense),
            (b"$1000001\r\n", Fault::Nonsense),
            (b"*1\r\n:1\r\n", Fault::Nonsense),
            (b"$2\r\nabcd", Fault::Nonsense),
            (b":1x\r\n", Fault::Nonsense),
        ] {
            let (client, mut far, driver) = client(1024);
            let (first, then) = (pings(2), pings(1));
            let waiting = client.ask(&first).unwrap();
            far.write_all(said).await.unwrap();
            far.write_all(b":3\r\n").await.unwrap();
            let ended = timeout(Duration::from_secs(10), driver).await;
            assert!(ended.is_ok(), "{}", said.escape_ascii());
            drop(waiting);
            assert_eq!(client.exchange(&then).await, Err(why), "{}", said.escape_ascii());
        }
    }

    #[tokio::test]
    async fn all_who_wait_learn_that_the_connection_is_lost() {
        let (client, far, driver) = client(1024);
        let asked = pings(1);
        let waiting = client.exchange(&asked);
        drop(far);
        assert_eq!(waiting.await, Err(Fault::Lost));
        driver.await.unwrap();
        assert_eq!(client.exchange(&asked).await, Err(Fault::Lost));
        let (client, _far, driver) = self::client(1024);
        let waiting = client.ask(&asked).unwrap();
        driver.abort();
        assert!(waiting.await.is_err(), "also where nobody moves its bytes any more");
        assert_eq!(client.exchange(&asked).await, Err(Fault::Lost));
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let (client, _far, _driver) = client(1024);
        let asked = pings(1);
        let waiting: Vec<_> = (0..4).map(|_| client.ask(&asked).unwrap()).collect();
        drop(waiting);
        assert_eq!(client.exchange(&asked).await, Err(Fault::Full), "also where they have been given up");
    }

    proptest! {
        /// What is read here and not by the crate's parser is read alike.
        #[test]
        fn a_value_is_what_the_crate_says_that_it_is(
            frame in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40).prop_map(|text| {
                    [format!("${}\r\n", text.len()).into_bytes(), text, b"\r\n".to_vec()].concat()
                }),
                any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
                "[$:+-][0-9a-z :-]{0,6}\r\n".prop_map(String::into_bytes),
            ],
        ) {
            let (mut frames, theirs) = (Frames::new(100, 0), redis::parse_redis_value(&frame));
            if let Ok(Some(end)) = frames.end_in(&frame) && end == frame.len() {
                prop_assert_eq!(value(&frame).ok(), theirs.ok());
            }
        }
    }
}
