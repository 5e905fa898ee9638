//! From the fields of a plate to its wells: which count, and their profiles.
//!
//! Fields enter in the plan's order, those of a well side by side; the plate's wells leave. Used by a run and by what is
//! fitted on a run's wells, so that both have the same profiles. Memory is one plate's profiles. Nothing fails.

use std::collections::BTreeMap;

use wellspring_workloads::aggregate::WellFields;
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::{FieldCount, held_back};
use crate::events::FieldFeatures;
use crate::quality::NUCLEI;

/// The fields of a plate on their way.
#[derive(Debug)]
pub struct PlateFields<'a> {
    screen: &'a Screen,
    plate: Barcode,
    /// Values of a profile: the first of each field's.
    width: usize,
    treatments: BTreeMap<WellPosition, Treatment>,
    counts: BTreeMap<WellPosition, FieldCount>,
    well: Option<WellInHand>,
    profiles: Vec<WellProfile>,
    short: Vec<(WellPosition, FieldCount)>,
}

/// What the fields of a plate came to.
#[derive(Debug)]
pub struct PlateWells {
    /// What each well was given.
    pub treatments: BTreeMap<WellPosition, Treatment>,
    /// Fields of each well that has any.
    pub counts: BTreeMap<WellPosition, FieldCount>,
    /// Profiles of wells with enough passing fields, by well.
    pub profiles: Vec<WellProfile>,
    /// Wells with too few passing fields for one; [`too_few_fields`](super::too_few_fields) has words for them.
    pub short: Vec<(WellPosition, FieldCount)>,
    /// Why the plate does not count.
    pub held_back: Option<String>,
}

/// The one well whose fields are being read.
#[derive(Debug)]
struct WellInHand {
    well: WellPosition,
    count: FieldCount,
    fields: WellFields,
    /// Nuclei of its fields, and how many were counted. Those that failed count too: an empty field is a loss of cells,
    /// and one that is blurred in one channel is none.
    nuclei: (f64, u32),
}

/// How many nuclei a field has, where they were counted.
pub fn nuclei(features: &FieldFeatures) -> Option<f64> {
    let mut measures = features.quality.iter().flat_map(|channel| &channel.measures);
    measures.find(|(name, _)| name == NUCLEI).map(|(_, count)| *count)
}

impl<'a> PlateFields<'a> {
    /// Of a plate with these treatments; profiles are of the first `width` values of its fields.
    pub fn new(
        screen: &'a Screen,
        plate: &Barcode,
        treatments: BTreeMap<WellPosition, Treatment>,
        width: usize,
    ) -> Self {
        Self {
            screen,
            plate: plate.clone(),
            width,
            treatments,
            counts: BTreeMap::new(),
            well: None,
            profiles: Vec::new(),
            short: Vec::new(),
        }
    }

    /// What a well was given; `None` for one that is not in the plate map.
    pub fn treatment(&self, well: WellPosition) -> Option<&Treatment> {
        self.treatments.get(&well)
    }

    /// Adds a field; one of a well that is not in the plate map counts for nothing.
    pub fn push(&mut self, features: &FieldFeatures) {
        let well = features.field.well;
        if !self.treatments.contains_key(&well) {
            return;
        }
        if self.well.as_ref().is_some_and(|in_hand| in_hand.well != well) {
            self.end_well();
        }
        let in_hand = self.well.get_or_insert_with(|| WellInHand {
            well,
            count: FieldCount::default(),
            fields: WellFields::new(self.screen.comparison.aggregate, self.width),
            nuclei: (0.0, 0),
        });
        in_hand.count.fields += 1;
        if let Some(nuclei) = nuclei(features) {
            in_hand.nuclei.0 += nuclei;
            in_hand.nuclei.1 += 1;
        }
        if features.passed {
            in_hand.count.passed += 1;
            let values = features.embedding.iter().copied().take(self.width);
            in_hand.fields.add(values, 1.0);
        }
    }

    /// The well's passing fields become its profile, if enough passed.
    fn end_well(&mut self) {
        let Some(WellInHand {
            well,
            count,
            fields,
            nuclei: (nuclei, counted),
        }) = self.well.take()
        else {
            return;
        };
        self.counts.insert(well, count);
        let enough = self.screen.quality.well_counts(count.passed, count.fields);
        match (fields.profile().filter(|_| enough), self.treatments.get(&well)) {
            (Some(values), Some(treatment)) => self.profiles.push(WellProfile {
                plate: self.plate.clone(),
                well,
                treatment: treatment.clone(),
                fields: count.passed,
                cell_count: (counted > 0).then(|| nuclei / f64::from(counted)),
                values,
            }),
            _ => self.short.push((well, count)),
        }
    }

    /// What they came to.
    pub fn finish(mut self) -> PlateWells {
        self.end_well();
        PlateWells {
            held_back: held_back(&self.screen.quality, &self.treatments, &self.counts),
            short: self.short,
            treatments: self.treatments,
            counts: self.counts,
            profiles: self.profiles,
        }
    }
}
