//! A table of the file, read key by key.
//!
//! Knows which keys were asked for, so that every other one can be refused. A getter that finds a
//! mistake notes it and goes on with the default.
//! Must not know: what any setting means.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::problems::Found;
use super::reader::{Reader, Span, Text, Value, Zero, one_of};
use super::{reference, units};

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
        self.reader.note_setting(self.path_of(key), value.map(Spanned::span));
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
    pub(super) fn entries(&self) -> Vec<(&'a Spanned<Cow<'a, str>>, &'a Value<'a>)> {
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
        let Some(text) = self.expanded(value) else {
            let kind = with_article(value.get_ref().type_str());
            let found = Found::new(value.span(), format!("expected true or false, found {kind}"));
            let meant = match self.reader.written(&value.span()).trim_matches(['"', '\'']) {
                "yes" | "on" | "1" | "true" => "write true",
                "no" | "off" | "0" | "false" => "write false",
                _ => "write true or false",
            };
            self.reader.report(found.help(meant));
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
            // A number in quotes is plainly meant.
            match value.get_ref().as_str().filter(|text| text.parse::<u64>().is_ok()) {
                Some(number) => self.reader.report(
                    Found::new(value.span(), "expected a whole number, found a string")
                        .help(format!("write {number}, without quotes")),
                ),
                None => self.reader.wrong_type(value, "a whole number"),
            }
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
            _ => self.expanded(value),
        }
    }

    /// TOML has no other way to write a number or a flag that comes from the environment than as
    /// a string, so such a string, and only such, may stand for one.
    fn expanded(&self, value: &Value<'_>) -> Option<Text> {
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

    /// A size in bytes; zero is none.
    pub(super) fn size_or_none(&mut self, key: &'static str, default: u64) -> u64 {
        let Some(text) = self.measure(key) else { return default };
        self.reader.or_refuse(&text, units::size(&text.value)).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(value) = self.value(key) else { return default };
        if value.get_ref().as_str().is_none() {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let kind = with_article(value.get_ref().type_str());
            let found = Found::new(value.span(), format!("expected a word, found {kind}"));
            self.reader.report(found.help(format!("write {}", list.join(" or "))));
            return default;
        }
        let Some(text) = self.reader.text(value) else { return default };
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
            if self.asked.contains(&name) {
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
        let did_you_mean = meant.map(|known| format!("did you mean `{known}`?"));
        let is_table = self.table.get(name).is_some_and(|value| value.get_ref().is_table());
        let belongs = reference::belongs(name, &self.path, is_table);
        // `methods` for `method` is a slip, whatever else is known by that name.
        let is_slip = meant.is_some_and(|known| known.len().abs_diff(name.len()) <= 1);
        match (did_you_mean, belongs) {
            (Some(meant), belongs) if is_slip || belongs.is_none() => found.help(meant),
            (Some(meant), Some(belongs)) => found.help(belongs).note(meant),
            (None, Some(belongs)) => found.help(belongs),
            _ => found.note(format!("known here: {}", self.asked.join(", "))),
        }
    }
}

/// What something is, such as `an integer`.
pub(super) fn with_article(kind: &str) -> String {
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}
