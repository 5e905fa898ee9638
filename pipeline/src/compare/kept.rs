//! The profiles of a run on disk: a comparison reads each plate's once or twice, in its own order, and publishing once
//! more.
//!
//! Plates enter by barcode and leave in any order. Memory is a place per plate. The file has no name and ends with the
//! process. Fails where the disk does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::scratch::{Place, Scratch, ScratchError, ScratchWriter};

/// Profiles being put aside.
#[derive(Debug)]
pub(super) struct KeptWriter {
    file: ScratchWriter,
    plates: BTreeMap<Barcode, KeptPlate>,
}

/// The profiles of all plates.
#[derive(Debug)]
pub struct KeptProfiles {
    file: Scratch,
    plates: BTreeMap<Barcode, KeptPlate>,
}

#[derive(Debug, Clone, Copy)]
struct KeptPlate {
    wells: Place,
    /// Of all its wells, one after the other.
    values: Place,
}

/// A profile without its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptWell {
    pub(super) well: WellPosition,
    pub(super) treatment: Treatment,
    fields: u32,
    cell_count: Option<f64>,
    width: usize,
}

impl KeptWriter {
    /// In a folder with room for all of them.
    pub(super) fn create(folder: &Path) -> Result<Self, ScratchError> {
        Ok(Self {
            file: ScratchWriter::create(folder)?,
            plates: BTreeMap::new(),
        })
    }

    /// Puts a plate aside.
    pub(super) fn plate(&mut self, plate: &Barcode, profiles: &[WellProfile]) -> Result<(), ScratchError> {
        let wells: Vec<KeptWell> = profiles
            .iter()
            .map(|profile| KeptWell {
                well: profile.well,
                treatment: profile.treatment.clone(),
                fields: profile.fields,
                cell_count: profile.cell_count,
                width: profile.values.len(),
            })
            .collect();
        let wells = self.file.put(&wells)?;
        let values = self
            .file
            .push_values(profiles.iter().flat_map(|profile| profile.values.iter().copied()))?;
        self.plates.insert(plate.clone(), KeptPlate { wells, values });
        Ok(())
    }

    pub(super) fn finish(self) -> Result<KeptProfiles, ScratchError> {
        Ok(KeptProfiles {
            file: self.file.finish()?,
            plates: self.plates,
        })
    }
}

impl KeptProfiles {
    /// The plates, by barcode.
    pub(super) fn plates(&self) -> impl Iterator<Item = &Barcode> {
        self.plates.keys()
    }

    /// What the wells of a plate with profiles were given.
    pub(super) fn wells(&self, plate: &Barcode) -> Result<Vec<KeptWell>, ScratchError> {
        let kept = self.plates.get(plate);
        kept.map_or(Ok(Vec::new()), |kept| self.file.get(kept.wells))
    }

    /// The profiles of a plate, by well; none of a plate that is not here.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn plate(&self, plate: &Barcode) -> Result<Vec<WellProfile>, ScratchError> {
        let Some(kept) = self.plates.get(plate) else {
            return Ok(Vec::new());
        };
        let mut values = Vec::new();
        self.file.read_values(kept.values, &mut values)?;
        let mut values = values.into_iter();
        let profiles = self.wells(plate)?.into_iter().map(|kept| WellProfile {
            plate: plate.clone(),
            well: kept.well,
            treatment: kept.treatment,
            fields: kept.fields,
            cell_count: kept.cell_count,
            values: values.by_ref().take(kept.width).collect(),
        });
        Ok(profiles.collect())
    }
}

#[cfg(test)]
mod tests {
    use wellspring_workloads::profile::Role;

    use super::*;

    #[test]
    fn profiles_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let profile = |plate: &str, well: &str, value: f32| WellProfile {
            plate: plate.parse().unwrap(),
            well: well.parse().unwrap(),
            treatment: Treatment {
                role: Role::Treated,
                disease: None,
                compound: Some("drug".to_owned()),
                dose: Some(0.1 + 0.2),
            },
            fields: 3,
            cell_count: Some(1.0 / 3.0),
            values: vec![value, -0.0, f32::MIN_POSITIVE],
        };
        let plates = [
            vec![profile("P2", "A01", 0.1), profile("P2", "B02", f32::MAX)],
            Vec::new(),
            vec![profile("P1", "A01", 7.5)],
        ];
        let mut writer = KeptWriter::create(folder.path()).unwrap();
        for (name, profiles) in ["P2", "empty", "P1"].into_iter().zip(&plates) {
            writer.plate(&name.parse().unwrap(), profiles).unwrap();
        }
        let kept = writer.finish().unwrap();
        let names: Vec<&str> = kept.plates().map(Barcode::as_str).collect();
        assert_eq!(names, ["P1", "P2", "empty"]);
        for (name, profiles) in ["P2", "empty", "P1"].into_iter().zip(&plates) {
            assert_eq!(kept.plate(&name.parse().unwrap()).unwrap(), *profiles);
        }
        assert!(kept.plate(&"P3".parse().unwrap()).unwrap().is_empty());
        assert_eq!(
            kept.wells(&"P2".parse().unwrap()).unwrap()[1].well.to_string(),
            "B02"
        );
    }
}
