//! What of a run is on its topics already, and whether that is all of it.
//!
//! The run's statuses enter in their order. Plates that are added, come to something after all, are released or tried again
//! open a finished run again: its comparisons become others. Cannot fail.

use std::collections::BTreeSet;

use wellspring_workloads::words::Barcode;

use crate::events::{LetterAction, Status, Steering};

/// One run, as its statuses tell of it.
#[derive(Debug, Default)]
pub struct Published {
    /// Its plates: those it was submitted with, and those that were announced to it since, once its planner says so.
    pub(super) members: BTreeSet<Barcode>,
    /// Plates that an operator took out of it: they are no members any more, and nothing that is said of them counts.
    pub(super) cancelled: BTreeSet<Barcode>,
    /// Plates that came to nothing so far.
    nothing: BTreeSet<Barcode>,
    /// Plates that an operator let into the comparison although a gate holds them back.
    pub released: BTreeSet<Barcode>,
    /// Plates whose profiles are on their topic already.
    pub profiled: BTreeSet<Barcode>,
    /// How many comparisons are on their topic already.
    pub comparisons: u64,
    /// Whether all comparisons are on their topic already.
    pub finished: bool,
}

impl Published {
    /// Takes one of the run's statuses.
    pub(crate) fn take(&mut self, status: &Status) {
        if status.plate().is_some_and(|plate| self.cancelled.contains(plate)) {
            return;
        }
        match status {
            Status::RunSubmitted { plates, .. } => plates.iter().for_each(|plate| self.announced(plate)),
            Status::PlateSteered {
                plate,
                action: Steering::Cancelled,
                ..
            } => {
                self.members.remove(plate);
                self.cancelled.insert(plate.clone());
            }
            Status::PlateQueued { plate, .. } => self.announced(plate),
            Status::PlateImaging { plate, .. }
            | Status::PlatePlanned {
                plate,
                fields_planned: 1..,
                ..
            } => self.begun(plate),
            Status::PlatePlanned { plate, .. } => _ = self.nothing.insert(plate.clone()),
            Status::PlateProfiled { plate, .. } => _ = self.profiled.insert(plate.clone()),
            Status::PlateReleased { plate, .. } => {
                // Said twice it changes nothing.
                if self.released.insert(plate.clone()) {
                    self.profiled.remove(plate);
                    self.open_again();
                }
            }
            Status::ComparisonsPublished { records, .. } => {
                self.comparisons = self.comparisons.max(*records);
            }
            Status::RunFinished { .. } => {
                // One that was written while plates were being added does not speak of them.
                match self.members.is_subset(&self.profiled) {
                    true => self.finished = true,
                    false => self.open_again(),
                }
            }
            Status::LettersResolved {
                action: LetterAction::Retried,
                plates,
                ..
            } => {
                self.profiled.retain(|plate| !plates.contains(plate));
                self.open_again();
            }
            Status::RunSteered { .. } | Status::PlateSteered { .. } | Status::LettersResolved { .. } => {}
        }
    }

    /// A plate is announced; once more, if it came to nothing before.
    fn announced(&mut self, plate: &Barcode) {
        if self.nothing.contains(plate) {
            self.begun(plate);
        } else if !self.cancelled.contains(plate) && self.members.insert(plate.clone()) {
            self.open_again();
        }
    }

    /// Something of a plate is there: what was published of it before was of nothing.
    fn begun(&mut self, plate: &Barcode) {
        self.nothing.remove(plate);
        let anew = self.profiled.remove(plate);
        if self.members.insert(plate.clone()) || anew {
            self.open_again();
        }
    }

    fn open_again(&mut self) {
        self.comparisons = 0;
        self.finished = false;
    }
}
