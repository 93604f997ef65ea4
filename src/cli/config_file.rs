//! Finding the configuration file and reading it.
//!
//! Knows the places that are searched, and text.
//! Must not know: what the settings mean.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The places searched where nothing is said, in order.
pub const PLACES: [&str; 2] = ["./proxy.toml", "/etc/larder/proxy.toml"];
/// The variable that names the file.
pub const VARIABLE: &str = "LARDER_CONFIG";
/// Bytes of a configuration file.
const LARGEST: u64 = 1024 * 1024;

/// A configuration as text, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What messages call it: the file's path, or the argument that it was made from.
    pub name: String,
    /// TOML, not looked at yet.
    pub text: String,
    /// The file, where it is from one.
    pub file: Option<PathBuf>,
}

impl Source {
    /// The same file as it is now; `None` where it is from none.
    ///
    /// # Errors
    /// [`Missing::Unreadable`].
    pub fn again(&self) -> Option<Result<Self, Missing>> {
        self.file.as_deref().map(|file| read(file, false))
    }
}

/// Why there is no configuration to look at; its text is for the user.
#[derive(Debug)]
pub enum Missing {
    /// Nothing was named, and none of these exists.
    Nowhere {
        /// Where a file was looked for.
        places: Vec<PathBuf>,
        /// What to try in place of one.
        advice: &'static str,
    },
    /// A file that was named, or found, cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Whether the environment named it.
        from_variable: bool,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere { places, advice } => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                writeln!(f, "no proxy.toml found; looked at {}", places.join(" and "))?;
                write!(f, "       {advice}")
            }
            Self::Unreadable { file, from_variable, error } => {
                write!(f, "cannot read {}", file.display())?;
                if *from_variable {
                    write!(f, " (from {VARIABLE})")?;
                }
                write!(f, ": {error}")?;
                next(file, error).map_or(Ok(()), |next| write!(f, "\n       {next}"))
            }
        }
    }
}

impl std::error::Error for Missing {}

/// Reads the file that `given` (`-c`) names, else `variable` (the value of [`VARIABLE`]), else the
/// first of `places` that exists. What is named must be readable: there is no falling through. `advice`: what to try
/// where there is none.
///
/// # Errors
/// [`Missing`] says what was looked at, or what cannot be read and why.
pub fn find(
    given: Option<&Path>,
    variable: Option<&OsStr>,
    places: &[&Path],
    advice: &'static str,
) -> Result<Source, Missing> {
    let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
    match (given, variable) {
        (Some(file), _) => read(file, false),
        (None, Some(file)) => read(file, true),
        (None, None) => search(places, advice),
    }
}

/// A file that is there but cannot be read is an error: going on to the next would surprise.
fn search(places: &[&Path], advice: &'static str) -> Result<Source, Missing> {
    for place in places {
        match read(place, false) {
            Err(Missing::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(Missing::Nowhere { places: places.iter().map(PathBuf::from).collect(), advice })
}

fn read(file: &Path, from_variable: bool) -> Result<Source, Missing> {
    let unreadable = |error| Missing::Unreadable { file: file.to_owned(), from_variable, error };
    let text = read_text(file).map_err(unreadable)?;
    // `./proxy.toml` is shown as `proxy.toml`.
    let name = file.strip_prefix(".").unwrap_or(file).display().to_string();
    Ok(Source { name, text, file: Some(file.to_owned()) })
}

fn read_text(file: &Path) -> io::Result<String> {
    let (mut bytes, other) = (Vec::new(), |why: String| io::Error::new(io::ErrorKind::InvalidData, why));
    File::open(file)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(other("larger than 1 MiB: surely not a configuration".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        other(format!("line {line} is not UTF-8: save the file as UTF-8"))
    })
}

/// What to do where a file cannot be read.
fn next(file: &Path, error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::IsADirectory => {
            Some(format!("name the file in it: {}", file.join("proxy.toml").display()))
        }
        io::ErrorKind::PermissionDenied => Some(
            "the user that runs this may not: let it, or run this as one who may (ls -l shows who)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_argument_comes_before_the_variable_and_both_before_the_places() {
        let folder = tempfile::tempdir().unwrap();
        let [given, variable, place, last] =
            ["given", "variable", "place", "last"].map(|name| file(&folder, name, name));
        let places = [folder.path().join("absent"), place, last];
        let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
        let found = |given: Option<&Path>, variable: Option<&Path>| {
            find(given, variable.map(Path::as_os_str), &places, "try this").unwrap().text
        };
        assert_eq!(found(Some(&given), Some(&variable)), "given");
        assert_eq!(found(None, Some(&variable)), "variable");
        assert_eq!(found(None, None), "place");
        assert_eq!(found(None, Some(Path::new(""))), "place", "an empty variable is as good as none");
    }

    #[test]
    fn where_there_is_none_the_message_says_what_was_looked_at_and_what_to_try() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("a.toml"), folder.path().join("b.toml")];
        let text = find(None, None, &[&places[0], &places[1]], "try this").unwrap_err().to_string();
        for expected in ["no proxy.toml found", "a.toml and ", "b.toml\n       try this"] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }

    #[test]
    fn a_named_file_that_cannot_be_read_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let place = file(&folder, "place", "");
        let absent = folder.path().join("absent.toml");
        let text = find(Some(&absent), None, &[&place], "try this").unwrap_err().to_string();
        assert!(text.contains("cannot read") && text.contains("absent.toml: "), "{text}");
        let text = find(None, Some(absent.as_os_str()), &[&place], "try this").unwrap_err().to_string();
        assert!(text.contains("(from LARDER_CONFIG)"), "{text}");
    }

    #[test]
    fn a_place_that_is_there_but_unreadable_ends_the_search() {
        let folder = tempfile::tempdir().unwrap();
        let place = file(&folder, "place", "");
        let text = find(None, None, &[folder.path(), &place], "try this").unwrap_err().to_string();
        assert!(text.contains("cannot read"), "a directory: {text}");
        assert!(text.ends_with("/proxy.toml") && text.contains("name the file in it"), "{text}");
        let latin = folder.path().join("latin");
        std::fs::write(&latin, b"a = 1\n# \xfc\n").unwrap();
        let text = find(None, None, &[&latin, &place], "try this").unwrap_err().to_string();
        assert!(text.ends_with("latin: line 2 is not UTF-8: save the file as UTF-8"), "{text}");
        let large = file(&folder, "large", &" ".repeat(1024 * 1024 + 1));
        assert!(find(None, None, &[&large, &place], "try this").unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn a_file_is_read_again_as_it_is_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "proxy.toml", "one");
        let source = find(Some(&path), None, &[], "try this").unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(source.again().unwrap().unwrap().text, "two");
        std::fs::remove_file(&path).unwrap();
        assert!(source.again().unwrap().unwrap_err().to_string().contains("cannot read"));
        assert!(Source { file: None, ..source }.again().is_none());
    }

    #[test]
    fn a_place_below_the_working_directory_is_shown_without_its_dot() {
        let source = read(Path::new("./Cargo.toml"), false).unwrap();
        assert_eq!(source.name, "Cargo.toml");
    }
}
