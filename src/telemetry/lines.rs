//! A bounded queue of lines and the thread that writes them.
//!
//! Whoever adds a line never waits for the writer: a line that finds the queue full is dropped and
//! counted. A line counts as waiting until it has been written, so a writer that hangs holds no
//! more than the queue's limit. Everything that waits is written at once, which makes few and
//! large writes under load.
//! Must not know: what the lines say.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A batch's memory beyond this is given back after a burst, bytes.
const KEPT: usize = 256 * 1024;

/// The queue's near end.
#[derive(Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capacity: usize,
    queue: Mutex<Queue>,
    /// There is something to write, or the end has come.
    work: Condvar,
    /// All has been written.
    idle: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    /// Lines in `text`.
    fresh: usize,
    /// Lines not written yet: those in `text` and those that the writer is at.
    waiting: usize,
    closed: bool,
}

impl Lines {
    /// A queue of at most `capacity` lines, and a thread that writes them to `out`.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(super) fn new(name: &str, capacity: usize, out: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            capacity,
            queue: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.write_to(out))?;
        Ok(Self(shared))
    }

    /// Adds a line, its line feed included; drops it when the queue is full or closed.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.closed || queue.waiting >= self.0.capacity {
            self.0.dropped.fetch_add(1, Relaxed);
            return;
        }
        queue.text.extend_from_slice(line);
        queue.fresh += 1;
        queue.waiting += 1;
        if queue.fresh == 1 {
            self.0.work.notify_one();
        }
    }

    /// Lines that were never written.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Waits until all lines are written, or for `within`; says whether all were.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let mut queue = self.0.queue.lock();
        !self.0.idle.wait_while_for(&mut queue, |queue| queue.waiting > 0, within).timed_out()
    }

    /// Takes no more lines; what waits is still written, and then the thread ends.
    pub(super) fn close(&self) {
        self.0.queue.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn write_to(&self, mut out: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while let Some(lines) = self.take(&mut batch) {
            let written = out.write_all(&batch).and_then(|()| out.flush());
            if written.is_err() {
                // Such as a pipe whose reader has gone. Later lines may find it mended.
                self.dropped.fetch_add(lines as u64, Relaxed);
            }
            batch.clear();
            batch.shrink_to(KEPT);
            self.written(lines);
        }
    }

    /// Waits for lines and swaps them into the empty `batch`; none when closed and all is written.
    fn take(&self, batch: &mut Vec<u8>) -> Option<usize> {
        let mut queue = self.queue.lock();
        self.work.wait_while(&mut queue, |queue| queue.fresh == 0 && !queue.closed);
        std::mem::swap(&mut queue.text, batch);
        let lines = std::mem::take(&mut queue.fresh);
        (lines > 0).then_some(lines)
    }

    fn written(&self, lines: usize) {
        let mut queue = self.queue.lock();
        queue.waiting = queue.waiting.saturating_sub(lines);
        if queue.waiting == 0 {
            self.idle.notify_all();
        }
    }
}

#[cfg(test)]
pub(super) mod sink {
    //! Something to write to whose content can be read back.

    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::sink::Sink;
    use super::*;

    /// Long enough that only a hang takes it.
    const LONG: Duration = Duration::from_secs(30);

    /// Says when a write begins, and ends it only when told.
    struct Gate {
        begun: Sender<()>,
        go: Receiver<()>,
        out: Sink,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).unwrap();
            // An error means that the test is over.
            self.go.recv().map_err(io::Error::other)?;
            self.out.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(capacity: usize) -> (Lines, Receiver<()>, Sender<()>, Sink) {
        let ((begun, has_begun), (let_go, go)) = (channel(), channel());
        let out = Sink::default();
        let gate = Gate { begun, go, out: out.clone() };
        (Lines::new("test", capacity, Box::new(gate)).unwrap(), has_begun, let_go, out)
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_not_time() {
        let (lines, has_begun, let_go, out) = gated(3);
        lines.push(b"1\n");
        has_begun.recv().unwrap();
        // The writer is at the first line, which still counts: two more fit.
        for line in [b"2\n", b"3\n", b"4\n", b"5\n"] {
            lines.push(line);
        }
        assert_eq!(lines.dropped(), 2);
        assert!(!lines.flush(Duration::ZERO));
        let_go.send(()).unwrap();
        let_go.send(()).unwrap();
        assert!(lines.flush(LONG));
        assert_eq!(out.text(), "1\n2\n3\n");
        lines.push(b"6\n");
        let_go.send(()).unwrap();
        assert!(lines.flush(LONG));
        assert_eq!((out.text().as_str(), lines.dropped()), ("1\n2\n3\n6\n", 2));
    }

    #[test]
    fn what_waits_at_the_close_is_written_and_what_comes_later_is_not() {
        let (lines, has_begun, let_go, out) = gated(10);
        lines.push(b"1\n");
        has_begun.recv().unwrap();
        lines.push(b"2\n");
        lines.close();
        lines.push(b"3\n");
        let_go.send(()).unwrap();
        let_go.send(()).unwrap();
        assert!(lines.flush(LONG));
        assert_eq!((out.text().as_str(), lines.dropped()), ("1\n2\n", 1));
    }

    #[test]
    fn the_thread_ends_when_the_queue_is_dropped() {
        let (lines, has_begun, let_go, out) = gated(10);
        lines.push(b"1\n");
        let_go.send(()).unwrap();
        drop(lines);
        assert_eq!(has_begun.recv(), Ok(()));
        // The writer owns the other end: this fails only once the thread has let go of it.
        assert!(has_begun.recv().is_err());
        assert_eq!(out.text(), "1\n");
    }

    #[test]
    fn lines_that_could_not_be_written_count_as_dropped() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::new("test", 10, Box::new(Closed)).unwrap();
        lines.push(b"1\n");
        lines.push(b"2\n");
        assert!(lines.flush(LONG));
        assert_eq!(lines.dropped(), 2);
    }

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let out = Sink::default();
        let lines = Lines::new("test", 4000, Box::new(out.clone())).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| lines.push(b"abc\n")));
            }
        });
        assert!(lines.flush(LONG));
        assert_eq!((out.text(), lines.dropped()), ("abc\n".repeat(4000), 0));
    }
}
