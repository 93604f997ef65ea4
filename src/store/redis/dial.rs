//! A byte stream to one server of Redis: TCP, a local socket, or TLS.
//!
//! Knows how a connection is made by the kernel and by rustls, and which authorities are trusted to say who
//! a server is: those of a file, else those of the system. There is no way to trust anybody. Where a server asks
//! who we are, a certificate of our own says it. Names are looked up a few at a time: the system's resolver cannot be
//! stopped, and its threads are those that look up the names of origins, too.
//! Must not know: what is said over it, or which server is meant.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Identity, Node, Redis};

/// For name and TCP together.
const CONNECT: Duration = Duration::from_secs(1);
/// Names that are being looked up at a time.
const LOOKUPS: usize = 8;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;
/// The kernel gives a connection up when sent bytes are not acknowledged for so long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

/// Both ways of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, whatever it is made of.
pub(super) type Socket = Box<dyn Stream>;

/// How servers are reached over TCP: as they are, or by TLS.
#[derive(Clone)]
pub(super) struct Dial {
    tls: Option<TlsConnector>,
    lookups: Arc<Semaphore>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.tls.is_some() { "Dial(TLS)" } else { "Dial(TCP)" })
    }
}

impl Dial {
    /// As it is configured. A sentence where no certificate could ever be trusted.
    pub(super) fn new(redis: &Redis) -> Result<Self, String> {
        if !redis.tls {
            return Ok(Self::by(None));
        }
        let roots = match redis.authorities.as_slice() {
            [] => of_the_system()?,
            given => of_a_file(given)?,
        };
        // Named, since a process in which two providers are built in has no default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match &redis.identity {
            None => config.with_no_client_auth(),
            Some(identity) => ours(config, identity)
                .map_err(|why| format!("`cert_file` and `key_file` cannot be used: {why}"))?,
        };
        Ok(Self::by(Some(TlsConnector::from(Arc::new(config)))))
    }

    fn by(tls: Option<TlsConnector>) -> Self {
        Self { tls, lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Connects, and shakes hands where that is asked. The caller bounds the time.
    pub(super) async fn tcp(&self, node: &Node) -> io::Result<Socket> {
        let socket = first_of(&self.addresses(node).await?).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, socket).await?))
    }

    /// Where a name leads to, as the system says. Given up, the look goes on in its thread, and keeps its place
    /// until it ends.
    async fn addresses(&self, node: &Node) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = node.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, node.port)]);
        }
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let (host, port) = (node.host.clone(), node.port);
        let looking = tokio::spawn(async move {
            let _place = place;
            tokio::net::lookup_host((host, port)).await.map(|all| all.take(ADDRESSES).collect())
        });
        looking.await.map_err(io::Error::other)?
    }
}

/// Connects to a local socket.
pub(super) async fn unix(path: &str) -> io::Result<Socket> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

fn ours(
    config: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &Identity,
) -> Result<ClientConfig, String> {
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let key = key.map_err(|_| "that is no private key".to_owned())?;
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

fn of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    // Some system has one that cannot be read: the others do.
    let (taken, _) = roots.add_parsable_certificates(loaded.certs);
    if taken == 0 {
        return Err("the system trusts no certificate authority; name one with `ca_file`".to_owned());
    }
    Ok(roots)
}

fn of_a_file(given: &[Vec<u8>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for der in given {
        let added = roots.add(CertificateDer::from(der.clone()));
        added.map_err(|error| format!("`ca_file` holds a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// Addresses one after the other, each with its share of the time.
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let each = CONNECT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(with_settings(socket)),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// What the kernel refuses of these it refuses: the connection works without.
fn with_settings(socket: TcpStream) -> TcpStream {
    // Nagle's algorithm holds up small commands.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    socket
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn names_that_nobody_resolves_take_few_threads_and_addresses_need_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = |host: &str| Node { host: host.into(), port };
        let dial = Dial::by(None);
        let stuck: Vec<_> =
            (0..LOOKUPS).map(|_| Arc::clone(&dial.lookups).try_acquire_owned().unwrap()).collect();
        let (localhost, address) = (node("localhost"), node("127.0.0.1"));
        let mut waiting = pin!(dial.tcp(&localhost));
        let waits = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
        assert!(waits, "there is a place for one more");
        assert!(dial.tcp(&address).await.is_ok());
        drop(stuck);
        assert!(waiting.await.is_ok(), "and its turn comes");
        assert_eq!(dial.lookups.available_permits(), LOOKUPS);
    }
}
