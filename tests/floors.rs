//! Guards the floors of `docs/architecture.md`: reads `src/` and fails on a use of a higher floor
//! or of a neighbour, on an impure word in a pure room, on a coordinator that has grown too long,
//! and on a file that does not say what it is for.
//!
//! Knows Rust's comments, strings and paths well enough for that; its checker is itself tested on
//! made-up sources below.
//! Must not know: what the rooms do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::path::{Path, PathBuf};

/// Every room and its floor. A room may use rooms with a smaller number, and itself.
const FLOORS: [(&str, u8); 26] = [
    ("apart", 0),
    ("clock", 0),
    ("lately", 0),
    ("pace", 0),
    ("pieces", 0),
    ("scratch", 0),
    ("wire", 0),
    ("fields", 0),
    ("rate", 1),
    ("rules", 1),
    ("coding", 1),
    ("stored", 2),
    ("config", 3),
    ("telemetry", 3),
    ("interim", 3),
    ("store", 4),
    ("upstream", 4),
    ("flight", 4),
    ("worker", 5),
    ("fill", 6),
    ("proxy", 7),
    ("server", 9),
    ("simulate", 8),
    ("admin", 8),
    ("demo", 10),
    ("cli", 11),
];

/// Rooms that know nothing of sockets, files, clocks and runtimes.
const PURE: [&str; 9] = ["apart", "fields", "lately", "pace", "pieces", "wire", "rules", "coding", "stored"];

/// The one neighbour's item that a pure room may use: a moment that somebody else has read.
const PURE_TIME: &str = "Timestamp";

/// Crates and types that do I/O or read a clock.
const IMPURE_WORDS: [&str; 18] = [
    "tokio",
    "hyper",
    "hyper_util",
    "moka",
    "redis",
    "socket2",
    "parking_lot",
    "arc_swap",
    "tracing",
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "UnixDatagram",
    "ToSocketAddrs",
];

/// Modules of the standard library that do I/O.
const IMPURE_STD: [&str; 5] = ["env", "fs", "os", "process", "thread"];

/// Files that hold a machine together, where everything wants to be; and the lines they may have.
const COORDINATORS: [&str; 2] = ["proxy/mod.rs", "fill/mod.rs"];
const COORDINATOR_LINES: usize = 250;

#[test]
fn every_source_file_keeps_to_its_floor() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    assert!(files.iter().any(|file| file.ends_with("src/lib.rs")), "no sources at {}", source.display());
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
            check(name, &std::fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Cargo.toml turns documentation tests off: the library is nobody's but the program's.
#[test]
fn no_documentation_holds_an_example_that_would_have_to_run() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut blocks = 0;
    for file in rust_files(&source) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(str::trim_start);
        let fences = lines
            .filter_map(|line| line.strip_prefix("//!").or_else(|| line.strip_prefix("///")))
            .filter_map(|line| line.trim_start().strip_prefix("```"));
        for opening in fences.step_by(2) {
            assert_eq!(opening, "text", "{}", file.display());
            blocks += 1;
        }
    }
    assert!(blocks > 3, "{blocks}");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Everything that is wrong with one file; `name` is its path below `src/`.
fn check(name: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !source.starts_with("//!") {
        complaints.push(format!("src/{name}:1: does not open with `//!`: say what it knows"));
    }
    let lines = source.lines().count();
    if COORDINATORS.contains(&name) && lines >= COORDINATOR_LINES {
        complaints
            .push(format!("src/{name}: a coordinator has fewer than {COORDINATOR_LINES} lines, not {lines}"));
    }
    if name == "lib.rs" || name == "main.rs" {
        return complaints;
    }
    let module = module_path(name);
    let room = module[0].clone();
    let Some(floor) = floor_of(&room) else {
        complaints.push(format!("src/{name}: the room `{room}` has no floor: add it to tests/floors.rs"));
        return complaints;
    };
    let tokens = tokens(source);
    for path in paths(&tokens, &module) {
        complaints.extend(used(&room, floor, &path).map(|why| format!("src/{name}:{}: {why}", path.line)));
    }
    if PURE.contains(&room.as_str()) {
        complaints.extend(impure(&tokens, &module).map(|(line, why)| format!("src/{name}:{line}: {why}")));
    }
    complaints.dedup();
    complaints
}

fn floor_of(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// `store/redis/mod.rs` is the module `store::redis`.
fn module_path(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Why this path may not stand in this room.
fn used(room: &str, floor: u8, path: &CodePath) -> Option<String> {
    let Some(target) = path.from_root.as_ref()?.first() else {
        return Some("names the crate's root itself, which hides which rooms are used".to_owned());
    };
    if target == room {
        return None;
    }
    let Some(above) = floor_of(target) else {
        return Some(format!("`{target}` is no room with a floor"));
    };
    let item = path.from_root.as_ref()?.get(1).map(String::as_str);
    if PURE.contains(&room) && target == "clock" && item != Some(PURE_TIME) {
        return Some(format!("a pure room uses `clock::{PURE_TIME}` and nothing else of the clock"));
    }
    let allowed = above < floor || (target == "clock" && room != "clock");
    (!allowed).then(|| format!("`{room}` (floor {floor}) may not use `{target}` (floor {above})"))
}

/// Impure words of a pure room, with their lines.
fn impure(tokens: &[Token], module: &[String]) -> impl Iterator<Item = (usize, String)> {
    let words = tokens
        .iter()
        .filter(|token| IMPURE_WORDS.contains(&token.text.as_str()))
        .map(|token| (token.line, format!("a pure room does not know `{}`", token.text)));
    let std_paths = paths(tokens, module)
        .into_iter()
        .filter(|path| path.written.first().is_some_and(|first| first == "std"))
        .filter(|path| path.written.get(1).is_some_and(|second| IMPURE_STD.contains(&second.as_str())))
        .map(|path| (path.line, format!("a pure room does not know `{}`", path.written.join("::"))));
    words.chain(std_paths).collect::<Vec<_>>().into_iter()
}

/// A path in the code.
#[derive(Debug, PartialEq)]
struct CodePath {
    line: usize,
    /// As written, groups of a `use` spread out.
    written: Vec<String>,
    /// Its segments from the crate's root, where it can be told; empty = the root itself.
    from_root: Option<Vec<String>>,
}

/// Every path of two or more segments, also inside macros, with `use` groups spread out.
fn paths(tokens: &[Token], module: &[String]) -> Vec<CodePath> {
    let mut found = Vec::new();
    let mut here = module.to_vec();
    let mut depth = 0_usize;
    let mut opened: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if opened.last() == Some(&depth) {
                    opened.pop();
                    here.pop();
                }
            }
            "mod" if text(tokens, at + 2) == "{" => {
                here.push(text(tokens, at + 1).to_owned());
                opened.push(depth);
                at += 1;
            }
            _ if token.is_word() && text(tokens, at.wrapping_sub(1)) != "::" => {
                let (spread, next) = path_at(tokens, at);
                let whole = text(tokens, at + 1) == "::" || spread.iter().any(|path| path.len() > 1);
                let lone_crate = token.text == "crate" && is_use(tokens, at);
                for written in spread.into_iter().filter(|_| whole || lone_crate) {
                    let from_root = from_root(&written, &here);
                    found.push(CodePath { line: token.line, written, from_root });
                }
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_use(tokens: &[Token], at: usize) -> bool {
    text(tokens, at.wrapping_sub(1)) == "use"
}

/// The path that begins at `at`, once per branch of its groups, and the position behind it.
fn path_at(tokens: &[Token], at: usize) -> (Vec<Vec<String>>, usize) {
    let mut stem = vec![text(tokens, at).to_owned()];
    let mut at = at + 1;
    while text(tokens, at) == "::" {
        match tokens.get(at + 1) {
            Some(next) if next.is_word() => stem.push(next.text.clone()),
            Some(next) if next.text == "{" => return group(tokens, at + 2, &stem),
            Some(next) if next.text == "*" => return (vec![stem], at + 2),
            _ => return (vec![stem], at + 1),
        }
        at += 2;
    }
    (vec![stem], at)
}

/// The branches of a `{…}` group whose inside begins at `at`.
fn group(tokens: &[Token], mut at: usize, stem: &[String]) -> (Vec<Vec<String>>, usize) {
    let mut branches = Vec::new();
    while let Some(token) = tokens.get(at) {
        if token.text == "}" {
            return (branches, at + 1);
        }
        if !token.is_word() {
            // `*` stands for the stem; a comma for nothing.
            branches.extend((token.text == "*").then(|| stem.to_vec()));
            at += 1;
            continue;
        }
        let (inner, next) = path_at(tokens, at);
        for branch in inner {
            let tail =
                if branch.first().is_some_and(|first| first == "self") { &branch[1..] } else { &branch[..] };
            branches.push([stem, tail].concat());
        }
        at = if text(tokens, next) == "as" { next + 2 } else { next };
    }
    (branches, at)
}

/// Resolves `crate`, `larder`, `self` and `super`; other paths name another crate or something
/// that a `use` has brought in, and that `use` is looked at itself.
fn from_root(written: &[String], here: &[String]) -> Option<Vec<String>> {
    let ups = written.iter().take_while(|part| *part == "super").count();
    match written.first()?.as_str() {
        "crate" | "larder" => Some(written[1..].to_vec()),
        "self" => {
            let ups = written[1..].iter().take_while(|part| *part == "super").count();
            Some([&here[..here.len().checked_sub(ups)?], &written[1 + ups..]].concat())
        }
        "super" => Some([&here[..here.len().checked_sub(ups)?], &written[ups..]].concat()),
        _ => None,
    }
}

/// A word, `::`, or any other single character of the code.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// The code without comments, strings and character literals.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = token_end(&chars, at);
        let text: String = chars[at..end].iter().collect();
        if text.starts_with(|c: char| c.is_alphanumeric() || c == '_') || is_punctuation(&text) {
            let word = text.strip_prefix("r#").unwrap_or(&text).to_owned();
            if !is_string(&word) {
                tokens.push(Token { line, text: word });
            }
        }
        line += text.matches('\n').count();
        at = end;
    }
    tokens
}

fn is_punctuation(text: &str) -> bool {
    text == "::" || (text.chars().count() == 1 && !text.starts_with([' ', '\n', '\t', '\r', '"']))
}

fn is_string(word: &str) -> bool {
    word.contains('"')
}

/// Where the token, comment, literal or space that begins at `at` ends.
fn token_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment_end(chars, at),
        ['"', ..] => string_end(chars, at + 1),
        ['\'', ..] => quote_end(chars, at),
        [':', ':', ..] => at + 2,
        [c, ..] if c.is_alphanumeric() || *c == '_' => word_end(chars, at),
        _ => at + 1,
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at < chars.len() {
        let (step, change) = match &chars[at..] {
            ['/', '*', ..] => (2, 1),
            ['*', '/', ..] => (2, -1),
            _ => (1, 0),
        };
        depth = depth.saturating_add_signed(change);
        at += step;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal, or the `'` of a lifetime.
fn quote_end(chars: &[char], at: usize) -> usize {
    match &chars[at..] {
        ['\'', '\\', _, rest @ ..] => at + 4 + rest.iter().position(|c| *c == '\'').unwrap_or(rest.len()),
        ['\'', _, '\'', ..] => at + 3,
        _ => at + 1,
    }
}

/// A word, together with the string that it introduces (`b"…"`, `r#"…"#`).
fn word_end(chars: &[char], at: usize) -> usize {
    let end = at + chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    let word: String = chars[at..end].iter().collect();
    let raw = matches!(word.as_str(), "r" | "br" | "cr");
    let hashes = chars[end..].iter().take_while(|c| **c == '#').count();
    match chars.get(end + hashes) {
        Some('"') if raw => raw_string_end(chars, end + hashes + 1, hashes),
        Some('"') if hashes == 0 && matches!(word.as_str(), "b" | "c") => string_end(chars, end + 1),
        Some(c) if raw && hashes == 1 && (c.is_alphabetic() || *c == '_') => word_end(chars, end + 1),
        _ => end,
    }
}

fn raw_string_end(chars: &[char], at: usize, hashes: usize) -> usize {
    (at..chars.len())
        .find(|i| {
            chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        })
        .map_or(chars.len(), |i| i + 1 + hashes)
}

/// The checker's own tests: it must complain where there is something to complain about.
mod checker {
    use super::*;

    fn complaints(name: &str, code: &str) -> Vec<String> {
        check(name, &format!("//! What it knows.\n{code}\n"))
    }

    #[test]
    fn upward_and_sideways_uses_are_found_in_every_form() {
        let rows = [
            ("store/memory.rs", "use crate::proxy::Step;", "`proxy` (floor 7)"),
            ("store/memory.rs", "use crate::upstream::Upstream;", "`upstream` (floor 4)"),
            ("store/memory.rs", "pub(crate) use crate::flight;", "`flight` (floor 4)"),
            ("telemetry/logs.rs", "use crate::config;", "`config` (floor 3)"),
            (
                "store/memory.rs",
                "use crate::{clock::Clock, stored::{CacheKey}, fill::{self, Fill}};",
                "`fill`",
            ),
            ("store/memory.rs", "use crate::{rules::*, worker::*};", "`worker` (floor 5)"),
            ("store/memory.rs", "fn f() { let x = crate::worker::now(); }", "`worker` (floor 5)"),
            ("store/memory.rs", "fn f(x: &mut crate::server::Server<'_>) {}", "`server` (floor 9)"),
            ("store/memory.rs", "fn f() { println!(\"{}\", crate::server::NAME); }", "`server` (floor 9)"),
            ("store/memory.rs", "use super::super::admin::Admin;", "`admin` (floor 8)"),
            ("store/mod.rs", "use super::cli::Args;", "`cli` (floor 11)"),
            (
                "store/redis/wire.rs",
                "mod tests { use super::super::super::super::demo; }",
                "`demo` (floor 10)",
            ),
            (
                "store/redis/wire.rs",
                "mod a { mod b {} } use super::super::super::demo::X;",
                "`demo` (floor 10)",
            ),
            ("store/memory.rs", "use self::super::super::admin::Admin;", "`admin` (floor 8)"),
            ("store/memory.rs", "#[cfg(test)] mod tests { use crate::proxy::Step; }", "`proxy` (floor 7)"),
            ("store/memory.rs", "use crate::r#proxy::Step;", "`proxy` (floor 7)"),
            ("store/memory.rs", "use crate /* */ :: // x\n proxy::Step;", "`proxy` (floor 7)"),
            ("store/memory.rs", "use larder::proxy::Step;", "`proxy` (floor 7)"),
            ("proxy/mod.rs", "use crate::admin::Admin;", "`admin` (floor 8)"),
            ("demo/mod.rs", "use crate::cli::Args;", "`cli` (floor 11)"),
            ("rules/mod.rs", "use crate::stored::CacheKey;", "`stored` (floor 2)"),
            ("clock.rs", "use crate::fields::date;", "`fields` (floor 0)"),
            ("worker.rs", "use crate::nowhere::X;", "`nowhere` is no room"),
            ("worker.rs", "use crate::*;", "the crate's root itself"),
            ("worker.rs", "use crate as larder_;", "the crate's root itself"),
            ("worker.rs", "use super::*;", "the crate's root itself"),
            ("attic/mod.rs", "", "`attic` has no floor"),
        ];
        for (name, code, expected) in rows {
            let found = complaints(name, code);
            assert_eq!(found.len(), 1, "{name}: {code}\n{found:?}");
            assert!(found[0].contains(expected), "{name}: {code}\n{found:?}");
        }
    }

    #[test]
    fn uses_of_lower_floors_and_of_the_own_room_are_fine() {
        let rows = [
            ("store/memory.rs", "use crate::stored::{CacheKey, StoredResponse}; use crate::clock::Clock;"),
            ("store/memory.rs", "use super::purge::Purges; use crate::store::redis::Redis;"),
            ("store/memory.rs", "#[cfg(test)] mod tests { use super::*; use super::super::purge::X; }"),
            ("store/memory.rs", "// use crate::proxy::Step;\n/* crate::proxy::X /* crate::fill::Y */ */"),
            ("store/memory.rs", "/// See [`crate::proxy::Step`].\nstruct S;"),
            ("store/memory.rs", "const S: &str = \"crate::proxy \\\" crate::fill\"; "),
            (
                "store/memory.rs",
                "const S: &str = r#\"crate::proxy::\" crate::fill\"#; const B: &[u8] = b\"crate::cli::x\";",
            ),
            ("store/memory.rs", "fn f<'a>(x: &'a str) { x.find('\"'); x.find('\\''); x.find('\\u{22}'); }"),
            ("store/memory.rs", "pub(crate) struct S; pub(in crate::store) struct T; fn f(proxy: u8) {}"),
            ("clock.rs", "use std::time::Instant;"),
            ("config/mod.rs", "use tokio::net::TcpListener; use std::fs;"),
            ("proxy/mod.rs", "use crate::{clock::Clock, fill, worker::Worker};"),
            ("cli/mod.rs", "use crate::{demo, server, admin, config};"),
            ("fields/date.rs", "use crate::clock::Timestamp;"),
        ];
        for (name, code) in rows {
            assert_eq!(complaints(name, code), Vec::<String>::new(), "{name}: {code}");
        }
    }

    #[test]
    fn impure_words_are_found_in_pure_rooms_only() {
        let rows = [
            "use tokio::sync::mpsc;",
            "fn f() { hyper::body::Body; }",
            "use moka::sync::Cache;",
            "fn f(c: &redis::Client) {}",
            "use std::net::TcpStream;",
            "use std::net::{IpAddr, UdpSocket};",
            "use std::fs;",
            "use std::{collections::HashMap, fs::File};",
            "fn f() { std::fs::read(\"x\"); }",
            "fn f() { std::thread::spawn(g); }",
            "use std::time::{Duration, Instant};",
            "fn f(t: SystemTime) {}",
            "use crate::clock::Clock;",
            "use crate::clock::{Mono, Timestamp};",
            "#[cfg(test)] mod tests { fn f() { std::fs::read(\"x\"); } }",
        ];
        for room in PURE {
            for code in rows {
                assert_eq!(complaints(&format!("{room}/a.rs"), code).len(), 1, "{room}: {code}");
            }
        }
        for code in rows.iter().filter(|code| !code.contains("mod tests")) {
            assert_eq!(complaints("worker.rs", code), Vec::<String>::new(), "{code}");
        }
    }

    #[test]
    fn pure_rooms_may_speak_of_the_impure_and_know_addresses_and_durations() {
        let code = "// tokio, redis, std::fs\nuse std::net::{IpAddr, SocketAddr}; use std::time::Duration;\n\
                    const S: &str = \"redis tokio std::fs\"; use std::io; fn f(fs: u8, process: u8) {}";
        assert_eq!(complaints("stored/codec.rs", code), Vec::<String>::new());
    }

    #[test]
    fn complaints_name_file_and_line() {
        let found = complaints(
            "store/memory.rs",
            "\n/* one\ntwo */ const S: &str = \"a\nb\";\nuse crate::proxy::Step;",
        );
        assert!(found[0].starts_with("src/store/memory.rs:6: "), "{found:?}");
    }

    #[test]
    fn a_long_coordinator_and_a_silent_file_are_found() {
        let lines = |count: usize| "//! What it knows.\n".repeat(count);
        assert_eq!(check("proxy/mod.rs", &lines(249)), Vec::<String>::new());
        assert_eq!(check("proxy/mod.rs", &lines(250)).len(), 1);
        assert_eq!(check("fill/mod.rs", &lines(250)).len(), 1);
        assert_eq!(check("proxy/lookup.rs", &lines(250)), Vec::<String>::new());
        for name in ["lib.rs", "main.rs", "proxy/lookup.rs"] {
            assert_eq!(check(name, "use std::fmt;\n").len(), 1, "{name}");
        }
    }
}
