//! From parsed arguments to what is to be done, everything short of doing it.
//!
//! Knows which configuration a command means, and what is printed in place of serving.
//! Must not know: servers, sockets, or what a configuration says.

use std::ffi::OsString;
use std::path::Path;

use super::args::{Args, Check, Command, Demo, Explain, OfRedis, Purge, Run, Simulate, Slow, Top};
use super::config_file::{self, Missing, PLACES, Source};
use super::one_line;

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Task {
    /// Print this to standard output; then it is done.
    Print(String),
    /// Check this configuration and serve with it.
    Serve(Source),
    /// Check this configuration and say what is wrong with it, and of what is not.
    Check(Source, Check),
    /// Have the Larder that this configuration leads to read its own anew.
    Reload(Source),
    /// Have the Larder that this configuration leads to purge this.
    Purge(Source, Purge),
    /// Ask the Larder that this configuration leads to how it is; for programs, where that is asked.
    Status(Source, bool),
    /// Show figures of the Larder that this configuration leads to, again and again.
    Top(Source, Top),
    /// Show the slow requests of the Larder that this configuration leads to.
    Slow(Source, Slow),
    /// Have the Larder that this configuration leads to say what would become of this request.
    Explain(Source, Explain),
    /// Count what stands in the Redis of this configuration.
    Audit(Source),
    /// Replay a log by this configuration.
    Simulate(Source, Simulate),
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
        Command::Reload(reload) => find(reload.config.or(reload.file).as_deref(), variable).map(Task::Reload),
        Command::Purge(purge) => {
            find(purge.config.as_deref(), variable).map(|source| Task::Purge(source, purge))
        }
        Command::Status(status) => find(status.config.or(status.file).as_deref(), variable)
            .map(|source| Task::Status(source, status.json)),
        Command::Top(top) => {
            find(top.config.as_deref().or(top.file.as_deref()), variable).map(|source| Task::Top(source, top))
        }
        Command::Slow(slow) => find(slow.config.as_deref().or(slow.file.as_deref()), variable)
            .map(|source| Task::Slow(source, slow)),
        Command::Explain(explain) => {
            find(explain.config.as_deref(), variable).map(|source| Task::Explain(source, explain))
        }
        Command::Redis { of: OfRedis::Audit(audit) } => {
            find(audit.config.as_deref(), variable).map(Task::Audit)
        }
        Command::Simulate(args) => {
            find(args.config.as_deref(), variable).map(|source| Task::Simulate(source, args))
        }
        Command::Demo(demo) => Ok(Task::Demo(demo)),
    }
}

fn run_task(run: &Run, variable: Option<OsString>) -> Result<Task, Missing> {
    match one_line::written_for(run) {
        Some(source) if run.print_config => Ok(Task::Print(source.text)),
        Some(source) => Ok(Task::Serve(source)),
        None => find(run.config.as_deref().or(run.file.as_deref()), variable).map(Task::Serve),
    }
}

fn find(given: Option<&Path>, variable: Option<OsString>) -> Result<Source, Missing> {
    config_file::find(given, variable.as_deref(), &PLACES.map(Path::new))
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
            matches!(task_of("larder reload", Some(&file)), Ok(Task::Reload(source)) if source.text == "here")
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
    fn the_demo_needs_no_file() {
        let absent = Path::new("/nonexistent/proxy.toml");
        assert!(
            matches!(task_of("larder demo --print-config", Some(absent)), Ok(Task::Demo(demo)) if demo.print_config)
        );
    }
}
