//! Reads the attack cases of `tests/attacks/`; their form is told in its `README.md`.
//!
//! Knows blocks, alternatives and the escapes of bytes, and which words there are: an unknown one is an
//! error that names file and line. Must not know: how a case is run, or what comes of it.

use std::path::{Path, PathBuf};

/// One attack, with everything that its block gives.
#[derive(Clone, Debug)]
pub struct Case {
    /// File name and line.
    pub place: String,
    /// Name of the file without its suffix: the class.
    pub class: String,
    /// `RFC 9112 §6.1: exactly one chunked` and the alternative itself, for messages.
    pub told: String,
    /// Its number: `c17` stands in its targets and in its Host.
    pub number: usize,
    /// What attacks.
    pub attack: Attack,
    /// How its origin behaves.
    pub origin: Origin,
    /// What may come of it: any of these.
    pub safe: Vec<Outcome>,
    /// What the origin must have seen where it was asked.
    pub seen: Vec<Seen>,
}

/// What attacks.
#[derive(Clone, Debug)]
pub enum Attack {
    /// Bytes of a client on an HTTP/1 connection, and those of a second client, if any.
    Http1 { first: Vec<u8>, second: Vec<u8> },
    /// What a client does on an HTTP/2 connection, after the preface and its settings.
    Http2(Vec<Frames>),
    /// The bytes with which the origin answers the first request.
    Answer(Vec<u8>),
}

/// A part of what an HTTP/2 client sends.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Another value of a pseudo-field of the request that every case begins with.
    Set(Vec<u8>, Vec<u8>),
    /// Without this one.
    Drop(Vec<u8>),
    /// One more field, at the end.
    Add(Vec<u8>, Vec<u8>),
    /// One more field, before all others.
    First(Vec<u8>, Vec<u8>),
    /// Content.
    Data(Vec<u8>),
    /// A field of the trailer section.
    Trailer(Vec<u8>, Vec<u8>),
    /// The field block as bytes.
    Block(Vec<u8>),
    /// A frame as it is: type, flags, stream, payload; no request is sent by itself then.
    Raw(u8, u8, u32, Vec<u8>),
}

/// How the origin of a case behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Says which method and target it was asked for; not to be stored.
    #[default]
    Echoes,
    /// Says everything that it was sent, to be stored for a minute.
    Reflects,
    /// An error to be stored for a minute, where the request has this field or says this in it; else `fine`.
    Errs(u16, String),
    /// A page of a user, with a Last-Modified and no lifetime.
    Page,
    /// The bytes of [`Attack::Answer`], then the end of the connection.
    Answers,
    /// The same, and goes on listening.
    AnswersAndStays,
    /// Answers when it has the head, does not read on, and keeps the connection open.
    Early,
}

/// What may come of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An error of the client's (or one of these) from Larder, and the end of the connection (or of the
    /// stream); the origin got no whole request.
    Refused(Vec<u16>),
    /// One of these from Larder itself; the origin got nothing, and the connection may go on.
    Answered(Vec<u16>),
    /// The connection ends without an answer; the origin got no whole request.
    Cut,
    /// Everything was answered by the origin, which saw well-framed requests for these targets and no others.
    Passed(Vec<String>),
    /// 502 or 504, whole; nothing is stored.
    Gateway,
    /// The answer visibly breaks off; nothing is stored.
    Broken,
    /// This body comes, whole.
    Body(Vec<u8>),
    /// The second client gets a good answer without the word `evil`.
    Harmless,
    /// The second client does not get what the first one got.
    Unshared,
    /// The second client gets the answer to its own target.
    Own,
    /// The connection or the stream is ended by Larder.
    Ended,
}

/// What the origin must have seen in the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Exactly this content.
    Body(Vec<u8>),
    /// No such field.
    Without(String),
    /// This field, with this value.
    With(String, String),
    /// Such a field, whatever its value.
    Field(String),
}

/// Every case of every file.
///
/// # Errors
/// Every line that is not understood, with its place.
pub fn cases() -> Result<Vec<Case>, Vec<String>> {
    let (mut cases, mut mistakes) = (Vec::new(), Vec::new());
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let class = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for block in blocks(&class, &text, &mut mistakes) {
            block.expand(&mut cases, &mut mistakes);
        }
    }
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

/// The files, in order.
pub fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
    files.sort();
    files
}

/// A title with the lines below it.
struct Block {
    class: String,
    title: String,
    line: usize,
    lines: Vec<(usize, String)>,
    /// The alternatives for `{it}`.
    each: Vec<(usize, String)>,
}

fn blocks(class: &str, text: &str, mistakes: &mut Vec<String>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(title) = line.strip_prefix("== ") {
            if !title.starts_with("RFC ") && !title.starts_with("class ") {
                mistakes.push(format!("{class}.txt:{number}: a title names an RFC's clause or a class"));
            }
            let (class, title) = (class.to_owned(), title.to_owned());
            blocks.push(Block { class, title, line: number, lines: vec![], each: vec![] });
        } else if line.is_empty() || line.starts_with('#') {
        } else if let Some(block) = blocks.last_mut() {
            match line.strip_prefix("- ") {
                Some(value) => block.each.push((number, value.to_owned())),
                None => block.lines.push((number, line.to_owned())),
            }
        } else {
            mistakes.push(format!("{class}.txt:{number}: stands above the first title"));
        }
    }
    blocks
}

impl Block {
    fn expand(&self, cases: &mut Vec<Case>, mistakes: &mut Vec<String>) {
        if self.each.is_empty() {
            self.one(self.line, None, cases, mistakes);
        }
        for (line, value) in &self.each {
            self.one(*line, Some(value), cases, mistakes);
        }
    }

    fn one(&self, line: usize, it: Option<&str>, cases: &mut Vec<Case>, mistakes: &mut Vec<String>) {
        let number = cases.len() + 1;
        let place = format!("{}.txt:{line}", self.class);
        let told = format!("{}{}", self.title, it.map(|it| format!(" [{it}]")).unwrap_or_default());
        let mut draft = Draft::default();
        for (line, text) in &self.lines {
            let text = fill_in(text, number, it);
            if let Err(mistake) = draft.read(&text) {
                mistakes.push(format!("{}.txt:{line}: {mistake}: {text}", self.class));
            }
        }
        match draft.attack() {
            Ok(attack) => cases.push(Case {
                place,
                class: self.class.clone(),
                told,
                number,
                attack,
                origin: draft.origin,
                safe: draft.safe,
                seen: draft.seen,
            }),
            Err(mistake) => mistakes.push(format!("{place}: {mistake}")),
        }
    }
}

/// Puts the case's own words in.
fn fill_in(text: &str, number: usize, it: Option<&str>) -> String {
    text.replace("{it}", it.unwrap_or("{it}"))
        .replace("{path}", &format!("/c{number}"))
        .replace("{host}", &format!("c{number}.test"))
        .replace("{id}", &format!("c{number}"))
}

/// A case as far as its lines have been read.
#[derive(Default)]
struct Draft {
    first: Vec<u8>,
    second: Vec<u8>,
    answer: Vec<u8>,
    frames: Vec<Frames>,
    origin: Origin,
    safe: Vec<Outcome>,
    seen: Vec<Seen>,
}

impl Draft {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            ">" => add_line(&mut self.first, rest),
            ">>" => add_line(&mut self.second, rest),
            "<" => add_line(&mut self.answer, rest),
            "h2" => self.frames(rest),
            "origin" => origin(rest).map(|origin| self.origin = origin),
            "safe" => rest.split(" | ").try_for_each(|one| outcome(one).map(|it| self.safe.push(it))),
            "seen" => seen(rest).map(|seen| self.seen.push(seen)),
            _ => Err("an unknown word".to_owned()),
        }
    }

    fn frames(&mut self, rest: &str) -> Result<(), String> {
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let pair = || {
            let (name, value) = rest.split_once(" = ").ok_or("`name = value`")?;
            Ok::<_, String>((bytes(name)?, bytes(value)?))
        };
        self.frames.push(match word {
            "get" => return Ok(()),
            "set" => pair().map(|(name, value)| Frames::Set(name, value))?,
            "add" => pair().map(|(name, value)| Frames::Add(name, value))?,
            "first" => pair().map(|(name, value)| Frames::First(name, value))?,
            "trailer" => pair().map(|(name, value)| Frames::Trailer(name, value))?,
            "drop" => Frames::Drop(bytes(rest)?),
            "data" => Frames::Data(bytes(rest)?),
            "block" => Frames::Block(bytes(rest)?),
            "frame" => {
                let mut words = rest.splitn(4, ' ');
                let mut number = || words.next().and_then(|it| it.parse::<u32>().ok()).ok_or("three numbers");
                let (kind, flags, stream) = (number()?, number()?, number()?);
                let payload = bytes(words.next().unwrap_or_default())?;
                let small = |it: u32| u8::try_from(it).map_err(|error| error.to_string());
                Frames::Raw(small(kind)?, small(flags)?, stream, payload)
            }
            _ => return Err("an unknown word of HTTP/2".to_owned()),
        });
        Ok(())
    }

    fn attack(&mut self) -> Result<Attack, String> {
        let take = std::mem::take::<Vec<u8>>;
        if self.safe.is_empty() {
            return Err("says nothing of what is safe".to_owned());
        }
        let given = [!self.first.is_empty(), !self.answer.is_empty(), !self.frames.is_empty()];
        match given {
            [true, false, false] => {
                Ok(Attack::Http1 { first: take(&mut self.first), second: take(&mut self.second) })
            }
            [false, true, false] => Ok(Attack::Answer(take(&mut self.answer))),
            [false, false, true] => Ok(Attack::Http2(std::mem::take(&mut self.frames))),
            [false, false, false] => Ok(Attack::Http2(vec![])),
            _ => Err("gives more than one kind of attack".to_owned()),
        }
    }
}

/// A line ends in CRLF, unless a backslash stands at its end.
fn add_line(to: &mut Vec<u8>, text: &str) -> Result<(), String> {
    match text.strip_suffix('\\').filter(|text| !text.ends_with('\\')) {
        Some(open) => to.extend(bytes(open)?),
        None => {
            to.extend(bytes(text)?);
            to.extend(b"\r\n");
        }
    }
    Ok(())
}

/// `\r`, `\n`, `\t`, `\\`, `\s` (a space), `\xHH`, and `{a*70000}` for a repeat.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let code = rest.chars().next().ok_or("a backslash at the end")?;
                rest = &rest[code.len_utf8()..];
                out.push(match code {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    's' => b' ',
                    '\\' => b'\\',
                    'x' => {
                        let digits = rest.get(..2).ok_or("two digits after \\x")?;
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?
                    }
                    _ => return Err(format!("\\{code} is no escape")),
                });
            }
            '{' if let Some((inside, after)) = rest.split_once('}')
                && let Some((what, times)) = inside.rsplit_once('*')
                && let Ok(times) = times.parse() =>
            {
                out.extend(bytes(what)?.repeat(times));
                rest = after;
            }
            _ => out.extend(first.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(out)
}

fn origin(text: &str) -> Result<Origin, String> {
    Ok(match text {
        "reflects" => Origin::Reflects,
        "page" => Origin::Page,
        "answers" => Origin::Answers,
        "answers and stays" => Origin::AnswersAndStays,
        "early" => Origin::Early,
        _ => {
            let (status, word) =
                text.strip_prefix("errs ").and_then(|it| it.split_once(" on ")).ok_or("an unknown origin")?;
            Origin::Errs(status.parse().map_err(|_| "a status")?, word.to_owned())
        }
    })
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let statuses = || {
        let each = rest.split_whitespace().map(str::parse);
        each.collect::<Result<Vec<u16>, _>>().map_err(|error| error.to_string())
    };
    Ok(match word {
        "refused" => Outcome::Refused(statuses()?),
        "answered" => Outcome::Answered(statuses()?),
        "cut" => Outcome::Cut,
        "passed" => Outcome::Passed(rest.split_whitespace().map(str::to_owned).collect()),
        "gateway" => Outcome::Gateway,
        "broken" => Outcome::Broken,
        "body" => Outcome::Body(bytes(rest)?),
        "harmless" => Outcome::Harmless,
        "unshared" => Outcome::Unshared,
        "own" => Outcome::Own,
        "ended" => Outcome::Ended,
        _ => return Err("an unknown outcome".to_owned()),
    })
}

fn seen(text: &str) -> Result<Seen, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        "body" => Seen::Body(bytes(rest)?),
        "without" => Seen::Without(rest.to_owned()),
        "field" => Seen::Field(rest.to_owned()),
        "with" => {
            let (name, value) = rest.split_once(": ").ok_or("`name: value`")?;
            Seen::With(name.to_owned(), value.to_owned())
        }
        _ => return Err("an unknown thing to be seen".to_owned()),
    })
}
