//! Reading a partition's segment files back after a start, and cutting a torn tail.
//!
//! Enters: a folder of segment files. Leaves: segments with their index, and producer state. Only
//! the tail of the newest file may be torn (it is cut, with a log line); damage elsewhere is an error.

use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::batch::{BatchHeader, HEADER, MARKER_LEN, marker_commits};
use super::producers::Producers;
use super::segment::Segment;
use crate::error::StorageError;

/// What recovery found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Segment>,
    pub(crate) producers: Producers,
    pub(crate) next_offset: i64,
}

/// Reads all segments of `dir`, creating the folder and a first segment where absent.
pub(crate) fn recover(dir: &Path, log_start: i64) -> Result<Recovered, StorageError> {
    fs::create_dir_all(dir).map_err(StorageError::io("create", dir))?;
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        let name = entry.file_name();
        if entry.path().extension().is_some_and(|e| e == "compacting") {
            // A compaction was cut short; the segment it read is still whole.
            fs::remove_file(entry.path()).map_err(StorageError::io("remove", &entry.path()))?;
        }
        let base = name
            .to_str()
            .and_then(|n| n.strip_suffix(".log"))
            .and_then(|n| n.parse::<i64>().ok());
        bases.extend(base);
    }
    bases.sort_unstable();
    if bases.is_empty() {
        bases.push(log_start);
    }
    let mut producers = Producers::default();
    let mut segments: Vec<Segment> = Vec::with_capacity(bases.len());
    let mut next_offset = bases.first().copied().unwrap_or(0);
    let newest = bases.len() - 1;
    for (i, base) in bases.into_iter().enumerate() {
        let mut segment = Segment::open(dir, base)?;
        if base < next_offset {
            return Err(StorageError::Corrupt {
                path: segment.path,
                position: 0,
                problem: "segment overlaps the one before it",
            });
        }
        next_offset = base;
        scan(&mut segment, &mut producers, &mut next_offset, i == newest)?;
        segments.push(segment);
    }
    Ok(Recovered {
        segments,
        producers,
        next_offset,
    })
}

/// Reads one segment; in the newest one checksums are verified and a torn tail is cut.
fn scan(
    segment: &mut Segment,
    producers: &mut Producers,
    next_offset: &mut i64,
    newest: bool,
) -> Result<(), StorageError> {
    let path = segment.path.clone();
    let size = segment
        .file
        .metadata()
        .map_err(StorageError::io("inspect", &path))?
        .len();
    let file = std::sync::Arc::clone(&segment.file);
    let mut reader = BufReader::with_capacity(64 << 10, &*file);
    reader
        .seek(SeekFrom::Start(0))
        .map_err(StorageError::io("read", &path))?;
    let mut body = Vec::new();
    loop {
        let left = size - segment.len;
        let problem = match read_batch(&mut reader, left, newest, &mut body) {
            Ok(Some(header)) if header.base_offset >= *next_offset => {
                let commits = header.is_control().then(|| marker_commits(&body)).flatten();
                if header.is_control() && commits.is_none() {
                    "control batch of unknown type"
                } else {
                    producers.note(&header, commits);
                    *next_offset = header.last_offset() + 1;
                    segment.count_in(&header);
                    continue;
                }
            }
            Ok(Some(_)) => "offsets run backwards",
            Ok(None) if left == 0 => break,
            Ok(None) => "incomplete or damaged record batch",
            Err(source) => {
                return Err(StorageError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        if !newest {
            return Err(StorageError::Corrupt {
                path,
                position: segment.len,
                problem,
            });
        }
        tracing::warn!(file = %path.display(), position = segment.len, bytes = left, problem,
            "cut the torn tail left by an interrupted write");
        segment.cut_tail()?;
        break;
    }
    segment.dirty = newest;
    Ok(())
}

/// Reads the next batch into `body` (whole where `verify`, or for control batches; else only its
/// header). `None` where there is no whole, valid batch.
fn read_batch(
    reader: &mut BufReader<&fs::File>,
    left: u64,
    verify: bool,
    body: &mut Vec<u8>,
) -> std::io::Result<Option<BatchHeader>> {
    if left < HEADER as u64 {
        return Ok(None);
    }
    body.resize(HEADER, 0);
    reader.read_exact(body)?;
    let Ok(header) = BatchHeader::parse(body) else {
        return Ok(None);
    };
    if header.total_len as u64 > left {
        return Ok(None);
    }
    let small_control = header.is_control() && header.total_len <= MARKER_LEN;
    if verify || small_control {
        body.resize(header.total_len, 0);
        reader.read_exact(&mut body[HEADER..])?;
        if !header.checksum_ok(body) {
            return Ok(None);
        }
    } else {
        reader.seek_relative((header.total_len - HEADER) as i64)?;
    }
    if body.capacity() > 1 << 20 {
        body.shrink_to(1 << 20);
    }
    Ok(Some(header))
}
