//! What of a run is on its topics already, and whether that is all of it.
//!
//! The run's statuses enter in their order. Plates that are added, come to something after all, are released or tried again
//! open a finished run again: its comparisons become others. Cannot fail.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Which profiles those are, by their hash, where it was told.
    contents: BTreeMap<Barcode, String>,
    /// How many comparisons are on their topic already.
    comparisons: u64,
    /// Hash of the profiles that those come from, where it was told.
    comparisons_of: Option<String>,
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
            Status::PlateProfiled { plate, content, .. } => {
                self.profiled.insert(plate.clone());
                match content {
                    Some(content) => _ = self.contents.insert(plate.clone(), content.clone()),
                    None => _ = self.contents.remove(plate),
                }
            }
            Status::PlateReleased { plate, .. } => {
                // Said twice it changes nothing.
                if self.released.insert(plate.clone()) {
                    self.profiled.remove(plate);
                    self.open_again();
                }
            }
            Status::ComparisonsPublished { records, content, .. } => {
                let before = match self.comparisons_of == *content {
                    true => self.comparisons,
                    false => 0,
                };
                self.comparisons = before.max(*records);
                self.comparisons_of.clone_from(content);
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

    /// Whether a plate's profiles of this hash are on their topic: a service that is asked again may answer otherwise.
    pub(crate) fn has_profiles(&self, plate: &Barcode, content: &str) -> bool {
        let was = self.contents.get(plate);
        self.profiled.contains(plate) && was.is_none_or(|was| was == content)
    }

    /// How many comparisons that come from profiles of this hash are on their topic, in the order in which they are found.
    pub(crate) fn comparisons_of(&self, content: &str) -> u64 {
        match self.comparisons_of.as_deref().is_none_or(|was| was == content) {
            true => self.comparisons,
            false => 0,
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
        self.comparisons_of = None;
        self.finished = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_of_other_profiles_does_not_count() {
        let plate: Barcode = "P".parse().unwrap();
        let mut published = Published::default();
        let profiled = |content: Option<&str>| Status::PlateProfiled {
            run: "r".to_owned(),
            plate: plate.clone(),
            held: None,
            content: content.map(str::to_owned),
        };
        let compared = |records, content: Option<&str>| Status::ComparisonsPublished {
            run: "r".to_owned(),
            records,
            content: content.map(str::to_owned),
        };
        assert!(!published.has_profiles(&plate, "a"));
        // As versions before this one told it.
        published.take(&profiled(None));
        published.take(&compared(5, None));
        assert!(published.has_profiles(&plate, "a"));
        assert_eq!(published.comparisons_of("a"), 5);

        published.take(&profiled(Some("a")));
        published.take(&compared(7, Some("a")));
        assert!(published.has_profiles(&plate, "a") && !published.has_profiles(&plate, "b"));
        assert_eq!(
            (published.comparisons_of("a"), published.comparisons_of("b")),
            (7, 0)
        );
        published.take(&profiled(Some("b")));
        published.take(&compared(3, Some("b")));
        assert!(published.has_profiles(&plate, "b"));
        assert_eq!(
            (published.comparisons_of("a"), published.comparisons_of("b")),
            (0, 3)
        );
    }
}
