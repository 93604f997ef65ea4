//! Reads the scripts of `tests/clauses/`; their form is told in its `README.md`.
//!
//! Must not know: how a script is run.

use std::path::Path;

use larder::clock::Timestamp;
use larder::fields::date;

/// A script: what is asked, answered and got, step by step.
#[derive(Clone, Debug)]
pub struct Script {
    /// File and line.
    pub place: String,
    /// `9111 §4.2`
    pub clause: String,
    pub title: String,
    pub route: String,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Default)]
pub struct Step {
    pub method: String,
    /// With its question mark; empty where there is none.
    pub query: String,
    pub content: String,
    pub fields: Vec<Field>,
    /// The request is repeated until it comes out as it should.
    pub eventually: bool,
    pub answers: Vec<Answer>,
    /// The origin is asked behind the client's back.
    pub behind: bool,
    pub seen: Vec<Seen>,
    pub want: Want,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Close,
    Respond { status: u16, body: String, fields: Vec<Field> },
}

#[derive(Clone, Debug, Default)]
pub struct Want {
    pub status: u16,
    pub body: String,
    /// `X-Cache` and the rest of `Cache-Status`.
    pub told: String,
    pub fields: Vec<Seen>,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
}

/// A field that must be there with this value (lines joined by ` + `), or must not be there.
#[derive(Clone, Debug)]
pub enum Seen {
    There(Field),
    Absent(String),
}

impl Seen {
    pub fn name(&self) -> &str {
        match self {
            Self::There(field) => &field.name,
            Self::Absent(name) => name,
        }
    }

    /// Whether these lines of the field are as they must be.
    pub fn holds(&self, lines: &[String]) -> Result<(), String> {
        match self {
            Self::Absent(name) if !lines.is_empty() => Err(format!("{name} is there: {lines:?}")),
            Self::There(Field { name, value }) => {
                let wanted = String::from_utf8_lossy(value);
                let found = lines.join(" + ");
                if found == wanted { Ok(()) } else { Err(format!("{name}: {found:?}, not {wanted:?}")) }
            }
            Self::Absent(_) => Ok(()),
        }
    }
}

/// Every script of every file, with dates around `now`, in seconds since 1970; or all mistakes.
pub fn read(now: u64) -> Result<Vec<Script>, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clauses");
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    let (mut scripts, mut mistakes) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        match parse(&name, &std::fs::read_to_string(&file).unwrap(), now) {
            Ok(more) => scripts.extend(more),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() { Ok(scripts) } else { Err(mistakes) }
}

/// The scripts of one file.
pub fn parse(file: &str, text: &str, now: u64) -> Result<Vec<Script>, Vec<String>> {
    let (mut scripts, mut mistakes) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", index + 1);
        if let Err(mistake) = take(&place, line.trim_end(), &mut scripts, now) {
            mistakes.push(format!("{place}: {mistake}"));
        }
    }
    let empty = |script: &&Script| script.steps.last().is_none_or(|step| step.want.status == 0);
    mistakes.extend(scripts.iter().filter(empty).map(|s| format!("{}: its end expects nothing", s.place)));
    if mistakes.is_empty() { Ok(scripts) } else { Err(mistakes) }
}

fn take(place: &str, line: &str, scripts: &mut Vec<Script>, now: u64) -> Result<(), String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    if mark == "==" {
        scripts.push(opened(place, rest)?);
        return Ok(());
    }
    let script = scripts.last_mut().ok_or("stands in no script")?;
    if mark == "on" {
        script.route = rest.into();
        return Ok(());
    }
    if mark == ">" || mark == ">~" {
        if script.steps.last().is_some_and(|step| step.want.status == 0) {
            return Err("the step before it expects nothing".into());
        }
        script.steps.push(asked(rest, mark == ">~", now)?);
        return Ok(());
    }
    let step = script.steps.last_mut().ok_or("no request before it")?;
    match mark {
        "!" | "!~" => {
            step.behind |= mark == "!~";
            step.answers.push(answered(rest, now)?);
        }
        "?" => step.seen = seen(rest.split(" | "), now)?,
        "<" => step.want = wanted(rest, now)?,
        _ => return Err(format!("`{mark}` is no line of a script")),
    }
    Ok(())
}

fn opened(place: &str, heading: &str) -> Result<Script, String> {
    let mut words = heading.splitn(3, ' ');
    let (Some(rfc), Some(clause), Some(title)) = (words.next(), words.next(), words.next()) else {
        return Err("a script opens with `== RFC §clause title`".into());
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(rfc) || !clause.strip_prefix('§').is_some_and(|number| number.split('.').all(digits)) {
        return Err(format!("`{rfc} {clause}` is no clause"));
    }
    let (place, clause) = (place.to_owned(), format!("{rfc} {clause}"));
    Ok(Script { place, clause, title: title.into(), route: "plain".into(), steps: Vec::new() })
}

fn asked(text: &str, eventually: bool, now: u64) -> Result<Step, String> {
    let mut items = text.split(" | ");
    let first = items.next().unwrap_or_default();
    let mut words = first.split(' ');
    let mut step = Step { method: words.next().unwrap_or_default().into(), eventually, ..Step::default() };
    for word in words {
        match word.strip_prefix("content=") {
            Some(content) => step.content = content.into(),
            None if word.starts_with('?') => step.query = word.into(),
            None => return Err(format!("`{word}` is neither a query nor `content=`")),
        }
    }
    step.fields = items.map(|item| field(item, now)).collect::<Result<_, _>>()?;
    Ok(step)
}

fn answered(text: &str, now: u64) -> Result<Answer, String> {
    if text == "close" {
        return Ok(Answer::Close);
    }
    let mut items = text.split(" | ");
    let (status, body) = items.next().unwrap_or_default().split_once(' ').unwrap_or((text, "-"));
    let status = status.parse().map_err(|_| format!("`{status}` is no status"))?;
    let fields = items.map(|item| field(item, now)).collect::<Result<_, _>>()?;
    Ok(Answer::Respond { status, body: content(body), fields })
}

fn wanted(text: &str, now: u64) -> Result<Want, String> {
    let mut items = text.split(" | ");
    let words: Vec<_> = items.next().unwrap_or_default().splitn(3, ' ').collect();
    let [status, body, told] = words[..] else { return Err("status, body, X-Cache and the rest".into()) };
    let status = status.parse().map_err(|_| format!("`{status}` is no status"))?;
    Ok(Want { status, body: content(body), told: told.into(), fields: seen(items, now)? })
}

fn content(word: &str) -> String {
    if word == "-" { String::new() } else { word.into() }
}

fn seen<'a>(items: impl Iterator<Item = &'a str>, now: u64) -> Result<Vec<Seen>, String> {
    let one = |item: &str| match item.trim().strip_suffix(" -") {
        Some(name) if !item.contains(':') => Ok(Seen::Absent(name.into())),
        _ => field(item, now).map(Seen::There),
    };
    items.map(one).collect()
}

fn field(text: &str, now: u64) -> Result<Field, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is no field"))?;
    Ok(Field { name: name.trim().into(), value: written(value.trim(), now)? })
}

/// With a date or an escaped byte written out.
fn written(text: &str, now: u64) -> Result<Vec<u8>, String> {
    if let Some(by) = text.strip_prefix('@') {
        let by = if by == "now" {
            0
        } else {
            by.trim_end_matches('s').parse().map_err(|_| format!("`@{by}` is no date"))?
        };
        let moment = now.checked_add_signed(by).ok_or("before 1970")?;
        return Ok(date::format(Timestamp::from_secs(moment)).to_vec());
    }
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).ok_or("half an escape")?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| format!("`\\x{hex}` is no byte"))?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Ok(bytes)
}
