//! Which running Larder a command asks: the one that its file leads to, or the one at an address.
//!
//! Knows how the user has named it, its token, and what to say where it does not answer.
//! Must not know: what is asked.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::StatusCode;
use hyper::body::Bytes;

use super::config_file::Source;
use super::{asking, complain, exit, variable};
use crate::config::{Admin, Config, Problems};

/// The variable that has the token of a Larder that is named by its address.
const TOKEN: &str = "LARDER_ADMIN_TOKEN";

/// How the user has named the Larder that is to be asked.
#[derive(Clone, Debug)]
pub enum Named {
    /// By its file, which has its address and its token.
    ByFile(Source),
    /// By its address. A file that is named beside it has the token, and need not be right in all else.
    ByAddress(SocketAddr, Option<Source>),
}

/// The Larder that is asked.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where.
    pub(super) admin: SocketAddr,
    token: Option<String>,
    /// What has its address, where that is a file.
    address_of: Option<String>,
    /// What has the token, whether there is one or not.
    token_of: Option<String>,
}

impl Named {
    /// The file, if any was named or found.
    pub(super) fn source(&self) -> Option<&Source> {
        match self {
            Self::ByFile(source) => Some(source),
            Self::ByAddress(_, source) => source.as_ref(),
        }
    }

    /// Where it is, and its token. A file that is wrong leads nowhere: by a slip it might lead to another Larder.
    ///
    /// # Errors
    /// What to end with where the file is wrong, or has no admin listener: the user has been told.
    pub(super) fn asked(&self) -> Result<Asked, ExitCode> {
        match self {
            Self::ByFile(source) => {
                let admin = Config::admin_of_good(&source.text, &source.name, &variable);
                Asked::by_file(source, admin.map_err(|problems| nobody_asked(&problems))?, "")
            }
            Self::ByAddress(admin, source) => Asked::by_address(*admin, source.as_ref()),
        }
    }

    /// The same by what `source` was found to say.
    ///
    /// # Errors
    /// What to end with where it has no admin listener: the user has been told.
    pub(super) fn asked_as(&self, source: &Source, config: &Config) -> Result<Asked, ExitCode> {
        let token = config.admin_token.clone();
        match self {
            Self::ByFile(_) => Asked::by_file(source, (config.admin, token), ""),
            Self::ByAddress(admin, _) => Ok(Asked::with(*admin, token.map(|token| (token, source)))),
        }
    }

    /// The same for who is to look at the file itself, whatever is wrong with it but for what leads there.
    ///
    /// # Errors
    /// What to end with where the file does not say: the user has been told.
    pub(super) fn asked_of_its_file(&self) -> Result<Asked, ExitCode> {
        match self {
            Self::ByFile(source) => {
                let (admin, problems) = Config::admin_of(&source.text, &source.name, &variable);
                match (problems.is_empty(), admin.0) {
                    (true, Some(_)) => Asked::by_file(source, admin, ""),
                    (true, None) => Asked::by_file(source, admin, "; send the process SIGHUP"),
                    (false, _) => {
                        // All of them, while somebody looks at the file.
                        let all = Config::admin_of_good(&source.text, &source.name, &variable).err();
                        Err(nobody_reloads(&all.unwrap_or(problems)))
                    }
                }
            }
            Self::ByAddress(admin, source) => Asked::by_address(*admin, source.as_ref()),
        }
    }
}

/// Shows what is wrong with a file that should lead to a Larder.
fn nobody_asked(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    let text = "nobody was asked; whatever the file says, a Larder can be named: --admin ADDR";
    complain(text, exit::CONFIG)
}

/// The same where that Larder was to read it. By its address it would come to the same problems, unless the environment
/// has a part in them: it has its own.
fn nobody_reloads(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    let next = match problems.may_be_of_environment() {
        true => {
            "the running Larder has an environment of its own: where a variable is to blame, name that Larder \
             (--admin ADDR), else mend the file, and reload again"
        }
        false => {
            "what is wrong with the file is wrong for the running Larder, too: mend it, and reload again"
        }
    };
    complain(&format!("nobody was asked, and the configuration in force stays; {next}"), exit::CONFIG)
}

impl Asked {
    /// `or_else` is what could be done where nobody can be asked.
    fn by_file(source: &Source, (admin, token): Admin, or_else: &str) -> Result<Self, ExitCode> {
        let name = Some(source.name.clone());
        match admin {
            Some(admin) => Ok(Self { admin, token, address_of: name.clone(), token_of: name }),
            None => {
                let what = format!("{} has no admin listener to ask{or_else}", source.name);
                Err(complain(&what, exit::CONFIG))
            }
        }
    }

    /// Never with the token of a file which was only found: that is for its own Larder.
    fn by_address(admin: SocketAddr, source: Option<&Source>) -> Result<Self, ExitCode> {
        let Some(source) = source else { return Ok(Self::with(admin, None)) };
        let ((_, token), problems) = Config::admin_of(&source.text, &source.name, &variable);
        let asked = Self::with(admin, token.map(|token| (token, source)));
        // What keeps a token from being read is told where there is no other.
        if asked.token.is_none() && !problems.is_empty() {
            eprintln!("{problems}");
            let text = format!("nobody was asked: {} was named for its admin_token", source.name);
            return Err(complain(&text, exit::CONFIG));
        }
        Ok(asked)
    }

    /// With the token of a file, or else that of the environment.
    fn with(admin: SocketAddr, of_file: Option<(String, &Source)>) -> Self {
        let of_file = of_file.map(|(token, source)| (token, source.name.clone()));
        let of_variable = || Some((variable(TOKEN).filter(|token| !token.is_empty())?, TOKEN.to_owned()));
        let (token, token_of) = of_file.or_else(of_variable).unzip();
        Self { admin, token, address_of: None, token_of }
    }

    /// What it answers to a GET.
    pub(super) fn get(&self, path: &str) -> io::Result<(StatusCode, Bytes)> {
        asking::get(self.admin, self.token.as_deref(), path)
    }

    /// What it answers to a POST of this JSON.
    pub(super) fn post(&self, path: &str, body: Vec<u8>) -> io::Result<(StatusCode, Bytes)> {
        asking::post(self.admin, self.token.as_deref(), path, body)
    }

    /// Says that nobody is there.
    pub(super) fn no_answer(&self, why: &str) -> ExitCode {
        let admin = self.admin;
        let text = match &self.address_of {
            Some(file) => format!(
                "no Larder answers at {admin}, the admin address of {file}: {why}\n       \
                 where it has another, name that: --admin ADDR"
            ),
            None => format!("no Larder answers at {admin}: {why}"),
        };
        complain(&text, exit::UNAVAILABLE)
    }

    /// Says that what answers there does so as no Larder's admin listener would.
    pub(super) fn other(&self, status: StatusCode) -> ExitCode {
        self.no_answer(&asking::is_another(status))
    }

    /// Says that it has not taken the token, and what else could be done.
    pub(super) fn unauthorized(&self, or_else: &str) -> ExitCode {
        let admin = self.admin;
        let text = match &self.token_of {
            Some(of) => {
                let own = if of == TOKEN {
                    String::new()
                } else {
                    format!("; name its own by {TOKEN} and --admin")
                };
                format!("the Larder at {admin} has another admin_token than {of}{own}{or_else}")
            }
            None => format!(
                "the Larder at {admin} wants its admin_token: set {TOKEN}, or name its file, too (-c){or_else}"
            ),
        };
        complain(&text, exit::REFUSED)
    }
}
