//! Runs a Larder until it is told to stop: by a file, or as the demo.
//!
//! Knows how parts are started together, what is said at start, and which exit code each end has.
//! Must not know: how any of them works.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{self, Config, LogFormat, Server};
use crate::demo::{self, Banner, Listening, RedisFound};
use crate::server::{self, Running, StartError};
use crate::telemetry::{self, Messages};
use crate::worker::{Anew, Reread};

use super::args::{Check, Demo, Deny};
use super::config_file::Source;
use super::one_line::quoted;
use super::shown::counted;
use super::{colours, complain, exit, print, variable};

/// Name that the demo's configuration goes by in messages.
const SHIPPED_NAME: &str = "proxy.toml (of the demo)";

/// How long the last messages may take on their way to stderr.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// Serves with a configuration until SIGTERM or Ctrl-C.
pub(super) fn serve(source: &Source) -> ExitCode {
    let config = match parse(&source.text, &source.name) {
        Ok(config) => config,
        Err(code) => {
            if source.file.is_none() {
                eprintln!("(of the proxy.toml that these arguments amount to: --print-config shows it)");
            }
            return code;
        }
    };
    let messages = match init_log(&config) {
        Ok(messages) => messages,
        Err(error) => return complain(&format!("cannot start: {error}"), exit::FAILURE),
    };
    telemetry::install_panic_hook();
    let signals = match listen_for_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    raise_file_limit();
    // One record: its lines and carets belong together.
    if let Some(warning) = config.warning() {
        tracing::warn!("{warning}");
    }
    let code = match server::start(config, Clock::system(), colours(), reread(source)) {
        Ok(running) => {
            announce(&running);
            until_told(signals, running, &messages, || {})
        }
        Err(error) => refused(&error),
    };
    messages.flush(LAST_MESSAGES);
    code
}

/// Says whether a configuration is good; one with warnings is none where these are denied.
pub(super) fn check(source: &Source, args: &Check) -> ExitCode {
    match parse(&source.text, &source.name) {
        Ok(config) => {
            if let Some(warning) = config.warning_but(&args.allow) {
                eprintln!("{warning}");
                if args.deny == Some(Deny::Warnings) {
                    return complain("warnings are denied", exit::CONFIG);
                }
            }
            print(&format!(
                "{}: good ({}, {})\n",
                source.name,
                counted(config.routes.len() as u64, "route"),
                counted(config.upstreams.len() as u64, "upstream")
            ))
        }
        Err(code) => code,
    }
}

/// The sample API with Larder in front of it.
pub(super) fn demo(args: &Demo) -> ExitCode {
    // What is printed and what runs refuse the same.
    let config = match demo_asked(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if args.print_config {
        return print_demo(args);
    }
    telemetry::install_panic_hook();
    let signals = match listen_for_signals() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    match start_demo(config, args) {
        Ok(Started { running, api, messages, drain }) => {
            let code = until_told(signals, running, &messages, || {
                print(&demo::farewell(drain, colours()));
            });
            api.stop();
            messages.flush(LAST_MESSAGES);
            code
        }
        Err(code) => code,
    }
}

/// The configuration, or the exit code after its problems were shown.
pub(super) fn parse(text: &str, name: &str) -> Result<Config, ExitCode> {
    read(text, name).map_err(|problems| {
        eprintln!("{problems}");
        exit::CONFIG.into()
    })
}

/// The configuration, with what stands in other files; or what is wrong, each problem beginning with what it is.
fn read(text: &str, name: &str) -> Result<Config, String> {
    let limit = config::memory_limit(Path::new("/"));
    let config = Config::parse_within(text, name, &variable, limit);
    let mut config = config.map_err(|problems| problems.to_string())?;
    config.read_secrets().map_err(|why| format!("error: {name}: {why}"))?;
    Ok(config)
}

/// Reads the same file anew for a reload; `None` where it was none.
fn reread(source: &Source) -> Option<Reread> {
    let source = source.clone();
    let file = source.file.clone()?;
    let read = move || {
        let Some(now) = source.again() else { return Err("error: there is no file".to_owned()) };
        let now = now.map_err(|missing| format!("error: {missing}"))?;
        let config = read(&now.text, &now.name)?;
        Ok(Anew { config, text: now.text, name: now.name })
    };
    Some(Reread { file, read: Box::new(read) })
}

fn init_log(config: &Config) -> io::Result<Messages> {
    let terminal = io::stderr().is_terminal();
    let json = match config.log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    telemetry::init(&config.log.level, json, terminal && colours())
}

/// Every connection needs a file descriptor, and the usual limit of 1024 is a soft one. Whether it is enough is
/// for those to say who know what for.
fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Says where it listens: every public address first, then the admin's.
fn announce(running: &Running) {
    for address in &running.proxy {
        tracing::info!("listening on http://{address}");
    }
    if let Some(address) = running.admin {
        tracing::info!("admin on http://{address} (a dashboard, in a browser)");
    }
    // A configured one speaks for itself: whenever it begins or ceases to answer.
    if running.redis_up().is_none() {
        tracing::info!("no redis is configured: memory tier only");
    }
}

fn refused(error: &StartError) -> ExitCode {
    let code = match error {
        StartError::Bind { .. } => exit::UNAVAILABLE,
        StartError::Thread(_) => exit::FAILURE,
    };
    complain(&error.to_string(), code)
}

/// Waits for SIGTERM or Ctrl-C, has that said, then stops; a second one ends the process at once, and says that.
fn until_told(signals: Signals, running: Running, messages: &Messages, say: impl FnOnce()) -> ExitCode {
    let (mut told, runtime) = signals;
    // What comes of a reload is in the log; a bug in it must not end the process that it is to change.
    let reload = || drop(std::panic::catch_unwind(AssertUnwindSafe(|| running.reload())));
    runtime.block_on(told.wait(reload));
    tracing::info!("stopping: finishing what is in flight");
    let messages = messages.clone();
    thread::spawn(move || {
        runtime.block_on(told.wait(|| tracing::warn!("SIGHUP does nothing any more: Larder is stopping")));
        tracing::warn!("told to stop a second time: ending at once, what is in flight is cut off");
        messages.flush(LAST_MESSAGES);
        std::process::exit(i32::from(exit::FAILURE));
    });
    // By now a second signal is heard: what is written to may not be read.
    say();
    running.stop();
    tracing::info!("stopped");
    exit::DONE.into()
}

/// The signals that ask for an end, the one that asks for a reload, and the one by which files of logs are rotated.
struct Told {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    rotate: Signal,
}

impl Told {
    /// Waits for a signal that asks for an end; calls `reload` at each that asks for that.
    async fn wait(&mut self, mut reload: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
                // Unheard, it would end the process.
                _ = self.rotate.recv() => {
                    tracing::info!("SIGUSR1 does nothing: Larder opens no log file, so there is none to be reopened");
                }
            }
        }
    }
}

/// The signals, and the runtime that hears them.
type Signals = (Told, runtime::Runtime);

/// To be called before anything listens: a signal that nobody listens for kills the process.
fn listen_for_signals() -> Result<Signals, ExitCode> {
    hear_signals().map_err(|error| complain(&format!("cannot listen for signals: {error}"), exit::FAILURE))
}

fn hear_signals() -> io::Result<Signals> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let told = Told {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
        rotate: signal(SignalKind::user_defined1())?,
    };
    drop(guard);
    Ok((told, runtime))
}

/// The sample API on a thread of its own.
struct Api {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Api {
    fn start(listener: std::net::TcpListener) -> io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("sample-api".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(demo::api::serve(listener, Clock::system(), stopping)) {
                tracing::error!(%error, "the sample API has failed");
            }
        })?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        self.stop.send_replace(true);
        // A thread that panicked has said so on stderr.
        let _panicked = self.thread.join();
    }
}

/// A demo that runs.
struct Started {
    running: Running,
    api: Api,
    messages: Messages,
    /// How long its end may take at most.
    drain: Duration,
}

/// The shipped configuration with what was asked for, before it is known which ports are free.
fn demo_asked(args: &Demo) -> Result<Config, ExitCode> {
    let config = parse(&demo::written(config::SHIPPED, &demo::OWN), SHIPPED_NAME)?;
    let refused = |argument: &str, why: &str| complain(&format!("{argument}: {why}"), exit::USAGE);
    config
        .with_listen(args.listen)
        .with_admin(Some(args.admin))
        .map_err(|why| refused(&format!("--admin {}", args.admin), &why))?
        .with_redis(args.redis.as_deref())
        .map_err(|why| refused("--redis", &why))
}

/// Prints what the demo runs with these arguments, but for ports that it finds busy.
fn print_demo(args: &Demo) -> ExitCode {
    let (listen, admin) = (quoted(&args.listen.to_string()), quoted(&args.admin.to_string()));
    // The demo takes it as it is, and a file would have the environment's in place of `${NAME}`.
    let redis = args.redis.as_deref().map(|url| quoted(&url.replace("${", "$${")));
    let mut values = demo::OWN.to_vec();
    values.extend([("listen", listen.as_str()), ("admin", admin.as_str())]);
    values.extend(redis.as_deref().map(|redis| ("cache.redis", redis)));
    let text = demo::written(config::SHIPPED, &values);
    match parse(&text, SHIPPED_NAME) {
        Ok(_good) => print(&text),
        Err(code) => code,
    }
}

fn start_demo(config: Config, args: &Demo) -> Result<Started, ExitCode> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| complain(&format!("{what}: {error}"), exit::UNAVAILABLE);
    let server = config.upstreams.first().and_then(|upstream| upstream.servers.first());
    let api_port = server.map_or(0, |server| server.port);
    let api_wanted = SocketAddr::from(([127, 0, 0, 1], api_port));
    let (api_listener, api) =
        listen(api_wanted).map_err(|error| failed("the sample API cannot listen", &error))?;
    let (held, proxy) = listen(args.listen).map_err(|error| failed("the proxy cannot listen", &error))?;
    let (held_too, admin) =
        listen(args.admin).map_err(|error| failed("the admin listener cannot listen", &error))?;
    let config =
        demo_config(config, api.at, proxy.at, Some(admin.at)).map_err(|why| complain(&why, exit::USAGE))?;
    let messages = init_log(&config).map_err(|error| failed("the demo cannot start", &error))?;
    let drain = config.limits.drain;
    let api_running =
        Api::start(api_listener).map_err(|error| failed("the sample API cannot start", &error))?;
    // The ports were held until now so that nothing else took them.
    drop((held, held_too));
    let running = server::start(config, Clock::system(), colours(), None).map_err(|error| refused(&error))?;
    let redis = redis_found(args, &running);
    let program =
        demo::called(&std::env::current_exe().unwrap_or_default(), std::env::var_os("PATH").as_deref());
    print(&demo::banner(&Banner { proxy, admin: Some(admin), api, redis, program }, colours()));
    Ok(Started { running, api: api_running, messages, drain })
}

/// The demo's configuration, on the ports that were free.
fn demo_config(
    config: Config,
    api: SocketAddr,
    proxy: SocketAddr,
    admin: Option<SocketAddr>,
) -> Result<Config, String> {
    let upstream = config.upstreams.first().map(|upstream| upstream.name.clone()).unwrap_or_default();
    let server = Server { host: api.ip().to_string(), port: api.port() };
    config.with_listen(proxy).with_admin(admin)?.with_servers(&upstream, vec![server])
}

fn listen(wanted: SocketAddr) -> io::Result<(std::net::TcpListener, Listening)> {
    let (listener, fell_back) = demo::bind(wanted)?;
    let at = listener.local_addr()?;
    Ok((listener, Listening { at, in_place_of: fell_back.then_some(wanted.port()) }))
}

fn redis_found(args: &Demo, running: &Running) -> RedisFound {
    match (&args.redis, running.redis_up()) {
        (None, _) => RedisFound::NotAsked,
        (Some(url), Some(true)) => RedisFound::Found(url.clone()),
        (Some(url), _) => RedisFound::NotFound(url.clone()),
    }
}
