//! Bugs to order, in a whole Larder: each costs its own request and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use super::*;
use crate::telemetry;

/// The longest that anything here waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// An origin that answers every request with the same, and ends with the test's process.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut read = [0; 4096];
                while stream.read(&mut read).is_ok_and(|read| read > 0) {
                    let body = "x".repeat(1000);
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nCache-Control: max-age=60\r\n\r\n";
                    if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn larder() -> Running {
    // Beside what the tests print themselves, and once, since it is the process's.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            telemetry::note(info);
            before(info);
        }));
    });
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n[limits]\nlame_duck = \"0s\"\n\
         [upstream.o]\nservers = [\"http://{}\"]\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\n\
         upstream = \"o\"\n",
        origin()
    );
    let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
    start(config, Clock::system(), false, None).unwrap()
}

fn connect(larder: &Running) -> TcpStream {
    let stream = TcpStream::connect(larder.proxy[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that a request of its own connection is answered with.
fn ask(larder: &Running, path: &str) -> String {
    let mut stream = connect(larder);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // One that is cut off may end in a reset.
    let _cut = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn is_well(larder: &Running) -> bool {
    let answer = ask(larder, "/well");
    answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&"x".repeat(1000))
}

#[test]
fn a_bug_in_a_request_is_a_500_and_its_connection_goes_on() {
    let larder = larder();
    // An empty line before it is hyper's: so it goes both ways.
    for (failed, before) in [(1, ""), (2, "\r\n")] {
        let panics = telemetry::panics();
        let mut stream = connect(&larder);
        write!(stream, "{before}GET /panic-handle/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        write!(stream, "GET /well HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
        assert!(answers.contains("\"cause\":\"internal\"") && !answers.contains("secret"), "{answers}");
        assert!(answers.contains("HTTP/1.1 200 OK") && answers.ends_with(&"x".repeat(1000)), "{answers}");
        assert!(telemetry::panics() > panics);
        let stats = larder.shared.snapshot.load().metrics.stats(&telemetry::Gauges::default());
        assert_eq!((&stats["failed"], &stats["client_closed"]), (&failed.into(), &0.into()), "{stats}");
    }
    larder.stop();
}

#[test]
fn a_bug_on_the_short_way_sends_its_request_the_long_way() {
    let larder = larder();
    for _ in 0..2 {
        let answer = ask(&larder, "/panic-short/1");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&"x".repeat(1000)), "{answer}");
    }
    larder.stop();
}

#[test]
fn a_bug_in_a_fetch_releases_everyone_who_waits_for_it_at_once() {
    let larder = larder();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&larder, "/panic-fill/1"))).collect();
        for answer in asking {
            let answer = answer.join().unwrap();
            // A guest goes alone after a few such owners.
            let is_answered = answer.starts_with("HTTP/1.1 500 ") || answer.starts_with("HTTP/1.1 200 ");
            assert!(is_answered, "{answer}");
        }
    });
    assert!(larder.shared.flights.is_empty());
    assert!(is_well(&larder));
    larder.stop();
}

#[test]
fn a_bug_while_a_body_is_kept_cuts_its_readers_off_and_nothing_is_stored() {
    let larder = larder();
    for path in ["/panic-keep/1", "/panic-keep/1"] {
        let answer = ask(&larder, path);
        // All of it may have been sent by then, yet not more than that.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(!answer.contains("larder; hit"), "{answer}");
    }
    assert_eq!(larder.shared.memory.gauges().entries, 0);
    assert_eq!(larder.shared.memory.gauges().in_flight, 0);
    assert!(larder.shared.flights.is_empty());
    assert!(is_well(&larder));
    larder.stop();
}

#[test]
fn a_bug_in_a_body_cuts_that_one_off() {
    let larder = larder();
    let answer = ask(&larder, "/panic-body/1");
    assert!(answer.len() < 1000, "{answer}");
    assert!(is_well(&larder));
    let stats = larder.shared.snapshot.load().metrics.stats(&telemetry::Gauges::default());
    assert_eq!(stats["failed"], 1, "{stats}");
    larder.stop();
}

#[test]
fn what_is_told_of_a_bug_is_its_place_alone() {
    let larder = larder();
    let text = std::sync::Arc::new(Mutex::new(String::new()));
    let told = std::sync::Arc::clone(&text);
    let write = move || Told(std::sync::Arc::clone(&told));
    let subscriber = tracing_subscriber::fmt().with_writer(write).finish();
    tracing::subscriber::with_default(subscriber, || {
        let ended = std::panic::catch_unwind(|| telemetry::failpoint::at("here", "/panic-here/a-token"));
        assert!(ended.is_err());
    });
    let text = text.lock().clone();
    assert!(text.contains("panics.rs:") && text.contains("a bug of Larder's"), "{text}");
    assert!(!text.contains("secret") && !text.contains("token"), "{text}");
    larder.stop();
}

struct Told(std::sync::Arc<Mutex<String>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_profile_unwinds() {
    // Where a panic aborts, nothing above holds.
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    for (name, profile) in manifest["profile"].as_table().unwrap() {
        assert!(profile.get("panic").is_none(), "profile.{name}");
    }
}
