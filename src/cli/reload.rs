//! `larder reload`: asks a running Larder to read its configuration anew, and tells what it answers.
//!
//! Knows where the file says that the admin listener is, and its token. What is in force is for the
//! running Larder to say, and from which file: this one checks its own only where that one cannot be asked.
//! Must not know: how a reload is made.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::StatusCode;
use serde::Deserialize;

use super::config_file::Source;
use super::{asking, complain, counted, exit, print, variable};
use crate::config::Config;

/// What the admin listener says of a reload.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    routes: usize,
    upstreams: usize,
    error: String,
    /// What it has read; `None` where it has none, or is of a version that does not say.
    file: Option<String>,
    warning: Option<String>,
}

/// Has the Larder that a file leads to read its own file anew.
pub(super) fn reload(source: &Source) -> ExitCode {
    let own_look = Config::parse(&source.text, &source.name, &variable);
    let Some((admin, token)) = Config::admin_of(&source.text, &variable) else {
        return match own_look {
            Err(problems) => wrong(&problems.to_string()),
            Ok(_) => complain(
                &format!("{} has no admin listener to ask; send the process SIGHUP", source.name),
                exit::CONFIG,
            ),
        };
    };
    match (ask(admin, token.as_deref()), own_look) {
        (Ok((StatusCode::OK, answer)), _) => in_force(source, admin, &answer),
        (Ok((StatusCode::UNPROCESSABLE_ENTITY, answer)), _) => {
            let code = wrong(&answer.error);
            another_file(source, admin, &answer).map_or(code, |another| complain(&another, exit::CONFIG))
        }
        (Ok((StatusCode::CONFLICT, answer)), _) => {
            let code = complain(&answer.error, exit::CONFIG);
            another_file(source, admin, &answer).map_or(code, |another| complain(&another, exit::CONFIG))
        }
        (Ok((StatusCode::UNAUTHORIZED, _)), _) => complain(
            &format!("the Larder at {admin} has another admin_token than {}; send it SIGHUP", source.name),
            exit::FAILURE,
        ),
        (Ok((status, answer)), _) => {
            complain(&format!("the Larder at {admin} answers {status}: {}", answer.error), exit::FAILURE)
        }
        // Nobody can be asked, yet what is wrong can be told.
        (Err(_), Err(problems)) => wrong(&problems.to_string()),
        (Err(error), Ok(_)) => complain(
            &format!("no Larder answers at {admin}, the admin address of {}: {error}", source.name),
            exit::UNAVAILABLE,
        ),
    }
}

/// Says what is in force, which is what was meant only where both name the same file.
fn in_force(source: &Source, admin: SocketAddr, answer: &Answer) -> ExitCode {
    if let Some(warning) = &answer.warning {
        eprintln!("{warning}");
    }
    let file = answer.file.as_ref().unwrap_or(&source.name);
    let code = print(&format!(
        "{file}: in force ({}, {})\n",
        counted(answer.routes, "route"),
        counted(answer.upstreams, "upstream")
    ));
    another_file(source, admin, answer).map_or(code, |another| complain(&another, exit::FAILURE))
}

/// A sentence where the Larder that was asked reads another file than the one that was given.
fn another_file(source: &Source, admin: SocketAddr, answer: &Answer) -> Option<String> {
    let (read, given) = (answer.file.as_ref()?, source.file.as_ref()?);
    // Each process sees its own working directory, but both have the same names from the root on.
    let is_same = given.canonicalize().is_ok_and(|given| given.display().to_string() == *read);
    (!is_same).then(|| {
        format!(
            "the Larder at {admin} was started with {read} and has read that, not {}; to change files, start it anew",
            source.name
        )
    })
}

fn wrong(problems: &str) -> ExitCode {
    eprintln!("{problems}");
    complain("the configuration in force stays", exit::CONFIG)
}

fn ask(admin: SocketAddr, token: Option<&str>) -> io::Result<(StatusCode, Answer)> {
    let (status, body) = asking::post(admin, token, "/reload", Vec::new())?;
    // What is no answer of a Larder's has no words of its own.
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
