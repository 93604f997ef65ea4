//! Typed values with their places, and every mistake noted rather than the first one returned.
//!
//! Knows TOML's types, units and `${NAME}`. What finds a mistake notes it here and goes on.
//! Must not know: tables, or what any setting means.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::environment::{Unexpanded, expand};
use super::nearest::nearest;
use super::problems::Found;
use super::reference;
use super::section::with_article;
use super::units::{self, Mistake};

/// A value of the file with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A place in the file, in bytes.
pub(super) type Span = Range<usize>;

/// How the problem begins of a variable that a file names and the environment does not have.
pub const NO_VARIABLE: &str = "the environment has no `";

/// What every part of the walk shares.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Where its lines end: each route is told where it stands.
    ends: OnceCell<Vec<usize>>,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Some value names a variable.
    uses_environment: Cell<bool>,
    found: RefCell<Vec<Found>>,
    /// The settings that the file has, by their full names, and where their values stand.
    settings: RefCell<Vec<(Span, String)>>,
    /// There is a shared tier.
    pub(super) has_redis: Cell<bool>,
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
            ends: OnceCell::new(),
            env,
            uses_environment: Cell::default(),
            found: RefCell::default(),
            settings: RefCell::default(),
            has_redis: Cell::default(),
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

    /// How many mistakes were noted so far; a warning is none.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().iter().filter(|found| found.is_error()).count()
    }

    /// Whether a value that was read names a variable, set or not.
    pub(super) fn uses_environment(&self) -> bool {
        self.uses_environment.get()
    }

    /// Everything noted.
    pub(super) fn into_found(self) -> Vec<Found> {
        self.found.into_inner()
    }

    /// Notes where the value of a setting stands, so that a mistake in it is told by what is right there.
    pub(super) fn note_setting(&self, path: String, value: Option<Span>) {
        #[cfg(test)]
        self.asked.borrow_mut().push((path.clone(), value.is_some()));
        if let Some(span) = value {
            self.settings.borrow_mut().push((span, path));
        }
    }

    /// The setting that a place belongs to, the innermost, and whether it is only a part of the value.
    fn setting_at(&self, span: &Span) -> Option<(String, bool)> {
        let settings = self.settings.borrow();
        let around = settings.iter().filter(|(of, _)| of.start <= span.start && span.end <= of.end);
        let (of, path) = around.min_by_key(|(of, _)| of.end - of.start)?;
        Some((path.clone(), of != span))
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<(String, bool)> {
        self.asked.borrow().clone()
    }

    /// Line of a place, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        let ends = self.ends.get_or_init(|| memchr::memchr_iter(b'\n', self.text.as_bytes()).collect());
        1 + ends.partition_point(|end| *end < span.start)
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
        let expanded = expand(raw, self.env);
        if matches!(expanded, Ok((_, true)) | Err(Unexpanded::Unset(_))) {
            self.uses_environment.set(true);
        }
        match expanded {
            Ok((value_text, from_env)) => Some(Text { value: value_text, span: value.span(), from_env }),
            Err(why) => {
                self.unexpanded(&value.span(), why);
                None
            }
        }
    }

    /// A string, or a number as it is written: for values with a unit, so that a bare number is
    /// told about its unit and not about its type.
    pub(super) fn measure(&self, value: &Value<'_>) -> Option<Text> {
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

    pub(super) fn or_refuse<T>(&self, text: &Text, read: Result<T, Mistake>) -> Option<T> {
        let refuse = |mistake: Mistake| {
            let example = self.setting_at(&text.span).filter(|_| mistake.needs_example());
            let help = match example.and_then(|(path, _)| reference::example_or_off(&path)) {
                Some(example) => format!("write such as {example}; {}", mistake.help),
                None => mistake.help,
            };
            self.refuse(text, mistake.message, help);
        };
        read.map_err(refuse).ok()
    }

    pub(super) fn allow_zero(&self, text: &Text, is_zero: bool, zero: Zero) -> bool {
        match zero {
            Zero::Refused(help) if is_zero => self.refuse(text, "zero makes no sense here", help),
            _ => return true,
        }
        false
    }

    /// Notes a value of the wrong type.
    pub(super) fn wrong_type(&self, value: &Value<'_>, wanted: &str) {
        let kind = with_article(value.get_ref().type_str());
        let found = Found::new(value.span(), format!("expected {wanted}, found {kind}"));
        let help = self.instead(value, wanted).unwrap_or_default();
        self.report(found.help(help));
    }

    /// What to write in place of a value of the wrong type.
    fn instead(&self, value: &Value<'_>, wanted: &str) -> Option<String> {
        let setting = self.setting_at(&value.span());
        let written = self.written(&value.span());
        let is_scalar = matches!(value.get_ref().type_str(), "integer" | "float" | "boolean");
        // What names something may be named so; so may what a field is set to, which is no setting's value.
        let is_name = setting
            .as_ref()
            .is_none_or(|(path, _)| [".name", ".upstream", ".set"].iter().any(|end| path.ends_with(end)));
        if wanted.starts_with("a string") && is_scalar && is_name {
            return Some(format!("write \"{written}\""));
        }
        let (path, is_part) = setting?;
        reference::instead(&path, written, is_part)
    }

    fn unexpanded(&self, span: &Span, why: Unexpanded) {
        let is_unset = matches!(why, Unexpanded::Unset(_));
        let (mark, message, help) = match why {
            Unexpanded::Unset(name) => (
                format!("${{{name}}}"),
                format!("{NO_VARIABLE}{name}`"),
                format!("set {name}, or write $${{ for a plain ${{"),
            ),
            Unexpanded::Open => {
                ("${".into(), "`${` without `}`".into(), "close it, or write $${ for a plain ${".into())
            }
            Unexpanded::NotAName(name) => (
                format!("${{{name}}}"),
                // Not repeated: it may be part of a secret. Where it is none, the line shows it.
                "this is not the name of an environment variable".to_owned(),
                "letters, digits and _ only, or write $${ for a plain ${".into(),
            ),
        };
        let found = Found::new(self.part(span, &mark), message).help(help);
        self.report(if is_unset { found.of_environment() } else { found });
    }

    /// Where `part` stands within a value, else the whole value.
    fn part(&self, span: &Span, part: &str) -> Span {
        match self.written(span).find(part) {
            Some(at) => span.start + at..span.start + at + part.len(),
            None => span.clone(),
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
