//! The broker's state in one place, and its start from a data folder.
//!
//! Enters: a data folder. Leaves: topics, journal, groups and transactions, recovered, behind one
//! `Arc`. Fails with [`BrokerError`] where the folder is in use or damaged.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::config::{BrokerConfig, FlushPolicy};
use crate::error::{BrokerError, StorageError};
use crate::groups::Groups;
use crate::journal::Journal;
use crate::log::partition::lock;
use crate::meta::Change;
use crate::topics::Topics;
use crate::transactions::Transactions;

/// The only node there is.
pub(crate) const NODE_ID: i32 = 1;
/// Producer ids are reserved in the journal this many at a time.
const ID_BLOCK: i64 = 1000;

/// Shared state of a running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) address: SocketAddr,
    pub(crate) cluster_id: String,
    /// When this process opened the folder, ms since the epoch.
    pub(crate) started_ms: i64,
    pub(crate) journal: Journal,
    pub(crate) topics: Topics,
    pub(crate) groups: Mutex<Groups>,
    pub(crate) transactions: Transactions,
    /// Held while topics are created, changed or deleted.
    pub(crate) topic_changes: Mutex<()>,
    producer_ids: Mutex<std::ops::Range<i64>>,
    tickets: AtomicU64,
    /// One permit for each fetch answer that may be in memory.
    pub(crate) fetch_answers: Arc<Semaphore>,
    /// Locked for as long as this process lives; the system unlocks it at any kind of end.
    _folder_lock: File,
}

impl Broker {
    /// Opens a data folder and recovers everything in it. Blocks.
    pub(crate) fn open(
        dir: &Path,
        address: SocketAddr,
        config: BrokerConfig,
    ) -> Result<Arc<Self>, BrokerError> {
        std::fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
        let folder_lock = lock_folder(dir)?;
        let journal = Journal::open(dir)?;
        if journal.meta().cluster_id.is_empty() {
            journal.append(
                vec![Change::Cluster {
                    id: fresh_id("wellspring"),
                }],
                true,
            )?;
        }
        let (cluster_id, metas, next_producer) = {
            let meta = journal.meta();
            (
                meta.cluster_id.clone(),
                meta.topics.values().cloned().collect(),
                meta.next_producer,
            )
        };
        let topics = Topics::open(dir.join("topics"), metas, &config)?;
        let transactions = Transactions::recovered(&journal.meta());
        let answers =
            (config.max_inflight_bytes / config.fetch_max_bytes.max(1)).clamp(1, Semaphore::MAX_PERMITS);
        let broker = Arc::new(Self {
            fetch_answers: Arc::new(Semaphore::new(answers)),
            config,
            address,
            cluster_id,
            started_ms: crate::now_ms(),
            journal,
            topics,
            groups: Mutex::new(Groups::default()),
            transactions,
            topic_changes: Mutex::new(()),
            producer_ids: Mutex::new(next_producer..next_producer),
            tickets: AtomicU64::new(0),
            _folder_lock: folder_lock,
        });
        broker.transactions.finish_at_start(&broker)?;
        Ok(broker)
    }

    /// Where clients are told to connect.
    pub(crate) fn advertised(&self) -> SocketAddr {
        self.config.advertise.unwrap_or(self.address)
    }

    /// A producer id never given before.
    pub(crate) fn new_producer_id(&self) -> Result<i64, StorageError> {
        let mut ids = lock(&self.producer_ids);
        if ids.is_empty() {
            let end = ids.end + ID_BLOCK;
            self.journal.append(
                vec![Change::Ids {
                    next_producer: end,
                    next_topic: 0,
                }],
                true,
            )?;
            *ids = ids.end..end;
        }
        ids.next().ok_or_else(|| StorageError::Offline {
            path: "producer ids".into(),
        })
    }

    /// A number unique within this process.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether each append is forced to disk before it is acknowledged.
    pub(crate) fn flush_each(&self) -> bool {
        self.config.flush == FlushPolicy::EachAppend
    }

    /// Forces everything to disk. Blocks.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        for topic in self.topics.all() {
            topic.partitions.iter().try_for_each(|p| p.flush())?;
        }
        self.journal.flush()
    }
}

/// A name that is new even after a restart.
pub(crate) fn fresh_id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{prefix}-{:x}-{:x}-{count:x}",
        nanos.as_nanos(),
        std::process::id()
    )
}

fn lock_folder(dir: &Path) -> Result<File, BrokerError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerError::Locked {
            dir: dir.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(StorageError::Io {
            action: "lock",
            path,
            source,
        }
        .into()),
    }
}
