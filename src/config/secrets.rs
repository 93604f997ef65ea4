//! The file with the secrets that Redis is written with.
//!
//! Knows its form (a secret on each line, `#` before a comment), and what makes a file unfit. Nothing of
//! what it holds is ever repeated in a message.
//! Must not know: what the secrets are used for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Cache, Config};
use crate::stored::{MOST_SECRETS, Secret};

/// Bytes of the largest file: far more than its secrets and some comments take.
const LARGEST: u64 = 16 * 1024;

/// What to do, wherever there is no usable secret.
const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";

impl Config {
    /// Reads the file that `cache.redis_secret_file` names, if it names one. A sentence where that
    /// cannot be used.
    pub fn read_secrets(&mut self) -> Result<(), String> {
        let Cache { redis_secret_file, redis_secrets, .. } = &mut self.cache;
        let Some(file) = redis_secret_file else { return Ok(()) };
        *redis_secrets =
            read(Path::new(file)).map_err(|why| format!("cache.redis_secret_file, {file}: {why}"))?;
        Ok(())
    }

    /// A sentence where others than its owner may read or change the file with the secrets.
    pub fn exposed_secrets(&self) -> Option<String> {
        let file = self.cache.redis_secret_file.as_deref()?;
        let mode = mode(Path::new(file))?;
        (mode & 0o077 != 0)
            .then(|| format!("others than its owner may open {file} (mode {mode:03o}): chmod 600 {file}"))
    }
}

#[cfg(unix)]
fn mode(file: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(std::fs::metadata(file).ok()?.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

fn read(file: &Path) -> Result<Vec<Secret>, String> {
    let mut text = String::new();
    let opened = File::open(file).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
    opened.map_err(|error| format!("it cannot be read: {error}; {MAKE_ONE} > FILE, and chmod 600 FILE"))?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes; {MAKE_ONE}"));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Secret>, String> {
    let mut secrets: Vec<Secret> = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = Secret::from_hex(line)
            .ok_or_else(|| format!("line {number} is not a secret, 64 hex digits; {MAKE_ONE}"))?;
        if line.bytes().all(|digit| line.starts_with(char::from(digit))) {
            return Err(format!("line {number} is a secret that anybody guesses; {MAKE_ONE}"));
        }
        if secrets.contains(&secret) {
            return Err(format!("line {number} is a secret that stands above already; leave it out"));
        }
        secrets.push(secret);
    }
    match secrets.len() {
        0 => Err(format!("it holds no secret; {MAKE_ONE}")),
        1..=MOST_SECRETS => Ok(secrets),
        _ => Err(format!("it holds more than {MOST_SECRETS} secrets; the oldest can go")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse as parse_config, with_rest};
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";
    const TWO: &str = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_file_holds_a_secret_on_each_line() {
        let secrets = |text: &str| parse(text).unwrap();
        let (one, two) = (Secret::from_hex(ONE).unwrap(), Secret::from_hex(TWO).unwrap());
        assert_eq!(secrets(ONE), std::slice::from_ref(&one));
        assert_eq!(secrets(&format!("# since May\r\n {TWO} \r\n\n# before\n{ONE}\n")), [two, one]);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do_and_never_repeated() {
        let many: Vec<String> = (1..=5).map(|nth| format!("{nth}{}", &ONE[1..])).collect();
        for (text, why) in [
            ("", "it holds no secret"),
            ("# nothing\n\n", "it holds no secret"),
            (&ONE[1..], "line 1 is not a secret"),
            (&format!("{ONE}\n{TWO}x"), "line 2 is not a secret"),
            ("hunter2hunter2", "line 1 is not a secret"),
            (&"0".repeat(64), "line 1 is a secret that anybody guesses"),
            (&format!("{ONE}\n{ONE}"), "line 2 is a secret that stands above already"),
            (&many.join("\n"), "it holds more than 4 secrets"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(why), "{said}");
            assert!(
                said.contains("openssl rand -hex 32")
                    || said.contains("leave it out")
                    || said.contains("can go")
            );
            assert!(!text.lines().any(|line| !line.is_empty() && said.contains(line)), "{said}");
        }
    }

    fn with_file(file: &Path) -> Config {
        let set = format!("[cache]\nredis_secret_file = {:?}\n", file.to_str().unwrap());
        parse_config(&with_rest(&set)).unwrap()
    }

    #[test]
    fn the_file_is_read_when_asked_for_and_who_may_read_it_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let mut config = with_file(&file);
        let missing = config.read_secrets().unwrap_err();
        assert!(
            missing.starts_with("cache.redis_secret_file, /") && missing.contains("openssl"),
            "{missing}"
        );
        std::fs::write(&file, format!("{ONE}\n")).unwrap();
        config.read_secrets().unwrap();
        assert_eq!(config.cache.redis_secrets.len(), 1);
        assert!(!format!("{config:?}").contains(&ONE[..8]), "it is never shown");
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o644);
        assert!(config.exposed_secrets().unwrap().contains("chmod 600"));
        mode(0o600);
        assert_eq!(config.exposed_secrets(), None);
        std::fs::write(&file, vec![b'#'; 20_000]).unwrap();
        assert!(config.read_secrets().unwrap_err().contains("more than 16384 bytes"));
        std::fs::write(&file, b"\xff\xfe").unwrap();
        assert!(config.read_secrets().unwrap_err().contains("cannot be read"));
        let mut none = parse_config(&with_rest("")).unwrap();
        assert_eq!((none.read_secrets(), none.exposed_secrets()), (Ok(()), None));
    }
}
