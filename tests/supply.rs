//! Holds `deny.toml` without cargo-deny: every crate that is built in has a licence that is allowed, comes
//! from the registry that is allowed, with a checksum, in one version, and is none that is banned.
//!
//! Knows SPDX expressions as far as crates write them, and `cargo metadata`.
//! Must not know: advisories; these take a database from elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// `deny.toml`, as far as it is held here.
struct Policy {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
    registries: BTreeSet<String>,
    /// Versions that may be there beside another, as `name@version`.
    skipped: BTreeSet<String>,
}

impl Policy {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
        let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let list = |table: &str, key: &str| -> BTreeSet<String> {
            let members = file[table][key].as_array().unwrap().iter();
            let name =
                |member: &toml::Value| member.get("crate").unwrap_or(member).as_str().unwrap().to_owned();
            members.map(name).collect()
        };
        assert_eq!(file["bans"]["multiple-versions"].as_str(), Some("deny"));
        assert_eq!(file["sources"]["unknown-git"].as_str(), Some("deny"));
        assert!(list("sources", "allow-git").is_empty());
        Self {
            licences: list("licenses", "allow"),
            banned: list("bans", "deny"),
            registries: list("sources", "allow-registry"),
            skipped: list("bans", "skip"),
        }
    }

    /// What is wrong with one package.
    fn complaint(&self, package: &Value) -> Option<String> {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        let source = package["source"].as_str().unwrap_or("none");
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if self.banned.contains(name) {
            Some(format!("{name} is banned"))
        } else if !self.registries.contains(registry) {
            Some(format!("{name} comes from {source}"))
        } else if !allowed(licence, &self.licences) {
            Some(format!("{name} is under {licence}"))
        } else {
            None
        }
    }
}

/// Whether an SPDX expression can be met by these licences alone. A slash is an old way to write `OR`.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, licences);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, licences: &BTreeSet<String>) -> bool {
    let mut met = all(words, licences);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, licences);
    }
    met
}

fn all(words: &mut Words<'_>, licences: &BTreeSet<String>) -> bool {
    let mut met = one(words, licences);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, licences);
    }
    met
}

fn one(words: &mut Words<'_>, licences: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let met = any(words, licences);
            met && words.next() == Some(")")
        }
        Some(licence) => {
            let licence = match words.next_if_eq(&"WITH") {
                Some(_) => format!("{licence} WITH {}", words.next().unwrap_or_default()),
                None => licence.to_owned(),
            };
            licences.contains(&licence)
        }
        None => false,
    }
}

/// All packages that are built in on Linux, tests included; Larder itself apart.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    packages.into_iter().filter(|package| package["name"] != "larder").collect()
}

#[test]
fn every_crate_keeps_to_the_policy() {
    let (policy, packages) = (Policy::read(), packages());
    assert!(packages.len() > 50, "only {} packages", packages.len());
    let complaints: Vec<_> = packages.iter().filter_map(|package| policy.complaint(package)).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    println!("{} crates", packages.len());
}

#[test]
fn every_crate_is_there_in_one_version() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut skipped = Policy::read().skipped;
    for package in packages() {
        let [name, version] = ["name", "version"].map(|key| package[key].as_str().unwrap().to_owned());
        if !skipped.remove(&format!("{name}@{version}")) {
            versions.entry(name).or_default().insert(version);
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "{versions:?}");
    assert!(skipped.is_empty(), "skipped in deny.toml, and not there: {skipped:?}");
}

#[test]
fn every_crate_is_pinned_by_a_checksum() {
    let lock: toml::Table = include_str!("../Cargo.lock").parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(name == "larder" || package.get("checksum").is_some(), "{name}");
    }
}

#[test]
fn the_check_itself_notices_what_is_wrong() {
    let policy = Policy::read();
    let package = |name: &str, licence: Value, source: &str| {
        let package = serde_json::json!({ "name": name, "license": licence, "source": source });
        policy.complaint(&package)
    };
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    assert_eq!(package("good", "MIT".into(), registry), None);
    for (name, licence, source) in [
        ("bad", "GPL-3.0".into(), registry),
        ("bad", Value::Null, registry),
        ("bad", "MIT".into(), "git+https://github.com/a/b"),
        ("bad", "MIT".into(), "registry+https://elsewhere.test/index"),
        ("openssl", "MIT".into(), registry),
    ] {
        assert!(package(name, licence, source).is_some());
    }
    for (expression, met) in [
        ("MIT/Apache-2.0", true),
        ("GPL-2.0 OR MIT", true),
        ("GPL-2.0 AND MIT", false),
        ("(MIT OR GPL-2.0) AND Unicode-3.0", true),
        ("(MIT OR GPL-2.0) AND GPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("Apache-2.0 WITH Classpath-exception", false),
        ("MIT MIT", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(allowed(expression, &policy.licences), met, "{expression}");
    }
}
