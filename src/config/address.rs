//! Addresses as they are written: listeners and servers.
//!
//! Knows the shapes of `ip:port` and `http://host[:port]`, and says of any other shape what to write.
//! Resolves nothing.
//! Must not know: where the text stands, or the clients that will use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Server;
use super::units::Mistake;
use crate::fields::host;

pub(super) fn mistake<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake { message: message.into(), help: help.into() })
}

/// Reads `ip:port`; `port` is the one to offer where none was written.
pub(super) fn socket(text: &str, port: u16) -> Result<SocketAddr, Mistake> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let better = socket_meant(text, port);
    let help =
        better.map_or_else(|| format!("write such as \"127.0.0.1:{port}\""), |a| format!("write \"{a}\""));
    mistake("not an address with a port", help)
}

/// `8080`, `:8080`, `localhost:8080`, `*:8080` and a bare address, as people write them elsewhere.
fn socket_meant(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let (host, port_text) = text.rsplit_once(':').unwrap_or(("localhost", text));
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" | "*" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some(SocketAddr::new(ip.into(), port_text.parse().ok()?))
}

/// Reads `http://host[:port]`.
pub(super) fn server(text: &str) -> Result<Server, Mistake> {
    let example = "write such as \"http://127.0.0.1:3000\"";
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = match host_and_port(text) {
            Ok(_) => format!("write \"http://{text}\""),
            Err(_) => example.to_owned(),
        };
        return mistake("a server is written as a URL", help);
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            let help = "write http://, or put something that speaks TLS between";
            return mistake("Larder does not yet speak TLS to upstreams", help);
        }
        _ => return mistake(format!("`{scheme}` is not a scheme that Larder speaks"), example),
    }
    let authority = authority(rest)?;
    let (host, port) = host_and_port(authority)?;
    Ok(Server { host, port: port.unwrap_or(80) })
}

/// What stands before the path, which may only be a `/`.
fn authority(rest: &str) -> Result<&str, Mistake> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if let Some((_, host)) = authority.rsplit_once('@') {
        let help = format!("write \"http://{host}\", and set Authorization by `request_headers`");
        return mistake("a server's URL carries no user or password", help);
    }
    if behind.is_empty() || behind == "/" {
        return Ok(authority);
    }
    // A password with a / in it is no path: not repeated.
    if behind.contains('@') {
        return mistake(
            "a server's URL is a host and a port alone",
            "write such as \"http://127.0.0.1:3000\"",
        );
    }
    let help = format!("write \"http://{authority}\"; the request's own path and query are forwarded");
    mistake("a server's URL has no path or query", help)
}

/// A host in lower case without brackets, and a port.
pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), Mistake> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, after)) => match v6.parse::<Ipv6Addr>() {
            Ok(ip) => (ip.to_string(), after),
            Err(_) => return mistake(format!("`{v6}` is not an IPv6 address"), ""),
        },
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(end).unwrap_or((authority, ""));
            (host.to_ascii_lowercase(), port)
        }
    };
    check_host(&host)?;
    Ok((host, port_of(port)?))
}

fn port_of(text: &str) -> Result<Option<u16>, Mistake> {
    if text.is_empty() {
        return Ok(None);
    }
    let port = text.strip_prefix(':').filter(|p| p.bytes().all(|b| b.is_ascii_digit()));
    match port.and_then(|p| p.parse().ok()) {
        Some(0) | None => mistake("not a port", "write a number from 1 to 65535 after the host"),
        port => Ok(port),
    }
}

/// A name of DNS's characters, or an address.
fn check_host(host: &str) -> Result<(), Mistake> {
    if host.is_empty() {
        return mistake("the host is missing", "write a name or an address");
    }
    if host.parse::<IpAddr>().is_ok() || is_host_name(host) {
        return Ok(());
    }
    mistake(format!("`{host}` is not a host"), "write a name of letters, digits, - and ., or an address")
}

/// Whether it is a name that DNS could know, and that a request could name, too.
pub(super) fn is_host_name(name: &str) -> bool {
    // A name whose last label is a number is a mistyped address (as browsers see it).
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    host::is_name(name) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// A Redis URL as it may be shown: without its password.
pub fn without_password(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    parts.map_or_else(|| url.to_owned(), |(scheme, host)| format!("{scheme}://…@{host}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn help<T: std::fmt::Debug>(result: Result<T, Mistake>) -> String {
        result.unwrap_err().help
    }

    #[test]
    fn an_address_that_is_nearly_one_is_offered_whole() {
        assert_eq!(socket("[::1]:80", 8080), Ok("[::1]:80".parse().unwrap()));
        let rows = [
            ("8081", "write \"127.0.0.1:8081\""),
            (":8081", "write \"0.0.0.0:8081\""),
            ("*:8081", "write \"0.0.0.0:8081\""),
            ("localhost:8081", "write \"127.0.0.1:8081\""),
            ("10.0.0.1", "write \"10.0.0.1:8080\""),
            ("::1", "write \"[::1]:8080\""),
            ("example.com:80", "write such as \"127.0.0.1:8080\""),
            ("", "write such as \"127.0.0.1:8080\""),
        ];
        for (text, want) in rows {
            assert_eq!(help(socket(text, 8080)), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_written_is_one_that_a_request_can_name(name in "[a-z0-9_.%~-]{0,9}|([a-zA-Z0-9-]{1,64}[.]){1,5}") {
            let last_is_number = name.trim_end_matches('.').rsplit('.').next().is_some_and(|it| it.parse::<u64>().is_ok());
            let nameable = host::authority(&name, 80).is_some();
            prop_assert_eq!(is_host_name(&name), nameable && !last_is_number);
        }
    }

    #[test]
    fn servers_are_plain_http_urls() {
        let good = [
            ("http://127.0.0.1:3000", "127.0.0.1", 3000),
            ("http://API.internal", "api.internal", 80),
            ("HTTP://api:1/", "api", 1),
            ("http://[::1]:9", "::1", 9),
            ("http://my_service:80", "my_service", 80),
        ];
        for (text, host, port) in good {
            assert_eq!(server(text), Ok(Server { host: host.into(), port }), "{text}");
        }
        let bad = [
            ("127.0.0.1:3000", "a server is written as a URL", "write \"http://127.0.0.1:3000\""),
            (
                "https://api",
                "Larder does not yet speak TLS to upstreams",
                "write http://, or put something that speaks TLS between",
            ),
            (
                "http://api/v1?x",
                "a server's URL has no path or query",
                "write \"http://api\"; the request's own path and query are forwarded",
            ),
            (
                "http://u:p@api",
                "a server's URL carries no user or password",
                "write \"http://api\", and set Authorization by `request_headers`",
            ),
            (
                "http://u:pa/ss@api",
                "a server's URL is a host and a port alone",
                "write such as \"http://127.0.0.1:3000\"",
            ),
            ("http://", "the host is missing", "write a name or an address"),
            ("http://api:0", "not a port", "write a number from 1 to 65535 after the host"),
            ("http://api:+1", "not a port", "write a number from 1 to 65535 after the host"),
            ("http://[::1]x", "not a port", "write a number from 1 to 65535 after the host"),
            ("http://[::g]", "`::g` is not an IPv6 address", ""),
            ("http://a b", "`a b` is not a host", "write a name of letters, digits, - and ., or an address"),
            (
                "http://1.2.3",
                "`1.2.3` is not a host",
                "write a name of letters, digits, - and ., or an address",
            ),
            (
                "ftp://api",
                "`ftp` is not a scheme that Larder speaks",
                "write such as \"http://127.0.0.1:3000\"",
            ),
        ];
        for (text, message, help) in bad {
            let want = Mistake { message: message.into(), help: help.into() };
            assert_eq!(server(text), Err(want), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("redis://u:secret@db:1/2"), "redis://…@db:1/2");
        assert_eq!(without_password("redis://db:1"), "redis://db:1");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(http|redis)?(://)?[\\[\\]@:/%a-f0-9.,]{0,16}|.{0,24}") {
            let _ = (socket(&text, 1), server(&text), without_password(&text));
        }

        #[test]
        fn a_server_reads_back_from_what_it_means(host in "[a-z][a-z0-9-]{0,10}", port in 1u16..) {
            let read = server(&format!("http://{host}:{port}"));
            prop_assert_eq!(read, Ok(Server { host, port }));
        }
    }
}
