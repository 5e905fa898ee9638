//! Errors of the broker: those a caller sees ([`BrokerError`]) and those of the files beneath.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a broker could not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listen address is not `IP:PORT` or `localhost:PORT`.
    #[error("listen address `{listen}` is not IP:PORT; use for example 127.0.0.1:0")]
    ListenSyntax {
        /// The text given.
        listen: String,
    },
    /// The listen address is reachable from outside this machine.
    #[error(
        "refusing to listen on {address}: the embedded broker has no authentication or encryption and \
         serves loopback only; use 127.0.0.1:{port}, or a real Kafka cluster for several machines",
        port = address.port()
    )]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port could not be bound.
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for a free one")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another broker that is alive holds the data folder.
    #[error("data folder {} is in use by another running broker; stop it or use another folder", dir.display())]
    Locked {
        /// The data folder.
        dir: PathBuf,
    },
    /// Reading or writing the data folder failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A background task of the broker ended in a panic or was cancelled.
    #[error("a broker task failed: {source}")]
    Task {
        /// What ended it.
        #[from]
        source: tokio::task::JoinError,
    },
}

/// Failures of the files of the data folder.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Bytes before the tail of the newest file are not what was written there.
    #[error(
        "{} is damaged at byte {position}: {problem}; restore the file from a copy, or move the data \
         folder away to begin anew",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// An earlier write to this partition failed and could not be undone; only a restart clears it.
    #[error("partition log {} is offline after a failed write; free disk space and restart", path.display())]
    Offline {
        /// The partition's folder.
        path: PathBuf,
    },
}

impl StorageError {
    /// A closure for `map_err` that names the action and the file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
