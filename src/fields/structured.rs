//! Structured Fields (RFC 9651): dictionaries and lists, over all lines of a field.
//!
//! Knows that a field is a whole or nothing: "if parsing fails, [...] the entire field value MUST be
//! ignored" (§4.2). The parser is the `sfv` crate's; here stands what it hands over.
//! Must not know: what any member means.

use std::convert::Infallible;

use http::{HeaderMap, HeaderName};
use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};

/// A bare item (§3.3), so far as any field here knows its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bare {
    /// §3.3.1
    Integer(i64),
    /// §3.3.3
    String(Box<str>),
    /// §3.3.6
    Boolean(bool),
    /// Of another type.
    Other,
}

/// A member of a dictionary or list; its parameters are left out, since none of the fields here has
/// any that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// §3.3
    Item(Bare),
    /// §3.1.1
    Inner(Vec<Bare>),
}

/// A dictionary (§3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary(Vec<(Box<str>, Member)>);

impl Dictionary {
    /// From all lines of a field, joined (§4.2). `None` where the field is absent, empty or malformed.
    pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut found = Self::default();
        Parser::new(&joined(headers, name)?).parse_dictionary_with_visitor(&mut found).ok()?;
        (!found.0.is_empty()).then_some(found)
    }

    /// The value of a key; of several the last counts (§4.2.2: "overwrite its value").
    pub fn get(&self, key: &str) -> Option<&Member> {
        self.0.iter().rev().find(|(known, _)| **known == *key).map(|(_, member)| member)
    }
}

/// The members of a list (§3.1) over all lines of a field, joined. `None` where the field is absent,
/// empty or malformed.
pub fn list(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Member>> {
    let mut found = List(Vec::new());
    Parser::new(&joined(headers, name)?).parse_list_with_visitor(&mut found).ok()?;
    (!found.0.is_empty()).then_some(found.0)
}

/// §4.2: "combine all field lines [...] into one comma-separated field-value".
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut value = lines.next()?.as_bytes().to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line.as_bytes());
    }
    Some(value)
}

fn bare(item: BareItemFromInput<'_>) -> Bare {
    match item {
        BareItemFromInput::Integer(integer) => Bare::Integer(integer.into()),
        BareItemFromInput::String(string) => Bare::String(string.as_str().into()),
        BareItemFromInput::Boolean(boolean) => Bare::Boolean(boolean),
        _ => Bare::Other,
    }
}

struct List(Vec<Member>);

impl<'de> DictionaryVisitor<'de> for &mut Dictionary {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.0.push((key.as_str().into(), Member::Item(Bare::Other)));
        Ok(self.0.last_mut().map(|(_, member)| Place(member)))
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<'de> ListVisitor<'de> for &mut List {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.0.push(Member::Item(Bare::Other));
        Ok(self.0.last_mut().map(Place))
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Where a member goes.
struct Place<'m>(&'m mut Member);

impl<'de> EntryVisitor<'de> for Place<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        *self.0 = Member::Inner(Vec::new());
        Ok(self)
    }
}

impl<'de> ItemVisitor<'de> for Place<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        match self.0 {
            Member::Inner(items) => items.push(bare(item)),
            Member::Item(place) => *place = bare(item),
        }
        Ok(Ignored)
    }
}

impl<'de> InnerListVisitor<'de> for Place<'_> {
    type Error = Infallible;

    fn item(&mut self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(Place(&mut *self.0))
    }

    fn finish(self) -> Result<impl ParameterVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NAME: HeaderName = HeaderName::from_static("x");

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (NAME, HeaderValue::from_bytes(line.as_bytes()).unwrap())).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn string(said: &str) -> Bare {
        Bare::String(said.into())
    }

    #[test]
    fn a_dictionary_is_whole_or_nothing() {
        let a = |lines: &[&str]| Dictionary::parse(&headers(lines), &NAME).map(|d| d.get("a").cloned());
        let item = |bare| Some(Some(Member::Item(bare)));
        for (clause, lines, expected) in [
            ("absent", &[][..], None),
            ("§4.2 empty", &[""], None),
            ("§4.2 spaces", &["  "], None),
            ("§3.2 integer", &["a=60"], item(Bare::Integer(60))),
            ("§3.3.1 leading zeros", &["a=0060"], item(Bare::Integer(60))),
            ("§3.3.1 negative", &["a=-1"], item(Bare::Integer(-1))),
            ("§3.3.1 too long", &["a=1234567890123456"], None),
            ("§3.3.2 decimal", &["a=1.5"], item(Bare::Other)),
            ("§3.3.3 string", &["a=\"x, y\""], item(string("x, y"))),
            ("§3.3.3 escapes", &[r#"a="x\"\\""#], item(string("x\"\\"))),
            ("§3.3.3 open", &["a=\"x"], None),
            ("§3.3.4 token", &["a=x"], item(Bare::Other)),
            ("§3.2 no value", &["a"], item(Bare::Boolean(true))),
            ("§3.3.6 false", &["a=?0"], item(Bare::Boolean(false))),
            ("§3.1.2 parameters", &["a=1;b;c=2"], item(Bare::Integer(1))),
            ("§3.1.2 parameters of no value", &["a;b=1"], item(Bare::Boolean(true))),
            (
                "§3.1.1 inner list",
                &["a=(\"x\";p 1)"],
                Some(Some(Member::Inner(vec![string("x"), Bare::Integer(1)]))),
            ),
            ("§3.2 another key", &["b"], Some(None)),
            ("§4.2.2 the last counts", &["a=1, b, a=(1)"], Some(Some(Member::Inner(vec![Bare::Integer(1)])))),
            ("§4.2 lines", &["b", "a=1"], item(Bare::Integer(1))),
            ("§4.2 an error on another line", &["a=1", "b="], None),
            ("§3.2 keys are in lower case", &["A=1"], None),
            ("§4.2.2 space around =", &["a =1"], None),
            ("§4.2.2 a comma at the end", &["a=1,"], None),
            ("§4.2.2 an empty member", &["a=1,,b"], None),
            ("§4.2.2 an empty line", &["a=1", ""], None),
            ("§4.2 other than ASCII", &["a=\"é\""], None),
        ] {
            assert_eq!(a(lines), expected, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn a_list_is_whole_or_nothing() {
        let item = |bare| Member::Item(bare);
        for (clause, lines, expected) in [
            ("absent", &[][..], None),
            ("§3.1 empty", &[""], None),
            ("§3.1", &["\"a\", 1"], Some(vec![item(string("a")), item(Bare::Integer(1))])),
            ("§4.2 lines", &["\"a\"", "b"], Some(vec![item(string("a")), item(Bare::Other)])),
            ("§3.1.1", &["()"], Some(vec![Member::Inner(vec![])])),
            ("§4.2.1 a comma at the end", &["\"a\","], None),
            ("§4.2.1", &["\"a\" \"b\""], None),
        ] {
            assert_eq!(list(&headers(lines), &NAME), expected, "{clause}: {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines in prop::collection::vec("[ -~\t]{0,40}", 0..3)) {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let headers = headers(&lines);
            prop_assert!(list(&headers, &NAME).is_none_or(|members| !members.is_empty()));
            let _ = Dictionary::parse(&headers, &NAME);
        }

        #[test]
        fn a_written_string_reads_back(said in "[ -~]{0,40}") {
            let written = format!("\"{}\"", said.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(list(&headers(&[&written]), &NAME), Some(vec![Member::Item(string(&said))]));
        }
    }
}
