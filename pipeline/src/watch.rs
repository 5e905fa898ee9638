//! Watch: plates of labs that only write files are announced when their files are complete and have come to rest.
//!
//! Looks at a store enter, at whatever times; plates to announce leave, each once. A plate is complete when every field
//! has every channel, every well of its plate map is there, and no file is empty; it is at rest when names, sizes and times
//! of its files have not changed for a while. One that rests for long without being complete is announced all the same:
//! what it lacks become dead letters. Fails where the store cannot be listed or the plate map not be read.

mod wells;

pub use wells::Wells;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wellspring_workloads::layout::FileProblem;
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::error::StageError;
use crate::ids;
use crate::plan::plates_of;
use crate::runs::Run;
use crate::zarr;

/// When a plate is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A complete plate: when its files have not changed for so long.
    pub complete: Duration,
    /// Any plate: when they have not changed for so long.
    pub incomplete: Duration,
}

/// What a store holds of a plate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Fields with at least one file.
    pub fields: usize,
    /// What is missing, in words; empty when the plate is complete.
    pub missing: Vec<String>,
    /// A hash of names, sizes and times of its files.
    pub content: String,
    /// The same of every well that lacks nothing.
    pub wells: BTreeMap<WellPosition, String>,
}

/// A plate to be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The barcode.
    pub plate: Barcode,
    /// Its fields.
    pub fields: usize,
    /// What is missing, in words.
    pub missing: Vec<String>,
}

/// Plates that were seen, and since when each is as it is.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: BTreeMap<Barcode, (String, Duration)>,
    announced: BTreeSet<Barcode>,
}

impl Watch {
    /// Takes what was seen at a time, counted from any beginning; gives the plates that are due. A plate that was given is
    /// not given again.
    pub fn look(&mut self, now: Duration, seen: BTreeMap<Barcode, Look>, patience: Patience) -> Vec<Ready> {
        self.waiting.retain(|plate, _| seen.contains_key(plate));
        let mut due = Vec::new();
        for (plate, look) in seen {
            if self.announced.contains(&plate) {
                continue;
            }
            let (content, since) = self
                .waiting
                .entry(plate.clone())
                .or_insert_with(|| (look.content.clone(), now));
            if *content != look.content {
                (*content, *since) = (look.content, now);
            }
            let needed = match look.missing.is_empty() {
                true => patience.complete,
                false => patience.incomplete,
            };
            if now.saturating_sub(*since) >= needed {
                self.waiting.remove(&plate);
                self.announced.insert(plate.clone());
                due.push(Ready {
                    plate,
                    fields: look.fields,
                    missing: look.missing,
                });
            }
        }
        due
    }

    /// Plates that are not due yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes plates back that could not be announced after all.
    pub fn take_back(&mut self, plates: &[Barcode]) {
        for plate in plates {
            self.announced.remove(plate);
        }
    }
}

/// Looks at every plate in the run's store.
///
/// # Errors
/// The store cannot be listed, no layout fits, or the plate map cannot be read.
pub async fn look(run: &Run) -> Result<BTreeMap<Barcode, Look>, StageError> {
    let listed = run.store.list(None).await?;
    let objects: BTreeMap<String, (u64, i64)> = listed
        .iter()
        .map(|object| (object.path.clone(), (object.bytes, object.modified_ms)))
        .collect();
    let found = plates_of(&run.store, &run.screen, listed).await?;
    let map = run.map.get(&run.screen).await?;
    let mut missing: BTreeMap<&Barcode, Vec<String>> = BTreeMap::new();
    let mut incomplete: BTreeMap<&Barcode, BTreeSet<(WellPosition, u32)>> = BTreeMap::new();
    let mut short: BTreeSet<(&Barcode, WellPosition)> = BTreeSet::new();
    for problem in &found.problems {
        let plate = match problem {
            FileProblem::MissingChannel { field, .. }
            | FileProblem::AbsentFile { field, .. }
            | FileProblem::UnusableImage { field, .. } => {
                short.insert((&field.plate, field.well));
                incomplete
                    .entry(&field.plate)
                    .or_default()
                    .insert((field.well, field.field));
                &field.plate
            }
            FileProblem::FewerFields { plate, well, .. } => {
                short.insert((plate, *well));
                plate
            }
            _ => continue,
        };
        missing.entry(plate).or_default().push(problem.to_string());
    }
    let plates: BTreeSet<&Barcode> = found.plates.keys().chain(missing.keys().copied()).collect();
    let look = |plate: &Barcode| {
        let fields = found.plates.get(plate).map_or(&[][..], Vec::as_slice);
        let mut missing = missing.get(plate).cloned().unwrap_or_default();
        let there: BTreeSet<WellPosition> = fields.iter().map(|field| field.well).collect();
        let begun = incomplete.get(plate);
        match map.plate(plate) {
            Some(wells) => {
                let begun: BTreeSet<WellPosition> =
                    begun.into_iter().flatten().map(|&(well, _)| well).collect();
                let absent = wells
                    .keys()
                    .filter(|well| !there.contains(well) && !begun.contains(well));
                missing.extend(absent.map(|well| format!("plate {plate} well {well} has no images yet")));
            }
            None => missing.push(format!("plate {plate} is not in {}", map.file())),
        }
        let mut parts: BTreeMap<WellPosition, Vec<Vec<u8>>> = BTreeMap::new();
        let mut arrays: BTreeSet<(WellPosition, &str)> = BTreeSet::new();
        let mut empty: BTreeSet<WellPosition> = BTreeSet::new();
        let files = fields.iter().flat_map(|field| {
            let planes = field.channels.iter().flat_map(|channel| &channel.planes);
            planes.map(|plane| (field.well, &plane.file))
        });
        for (well, file) in files {
            if file.size == 0 {
                missing.push(format!("{} is empty", file.path));
                empty.insert(well);
            }
            let (_, time) = objects.get(&file.path).copied().unwrap_or_default();
            let parts = parts.entry(well).or_default();
            parts.push(file.path.clone().into_bytes());
            parts.push([file.size.to_le_bytes(), time.to_le_bytes()].concat());
            if zarr::is_document(&file.path) {
                arrays.insert((well, file.path.as_str()));
            }
        }
        // The document of an array is written before its chunks.
        for (well, array) in arrays {
            let parts = parts.entry(well).or_default();
            let folder = &array[..array.rfind('/').map_or(0, |at| at + 1)];
            let chunks = objects
                .range(folder.to_owned()..)
                .take_while(|(path, _)| path.starts_with(folder));
            for (path, (bytes, time)) in chunks {
                parts.push(path.clone().into_bytes());
                parts.push([bytes.to_le_bytes(), time.to_le_bytes()].concat());
            }
        }
        let lacking = |well: &WellPosition| empty.contains(well) || short.contains(&(plate, *well));
        let wells = parts.iter().filter(|(well, _)| !lacking(well));
        let wells = wells.map(|(well, parts)| (*well, ids::content(parts))).collect();
        // Fields without all channels have files too: their number is what is known of them.
        let missed = missing.iter().map(|missing| missing.clone().into_bytes());
        let content = ids::content(parts.into_values().flatten().chain(missed));
        Look {
            fields: fields.len() + begun.map_or(0, BTreeSet::len),
            missing,
            content,
            wells,
        }
    };
    Ok(plates
        .into_iter()
        .map(|plate| (plate.clone(), look(plate)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        complete: Duration::from_secs(60),
        incomplete: Duration::from_secs(3_600),
    };

    fn seen(plate: &str, content: &str, missing: &[&str]) -> BTreeMap<Barcode, Look> {
        let look = Look {
            fields: 9,
            missing: missing.iter().map(|&text| text.to_owned()).collect(),
            content: content.to_owned(),
            wells: BTreeMap::new(),
        };
        BTreeMap::from([(plate.parse().unwrap(), look)])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_complete_plate_is_announced_once_when_it_rests() {
        let mut watch = Watch::default();
        assert!(watch.look(at(0), seen("P", "a", &[]), PATIENCE).is_empty());
        assert!(watch.look(at(59), seen("P", "a", &[]), PATIENCE).is_empty());
        // A file was written again: it rests from now on.
        assert!(watch.look(at(60), seen("P", "b", &[]), PATIENCE).is_empty());
        assert!(watch.look(at(100), seen("P", "b", &[]), PATIENCE).is_empty());
        assert_eq!(watch.look(at(120), seen("P", "b", &[]), PATIENCE).len(), 1);
        assert!(watch.look(at(900), seen("P", "b", &[]), PATIENCE).is_empty());
        assert_eq!(watch.waiting(), 0);
    }

    #[test]
    fn an_incomplete_plate_waits_longer_and_says_what_is_missing() {
        let mut watch = Watch::default();
        assert!(watch.look(at(0), seen("P", "a", &["A01"]), PATIENCE).is_empty());
        assert!(
            watch
                .look(at(3_599), seen("P", "a", &["A01"]), PATIENCE)
                .is_empty()
        );
        let due = watch.look(at(3_600), seen("P", "a", &["A01"]), PATIENCE);
        assert_eq!(due[0].missing, ["A01"]);
    }

    #[test]
    fn what_could_not_be_announced_is_due_again_and_what_went_away_is_forgotten() {
        let mut watch = Watch::default();
        let now = Patience {
            complete: Duration::ZERO,
            ..PATIENCE
        };
        let due = watch.look(at(0), seen("P", "a", &[]), now);
        watch.take_back(&[due[0].plate.clone()]);
        assert_eq!(watch.look(at(1), seen("P", "a", &[]), now).len(), 1);
        let mut watch = Watch::default();
        watch.look(at(0), seen("P", "a", &[]), PATIENCE);
        assert!(watch.look(at(30), BTreeMap::new(), PATIENCE).is_empty());
        assert!(watch.look(at(70), seen("P", "a", &[]), PATIENCE).is_empty());
    }
}
