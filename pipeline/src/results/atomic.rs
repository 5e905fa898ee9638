//! A file that exists under its own name only when it is whole.
//!
//! Bytes enter and go to `<name>.partial`; [`AtomicFile::commit`] forces them to the disk and renames. Whoever is
//! killed in between leaves a `.partial` file, which the next attempt overwrites and no reader takes for a result.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::WriteError;

/// A file being written; gone if dropped before [`commit`](AtomicFile::commit).
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    place: PartialPath,
}

/// The two names of a file; removes the partial one when dropped before the rename.
#[derive(Debug)]
pub(super) struct PartialPath {
    partial: PathBuf,
    target: PathBuf,
    renamed: bool,
}

impl PartialPath {
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Forces `file` to the disk and gives it its name.
    pub(super) fn commit(mut self, file: &File) -> Result<(), WriteError> {
        let fail = |action| {
            let path = self.target.clone();
            move |source| WriteError::Io { path, action, source }
        };
        file.sync_all().map_err(fail("force to disk"))?;
        fs::rename(&self.partial, &self.target).map_err(fail("rename into place"))?;
        self.renamed = true;
        sync_folder(&self.target).map_err(|source| WriteError::Io {
            path: self.target.clone(),
            action: "force to disk the folder of",
            source,
        })
    }
}

impl Drop for PartialPath {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing depends on it: a left-over partial file is overwritten by the next attempt.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// The rename itself must survive a power cut, which on Unix means syncing the folder.
#[cfg(unix)]
fn sync_folder(target: &Path) -> io::Result<()> {
    File::open(folder_of(target))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_target: &Path) -> io::Result<()> {
    Ok(())
}

/// The folder a file is in.
pub(super) fn folder_of(target: &Path) -> &Path {
    target
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The name a file has while it is written: `<name>.partial`.
pub fn partial_name(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

impl AtomicFile {
    /// Opens `<path>.partial` for writing; an older partial file is overwritten, an older `path` stays until
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// The partial file cannot be created.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let partial = partial_name(path);
        let file = File::create(&partial).map_err(|source| WriteError::Io {
            path: partial.clone(),
            action: "create",
            source,
        })?;
        Ok(Self {
            file,
            place: PartialPath {
                partial,
                target: path.to_owned(),
                renamed: false,
            },
        })
    }

    /// The name the file will have.
    pub fn path(&self) -> &Path {
        &self.place.target
    }

    /// Forces the bytes to the disk and gives the file its name.
    ///
    /// # Errors
    /// The disk refuses; the partial file is then removed.
    pub fn commit(self) -> Result<(), WriteError> {
        self.place.commit(&self.file)
    }

    /// The open file and its names, for a writer that owns the file.
    pub(super) fn into_parts(self) -> (File, PartialPath) {
        (self.file, self.place)
    }

    /// Writes `bytes` as the whole of `path`.
    ///
    /// # Errors
    /// The disk refuses; nothing is left behind and an older file stays.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
        let mut file = Self::create(path)?;
        file.write_all(bytes).map_err(|source| WriteError::Io {
            path: path.to_owned(),
            action: "write",
            source,
        })?;
        file.commit()
    }
}

/// Removes what an earlier attempt left under this name and this one does not write again.
///
/// # Errors
/// The disk refuses.
pub(crate) fn remove_earlier(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WriteError::Io {
            path: path.to_owned(),
            action: "remove",
            source,
        }),
        _ => Ok(()),
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_file_is_never_taken_as_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        AtomicFile::write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of the ne").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(!partial_name(&path).exists());
    }

    #[test]
    fn a_left_over_partial_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        fs::write(partial_name(&path), b"a long rest of a killed run").unwrap();
        AtomicFile::write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!partial_name(&path).exists());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(&dir.path().join("no/run.json")).unwrap_err();
        assert!(error.to_string().contains("run.json"), "{error}");
    }
}
