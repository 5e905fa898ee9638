//! From fields to wells: the fields of a plate enter in the plan's order, their rows go to the tables as they come, and
//! the profiles of the plate's wells leave.
//!
//! External steps of wells and plates are asked in between. Memory is one plate's profiles. Fails where the disk does.

use std::collections::BTreeMap;
use std::path::Path;

use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::{Barcode, Channel, WellPosition};

use super::internal;
use super::plate_flags::{self, FieldRow};
use crate::error::StageError;
use crate::events::{ChannelMeasures, FieldFeatures};
use crate::external::beyond::{Asker, PlateGiven};
use crate::quality::{MEASURES, OF_STACKS};
use crate::report::{FlagCount, PlateFacts};
use crate::results::{
    FeatureRow, FeatureTable, FieldQuality, ProfileTable, Provenance, QualityTable, WriteError,
};
use crate::runs::Run;
use crate::wells::{FieldCount, PlateFields, PlateWells, nuclei, plate_facts, too_few_fields};

/// Reads fields plate by plate.
pub(super) struct FieldReader<'a> {
    run: &'a Run,
    features: FeatureTable,
    quality: QualityTable,
    profiles: ProfileTable,
    flags: BTreeMap<String, (u64, u64)>,
    left_out: Vec<String>,
    plate: Option<PlateInHand<'a>>,
    channels: Vec<Channel>,
}

/// What a plate's fields came to.
pub(super) struct PlateProfiles {
    /// Of wells with enough passing fields, by well; none where the plate is held back.
    pub(super) wells: Vec<WellProfile>,
    pub(super) facts: PlateFacts,
    /// Why it is held back.
    pub(super) held: Option<String>,
    /// What the watch over control wells follows besides profiles.
    pub(super) measured: BTreeMap<String, f64>,
}

/// What all fields came to besides profiles.
pub(super) struct FieldFacts {
    pub(super) flags: Vec<FlagCount>,
    /// Fields, wells and plates that were left out, in words.
    pub(super) left_out: Vec<String>,
}

struct PlateInHand<'a> {
    barcode: Barcode,
    fields: PlateFields<'a>,
    /// Sum and number of the focus slopes of reference wells, by channel.
    focus: BTreeMap<String, (f64, u32)>,
    /// Quality of its fields, which is judged by all of them.
    quality: Vec<FieldRow>,
}

/// The measure of focus that is followed from plate to plate.
const FOCUS: &str = "PowerLogLogSlope";

impl PlateInHand<'_> {
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

impl<'a> FieldReader<'a> {
    pub(super) fn create(run: &'a Run, provenance: &Provenance, out: &Path) -> Result<Self, WriteError> {
        let channels: Vec<_> = run
            .screen
            .images
            .channels
            .iter()
            .map(|c| c.name.clone())
            .collect();
        Ok(Self {
            run,
            features: FeatureTable::create(out, run.field_names(), run.screen.nuclei.is_some(), provenance)?,
            quality: QualityTable::create(
                out,
                &channels,
                &MEASURES.map(|(name, _)| name),
                run.screen.nuclei.is_some(),
                provenance,
            )?,
            profiles: ProfileTable::create(out, run.feature_names(), provenance)?,
            flags: BTreeMap::new(),
            left_out: Vec::new(),
            plate: None,
            channels,
        })
    }

    pub(super) fn start_plate(&mut self, barcode: &Barcode, treatments: BTreeMap<WellPosition, Treatment>) {
        let width = self.run.field_names().len();
        self.plate = Some(PlateInHand {
            barcode: barcode.clone(),
            fields: PlateFields::new(&self.run.screen, barcode, treatments, width),
            focus: BTreeMap::new(),
            quality: Vec::new(),
        });
    }

    pub(super) fn push(&mut self, features: &FieldFeatures) -> Result<(), WriteError> {
        let Some(plate) = &mut self.plate else {
            return Ok(());
        };
        // Planned fields have a treatment; a plate map that changed since leaves the field out of everything.
        let Some(treatment) = plate.fields.treatment(features.field.well) else {
            self.left_out
                .push(format!("{}: no longer in the plate map", features.field));
            return Ok(());
        };
        let role = treatment.role;
        let verdict = verdict(features, &mut self.flags);
        let nuclei = nuclei(features);
        self.features.push(&FeatureRow {
            field: &features.field,
            treatment,
            quality: &verdict,
            nuclei,
            values: &features.embedding,
        })?;
        plate.quality.push(FieldRow {
            field: features.field.clone(),
            quality: verdict,
            values: measures(features),
            stacks: stacks(features),
            uris: features
                .quality
                .iter()
                .map(|channel| channel.uri.clone())
                .collect(),
            nuclei,
        });
        if role == Role::Reference {
            plate.see_focus(features);
        }
        plate.fields.push(features);
        Ok(())
    }

    /// What the plate at hand came to, steps about wells and plates included; one that was `released` is not held back.
    pub(super) fn end_plate(
        &mut self,
        released: bool,
        asker: &mut Asker<'_>,
    ) -> Result<Option<PlateProfiles>, StageError> {
        let Some(PlateInHand {
            barcode,
            fields,
            focus,
            mut quality,
        }) = self.plate.take()
        else {
            return Ok(None);
        };
        let PlateWells {
            treatments,
            counts,
            mut profiles,
            short,
            mut held_back,
        } = fields.finish();
        self.left_out.extend(too_few_fields(&barcode, &short));
        if let Some(reason) = held_back.take_if(|_| released) {
            self.left_out.push(format!(
                "plate {barcode} was released and is compared, although {reason}"
            ));
        }
        plate_flags::flag(&mut quality, &self.channels, &mut self.flags);
        plate_flags::write(&quality, &mut self.quality).map_err(internal)?;
        if held_back.is_some() {
            // Nobody is asked about it: what would be answered is not there.
            let width = self.run.feature_names().len();
            profiles
                .iter_mut()
                .for_each(|profile| profile.values.resize(width, f32::NAN));
        } else if self.run.asks_beyond_fields() {
            let mut fields: BTreeMap<WellPosition, Vec<u32>> = BTreeMap::new();
            for row in &quality {
                fields.entry(row.field.well).or_default().push(row.field.field);
            }
            let given = PlateGiven {
                plate: &barcode,
                treatments: &treatments,
                fields: &fields,
            };
            asker.plate(&given, &mut profiles)?;
        }
        // Held back, its profiles stay in the table, for whoever wants to judge the gate.
        for profile in &profiles {
            self.profiles
                .push(profile, held_back.is_some())
                .map_err(internal)?;
        }
        if let Some(reason) = &held_back {
            profiles.clear();
            self.left_out.push(format!(
                "plate {barcode} is held back from the comparison: {reason}; or let it in with \
                 `wellspring plates release {barcode}`, in one process with `wellspring run --release {barcode}`"
            ));
        }
        Ok(Some(PlateProfiles {
            wells: profiles,
            facts: plate_facts(&barcode, &treatments, &counts),
            measured: measured_scalars(&counts, &focus),
            held: held_back,
        }))
    }

    /// Completes the tables.
    pub(super) fn finish(self) -> Result<FieldFacts, WriteError> {
        self.features.finish()?;
        self.quality.finish()?;
        self.profiles.finish()?;
        let flags = self.flags.into_iter();
        Ok(FieldFacts {
            flags: flags
                .map(|(flag, (fields, failed))| FlagCount { flag, fields, failed })
                .collect(),
            left_out: self.left_out,
        })
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

/// Planes of each channel's z stack, and the one that was taken.
fn stacks(features: &FieldFeatures) -> Vec<[Option<f64>; 2]> {
    let of_channel = |channel: &ChannelMeasures| {
        OF_STACKS.map(|name| {
            let found = channel.measures.iter().find(|(measure, _)| measure == name);
            found.map(|(_, value)| *value)
        })
    };
    features.quality.iter().map(of_channel).collect()
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
