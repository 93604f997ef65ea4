//! From parsed arguments to what is to be done, everything short of doing it.
//!
//! Knows which configuration a command means, and what is printed in place of serving.
//! Must not know: servers, sockets, or what a configuration says.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::args::{Args, At, Check, Command, Demo, Explain, OfRedis, Purge, Run, Simulate, Slow, Top};
use super::config_file::{self, Missing, PLACES, Source};
use super::exit;
use super::one_line;
use super::whom::Named;
use crate::config::admin_refused;

/// What to try where `larder run` finds no file.
const RUN_ANYHOW: &str =
    "try `larder run --to http://127.0.0.1:3000`, which needs no file, or name one with -c";
/// The same where a running Larder is to be asked.
const ASK_ANYHOW: &str =
    "name one with -c, or the running Larder by its admin address: --admin 127.0.0.1:9900";
/// The same where Redis is to be asked.
const AUDIT_ANYHOW: &str = "name one with -c, or the Redis itself: --redis redis://127.0.0.1:6379";
/// The same for all else.
const NAME_ONE: &str = "name one with -c";
/// What to do where an admin listener needs a token: no argument has one, since all can see it there.
const TOKEN_BY_FILE: &str = "and that takes a file:\n       \
    write one (add --print-config > open.toml), set LARDER_TOKEN, which it names, and start `larder run open.toml`;\n       \
    or ";
/// Of a reload without a file.
const STAYS: &str = "nobody was asked, and the configuration in force stays";
/// What to ask for in place of no slow request at all.
const NONE_OF_THEM: &str =
    "-n 0 shows nothing: leave it out for the last 20, or follow those that come (-n 0 --tail)";
/// Where only this machine reaches it.
const ADMIN_HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Task {
    /// Print this to standard output; then it is done.
    Print(String),
    /// Say on standard error why nothing of it is done, and end with this exit code.
    Refuse(String, u8),
    /// Check this configuration and serve with it.
    Serve(Source),
    /// Check this configuration and say what is wrong with it, and of what is not.
    Check(Source, Check),
    /// Have the Larder that is named read its own anew.
    Reload(Named),
    /// Have the Larder that is named purge this.
    Purge(Named, Purge),
    /// Ask the Larder that is named how it is; for programs, where that is asked.
    Status(Named, bool),
    /// Show figures of the Larder that is named, again and again.
    Top(Named, Top),
    /// Show the slow requests of the Larder that is named.
    Slow(Named, Slow),
    /// Have the Larder that is named say what would become of this request.
    Explain(Named, Explain),
    /// Count what stands in the Redis of this configuration.
    Audit(Source),
    /// Replay a log by this configuration, or say why there is none, and whether there is a log.
    Simulate(Result<Source, String>, Simulate),
    /// Start the demo, or print its configuration where that is asked.
    Demo(Demo),
}

/// What a command line asks for; `variable` is the environment's value of
/// [`config_file::VARIABLE`].
///
/// # Errors
/// [`Missing`] where there is no configuration: exit code [`super::exit::CONFIG`].
pub fn task(args: Args, variable: Option<OsString>) -> Result<Task, Missing> {
    match args.command {
        Command::Run(run) => run_task(&run, variable),
        Command::Check(check) => find(check.config.as_deref().or(check.file.as_deref()), variable)
            .map(|source| Task::Check(source, check)),
        Command::Reload(reload) => {
            let named = whom(reload.at, reload.config.or(reload.file).as_deref(), variable);
            Ok(match named {
                Ok(named) => Task::Reload(named),
                Err(missing) => Task::Refuse(format!("{missing}\n       {STAYS}"), exit::CONFIG),
            })
        }
        Command::Purge(purge) => {
            whom(purge.at, purge.config.as_deref(), variable).map(|named| Task::Purge(named, purge))
        }
        Command::Status(status) => whom(status.at, status.config.or(status.file).as_deref(), variable)
            .map(|named| Task::Status(named, status.json)),
        Command::Top(top) => whom(top.at, top.config.as_deref().or(top.file.as_deref()), variable)
            .map(|named| Task::Top(named, top)),
        Command::Slow(slow) if slow.lines == 0 && !slow.tail => {
            Ok(Task::Refuse(NONE_OF_THEM.to_owned(), exit::USAGE))
        }
        Command::Slow(slow) => whom(slow.at, slow.config.as_deref().or(slow.file.as_deref()), variable)
            .map(|named| Task::Slow(named, slow)),
        Command::Explain(explain) => {
            whom(explain.at, explain.config.as_deref(), variable).map(|named| Task::Explain(named, explain))
        }
        Command::Redis { of: OfRedis::Audit(audit) } => match audit.redis {
            Some(redis) => Ok(Task::Audit(one_line::written_for_redis(redis))),
            None => find_or(AUDIT_ANYHOW, audit.config.or(audit.file).as_deref(), variable).map(Task::Audit),
        },
        Command::Simulate(args) => {
            let source = find(args.config.as_deref(), variable).map_err(|missing| missing.to_string());
            Ok(Task::Simulate(source, args))
        }
        Command::Demo(demo) => Ok(match wants_token(demo.admin, "and the demo has none:\n       ") {
            Some(why) => Task::Refuse(why, exit::USAGE),
            None => Task::Demo(demo),
        }),
    }
}

fn run_task(run: &Run, variable: Option<OsString>) -> Result<Task, Missing> {
    match one_line::written_for(run) {
        Some(source) if run.print_config => Ok(Task::Print(source.text)),
        Some(source) => Ok(match run.admin.and_then(|at| wants_token(at, TOKEN_BY_FILE)) {
            Some(why) => Task::Refuse(why, exit::CONFIG),
            None => Task::Serve(source),
        }),
        None => find_or(RUN_ANYHOW, run.config.as_deref().or(run.file.as_deref()), variable).map(Task::Serve),
    }
}

/// Why an admin listener may not stand there without a token, and what to do.
fn wants_token(admin: SocketAddr, so: &str) -> Option<String> {
    let here = SocketAddr::new(ADMIN_HERE, admin.port());
    admin_refused(admin, false).map(|why| {
        format!("--admin {admin}: {why}, {so}have it listen for this machine alone: --admin {here}")
    })
}

/// The Larder that a command asks. Beside an address only a file that is named here counts: one that is merely found,
/// or that the environment names, is another Larder's, and so is the token in it.
fn whom(at: At, given: Option<&Path>, variable: Option<OsString>) -> Result<Named, Missing> {
    match at.admin {
        Some(admin) => {
            let source = given.map(|file| find(Some(file), None)).transpose()?;
            Ok(Named::ByAddress(admin, source))
        }
        None => find_or(ASK_ANYHOW, given, variable).map(Named::ByFile),
    }
}

fn find(given: Option<&Path>, variable: Option<OsString>) -> Result<Source, Missing> {
    find_or(NAME_ONE, given, variable)
}

/// Finds the file; `advice` is for whoever has none.
fn find_or(
    advice: &'static str,
    given: Option<&Path>,
    variable: Option<OsString>,
) -> Result<Source, Missing> {
    config_file::find(given, variable.as_deref(), &PLACES.map(Path::new), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn task_of(line: &str, variable: Option<&Path>) -> Result<Task, Missing> {
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        task(args, variable.map(|path| path.as_os_str().to_owned()))
    }

    #[test]
    fn run_serves_with_the_file_that_it_finds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "here").unwrap();
        let by_argument = task_of(&format!("larder run -c {}", file.display()), None);
        let by_variable = task_of("larder run", Some(&file));
        for task in [by_argument, by_variable] {
            assert!(matches!(task, Ok(Task::Serve(source)) if source.text == "here"));
        }
        assert!(
            matches!(task_of("larder check", Some(&file)), Ok(Task::Check(source, _)) if source.text == "here")
        );
        assert!(
            matches!(task_of("larder reload", Some(&file)), Ok(Task::Reload(Named::ByFile(source))) if source.text == "here")
        );
        assert!(
            matches!(task_of("larder redis audit", Some(&file)), Ok(Task::Audit(source)) if source.text == "here")
        );
    }

    #[test]
    fn to_needs_no_file_and_does_not_mind_the_variable() {
        let absent = Path::new("/nonexistent/proxy.toml");
        let line = "larder run --to http://127.0.0.1:3000";
        let Ok(Task::Serve(served)) = task_of(line, Some(absent)) else { panic!() };
        let Ok(Task::Print(printed)) = task_of(&format!("{line} --print-config"), Some(absent)) else {
            panic!()
        };
        assert_eq!(served.text, printed);
        assert!(task_of("larder run", Some(absent)).is_err());
    }

    #[test]
    fn a_larder_that_is_named_by_its_address_needs_no_file_and_goes_by_none_that_is_only_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "here").unwrap();
        let absent = Path::new("/nonexistent/proxy.toml");
        for command in ["status", "top", "slow", "purge --all", "reload", "explain /"] {
            let by_address = |rest: &str, variable| {
                let line = format!("larder {command} --admin http://127.0.0.1:9/ {rest}");
                let named = match task_of(&line, variable).unwrap() {
                    Task::Status(named, _) | Task::Top(named, _) | Task::Slow(named, _) => named,
                    Task::Purge(named, _) | Task::Reload(named) | Task::Explain(named, _) => named,
                    other => panic!("{other:?}"),
                };
                let Named::ByAddress(admin, source) = named else { panic!("{named:?}") };
                assert_eq!(admin.to_string(), "127.0.0.1:9");
                source.map(|source| source.text)
            };
            assert_eq!(by_address("", Some(absent)), None, "{command}");
            assert_eq!(by_address("", Some(&file)), None, "{command}");
            assert_eq!(by_address(&format!("-c {}", file.display()), None).as_deref(), Some("here"));
            let absent = task_of(&format!("larder {command} --admin 127.0.0.1:9 -c /nonexistent"), None);
            match (command, absent) {
                // Of this one it is told, too, what it leaves as it is.
                ("reload", Ok(Task::Refuse(why, exit::CONFIG))) => assert!(why.ends_with(STAYS), "{why}"),
                (_, absent) => assert!(absent.is_err(), "{command}: {absent:?}"),
            }
        }
    }

    #[test]
    fn an_open_admin_address_takes_a_file_and_is_told_how_to_come_by_one() {
        for (line, says) in [
            (
                "larder run --to http://a --admin 0.0.0.0:9900",
                "(add --print-config > open.toml), set LARDER_TOKEN",
            ),
            (
                "larder run --to http://a --admin [::]:9900",
                "--admin [::]:9900: an admin listener that others can reach",
            ),
            ("larder demo --admin 192.0.2.1:9900", "the demo has none"),
        ] {
            let Ok(Task::Refuse(why, _)) = task_of(line, None) else { panic!("{line}") };
            assert!(why.contains(says) && why.ends_with("--admin 127.0.0.1:9900"), "{why}");
        }
        for (line, token) in [("[::ffff:127.0.0.1]:1", false), ("0.0.0.0:1", true)] {
            let line = format!("larder run --to http://a --print-config --admin {line}");
            let Ok(Task::Print(text)) = task_of(&line, None) else { panic!("{line}") };
            assert_eq!(text.contains("admin_token = \"${LARDER_TOKEN}\""), token, "{text}");
        }
    }

    #[test]
    fn no_slow_request_at_all_is_refused_whether_a_file_is_found_or_not() {
        let absent = Path::new("/nonexistent/proxy.toml");
        for admin in ["", "--admin 127.0.0.1:9"] {
            let task = task_of(&format!("larder slow -n 0 {admin}"), Some(absent));
            assert!(
                matches!(&task, Ok(Task::Refuse(why, exit::USAGE)) if why.contains("-n 0 --tail")),
                "{task:?}"
            );
        }
        assert!(task_of("larder slow -n 0 --tail", Some(absent)).is_err());
    }

    #[test]
    fn the_demo_needs_no_file() {
        let absent = Path::new("/nonexistent/proxy.toml");
        assert!(
            matches!(task_of("larder demo --print-config", Some(absent)), Ok(Task::Demo(demo)) if demo.print_config)
        );
    }
}
