//! Rows and compounds of a comparison on disk, to be published one after the other.
//!
//! They enter in the order in which they are found, and leave in it. Memory is one of them. Fails where the disk does.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wellspring_workloads::compare::{Comparison, CompoundSummary};

use crate::aside::{Aside, AsideWriter};
use crate::scratch::ScratchError;

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
pub struct FindingsWriter(AsideWriter);

/// All findings of a comparison.
#[derive(Debug)]
pub struct Findings(Aside);

impl FindingsWriter {
    /// In a folder with room for all of them.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn create(folder: &Path) -> Result<Self, ScratchError> {
        AsideWriter::create(folder).map(Self)
    }

    /// Puts a row aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn row(&mut self, row: &Comparison) -> Result<(), ScratchError> {
        self.0.push(&Found::Row(row))
    }

    /// Puts a compound aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn compound(&mut self, summary: &CompoundSummary) -> Result<(), ScratchError> {
        self.0.push(&Found::Compound(summary))
    }

    /// All that were put aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<Findings, ScratchError> {
        self.0.finish().map(Findings)
    }
}

impl Iterator for Findings {
    type Item = Result<Finding, ScratchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().transpose()
    }
}
