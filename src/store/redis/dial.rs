//! A byte stream to one server of Redis: TCP, a local socket, or TLS.
//!
//! Knows how a connection is made by the kernel and by rustls, and which authorities are trusted to say who
//! a server is: those of a file, else those of the system. There is no way to trust anybody. Where a server asks
//! who we are, a certificate of our own says it.
//! Must not know: what is said over it, or which server is meant.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Identity, Node, Redis};

/// For name and TCP together.
const CONNECT: Duration = Duration::from_secs(1);
/// The kernel gives a connection up when sent bytes are not acknowledged for so long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

/// Both ways of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, whatever it is made of.
pub(super) type Socket = Box<dyn Stream>;

/// How servers are reached over TCP: as they are, or by TLS.
#[derive(Clone, Default)]
pub(super) struct Dial(Option<TlsConnector>);

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Dial(TLS)" } else { "Dial(TCP)" })
    }
}

impl Dial {
    /// As it is configured. A sentence where no certificate could ever be trusted.
    pub(super) fn new(redis: &Redis) -> Result<Self, String> {
        if !redis.tls {
            return Ok(Self(None));
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
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }

    /// Connects, and shakes hands where that is asked. The caller bounds the time.
    pub(super) async fn tcp(&self, node: &Node) -> io::Result<Socket> {
        let socket = tcp(&node.host, node.port).await?;
        let Some(tls) = &self.0 else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, socket).await?))
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
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
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
