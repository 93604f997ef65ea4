//! What to type in a shell for the very program that runs.
//!
//! Knows where shells look for programs, and what they would take for more than a name.
//! Must not know: the environment, which `cli` reads and hands on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The program's name, as it is installed.
const NAME: &str = "larder";

/// Its name where a shell with this `PATH` finds the same file by it, else the whole path: it may have been built a
/// moment ago and be installed nowhere, and another may be.
pub fn called(program: &Path, path: Option<&OsStr>) -> String {
    let folders = path.into_iter().flat_map(std::env::split_paths);
    match folders.map(|folder| folder.join(NAME)).find(|file| is_program(file)) {
        Some(found) if is_same(&found, program) => NAME.to_owned(),
        // Where it is no file any more, nothing better is known than the name.
        _ if !program.is_file() => NAME.to_owned(),
        _ => quoted(&program.to_string_lossy()),
    }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whatever links lead to it.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |file| fs::metadata(file).map(|found| (found.dev(), found.ino())).ok();
    place(one).is_some_and(|found| Some(found) == place(other))
}

fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%:,".contains(c);
    match path.chars().all(is_plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_called_by_its_name_only_where_that_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let place = folder.path().join(name);
            fs::create_dir(&place).unwrap();
            let file = place.join(NAME);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            (place, file)
        };
        let (built, program) = make("built", 0o755);
        let (other, _) = make("other", 0o755);
        let (data, _) = make("data", 0o644);
        let linked = folder.path().join("linked");
        fs::create_dir(&linked).unwrap();
        symlink(&program, linked.join(NAME)).unwrap();
        let whole = program.to_string_lossy().into_owned();
        for (path, expected) in [
            (vec![&built], NAME),
            (vec![&linked, &other], NAME),
            (vec![&data, &built], NAME),
            (vec![&other, &built], &whole),
            (vec![&data], &whole),
        ] {
            let joined = std::env::join_paths(&path).unwrap();
            assert_eq!(called(&program, Some(&joined)), expected, "{path:?}");
        }
        assert_eq!(called(&program, None), whole);
    }

    #[test]
    fn a_shell_takes_what_is_odd_for_a_name_and_nothing_more() {
        assert_eq!(quoted("/a-b/c_d.e/larder"), "/a-b/c_d.e/larder");
        assert_eq!(quoted("/my files/larder"), "'/my files/larder'");
        assert_eq!(quoted("/it's/$HOME"), r"'/it'\''s/$HOME'");
    }
}
