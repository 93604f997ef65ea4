//! Holds docs/caching.md to the program: every clause row names a test that exists, every clause of
//! RFC 9111 §3 to §5 has a row, and every setting that is named is one of `proxy.toml`.
//!
//! Knows the form of the tables, how tests are named in them, and Rust's `#[test]` well enough. Must
//! not know: what any row says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

#[path = "rules/corpus.rs"]
#[allow(dead_code, reason = "the cases' clauses alone are of interest here")]
mod corpus;
#[path = "clauses/script.rs"]
#[allow(dead_code, reason = "the scripts' clauses alone are of interest here")]
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder::telemetry::{FleetGauges, Gauges, LeaseGauges, Metrics, RedisGauges, UpstreamGauges};

/// Every section of RFC 9111 §3 to §5 that asks something of a cache.
const SECTIONS: [&str; 45] = [
    "3", "3.1", "3.2", "3.3", "3.4", "3.5", "4", "4.1", "4.2", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.3",
    "4.3.1", "4.3.2", "4.3.3", "4.3.4", "4.3.5", "4.4", "5.1", "5.2", "5.2.1", "5.2.1.1", "5.2.1.2",
    "5.2.1.3", "5.2.1.4", "5.2.1.5", "5.2.1.6", "5.2.1.7", "5.2.2.1", "5.2.2.2", "5.2.2.3", "5.2.2.4",
    "5.2.2.5", "5.2.2.6", "5.2.2.7", "5.2.2.8", "5.2.2.9", "5.2.2.10", "5.2.3", "5.3", "5.4", "5.5", "1.2.2",
];

/// A row of a table of clauses.
#[derive(Debug)]
struct Row {
    line: usize,
    clause: String,
    settings: Vec<String>,
    tests: Vec<String>,
}

#[test]
fn every_row_names_tests_that_exist_and_settings_that_are_known() {
    let (known, rows) = (Known::read(), rows(&document()));
    assert!(rows.len() > 100, "only {} rows of clauses", rows.len());
    let complaints: Vec<_> = rows.iter().flat_map(|row| known.complaints(row)).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    println!("{} rows of clauses", rows.len());
}

#[test]
fn every_clause_of_storing_reuse_and_fields_has_a_row() {
    let document = document();
    let of_9111 = document.lines().take_while(|line| !line.starts_with("## What is Larder's own"));
    let of_9111 = of_9111.collect::<Vec<_>>().join("\n");
    let clauses: BTreeSet<_> = rows(&of_9111).into_iter().map(|row| row.clause).collect();
    let missing: Vec<_> =
        SECTIONS.iter().filter(|section| !clauses.contains(&format!("§{section}"))).collect();
    assert!(missing.is_empty(), "docs/caching.md has no row for {missing:?}");
}

#[test]
fn the_check_itself_notices_what_is_wrong() {
    let known = Known::read();
    let head = "| clause | the RFC | Larder | setting | test |\n|---|---|---|---|---|\n";
    for (row, complaint) in [
        ("| §4 | a | b | - | - |", "no test"),
        ("| §4 | a | b | - | `caching::there_is_no_such_test` |", "there_is_no_such_test"),
        ("| §4 | a | b | - | `nowhere::the_origins_own_lifetime_decides` |", "nowhere"),
        ("| §4 | a | b | - | `3-storing §4.4` |", "3-storing §4.4"),
        ("| §4 | a | b | `ttl.defualt` | `3-storing §3` |", "ttl.defualt"),
        ("| §4 | a | b | ttl.default | `3-storing §3` |", "ttl.default"),
        ("| clause 4 | a | b | - | `3-storing §3` |", "no clause"),
    ] {
        let rows = rows(&format!("{head}{row}\n"));
        let complaints = known.complaints(&rows[0]);
        assert!(complaints.len() == 1 && complaints[0].contains(complaint), "{row}: {complaints:?}");
    }
    let good = "| §4 | a | b | `ttl.default`, `cache.variants` | `3-storing §3`, `rules/storing::the_request_counts_too` |";
    let rows = rows(&format!("{head}{good}\n"));
    assert_eq!(known.complaints(&rows[0]), Vec::<String>::new());
}

/// Words in back quotes in docs/security.md that look like a setting and are none.
const WORDS: [&str; 3] = ["localhost", "unsafe", "unwrap"];

#[test]
fn what_the_security_document_names_exists() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let known = Known::read();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let complaints: Vec<_> = quoted.iter().filter(|name| !known.is_known(name)).collect();
    assert!(complaints.is_empty(), "docs/security.md names {complaints:?}");
    let tests = quoted.iter().filter(|name| name.contains("::")).count();
    println!("{} names, {tests} of them tests", quoted.len());
    for wrong in
        ["limits.drian", "listne", "drain::there_is_no_such_test", "larder_reload_total", "src/no/such.rs"]
    {
        assert!(!known.is_known(wrong), "{wrong}");
    }
}

#[test]
fn the_settings_and_files_that_the_deploy_document_names_exist() {
    let text = std::fs::read_to_string(root().join("docs/deploy.md")).unwrap();
    let known = Known::read();
    // Of systemd and of the machine, and what is told in other words than a setting's.
    const OTHERS: [&str; 3] = ["larder", "degraded", "maxmemory"];
    let prose: String = text.split("```").step_by(2).collect();
    let quoted = prose.split('`').skip(1).step_by(2).filter(|name| !OTHERS.contains(name));
    let unknown: Vec<_> = quoted.filter(|name| !known.is_known(name)).collect();
    assert!(unknown.is_empty(), "docs/deploy.md names {unknown:?}");
}

#[test]
fn each_line_of_the_checklist_begins_with_a_setting_or_a_command_that_exists() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let section = text.split("## Before you face the internet\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let known = Known::read();
    let lines: Vec<_> = section.split("\n- ").skip(1).collect();
    assert!((10..=25).contains(&lines.len()), "{} lines", lines.len());
    for line in lines {
        let (subjects, _) = line.split_once(": ").expect(line);
        let subjects: Vec<_> = subjects.split('`').skip(1).step_by(2).collect();
        assert!(!subjects.is_empty() && line.starts_with('`'), "{line}");
        for subject in subjects.iter().filter(|subject| !subject.contains([' ', '='])) {
            assert!(known.is_known(subject), "{subject} in {line}");
        }
    }
    // Larder's own commands, there and in the README, are those that its help knows.
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let shell: Vec<_> = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let lines = shell.iter().flat_map(|block| block.lines()).chain(section.split('`'));
    let args = std::fs::read_to_string(root().join("src/cli/args.rs")).unwrap();
    let mut seen = 0;
    for command in lines.filter_map(|line| line.trim().strip_prefix("larder ")) {
        let name = command.split(' ').next().unwrap();
        let variant = name[..1].to_uppercase() + &name[1..];
        assert!(args.contains(&format!("    {variant}({variant}),")), "larder {command}");
        for option in command.split(' ').filter_map(|word| word.strip_prefix("--")) {
            assert!(args.contains(&format!("pub {}:", option.replace('-', "_"))), "--{option} of {command}");
            seen += 1;
        }
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn every_link_of_the_readme_and_of_what_it_leads_to_leads_somewhere() {
    let read = |name: &str| std::fs::read_to_string(root().join(name));
    for from in [
        "README.md",
        "docs/features.md",
        "docs/responses.md",
        "docs/security.md",
        "docs/stats.md",
        "docs/metrics.md",
        "docs/purging.md",
        "docs/deploy.md",
        "docs/dashboard.md",
    ] {
        let folder = Path::new(from).parent().unwrap();
        let text = read(from).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { from.into() } else { folder.join(file).display().to_string() };
            let target = read(&to).unwrap_or_else(|why| panic!("{from}: {link}: {why}"));
            let is_heading = |line: &str| line.starts_with('#') && anchor(line) == heading;
            assert!(heading.is_empty() || target.lines().any(is_heading), "{from}: {link}");
        }
    }
}

#[test]
fn every_field_of_stats_is_documented_and_no_other() {
    let gauges = Gauges {
        redis: Some(RedisGauges::default()),
        fleet: Some(FleetGauges::default()),
        leases: Some(LeaseGauges::default()),
        upstreams: vec![UpstreamGauges {
            upstream: "NAME".into(),
            server: "SERVER".into(),
            ..UpstreamGauges::default()
        }],
        ..Gauges::default()
    };
    let stats = Metrics::new(&["NAME".to_owned()], 1).stats(&gauges);
    let mut shown = BTreeSet::new();
    fields("", &stats, &mut shown);
    // A route has what all of them have together.
    let of_route = |field: &String| field.strip_prefix("routes.NAME.").map(|rest| format!("all.{rest}"));
    let routes: BTreeSet<String> = shown.iter().filter_map(of_route).collect();
    shown.retain(|field| !field.starts_with("routes."));
    let all: BTreeSet<String> = shown.iter().filter(|field| field.starts_with("all.")).cloned().collect();
    assert_eq!(routes, all);
    let text = std::fs::read_to_string(root().join("docs/stats.md")).unwrap();
    let told = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<String> = told.filter(|field| *field != "tiers.redis").map(str::to_owned).collect();
    assert_eq!(shown, told);
}

/// What Larder answers itself is told of by one function: wherever it is called, the word is its first string.
#[test]
fn every_cause_of_larders_own_answers_is_documented_beside_its_status() {
    let text = std::fs::read_to_string(root().join("docs/responses.md")).unwrap();
    let table = text.split("## Larder's own answers").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut causes = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("src/proxy")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for call in source.split("::local(StatusCode::").skip(1) {
            let (status, rest) = call.split_once(", ").unwrap();
            // Where it is no literal, others of its kind are.
            let Some(cause) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            causes.insert((status.to_owned(), cause.to_owned()));
        }
    }
    assert!(causes.len() > 15, "{causes:?}");
    let number = |status: &str| match status {
        "OK" => "200",
        "NO_CONTENT" => "204",
        "BAD_REQUEST" => "400",
        "NOT_FOUND" => "404",
        "METHOD_NOT_ALLOWED" => "405",
        "REQUEST_TIMEOUT" => "408",
        "PAYLOAD_TOO_LARGE" => "413",
        "URI_TOO_LONG" => "414",
        "EXPECTATION_FAILED" => "417",
        "TOO_MANY_REQUESTS" => "429",
        "INTERNAL_SERVER_ERROR" => "500",
        "SERVICE_UNAVAILABLE" => "503",
        "GATEWAY_TIMEOUT" => "504",
        "LOOP_DETECTED" => "508",
        other => panic!("{other}: add its number"),
    };
    for (status, cause) in &causes {
        let row = table.lines().find(|line| {
            line.split('|').nth(1).is_some_and(|of| of.split([',', ' ']).any(|word| word == number(status)))
        });
        let row = row.unwrap_or_else(|| panic!("no row for {status}"));
        assert!(row.contains(&format!("`{cause}`")), "{status}: {cause} is not in {row}");
    }
}

/// The names of all values; what is counted by words is one of them.
fn fields(path: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
    const BY_WORD: [&str; 10] = [
        "results",
        "misses",
        "miss_causes",
        "hit_ratios",
        "durations",
        "not_stored",
        "verified",
        "bypass_reasons",
        "flaws",
        "damaged_by",
    ];
    let last = path.rsplit('.').next().unwrap();
    match value.as_object() {
        Some(members) if !BY_WORD.contains(&last) && path != "all.hits" && path != "routes.NAME.hits" => {
            for (name, value) in members {
                let dot = if path.is_empty() { "" } else { "." };
                fields(&format!("{path}{dot}{name}"), value, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/caching.md")).unwrap()
}

/// The rows of the tables that begin with `| clause |`.
fn rows(document: &str) -> Vec<Row> {
    let mut in_table = false;
    let mut rows = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let cells: Vec<_> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
        in_table = line.starts_with('|') && (in_table || cells[0] == "clause");
        if !in_table || cells[0] == "clause" || line.starts_with("|---") {
            continue;
        }
        assert_eq!(cells.len(), 5, "docs/caching.md:{}: five cells", index + 1);
        rows.push(Row {
            line: index + 1,
            clause: cells[0].into(),
            settings: listed(cells[3]),
            tests: listed(cells[4]),
        });
    }
    rows
}

/// The members of a cell, with their back quotes; none for `-`.
fn listed(cell: &str) -> Vec<String> {
    cell.split(", ").filter(|member| *member != "-").map(str::to_owned).collect()
}

/// What a row may name.
struct Known {
    /// Tests by file: `caching`, `rules/storing`.
    tests: BTreeMap<String, BTreeSet<String>>,
    /// `3-storing §3`, `clauses §3`
    cases: BTreeSet<String>,
    /// `ttl.default`, `cache.variants`
    settings: BTreeSet<String>,
}

impl Known {
    fn read() -> Self {
        let mut tests = BTreeMap::new();
        for (folder, within) in [("tests", ""), ("src", "")] {
            collect(&root().join(folder), within, &mut tests);
        }
        let cases = corpus::cases().expect("the corpus is well formed");
        let stem = |place: &str| place.split(".txt").next().unwrap().to_owned();
        let clause = |clause: &str| clause.split(' ').nth(1).unwrap().to_owned();
        let mut cases: BTreeSet<_> =
            cases.iter().map(|case| format!("{} {}", stem(&case.place), clause(&case.clause))).collect();
        let scripts = script::read(1_000_000_000).expect("the scripts are well formed");
        cases.extend(scripts.iter().map(|script| format!("clauses {}", clause(&script.clause))));
        Self { tests, cases, settings: settings() }
    }

    fn complaints(&self, row: &Row) -> Vec<String> {
        let at = |what: String| format!("docs/caching.md:{}: {what}", row.line);
        let unknown = |name: &String| !self.settings.contains(name.trim_matches('`')) || !is_quoted(name);
        let missing = |name: &String| !self.has(name.trim_matches('`')) || !is_quoted(name);
        let mut complaints: Vec<_> = row
            .settings
            .iter()
            .filter(|name| unknown(name))
            .map(|name| at(format!("no setting {name}")))
            .collect();
        complaints
            .extend(row.tests.iter().filter(|name| missing(name)).map(|name| at(format!("no test {name}"))));
        if row.tests.is_empty() {
            complaints.push(at("no test is named".into()));
        }
        if !row.clause.starts_with('§') {
            complaints.push(at(format!("{} is no clause", row.clause)));
        }
        complaints
    }

    /// Whether what stands in back quotes exists, as far as its form says what it is.
    fn is_known(&self, name: &str) -> bool {
        let is_plain = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c))
        };
        if name.contains("::") {
            return self.has(name);
        }
        if name.starts_with("src/") || name.starts_with("tests/") || name.starts_with("docs/") {
            return root().join(name).exists();
        }
        if name.starts_with("larder_") {
            let families = std::fs::read_to_string(root().join("src/telemetry/families.rs")).unwrap();
            return families.contains(&format!("\"{name}\""));
        }
        if !is_plain(name) || ["toml", "rs", "sh"].iter().any(|end| name.ends_with(&format!(".{end}"))) {
            return true;
        }
        // At the top of the file, in a table, in a route or an upstream, or a whole table.
        let tables = ["", "route.", "upstream.api."];
        WORDS.contains(&name)
            || self.settings.contains(name)
            || tables.iter().any(|table| self.settings.contains(&format!("{table}{name}")))
            || self.settings.contains(&format!(".{name}"))
            || self.settings.iter().any(|known| known.starts_with(&format!("{name}.")))
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once("::") {
            Some((file, test)) => self.tests.get(file).is_some_and(|tests| tests.contains(test)),
            None => self.cases.contains(name),
        }
    }
}

fn is_quoted(name: &str) -> bool {
    name.len() > 2 && name.starts_with('`') && name.ends_with('`')
}

/// The tests of every file of a folder: those marked so, and those inside `proptest!`. The files of
/// `tests/rules/` are modules of `tests/rules.rs`.
fn collect(folder: &Path, within: &str, tests: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(&path, &format!("{within}{stem}/"), tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name =
                if folder.ends_with("tests/rules") { "rules".into() } else { format!("{within}{stem}") };
            tests.entry(name).or_default().extend(marked(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn marked(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_marked = false;
    for line in source.lines().map(str::trim) {
        is_marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) else {
            continue;
        };
        if std::mem::take(&mut is_marked) {
            found.insert(rest.split('(').next().unwrap().to_owned());
        }
    }
    found
}

/// Every setting of the shipped file, those in comments too; the keys of `[route.cache]` by themselves.
fn settings() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("proxy.toml")).unwrap();
    let mut table = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches('[').split(']').next().unwrap().to_owned();
            continue;
        }
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if !key.contains(' ') {
            found.insert(if table == "route.cache" { key.into() } else { format!("{table}.{key}") });
        }
    }
    found
}
