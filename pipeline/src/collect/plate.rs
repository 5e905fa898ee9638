//! One plate's fields: where each one's record lies, and which failed.
//!
//! Records enter and lie in the run's scratch file; once all fields of the plate are accounted for, so does the index of
//! them: what stays in memory of a complete plate is its counts. Fails where the disk does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wellspring_workloads::words::WellPosition;

use crate::ids::Content;
use crate::scratch::{Place, ScratchError, ScratchWriter};

/// A field by its well and number, in the plan's order.
pub type Field = (WellPosition, u32);

/// One plate's fields.
#[derive(Debug, Default)]
pub(super) struct PlateFields {
    pub(super) planned: Option<Planned>,
    /// Fields that were planned while the plate was still being imaged.
    pub(super) imaged: Option<u32>,
    /// Each field's record; empty while the index lies in the scratch file.
    records: BTreeMap<Field, Record>,
    aside: Option<Aside>,
    failed: BTreeSet<Field>,
    /// Dead letters of its planning.
    pub(super) plan_letters: BTreeSet<String>,
}

/// What its plan says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) expected: u32,
    pub(super) planned: u32,
    pub(super) letters: u32,
}

/// An index in the scratch file.
#[derive(Debug, Clone, Copy)]
struct Aside {
    fields: usize,
    /// Fields that failed and are not in it.
    failed: usize,
    place: Place,
}

/// A field's record.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where it lies in the scratch file.
    pub(super) place: Place,
    /// What it was made from, as its id says.
    pub(super) content: Option<Content>,
}

/// A field of an index in the scratch file.
type Entry = (Field, Record);

impl PlateFields {
    /// Fields that arrived.
    pub(super) fn done(&self) -> usize {
        self.aside.map_or(self.records.len(), |aside| aside.fields)
    }

    /// Fields that failed and did not arrive another time.
    pub(super) fn failed(&self) -> usize {
        let here = || {
            let failed = self.failed.iter();
            failed.filter(|field| !self.records.contains_key(field)).count()
        };
        self.aside.map_or_else(here, |aside| aside.failed)
    }

    /// Forgets a plan that came to nothing, since another one follows.
    pub(super) fn forget_nothing(&mut self) {
        self.planned.take_if(|planned| planned.planned == 0);
    }

    /// Whether work on it has begun, and what belongs to it is not known yet.
    pub(super) fn is_open(&self) -> bool {
        self.planned.is_none() && (self.imaged.is_some() || self.done() > 0)
    }

    /// Whether each planned field has arrived or failed.
    pub(super) fn complete(&self) -> bool {
        self.planned.is_some_and(|p| {
            self.done() + self.failed() >= p.planned as usize && self.plan_letters.len() >= p.letters as usize
        })
    }

    /// Takes a field's record, unless it is here.
    pub(super) fn arrive(
        &mut self,
        field: Field,
        (record, content): (&[u8], Option<Content>),
        scratch: &mut ScratchWriter,
    ) -> Result<(), ScratchError> {
        let records = self.here(scratch)?;
        if let std::collections::btree_map::Entry::Vacant(entry) = records.entry(field) {
            let place = scratch.push(record)?;
            entry.insert(Record { place, content });
        }
        Ok(())
    }

    /// A field failed, or is to be tried again.
    pub(super) fn fail(
        &mut self,
        field: Field,
        failed: bool,
        scratch: &mut ScratchWriter,
    ) -> Result<(), ScratchError> {
        self.here(scratch)?;
        if failed {
            self.failed.insert(field);
        } else {
            self.failed.remove(&field);
        }
        Ok(())
    }

    /// Puts the index of a complete plate into the scratch file.
    pub(super) fn settle(&mut self, scratch: &mut ScratchWriter) -> Result<(), ScratchError> {
        if self.aside.is_some() || !self.complete() {
            return Ok(());
        }
        let entries = self.records.iter().map(|(&field, &record)| (field, record));
        let place = scratch.put(&entries.collect::<Vec<Entry>>())?;
        self.aside = Some(Aside {
            fields: self.records.len(),
            failed: self.failed(),
            place,
        });
        self.records = BTreeMap::new();
        Ok(())
    }

    /// The records, in the plan's order; all that was written is flushed.
    pub(super) fn index(&self, scratch: &mut ScratchWriter) -> Result<Vec<Entry>, ScratchError> {
        scratch.flush()?;
        match self.aside {
            None => Ok(self
                .records
                .iter()
                .map(|(&field, &record)| (field, record))
                .collect()),
            Some(aside) => scratch.get(aside.place),
        }
    }

    /// The index in memory.
    fn here(&mut self, scratch: &mut ScratchWriter) -> Result<&mut BTreeMap<Field, Record>, ScratchError> {
        if let Some(aside) = self.aside {
            let entries: Vec<Entry> = scratch.get(aside.place)?;
            self.records = entries.into_iter().collect();
            self.aside = None;
        }
        Ok(&mut self.records)
    }
}
