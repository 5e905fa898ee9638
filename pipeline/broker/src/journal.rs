//! The metadata journal: topics, producer ids, group offsets and transaction states, durable.
//!
//! Enters: [`Change`]s, one or more at a time, each call one checksummed frame and so applied whole
//! or not at all. Leaves: the state they add up to ([`Meta`]). Fails with [`StorageError`]; a failed
//! append is cut away again and changes nothing. The file is rewritten as a snapshot when it has
//! outgrown its content. Frame: length u32, CRC-32C u32 (both big-endian), JSON array of changes.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::StorageError;
use crate::log::partition::lock;
use crate::meta::{Change, Meta};

const NAME: &str = "meta.journal";
/// A journal smaller than this is not worth rewriting.
const REWRITE_FROM: u64 = 4 << 20;
/// No frame is longer; a longer length field is damage.
const MAX_FRAME: usize = 64 << 20;

#[derive(Debug)]
struct Tail {
    file: Arc<File>,
    len: u64,
    rewrite_at: u64,
    offline: bool,
}

/// The journal and the state it holds.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    tail: Mutex<Tail>,
    meta: Mutex<Meta>,
}

impl Journal {
    /// Reads the journal of a data folder, cutting a torn tail.
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StorageError::io("open", &path))?;
        let size = file.metadata().map_err(StorageError::io("inspect", &path))?.len();
        let mut meta = Meta::default();
        let mut len = 0;
        let mut reader = BufReader::with_capacity(64 << 10, &file);
        while let Some(frame) =
            read_frame(&mut reader, size - len).map_err(StorageError::io("read", &path))?
        {
            let Ok(changes) = serde_json::from_slice::<Vec<Change>>(&frame) else {
                // The checksum is right, so this was written by a different version of the broker.
                return Err(StorageError::Corrupt {
                    path,
                    position: len,
                    problem: "journal entry of another broker version",
                });
            };
            changes.into_iter().for_each(|c| meta.apply(c));
            len += 8 + frame.len() as u64;
        }
        drop(reader);
        if len < size {
            tracing::warn!(file = %path.display(), position = len, bytes = size - len,
                "cut the torn tail of the metadata journal left by an interrupted write");
            file.set_len(len).map_err(StorageError::io("truncate", &path))?;
        }
        let tail = Tail {
            file: Arc::new(file),
            len,
            rewrite_at: REWRITE_FROM,
            offline: false,
        };
        let journal = Self {
            dir: dir.to_path_buf(),
            tail: Mutex::new(tail),
            meta: Mutex::new(meta),
        };
        journal.rewrite_if_grown(&mut lock(&journal.tail))?;
        Ok(journal)
    }

    /// The state now. Hold it briefly.
    pub(crate) fn meta(&self) -> MutexGuard<'_, Meta> {
        lock(&self.meta)
    }

    /// Appends changes as one frame and applies them; with `sync` they are on disk on return.
    pub(crate) fn append(&self, changes: Vec<Change>, sync: bool) -> Result<(), StorageError> {
        let path = self.dir.join(NAME);
        let frame = frame(&changes, &path)?;
        let mut tail = lock(&self.tail);
        if tail.offline {
            return Err(StorageError::Offline { path });
        }
        if let Err(source) = tail.file.write_all_at(&frame, tail.len) {
            if tail.file.set_len(tail.len).is_err() {
                tail.offline = true;
            }
            return Err(StorageError::Io {
                action: "append to",
                path,
                source,
            });
        }
        tail.len += frame.len() as u64;
        {
            let mut meta = lock(&self.meta);
            changes.into_iter().for_each(|c| meta.apply(c));
        }
        if let Err(error) = self.rewrite_if_grown(&mut tail) {
            tracing::warn!(%error, "could not rewrite the metadata journal; it goes on growing");
            tail.rewrite_at = tail.len * 2;
        }
        let file = Arc::clone(&tail.file);
        // Flushed outside the lock: others may append meanwhile.
        drop(tail);
        if sync {
            file.sync_data().map_err(StorageError::io("flush", &path))?;
        }
        Ok(())
    }

    /// Forces the journal to disk.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let file = Arc::clone(&lock(&self.tail).file);
        file.sync_data()
            .map_err(StorageError::io("flush", &self.dir.join(NAME)))
    }

    fn rewrite_if_grown(&self, tail: &mut Tail) -> Result<(), StorageError> {
        if tail.len < tail.rewrite_at {
            return Ok(());
        }
        let (path, fresh) = (self.dir.join(NAME), self.dir.join("meta.journal.new"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&fresh)
            .map_err(StorageError::io("create", &fresh))?;
        let snapshot = lock(&self.meta).snapshot();
        let mut len = 0;
        for changes in snapshot.chunks(256) {
            let frame = frame(changes, &fresh)?;
            (&file)
                .write_all(&frame)
                .map_err(StorageError::io("write", &fresh))?;
            len += frame.len() as u64;
        }
        file.sync_data().map_err(StorageError::io("flush", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(StorageError::io("rename", &fresh))?;
        sync_dir(&self.dir)?;
        *tail = Tail {
            file: Arc::new(file),
            len,
            rewrite_at: REWRITE_FROM.max(len * 4),
            offline: false,
        };
        Ok(())
    }
}

/// Makes names created or renamed in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(StorageError::io("flush", dir))
}

fn frame(changes: &[Change], path: &Path) -> Result<Vec<u8>, StorageError> {
    let body = serde_json::to_vec(changes)
        .map_err(std::io::Error::from)
        .map_err(StorageError::io("encode an entry of", path))?;
    if body.len() > MAX_FRAME {
        let source = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        return Err(StorageError::Io {
            action: "append to",
            path: path.to_path_buf(),
            source,
        });
    }
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The next whole frame's body, or `None` at the end or at a torn tail.
fn read_frame(reader: &mut impl Read, left: u64) -> std::io::Result<Option<Vec<u8>>> {
    if left < 8 {
        return Ok(None);
    }
    let (mut len, mut crc) = ([0u8; 4], [0u8; 4]);
    reader.read_exact(&mut len)?;
    reader.read_exact(&mut crc)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME || len as u64 > left - 8 {
        return Ok(None);
    }
    let mut body = vec![0u8; len];
    reader.read_exact(&mut body)?;
    Ok((crc32c::crc32c(&body) == u32::from_be_bytes(crc)).then_some(body))
}

#[cfg(test)]
mod tests;
