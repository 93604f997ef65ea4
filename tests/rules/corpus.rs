//! Reads the rule cases of `tests/rules/`; their form is told in its `README.md`.
//!
//! Knows blocks, rows, alternatives and dates, and which words there are: an unknown one is an error
//! that names file and line. Must not know: what any case comes to.

use std::path::{Path, PathBuf};

use larder::clock::Timestamp;
use larder::fields::date;

/// The moment every response is received: Sun, 06 Nov 1994 08:49:37 GMT.
pub const AT: Timestamp = Timestamp::from_secs(784_111_777);

/// One case, with everything that its block gives.
#[derive(Clone, Debug)]
pub struct Case {
    /// File name and line.
    pub place: String,
    /// `9111 §4.2.1`
    pub clause: String,
    /// The block's title and the row itself, for messages.
    pub told: String,
    /// What is given, in order.
    pub given: Vec<Given>,
    /// What must come of it; never empty.
    pub expected: Vec<Expected>,
}

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    Method(String),
    Request(Field),
    Earlier(Field),
    Status(u16),
    Response(Field),
    Later(Field),
    TookMillis(u64),
    AtMillis(u64),
    Body(u64),
    Url(String),
    Set(String, String),
}

/// A field line.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value.escape_ascii())
    }
}

/// What must come of it: a word, and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub word: &'static str,
    pub rest: String,
}

/// Every word that may stand right of the arrow, and whether something must follow it.
const EXPECTED: [(&str, bool); 41] = [
    ("stored", false),
    ("not-stored", true),
    ("keeps", true),
    ("drops", true),
    ("life", true),
    ("age", true),
    ("ttl", true),
    ("fresh", false),
    ("grace", false),
    ("stale", false),
    ("ask", true),
    ("refused", true),
    ("on-error", true),
    ("on-no-answer", true),
    ("kept-for", true),
    ("304", false),
    ("200", false),
    ("if-range", true),
    ("part", true),
    ("whole", false),
    ("416", false),
    ("matches", false),
    ("differs", false),
    ("asks", true),
    ("asks-nothing", false),
    ("confirms", false),
    ("denies", false),
    ("becomes", true),
    ("loses", true),
    ("sends", true),
    ("omits", true),
    ("invalidates", true),
    ("invalidates-nothing", false),
    ("joins", false),
    ("stays-apart", false),
    ("asks-range", true),
    ("asks-no-range", false),
    ("agrees", false),
    ("disagrees", false),
    ("adopted", false),
    ("not-adopted", true),
];

/// The files of the corpus, sorted by name.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    files
}

/// Every case of every file, or every mistake in them.
pub fn cases() -> Result<Vec<Case>, Vec<String>> {
    let (mut cases, mut mistakes) = (Vec::new(), Vec::new());
    for file in files() {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        match read(&name, &std::fs::read_to_string(&file).unwrap()) {
            Ok(more) => cases.extend(more),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

#[derive(Default)]
struct Block {
    clause: String,
    title: String,
    given: Vec<Given>,
    each: Vec<Vec<Vec<Given>>>,
    rows: usize,
}

/// The cases of one file.
pub fn read(file: &str, text: &str) -> Result<Vec<Case>, Vec<String>> {
    let (mut cases, mut mistakes) = (Vec::new(), Vec::new());
    let mut block = Block::default();
    for (index, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", index + 1);
        match take(&place, line, &mut block) {
            Ok(more) => cases.extend(more),
            Err(mistake) => mistakes.push(format!("{place}: {mistake}")),
        }
    }
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

fn take(place: &str, line: &str, block: &mut Block) -> Result<Vec<Case>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(Vec::new());
    }
    if let Some(heading) = line.strip_prefix("== ") {
        *block = opened(heading)?;
        return Ok(Vec::new());
    }
    if block.clause.is_empty() {
        return Err("stands in no block".into());
    }
    if let Some(items) = line.strip_prefix("given ") {
        if block.rows > 0 {
            return Err("`given` comes before the block's rows".into());
        }
        if items.contains('{') {
            return Err("`given` takes no alternatives: that is `each`".into());
        }
        block.given.extend(given(items)?);
        return Ok(Vec::new());
    }
    if let Some(items) = line.strip_prefix("each ") {
        if block.rows > 0 {
            return Err("`each` comes before the block's rows".into());
        }
        let alternatives = in_step(items)?;
        if alternatives.len() < 2 {
            return Err("`each` without alternatives".into());
        }
        block.each.push(alternatives.iter().map(|items| given(items)).collect::<Result<_, _>>()?);
        return Ok(Vec::new());
    }
    block.rows += 1;
    row(place, line, block)
}

/// `9111 §4.2.1 what it is about`
fn opened(heading: &str) -> Result<Block, String> {
    let mut words = heading.splitn(3, ' ');
    let (rfc, clause, title) = (words.next(), words.next(), words.next());
    let (Some(rfc), Some(clause), Some(title)) = (rfc, clause, title) else {
        return Err("a block opens with `== RFC §clause title`".into());
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let section = clause.strip_prefix('§').is_some_and(|number| number.split('.').all(digits));
    if !digits(rfc) || !section || title.trim().is_empty() {
        return Err(format!("`{rfc} {clause}` is no clause, or has no title"));
    }
    Ok(Block { clause: format!("{rfc} {clause}"), title: title.trim().into(), ..Block::default() })
}

fn row(place: &str, line: &str, block: &Block) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for alternative in in_step(line)? {
        let (left, right) = alternative.split_once("=>").ok_or("no `=>`")?;
        let own = if left.trim().is_empty() { Vec::new() } else { given(left)? };
        let expected = items(right).map(expectation).collect::<Result<Vec<_>, _>>()?;
        if expected.is_empty() {
            return Err("nothing is expected".into());
        }
        for setting in combinations(&block.each) {
            let given = [&block.given[..], &setting[..], &own[..]].concat();
            let told = format!("{}: {} {}", block.title, tell(&setting), alternative.trim());
            let (place, clause) = (place.to_owned(), block.clause.clone());
            cases.push(Case { place, clause, told, given, expected: expected.clone() });
        }
    }
    Ok(cases)
}

fn tell(setting: &[Given]) -> String {
    if setting.is_empty() { String::new() } else { format!("{setting:?}") }
}

/// One of each list, in every way.
fn combinations(each: &[Vec<Vec<Given>>]) -> Vec<Vec<Given>> {
    each.iter().fold(vec![Vec::new()], |so_far, alternatives| {
        let with = |start: &Vec<Given>| {
            alternatives.iter().map(|more| [&start[..], &more[..]].concat()).collect::<Vec<_>>()
        };
        so_far.iter().flat_map(with).collect()
    })
}

/// A line with its braces taken apart: the n-th gives each brace's n-th alternative.
fn in_step(line: &str) -> Result<Vec<String>, String> {
    let mut pieces: Vec<(String, Vec<String>)> = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, behind) = after.split_once('}').ok_or("a brace stays open")?;
        let alternatives = inside.split(" / ").map(|one| one.trim().to_owned()).collect();
        pieces.push((before.to_owned(), alternatives));
        rest = behind;
    }
    let count = pieces.first().map_or(1, |(_, alternatives)| alternatives.len());
    if pieces.iter().any(|(_, alternatives)| alternatives.len() != count) {
        return Err("braces of different length".into());
    }
    let nth = |n: usize| {
        let start: String = pieces.iter().map(|(before, of)| format!("{before}{}", of[n])).collect();
        start + rest
    };
    Ok((0..count).map(nth).collect())
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(" | ").map(str::trim)
}

fn given(text: &str) -> Result<Vec<Given>, String> {
    items(text).map(one_given).collect()
}

fn one_given(item: &str) -> Result<Given, String> {
    let (word, rest) = item.split_once(' ').map_or((item, ""), |(word, rest)| (word, rest.trim()));
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    Ok(match word {
        "method" => Given::Method(rest.into()),
        ">" => Given::Request(field(rest)?),
        ">>" => Given::Earlier(field(rest)?),
        "<" => Given::Response(field(rest)?),
        "<<" => Given::Later(field(rest)?),
        "status" => Given::Status(rest.parse().map_err(|_| format!("`{rest}` is no status"))?),
        "took" => Given::TookMillis(millis(rest)?),
        "at" => Given::AtMillis(millis(rest)?),
        "body" => Given::Body(number(rest)?),
        "url" => Given::Url(rest.into()),
        "set" => {
            let (name, value) = rest.split_once('=').ok_or("`set` without `=`")?;
            Given::Set(name.into(), value.into())
        }
        _ => return Err(format!("`{word}` is no word for what is given")),
    })
}

fn expectation(item: &str) -> Result<Expected, String> {
    let (word, rest) = item.split_once(' ').map_or((item, ""), |(word, rest)| (word, rest.trim()));
    let known = EXPECTED.iter().find(|(known, _)| *known == word);
    let Some((word, more)) = known else { return Err(format!("`{word}` is no word for what is expected")) };
    if *more == rest.is_empty() {
        return Err(format!("`{word}` {}", if *more { "needs more" } else { "stands alone" }));
    }
    Ok(Expected { word, rest: if rest.contains('@') { lossy(&value(rest)?) } else { rest.to_owned() } })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn field(text: &str) -> Result<Field, String> {
    let (name, said) = text.split_once(':').ok_or_else(|| format!("`{text}` is no field"))?;
    Ok(Field { name: name.trim().into(), value: value(said.trim())? })
}

/// A field value, with dates and escapes written out.
fn value(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['@', '\\']) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        rest = if let Some(after) = rest.strip_prefix("@now") {
            bytes.extend_from_slice(&date::format(AT));
            after
        } else if let Some(after) = dated(rest, &mut bytes)? {
            after
        } else if let Some(after) = rest.strip_prefix("\\t") {
            bytes.push(b'\t');
            after
        } else if let Some(hex) = rest.strip_prefix("\\x").and_then(|hex| hex.get(..2)) {
            bytes.push(u8::from_str_radix(hex, 16).map_err(|_| format!("`\\x{hex}` is no byte"))?);
            &rest[4..]
        } else {
            bytes.push(rest.as_bytes()[0]);
            &rest[1..]
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// `@+60s`, `@-60s`, `@850+60s`, `@asc-60s`
fn dated<'a>(text: &'a str, into: &mut Vec<u8>) -> Result<Option<&'a str>, String> {
    let Some(rest) = text.strip_prefix('@') else { return Ok(None) };
    let (form, rest) = match (rest.strip_prefix("850"), rest.strip_prefix("asc")) {
        (Some(rest), _) => ("850", rest),
        (_, Some(rest)) => ("asc", rest),
        _ => ("imf", rest),
    };
    if !rest.starts_with(['+', '-']) {
        return Ok(None);
    }
    let end = rest.find('s').ok_or("a date ends with `s`")?;
    let by: i64 = rest[..end].parse().map_err(|_| format!("`{}` is no distance", &rest[..end]))?;
    let moment = Timestamp::from_secs(AT.as_secs().checked_add_signed(by).ok_or("before 1970")?);
    into.extend_from_slice(written(form, moment).as_bytes());
    Ok(Some(&rest[end + 1..]))
}

fn written(form: &str, moment: Timestamp) -> String {
    let imf = lossy(&date::format(moment));
    // `Sun, 06 Nov 1994 08:49:37 GMT` taken apart; the weekday's long name is not looked at.
    let (day, month, year, clock) = (&imf[5..7], &imf[8..11], &imf[12..16], &imf[17..25]);
    match form {
        "850" => format!("Sunday, {day}-{month}-{} {clock} GMT", &year[2..]),
        "asc" => format!("{} {month} {:>2} {clock} {year}", &imf[..3], day.trim_start_matches('0')),
        _ => imf,
    }
}

/// `60s`, `500ms`, `1500ms`
pub fn millis(text: &str) -> Result<u64, String> {
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (_, Some(digits)) => (digits, 1000),
        _ => return Err(format!("`{text}` has no unit, s or ms")),
    };
    digits.parse::<u64>().map(|n| n * unit).map_err(|_| format!("`{text}` is no duration"))
}
