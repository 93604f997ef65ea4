//! What of a file is hidden, and that no secret is shown, wherever a mistake is.

use proptest::prelude::*;

use super::super::masks::{LONGEST, secrets};
use super::super::{Config, SHIPPED};

/// The text with each hidden stretch as `…`.
fn shown(text: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    for part in secrets(text) {
        out += &text[at..part.start];
        out.push('…');
        at = part.end;
    }
    out + &text[at..]
}

#[test]
fn secrets_are_hidden_and_nothing_else() {
    let rows = [
        ("admin_token = \"hunter2\"", "admin_token = \"…\""),
        ("admin_token = \"hunter2\"  # old", "admin_token = \"…\"  # old"),
        ("admin_token = 'hunter2'", "admin_token = '…'"),
        ("\"admin_token\" = \"hunter2\"", "\"admin_token\" = \"…\""),
        ("admin_token = \"\"\"\nhunter2\n\"\"\"\nworkers = 1", "admin_token = \"\"\"…\"\"\"\nworkers = 1"),
        ("admin_token = \"a\\\"hunter2\"", "admin_token = \"…\""),
        ("admin_token = 12345678", "admin_token = …"),
        ("admin_token = [\"hunter2\"]", "admin_token = […]"),
        ("admin_token = [\n 'a', # ]\n 'hunter2' ]\nworkers = 1", "admin_token = […]\nworkers = 1"),
        ("admin_token = [\n 'hunter2\nworkers = 1", "admin_token = […"),
        ("a = { token = { b = \"}\" }, c = 1 }", "a = { token = {…}, c = 1 }"),
        // Where its line has none, the value is what comes next.
        ("admin_token =\n\n  \"hunter2\"\nworkers = 1", "admin_token =\n\n  \"…\"\nworkers = 1"),
        ("admin_token = # mine\nhunter2\nworkers = 1", "admin_token = …\nworkers = 1"),
        ("admin_token\n= \"hunter2\"\nworkers = 1", "admin_token\n…\nworkers = 1"),
        ("admin_token = \\\n  hunter2", "admin_token = …"),
        ("authorization =\n\"share\"", "authorization =\n\"share\""),
        ("admin_token = true", "admin_token = true"),
        // No TOML at all.
        ("admin_token = hunter2 # old", "admin_token = …"),
        ("admin_token = 12345678 # old", "admin_token = … # old"),
        ("admin_token hunter2", "admin_token …"),
        ("{\"admin_token\": \"hunter2\"}", "{\"admin_token\": \"…\"}"),
        ("admin_token = \"hunter2", "admin_token = \"…"),
        ("admin_token = \"hunt\", er2\"", "admin_token = \"…\""),
        ("admin_token = \"hunt\", er2", "admin_token = \"…"),
        ("admin_token = \"hunt\" # er2\"", "admin_token = \"…\""),
        ("admin_token = \"\"\"\nhunt\"\"\"er2\n\"\"\"", "admin_token = \"\"\"…\"\"\""),
        ("admin_token = \"hunt\"er2\"", "admin_token = \"…\""),
        ("admin_token: hunter2", "admin_token: …"),
        ("admin_token \"hunter2\"", "admin_token \"…\""),
        // Mistyped, or another's name for it.
        ("admin_tokn = \"hunter2\"", "admin_tokn = \"…\""),
        ("Token = \"hunter2\"", "Token = \"…\""),
        ("redis_password = \"hunter2\"", "redis_password = \"…\""),
        ("redis_secret = \"hunter2\"", "redis_secret = \"…\""),
        ("redis_secret_file = \"0123456789abcdef\"", "redis_secret_file = \"…\""),
        ("password_file = \"hunter2\"", "password_file = \"…\""),
        ("password_file = \"/etc/secret\"", "password_file = \"/etc/secret\""),
        ("redis = \"redis://hunter2:a,b:1\"", "redis = \"redis://…\""),
        ("redis = \"redis+sentinel://a:1,b:2/m\"", "redis = \"redis+sentinel://a:1,b:2/m\""),
        ("redis_secret_file = \"/etc/secret\"", "redis_secret_file = \"/etc/secret\""),
        // What the environment holds is not in the file.
        ("admin_token = \"${LARDER_TOKEN}\"", "admin_token = \"${LARDER_TOKEN}\""),
        ("admin_token = \"a${LARDER_TOKEN\"", "admin_token = \"…\""),
        ("redis = \"redis://:${PW}@db\"", "redis = \"redis://:${PW}@db\""),
        ("redis = \"redis://u:hunter2@db:1/2\"", "redis = \"redis://…@db:1/2\""),
        ("redis = \"redis://u:${A}x@db\"", "redis = \"redis://…${A}…@db\""),
        ("redis = \"redis://:p@ss@db\"", "redis = \"redis://…@db\""),
        ("redis = \"redis://:pa\"ss@db\"", "redis = \"redis://…@db\""),
        ("redis = \"redis://:hunter2", "redis = \"redis://…"),
        ("redis = redis://u:hunter2@db", "redis = redis://…@db"),
        ("redis = \"redis://db:6379/1\"", "redis = \"redis://db:6379/1\""),
        ("redis = \"redis://[::1]:6379\"", "redis = \"redis://[::1]:6379\""),
        ("servers = [\"http://a:1\", \"http://u:p@b\"]", "servers = [\"http://a:1\", \"http://…@b\"]"),
        // Fields that are set, and settings of the same name.
        ("set = { Authorization = \"Basic aHVudGVy\" }", "set = { Authorization = \"…\" }"),
        ("set = { authorization = \"Bearer a\", A = \"1\" }", "set = { authorization = \"…\", A = \"1\" }"),
        ("set.Cookie = \"session=1\"", "set.Cookie = \"…\""),
        ("set.Cookie = \"hunter\"", "set.Cookie = \"…\""),
        ("set = { Authorization = \"hunter-two\" }", "set = { Authorization = \"…\" }"),
        // What stands in quotes is no key, unless the quotes are broken.
        ("name = \"token = a\"", "name = \"token = a\""),
        ("name = \"a, token = \"hunter2\"", "name = \"a, token = \"…\""),
        ("session = \"1\"", "session = \"…\""),
        // A whole table, but for what is named by choice.
        ("[cache.redis.password]\na = 1\n[log]\nb = 1", "[cache.redis.password]\n…\n[log]\nb = 1"),
        ("admin_token.a = \"hunter2\"", "admin_token.a = \"…\""),
        ("[upstream.token]\nservers = []", "[upstream.token]\nservers = []"),
        ("upstream.token.servers = []", "upstream.token.servers = []"),
        ("redis = \":hunter2@db\"", "redis = \"…\""),
        ("set.X-Api-Key = \"hunter2\"", "set.X-Api-Key = \"…\""),
        ("authorization = \"per-credential\"", "authorization = \"per-credential\""),
        ("set_cookie = \"keep\"", "set_cookie = \"keep\""),
        ("authorization = \"per-credentail\"", "authorization = \"per-credentail\""),
        ("set_cookie = \"strp\"", "set_cookie = \"strp\""),
        ("cookies = [\"lang\"]", "cookies = [\"lang\"]"),
        ("admin_time = \"10s\"", "admin_time = \"10s\""),
        ("key.headers = [\"X-Api-Key\"]", "key.headers = [\"X-Api-Key\"]"),
        ("by = { header = \"X-Api-Key\" }", "by = { header = \"X-Api-Key\" }"),
    ];
    for (text, want) in rows {
        assert_eq!(shown(text), want, "{text}");
    }
}

#[test]
fn a_line_that_is_too_long_to_look_at_is_hidden() {
    let fits = "a".repeat(LONGEST);
    assert_eq!(shown(&format!("{fits}\n{fits}b\nc = 1\n")), format!("{fits}\n…\nc = 1\n"));
    let long = "://".repeat(300_000);
    assert_eq!(shown(&format!("{long}\r\nadmin_token = 'x'")), "…\r\nadmin_token = '…'");
}

#[test]
fn the_shipped_file_is_shown_as_it_is() {
    for (line, text) in shown(SHIPPED).lines().zip(SHIPPED.lines()) {
        assert_eq!(line, text);
    }
}

/// A file with a secret in it, and mistakes before, in and behind it. Two halves of the secret have something
/// between them that may be taken for its end.
fn broken() -> impl Strategy<Value = String> {
    let lines = || {
        let line = prop_oneof![
            Just("workers = 1"),
            Just("listen = \"127.0.0.1:0"),
            Just("[log"),
            Just("[cache]"),
            Just("note = \"\"\""),
            Just("a = ["),
            Just("b = { c = 'd'"),
            Just("name = \"token = \""),
            Just("]"),
            Just("# it's"),
            Just(""),
        ];
        prop::collection::vec(line, 0..4)
    };
    let lead =
        prop::sample::select(vec!["", "  ", "\t", "a = { b = \"c\", ", "[[route]] ", "x = \"y\" ", "# "]);
    let key = prop::sample::select(vec![
        "admin_token",
        "admin_tokn",
        "\"Token\"",
        "redis_password",
        "cache.redis.password",
        "set.X-Api-Key",
        "set.\"Authorization\"",
        "token.value",
    ]);
    let sign = prop::sample::select(vec![
        "=",
        " = ",
        " = = ",
        " =\n",
        " =\n\n  ",
        " = # mine\n",
        " = \\\n",
        " = [",
        " = [\n  ",
        " = { a = ",
        " = { a =\n",
        " = [{ a = [\n",
    ]);
    let quote = || prop::sample::select(vec!["", "\"", "'", "\"\"\"", "\"\"\"\n", "'''\n"]);
    let between = prop::sample::select(vec![
        "", " ", "'", "\"", "#", " # ", ",", "]", " }", "\", ", "\"\"\"", ":", "@",
    ]);
    let end = prop::sample::select(vec!["", " # c", ",", "]", "\n]", " }", "}]", "\n\"\"\"", " \"", "\r"]);
    (lines(), lead, key, sign, (quote(), between, quote()), end, lines()).prop_map(
        |(before, lead, key, sign, (open, between, close), end, behind)| {
            let before: String = before.iter().map(|line| format!("{line}\n")).collect();
            let [first, second] = HALVES;
            let secret = format!("{open}{first}{between}{second}{close}{end}");
            format!("{before}{lead}{key}{sign}{secret}\n{}\n", behind.join("\n"))
        },
    )
}

const HALVES: [&str; 2] = ["Zq7hunter", "Kv9secret"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_half_of_a_secret_is_shown_in_whatever_broken_file(text in broken()) {
        let told = match Config::parse(&text, "proxy.toml", &|_| None) {
            Ok(config) => config.warning().unwrap_or_default(),
            Err(problems) => problems.to_string(),
        };
        for shown in [told, shown(&text)] {
            prop_assert!(!HALVES.iter().any(|half| shown.contains(half)), "{text}\n---\n{shown}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_apart_at_its_characters(
        text in "(token|redis://|\"\"\"|[\"'= @:é\\\\${}\\[\\]#,.\n\r]|[a-z]){0,24}",
    ) {
        let parts = secrets(&text);
        prop_assert!(parts.windows(2).all(|two| two[0].end < two[1].start));
        prop_assert!(parts.iter().all(|part| text.get(part.clone()).is_some_and(|part| !part.is_empty())));
    }
}
