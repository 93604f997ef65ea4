//! Opens the listening sockets.
//!
//! Knows how several threads share one port, and how to notice that somebody else has it.
//! Must not know: what is served on them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::unsent::UNSENT;

/// Connections that the kernel holds for a busy thread.
const BACKLOG: i32 = 4096;

/// Why Larder could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A thread or its runtime could not be made.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "cannot listen on {address}: another program has this port; stop it, or choose another address"
                )
            }
            Self::Bind { address, error } => {
                write!(f, "cannot listen on {address}: {error}")?;
                let next = match error.kind() {
                    io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                        "; a port below 1024 takes root or CAP_NET_BIND_SERVICE: give that, or choose a higher one"
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        "; no interface of this machine has that address: choose one that it has, or 0.0.0.0 or [::] for all"
                    }
                    _ => "",
                };
                f.write_str(next)
            }
            Self::Thread(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The sockets of every thread.
pub(super) struct Listeners {
    /// One for each configured address, with the port that it got.
    pub addresses: Vec<SocketAddr>,
    /// For each thread, one socket for each address.
    pub sockets: Vec<Vec<TcpListener>>,
}

/// Opens every address once for each of `threads`.
pub(super) fn bind_all(addresses: &[SocketAddr], threads: usize) -> Result<Listeners, StartError> {
    let mut listeners =
        Listeners { addresses: Vec::new(), sockets: (0..threads).map(|_| Vec::new()).collect() };
    for address in addresses {
        // With SO_REUSEPORT the kernel would let two Larders share a port in silence. A socket
        // without it is refused where any other listens, so it is the one that asks first.
        let first = bind(*address, false)?;
        let address = first.local_addr().map_err(|error| StartError::Bind { address: *address, error })?;
        drop(first);
        for sockets in &mut listeners.sockets {
            sockets.push(bind(address, true)?);
        }
        listeners.addresses.push(address);
    }
    Ok(listeners)
}

/// Opens the admin address.
pub(super) fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address, false)
}

fn bind(address: SocketAddr, share: bool) -> Result<TcpListener, StartError> {
    open(address, share).map_err(|error| StartError::Bind { address, error })
}

fn open(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    set_for_clients(SockRef::from(&socket));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the sockets of clients are set to. On Linux those that are accepted have it from their listener, which spares
/// two calls for each.
pub(super) fn set_for_clients(socket: SockRef<'_>) {
    // Without it small responses wait for the client's delayed acknowledgements.
    let _a_dead_socket_shows_when_read = socket.set_tcp_nodelay(true);
    // Where the system has no such limit, slow clients are told from stopped ones by what it buffers.
    let _it_is_a_help_only = socket.set_tcp_notsent_lowat(UNSENT);
}

/// Has the kernel drop whoever asks for a connection from now on; who has been answered already goes on, and may
/// be accepted. Between the last accept(2) and close(2) nobody can come then, only to be reset.
///
/// # Errors
/// The kernel takes no such filter: some containers forbid it, and only Linux has it.
#[cfg(target_os = "linux")]
pub(super) fn hear_no_newcomers(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    use socket2::SockFilter;
    /// `ldb [13]`: the flags in a header of TCP (RFC 9293 §3.1), at which a filter of a TCP socket starts.
    const FLAGS: SockFilter = SockFilter::new(0x30, 0, 0, 13);
    /// `jset #2`: SYN leads on, everything else over the next.
    const IS_SYN: SockFilter = SockFilter::new(0x45, 0, 1, 0x02);
    const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    const TAKE: SockFilter = SockFilter::new(0x06, 0, 0, u32::MAX);
    SockRef::from(listener).attach_filter(&[FLAGS, IS_SYN, DROP, TAKE])
}

/// As on Linux, which alone can.
#[cfg(not(target_os = "linux"))]
pub(super) fn hear_no_newcomers(_listener: &tokio::net::TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_larder_shares_out_is_refused() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let held = bind_all(&[any], 2).unwrap();
        let address = held.addresses[0];
        assert_ne!(address.port(), 0);
        assert_eq!(held.sockets.len(), 2);
        let refused = bind_all(&[address], 2).err().unwrap();
        assert!(matches!(refused, StartError::Bind { .. }));
        assert!(refused.to_string().contains("another program has this port"), "{refused}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_is_connected_may_be_accepted_when_no_newcomers_are_heard() {
        use std::io::{Read, Write};
        use std::net::TcpStream;
        use std::time::Duration;
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = open(any.parse().unwrap(), true) else { continue };
            let address = listener.local_addr().unwrap();
            let mut before = TcpStream::connect(address).unwrap();
            hear_no_newcomers(&listener).unwrap();
            let after = TcpStream::connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
            assert_eq!(after.kind(), io::ErrorKind::TimedOut, "{any}");
            listener.set_nonblocking(false).unwrap();
            let (mut taken, _) = listener.accept().unwrap();
            drop(listener);
            before.write_all(b"asked").unwrap();
            let mut read = [0; 5];
            taken.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"asked", "what comes on it is not dropped");
            assert!(TcpStream::connect(address).is_err());
        }
    }
}
