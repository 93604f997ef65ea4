//! Walks the TOML tree: typed values with their places, and every mistake noted rather than the
//! first one returned.
//!
//! Knows TOML's types, units, `${NAME}` and which keys were asked for, so that every other key
//! can be refused. A getter that finds a mistake notes it and goes on with the default.
//! Must not know: what any setting means.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Unexpanded, expand};
use super::nearest::nearest;
use super::problems::Found;
use super::units::{self, Mistake};

/// A value of the file with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A place in the file, in bytes.
pub(super) type Span = Range<usize>;

/// What every part of the walk shares.
pub(super) struct Reader<'a> {
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    found: RefCell<Vec<Found>>,
    /// Every setting that was asked for, and whether the file has it: for the test that holds the
    /// shipped file complete.
    #[cfg(test)]
    asked: RefCell<Vec<(String, bool)>>,
}

/// A string value after `${NAME}`.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// The value.
    pub(super) value: String,
    /// Where it stands.
    pub(super) span: Span,
    /// Whether it is other than what the file shows.
    pub(super) from_env: bool,
}

/// Whether zero is a value like any other, or what to write instead.
#[derive(Clone, Copy)]
pub(super) enum Zero {
    /// It is.
    Fine,
    /// It makes no sense.
    Refused(&'static str),
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            text,
            env,
            found: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Notes a mistake.
    pub(super) fn report(&self, found: Found) {
        self.found.borrow_mut().push(found);
    }

    /// Notes a mistake in `text`. Where the file does not show the value, it is added, so it is
    /// not for values that may be secret.
    pub(super) fn refuse(&self, text: &Text, message: impl Into<String>, help: impl Into<String>) {
        let found = Found::new(text.span.clone(), message).help(help);
        self.report(match text.from_env {
            true => found.note(format!("with the environment's values this reads \"{}\"", text.value)),
            false => found,
        });
    }

    /// How many mistakes were noted so far.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    /// Everything noted.
    pub(super) fn into_found(self) -> Vec<Found> {
        self.found.into_inner()
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<(String, bool)> {
        self.asked.borrow().clone()
    }

    /// Line of a place, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        1 + before.bytes().filter(|b| *b == b'\n').count()
    }

    /// What the file says at a place.
    pub(super) fn written(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// A string, expanded.
    pub(super) fn text(&self, value: &Value<'_>) -> Option<Text> {
        let Some(raw) = value.get_ref().as_str() else {
            self.wrong_type(value, "a string");
            return None;
        };
        match expand(raw, self.env) {
            Ok((value_text, from_env)) => Some(Text { value: value_text, span: value.span(), from_env }),
            Err(why) => {
                self.unexpanded(&value.span(), why);
                None
            }
        }
    }

    /// A string, or a number as it is written: for values with a unit, so that a bare number is
    /// told about its unit and not about its type.
    fn measure(&self, value: &Value<'_>) -> Option<Text> {
        let number = match value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) => self.written(&value.span()).replace('_', ""),
            _ => return self.text(value),
        };
        Some(Text { value: number, span: value.span(), from_env: false })
    }

    /// A string or a list of them.
    pub(super) fn texts(&self, value: &Value<'_>) -> Vec<Text> {
        match value.get_ref() {
            DeValue::Array(list) => list.iter().filter_map(|v| self.text(v)).collect(),
            DeValue::String(_) => self.text(value).into_iter().collect(),
            _ => {
                self.wrong_type(value, "a string or a list of strings");
                Vec::new()
            }
        }
    }

    /// A duration; a bare number is offered the unit `typical`.
    pub(super) fn duration(&self, text: &Text, typical: &str, zero: Zero) -> Option<Duration> {
        let duration = self.or_refuse(text, units::duration(&text.value, typical))?;
        self.allow_zero(text, duration.is_zero(), zero).then_some(duration)
    }

    fn or_refuse<T>(&self, text: &Text, read: Result<T, Mistake>) -> Option<T> {
        read.map_err(|mistake| self.refuse(text, mistake.message, mistake.help)).ok()
    }

    fn allow_zero(&self, text: &Text, is_zero: bool, zero: Zero) -> bool {
        match zero {
            Zero::Refused(help) if is_zero => self.refuse(text, "zero makes no sense here", help),
            _ => return true,
        }
        false
    }

    /// Notes a value of the wrong type.
    pub(super) fn wrong_type(&self, value: &Value<'_>, wanted: &str) {
        let kind = value.get_ref().type_str();
        let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
        let found = Found::new(value.span(), format!("expected {wanted}, found {article} {kind}"));
        let scalar = matches!(kind, "integer" | "float" | "boolean");
        let help = match wanted.starts_with("a string") && scalar {
            true => format!("write \"{}\"", self.written(&value.span())),
            false => String::new(),
        };
        self.report(found.help(help));
    }

    fn unexpanded(&self, span: &Span, why: Unexpanded) {
        let (mark, message, help) = match why {
            Unexpanded::Unset(name) => (
                format!("${{{name}}}"),
                format!("the environment has no `{name}`"),
                format!("set {name}, or write $${{ for a plain ${{"),
            ),
            Unexpanded::Open => {
                ("${".into(), "`${` without `}`".into(), "close it, or write $${ for a plain ${".into())
            }
            Unexpanded::NotAName(name) => (
                format!("${{{name}}}"),
                format!("`{name}` is not the name of an environment variable"),
                "letters, digits and _ only, or write $${ for a plain ${".into(),
            ),
        };
        self.report(Found::new(self.part(span, &mark), message).help(help));
    }

    /// Where `part` stands within a value, else the whole value.
    fn part(&self, span: &Span, part: &str) -> Span {
        match self.written(span).find(part) {
            Some(at) => span.start + at..span.start + at + part.len(),
            None => span.clone(),
        }
    }
}

/// A table of the file, read key by key.
pub(super) struct Section<'a> {
    /// What every part of the walk shares.
    pub(super) reader: &'a Reader<'a>,
    /// Where its header or braces stand.
    pub(super) span: Span,
    path: String,
    table: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    missing: Vec<(&'static str, String)>,
}

impl<'a> Section<'a> {
    /// A table at `path`, such as `route.match`; empty for the file itself.
    pub(super) fn new(reader: &'a Reader<'a>, table: &'a DeTable<'a>, span: Span, path: &str) -> Self {
        let (asked, missing) = (Vec::new(), Vec::new());
        Self { reader, span, path: path.to_owned(), table, asked, missing }
    }

    /// The value of a key, whatever its type.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.asked.push(key);
        let value = self.table.get(key);
        #[cfg(test)]
        self.reader.asked.borrow_mut().push((self.path_of(key), value.is_some()));
        value
    }

    /// Where a key's value stands, if the file has the key.
    pub(super) fn span_of(&self, key: &str) -> Option<Span> {
        self.table.get(key).map(Spanned::span)
    }

    /// Whether a key's value is a list without anything in it.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let list = self.table.get(key).and_then(|value| value.get_ref().as_array());
        list.is_some_and(|list| list.is_empty())
    }

    /// Every key and value, in the file's order: for tables whose keys are names.
    pub(super) fn entries(&self) -> Vec<(&'a Spanned<std::borrow::Cow<'a, str>>, &'a Value<'a>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
    }

    /// A key's full name.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes that a key is wanted and not there; `help` says what to write.
    pub(super) fn missing(&mut self, key: &'static str, help: impl Into<String>) {
        self.missing.push((key, help.into()));
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Text> {
        let value = self.value(key)?;
        self.reader.text(value)
    }

    /// A string, or a list of them; `None` where the key is not there.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Text>> {
        let value = self.value(key)?;
        Some(self.reader.texts(value))
    }

    /// A string or a bare number, as text: for values with a unit or a word in their place.
    pub(super) fn measure(&mut self, key: &'static str) -> Option<Text> {
        let value = self.value(key)?;
        self.reader.measure(value)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        if let Some(flag) = value.get_ref().as_bool() {
            return flag;
        }
        let Some(text) = self.from_env(value) else {
            self.reader.wrong_type(value, "true or false");
            return default;
        };
        text.value.parse().unwrap_or_else(|_| {
            self.reader.refuse(&text, "expected true or false", "");
            default
        })
    }

    /// A whole number within `range`.
    pub(super) fn count<N>(&mut self, key: &'static str, default: N, range: RangeInclusive<N>) -> N
    where
        N: Copy + Display + PartialOrd + TryFrom<u64>,
    {
        let value = self.value(key);
        value.and_then(|value| self.number(value, range)).unwrap_or(default)
    }

    /// The whole number of a value, within `range`.
    pub(super) fn number<N>(&self, value: &Value<'_>, range: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + Display + PartialOrd + TryFrom<u64>,
    {
        let Some(text) = self.whole_number(value) else {
            self.reader.wrong_type(value, "a whole number");
            return None;
        };
        let number = text.value.parse::<u64>().ok().and_then(|n| N::try_from(n).ok());
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            let help = format!("write a number from {} to {}", range.start(), range.end());
            self.reader.refuse(&text, "out of range", help);
        }
        number
    }

    fn whole_number(&self, value: &Value<'_>) -> Option<Text> {
        match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => {
                Some(Text { value: number.as_str().replace('_', ""), span: value.span(), from_env: false })
            }
            _ => self.from_env(value),
        }
    }

    /// TOML has no other way to write a number or a flag that comes from the environment than as
    /// a string, so such a string, and only such, may stand for one.
    fn from_env(&self, value: &Value<'_>) -> Option<Text> {
        value.get_ref().as_str().filter(|raw| raw.contains("${"))?;
        self.reader.text(value).filter(|text| text.from_env)
    }

    /// A duration, offered in the default's kind of unit where none is written.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration, zero: Zero) -> Duration {
        let typical = if default < Duration::from_secs(1) { "ms" } else { "s" };
        let text = self.measure(key);
        text.and_then(|text| self.reader.duration(&text, typical, zero)).unwrap_or(default)
    }

    /// A duration that may be left out.
    pub(super) fn optional_duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.measure(key)?;
        self.reader.duration(&text, "s", Zero::Fine)
    }

    /// A size in bytes, not zero.
    pub(super) fn size(&mut self, key: &'static str, default: u64, zero: &'static str) -> u64 {
        let Some(text) = self.measure(key) else { return default };
        let size = self.reader.or_refuse(&text, units::size(&text.value));
        let size = size.filter(|size| self.reader.allow_zero(&text, *size == 0, Zero::Refused(zero)));
        size.unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else { return default };
        let known = words.iter().find(|(word, _)| *word == text.value);
        if known.is_none() {
            self.reader.refuse(&text, "unknown word", one_of(&text.value, words.iter().map(|(w, _)| *w)));
        }
        known.map_or(default, |(_, t)| *t)
    }

    /// A table within this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.value(key)?;
        self.section_of(key, value)
    }

    /// The same for a value already at hand.
    pub(super) fn section_of(&self, key: &str, value: &'a Value<'a>) -> Option<Section<'a>> {
        let path = self.path_of(key);
        let Some(table) = value.get_ref().as_table() else {
            self.reader.wrong_type(value, &format!("a table, such as [{path}]"));
            return None;
        };
        Some(Section::new(self.reader, table, value.span(), &path))
    }

    /// Refuses every key that was not asked for, and notes what is missing. A missing key is not
    /// told twice: where an unknown one looks like it, that one is all that is wrong.
    pub(super) fn finish(mut self) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.asked.iter().any(|known| *known == name) {
                continue;
            }
            let meant = nearest(name, self.asked.iter().copied());
            self.missing.retain(|(missing, _)| Some(*missing) != meant);
            self.reader.report(self.unknown(key.span(), name, meant));
        }
        for (key, help) in &self.missing {
            let message = format!("`{}` is missing", self.path_of(key));
            self.reader.report(Found::new(self.span.clone(), message).help(help.clone()));
        }
    }

    fn unknown(&self, span: Span, name: &str, meant: Option<&str>) -> Found {
        let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
        let found = Found::new(span, format!("unknown key `{name}`{place}"));
        match meant {
            Some(known) => found.help(format!("did you mean `{known}`?")),
            None => found.note(format!("known here: {}", self.asked.join(", "))),
        }
    }
}

/// Which words may be written, the nearest alone if there is one.
pub(super) fn one_of<'w>(written: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    if let Some(meant) = nearest(written, words.clone()) {
        return format!("did you mean \"{meant}\"?");
    }
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    format!("write {}", words.join(" or "))
}
