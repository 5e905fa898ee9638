//! Plates aligned by Harmony: all wells at once, after their principal components (SCIENCE 5.6).
//!
//! Plates pass by and their components stay, since Harmony moves each well by what all others look like; moved wells
//! leave, plate by plate. A plate is a batch, a disease a state. Fails where a disease lies on one plate only, and on
//! more wells than may be held.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use rayon::prelude::*;

use super::design::Design;
use super::engine::{StreamError, batches, checked};
use super::frames::Frame;
use super::{CompareError, ComparisonSettings, Note, NoteKind};
use crate::align::FittedTransform;
use crate::align::harmony::{HarmonySettings, harmony};
use crate::matrix::FeatureMatrix;
use crate::profile::{Role, WellProfile};
use crate::words::Barcode;

/// Values of all wells at most: 512 MiB, and Harmony takes about four times as much.
const MOST_VALUES: usize = 1 << 27;

/// The moved wells of a screen.
#[derive(Debug, Clone)]
pub(super) struct Harmonised {
    /// By place in the order of reading.
    plates: BTreeMap<usize, FeatureMatrix>,
    /// How it went.
    pub(super) note: Note,
}

impl Harmonised {
    /// The rows of the plate at a place, in the order of its wells.
    pub(super) fn plate(&self, place: usize) -> Option<&FeatureMatrix> {
        self.plates.get(&place)
    }

    /// Moves the wells of all plates; `components` takes their scaled profiles apart.
    pub(super) fn fit<W, E>(
        frame: &Frame,
        components: &FittedTransform,
        design: &Design,
        settings: &ComparisonSettings,
        read: &mut (impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send),
    ) -> Result<Self, StreamError<E>>
    where
        W: Borrow<WellProfile> + Send + Sync,
        E: Send,
    {
        let (wells, width) = (design.wells(), components.width());
        if wells.saturating_mul(width) > MOST_VALUES {
            return Err(CompareError::HarmonyTooLarge {
                wells,
                components: width,
                most: MOST_VALUES,
            }
            .into());
        }
        let mut rows = FeatureMatrix::new(width);
        let (mut batch, mut state): (Vec<String>, Vec<String>) = Default::default();
        let mut places: Vec<(usize, usize)> = Vec::new();
        let mut profile_width = None;
        batches(design, read, |from, plates| {
            let sorted = checked(plates, &mut profile_width)?;
            let plates = frame.alignable(from, &sorted, settings)?;
            let taken: Vec<_> = plates
                .par_iter()
                .filter_map(|plate| Some((plate, components.apply(&plate.rows()?))))
                .collect();
            for (plate, taken) in taken {
                let taken = taken.map_err(CompareError::from)?;
                for (row, well) in taken.rows().zip(plate.wells) {
                    rows.push(row).map_err(|error| CompareError::Width {
                        plate: well.plate.clone(),
                        well: well.well,
                        expected: error.expected,
                        found: error.found,
                    })?;
                    batch.push(well.plate.to_string());
                    state.push(state_of(well));
                }
                places.push((plate.place, plate.wells.len()));
            }
            Ok(())
        })?;
        let asked = HarmonySettings {
            seed: settings.seed,
            ..HarmonySettings::default()
        };
        let moved = harmony(&rows, &batch, &state, &asked).map_err(CompareError::from)?;
        let rounds = moved.objective.len();
        let ended = if moved.converged {
            format!("settled after {rounds} rounds")
        } else {
            format!("did not settle within {rounds} rounds: read distances with care")
        };
        let mut start = 0;
        let plates = places.into_iter().map(|(place, wells)| {
            let range: Vec<usize> = (start..start + wells).collect();
            start += wells;
            (place, moved.rows.select(&range))
        });
        Ok(Self {
            plates: plates.collect(),
            note: Note::of_screen(
                NoteKind::Alignment,
                format!(
                    "plates were aligned by Harmony, which {ended}: a plate that comes later can only be compared \
                     together with these"
                ),
            ),
        })
    }
}

/// What a well's cells are, apart from what it was given.
fn state_of(well: &WellProfile) -> String {
    let treatment = &well.treatment;
    let cells = if treatment.role == Role::Reference {
        "reference"
    } else {
        "phenotype"
    };
    match &treatment.disease {
        Some(disease) => format!("{cells} {disease}"),
        None => cells.to_owned(),
    }
}
