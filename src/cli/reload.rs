//! `larder reload`: asks a running Larder to read its configuration anew, and tells what it answers.
//!
//! What is in force is for the running Larder to say, and from which file: this one checks its own only where that
//! one cannot be asked.
//! Must not know: how a reload is made.

use std::io;
use std::process::ExitCode;

use http::StatusCode;
use serde::Deserialize;

use super::config_file::Source;
use super::shown::counted;
use super::whom::{Asked, Named};
use super::{complain, exit, print, variable};
use crate::config::{Config, NO_VARIABLE};

/// What the admin listener says of a reload.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    routes: u64,
    upstreams: u64,
    error: String,
    /// What it has read; `None` where it has none, or is of a version that does not say.
    file: Option<String>,
    warning: Option<String>,
    /// Where its file has what takes a restart, with carets; empty where that is in the error itself.
    lines: String,
}

/// Has the Larder that is named read its own file anew.
pub(super) fn reload(named: &Named) -> ExitCode {
    let source = named.source();
    let own_look = || match source {
        Some(source) => Config::parse(&source.text, &source.name, &variable).map(drop),
        None => Ok(()),
    };
    let larder = match named.asked_of_its_file() {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    match ask(&larder) {
        Ok((StatusCode::OK, answer)) => in_force(source, &larder, &answer),
        Ok((StatusCode::UNPROCESSABLE_ENTITY, answer)) => {
            let code = wrong(&answer.error);
            if answer.error.contains(NO_VARIABLE) {
                eprintln!(
                    "       its environment is that of the running Larder, which a restart alone changes"
                );
            }
            another_file(source, &larder, &answer).map_or(code, |another| complain(&another, exit::CONFIG))
        }
        Ok((StatusCode::CONFLICT, answer)) => {
            if !answer.lines.is_empty() {
                eprintln!("{}", answer.lines);
            }
            let code = complain(&answer.error, exit::CONFIG);
            another_file(source, &larder, &answer).map_or(code, |another| complain(&another, exit::CONFIG))
        }
        Ok((StatusCode::UNAUTHORIZED, _)) => larder.unauthorized("; or send it SIGHUP"),
        Ok((status, answer)) if answer.error.is_empty() => larder.other(status),
        Ok((status, answer)) => {
            let admin = larder.admin;
            complain(&format!("the Larder at {admin} answers {status}: {}", answer.error), exit::FAILURE)
        }
        Err(error) => match own_look() {
            // Nobody can be asked, yet what is wrong can be told.
            Err(problems) => wrong(&problems.to_string()),
            Ok(()) => larder.no_answer(&error.to_string()),
        },
    }
}

/// Says what is in force, which is what was meant only where both name the same file.
fn in_force(source: Option<&Source>, larder: &Asked, answer: &Answer) -> ExitCode {
    if let Some(warning) = &answer.warning {
        eprintln!("{warning}");
    }
    let file = answer.file.as_ref().or(source.map(|source| &source.name));
    let code = print(&format!(
        "{}: in force ({}, {})\n",
        file.map_or("its file", String::as_str),
        counted(answer.routes, "route"),
        counted(answer.upstreams, "upstream")
    ));
    another_file(source, larder, answer).map_or(code, |another| complain(&another, exit::FAILURE))
}

/// A sentence where the Larder that was asked reads another file than the one that was given.
fn another_file(source: Option<&Source>, larder: &Asked, answer: &Answer) -> Option<String> {
    let (source, read) = (source?, answer.file.as_ref()?);
    let given = source.file.as_ref()?;
    // Each process sees its own working directory, but both have the same names from the root on.
    let is_same = given.canonicalize().is_ok_and(|given| given.display().to_string() == *read);
    (!is_same).then(|| {
        format!(
            "the Larder at {} was started with {read} and has read that, not {}; to change files, start it anew",
            larder.admin, source.name
        )
    })
}

/// Each problem begins with what it is, an error or a warning.
fn wrong(problems: &str) -> ExitCode {
    eprintln!("{problems}");
    complain("the configuration in force stays", exit::CONFIG)
}

fn ask(larder: &Asked) -> io::Result<(StatusCode, Answer)> {
    let (status, body) = larder.post("/reload", Vec::new())?;
    // What is no answer of a Larder's has no words of its own.
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
