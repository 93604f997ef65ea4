//! The files beside the configuration: the secrets that Redis is written with, its password, and the
//! authorities that are trusted to say who it is.
//!
//! Knows their forms (a secret on each line, `#` before a comment; a password on the first line;
//! certificates in PEM), and what makes a file unfit. Nothing of a secret is ever repeated in a message.
//! Must not know: what the secrets are used for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Cache, Config, Identity, Redis, otlp};
use crate::stored::{MOST_SECRETS, Secret};

/// Bytes of the largest file: far more than its secrets and some comments take.
const LARGEST: u64 = 16 * 1024;
/// Bytes of the largest file of certificates: more than those of a whole system.
const LARGEST_BUNDLE: u64 = 4 << 20;

/// What to do, wherever there is no usable secret.
const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";

impl Config {
    /// Reads the files that `[cache]` names, if it names any. A sentence where one cannot be used.
    pub fn read_secrets(&mut self) -> Result<(), String> {
        let Cache { redis, redis_secret_file, redis_secrets, .. } = &mut self.cache;
        if let Some(redis) = redis {
            redis.read_files()?;
        }
        if let Some(otlp) = &mut self.otlp
            && let Some(file) = &otlp.headers_file
        {
            let text =
                text_of(Path::new(file), LARGEST).map_err(|error| format!("it cannot be read: {error}"));
            let fields = text.and_then(|text| otlp::fields_of(&text));
            otlp.headers.extend(fields.map_err(|why| format!("otlp.headers_file, {file}: {why}"))?);
        }
        let Some(file) = redis_secret_file else { return Ok(()) };
        *redis_secrets =
            read(Path::new(file)).map_err(|why| format!("cache.redis_secret_file, {file}: {why}"))?;
        Ok(())
    }

    /// A sentence where others than its owner may read or change a file with secrets.
    pub fn exposed_secrets(&self) -> Option<String> {
        let redis = self.cache.redis.as_ref();
        let password = redis.and_then(|redis| redis.password_file.as_deref());
        let key = redis.and_then(|redis| redis.identity_files.as_ref()).map(|(_, key)| key.as_str());
        let headers = self.otlp.as_ref().and_then(|otlp| otlp.headers_file.as_deref());
        [self.cache.redis_secret_file.as_deref(), password, key, headers].into_iter().flatten().find_map(
            |file| {
                let mode = mode(Path::new(file))?;
                (mode & 0o077 != 0).then(|| {
                    format!("others than its owner may open {file} (mode {mode:03o}): chmod 600 {file}")
                })
            },
        )
    }
}

impl Redis {
    fn read_files(&mut self) -> Result<(), String> {
        if let Some(file) = &self.password_file {
            let password = password(Path::new(file));
            self.login.password =
                Some(password.map_err(|why| format!("cache.redis.password_file, {file}: {why}"))?);
        }
        if let Some(file) = &self.ca_file {
            let authorities = authorities(Path::new(file));
            self.authorities = authorities.map_err(|why| format!("cache.redis.ca_file, {file}: {why}"))?;
        }
        if let Some((certificate, key)) = &self.identity_files {
            let chain = authorities(Path::new(certificate))
                .map_err(|why| format!("cache.redis.cert_file, {certificate}: {why}"))?;
            let key =
                private_key(Path::new(key)).map_err(|why| format!("cache.redis.key_file, {key}: {why}"))?;
            self.identity = Some(Identity { chain, key });
        }
        Ok(())
    }
}

/// The first line.
fn password(file: &Path) -> Result<String, String> {
    let text = text_of(file, LARGEST).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut lines = text.lines();
    let password = lines.next().unwrap_or_default();
    if password.is_empty() || password.contains(char::is_control) {
        return Err("its first line is not a password".to_owned());
    }
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("it holds more than the password, on one line".to_owned());
    }
    Ok(password.to_owned())
}

fn authorities(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = text_of(file, LARGEST_BUNDLE).map_err(|error| format!("it cannot be read: {error}"))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(list) if list.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(list) => Ok(list.iter().map(|der| der.to_vec()).collect()),
        Err(error) => Err(format!("it is not certificates in PEM: {error}")),
    }
}

fn private_key(file: &Path) -> Result<String, String> {
    let text = text_of(file, LARGEST).map_err(|error| format!("it cannot be read: {error}"))?;
    // Why not is not told: it could repeat what is secret.
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(_) => Err("it holds no private key in PEM".to_owned()),
    }
}

/// A text file of so many bytes at most.
fn text_of(file: &Path, largest: u64) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(largest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > largest {
        return Err(std::io::Error::other(format!("it has more than {largest} bytes")));
    }
    Ok(text)
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
    let text = text_of(file, LARGEST);
    let text =
        text.map_err(|error| format!("it cannot be read: {error}; {MAKE_ONE} > FILE, and chmod 600 FILE"))?;
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

    fn with_table(rest: &str) -> Config {
        parse_config(&with_rest(&format!("[cache.redis]\nurl = \"rediss://db\"\n{rest}\n"))).unwrap()
    }

    #[test]
    fn a_password_is_the_one_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let mut config = with_table(&format!("password_file = {:?}", file.to_str().unwrap()));
            config.read_secrets().map(|()| config)
        };
        let config = read("hunter 2\n\n").unwrap();
        assert_eq!(config.cache.redis.as_ref().unwrap().login.password.as_deref(), Some("hunter 2"));
        assert!(!format!("{config:?}").contains("hunter"), "it is never shown");
        assert!(config.exposed_secrets().unwrap().contains("chmod 600"));
        for (text, why) in [
            ("", "its first line is not a password"),
            ("\nhunter2", "its first line is not a password"),
            ("hunter2\nhunter3", "it holds more than the password"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.starts_with("cache.redis.password_file, /") && told.contains(why), "{told}");
            assert!(!told.contains("hunter"), "{told}");
        }
        std::fs::remove_file(&file).unwrap();
        let mut gone = with_table(&format!("password_file = {:?}", file.to_str().unwrap()));
        assert!(gone.read_secrets().unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn authorities_are_certificates_in_pem() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let mut config = with_table(&format!("ca_file = {:?}", file.to_str().unwrap()));
            config.read_secrets().map(|()| config.cache.redis.unwrap().authorities)
        };
        let pem = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        assert_eq!(read(&pem.repeat(2)).unwrap(), [[0, 1, 2], [0, 1, 2]]);
        assert!(read("").unwrap_err().contains("it holds no certificate"));
        let cut = read(&pem.replace("-----END", "----END")).unwrap_err();
        assert!(cut.contains("not certificates in PEM"), "{cut}");
    }

    #[test]
    fn a_certificate_of_our_own_comes_with_its_key_which_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c.pem", "k.pem"].map(|name| folder.path().join(name));
        let set = format!("cert_file = {certificate:?}\nkey_file = {key:?}");
        std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n")
            .unwrap();
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
        let mut config = with_table(&set);
        config.read_secrets().unwrap();
        let shown = format!("{config:?}");
        assert!(shown.contains("Identity(1 certificates, …)") && !shown.contains("c2Vj"), "{shown}");
        assert!(config.exposed_secrets().unwrap().contains("k.pem"));
        std::fs::write(&key, "c2VjcmV0").unwrap();
        let told = with_table(&set).read_secrets().unwrap_err();
        assert!(told.contains("it holds no private key") && !told.contains("c2Vj"), "{told}");
    }
}
