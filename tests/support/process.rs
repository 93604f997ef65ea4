//! The built binary as a child process: started on a configuration, heard on its standard
//! streams, and ended with the test.
//!
//! Knows processes, signals and lines of text.
//! Must not know: what the lines mean, but for the two that tell where Larder listens.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{PATIENCE, client, within};

/// Larder, running on a configuration of its own.
#[derive(Debug)]
pub struct Larder {
    process: Process,
    proxies: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    directory: TempDir,
}

impl Larder {
    /// Writes `config` to a `proxy.toml` of its own, runs Larder on it and waits until it listens.
    /// Let it listen on port 0: [`Larder::proxy`] and [`Larder::admin`] say which it got.
    pub fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = larder();
        command.arg("run").arg("-c").arg(&file);
        Self::from_command(command, directory, !config.lines().any(is_admin_off))
    }

    /// Runs any command of Larder that listens, with an admin listener or without, in an empty
    /// directory, and waits until it listens.
    pub fn start_with(args: &[&str], admin: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = larder();
        command.args(args).current_dir(directory.path());
        Self::from_command(command, directory, admin)
    }

    fn from_command(command: Command, directory: TempDir, admin: bool) -> Self {
        let mut larder = Self { process: Process::spawn(command), proxies: vec![], admin: None, directory };
        larder
            .process
            .err
            .wait_for_line(|line| address_after(line, "listening on http://").is_some(), PATIENCE);
        if admin {
            let line = larder
                .process
                .err
                .wait_for_line(|line| address_after(line, "admin on http://").is_some(), PATIENCE);
            larder.admin = address_after(&line, "admin on http://");
        }
        let lines = larder.process.err.all();
        larder.proxies =
            lines.iter().filter_map(|line| address_after(line, "listening on http://")).collect();
        larder
    }

    /// The first address on which it serves.
    pub fn proxy(&self) -> SocketAddr {
        self.proxies[0]
    }

    /// Every address on which it serves, as far as announced when it had started.
    pub fn proxies(&self) -> &[SocketAddr] {
        &self.proxies
    }

    /// Address of its admin listener; panics where that is off.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("this Larder has no admin listener")
    }

    /// `GET path` through it.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> client::Response {
        client::get(self.proxy(), path, headers)
    }

    /// `GET /stats`
    pub fn stats(&self) -> serde_json::Value {
        client::get(self.admin(), "/stats", &[]).json()
    }

    /// The purges that the dashboard of this node shows, the latest first.
    pub fn purges(&self) -> Vec<serde_json::Value> {
        let mut connection = client::Connection::open(self.admin());
        connection.write_head("GET", "/events", &[]);
        assert_eq!(connection.response_head("GET").status, 200);
        let event = String::from_utf8(connection.read_chunk()).unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        serde_json::from_str::<serde_json::Value>(data).unwrap()["purges"].as_array().unwrap().clone()
    }

    /// `GET /metrics`
    pub fn metrics(&self) -> String {
        client::get(self.admin(), "/metrics", &[]).text()
    }

    /// The value of one sample on `/metrics`, named with its labels exactly as exposed.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// The directory that holds its `proxy.toml`.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl std::ops::Deref for Larder {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl std::ops::DerefMut for Larder {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A command for the built binary, with nothing of Larder's in its environment.
pub fn larder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LARDER_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs Larder to its end; panics if that does not come. For commands that do not serve.
pub fn run_to_end(args: &[&str], directory: &std::path::Path) -> Finished {
    let mut command = larder();
    command.args(args).current_dir(directory);
    let mut process = Process::spawn(command);
    let code = process.wait_exit(PATIENCE);
    Finished { code, out: process.out.whole(), err: process.err.whole() }
}

/// What a command said and how it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub out: String,
    /// All of standard error.
    pub err: String,
}

/// A child process whose output is kept; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Standard output so far.
    pub out: Lines,
    /// Standard error so far.
    pub err: Lines,
}

impl Process {
    /// Starts a command with its output captured and no input.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let out = Lines::of("stdout", child.stdout.take().unwrap());
        let err = Lines::of("stderr", child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, with SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name, such as `INT`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        // The shell's own kill, so that no package is needed for it.
        let script = format!("kill -{name} {}", self.id());
        assert!(Command::new("sh").arg("-c").arg(script).status().unwrap().success());
    }

    /// Waits until it has ended and gives its exit code, `None` where a signal ended it. Panics if
    /// it runs on. All of its output has then been read.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<i32> {
        let mut ended: Option<ExitStatus> = None;
        // The standard library has no wait with a deadline; hence polling.
        let done = within(patience, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(done, "still running after {patience:?}; stderr:\n{}", self.err.whole());
        self.out.wait_for_end();
        self.err.wait_for_end();
        ended.and_then(|status| status.code())
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} of the process\n{}", self.err.name, self.err.whole());
        }
    }
}

/// What a stream has said so far, line by line.
#[derive(Clone, Debug)]
pub struct Lines {
    name: &'static str,
    shared: Arc<(Mutex<Text>, Condvar)>,
}

#[derive(Debug, Default)]
struct Text {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(name: &'static str, stream: impl Read + Send + 'static) -> Self {
        let lines = Self { name, shared: Arc::default() };
        let writer = lines.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                writer.change(|shared| shared.lines.push(text));
                line.clear();
            }
            writer.change(|shared| shared.ended = true);
        });
        lines
    }

    /// Waits for a line that fits, past ones included; panics, showing all, if none comes.
    pub fn wait_for_line(&self, fits: impl Fn(&str) -> bool, patience: Duration) -> String {
        self.next_line(0, fits, patience).0
    }

    /// Waits for the first line that fits at or after position `from`; gives the line and the
    /// position behind it.
    pub fn next_line(&self, from: usize, fits: impl Fn(&str) -> bool, patience: Duration) -> (String, usize) {
        let deadline = Instant::now() + patience;
        let (text, changed) = &*self.shared;
        let mut text = text.lock().unwrap();
        let mut next = from;
        loop {
            while let Some(line) = text.lines.get(next) {
                next += 1;
                if fits(line) {
                    return (line.clone(), next);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !text.ended && !left.is_zero(),
                "no such line on {} ({}):\n{}",
                self.name,
                if text.ended { "it ended" } else { "waited long enough" },
                text.lines.join("\n"),
            );
            text = changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Every line so far.
    pub fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Every line so far, as one text.
    pub fn whole(&self) -> String {
        self.all().join("\n")
    }

    /// How many lines there are so far: a position for [`Lines::next_line`].
    pub fn position(&self) -> usize {
        self.lock().lines.len()
    }

    /// A wait that failed has poisoned the lock, yet what was said is then shown all the same.
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_end(&self) {
        let (text, changed) = &*self.shared;
        let text = text.lock().unwrap();
        let text = changed.wait_timeout_while(text, PATIENCE, |text| !text.ended).unwrap().0;
        assert!(text.ended, "{} is held open by somebody", self.name);
    }

    fn change(&self, change: impl FnOnce(&mut Text)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }
}

/// `admin = "off"`, however it is spaced.
fn is_admin_off(line: &str) -> bool {
    let spaceless: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    spaceless.starts_with("admin=\"off\"")
}

/// The socket address that follows `words` in a line, whatever follows it.
pub fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(words)?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
    rest.get(..end)?.trim_end_matches(['.', ':']).parse().ok()
}
