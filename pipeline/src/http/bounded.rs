//! Bounds on what callers take of a server: how many connections are open, and how long one may say nothing.
//!
//! A listener enters; one leaves that lets in the next caller when another has gone. Nothing fails: a connection that is
//! silent for too long ends as if its network had.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A listener with bounds.
pub(super) struct Bounded<L> {
    inner: L,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl<L> Bounded<L> {
    /// Lets in `connections` callers at a time, each until nothing passes in either direction for as long as `silence`.
    pub(super) fn new(inner: L, connections: usize, silence: Duration) -> Self {
        Self {
            inner,
            places: Arc::new(Semaphore::new(connections)),
            silence,
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if self.places.available_permits() == 0 {
            tracing::warn!("as many connections are open as may be; the next caller waits until one ends");
        }
        let Ok(place) = self.places.clone().acquire_owned().await else {
            // It is never closed.
            return std::future::pending().await;
        };
        let (io, from) = self.inner.accept().await;
        let connection = Connection {
            io,
            silence: self.silence,
            end: Box::pin(tokio::time::sleep(self.silence)),
            _place: place,
        };
        (connection, from)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A connection that ends when nothing passes.
pub(super) struct Connection<I> {
    io: I,
    silence: Duration,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Connection<I> {
    /// What passed; an error where nothing did for too long.
    fn unless_silent<T>(&mut self, cx: &mut Context<'_>, passed: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let end = self.end.as_mut();
        if passed.is_pending() {
            return end.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        end.reset(Instant::now() + self.silence);
        passed
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Connection<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.io).poll_read(cx, to);
        this.unless_silent(cx, read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Connection<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, from);
        this.unless_silent(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn serve(connections: usize, silence: Duration) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(axum::serve(Bounded::new(tcp, connections, silence), router).into_future());
        address
    }

    async fn begun(address: SocketAddr) -> TcpStream {
        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        caller
    }

    async fn end(caller: &mut TcpStream) {
        let rest = b"Host: x\r\nConnection: close\r\n\r\n";
        caller.write_all(rest).await.unwrap();
    }

    async fn answer(caller: &mut TcpStream) -> String {
        let mut said = String::new();
        caller.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn a_caller_who_says_nothing_makes_room_for_the_next() {
        let address = serve(1, Duration::from_millis(100)).await;
        let mut silent = begun(address).await;
        let mut next = begun(address).await;
        end(&mut next).await;
        assert!(answer(&mut next).await.ends_with("here"));
        // It was let go: its connection is over, one way or the other.
        let _rest = silent.read_to_end(&mut Vec::new()).await;
    }

    #[tokio::test]
    async fn no_more_callers_are_let_in_than_may_be() {
        let address = serve(1, Duration::from_secs(3600)).await;
        let mut first = begun(address).await;
        let mut next = begun(address).await;
        end(&mut next).await;
        let early = tokio::time::timeout(Duration::from_millis(200), answer(&mut next)).await;
        assert!(early.is_err(), "{early:?}");
        end(&mut first).await;
        assert!(answer(&mut first).await.ends_with("here"));
        assert!(answer(&mut next).await.ends_with("here"));
    }
}
