//! How mistakes are shown: each with its place, its line, carets, and what to write instead.
//!
//! Knows byte spans and how wide text is on a terminal. The form is rustc's, since people can
//! read it already. Secrets in a line are not shown.
//! Must not know: TOML, or what any setting means.

use std::fmt;
use std::ops::Range;

use super::Lint;
use super::masks::{self, BYTE_ORDER_MARK};

/// Every problem of a configuration, sorted by place.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    with_environment: bool,
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is wrong: there is no configuration.
    Error,
    /// It works, and is dangerous or does nothing.
    Warning,
}

/// One problem of a configuration.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, shown beside the carets; may be empty.
    pub help: String,
    /// Further lines of help.
    pub notes: Vec<String>,
    marks: Vec<Mark>,
    /// By which a warning can be let pass.
    pub name: Option<Lint>,
}

/// An underlined stretch of one line.
#[derive(Clone, Debug)]
struct Mark {
    line: usize,
    shown: String,
    indent: usize,
    width: usize,
    sign: char,
    label: String,
}

/// A problem as the reader finds it, with byte spans.
#[derive(Clone, Debug)]
pub(super) struct Found {
    severity: Severity,
    span: Range<usize>,
    message: String,
    help: String,
    notes: Vec<String>,
    also: Option<(Range<usize>, String)>,
    name: Option<Lint>,
    of_environment: bool,
}

impl Found {
    /// Something wrong at `span`.
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        let (message, severity) = (message.into(), Severity::Error);
        let (help, notes, also, name, of_environment) = (String::new(), Vec::new(), None, None, false);
        Self { severity, span, message, help, notes, also, name, of_environment }
    }

    /// Something at `span` that works, and is dangerous or does nothing.
    pub(super) fn warning(name: Lint, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, name: Some(name), ..Self::new(span, message) }
    }

    /// Whether there is no configuration because of it.
    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// What is wrong is not the file, but what the process that reads it has been given.
    pub(super) fn of_environment(self) -> Self {
        Self { of_environment: true, ..self }
    }

    /// Whether the file itself is wrong.
    pub(super) fn is_error_of_file(&self) -> bool {
        self.is_error() && !self.of_environment
    }

    /// Whether the process that reads it is all that is wrong.
    pub(super) fn is_error_of_environment(&self) -> bool {
        self.is_error() && self.of_environment
    }

    /// Whether the other is about a part of what this is about.
    pub(super) fn encloses(&self, other: &Self) -> bool {
        self.span.start <= other.span.start && other.span.end <= self.span.end
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// A further line of help.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// A second place that has to do with it.
    pub(super) fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }
}

impl Problems {
    /// Places everything that was found in `text`.
    pub(super) fn new(text: &str, file: &str, found: Vec<Found>) -> Self {
        let lines = Lines::new(text);
        let mut list: Vec<Problem> = found.into_iter().map(|f| place(&lines, f)).collect();
        list.sort_by_key(|p| (p.line, p.column));
        Self { file: file.to_owned(), list, with_environment: false }
    }

    /// Of a file that takes something from the environment, or of none such.
    pub(super) fn with_environment(self, with_environment: bool) -> Self {
        Self { with_environment, ..self }
    }

    /// Whether the environment has a part in what the file says: then another process may find other problems in the
    /// same file, or none.
    pub fn may_be_of_environment(&self) -> bool {
        self.with_environment
    }

    /// One after the other, by place.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Without the warnings of these names.
    #[must_use]
    pub fn but(mut self, allowed: &[Lint]) -> Self {
        self.list.retain(|problem| problem.name.is_none_or(|name| !allowed.contains(&name)));
        self
    }

    /// How many are of this kind.
    fn count(&self, severity: Severity) -> usize {
        self.iter().filter(|problem| problem.severity == severity).count()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            problem.show(f, &self.file)?;
            writeln!(f)?;
        }
        let counted = |count, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let errors = counted(self.count(Severity::Error), "problem");
        let warnings = counted(self.count(Severity::Warning), "warning");
        match (self.count(Severity::Error), self.count(Severity::Warning)) {
            (_, 0) => write!(f, "{errors} in {}", self.file),
            (0, _) => write!(f, "{warnings} in {}", self.file),
            _ => write!(f, "{errors} and {warnings} in {}", self.file),
        }
    }
}

impl Problem {
    fn show(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        let last = self.marks.iter().map(|m| m.line).max().unwrap_or(self.line);
        let gutter = last.to_string().len();
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{kind}: {}", clean(&self.message))?;
        writeln!(f, "{:gutter$}--> {file}:{}:{}", "", self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        let mut before: Option<usize> = None;
        for mark in &self.marks {
            mark.show(f, gutter, before)?;
            before = Some(mark.line);
        }
        for note in &self.notes {
            writeln!(f, "{:gutter$} = help: {}", "", clean(note))?;
        }
        if let Some(name) = self.name {
            writeln!(f, "{:gutter$} = name: {}", "", name.as_str())?;
        }
        Ok(())
    }
}

impl Mark {
    fn show(&self, f: &mut fmt::Formatter<'_>, gutter: usize, before: Option<usize>) -> fmt::Result {
        if before.is_some_and(|line| line + 1 < self.line) {
            writeln!(f, "...")?;
        }
        if before != Some(self.line) {
            writeln!(f, "{:gutter$} | {}", self.line, self.shown)?;
        }
        let signs: String = std::iter::repeat_n(self.sign, self.width).collect();
        let row = format!("{:gutter$} | {:indent$}{signs} {}", "", "", self.label, indent = self.indent);
        writeln!(f, "{}", row.trim_end())
    }
}

fn place(lines: &Lines<'_>, found: Found) -> Problem {
    let (line, column) = lines.position(found.span.start);
    let mut marks = vec![lines.mark(&found.span, '^', &found.help)];
    if let Some((span, label)) = &found.also {
        marks.push(lines.mark(span, '-', label));
    }
    marks.sort_by_key(|m| m.line);
    let Found { severity, message, help, notes, name, .. } = found;
    Problem { severity, line, column, message, help, notes, marks, name }
}

/// A text whose lines can be found by byte.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// What is not shown.
    secrets: Vec<Range<usize>>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let after_newline = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let starts = std::iter::once(0).chain(after_newline).collect();
        Self { text, starts, secrets: masks::secrets(text) }
    }

    /// Line from 1, and the byte at which it starts.
    fn line_of(&self, byte: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line.max(1), start)
    }

    fn line_text(&self, start: usize) -> &'t str {
        let rest = self.text.get(start..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("");
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// Line and column, both from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let (line, start) = self.line_of(byte);
        let before = self.before(start, byte);
        (line, 1 + before.chars().filter(|c| *c != BYTE_ORDER_MARK).count())
    }

    fn before(&self, start: usize, byte: usize) -> &'t str {
        let line = self.line_text(start);
        line.get(..byte.saturating_sub(start)).unwrap_or(line)
    }

    /// Underlines `span` as far as its first line goes, at least one sign.
    fn mark(&self, span: &Range<usize>, sign: char, label: &str) -> Mark {
        let (line, start) = self.line_of(span.start);
        let end = start + self.line_text(start).len();
        // Within what is not shown, the sign stands under what is shown in its place.
        let hidden = self.secrets.iter().find(|part| part.contains(&span.start));
        let from = hidden.map_or(span.start, |part| part.start.max(start)).min(end);
        Mark {
            line,
            shown: self.shown(start..end),
            indent: width(&self.shown(start..from)),
            width: width(&self.shown(from..span.end.min(end))).max(1),
            sign,
            label: clean(label),
        }
    }

    /// A stretch as it may be seen: each secret in it is one sign.
    fn shown(&self, part: Range<usize>) -> String {
        let (mut shown, mut at) = (String::new(), part.start);
        let text = |part: Range<usize>| clean(self.text.get(part).unwrap_or(""));
        let shares = |hidden: &&Range<usize>| hidden.start < part.end && hidden.end > part.start;
        for hidden in self.secrets.iter().filter(shares).filter(|_| !part.is_empty()) {
            shown += &text(at..hidden.start.max(at));
            shown.push('…');
            at = hidden.end.min(part.end);
        }
        shown + &text(at..part.end)
    }
}

/// As it may go to a terminal: tabs as four spaces, control characters (which could move the
/// cursor or hide text) as a replacement sign.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            BYTE_ORDER_MARK => {}
            // Bidirectional controls reorder what is shown, so the carets would point elsewhere.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Terminal columns.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The common cases of Unicode's widths: marks that combine take no column, East Asian wide
/// characters and pictographs two.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: &str, help: &str) -> String {
        let start = text.find(at).unwrap();
        let found = Found::new(start..start + at.len(), "wrong").help(help);
        Problems::new(text, "proxy.toml", vec![found]).to_string()
    }

    #[test]
    fn a_problem_looks_as_rustc_shows_one() {
        let text = format!("{}ttl.override   = \"60\"\n", "\n".repeat(18));
        let want = "error: wrong\n  --> proxy.toml:19:18\n   |\n19 | ttl.override   = \"60\"\n   |                  \
                    ^^^^ write \"60s\"\n\n1 problem in proxy.toml";
        assert_eq!(shown(&text, "\"60\"", "write \"60s\""), want);
    }

    #[test]
    fn carets_stand_under_the_right_text_whatever_comes_before_it() {
        let rows = [
            ("plain = X", "1:9", "1 | plain = X", "  |         ^"),
            ("\tx = X", "1:6", "1 |     x = X", "  |         ^"),
            ("é = X", "1:5", "1 | é = X", "  |     ^"),
            ("日本 = X", "1:6", "1 | 日本 = X", "  |        ^"),
            ("e\u{301} = X", "1:6", "1 | e\u{301} = X", "  |     ^"),
            ("\u{feff}x = X", "1:5", "1 | x = X", "  |     ^"),
            ("a = 1\r\nx = X\r\n", "2:5", "2 | x = X", "  |     ^"),
            ("\u{1b}[2J = X", "1:8", "1 | \u{fffd}[2J = X", "  |        ^"),
        ];
        for (text, place, line, carets) in rows {
            let out = shown(text, "X", "");
            let want = format!("error: wrong\n --> proxy.toml:{place}\n  |\n{line}\n{carets}\n");
            assert!(out.starts_with(&want), "{text:?}:\n{out}\nwanted:\n{want}");
        }
    }

    #[test]
    fn a_span_over_several_lines_is_underlined_on_its_first() {
        let out = shown("a = [\n 1,\n]\n", "[\n 1,\n]", "here");
        assert!(out.contains("1 | a = [\n  |     ^ here\n"), "{out}");
    }

    #[test]
    fn two_places_are_shown_in_the_order_of_the_file() {
        let text = "one\ntwo\nthree\nfour\n";
        let found = Found::new(14..18, "shadowed").help("never").also(0..3, "takes all").note("move it");
        let out = Problems::new(text, "f", vec![found]).to_string();
        let want = "error: shadowed\n --> f:4:1\n  |\n1 | one\n  | --- takes all\n...\n4 | four\n  | ^^^^ never\n  \
                    = help: move it\n\n1 problem in f";
        assert_eq!(out, want);
    }

    #[test]
    fn a_secret_is_not_shown_and_carets_stand_under_the_right_text_all_the_same() {
        let rows = [
            ("admin_token = \"hunter2\"", "\"hunter2\"", "admin_token = \"…\"", "              ^^^"),
            ("admin_token = \"a${X\"", "${X", "admin_token = \"…\"", "               ^"),
            (
                "a = { token = \"hunter2\", b = 1 }",
                "b",
                "a = { token = \"…\", b = 1 }",
                "                   ^",
            ),
            ("x = \"redis://u:p@db\"", "\"redis://u:p@db\"", "x = \"redis://…@db\"", "    ^^^^^^^^^^^^^^"),
            ("x = \"redis://u:p@db\"", "db", "x = \"redis://…@db\"", "               ^^"),
        ];
        for (text, at, line, carets) in rows {
            let out = shown(text, at, "");
            assert!(out.contains(&format!("1 | {line}\n  | {carets}\n")), "{text:?}:\n{out}");
            assert!(!out.contains("hunter2"), "{out}");
        }
        // Each line of a secret that goes over several.
        let text = "admin_token = \"\"\"\nhunter2\nhunter3\"\"\"";
        let out = shown(text, "hunter3", "");
        assert!(out.contains("3 | …\"\"\"\n  | ^\n"), "{out}");
    }

    #[test]
    fn a_warning_is_told_from_an_error() {
        let warned = |found| Problems::new("x y z", "f", found).to_string();
        let warning = || Found::warning(Lint::WideTrust, 0..1, "odd");
        assert!(warned(vec![warning()]).starts_with("warning: odd\n --> f:1:1\n"));
        assert!(warned(vec![warning()]).ends_with("\n  = name: wide-trust\n\n1 warning in f"));
        let two = || vec![warning(), Found::warning(Lint::NoDrain, 2..3, "another")];
        let names =
            |problems: Problems| problems.iter().filter_map(|problem| problem.name).collect::<Vec<_>>();
        let but = |allowed: &[Lint]| names(Problems::new("x y z", "f", two()).but(allowed));
        assert_eq!(but(&[Lint::WideTrust]), [Lint::NoDrain]);
        assert!(but(&[Lint::NoDrain, Lint::WideTrust]).is_empty());
        assert_eq!(Problems::new("x", "f", vec![Found::new(0..1, "wrong")]).but(Lint::ALL).len(), 1);
        assert!(warned(vec![warning(), warning()]).ends_with("\n2 warnings in f"));
        let both = warned(vec![warning(), Found::new(2..3, "wrong")]);
        assert!(both.contains("error: wrong") && both.ends_with("\n1 problem and 1 warning in f"), "{both}");
    }

    #[test]
    fn problems_are_sorted_by_place_and_counted() {
        let found = vec![Found::new(4..5, "b"), Found::new(2..3, "a"), Found::new(0..1, "first")];
        let problems = Problems::new("x y\nz", "f", found);
        let order: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.message.as_str())).collect();
        assert_eq!(order, [(1, 1, "first"), (1, 3, "a"), (2, 1, "b")]);
        assert!(problems.to_string().ends_with("3 problems in f"));
    }
}
