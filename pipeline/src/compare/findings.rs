//! Rows and compounds of a comparison on disk, to be published one after the other.
//!
//! They enter in the order in which they are found, and leave in it. Memory is one of them. The file has no name and
//! ends with the process. Fails where the disk does.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wellspring_workloads::compare::{Comparison, CompoundSummary};

use crate::scratch::{ScratchError, unnamed_file};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Finding {
    /// A compound at a dose.
    Row(Box<Comparison>),
    /// A compound.
    Compound(Box<CompoundSummary>),
}

/// [`Finding`] before it is anybody's; serialises to the same bytes.
#[derive(Serialize)]
enum Found<'a> {
    Row(&'a Comparison),
    Compound(&'a CompoundSummary),
}

/// Findings being put aside.
#[derive(Debug)]
pub struct FindingsWriter {
    file: BufWriter<File>,
    folder: PathBuf,
}

/// All findings of a comparison.
#[derive(Debug)]
pub struct Findings {
    file: BufReader<File>,
    folder: PathBuf,
}

impl FindingsWriter {
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

    /// Puts a row aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn row(&mut self, row: &Comparison) -> Result<(), ScratchError> {
        self.push(&Found::Row(row))
    }

    /// Puts a compound aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn compound(&mut self, summary: &CompoundSummary) -> Result<(), ScratchError> {
        self.push(&Found::Compound(summary))
    }

    /// All that were put aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<Findings, ScratchError> {
        let Self { file, folder } = self;
        let mut file = file
            .into_inner()
            .map_err(|error| failed(&folder, "written")(error.into_error()))?;
        file.rewind().map_err(failed(&folder, "read"))?;
        Ok(Findings {
            file: BufReader::new(file),
            folder,
        })
    }

    /// Its length, then the finding.
    fn push(&mut self, finding: &Found<'_>) -> Result<(), ScratchError> {
        let written = postcard::to_allocvec(finding)
            .map_err(io::Error::other)
            .and_then(|bytes| {
                let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                self.file.write_all(&length.to_le_bytes())?;
                self.file.write_all(&bytes)
            });
        written.map_err(failed(&self.folder, "written"))
    }
}

impl Findings {
    fn read(&mut self) -> io::Result<Option<Finding>> {
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

impl Iterator for Findings {
    type Item = Result<Finding, ScratchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(failed(&self.folder, "read")).transpose()
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
