//! The `proxy.toml` that `larder run --to URL …` amounts to.
//!
//! Knows how to write TOML for a person to read and go on with.
//! Must not know: what the settings mean, or whether their values are right.

use super::args::{ADMIN, LISTEN, Run};
use super::config_file::Source;
use crate::config::admin_refused;

/// The configuration that `larder run --to URL …` amounts to; `None` without `--to`.
pub fn written_for(run: &Run) -> Option<Source> {
    let to = run.to.as_ref()?;
    let mut text = format!("# In front of {to}, with defaults for all else.\n");
    text += &setting("listen", &run.listen.map_or_else(|| LISTEN.to_owned(), |at| at.to_string()));
    text += &setting("admin", &run.admin.map_or_else(|| ADMIN.to_owned(), |at| at.to_string()));
    if run.admin.is_some_and(|at| admin_refused(at, false).is_some()) {
        // `larder run` serves with no such address; who has it printed gets a file that says what is still to be set.
        text += "admin_token = \"${LARDER_TOKEN}\"   # such as `openssl rand -hex 32` prints\n";
    }
    if let Some(redis) = &run.redis {
        text += "\n[cache]\n";
        text += &setting("redis", redis);
    }
    text += &format!("\n[upstream.api]\nservers = [{}]\n", quoted(to));
    text += "\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
    text += "\n[route.cache]\n";
    match &run.ttl {
        Some(ttl) => text += &setting("ttl.default", ttl),
        None => text += "# ttl.default = \"60s\"   # for responses that say nothing about caching\n",
    }
    Some(Source { name: "--to".to_owned(), text, file: None })
}

/// What a Larder that was started with `larder run --to URL --redis REDIS` has of that Redis; all that it serves is
/// of one route, wherever that leads.
pub fn written_for_redis(redis: String) -> Source {
    let run = Run { to: Some("http://127.0.0.1".to_owned()), redis: Some(redis), ..Run::default() };
    let text = written_for(&run).map(|source| source.text).unwrap_or_default();
    Source { name: "--redis".to_owned(), text, file: None }
}

fn setting(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quoted(value))
}

/// A TOML basic string. `$` stands as it is: `${NAME}` works in an argument as in a file.
pub(super) fn quoted(value: &str) -> String {
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::cli::args::{Args, Command};
    use crate::config::Config;

    fn run(line: &str) -> Run {
        match Args::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_line_amounts_to_a_whole_configuration() {
        let source = written_for(&run(
            "larder run --to http://127.0.0.1:3000 --listen 127.0.0.1:81 --admin 127.0.0.1:82 --ttl 60s --redis redis://h",
        ))
        .unwrap();
        let table: toml::Table = source.text.parse().unwrap();
        assert_eq!(table["listen"].as_str(), Some("127.0.0.1:81"));
        assert_eq!(table["admin"].as_str(), Some("127.0.0.1:82"));
        assert_eq!(table["cache"]["redis"].as_str(), Some("redis://h"));
        assert_eq!(table["upstream"]["api"]["servers"][0].as_str(), Some("http://127.0.0.1:3000"));
        let route = &table["route"][0];
        assert_eq!(route["upstream"].as_str(), Some("api"));
        assert_eq!(route["match"]["path"].as_str(), Some("/*"));
        assert_eq!(route["cache"]["ttl"]["default"].as_str(), Some("60s"));
    }

    #[test]
    fn what_is_not_said_is_left_to_the_defaults() {
        let source = written_for(&run("larder run --to http://a")).unwrap();
        let table: toml::Table = source.text.parse().unwrap();
        assert_eq!((table["listen"].as_str(), table["admin"].as_str()), (Some(LISTEN), Some(ADMIN)));
        assert!(!table.contains_key("cache"));
        assert!(table["route"][0]["cache"].as_table().unwrap().is_empty());
        assert_eq!(written_for(&run("larder run")), None);
    }

    fn read(line: &str) -> Result<Config, String> {
        let source = written_for(&run(line)).unwrap();
        Config::parse(&source.text, &source.name, &|_| None).map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_is_written_is_a_good_configuration() {
        let config = read("larder run --to http://h:3000 --ttl 60s --redis redis://db").unwrap();
        assert_eq!(
            (config.upstreams[0].servers[0].port, config.cache.redis),
            (3000, crate::config::Redis::from_url("redis://db").ok())
        );
        assert!(config.routes[0].cache.as_ref().unwrap().policy.ttl.default.is_some());
    }

    #[test]
    fn a_wrong_argument_is_a_located_problem() {
        let shown = read("larder run --to http://a --redis redis://db/x").unwrap_err();
        assert!(shown.contains("--> --to:6:9") && shown.contains("redis = \"redis://db/x\""), "{shown}");
    }

    #[test]
    fn any_argument_stays_one_string() {
        for value in ["plain", "a\"b\\c", "tab\there", "line\nfeed", "é", "\u{1}", "\u{7f}"] {
            let table: toml::Table = setting("x", value).parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(value));
        }
    }
}
