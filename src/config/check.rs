//! The whole file, section by section: the settings outside upstreams and routes.
//!
//! Knows each section's keys, and what two settings mean for each other.
//! Must not know: how a mistake is shown, or TOML's types.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::de::DeTable;

use super::problems::{Found, Problems};
use super::reader::{Reader, Span, Text, Zero, one_of};
use super::route_index::RouteIndex;
use super::section::{Section, with_article};
use super::{
    Access, Cache, Config, Limits, Lint, Listen, Log, LogFormat, Network, Otlp, Sample, Timing, WarmStart,
};
use super::{address, defaults, listen, network, otlp, redis, routes, upstreams};
use crate::fields::trace::{Share, Tracing};
use crate::pace::Pace;

/// Reads the whole file. What is wrong is noted in `reader`, and only where nothing was is the
/// result a configuration.
pub(super) fn config<'a>(reader: &'a Reader<'a>, file: &'a DeTable<'a>, end: usize) -> Config {
    let mut top = Section::new(reader, file, end..end, "");
    let listen = listen::read(&mut top);
    let (admin, admin_token) = admin(&mut top, &listen);
    let upstreams = upstreams::read(&mut top, &listen);
    let mut log = top.section("log").map_or_else(Log::default, log);
    let otlp = otlp::read(&mut top, log.trace);
    if let (Some(Otlp { sample, .. }), Tracing::Make(_)) = (&otlp, log.trace) {
        log.trace = Tracing::Make(Share::new(sample.some, sample.of));
    }
    let timing = top.section("timing").map_or_else(Timing::default, timing);
    // Before the routes, which are warned of what does not go with it.
    let cache = top.section("cache").map_or_else(Cache::default, cache);
    let routes = routes::read(&mut top, &upstreams, timing.slow_request);
    let config = Config {
        admin,
        admin_token,
        workers: workers(&mut top),
        trusted_proxies: networks(&mut top, "trusted_proxies"),
        purge_from: networks(&mut top, "purge_from"),
        log,
        otlp,
        cache,
        limits: top.section("limits").map_or_else(Limits::default, limits),
        route_index: RouteIndex::of(&routes),
        routes,
        timing,
        upstreams,
        listen,
        warnings: Problems::default(),
    };
    proxies_that_introduce(&top, &config);
    top.finish();
    config
}

/// The admin listener's address and token; whatever is wrong is not told.
pub(super) fn admin_alone<'a>(
    reader: &'a Reader<'a>,
    file: &'a DeTable<'a>,
) -> (Option<SocketAddr>, Option<String>) {
    admin(&mut Section::new(reader, file, 0..0, ""), &[])
}

pub(super) fn socket(reader: &Reader<'_>, text: &Text, port: u16) -> Option<SocketAddr> {
    let read = address::socket(&text.value, port);
    read.map_err(|mistake| reader.refuse(text, mistake.message, mistake.help)).ok()
}

fn admin(top: &mut Section<'_>, listen: &[Listen]) -> (Option<SocketAddr>, Option<String>) {
    let token = admin_token(top);
    let Some(text) = top.text("admin") else {
        let default = top.span_of("admin").is_none().then_some(defaults::ADMIN);
        if let Some(span) = top.span_of("listen").filter(|_| default.is_some_and(|a| taken(a, listen))) {
            let found = Found::new(span, "this is where the admin listener stands by default");
            top.reader.report(found.help("set `admin` to another address, or to \"off\""));
        }
        return (default, token);
    };
    if text.value == "off" {
        return (None, token);
    }
    let address = socket(top.reader, &text, defaults::ADMIN.port());
    if let Some(why) =
        address.and_then(|a| admin_refused(a, token.is_some() || top.span_of("admin_token").is_some()))
    {
        top.reader.refuse(&text, why, "write \"127.0.0.1:9900\", or set `admin_token`");
    } else if address.is_some_and(|a| taken(a, listen)) {
        top.reader.refuse(&text, "the public listener has this address already", "write another port");
    }
    (address, token)
}

/// Why an admin listener may not stand there: whoever reaches it can read and purge the cache.
pub fn admin_refused(address: SocketAddr, has_token: bool) -> Option<&'static str> {
    let open = !address.ip().to_canonical().is_loopback() && !has_token;
    open.then_some("an admin listener that others can reach needs a token")
}

/// Whether a public listener leaves no room at an address.
pub(super) fn taken(admin: SocketAddr, listen: &[Listen]) -> bool {
    let all = |ip: IpAddr| ip.is_unspecified() && ip.is_ipv4() == admin.is_ipv4();
    let takes =
        |l: SocketAddr| l.port() != 0 && l.port() == admin.port() && (l.ip() == admin.ip() || all(l.ip()));
    listen.iter().any(|listen| takes(listen.address))
}

/// Bytes of a token below which it can be guessed: 128 bits as hex digits are twice as many.
const LEAST_TOKEN: usize = 16;

/// Its value is never repeated in a message.
fn admin_token(top: &mut Section<'_>) -> Option<String> {
    let make_one = "take what `openssl rand -hex 32` prints, best as \"${LARDER_TOKEN}\"";
    let value = top.value("admin_token")?;
    if value.get_ref().as_str().is_none() {
        let found = Found::new(value.span(), "a token is a string");
        top.reader.report(found.help("write it in quotes, best as \"${LARDER_TOKEN}\""));
        return None;
    }
    let text = top.reader.text(value)?;
    if text.value.is_empty() || !text.value.bytes().all(|b| b.is_ascii_graphic()) {
        let found = Found::new(text.span, "a token is visible ASCII without spaces, and not empty");
        top.reader.report(found.help(make_one));
        return None;
    }
    if text.value.len() < LEAST_TOKEN {
        let found = Found::warning(
            Lint::WeakToken,
            text.span,
            format!("a token of fewer than {LEAST_TOKEN} bytes can be guessed"),
        );
        top.reader.report(found.help(make_one));
    }
    Some(text.value)
}

fn workers(top: &mut Section<'_>) -> usize {
    let Some(value) = top.value("workers") else { return defaults::workers() };
    if matches!(value.get_ref().type_str(), "float" | "boolean") {
        let kind = with_article(value.get_ref().type_str());
        let found = Found::new(value.span(), format!("expected a whole number, found {kind}"));
        top.reader.report(found.help("write \"auto\", or a number without quotes"));
        return defaults::workers();
    }
    if value.get_ref().as_str() == Some("auto") {
        return defaults::workers();
    }
    if let Some(word) = value.get_ref().as_str().filter(|word| !word.contains("${")) {
        let found = Found::new(value.span(), format!("`{word}` is not a number of threads"));
        top.reader.report(found.help("write \"auto\", or a number without quotes"));
        return defaults::workers();
    }
    top.number(value, 1..=1024).unwrap_or_else(defaults::workers)
}

fn networks(top: &mut Section<'_>, key: &'static str) -> Vec<Network> {
    let texts = top.texts(key).unwrap_or_default();
    let network = |text: &Text| {
        let read = network::read(&text.value);
        let network = read.map_err(|mistake| top.reader.refuse(text, mistake.message, mistake.help)).ok()?;
        if network.holds_strangers() {
            let what = "anyone may claim any address: this trusts the internet, or much of it";
            let found = Found::warning(Lint::WideTrust, text.span.clone(), what);
            top.reader
                .report(found.help("name your own proxies alone, such as \"10.0.0.5\" or \"10.0.0.0/8\""));
        }
        Some(network)
    };
    texts.iter().filter_map(network).collect()
}

/// A listener on all addresses that lets whoever connects name a client.
fn proxies_that_introduce(top: &Section<'_>, config: &Config) {
    let open = |listen: &Listen| listen.proxy_protocol && listen.address.ip().is_unspecified();
    let Some(span) = top.span_of("listen").filter(|_| config.listen.iter().any(open)) else { return };
    if !config.trusted_proxies.is_empty() {
        return;
    }
    let what = "anyone who reaches a `proxy_protocol` listener may claim any address";
    let found = Found::warning(Lint::OpenProxyProtocol, span, what);
    top.reader
        .report(found.help("name the balancer in `trusted_proxies`, or listen where it alone can reach"));
}

fn log(mut section: Section<'_>) -> Log {
    let default = Log::default();
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let accesses = [("text", Access::Text), ("json", Access::Json), ("off", Access::Off)];
    let traces = [("off", Tracing::Off), ("accept", Tracing::Accept), ("make", Tracing::Make(Share::ALL))];
    let log = Log {
        level: level(&mut section).unwrap_or(default.level),
        format: section.word("format", default.format, &formats),
        access: section.word("access", default.access, &accesses),
        access_queue: section.count("access_queue", default.access_queue, 1..=1_000_000),
        trace: section.word("trace", default.trace, &traces),
        redact: section
            .texts("redact")
            .map(|names| names.into_iter().map(|name| name.value.to_ascii_lowercase()).collect())
            .unwrap_or(default.redact),
    };
    section.finish();
    log
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `info`, or a list such as `info,larder::slow=off`.
fn level(section: &mut Section<'_>) -> Option<String> {
    let text = section.text("level")?;
    for part in text.value.split(',') {
        let word = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if !LEVELS.contains(&word) {
            let message = format!("`{word}` is not a level");
            section.reader.refuse(&text, message, one_of(word, LEVELS.into_iter()));
            return None;
        }
    }
    Some(text.value)
}

fn cache(mut section: Section<'_>) -> Cache {
    let (s, d) = (&mut section, Cache::default());
    let off = "to store nothing, write cache = false on each route";
    let memory = s.size("memory", d.memory, off);
    let in_flight = s.size("in_flight", defaults::in_flight(memory), off);
    // A default gives way to what was written; only two written values can contradict each other.
    let max_object = s.size("max_object", d.max_object.min(memory).min(in_flight), off);
    let redis_queue = s.size("redis_queue", d.redis_queue, "to write nothing to Redis, leave out `redis`");
    let least = "to write nothing to Redis, leave out `redis`";
    let redis_max_object = s.size("redis_max_object", defaults::redis_max_object(redis_queue), least);
    let coherence = coherence(s, (d.coherence_bound, d.coherence_when_lost));
    let cache = Cache {
        redis: redis::read(s),
        redis_lease: redis::lease(s, d.redis_lease),
        namespace: redis::namespace(s, d.namespace),
        redis_compress: redis_compress(s, d.redis_compress),
        redis_secret_file: redis::whole_path(s, "redis_secret_file", "/etc/larder/redis.secret"),
        redis_secrets: Vec::new(),
        redis_deadline: s.duration(
            "redis_deadline",
            d.redis_deadline,
            Zero::Refused("leave out `redis` instead"),
        ),
        coherence_bound: coherence.0,
        coherence_when_lost: coherence.1,
        purge_record: s.count("purge_record", d.purge_record, 1024..=1_000_000),
        warm_start: warm_start(s, d.warm_start),
        range_fill: s.size("range_fill", d.range_fill, "write range = \"part\" on the routes instead"),
        lag: s.size("lag", d.lag, "write at least \"64KiB\""),
        lag_timeout: s.duration("lag_timeout", d.lag_timeout, Zero::Fine),
        variants: s.count("variants", d.variants, 1..=4096),
        hit_for_miss: s.duration("hit_for_miss", d.hit_for_miss, Zero::Fine),
        status_key: s.flag("status_key", d.status_key),
        verify: verify(s, d.verify),
        quarantine: s.duration("quarantine", d.quarantine, Zero::Refused("write verify = \"off\" instead")),
        memory,
        redis_max_object,
        redis_queue,
        max_object,
        in_flight,
    };
    if let Some(span) = s.span_of("redis_secret_file").filter(|_| s.span_of("redis").is_none()) {
        let found =
            Found::warning(Lint::UnusedSecret, span, "there is no `redis` for it to seal: nothing is shared");
        s.reader.report(found.help("add such as redis = \"redis://127.0.0.1:6379\", or leave this out"));
    }
    s.reader.has_redis.set(cache.redis.is_some());
    not_beyond(s, ("max_object", max_object), ("memory", memory));
    not_beyond(s, ("max_object", max_object), ("in_flight", in_flight));
    not_beyond(s, ("redis_max_object", redis_max_object), ("redis_queue", redis_queue));
    section.finish();
    cache
}

/// How soon a purge reaches every node, and for how long one that cannot hear serves on.
fn coherence(
    cache: &mut Section<'_>,
    (bound, when_lost): (Duration, Option<Duration>),
) -> (Duration, Option<Duration>) {
    let Some(mut section) = cache.section("coherence") else { return (bound, when_lost) };
    let s = &mut section;
    let bound = s.duration("bound", bound, Zero::Refused("write at least \"100ms\""));
    let when_lost = match s.measure("when_lost") {
        Some(text) if text.value == "never" => None,
        Some(text) => s.reader.duration(&text, "\"10s\", or \"never\"", Zero::Fine).or(when_lost),
        None => when_lost,
    };
    if bound < Duration::from_millis(100)
        && let Some(span) = s.span_of("bound")
    {
        let found = Found::new(span, "less than a question and its answer may take");
        s.reader.report(found.help("write at least \"100ms\""));
    }
    section.finish();
    (bound, when_lost)
}

/// The shortest between two times that the hottest keys are named.
const LEAST_EVERY: Duration = Duration::from_millis(100);

/// A table, or `false`.
fn warm_start(cache: &mut Section<'_>, default: Option<WarmStart>) -> Option<WarmStart> {
    let usual = default?;
    let Some(value) = cache.value("warm_start") else { return default };
    match value.get_ref().as_bool() {
        Some(true) => return default,
        Some(false) => return None,
        None if value.get_ref().as_table().is_none() => {
            let kind = with_article(value.get_ref().type_str());
            let found = Found::new(value.span(), format!("expected a table or false, found {kind}"));
            cache.reader.report(found.help("write such as { keys = 20000, time = \"3s\" }, or false"));
            return default;
        }
        None => {}
    }
    let Some(mut section) = cache.section_of("warm_start", value) else { return default };
    let s = &mut section;
    let warm_start = WarmStart {
        // More than this is not read in the time that anybody waits for a node.
        keys: s.count("keys", usual.keys, 0..=100_000),
        time: s.duration("time", usual.time, Zero::Fine),
        every: s.duration("every", usual.every, Zero::Refused("write warm_start = false to name nothing")),
    };
    if warm_start.every < LEAST_EVERY
        && let Some(span) = s.span_of("every")
    {
        let found = Found::new(span, "they would be counted more often than anything is asked for");
        s.reader.report(found.help("write at least \"100ms\""));
    }
    section.finish();
    (warm_start.keys > 0 && !warm_start.time.is_zero()).then_some(warm_start)
}

/// `"off"`, or a part such as `"1/1000"`.
fn verify(section: &mut Section<'_>, default: Option<Sample>) -> Option<Sample> {
    let Some(text) = section.text("verify") else { return default };
    if text.value == "off" {
        return None;
    }
    let sample = part(&text.value);
    if sample.is_none() {
        section.reader.refuse(&text, "not a part of all hits", "write such as \"1/1000\", or \"off\"");
    }
    sample
}

/// A part such as `"1/10"`.
pub(super) fn sample(section: &mut Section<'_>, key: &'static str, default: Sample) -> Sample {
    let Some(text) = section.text(key) else { return default };
    let sample = part(&text.value);
    if sample.is_none() {
        section.reader.refuse(&text, "not a part of all", "write such as \"1/10\", or \"1/1\" for all");
    }
    sample.unwrap_or(default)
}

fn part(text: &str) -> Option<Sample> {
    let (some, of) = text.split_once('/')?;
    let sample = Sample { some: some.trim().parse().ok()?, of: of.trim().parse().ok()? };
    (sample.some > 0 && sample.some <= sample.of).then_some(sample)
}

/// Warns of a memory tier that is larger than the process may be.
pub(super) fn within(reader: &Reader<'_>, file: &DeTable<'_>, cache: &Cache, limit: Option<u64>) {
    let Some(limit) = limit.filter(|limit| cache.memory > *limit) else { return };
    let table = file.get("cache").and_then(|cache| cache.get_ref().as_table());
    let written = table.and_then(|cache| cache.get("memory")).map(toml::Spanned::span);
    let whose = if written.is_some() { "this is" } else { "the default of `cache.memory`, 256 MiB, is" };
    let most = limit >> 20;
    let message = format!("{whose} more than the {most} MiB that this process may have: it would be killed");
    let found = Found::warning(Lint::MemoryBeyondLimit, written.unwrap_or(0..0), message);
    reader.report(
        found.help(format!("write such as \"{}MiB\": connections and buffers need room, too", most / 2)),
    );
}

/// Refuses a value that could never be reached because another is smaller.
pub(super) fn not_beyond<N: PartialOrd>(
    section: &Section<'_>,
    small: (&'static str, N),
    large: (&'static str, N),
) {
    let Some(span) = section.span_of(small.0).filter(|_| small.1 > large.1) else { return };
    let found = Found::new(span, format!("`{}` is more than `{}`", small.0, large.0));
    let found = found.help(format!("write at most what `{}` is", large.0));
    section.reader.report(match section.span_of(large.0) {
        Some(other) => found.also(other, "the smaller one"),
        None => found,
    });
}

/// A size, or `false`.
fn redis_compress(section: &mut Section<'_>, default: Option<u64>) -> Option<u64> {
    let value = section.value("redis_compress");
    match value.map(|value| value.get_ref().as_bool()) {
        None => default,
        Some(Some(false)) => None,
        // As one that was not written, but for its place.
        Some(Some(true)) => default,
        Some(None) => {
            Some(section.size("redis_compress", default.unwrap_or(0), "write false to compress nothing"))
        }
    }
}

fn timing(mut section: Section<'_>) -> Timing {
    let default = Timing::default();
    let timing = Timing {
        process_time: section.flag("process_time", default.process_time),
        server_timing: section.flag("server_timing", default.server_timing),
        slow_request: slow_request(&mut section, default.slow_request),
    };
    section.finish();
    timing
}

/// A time, or `"off"`.
pub(super) fn slow_request(section: &mut Section<'_>, default: Option<Duration>) -> Option<Duration> {
    let Some(text) = section.measure("slow_request") else { return default };
    if text.value == "off" {
        return None;
    }
    section.reader.duration(&text, "s", Zero::Fine)
}

fn limits(mut section: Section<'_>) -> Limits {
    let (s, d) = (&mut section, Limits::default());
    let head = s.size("head_size", u64::try_from(d.head_size).unwrap_or(u64::MAX), "write at least \"8KiB\"");
    let head_span = s.span_of("head_size");
    check_head_size(s.reader, head, head_span);
    let connections = s.count("connections", d.connections, 1..=10_000_000);
    let per_address = s.count("per_address", defaults::per_address(connections), 1..=10_000_000);
    not_beyond(s, ("per_address", per_address), ("connections", connections));
    let drain = s.duration("drain", d.drain, Zero::Fine);
    // A default gives way to what was written.
    let lame_duck = s.duration("lame_duck", d.lame_duck.min(drain), Zero::Fine);
    not_beyond(s, ("lame_duck", lame_duck), ("drain", drain));
    if let Some(span) = s.span_of("lame_duck").filter(|_| lame_duck == drain && !drain.is_zero()) {
        let found = Found::warning(
            Lint::NoDrain,
            span,
            "all of `drain` is `lame_duck`: what is in flight then is cut off",
        );
        s.reader.report(found.help("write less than what `drain` is, by as long as requests take"));
    }
    let limits = Limits {
        connections,
        per_address,
        first_byte_time: s.duration(
            "first_byte_time",
            d.first_byte_time,
            Zero::Refused("write such as \"10s\""),
        ),
        header_time: s.duration("header_time", d.header_time, Zero::Refused("write such as \"10s\"")),
        idle_time: s.duration(
            "idle_time",
            d.idle_time,
            Zero::Refused("write requests = 1 to keep no connection"),
        ),
        requests: s.count("requests", d.requests, 1..=u64::MAX),
        head_size: usize::try_from(head).unwrap_or(d.head_size),
        // The header map refuses more than some 24,000.
        fields: s.count("fields", d.fields, 1..=10_000),
        target: target(s, d.target, head),
        body: pace(s, ("body_rate", "body_grace"), d.body),
        body_rate_in_demand: s.size("body_rate_in_demand", d.body_rate_in_demand, "write at least \"1B\""),
        response: pace(s, ("response_rate", "response_grace"), d.response),
        streams: s.count("streams", d.streams, 1..=65_535),
        tunnels_per_address: s.count("tunnels_per_address", d.tunnels_per_address, 1..=10_000_000),
        tunnel_idle: s.duration("tunnel_idle", d.tunnel_idle, Zero::Refused("write such as \"5m\"")),
        lame_duck,
        drain,
        admin_time: s.duration("admin_time", d.admin_time, Zero::Refused("write such as \"10s\"")),
    };
    section.finish();
    limits
}

/// The longest target. It is part of the head, so it cannot be longer than that.
fn target(section: &mut Section<'_>, default: usize, head: u64) -> usize {
    let default = u64::try_from(default).unwrap_or(u64::MAX);
    let target = section.size("target", default, "write at least \"8000B\"");
    not_beyond(section, ("target", target), ("head_size", head));
    // hyper takes no longer ones.
    let most = u64::from(u16::MAX - 1);
    if let Some(span) = section.span_of("target").filter(|_| target > most) {
        section.reader.report(Found::new(span, "out of range").help(format!("write at most \"{most}B\"")));
    }
    usize::try_from(target).unwrap_or(usize::MAX)
}

/// How slow a peer may be: bytes a second, and how long it may fall short of them.
fn pace(section: &mut Section<'_>, (rate, grace): (&'static str, &'static str), default: Pace) -> Pace {
    Pace {
        rate: section.size(rate, default.rate, "write at least \"1B\""),
        grace: section.duration(grace, default.grace, Zero::Refused("write such as \"10s\"")),
    }
}

/// Less than hyper's own buffer is not possible, and more than 16 MiB is nobody's request.
fn check_head_size(reader: &Reader<'_>, size: u64, span: Option<Span>) {
    if (defaults::LEAST_HEAD..=16 << 20).contains(&size) {
        return;
    }
    if let Some(span) = span {
        reader.report(Found::new(span, "out of range").help("write a size from \"8KiB\" to \"16MiB\""));
    }
}
