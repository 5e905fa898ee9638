//! A listening HTTP server: an address and a router enter; it answers until it is closed. Fails where the address cannot be
//! listened on.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use openssl::ssl::SslAcceptor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bounded::Bounded;
use super::tls::TlsListener;

/// The longest that requests are waited for when it is closed.
const FAREWELL: Duration = Duration::from_secs(20);

/// Connections that are open at once.
const CONNECTIONS: usize = 1_024;
/// The longest that nothing passes over one: more than any request takes to be answered.
const SILENCE: Duration = Duration::from_secs(120);

/// An address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} cannot be listened on; check that it is this machine's and that nothing else listens there"
)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The system's reason.
    pub source: std::io::Error,
}

/// A server at work.
#[derive(Debug)]
pub(crate) struct Served {
    what: &'static str,
    address: SocketAddr,
    close: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Listens at `address`; port 0 takes a free one. `what` it is, for the log.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) async fn open(
        what: &'static str,
        address: SocketAddr,
        tls: Option<SslAcceptor>,
        router: Router,
    ) -> Result<Self, ListenError> {
        let listen = |source| ListenError { address, source };
        let tcp = TcpListener::bind(address).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let (close, mut closing) = watch::channel(false);
        let closed = async move { _ = closing.wait_for(|close| *close).await };
        let serving = match tls {
            Some(acceptor) => {
                let listener = TlsListener::new(tcp, acceptor).map_err(listen)?;
                tokio::spawn(
                    axum::serve(Bounded::new(listener, CONNECTIONS, SILENCE), router)
                        .with_graceful_shutdown(closed)
                        .into_future(),
                )
            }
            None => tokio::spawn(
                axum::serve(Bounded::new(tcp, CONNECTIONS, SILENCE), router)
                    .with_graceful_shutdown(closed)
                    .into_future(),
            ),
        };
        Ok(Self {
            what,
            address,
            close,
            serving,
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nobody in any more and waits for those inside, a moment.
    pub(crate) async fn close(self) {
        self.close.send_replace(true);
        let what = self.what;
        match tokio::time::timeout(FAREWELL, self.serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(what, %error, "an HTTP server failed"),
            Ok(Err(error)) => tracing::error!(what, %error, "an HTTP server panicked"),
            Err(_) => tracing::warn!(what, "HTTP requests were still open when the server was closed"),
        }
    }
}
