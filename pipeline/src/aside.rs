//! Records that wait on disk, to be read again in the order in which they came.
//!
//! They enter and leave one by one; memory is one of them. The file has no name and ends with the process. Fails where the
//! disk does.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::scratch::{ScratchError, unnamed_file};

/// Records being put aside.
#[derive(Debug)]
pub struct AsideWriter {
    file: BufWriter<File>,
    folder: PathBuf,
}

/// All records that were put aside, from the first on.
#[derive(Debug)]
pub struct Aside {
    file: BufReader<File>,
    folder: PathBuf,
}

impl AsideWriter {
    /// In a folder with room for all of them.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn create(folder: &Path) -> Result<Self, ScratchError> {
        Ok(Self {
            file: BufWriter::new(unnamed_file(folder)?),
            folder: folder.to_owned(),
        })
    }

    /// Puts a record aside: its length, then itself.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, record: &impl Serialize) -> Result<(), ScratchError> {
        let written = postcard::to_allocvec(record)
            .map_err(io::Error::other)
            .and_then(|bytes| {
                let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                self.file.write_all(&length.to_le_bytes())?;
                self.file.write_all(&bytes)
            });
        written.map_err(failed(&self.folder, "written"))
    }

    /// All that were put aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<Aside, ScratchError> {
        let Self { file, folder } = self;
        let mut file = file
            .into_inner()
            .map_err(|error| failed(&folder, "written")(error.into_error()))?;
        file.rewind().map_err(failed(&folder, "read"))?;
        Ok(Aside {
            file: BufReader::new(file),
            folder,
        })
    }
}

impl Aside {
    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// The disk refuses, or the record is another type's.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ScratchError> {
        self.read().map_err(failed(&self.folder, "read"))
    }

    fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.file.read_exact(&mut bytes)?;
        postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
    }
}

fn failed(folder: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> ScratchError + use<> {
    let folder = folder.to_owned();
    move |source| ScratchError {
        folder,
        doing,
        source,
    }
}
