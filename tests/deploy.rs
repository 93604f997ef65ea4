//! Holds `deploy/` to the program and to docs/deploy.md: every command, option, setting and exit code that is named there
//! exists, and systemd takes the unit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use larder::config::Config;

const BINARY: &str = "/usr/local/bin/larder";

fn read(name: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The values of a unit's setting.
fn values<'u>(unit: &'u str, name: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// A configuration with nothing but defaults.
fn defaults() -> Config {
    let text = "[upstream.a]\nservers = [\"http://127.0.0.1:1\"]\n\
                [[route]]\nname = \"a\"\nmatch = { path = \"/*\" }\nupstream = \"a\"\n";
    Config::parse(text, "defaults", &|_| None).unwrap()
}

#[test]
fn systemd_takes_the_unit() {
    let unit = read("deploy/larder.service").replace(BINARY, env!("CARGO_BIN_EXE_larder"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.service");
    std::fs::write(&file, unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output();
    match verified {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            let of_it: Vec<_> = said.lines().filter(|line| line.contains("larder.service")).collect();
            assert!(verified.status.success() && of_it.is_empty(), "{said}");
        }
        Err(why) => println!("not verified, there is no systemd-analyze here: {why}"),
    }
}

#[test]
fn the_commands_of_unit_and_container_are_larders_own() {
    let unit = read("deploy/larder.service");
    let commands = ["ExecStartPre", "ExecStart", "ExecReload"].map(|name| values(&unit, name));
    let container = read("deploy/Containerfile");
    let entry = container.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let entry: Vec<String> = serde_json::from_str(entry).unwrap();
    let own = commands.iter().map(|lines| {
        let [line] = lines[..] else { panic!("{lines:?}") };
        let words = line.split(' ').map(str::to_owned);
        let words: Vec<String> = words.collect();
        assert_eq!(words[0], BINARY);
        words[1..].to_vec()
    });
    for words in own.chain([entry]) {
        let asked = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(&words)
            .env_clear()
            .current_dir(tempfile::tempdir().unwrap().path())
            .output()
            .unwrap();
        // Good arguments, and no such file here: 2 would be a usage error.
        if !std::path::Path::new("/etc/larder/proxy.toml").exists() {
            assert_eq!(
                asked.status.code(),
                Some(78),
                "{words:?}: {}",
                String::from_utf8_lossy(&asked.stderr)
            );
        }
    }
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["78"]);
    assert!(container.contains(&format!("ENTRYPOINT [\"{BINARY}\"]")), "{container}");
}

#[test]
fn what_the_unit_allows_is_more_than_the_defaults_take() {
    let (unit, config) = (read("deploy/larder.service"), defaults());
    let number = |name: &str, unit_of: &str| -> u64 {
        let [value] = values(&unit, name)[..] else { panic!("{name}") };
        value.strip_suffix(unit_of).unwrap().parse().unwrap()
    };
    assert!(
        Duration::from_secs(number("TimeoutStopSec", "s")) > config.limits.drain + Duration::from_secs(5)
    );
    assert!(number("LimitNOFILE", "") >= 4 * config.limits.connections as u64);
    let most = config.cache.memory * 5 / 4 + config.limits.connections as u64 * 20 * 1024 + (20 << 20);
    assert!((number("MemoryMax", "G") << 30) > most, "{most}");
    let stop = number("TimeoutStopSec", "s");
    assert!(read("docs/deploy.md").contains(&format!("--stop-timeout {stop}")));
    for hardened in ["User=larder", "ProtectSystem=strict", "NoNewPrivileges=yes", "Restart=on-failure"] {
        assert!(unit.lines().any(|line| line == hardened), "{hardened}");
    }
}

#[test]
fn what_the_container_takes_in_is_there() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let container = read("deploy/Containerfile");
    let copied = container
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"));
    let mut seen = 0;
    for line in copied {
        let words: Vec<_> = line.split(' ').collect();
        for name in &words[..words.len() - 1] {
            assert!(root.join(name).exists(), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
    // Built with the version that the manifest asks for.
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    assert!(container.contains(&format!("rust:{}-", version.trim_end_matches('"'))));
}
