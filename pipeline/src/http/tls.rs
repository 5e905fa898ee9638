//! TLS for the door: a certificate of its own and, for mutual TLS, those of its callers.
//!
//! Connections enter, encrypted ones leave. Handshakes go on beside each other, a bounded number of them, and none holds
//! up the next for longer than [`HANDSHAKE`].

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_openssl::SslStream;

/// The longest a caller may take over its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: usize = 64;

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what leads to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates of callers: with it, every caller must have one.
    pub client_ca: Option<PathBuf>,
}

/// A file that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[error("'{}' cannot be used as {what}; it must be a PEM file that this process may read", .file.display())]
pub struct TlsError {
    file: PathBuf,
    what: &'static str,
    source: ErrorStack,
}

/// What encrypts.
pub(super) fn acceptor(files: &TlsFiles) -> Result<SslAcceptor, TlsError> {
    let wrong = |file: &Path, what| {
        let file = file.to_owned();
        move |source| TlsError { file, what, source }
    };
    let certificate = || wrong(&files.certificate, "the certificate");
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(certificate())?;
    builder
        .set_certificate_chain_file(&files.certificate)
        .map_err(certificate())?;
    builder
        .set_private_key_file(&files.key, SslFiletype::PEM)
        .and_then(|()| builder.check_private_key())
        .map_err(wrong(&files.key, "the certificate's private key"))?;
    if let Some(ca) = &files.client_ca {
        builder
            .set_ca_file(ca)
            .map_err(wrong(ca, "the authority of client certificates"))?;
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    Ok(builder.build())
}

/// Listens for encrypted connections.
pub(super) struct TlsListener {
    ready: mpsc::Receiver<(SslStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, acceptor: SslAcceptor) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        Ok(Self {
            ready,
            address,
            accepting: tokio::spawn(accept(tcp, acceptor, sender)),
        })
    }
}

async fn accept(
    mut tcp: TcpListener,
    acceptor: SslAcceptor,
    ready: mpsc::Sender<(SslStream<TcpStream>, SocketAddr)>,
) {
    let shaking = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(permit) = shaking.clone().acquire_owned().await {
        let (stream, from) = Listener::accept(&mut tcp).await;
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, encrypted(&acceptor, stream)).await {
                // Nobody listens any more: the door is being closed.
                Ok(Ok(stream)) => _ = ready.send((stream, from)).await,
                Ok(Err(error)) => tracing::warn!(%from, error, "a TLS handshake failed"),
                Err(_) => tracing::warn!(%from, "a TLS handshake took too long"),
            }
            drop(permit);
        });
    }
}

async fn encrypted(acceptor: &SslAcceptor, stream: TcpStream) -> Result<SslStream<TcpStream>, String> {
    let ssl = Ssl::new(acceptor.context()).map_err(|error| error.to_string())?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| error.to_string())?;
    Pin::new(&mut stream)
        .accept()
        .await
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

impl Listener for TlsListener {
    type Io = SslStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task is gone, with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
