//! The command line: arguments, finding the configuration, exit codes.
//!
//! Knows what a user may ask for, and is the only room that reads the environment.
//! Must not know: how any of it is done.

pub mod args;
mod asking;
mod audit;
pub mod commands;
pub mod config_file;
pub mod exit;
mod explain;
mod one_line;
mod purge;
mod reload;
mod serve;
mod shown;
mod simulate;
mod slow;
mod status;
mod top;
pub mod whom;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use commands::Task;

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::task(args, std::env::var_os(config_file::VARIABLE)) {
        Ok(Task::Print(text)) => print(&text),
        Ok(Task::Refuse(why, code)) => complain(&why, code),
        Ok(Task::Serve(source)) => serve::serve(&source),
        Ok(Task::Check(source, args)) => serve::check(&source, &args),
        Ok(Task::Reload(named)) => reload::reload(&named),
        Ok(Task::Purge(named, purge)) => purge::purge(&named, &purge),
        Ok(Task::Status(named, json)) => status::status(&named, json),
        Ok(Task::Top(named, top)) => top::top(&named, &top),
        Ok(Task::Slow(named, args)) => slow::slow(&named, &args),
        Ok(Task::Explain(named, request)) => explain::explain(&named, &request),
        Ok(Task::Audit(source)) => audit::audit(&source),
        Ok(Task::Simulate(source, args)) => simulate::simulate(source, &args),
        Ok(Task::Demo(demo)) => serve::demo(&demo),
        Err(missing) => complain(&missing.to_string(), exit::CONFIG),
    }
}

/// A variable of the environment, for `${NAME}` in a configuration.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

/// Whether to colour what is written to standard output: only a terminal is, and not where
/// `NO_COLOR` is set to anything.
pub fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stdout().is_terminal()
}

/// Writes to standard output, as the last thing; a reader that is gone is not our failure, any other error is.
pub fn print(text: &str) -> ExitCode {
    print_on(text).err().unwrap_or(exit::DONE.into())
}

/// The same for who has more to write.
///
/// # Errors
/// What to end with: whoever read it has gone, and wants no more of it, or it cannot be written.
fn print_on(text: &str) -> Result<(), ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(exit::DONE.into()),
        Err(error) => Err(complain(&format!("cannot write: {error}"), exit::FAILURE)),
    }
}

/// Tells the user on standard error and gives the exit code back.
pub fn complain(text: &str, code: u8) -> ExitCode {
    // Where even standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "error: {text}");
    code.into()
}
