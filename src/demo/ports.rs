//! A listener on the port that was asked for, or on a free one.
//!
//! Knows that a busy port must not stop a demo.
//! Must not know: what the listener is for.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Listens on `preferred`, or, where somebody else does already, on a free port of the same
/// address; says whether it fell back.
///
/// # Errors
/// Where the address is not this machine's, or may not be used, or nothing is free.
pub fn bind(preferred: SocketAddr) -> io::Result<(TcpListener, bool)> {
    match TcpListener::bind(preferred) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let free = SocketAddr::new(preferred.ip(), 0);
            TcpListener::bind(free).map(|listener| (listener, true))
        }
        bound => bound.map(|listener| (listener, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_taken_as_asked_and_a_busy_one_falls_back() {
        let (first, fell_back) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(!fell_back);
        let taken = first.local_addr().unwrap();
        let (second, fell_back) = bind(taken).unwrap();
        assert!(fell_back);
        let other = second.local_addr().unwrap();
        assert_eq!(other.ip(), taken.ip());
        assert_ne!(other.port(), taken.port());
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        assert!(bind("192.0.2.1:8080".parse().unwrap()).is_err());
    }
}
