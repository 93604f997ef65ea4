//! `larder reload`: asks a running Larder to read its configuration anew, and tells what it answers.
//!
//! Knows where the file says that the admin listener is, and its token. What is in force is for the
//! running Larder to say: this one checks the file only where that one cannot be asked.
//! Must not know: how a reload is made.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::StatusCode;
use serde::Deserialize;

use super::config_file::Source;
use super::{asking, complain, exit, print, variable};
use crate::config::Config;

/// What the admin listener says of a reload.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    routes: usize,
    upstreams: usize,
    error: String,
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
        (Ok((StatusCode::OK, answer)), _) => {
            print(&format!("in force ({} routes, {} upstreams)\n", answer.routes, answer.upstreams))
        }
        (Ok((StatusCode::UNPROCESSABLE_ENTITY, answer)), _) => wrong(&answer.error),
        (Ok((StatusCode::CONFLICT, answer)), _) => complain(&answer.error, exit::CONFIG),
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

fn wrong(problems: &str) -> ExitCode {
    eprintln!("{problems}");
    complain("the configuration in force stays", exit::CONFIG)
}

fn ask(admin: SocketAddr, token: Option<&str>) -> io::Result<(StatusCode, Answer)> {
    let (status, body) = asking::post(admin, token, "/reload", Vec::new())?;
    // What is no answer of a Larder's has no words of its own.
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
