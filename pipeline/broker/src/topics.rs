//! The topics that exist and their open partition logs.
//!
//! Enters: topic names. Leaves: partitions. Creating and deleting go through the journal first or
//! last, so that a crash in between leaves nothing but a folder to sweep.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use crate::config::BrokerConfig;
use crate::error::StorageError;
use crate::journal::sync_dir;
use crate::log::partition::Partition;
use crate::meta::TopicMeta;
use crate::settings::TopicSettings;

/// A topic with its open partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) meta: TopicMeta,
    pub(crate) settings: TopicSettings,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(crate) fn new(meta: TopicMeta, partitions: Vec<Arc<Partition>>, config: &BrokerConfig) -> Self {
        Self {
            settings: TopicSettings::new(&meta.configs, config),
            meta,
            partitions,
        }
    }

    /// A partition by number.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index).ok().and_then(|i| self.partitions.get(i))
    }
}

/// All topics. Readers take a snapshot of one topic; the map itself is locked for moments.
#[derive(Debug)]
pub(crate) struct Topics {
    dir: PathBuf,
    by_name: RwLock<BTreeMap<String, Arc<Topic>>>,
}

/// Whether Kafka allows this topic name.
pub(crate) fn valid_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.chars().all(legal)
}

fn folder(meta: &TopicMeta) -> String {
    // Names are ASCII; 200 characters and the number stay below the limit of file systems.
    let short: String = meta.name.chars().take(200).collect();
    format!("{:06}-{short}", meta.id)
}

fn open_partition(dir: &Path, meta: &TopicMeta, index: i32) -> Result<Arc<Partition>, StorageError> {
    let topic_dir = dir.join(folder(meta));
    let start = meta.log_start.get(&index).copied().unwrap_or(0);
    Partition::open(topic_dir.join(index.to_string()), start).map(Arc::new)
}

impl Topics {
    /// Opens the partitions of all `metas` below `dir` and removes folders of no topic.
    pub(crate) fn open(
        dir: PathBuf,
        metas: Vec<TopicMeta>,
        config: &BrokerConfig,
    ) -> Result<Self, StorageError> {
        std::fs::create_dir_all(&dir).map_err(StorageError::io("create", &dir))?;
        let mut known = HashMap::new();
        let mut by_name = BTreeMap::new();
        for meta in metas {
            known.insert(folder(&meta), ());
            let partitions = (0..meta.partitions)
                .map(|i| open_partition(&dir, &meta, i))
                .collect::<Result<_, _>>()?;
            by_name.insert(meta.name.clone(), Arc::new(Topic::new(meta, partitions, config)));
        }
        for entry in std::fs::read_dir(&dir).map_err(StorageError::io("list", &dir))? {
            let entry = entry.map_err(StorageError::io("list", &dir))?;
            if entry.file_name().to_str().is_some_and(|n| !known.contains_key(n)) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(Self {
            dir,
            by_name: RwLock::new(by_name),
        })
    }

    /// A topic by name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        let topics = self
            .by_name
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.get(name).cloned()
    }

    /// A partition by topic name and number.
    pub(crate) fn partition(&self, name: &str, index: i32) -> Option<Arc<Partition>> {
        self.get(name).and_then(|t| t.partition(index).cloned())
    }

    /// All topics, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let topics = self
            .by_name
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.values().cloned().collect()
    }

    /// Creates the files of a topic (or of further partitions of one) without showing it yet.
    pub(crate) fn prepare(&self, meta: &TopicMeta, config: &BrokerConfig) -> Result<Topic, StorageError> {
        let mut partitions = self
            .get(&meta.name)
            .map_or_else(Vec::new, |t| t.partitions.clone());
        for index in partitions.len() as i32..meta.partitions {
            partitions.push(open_partition(&self.dir, meta, index)?);
        }
        sync_dir(&self.dir.join(folder(meta)))?;
        sync_dir(&self.dir)?;
        Ok(Topic::new(meta.clone(), partitions, config))
    }

    /// Shows a topic, replacing what had its name.
    pub(crate) fn put(&self, topic: Topic) {
        let mut topics = self
            .by_name
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.insert(topic.meta.name.clone(), Arc::new(topic));
    }

    /// Hides a topic and removes its files.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let gone = {
            let mut topics = self
                .by_name
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            topics.remove(name)
        };
        let Some(topic) = gone else { return Ok(()) };
        let path = self.dir.join(folder(&topic.meta));
        std::fs::remove_dir_all(&path).map_err(StorageError::io("remove", &path))
    }
}
