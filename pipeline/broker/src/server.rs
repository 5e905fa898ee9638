//! Listening, connections, and the clock that drives timeouts.
//!
//! Enters: TCP connections from this machine. Leaves: requests to `api`, answers back, in order. A
//! request that cannot be understood closes its connection with a log line and harms nothing else.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::api;
use crate::broker::Broker;
use crate::config::{BrokerConfig, FlushPolicy};
use crate::error::BrokerError;
use crate::frame::{Frame, FrameError, Reply};
use crate::housekeeping;

/// How often timeouts of members, rebalances and transactions are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A request once begun must arrive within this time.
const REQUEST_ARRIVAL: Duration = Duration::from_secs(60);
/// A client must take an answer within this time.
const REPLY_TAKEN: Duration = Duration::from_secs(60);
/// The same once the broker is stopping.
const REPLY_AT_STOP: Duration = Duration::from_secs(2);
/// Unit of the budget for requests in memory, bytes.
const BUDGET_UNIT: usize = 1024;

/// A listening broker.
#[derive(Debug)]
pub(crate) struct Server {
    broker: Arc<Broker>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) async fn start(dir: &Path, listen: &str, config: BrokerConfig) -> Result<Self, BrokerError> {
        let address = loopback_address(listen)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BrokerError::Bind { address, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| BrokerError::Bind { address, source })?;
        let dir = dir.to_path_buf();
        let broker = tokio::task::spawn_blocking(move || Broker::open(&dir, address, config)).await??;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(Arc::clone(&broker), listener, stopped));
        tracing::info!(%address, "embedded broker listens");
        Ok(Self {
            broker,
            stop,
            task: Some(task),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address
    }

    pub(crate) async fn shutdown(mut self) -> Result<(), BrokerError> {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            task.await?;
        }
        let broker = Arc::clone(&self.broker);
        tokio::task::spawn_blocking(move || broker.flush()).await??;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Tasks see this and end; the folder is released with the last of them.
        self.stop.send_replace(true);
    }
}

fn loopback_address(listen: &str) -> Result<SocketAddr, BrokerError> {
    let syntax = || BrokerError::ListenSyntax {
        listen: listen.to_owned(),
    };
    let address = match listen.parse::<SocketAddr>() {
        Ok(address) => address,
        // Only the one name: others would need a resolver, which may block.
        Err(_) if listen.starts_with("localhost:") => {
            let port = listen["localhost:".len()..]
                .parse::<u16>()
                .map_err(|_| syntax())?;
            ("127.0.0.1", port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut a| a.next())
                .ok_or_else(syntax)?
        }
        Err(_) => return Err(syntax()),
    };
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(BrokerError::NotLoopback { address })
    }
}

/// Accepts until told to stop, then waits for the connections to end.
async fn serve(broker: Arc<Broker>, listener: TcpListener, stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let budget = Arc::new(Semaphore::new(
        broker.config.max_inflight_bytes.div_ceil(BUDGET_UNIT),
    ));
    let mut stopping = stopped.clone();
    let clock = tokio::spawn(keep_time(Arc::clone(&broker), stopped.clone()));
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&broker), stopped.clone()));
    loop {
        tokio::select! {
            () = crate::server::told_to_stop(&mut stopping) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if connections.len() >= broker.config.max_connections {
                        tracing::warn!(%peer, limit = broker.config.max_connections,
                            "connection refused: too many are open");
                        continue;
                    }
                    let (broker, budget, stopped) =
                        (Arc::clone(&broker), Arc::clone(&budget), stopped.clone());
                    connections.spawn(async move {
                        match converse(&broker, &budget, stream, stopped).await {
                            Ok(()) => {}
                            // The client went away, as clients do.
                            Err(error @ FrameError::Io(_)) => {
                                tracing::debug!(%peer, %error, "connection closed");
                            }
                            Err(error) => tracing::warn!(%peer, %error, "connection closed"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(TICK).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection task failed");
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    for task in [clock, housekeeping] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a background task failed");
        }
    }
}

/// Serves one connection, one request after the other.
async fn converse(
    broker: &Arc<Broker>,
    budget: &Semaphore,
    mut stream: TcpStream,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), FrameError> {
    stream.set_nodelay(true)?;
    loop {
        let size = tokio::select! {
            () = crate::server::told_to_stop(&mut stopped) => return Ok(()),
            size = stream.read_i32() => match size {
                Ok(size) => size,
                // The client went away between requests, as clients do.
                Err(_) => return Ok(()),
            },
        };
        let limit = broker
            .config
            .max_request_bytes
            .min(broker.config.max_inflight_bytes);
        let size = match usize::try_from(size) {
            Ok(size) if size <= limit => size,
            _ => {
                return Err(FrameError::Size {
                    size: size.into(),
                    limit,
                });
            }
        };
        let units = u32::try_from(size.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
        // Never closed, so this only waits. Held until the request is answered or parked.
        let permit = budget.acquire_many(units).await.ok();
        let bytes = tokio::select! {
            () = crate::server::told_to_stop(&mut stopped) => return Ok(()),
            bytes = tokio::time::timeout(REQUEST_ARRIVAL, read_request(&mut stream, size)) => {
                bytes.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??
            }
        };
        let frame = Frame::parse(bytes)?;
        // Requests being served finish; those that wait for news or members see the stop themselves.
        let reply = api::answer(broker, frame, stopped.clone()).await?;
        drop(permit);
        let Some(Reply { bytes, room }) = reply else {
            continue;
        };
        let patience = async {
            tokio::select! {
                () = tokio::time::sleep(REPLY_TAKEN) => {}
                () = async { told_to_stop(&mut stopped).await; tokio::time::sleep(REPLY_AT_STOP).await } => {}
            }
        };
        tokio::select! {
            written = stream.write_all(&bytes) => written?,
            () = patience => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
        drop(room);
    }
}

/// Reads a request body; memory grows with what has arrived, not with what was announced.
async fn read_request(stream: &mut TcpStream, size: usize) -> Result<Bytes, std::io::Error> {
    let mut bytes = BytesMut::with_capacity(size.min(64 << 10));
    while bytes.len() < size {
        let left = size - bytes.len();
        if bytes.capacity() == bytes.len() {
            bytes.reserve(left.min(bytes.len().max(4096)));
        }
        let mut chunk = (&mut *stream).take(left as u64);
        if chunk.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes.freeze())
}

/// Drives timeouts and flushes until told to stop.
async fn keep_time(broker: Arc<Broker>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flushed = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = crate::server::told_to_stop(&mut stopped) => break,
            _ = ticks.tick() => {}
        }
        crate::log::partition::lock(&broker.groups).tick(std::time::Instant::now());
        let flush = match broker.config.flush {
            FlushPolicy::Interval(every) => flushed.elapsed() >= every,
            FlushPolicy::EachAppend => false,
        };
        let due = broker.transactions.any_due();
        if !flush && !due {
            continue;
        }
        let worker = Arc::clone(&broker);
        let work = tokio::task::spawn_blocking(move || {
            if due {
                worker.transactions.expire(&worker);
            }
            if flush && let Err(error) = worker.flush() {
                tracing::error!(%error, "periodic flush failed");
            }
        });
        if work.await.is_err() {
            tracing::error!("periodic work failed");
        }
        if flush {
            flushed = tokio::time::Instant::now();
        }
    }
}

/// Cleans up now and then until told to stop.
async fn keep_house(broker: Arc<Broker>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = told_to_stop(&mut stopped) => break,
            () = tokio::time::sleep(broker.config.housekeeping) => {}
        }
        let (worker, asked) = (Arc::clone(&broker), stopped.clone());
        let work = tokio::task::spawn_blocking(move || housekeeping::run(&worker, &|| *asked.borrow()));
        if work.await.is_err() {
            tracing::error!("cleaning up failed");
        }
    }
}

/// Returns once the broker is told to stop.
pub(crate) async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}
