//! How much memory the system lets this process have.
//!
//! Knows where Linux says so: `memory.max` of control groups version 2, `memory.limit_in_bytes` of version 1, each of
//! the process's group and of all above it.
//! Must not know: what the memory is for.

use std::path::Path;

/// Version 1 says "no limit" by a number near 2^63, rounded down to pages.
const NO_LIMIT: u64 = 1 << 60;

/// The least of its limits, bytes; `None` where there is none, or nobody says. `root` is `/`.
pub fn memory_limit(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        // `0::/path`, or `4:cpu,memory:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            least(&root.join("sys/fs/cgroup"), group, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            least(&root.join("sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// The least of a group's limit and of those above it. In a container the group may have a name that only the host
/// knows: then what is mounted there is what holds.
fn least(mounted: &Path, group: &str, file: &str) -> Option<u64> {
    let group = Path::new(group.trim_start_matches('/'));
    let limits = group.ancestors().filter_map(|group| {
        let text = std::fs::read_to_string(mounted.join(group).join(file)).ok()?;
        // Version 2 says "max" where there is none.
        text.trim().parse::<u64>().ok().filter(|limit| *limit < NO_LIMIT)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below `/sys/fs/cgroup`: names and texts.
    type Files = &'static [(&'static str, &'static str)];

    #[test]
    fn the_least_limit_of_a_group_and_those_above_it_holds() {
        let v1 = "12:cpu,cpuacct:/a\n4:memory:/docker/abc\n";
        let rows: [(&str, &str, Files, Option<u64>); 8] = [
            ("no limit", "0::/\n", &[], None),
            ("version 2", "0::/\n", &[("memory.max", "1000\n")], Some(1000)),
            ("version 2, none", "0::/\n", &[("memory.max", "max\n")], None),
            (
                "a group above",
                "0::/a.slice/b.service\n",
                &[("a.slice/b.service/memory.max", "max\n"), ("a.slice/memory.max", "2000\n")],
                Some(2000),
            ),
            (
                "the least of both",
                "0::/a.slice/b.service\n",
                &[("a.slice/b.service/memory.max", "1000\n"), ("a.slice/memory.max", "2000\n")],
                Some(1000),
            ),
            ("version 1", v1, &[("memory/docker/abc/memory.limit_in_bytes", "3000\n")], Some(3000)),
            ("a name of the host's", v1, &[("memory/memory.limit_in_bytes", "4000\n")], Some(4000)),
            (
                "version 1, none",
                v1,
                &[("memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")],
                None,
            ),
        ];
        for (what, groups, files, limit) in rows {
            let root = tempfile::tempdir().unwrap();
            let write = |path: &Path, text: &str| {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            write(&root.path().join("proc/self/cgroup"), groups);
            for (file, text) in files {
                write(&root.path().join("sys/fs/cgroup").join(file), text);
            }
            assert_eq!(memory_limit(root.path()), limit, "{what}");
        }
        assert_eq!(memory_limit(Path::new("/nonexistent")), None);
    }
}
