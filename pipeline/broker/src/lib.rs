//! A durable, single-node, loopback-only Kafka-protocol broker, for laptops, tests and small labs.
//!
//! Enters: a data folder and a loopback address. Leaves: a server that Kafka clients (made for and
//! tested with librdkafka) use as they would a cluster: idempotent and transactional producers,
//! consumer groups, read-committed fetches, and topic administration.
//!
//! ```no_run
//! # async fn run() -> Result<(), wellspring_broker::BrokerError> {
//! let broker = wellspring_broker::EmbeddedBroker::start("data/broker".as_ref(), "127.0.0.1:0").await?;
//! let bootstrap = broker.bootstrap(); // for `bootstrap.servers`
//! # let _ = bootstrap;
//! broker.shutdown().await
//! # }
//! ```
//!
//! # What it is not
//!
//! - Not replicated: one node, one copy on one disk. Lose the disk and the data are lost.
//! - Not protected: no TLS, no authentication, no access control. It therefore refuses every address
//!   that is not loopback. Whoever can log in to the machine can read and write every topic.
//! - Not forgetting by itself: records stay for ever unless the topic sets `retention.ms` or
//!   `retention.bytes`, where Kafka would remove them after a week.
//! - Topics are created by request only (`CreateTopics`), never by producing or asking about them.
//!
//! # What is cleaned up
//!
//! Every [`BrokerConfig::housekeeping`]: segments past their topic's retention are removed; topics
//! with `cleanup.policy=compact` keep the last record of each key; offsets of groups long without
//! members and transactional ids long unused are forgotten. A topic's settings act from the moment
//! they are changed. The closed segments are cleaned, never the one being written, so a topic that
//! should be compacted soon wants a small `segment.ms` or `segment.bytes`.
//!
//! How fast it is, and how much memory it takes: `cargo run --release --example speed`.
//!
//! # What survives what
//!
//! - The end of the process, `kill -9` included: everything acknowledged survives. A write cut short
//!   is removed at the next start.
//! - A power cut: a transaction whose commit was acknowledged survives. Other records and offset
//!   commits of about the last second may be lost with the default [`FlushPolicy`]; none with
//!   [`FlushPolicy::EachAppend`].
//! - A full disk: the client gets `KAFKA_STORAGE_ERROR` and may retry; nothing written before is
//!   harmed.

mod api;
mod broker;
mod config;
mod error;
mod frame;
mod groups;
mod housekeeping;
mod journal;
mod log;
mod meta;
mod server;
mod settings;
mod shape;
mod topics;
mod transactions;

use std::path::Path;

pub use config::{BrokerConfig, FlushPolicy};
pub use error::{BrokerError, StorageError};

/// A running broker. Dropping it stops it as [`shutdown`](Self::shutdown) does, but without waiting.
#[derive(Debug)]
pub struct EmbeddedBroker {
    server: server::Server,
}

impl EmbeddedBroker {
    /// Starts a broker with default settings on `dir` (created where absent), listening on `listen`,
    /// a loopback `IP:PORT` or `localhost:PORT`, port 0 for a free one. Must be called within a
    /// tokio runtime with IO and time enabled.
    ///
    /// # Errors
    /// An address that is not loopback or cannot be bound, a folder in use by another live broker,
    /// and unreadable or damaged data.
    pub async fn start(dir: &Path, listen: &str) -> Result<Self, BrokerError> {
        Self::start_with(dir, listen, BrokerConfig::default()).await
    }

    /// As [`start`](Self::start), with settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(dir: &Path, listen: &str, config: BrokerConfig) -> Result<Self, BrokerError> {
        Ok(Self {
            server: server::Server::start(dir, listen, config).await?,
        })
    }

    /// `HOST:PORT` for a client's `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.server.address().to_string()
    }

    /// Stops: no new connections, running requests finish (long polls end early), everything is
    /// forced to disk, the folder is released.
    ///
    /// # Errors
    /// The last flush failed; what was acknowledged is then safe from the end of the process but not
    /// from a power cut.
    pub async fn shutdown(self) -> Result<(), BrokerError> {
        self.server.shutdown().await
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
