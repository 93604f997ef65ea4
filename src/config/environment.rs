//! `${NAME}` in a string value takes the environment's.
//!
//! Works on one string after TOML has been read, so a value from the environment can never change
//! the shape of the file. The environment is handed in.
//! Must not know: where the string stands.

/// Why a string cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unexpanded {
    /// This variable is not set.
    Unset(String),
    /// `${` without `}`.
    Open,
    /// What stands between the braces is not a name.
    NotAName(String),
}

/// The string with every `${NAME}` replaced, and whether there was one. `$${` stands for `${`.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), Unexpanded> {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut replaced) = (text, false);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (name, behind) = after.split_once('}').ok_or(Unexpanded::Open)?;
        out.push_str(before);
        out.push_str(&value_of(name, env)?);
        (rest, replaced) = (behind, true);
    }
    out.push_str(rest);
    Ok((out, replaced))
}

fn value_of(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Unexpanded::NotAName(name.to_owned()));
    }
    env(name).ok_or_else(|| Unexpanded::Unset(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".into()),
            _ => None,
        }
    }

    #[test]
    fn names_are_replaced_once_and_escapes_stand() {
        let rows = [
            ("plain", Ok(("plain", false))),
            ("redis://${HOST}:1/${HOST}", Ok(("redis://db:1/db", true))),
            ("${EMPTY}", Ok(("", true))),
            ("${NESTED}", Ok(("${HOST}", true))),
            ("$${HOST}", Ok(("${HOST}", false))),
            ("a$b $ $$ $HOST", Ok(("a$b $ $$ $HOST", false))),
            ("${NOPE}", Err(Unexpanded::Unset("NOPE".into()))),
            ("${HOST", Err(Unexpanded::Open)),
            ("${}", Err(Unexpanded::NotAName(String::new()))),
            ("${HOST:-x}", Err(Unexpanded::NotAName("HOST:-x".into()))),
        ];
        for (text, want) in rows {
            let want = want.map(|(s, replaced): (&str, bool)| (s.to_owned(), replaced));
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_expands_to_itself(text in "[$a{}]{0,12}|.{0,20}") {
            prop_assert_eq!(expand(&text.replace("${", "$${"), &env), Ok((text, false)));
        }
    }
}
