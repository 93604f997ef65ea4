//! `listen`: an address, a table of one, or a list of either.
//!
//! Knows these keys, and that no address stands twice.
//! Must not know: how an address is opened, or what is served there.

use toml::de::DeValue;

use super::check::socket;
use super::problems::Found;
use super::reader::{Text, Value};
use super::section::Section;
use super::{Listen, defaults};

/// Reads every listener, in the file's order. One with a mistake is left out.
pub(super) fn read(top: &mut Section<'_>) -> Vec<Listen> {
    let Some(value) = top.value("listen") else { return vec![defaults::LISTEN.into()] };
    let values: Vec<&Value<'_>> = match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    };
    if values.is_empty() {
        let found = Found::new(value.span(), "no address to listen on");
        top.reader.report(found.help("write \"127.0.0.1:8080\""));
    }
    let mut listen: Vec<Listen> = Vec::new();
    for value in values {
        let Some((text, proxy_protocol)) = entry(top, value) else { continue };
        let Some(address) = socket(top.reader, &text, defaults::LISTEN.port()) else { continue };
        // Two listeners at port 0 are two different ports.
        if address.port() != 0 && listen.iter().any(|other| other.address == address) {
            top.reader.refuse(&text, "this address is already listed", "leave it out");
        }
        listen.push(Listen { address, proxy_protocol });
    }
    listen
}

/// What one entry says: its address, and whether connections begin with a PROXY header.
fn entry<'a>(top: &Section<'a>, value: &'a Value<'a>) -> Option<(Text, bool)> {
    match value.get_ref() {
        DeValue::String(_) => top.reader.text(value).map(|text| (text, false)),
        DeValue::Table(_) => table(top.section_of("listen", value)?),
        _ => {
            top.reader.wrong_type(value, "a string or a table");
            None
        }
    }
}

fn table(mut section: Section<'_>) -> Option<(Text, bool)> {
    let address = section.text("address");
    if section.span_of("address").is_none() {
        section.missing("address", "write address = \"0.0.0.0:8081\"");
    }
    // Off: bytes that name a client are believed only where somebody has said that they will come.
    let proxy_protocol = section.flag("proxy_protocol", false);
    section.finish();
    address.map(|address| (address, proxy_protocol))
}
