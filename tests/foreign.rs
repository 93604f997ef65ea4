//! In front of servers that nobody here wrote: Python's `http.server` and Debian's nginx. Asked with
//! curl, which nobody here wrote either.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::process::address_after;
use support::{Larder, PATIENCE, Process, get, unused_address, within};

/// Names and sizes of the files that are served. The last is above `max_object`.
const FILES: [(&str, usize); 7] = [
    ("empty.bin", 0),
    ("one.bin", 1),
    ("kib.bin", 1024),
    ("kib64.bin", 64 * 1024),
    ("mib.bin", 1024 * 1024),
    ("mib15.bin", 15 * 1024 * 1024),
    ("mb20.bin", 20_000_000),
];
/// `cache.max_object` unless it is set.
const MAX_OBJECT: usize = 16 * 1024 * 1024;

/// A directory with a file of each size, and room for what curl fetches.
struct Files {
    served: tempfile::TempDir,
    fetched: tempfile::TempDir,
}

impl Files {
    fn make() -> Self {
        let files = Self { served: tempfile::tempdir().unwrap(), fetched: tempfile::tempdir().unwrap() };
        for (name, size) in FILES {
            fs::write(files.served.path().join(name), noise(size)).unwrap();
        }
        // nginx drops to another user where it runs as root.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(files.served.path(), mode).unwrap();
        files
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.served.path().join(name)).unwrap()
    }
}

/// Bytes without a pattern that a misplaced piece could hide in.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

/// A response as curl saw it.
struct Curled {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Curled {
    /// The value of a field, `""` where it is absent.
    fn header(&self, name: &str) -> &str {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

/// Runs curl; panics where it is not content with what came.
fn curl(files: &Files, args: &[&str], url: &str) -> Curled {
    let at = |name: &str| files.fetched.path().join(name).to_str().unwrap().to_owned();
    let (head, body) = (at("head"), at("body"));
    let _none_yet = (fs::remove_file(&head), fs::remove_file(&body));
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--noproxy", "*", "-D", &head, "-o", &body])
        .args(args)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("the tests need curl: install it, for example with `apt-get install curl`");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {args:?} {url}: {said}");
    let head = fs::read_to_string(head).unwrap();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    // curl makes no file for a response without a body.
    Curled { status, head, body: fs::read(body).unwrap_or_default() }
}

fn larder_before(server: SocketAddr) -> Larder {
    let to = format!("http://{server}");
    let args = ["run", "--to", &to, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ttl", "60s"];
    Larder::start_with(&args, true)
}

fn python(directory: &Path, protocol: &str) -> (Process, SocketAddr) {
    let mut command = Command::new("python3");
    command.args([
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--protocol",
        protocol,
        "--directory",
    ]);
    command.arg(directory);
    let process = Process::spawn(command);
    let line = process.out.wait_for_line(|line| line.contains("http://"), PATIENCE);
    let addr = address_after(&line, "http://").unwrap();
    (process, addr)
}

fn nginx(directory: &Path, scratch: &Path) -> (Process, SocketAddr) {
    // Another process may take the port between our look and nginx's bind: try anew.
    for _ in 0..5 {
        let addr = unused_address();
        let config = scratch.join("nginx.conf");
        fs::write(&config, nginx_config(addr, directory, scratch)).unwrap();
        let mut process = Process::spawn(nginx_command(scratch, &config));
        let mut listening = false;
        within(PATIENCE, || {
            listening = TcpStream::connect(addr).is_ok();
            listening || !process.is_running()
        });
        if listening && process.is_running() {
            return (process, addr);
        }
        eprintln!("{}", process.err.whole());
    }
    panic!("nginx does not start");
}

fn nginx_command(scratch: &Path, config: &Path) -> Command {
    // Daemons are in sbin, which is not on everybody's path.
    let found = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/sbin/nginx"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let mut command = Command::new(found.unwrap_or("nginx"));
    command.arg("-e").arg("stderr").arg("-p").arg(scratch).arg("-c").arg(config);
    command
}

/// One process in the foreground, with nothing outside `scratch`.
fn nginx_config(addr: SocketAddr, directory: &Path, scratch: &Path) -> String {
    let scratch = scratch.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {scratch}/{name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {scratch}/nginx.pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\n    access_log off;\n    default_type application/octet-stream;\n{temporary}\
         \x20   server {{ listen {addr}; root {}; }}\n}}\n",
        directory.display()
    )
}

/// Every file twice, byte for byte, and then with HEAD; what fits is a hit the second time.
fn fetch_each_file_twice(files: &Files, larder: &Larder) {
    for (name, size) in FILES {
        let url = format!("http://{}/{name}", larder.proxy());
        let content = files.content(name);
        let stored = size <= MAX_OBJECT;
        for (round, x_cache) in ["MISS", if stored { "HIT" } else { "MISS" }].into_iter().enumerate() {
            let response = curl(files, &[], &url);
            assert_eq!(
                (response.status, response.header("x-cache")),
                (200, x_cache),
                "{name}: {}",
                response.head
            );
            assert_eq!(response.body.len(), size, "{name}, round {round}");
            assert!(response.body == content, "{name}, round {round}: the bytes differ");
            assert_eq!(response.header("content-length"), size.to_string(), "{name}: {}", response.head);
            if !stored {
                assert!(response.header("cache-status").ends_with("detail=too-large"), "{}", response.head);
            }
        }
        let head = curl(files, &["--head"], &url);
        let expected = (200, if stored { "HIT" } else { "MISS" }, size.to_string());
        let seen = (head.status, head.header("x-cache"), head.header("content-length").to_owned());
        assert_eq!(seen, expected, "{name}: {}", head.head);
    }
}

/// Ranges of what is stored are cut from it, whether or not the server knows ranges itself.
fn ask_for_ranges_of_what_is_stored(files: &Files, larder: &Larder) {
    let url = format!("http://{}/kib64.bin", larder.proxy());
    let content = files.content("kib64.bin");
    let whole = content.len();
    let rows = [
        ("0-0", 0..1),
        ("0-99", 0..100),
        ("65535-", 65535..whole),
        ("1000-70000", 1000..whole),
        ("-10", whole - 10..whole),
        ("-70000", 0..whole),
    ];
    for (range, expected) in rows {
        let response = curl(files, &["--range", range], &url);
        assert_eq!((response.status, response.header("x-cache")), (206, "HIT"), "{range}: {}", response.head);
        let content_range = format!("bytes {}-{}/{whole}", expected.start, expected.end - 1);
        assert_eq!(response.header("content-range"), content_range, "{range}");
        assert!(response.body == content[expected], "{range}: the bytes differ");
    }
    let beyond = curl(files, &["--range", "65536-"], &url);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */65536"), "{}", beyond.head);
    // A download that broke off is taken up where it was.
    let part = files.fetched.path().join("part");
    fs::write(&part, &content[..30_000]).unwrap();
    let done = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--noproxy", "*", "-C", "-", "-o"])
        .args([part.as_path(), Path::new(&url)])
        .status()
        .unwrap();
    assert!(done.success());
    assert!(fs::read(&part).unwrap() == content, "resumed to something else");
}

/// Conditions on what is stored are answered with 304, by validators that are the server's own.
fn ask_with_conditions(files: &Files, larder: &Larder, with_etag: bool) {
    let url = format!("http://{}/mib.bin", larder.proxy());
    let stored = curl(files, &[], &url);
    let (etag, modified) = (stored.header("etag").to_owned(), stored.header("last-modified").to_owned());
    assert_eq!((etag.is_empty(), modified.is_empty()), (!with_etag, false), "{}", stored.head);
    let since = |date: &str| format!("If-Modified-Since: {date}");
    let mut rows = vec![
        (since(&modified), 304),
        (since("Thu, 01 Jan 2037 00:00:00 GMT"), 304),
        (since("Thu, 01 Jan 1970 00:00:00 GMT"), 200),
        (since("yesterday"), 200),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"another\"".to_owned(), 200),
    ];
    if with_etag {
        rows.extend([
            (format!("If-None-Match: {etag}"), 304),
            (format!("If-None-Match: \"another\", W/{etag}"), 304),
        ]);
    }
    for (field, status) in rows {
        let response = curl(files, &["-H", &field], &url);
        assert_eq!(
            (response.status, response.header("x-cache")),
            (status, "HIT"),
            "{field}: {}",
            response.head
        );
        assert_eq!(response.body.len(), if status == 304 { 0 } else { 1024 * 1024 }, "{field}");
        assert_eq!(response.header("etag"), etag, "{field}");
    }
}

fn everything_through(files: &Files, server: SocketAddr, with_etag: bool) -> Larder {
    let larder = larder_before(server);
    fetch_each_file_twice(files, &larder);
    ask_for_ranges_of_what_is_stored(files, &larder);
    ask_with_conditions(files, &larder, with_etag);
    let absent = curl(files, &[], &format!("http://{}/absent", larder.proxy()));
    assert_eq!(absent.status, 404);
    assert_eq!(larder.stats()["failed"], 0);
    larder
}

#[test]
fn pythons_server_through_larder() {
    let files = Files::make();
    let (_python, addr) = python(files.served.path(), "HTTP/1.0");
    let larder = everything_through(&files, addr, false);
    // It lists directories, and knows no ranges: what is not stored comes whole.
    let listing = curl(&files, &[], &format!("http://{}/", larder.proxy()));
    assert!(String::from_utf8_lossy(&listing.body).contains("mib15.bin"), "{}", listing.head);
    let large = curl(&files, &["-H", "Range: bytes=0-9"], &format!("http://{}/mb20.bin", larder.proxy()));
    assert_eq!((large.status, large.body.len()), (200, 20_000_000), "{}", large.head);
}

#[test]
fn pythons_server_speaking_http_1_1_through_larder() {
    let files = Files::make();
    let (_python, addr) = python(files.served.path(), "HTTP/1.1");
    everything_through(&files, addr, false);
}

#[test]
fn nginx_through_larder() {
    let (files, scratch) = (Files::make(), tempfile::tempdir().unwrap());
    let (_nginx, addr) = nginx(files.served.path(), scratch.path());
    let larder = everything_through(&files, addr, true);
    // Ranges of what is not stored are nginx's own; so are conditions.
    let url = format!("http://{}/mb20.bin", larder.proxy());
    let content = files.content("mb20.bin");
    let part = curl(&files, &["--range", "19999990-"], &url);
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 19999990-19999999/20000000"));
    assert!(part.body == content[19_999_990..], "the bytes differ");
    let etag = curl(&files, &["--head"], &url).header("etag").to_owned();
    let known = curl(&files, &["-H", &format!("If-None-Match: {etag}")], &url);
    assert_eq!((known.status, known.body.len()), (304, 0), "{}", known.head);
}

#[test]
fn nginx_confirms_what_is_stored_and_says_when_it_has_changed() {
    let (files, scratch) = (Files::make(), tempfile::tempdir().unwrap());
    let (_nginx, addr) = nginx(files.served.path(), scratch.path());
    let larder = larder_before(addr);
    let url = format!("http://{}/kib.bin", larder.proxy());
    assert_eq!(curl(&files, &[], &url).header("x-cache"), "MISS");
    let again = ["-H", "Cache-Control: no-cache"];
    let confirmed = curl(&files, &again, &url);
    assert_eq!((confirmed.status, confirmed.header("x-cache")), (200, "REVALIDATED"), "{}", confirmed.head);
    assert!(confirmed.body == files.content("kib.bin"), "the bytes differ");

    fs::write(files.served.path().join("kib.bin"), noise(2000)).unwrap();
    let changed = curl(&files, &again, &url);
    assert_eq!((changed.status, changed.header("x-cache")), (200, "MISS"), "{}", changed.head);
    assert!(changed.body == noise(2000), "the bytes differ");
    let hit = curl(&files, &[], &url);
    assert_eq!((hit.header("x-cache"), hit.body == noise(2000)), ("HIT", true), "{}", hit.head);
}

#[test]
fn curl_speaks_http_2_to_larder_without_tls() {
    let files = Files::make();
    let (_python, addr) = python(files.served.path(), "HTTP/1.0");
    let larder = larder_before(addr);
    let url = format!("http://{}/mib.bin", larder.proxy());
    for x_cache in ["MISS", "HIT"] {
        let response = curl(&files, &["--http2-prior-knowledge"], &url);
        assert!(response.head.starts_with("HTTP/2 200"), "{}", response.head);
        assert_eq!(response.header("x-cache"), x_cache);
        assert!(response.body == files.content("mib.bin"), "the bytes differ");
    }
}

#[test]
fn a_server_that_goes_away_leaves_what_was_stored() {
    let files = Files::make();
    let (mut python, addr) = python(files.served.path(), "HTTP/1.0");
    let larder = larder_before(addr);
    assert_eq!(get(larder.proxy(), "/kib.bin", &[]).status, 200);
    python.kill9();
    let stored = get(larder.proxy(), "/kib.bin", &[]);
    assert_eq!((stored.status, stored.header("x-cache")), (200, "HIT"));
    assert!(stored.body == files.content("kib.bin"), "the bytes differ");
    let other: PathBuf = "/one.bin".into();
    assert_eq!(get(larder.proxy(), other.to_str().unwrap(), &[]).status, 502);
}
