//! What the demo prints: at start where things are and what to try, and at the end what it waits for.
//!
//! Knows text of 80 columns, with colours where the caller says so.
//! Must not know: whether there is a terminal, or how anything listens.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::without_password;

/// What the banner tells of.
#[derive(Clone, Debug)]
pub struct Banner {
    /// Larder's public listener.
    pub proxy: Listening,
    /// Larder's admin listener; `None` = off.
    pub admin: Option<Listening>,
    /// The sample API.
    pub api: Listening,
    /// What became of the Redis tier.
    pub redis: RedisFound,
    /// What to type for this program, [`super::called`].
    pub program: String,
}

/// Where something listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// The address.
    pub at: SocketAddr,
    /// The port that was asked for, where it was busy and another was taken.
    pub in_place_of: Option<u16>,
}

/// What became of the Redis tier; the strings are URLs, and credentials in them are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisFound {
    /// None is configured.
    NotAsked,
    /// It answered.
    Found(String),
    /// It did not answer in time; it is used once it does.
    NotFound(String),
}

/// The text, with a line feed at its end; `colour` adds ANSI colours.
pub fn banner(facts: &Banner, colour: bool) -> String {
    let ink = Ink(colour);
    let mut text = format!("\n  {}\n\n", ink.bold("Larder in front of a sample users API"));
    places(&mut text, facts, ink);
    first_try(&mut text, facts, ink);
    ideas(&mut text, facts, ink);
    let _ = writeln!(text, "\n  {} stops. One line per request follows.\n", ink.bold("Ctrl-C"));
    text
}

/// What is said at once when it is told to stop; `drain` is how long that may take at most.
pub fn farewell(drain: Duration, colour: bool) -> String {
    let most = drain.as_secs();
    // Behind the `^C` that a terminal shows.
    format!(
        "\n  Stopping: finishing requests in flight, {most} s at most ({}: at once).\n",
        Ink(colour).bold("Ctrl-C again")
    )
}

fn places(text: &mut String, facts: &Banner, ink: Ink) {
    place(text, "proxy", &facts.proxy, ink);
    match &facts.admin {
        Some(admin) => {
            place(text, "admin", admin, ink);
            fact(text, "", "(open it in a browser: all figures live, and what to tune next)", ink);
        }
        None => fact(text, "admin", "off", ink),
    }
    place(text, "api", &facts.api, ink);
    let (now, then) = redis(&facts.redis);
    fact(text, "redis", &now, ink);
    if let Some(then) = then {
        fact(text, "", then, ink);
    }
}

fn place(text: &mut String, name: &str, listening: &Listening, ink: Ink) {
    let url = ink.green(&format!("http://{}", listening.at));
    match listening.in_place_of {
        Some(port) => fact(text, name, &format!("{url}   (port {port} is busy)"), ink),
        None => fact(text, name, &url, ink),
    }
}

fn fact(text: &mut String, name: &str, value: &str, ink: Ink) {
    let _ = writeln!(text, "  {}  {value}", ink.dim(&format!("{name:5}")));
}

fn redis(found: &RedisFound) -> (String, Option<&'static str>) {
    match found {
        RedisFound::NotAsked => (
            "not configured: memory tier only".to_owned(),
            Some("(for both tiers: --redis redis://127.0.0.1:6379)"),
        ),
        RedisFound::Found(url) => {
            (format!("found at {}: both tiers are in use", without_password(url)), None)
        }
        RedisFound::NotFound(url) => (
            format!("none to be used at {}: memory tier only", without_password(url)),
            Some("(the log says why; it is used as soon as it answers)"),
        ),
    }
}

fn first_try(text: &mut String, facts: &Banner, ink: Ink) {
    let _ = writeln!(
        text,
        "\n  Do this twice: 100 ms from the API, then well under 5 ms from memory.\n  (With curl -I it is a MISS until a GET has been there.)\n"
    );
    command(text, &format!("curl -si http://{}/users/1", facts.proxy.at), ink);
}

fn ideas(text: &mut String, facts: &Banner, ink: Ink) {
    let proxy = facts.proxy.at;
    let _ = writeln!(text, "\n  Then:\n");
    let user = r#"{"name":"Ada","email":"ada@a.test"}"#;
    idea(text, "a write goes through, uncached", &format!("curl -si --json '{user}' {proxy}/users"), ink);
    idea(text, "a slow request, logged with its phases", &format!("curl -si '{proxy}/slow?ms=1500'"), ink);
    idea(
        text,
        "the API fails every third time that it is asked, and is not asked for 1 s\n\
         after that: repeat it, and see MISS, HIT, and STALE in place of its error",
        &format!("curl -si {proxy}/flaky"),
        ink,
    );
    idea(text, "a response that says it is private", &format!("curl -si {proxy}/users/me"), ink);
    if let Some(admin) = &facts.admin {
        let url = format!(r#"{{"url":"http://{proxy}/users/1"}}"#);
        idea(text, "forget a URL, in both tiers", &format!("curl -s -d '{url}' {}/purge", admin.at), ink);
        idea(text, "hit ratios, and the same for Prometheus", &format!("curl -s {}/stats", admin.at), ink);
        command(text, &format!("curl -s {}/metrics", admin.at), ink);
        let top = format!("{} top --admin {}", facts.program, admin.at);
        idea(text, "the same each second, at a terminal", &top, ink);
    }
}

fn idea(text: &mut String, about: &str, line: &str, ink: Ink) {
    for about in about.lines() {
        let _ = writeln!(text, "    {}", ink.dim(&format!("# {about}")));
    }
    command(text, line, ink);
}

fn command(text: &mut String, line: &str, ink: Ink) {
    let _ = writeln!(text, "    {}", ink.cyan(line));
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Ink(bool);

impl Ink {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Banner {
        Banner {
            proxy: listening("127.0.0.1:65535", Some(8080)),
            admin: Some(listening("127.0.0.1:65534", Some(9900))),
            api: listening("127.0.0.1:65533", None),
            redis: RedisFound::NotFound("redis://127.0.0.1:6379".to_owned()),
            program: "larder".to_owned(),
        }
    }

    fn listening(at: &str, in_place_of: Option<u16>) -> Listening {
        Listening { at: at.parse().unwrap(), in_place_of }
    }

    #[test]
    fn it_tells_where_everything_is_and_what_to_try() {
        let text = banner(&facts(), false);
        for expected in [
            "proxy  http://127.0.0.1:65535   (port 8080 is busy)",
            "admin  http://127.0.0.1:65534   (port 9900 is busy)",
            "(open it in a browser: all figures live, and what to tune next)",
            "api    http://127.0.0.1:65533\n",
            "redis  none to be used at redis://127.0.0.1:6379: memory tier only",
            "curl -si http://127.0.0.1:65535/users/1",
            "127.0.0.1:65535/slow?ms=1500",
            "    # the API fails every third time that it is asked, and is not asked for 1 s\n    \
             # after that: repeat it, and see MISS, HIT, and STALE in place of its error\n    \
             curl -si 127.0.0.1:65535/flaky",
            "curl -s 127.0.0.1:65534/stats",
            "larder top --admin 127.0.0.1:65534",
            "--json",
            "Ctrl-C stops",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn it_fits_into_80_columns() {
        let ways = [
            RedisFound::NotAsked,
            RedisFound::Found("redis://127.0.0.1:65535/0".to_owned()),
            RedisFound::NotFound("redis://127.0.0.1:65535/0".to_owned()),
        ];
        for redis in ways {
            let text = banner(&Banner { redis, ..facts() }, false);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line:?}");
            }
        }
    }

    #[test]
    fn what_is_to_be_typed_is_this_program() {
        let text = banner(&Banner { program: "'/my files/larder'".to_owned(), ..facts() }, false);
        assert!(text.contains("\n    '/my files/larder' top --admin 127.0.0.1:65534\n"), "{text}");
        assert!(!text.contains(" larder top"), "{text}");
    }

    #[test]
    fn the_end_says_what_it_waits_for() {
        let text = farewell(Duration::from_secs(30), false);
        assert!(text.contains("Stopping: finishing requests in flight, 30 s at most"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(farewell(Duration::from_secs(30), true).contains('\u{1b}'));
    }

    #[test]
    fn colours_come_only_when_asked_for_and_change_nothing_else() {
        let (plain, coloured) = (banner(&facts(), false), banner(&facts(), true));
        assert!(!plain.contains('\u{1b}'));
        let mut stripped = coloured.clone();
        for code in ["0", "1", "2", "32", "36"] {
            stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_ne!(coloured, plain);
        assert_eq!(stripped, plain);
    }

    #[test]
    fn an_admin_listener_that_is_off_is_not_advertised() {
        let text = banner(&Banner { admin: None, ..facts() }, false);
        assert!(text.contains("admin  off"));
        assert!(!text.contains("/stats") && !text.contains("browser") && !text.contains("larder top"));
    }
}
