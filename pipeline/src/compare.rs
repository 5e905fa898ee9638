//! Compare: a complete run becomes profiles, comparisons and calls.
//!
//! A [`Collection`] enters and is read field by field in the plan's order; rows go to the tables as they are read,
//! fields are averaged into wells, and the wells of all plates are compared by the mathematics of
//! `wellspring_workloads::compare`. [`Compared`] leaves. What fails: the disk; a screen that cannot be compared is an
//! answer, not a failure.

use std::collections::BTreeMap;
use std::path::Path;

use wellspring_workloads::compare::{CompareError, CompoundSummary, ScreenComparison};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::collect::Collection;
use crate::drift::{Measured, Watch, watch};
use crate::error::{Stage, StageError};
use crate::events::FieldFeatures;
use crate::quality::MEASURES;
use crate::report::{FlagCount, PlateFacts, WellFacts};
use crate::results::{
    FeatureRow, FeatureTable, FieldQuality, ProfileTable, Provenance, QualityRow, QualityTable, WriteError,
};
use crate::runs::Run;
use crate::wells::{FieldCount, held_back, plate_facts};

/// What a run comes to.
#[derive(Debug)]
pub struct Compared {
    /// One per well with enough passing fields, by plate and well.
    pub profiles: Vec<WellProfile>,
    /// The comparison, or why there is none.
    pub comparison: Result<ScreenComparison, CompareError>,
    /// Every plate with what its wells were given.
    pub plates: Vec<PlateFacts>,
    /// How often each quality flag was raised.
    pub flags: Vec<FlagCount>,
    /// Wells and plates that were left out, in words.
    pub left_out: Vec<String>,
    /// What the watch over the control wells saw.
    pub drift: Watch,
}

/// Writes the field and well tables into `out` while it builds profiles, then compares.
pub fn compare(
    run: &Run,
    collection: &mut Collection,
    map: Option<&PlateMap>,
    provenance: &Provenance,
    out: &Path,
) -> Result<Compared, StageError> {
    let mut builder = ProfileBuilder::create(run, provenance, out).map_err(disk)?;
    let plates: Vec<Barcode> = collection.plates().cloned().collect();
    for plate in &plates {
        let treatments = map
            .and_then(|map| run.screen.treatments(map, plate).ok())
            .unwrap_or_default();
        builder.start_plate(plate, treatments);
        for features in collection.fields(plate)? {
            builder.push(&features?).map_err(disk)?;
        }
        builder.end_plate().map_err(disk)?;
    }
    let ProfileBuilder {
        features,
        quality,
        profile_table,
        profiles,
        plates,
        flags,
        mut left_out,
        measured,
        ..
    } = builder;
    features.finish().map_err(disk)?;
    quality.finish().map_err(disk)?;
    profile_table.finish().map_err(disk)?;
    let drift = watch(&profiles, &measured, &run.screen, provenance)
        .map_err(|error| StageError::internal(Stage::Compare, error))?;
    left_out.extend(drift.left_out.iter().cloned());
    let comparison = wellspring_workloads::compare::compare(&drift.kept(&profiles), &run.screen.comparison);
    let flags = flags
        .into_iter()
        .map(|(flag, (fields, failed))| FlagCount { flag, fields, failed })
        .collect();
    Ok(Compared {
        profiles,
        comparison,
        plates,
        flags,
        left_out,
        drift,
    })
}

fn disk(error: WriteError) -> StageError {
    StageError::internal(Stage::Compare, error)
}

struct ProfileBuilder<'a> {
    run: &'a Run,
    features: FeatureTable,
    quality: QualityTable,
    profile_table: ProfileTable,
    profiles: Vec<WellProfile>,
    plates: Vec<PlateFacts>,
    flags: BTreeMap<String, (u64, u64)>,
    left_out: Vec<String>,
    measured: Measured,
    plate: Option<PlateInHand>,
}

struct PlateInHand {
    barcode: Barcode,
    treatments: BTreeMap<WellPosition, Treatment>,
    counts: BTreeMap<WellPosition, FieldCount>,
    well: Option<WellInHand>,
    /// Sum and number of the focus slopes of reference wells, by channel.
    focus: BTreeMap<String, (f64, u32)>,
    first_profile: usize,
}

/// The one well whose fields are being read: they lie side by side in the plan's order.
struct WellInHand {
    well: WellPosition,
    count: FieldCount,
    sum: Vec<f64>,
}

/// The measure of focus that is followed from plate to plate.
const FOCUS: &str = "PowerLogLogSlope";

impl PlateInHand {
    fn see_focus(&mut self, features: &FieldFeatures) {
        for channel in &features.quality {
            let slope = channel.measures.iter().find(|(name, _)| name == FOCUS);
            if let Some((_, slope)) = slope.filter(|(_, slope)| slope.is_finite()) {
                let entry = self.focus.entry(channel.channel.to_string()).or_default();
                entry.0 += slope;
                entry.1 += 1;
            }
        }
    }
}

impl<'a> ProfileBuilder<'a> {
    fn create(run: &'a Run, provenance: &Provenance, out: &Path) -> Result<Self, WriteError> {
        let model = &run.card.name;
        let channels: Vec<_> = run
            .screen
            .images
            .channels
            .iter()
            .map(|c| c.name.clone())
            .collect();
        Ok(Self {
            run,
            features: FeatureTable::create(out, model, run.width(), provenance)?,
            quality: QualityTable::create(out, &channels, &MEASURES.map(|(name, _)| name), provenance)?,
            profile_table: ProfileTable::create(out, model, run.width(), provenance)?,
            profiles: Vec::new(),
            plates: Vec::new(),
            flags: BTreeMap::new(),
            left_out: Vec::new(),
            measured: Measured::new(),
            plate: None,
        })
    }

    fn start_plate(&mut self, barcode: &Barcode, treatments: BTreeMap<WellPosition, Treatment>) {
        self.plate = Some(PlateInHand {
            barcode: barcode.clone(),
            treatments,
            counts: BTreeMap::new(),
            well: None,
            focus: BTreeMap::new(),
            first_profile: self.profiles.len(),
        });
    }

    fn push(&mut self, features: &FieldFeatures) -> Result<(), WriteError> {
        let Some(plate) = &mut self.plate else {
            return Ok(());
        };
        // Planned fields have a treatment; a plate map that changed since leaves the field out of everything.
        let Some(treatment) = plate.treatments.get(&features.field.well) else {
            self.left_out
                .push(format!("{}: no longer in the plate map", features.field));
            return Ok(());
        };
        let treatment_role = treatment.role;
        let verdict = verdict(features, &mut self.flags);
        self.features.push(&FeatureRow {
            field: &features.field,
            treatment,
            quality: &verdict,
            values: &features.embedding,
        })?;
        self.quality.push(&QualityRow {
            field: &features.field,
            quality: &verdict,
            values: &measures(features),
        })?;
        if plate
            .well
            .as_ref()
            .is_some_and(|well| well.well != features.field.well)
        {
            self.end_well()?;
        }
        let Some(plate) = &mut self.plate else {
            return Ok(());
        };
        if treatment_role == Role::Reference {
            plate.see_focus(features);
        }
        let well = plate.well.get_or_insert_with(|| WellInHand {
            well: features.field.well,
            count: FieldCount::default(),
            sum: vec![0.0; features.embedding.len()],
        });
        well.count.fields += 1;
        if features.passed {
            well.count.passed += 1;
            for (sum, value) in well.sum.iter_mut().zip(&features.embedding) {
                *sum += f64::from(*value);
            }
        }
        Ok(())
    }

    /// The mean of the well's passing fields becomes its profile, if enough passed.
    fn end_well(&mut self) -> Result<(), WriteError> {
        let Some(plate) = &mut self.plate else {
            return Ok(());
        };
        let Some(WellInHand { well, count, sum }) = plate.well.take() else {
            return Ok(());
        };
        plate.counts.insert(well, count);
        let Some(treatment) = plate.treatments.get(&well) else {
            return Ok(());
        };
        if !self.run.screen.quality.well_counts(count.passed, count.fields) {
            self.left_out.push(format!(
                "plate {} well {well}: {} of {} fields passed quality control, too few for a profile",
                plate.barcode, count.passed, count.fields
            ));
            return Ok(());
        }
        let passed = f64::from(count.passed);
        let profile = WellProfile {
            plate: plate.barcode.clone(),
            well,
            treatment: treatment.clone(),
            fields: count.passed,
            cell_count: None,
            values: sum.iter().map(|sum| (sum / passed) as f32).collect(),
        };
        self.profiles.push(profile);
        Ok(())
    }

    fn end_plate(&mut self) -> Result<(), WriteError> {
        self.end_well()?;
        let Some(plate) = self.plate.take() else {
            return Ok(());
        };
        let PlateInHand {
            barcode,
            treatments,
            counts,
            focus,
            first_profile,
            ..
        } = plate;
        self.measured
            .insert(barcode.clone(), measured_scalars(&counts, &focus));
        self.plates.push(plate_facts(&barcode, &treatments, &counts));
        let reason = held_back(&self.run.screen.quality, &treatments, &counts);
        // Held back, its profiles stay in the table, for whoever wants to judge the gate.
        for profile in &self.profiles[first_profile..] {
            self.profile_table.push(profile, reason.is_some())?;
        }
        if let Some(reason) = reason {
            self.profiles.truncate(first_profile);
            self.left_out.push(format!(
                "plate {barcode} is held back from the comparison: {reason}"
            ));
        }
        Ok(())
    }
}

/// What the watch over control wells follows besides profiles: the share of fields that failed quality control, and
/// the mean focus slope of reference wells in each channel.
fn measured_scalars(
    counts: &BTreeMap<WellPosition, FieldCount>,
    focus: &BTreeMap<String, (f64, u32)>,
) -> BTreeMap<String, f64> {
    let fields: u32 = counts.values().map(|count| count.fields).sum();
    let failed: u32 = counts.values().map(|count| count.fields - count.passed).sum();
    let mut scalars = BTreeMap::new();
    if fields > 0 {
        scalars.insert("failed_fields".to_owned(), f64::from(failed) / f64::from(fields));
    }
    for (channel, (sum, number)) in focus {
        scalars.insert(format!("{FOCUS}:{channel}"), sum / f64::from(*number));
    }
    scalars
}

/// The verdict with flags as the tables write them; counts them for the report.
fn verdict(features: &FieldFeatures, counts: &mut BTreeMap<String, (u64, u64)>) -> FieldQuality {
    let mut flags = Vec::new();
    for channel in &features.quality {
        for flag in &channel.flags {
            let name = flag.split(':').next().unwrap_or(flag);
            let count = counts.entry(format!("{name}: {}", channel.channel)).or_default();
            count.0 += 1;
            count.1 += u64::from(!features.passed);
            flags.push(format!("{} {flag}", channel.channel));
        }
    }
    FieldQuality {
        passed: features.passed,
        flags,
    }
}

fn measures(features: &FieldFeatures) -> Vec<Option<f64>> {
    features
        .quality
        .iter()
        .flat_map(|channel| {
            MEASURES.iter().map(|(name, _)| {
                let measured = channel.measures.iter().find(|(found, _)| found == name);
                measured
                    .map(|(_, value)| *value)
                    .filter(|value| value.is_finite())
            })
        })
        .collect()
}

/// A well whose image the report shows, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// What it shows.
    pub label: String,
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
}

/// One well of each control role, and of the best and the most harmful treatment.
pub fn exemplars(compared: &Compared) -> Vec<Exemplar> {
    let Ok(comparison) = &compared.comparison else {
        return Vec::new();
    };
    let find = |label: String, wanted: &dyn Fn(&WellFacts) -> bool| {
        compared.plates.iter().find_map(|plate| {
            let well = plate
                .wells
                .iter()
                .find(|well| well.fields_passed > 0 && wanted(well))?;
            Some(Exemplar {
                label: label.clone(),
                plate: plate.barcode.clone(),
                well: well.well,
            })
        })
    };
    let unit = comparison.rows.first().map_or("", |row| row.dose_unit.as_str());
    let treated = |summary: Option<&CompoundSummary>, dose: Option<f64>| {
        let (compound, dose) = (summary?.compound.clone(), dose?);
        let label = format!("{} {dose} {unit}", compound.as_deref().unwrap_or("treated"));
        find(label, &|well| {
            well.compound == compound && well.dose == Some(dose)
        })
    };
    let best = comparison.compounds.iter().find(|summary| summary.rank == 1);
    let worst = comparison
        .compounds
        .iter()
        .filter(|summary| summary.toxic_dose.is_some())
        .max_by(|a, b| a.max_off_z.unwrap_or(0.0).total_cmp(&b.max_off_z.unwrap_or(0.0)));
    [
        find("reference".to_owned(), &|well| well.role == Role::Reference),
        find("phenotype".to_owned(), &|well| well.role == Role::Phenotype),
        treated(best, best.and_then(|summary| summary.best_dose)),
        treated(worst, worst.and_then(|summary| summary.toxic_dose)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
