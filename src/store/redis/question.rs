//! What is asked of Redis in one piece, and how it is known that what comes back answers it.
//!
//! Knows that answers carry no sign of what they answer: they come in the order of the questions, and the client
//! keeps a place for each, also where nobody waits any more. Should a server ever send one too many or too few, each
//! would go to the next question. So every question ends with a `PING` of a number that was never used before, and
//! counts as answered only where that comes back in its place.
//! Must not know: the breaker, or what a value means.

use std::borrow::Borrow;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Cmd, ServerError, Value};

use super::client::Client;
use crate::fields::digits;

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The breaker is open: nothing was asked.
    Open,
    /// Too many calls are under way: nothing was asked.
    Full,
    /// No answer in time.
    Deadline,
    /// The connection broke.
    Lost,
    /// The answer is not one to this question; the connection is not trusted any more.
    Nonsense,
    /// Redis answered with an error.
    Refused,
    /// The server says that it is not, or not yet, the one to ask.
    NotHere,
}

impl Fault {
    const ALL: [Self; 7] =
        [Self::Open, Self::Full, Self::Deadline, Self::Lost, Self::Nonsense, Self::Refused, Self::NotHere];

    /// What it says of the server, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "nothing is asked for a while, since too much failed",
            Self::Full => "nothing is asked, since too much waits for an answer",
            Self::Deadline => "no answer in time",
            Self::Lost => "the connection was closed before all was answered",
            Self::Nonsense => "what answers there does not speak the protocol of Redis",
            Self::Refused => "it refuses what it is asked",
            Self::NotHere => "it says that it is not, or not yet, the one to ask",
        }
    }

    /// The one that this is [said](Self::as_str) of.
    pub fn told_as(said: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == said)
    }
}

/// Bytes of most questions.
const USUAL: usize = 256;

/// Distinguishes each question of this process from all others.
static QUESTIONS: AtomicU64 = AtomicU64::new(1);

/// Commands as they are sent in one piece. The `PING` behind them shows that what is answered answers
/// these commands. Not shown: one of them may say a password.
pub(super) struct Question {
    bytes: Vec<u8>,
    /// Commands, without the `PING`.
    commands: usize,
    number: u64,
}

impl Question {
    /// As it is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many answers there are to it.
    pub(super) const fn answers(&self) -> usize {
        self.commands.saturating_add(1)
    }

    /// The answers to its commands, of all that came; they have to end with that to the `PING`.
    fn checked(&self, mut answers: Vec<Value>) -> Result<Vec<Value>, Fault> {
        match answers.pop() {
            Some(Value::BulkString(echo)) if digits::is(&echo, self.number) => Ok(answers),
            Some(Value::ServerError(error)) if is_not_here(&error) => Err(Fault::NotHere),
            // A Redis that wants a password says so to everything.
            Some(Value::ServerError(_)) => Err(Fault::Refused),
            _ => Err(Fault::Nonsense),
        }
    }
}

/// Puts commands together.
pub(super) fn question<C: Borrow<Cmd>>(commands: impl IntoIterator<Item = C>) -> Question {
    let number = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    let (mut bytes, mut count) = (Vec::with_capacity(USUAL), 0_usize);
    for command in commands {
        command.borrow().write_packed_command(&mut bytes);
        count = count.saturating_add(1);
    }
    put_ping(&mut bytes, number);
    Question { bytes, commands: count, number }
}

/// `PING` with a number. By hand, since it stands behind each question.
fn put_ping(out: &mut Vec<u8>, number: u64) {
    let length = number.checked_ilog10().map_or(1, |log| u64::from(log) + 1);
    out.extend_from_slice(b"*2\r\n$4\r\nPING\r\n$");
    digits::push(out, length, 1);
    out.extend_from_slice(b"\r\n");
    digits::push(out, number, 1);
    out.extend_from_slice(b"\r\n");
}

/// Sends a [`question`], and gives the answers to its commands in order, errors of Redis among them.
pub(super) async fn send(connection: &Client, question: &Question) -> Result<Vec<Value>, Fault> {
    question.checked(connection.exchange(question).await?)
}

/// Sends commands in one piece and gives their answers in order, errors of Redis among them.
pub(super) async fn ask_all(
    connection: &Client,
    commands: impl IntoIterator<Item = Cmd>,
) -> Result<Vec<Value>, Fault> {
    send(connection, &question(commands)).await.and_then(here)
}

/// Answers of the server that was to be asked.
pub(super) fn here(answers: Vec<Value>) -> Result<Vec<Value>, Fault> {
    let elsewhere = |answer: &Value| matches!(answer, Value::ServerError(error) if is_not_here(error));
    if answers.iter().any(elsewhere) { Err(Fault::NotHere) } else { Ok(answers) }
}

/// Errors by which a server says that it cannot be asked, whatever it is asked: it is a replica, has not read
/// its data yet, or other slots. Before version 7 the error of a command in a script stands in the sentence of
/// another.
fn is_not_here(error: &ServerError) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN", "MOVED", "ASK"].contains(&error.code())
        || error.details().is_some_and(|said| said.contains(": -READONLY "))
}

/// Sends one command and gives its answer; an error that Redis answers is a [`Fault::Refused`].
pub(super) async fn ask(connection: &Client, command: Cmd) -> Result<Value, Fault> {
    let answers = ask_all(connection, [command]).await?;
    match <[Value; 1]>::try_from(answers) {
        Ok([Value::ServerError(_)]) => Err(Fault::Refused),
        Ok([answer]) => Ok(answer),
        Err(_) => Err(Fault::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_written_as_the_crate_writes_it() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX / 10, u64::MAX] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_ping(&mut ours, number);
            redis::cmd("PING").arg(number).write_packed_command(&mut theirs);
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_replica_is_known_by_its_answer_in_a_script_too() {
        let said = |line: &str| match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => is_not_here(&error),
            other => panic!("{other:?}"),
        };
        for (line, not_here) in [
            ("READONLY You can't write against a read only replica.", true),
            (
                "ERR Error running script (call to f_1): @user_script:5: @user_script: 5: -READONLY You can't",
                true,
            ),
            ("LOADING Redis is loading the dataset in memory", true),
            ("MOVED 1 127.0.0.1:1", true),
            ("ERR Error running script (call to f_1): @user_script:5: @user_script: 5: -OOM command", false),
            ("ERR unknown command `READONLY`", false),
            ("OOM command not allowed", false),
        ] {
            assert_eq!(said(line), not_here, "{line}");
        }
    }
}
