//! The shipped configuration as the demo runs it.
//!
//! Knows which settings are otherwise in a demo, and how to say so in the file that people read: each line stays where
//! it is, with its reason.
//! Must not know: what the settings mean, or what was asked for.

/// What a demo has in place of the shipped file's values: nobody stands in front of it, and somebody looks at it.
pub const OWN: [(&str, &str); 4] = [
    ("log.level", "\"warn\""),
    ("log.format", "\"text\""),
    ("log.access", "\"text\""),
    ("limits.lame_duck", "\"0s\""),
];

/// `shipped` with these values, in TOML, of settings such as `log.level`; a setting that is commented out is set. Each
/// line that is changed says what the file has by default.
pub fn written(shipped: &str, values: &[(&str, &str)]) -> String {
    let (mut text, mut table) = (String::new(), "");
    for line in shipped.split_inclusive('\n') {
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            table = name;
        }
        let found = setting(line).and_then(|found| {
            let is_meant = |path: &str| match path.rsplit_once('.') {
                Some((of, name)) => (of, name) == (table, found.name),
                None => table.is_empty() && path == found.name,
            };
            let (_, value) = values.iter().find(|(path, _)| is_meant(path))?;
            (*value != found.value || found.is_off).then(|| found.with(value))
        });
        text.push_str(found.as_deref().unwrap_or(line));
    }
    text
}

/// A line that sets a string, or shows how.
struct Setting<'a> {
    name: &'a str,
    /// With its quotes.
    value: &'a str,
    /// Behind the value.
    rest: &'a str,
    is_off: bool,
}

fn setting(line: &str) -> Option<Setting<'_>> {
    let (is_off, set) = line.strip_prefix("# ").map_or((false, line), |set| (true, set));
    let (name, written) = set.split_once(" = ")?;
    let end = written.strip_prefix('"')?.find('"')? + 2;
    let (value, rest) = written.split_at_checked(end)?;
    Some(Setting { name, value, rest, is_off })
}

impl Setting<'_> {
    fn with(&self, value: &str) -> String {
        let default = if self.is_off { "none" } else { self.value };
        let set = format!("{} = {value}", self.name);
        match self.rest.split_once("# ") {
            // As far to the right as it was, where there is room.
            Some((_, reason)) => format!("{set:<32} # (by default {default}) {reason}"),
            None => format!("{set}{}", self.rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_otherwise_is_set_in_its_table_and_no_line_moves() {
        let shipped = "a = \"1\"   # why\n# b = \"2\"  # or so\n[log]\n# a = text\na = \"3\"\n[limits]\na = \"4\" # x\nb = 5\n";
        let text =
            written(shipped, &[("a", "\"7\""), ("log.a", "\"8\""), ("b", "\"9\""), ("limits.a", "\"4\"")]);
        let expected = [
            "a = \"7\"                          # (by default \"1\") why",
            "b = \"9\"                          # (by default none) or so",
            "[log]",
            "# a = text",
            "a = \"8\"",
            "[limits]",
            "a = \"4\" # x",
            "b = 5",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
        assert_eq!(written(shipped, &[]), shipped);
    }
}
