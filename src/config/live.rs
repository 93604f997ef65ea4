//! Which settings may change while Larder runs, and which take a restart.
//!
//! Knows every field of [`Config`]: each is taken apart by name, so that a new setting does not compile
//! until somebody has decided here; and where a file has those that may not.
//! Must not know: how a change is made.

use toml::de::{DeTable, DeValue};

use super::problems::Found;
use super::reader::Span;
use super::{Cache, Config, Limits, Log, Otlp, Problems, Redis, defaults};

/// Notes the names of settings whose values differ.
macro_rules! differing {
    ($names:ident: $($name:literal $old:ident $new:ident;)*) => {
        $(if $old != $new { $names.push($name); })*
    };
}

/// Where a setting stands: its key and its value, or the header of a table.
fn span_of(table: &DeTable<'_>, name: &str) -> Option<Span> {
    let (key, rest) = name.split_once('.').map_or((name, None), |(key, rest)| (key, Some(rest)));
    let (key, value) = table.iter().find(|(known, _)| known.get_ref() == key)?;
    match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => span_of(inner, rest),
        (Some(_), _) => None,
        (None, _) => Some(key.span().start.min(value.span().start)..value.span().end.max(key.span().end)),
    }
}

impl Config {
    /// Where a file has settings that take a restart ([`needs_restart`](Self::needs_restart) names them), with line and
    /// caret; and the names of those that it does not have.
    pub fn restarting<'n>(text: &str, file: &str, names: &[&'n str]) -> (Problems, Vec<&'n str>) {
        let read = DeTable::parse(text);
        let (mut found, mut absent) = (Vec::new(), Vec::new());
        for name in names {
            match read.as_ref().ok().and_then(|read| span_of(read.get_ref(), name)) {
                Some(span) => found.push(Found::new(span, format!("a change of `{name}` takes a restart"))),
                None => absent.push(*name),
            }
        }
        (Problems::new(text, file, found), absent)
    }

    /// What `new` has otherwise that cannot be changed without a restart, by the names of the file: what
    /// was made once at the start, such as sockets, threads, and the tiers.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let mut names = Vec::new();
        // Live: read from the configuration in force by each request, or by each connection when it is
        // accepted. Upstreams that stay the same keep their connections.
        let Self {
            listen,
            admin,
            workers,
            log,
            cache,
            limits,
            otlp,
            admin_token: _,
            trusted_proxies: _,
            purge_from: _,
            timing: _,
            upstreams: _,
            routes: _,
            route_index: _,
            warnings: _,
        } = self;
        let (new_listen, new_admin, new_workers) = (&new.listen, &new.admin, &new.workers);
        // What is sent, and where, is told to a thread at the start.
        let [otlp, new_otlp] = [otlp, &new.otlp].map(|otlp| otlp.as_ref().map(Otlp::but_for_sample));
        differing!(names:
            "listen" listen new_listen;
            "admin" admin new_admin;
            "workers" workers new_workers;
            "otlp" otlp new_otlp;
        );
        log.needs_restart(&new.log, &mut names);
        cache.needs_restart(&new.cache, &mut names);
        limits.needs_restart(&new.limits, &mut names);
        names
    }
}

impl Log {
    /// Its threads and writers are made before anything is served.
    fn needs_restart(&self, new: &Self, names: &mut Vec<&'static str>) {
        let Self { level, format, access, access_queue, trace: _, redact: _ } = self;
        let Self {
            level: new_level,
            format: new_format,
            access: new_access,
            access_queue: new_access_queue,
            ..
        } = new;
        differing!(names:
            "log.level" level new_level;
            "log.format" format new_format;
            "log.access" access new_access;
            "log.access_queue" access_queue new_access_queue;
        );
    }
}

impl Cache {
    /// The tiers themselves: their sizes, and where Redis is and how it is spoken to.
    fn needs_restart(&self, new: &Self, names: &mut Vec<&'static str>) {
        let Self {
            memory,
            redis,
            namespace,
            redis_compress,
            redis_deadline,
            redis_lease,
            redis_max_object,
            redis_queue,
            redis_secret_file,
            redis_secrets,
            coherence_bound,
            coherence_when_lost,
            purge_record,
            warm_start,
            in_flight,
            variants,
            max_object: _,
            range_fill: _,
            lag: _,
            lag_timeout: _,
            hit_for_miss: _,
            status_key: _,
            verify: _,
            quarantine: _,
        } = self;
        let (new_memory, new_variants) = (&new.memory, &new.variants);
        // What is as it is by default follows another setting: a change of that is all that the user has made.
        let in_flight = (in_flight, defaults::in_flight(*memory));
        let new_in_flight = (&new.in_flight, defaults::in_flight(new.memory));
        let (in_flight, new_in_flight) = unless_followed(in_flight, new_in_flight);
        let (new_namespace, new_compress) = (&new.namespace, &new.redis_compress);
        // Passwords are said anew with each connection.
        let [redis, new_redis] =
            [redis, &new.redis].map(|redis| redis.as_ref().map(Redis::but_for_passwords));
        let new_deadline = &new.redis_deadline;
        let new_queue = &new.redis_queue;
        let most = (redis_max_object, defaults::redis_max_object(*redis_queue));
        let new_most = (&new.redis_max_object, defaults::redis_max_object(new.redis_queue));
        let (most, new_most) = unless_followed(most, new_most);
        let (coherence, new_coherence) =
            ((coherence_bound, coherence_when_lost), (&new.coherence_bound, &new.coherence_when_lost));
        let (new_record, new_lease, new_warm_start) = (&new.purge_record, &new.redis_lease, &new.warm_start);
        let (new_file, new_secrets) = (&new.redis_secret_file, &new.redis_secrets);
        // What stands in the file counts as much as where it is.
        let (sealed, new_sealed) = ((redis_secret_file, redis_secrets), (new_file, new_secrets));
        differing!(names:
            "cache.memory" memory new_memory;
            "cache.redis" redis new_redis;
            "cache.namespace" namespace new_namespace;
            "cache.redis_compress" redis_compress new_compress;
            "cache.redis_deadline" redis_deadline new_deadline;
            "cache.redis_lease" redis_lease new_lease;
            "cache.redis_max_object" most new_most;
            "cache.redis_queue" redis_queue new_queue;
            "cache.redis_secret_file" sealed new_sealed;
            "cache.coherence" coherence new_coherence;
            "cache.purge_record" purge_record new_record;
            "cache.warm_start" warm_start new_warm_start;
            "cache.in_flight" in_flight new_in_flight;
            "cache.variants" variants new_variants;
        );
    }
}

/// The former and the new value of a setting, each beside what it would be by default; nothing where it is that in both.
fn unless_followed<'v>(
    (old, by_default): (&'v u64, u64),
    (new, new_default): (&'v u64, u64),
) -> (Option<&'v u64>, Option<&'v u64>) {
    let followed = *old == by_default && *new == new_default;
    if followed { (None, None) } else { (Some(old), Some(new)) }
}

impl Limits {
    /// How many connections there may be: the places are counted out at the start.
    fn needs_restart(&self, new: &Self, names: &mut Vec<&'static str>) {
        let Self {
            connections,
            per_address: _,
            first_byte_time: _,
            header_time: _,
            idle_time: _,
            requests: _,
            head_size: _,
            fields: _,
            target: _,
            body: _,
            body_rate_in_demand: _,
            response: _,
            streams: _,
            tunnels_per_address: _,
            tunnel_idle: _,
            lame_duck: _,
            drain: _,
            admin_time: _,
        } = self;
        let new_connections = &new.connections;
        differing!(names: "limits.connections" connections new_connections;);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, with_rest};
    use super::*;

    #[test]
    fn a_password_of_redis_may_change_and_nothing_else_of_it() {
        let of = |rest: &str| parse(&with_rest(&format!("[cache.redis]\n{rest}\n"))).unwrap();
        let sentinels = "sentinels = [\"a\"]\nmaster = \"m\"\n";
        for (one, other, names) in [
            ("url = \"redis://:p@a\"", "url = \"redis://:q@a\"", &[][..]),
            ("url = \"redis://u:p@a\"", "url = \"redis://u@a\"\npassword_file = \"/p\"", &[]),
            ("url = \"redis://a\"", "url = \"redis://:p@a\"", &[]),
            ("url = \"redis://u:p@a\"", "url = \"redis://v:p@a\"", &["cache.redis"]),
            ("url = \"redis://:p@a\"", "url = \"redis://:p@b\"", &["cache.redis"]),
            ("url = \"redis://:p@a\"", "url = \"redis://:p@a/1\"", &["cache.redis"]),
            ("url = \"redis://:p@a\"", "url = \"rediss://:p@a\"", &["cache.redis"]),
        ] {
            assert_eq!(of(one).needs_restart(&of(other)), names, "{one} {other}");
        }
        let of = |password: &str| of(&format!("{sentinels}sentinel_password = \"{password}\""));
        assert_eq!(of("p").needs_restart(&of("q")), Vec::<&str>::new());
    }

    #[test]
    fn what_only_follows_another_setting_is_no_change_of_its_own() {
        let of = |rest: &str| parse(&with_rest(&format!("[cache]\n{rest}\n"))).unwrap();
        for (one, other, names) in [
            ("memory = \"512MiB\"", "", &["cache.memory"][..]),
            ("memory = \"9MiB\"", "memory = \"1GiB\"", &["cache.memory"]),
            ("in_flight = \"32MiB\"", "", &["cache.in_flight"]),
            ("memory = \"512MiB\"\nin_flight = \"32MiB\"", "", &["cache.memory", "cache.in_flight"]),
            ("memory = \"512MiB\"\nin_flight = \"64MiB\"", "", &["cache.memory"]),
            ("redis_queue = \"64KiB\"", "", &["cache.redis_queue"]),
            ("redis_max_object = \"64KiB\"", "", &["cache.redis_max_object"]),
        ] {
            assert_eq!(of(one).needs_restart(&of(other)), names, "{one} {other}");
            assert_eq!(of(other).needs_restart(&of(one)), names, "{other} {one}");
        }
    }

    #[test]
    fn what_takes_a_restart_is_shown_where_the_file_has_it() {
        let text = "workers = 3\ncache.memory = \"9MiB\"\n[limits]\n connections = 7\n[otlp]\nendpoint = \"http://a\"\n\
                    [log]\nredact = []\n";
        let names = ["workers", "cache.memory", "cache.in_flight", "limits.connections", "otlp", "log.level"];
        let (problems, absent) = Config::restarting(text, "proxy.toml", &names);
        assert_eq!(absent, ["cache.in_flight", "log.level"]);
        let lines: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(lines, [(1, 1), (2, 7), (4, 2), (5, 1)]);
        let shown = problems.to_string();
        for part in [
            "error: a change of `workers` takes a restart\n --> proxy.toml:1:1\n",
            "1 | workers = 3\n  | ^^^^^^^^^^^\n",
            "2 | cache.memory = \"9MiB\"\n  |       ^^^^^^^^^^^^^^^\n",
            "5 | [otlp]\n  | ^^^^^^\n",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert_eq!(Config::restarting("[", "f", &names[..1]).1, ["workers"]);
    }

    #[test]
    fn the_share_of_traces_may_change_and_nothing_else_of_the_collector() {
        let of = |rest: &str| {
            parse(&with_rest(&format!("[log]\ntrace = \"make\"\n[otlp]\nendpoint = \"http://a\"\n{rest}\n")))
                .unwrap()
        };
        let (all, half) = (of(""), of("sample = \"1/2\""));
        assert_eq!(all.needs_restart(&half), Vec::<&str>::new());
        assert_ne!(all.log.trace, half.log.trace);
        for other in ["queue = 7", "timeout = \"1s\"", "service_name = \"x\"", "headers = { a = \"b\" }"] {
            assert_eq!(all.needs_restart(&of(other)), ["otlp"], "{other}");
        }
    }

    #[test]
    fn what_takes_a_restart_is_named_all_at_once_and_the_rest_is_not() {
        let rows: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("listen = \"127.0.0.1:1\"\n", &["listen"]),
            ("[otlp]\nendpoint = \"http://a\"\n", &["otlp"]),
            ("admin = \"off\"\nworkers = 77\n", &["admin", "workers"]),
            ("admin_token = \"t\"\ntrusted_proxies = [\"10.0.0.0/8\"]\npurge_from = [\"10.0.0.0/8\"]\n", &[]),
            (
                "[log]\nlevel = \"warn\"\nformat = \"json\"\naccess = \"json\"\naccess_queue = 7\ntrace = \"make\"\nredact = []\n",
                &["log.level", "log.format", "log.access", "log.access_queue"],
            ),
            (
                "[cache]\nmemory = \"99MiB\"\nredis = \"redis://h\"\nnamespace = \"n\"\nredis_compress = false\nredis_deadline = \"1s\"\nredis_lease = \"1s\"\n\
                 redis_max_object = \"1KiB\"\nredis_queue = \"1MiB\"\nredis_secret_file = \"/s\"\n\
                 coherence = { bound = \"2s\" }\npurge_record = 9999\nwarm_start = false\n\
                 in_flight = \"99MiB\"\nvariants = 3\n",
                &[
                    "cache.memory",
                    "cache.redis",
                    "cache.namespace",
                    "cache.redis_compress",
                    "cache.redis_deadline",
                    "cache.redis_lease",
                    "cache.redis_max_object",
                    "cache.redis_queue",
                    "cache.redis_secret_file",
                    "cache.coherence",
                    "cache.purge_record",
                    "cache.warm_start",
                    "cache.in_flight",
                    "cache.variants",
                ],
            ),
            (
                "[cache]\nmax_object = \"1MiB\"\nlag = \"2MiB\"\nhit_for_miss = \"1s\"\nstatus_key = false\n",
                &[],
            ),
            (
                "[limits]\nconnections = 7\nheader_time = \"1s\"\nhead_size = \"9KiB\"\nfields = 7\n\
                 target = \"8000B\"\nbody_rate = \"7B\"\nbody_rate_in_demand = \"7B\"\nbody_grace = \"7s\"\n\
                 response_rate = \"7B\"\nresponse_grace = \"7s\"\nfirst_byte_time = \"7s\"\n\
                 idle_time = \"7s\"\nrequests = 7\nper_address = 3\n\
                 streams = 7\ntunnels_per_address = 7\ntunnel_idle = \"1s\"\nlame_duck = \"1s\"\ndrain = \"1s\"\nadmin_time = \"1s\"\n[timing]\nslow_request = \"off\"\n",
                &["limits.connections"],
            ),
        ];
        let before = parse(&with_rest("")).unwrap();
        for (top, names) in rows {
            let after = parse(&with_rest(top)).unwrap();
            assert_eq!(before.needs_restart(&after), names, "{top}");
            assert_eq!(after.needs_restart(&before), names, "the other way round: {top}");
        }
        let other = with_rest("").replace(":3000", ":3001").replace("\"all\"", "\"another\"");
        assert!(before.needs_restart(&parse(&other).unwrap()).is_empty());
    }
}
