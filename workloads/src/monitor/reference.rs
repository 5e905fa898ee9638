//! The reference of drift: the last accepted plates of one assay, microscope and model, and the components in which
//! they are seen.
//!
//! Controls of plates enter; [`DriftReference`] leaves, can be written as JSON and read again to the same bits (all its
//! numbers are `f32`), takes accepted plates and remembers judged ones. Components are fixed when the reference is
//! made, so that charts stay comparable; a change of model, stain lot or microscope wants a new reference. Fails as
//! [`MonitorError`] says.

use std::collections::{BTreeMap, BTreeSet};

use faer::Mat;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::report::{DriftReport, Level, Severity};
use super::space::{components, scale_of, scaled};
use super::{MonitorError, MonitorSettings, PlateControls};
use crate::linalg::project;
use crate::matrix::FeatureMatrix;
use crate::words::Barcode;

/// Format of the file.
const VERSION: u32 = 1;
/// Reference wells that a reference plate has at least: with fewer its mean says little.
pub(super) const FEWEST_REFERENCE_CONTROLS: usize = 8;

/// What a reference and its plates share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The assay.
    pub assay: String,
    /// The microscope; may be empty.
    pub microscope: String,
    /// The model's name.
    pub model: String,
    /// sha256 of the model's weights; empty for features made elsewhere.
    pub model_sha256: String,
}

/// One accepted plate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReferencePlate {
    pub(super) plate: Barcode,
    /// A row of component scores per control well.
    pub(super) scores: Vec<Vec<f32>>,
    pub(super) scalars: BTreeMap<String, f32>,
    /// Disease vectors in scaled features.
    pub(super) diseases: BTreeMap<String, Vec<f32>>,
}

/// A plate that was judged: what the charts and "two plates running" need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JudgedPlate {
    pub(super) plate: Barcode,
    /// Mean component scores.
    pub(super) mean: Vec<f32>,
    pub(super) scalars: BTreeMap<String, f32>,
    /// What was beyond its limit.
    pub(super) witnesses: BTreeSet<String>,
    /// Whether the charts take it: a plate that is an alert by itself does not move them.
    pub(super) charted: bool,
    /// What it would be as a reference plate; kept for the latest plates only.
    pub(super) controls: Option<ReferencePlate>,
}

/// Accepted plates, and the components in which plates are compared with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftReference {
    version: u32,
    identity: Identity,
    /// Mean and divisor of each feature over the first reference's controls; a divisor of 0 marks a constant feature.
    centre: Vec<f32>,
    divisor: Vec<f32>,
    /// One row per component, descending variance, largest loading positive.
    components: Vec<Vec<f32>>,
    /// Oldest first.
    plates: Vec<ReferencePlate>,
    /// Plates judged since the reference was made, in the order of the charts.
    judged: Vec<JudgedPlate>,
    /// Plates that newer ones replaced.
    retired: Vec<Barcode>,
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

impl DriftReference {
    /// The first plates that can be a reference: enough reference wells, and no Z′ below the limit. Places in `plates`,
    /// in their order.
    ///
    /// # Errors
    /// [`MonitorError::TooFewPlates`].
    pub fn choose(plates: &[PlateControls], settings: &MonitorSettings) -> Result<Vec<usize>, MonitorError> {
        let fits = |plate: &PlateControls| {
            plate.controls() >= FEWEST_REFERENCE_CONTROLS
                && plate
                    .windows()
                    .all(|(_, z_prime)| z_prime >= settings.limits.z_prime_alert)
        };
        let chosen: Vec<usize> = (0..plates.len())
            .filter(|&i| fits(&plates[i]))
            .take(settings.reference_plates)
            .collect();
        if chosen.len() < settings.reference_plates {
            return Err(MonitorError::TooFewPlates {
                found: chosen.len(),
                needed: settings.reference_plates,
                controls: FEWEST_REFERENCE_CONTROLS,
            });
        }
        Ok(chosen)
    }

    /// Makes a reference of accepted plates, oldest first. Components are those of their pooled controls, each
    /// feature divided by its SD.
    ///
    /// # Errors
    /// Fewer plates than `settings.reference_plates`, a plate with fewer than 8 reference wells, plates of differing
    /// width or given twice, values that are not finite, features that are all constant.
    pub fn fit(
        plates: &[&PlateControls],
        identity: Identity,
        settings: &MonitorSettings,
    ) -> Result<Self, MonitorError> {
        settings.check()?;
        if plates.len() < settings.reference_plates {
            return Err(MonitorError::TooFewPlates {
                found: plates.len(),
                needed: settings.reference_plates,
                controls: FEWEST_REFERENCE_CONTROLS,
            });
        }
        let width = plates.first().map_or(0, |plate| plate.rows.width());
        for plate in plates {
            check_plate(plate, width)?;
            check_controls(plate)?;
        }
        let rows = FeatureMatrix::from_rows(width, plates.iter().flat_map(|plate| plate.rows.rows()))
            .map_err(|_| MonitorError::NoSpread { rows: 0 })?;
        let (centre, divisor) = scale_of(&rows);
        let scaled = scaled(&rows, &centre, &divisor);
        let components = components(&scaled, settings.components)?;
        let mut reference = Self {
            version: VERSION,
            identity,
            centre,
            divisor,
            components,
            plates: Vec::new(),
            judged: Vec::new(),
            retired: Vec::new(),
        };
        for plate in plates {
            reference.take(plate)?;
        }
        Ok(reference)
    }

    /// Reads what [`DriftReference::to_json`] wrote.
    ///
    /// # Errors
    /// [`MonitorError::Version`] or [`MonitorError::Malformed`].
    pub fn from_json(text: &str) -> Result<Self, MonitorError> {
        let malformed = |reason: String| MonitorError::Malformed { reason };
        let head: Head = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if head.version != VERSION {
            let (found, known) = (head.version, VERSION);
            return Err(MonitorError::Version { found, known });
        }
        let read: Self = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        read.check_shape().map_err(malformed)?;
        Ok(read)
    }

    /// The reference as JSON: equal references give equal bytes.
    ///
    /// # Errors
    /// [`MonitorError::Malformed`] where a number is not finite, which none is.
    pub fn to_json(&self) -> Result<String, MonitorError> {
        serde_json::to_string(self).map_err(|error| MonitorError::Malformed {
            reason: error.to_string(),
        })
    }

    /// sha256 of what plates are judged by (components and accepted plates, not what was judged since), hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut numbers = |values: &[f32]| values.iter().for_each(|v| hash.update(v.to_le_bytes()));
        numbers(&self.centre);
        numbers(&self.divisor);
        self.components.iter().for_each(|row| numbers(row));
        for plate in &self.plates {
            plate.scores.iter().for_each(|row| numbers(row));
            plate.scalars.values().for_each(|value| numbers(&[*value]));
            plate.diseases.values().for_each(|row| numbers(row));
        }
        for plate in &self.plates {
            hash.update(plate.plate.as_str().as_bytes());
            hash.update([0xff]);
        }
        let Identity {
            assay,
            microscope,
            model,
            model_sha256,
        } = &self.identity;
        for text in [assay, microscope, model, model_sha256] {
            hash.update(text.as_bytes());
            hash.update([0xff]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Refuses plates of another assay, microscope or model.
    ///
    /// # Errors
    /// [`MonitorError::Identity`] names the first difference.
    pub fn check_identity(&self, found: &Identity) -> Result<(), MonitorError> {
        let own = &self.identity;
        let pairs = [
            ("assay", &own.assay, &found.assay),
            ("microscope", &own.microscope, &found.microscope),
            ("model", &own.model, &found.model),
            ("model hash", &own.model_sha256, &found.model_sha256),
        ];
        match pairs.into_iter().find(|(_, reference, found)| reference != found) {
            None => Ok(()),
            Some((what, reference, found)) => Err(MonitorError::Identity {
                what,
                reference: reference.clone(),
                found: found.clone(),
            }),
        }
    }

    /// What it is a reference of.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Accepted plates, oldest first.
    pub fn plate_names(&self) -> impl ExactSizeIterator<Item = &Barcode> {
        self.plates.iter().map(|plate| &plate.plate)
    }

    /// Plates judged since the reference was made, in the order of the charts.
    pub fn judged_names(&self) -> impl ExactSizeIterator<Item = &Barcode> {
        self.judged.iter().map(|judged| &judged.plate)
    }

    /// Takes an accepted plate; beyond `settings.reference_plates` the oldest one retires. A plate that is in the
    /// reference already is replaced by what is given.
    ///
    /// # Errors
    /// The plate has too few reference wells, another width, or a value that is not finite; then nothing changes.
    pub fn accept(&mut self, plate: &PlateControls, settings: &MonitorSettings) -> Result<(), MonitorError> {
        check_plate(plate, self.centre.len())?;
        check_controls(plate)?;
        self.plates.retain(|known| known.plate != plate.plate);
        self.take(plate)?;
        self.retire(&plate.plate, settings);
        Ok(())
    }

    /// Remembers judged plates for the charts, and the latest ones so that they can be accepted. A plate that was
    /// judged before keeps its place.
    ///
    /// # Errors
    /// As [`DriftReference::accept`], but for the number of wells.
    pub fn remember(
        &mut self,
        plates: &[PlateControls],
        report: &DriftReport,
        settings: &MonitorSettings,
    ) -> Result<(), MonitorError> {
        for drift in &report.plates {
            let Some(plate) = plates.iter().find(|plate| plate.plate == drift.plate) else {
                continue;
            };
            if matches!(drift.level, Level::Reference | Level::NotMonitored) {
                continue;
            }
            let beyond = drift.rows.iter().filter(|row| row.severity > Severity::Quiet);
            let mut judged = self.judged_plate(plate, &self.scores(plate)?);
            judged.witnesses = beyond.map(|row| row.witness()).collect();
            judged.charted = drift.level != Level::Alert;
            if plate.controls() >= FEWEST_REFERENCE_CONTROLS {
                judged.controls = Some(self.reference_plate(plate, &self.scores(plate)?));
            }
            match self.judged.iter_mut().find(|known| known.plate == judged.plate) {
                Some(known) => *known = judged,
                None => self.judged.push(judged),
            }
        }
        let old = self.judged.len().saturating_sub(settings.reference_plates);
        self.judged[..old]
            .iter_mut()
            .for_each(|plate| plate.controls = None);
        Ok(())
    }

    /// Takes a plate that was judged and remembered, as [`DriftReference::accept`] does.
    ///
    /// # Errors
    /// [`MonitorError::NotJudged`] where it is not among the latest judged plates with enough reference wells.
    pub fn accept_judged(&mut self, plate: &Barcode, settings: &MonitorSettings) -> Result<(), MonitorError> {
        let judged = self.judged.iter().find(|judged| judged.plate == *plate);
        let Some(controls) = judged.and_then(|judged| judged.controls.clone()) else {
            return Err(MonitorError::NotJudged {
                plate: plate.clone(),
                controls: FEWEST_REFERENCE_CONTROLS,
            });
        };
        self.plates.retain(|known| known.plate != *plate);
        self.plates.push(controls);
        self.retire(plate, settings);
        Ok(())
    }

    fn retire(&mut self, newest: &Barcode, settings: &MonitorSettings) {
        self.retired.retain(|known| known != newest);
        let surplus = self.plates.len().saturating_sub(settings.reference_plates);
        self.retired
            .extend(self.plates.drain(..surplus).map(|old| old.plate));
    }

    pub(super) fn judged_plate(&self, plate: &PlateControls, scores: &[Vec<f64>]) -> JudgedPlate {
        let mean = super::hotelling::plate_mean(scores);
        JudgedPlate {
            plate: plate.plate.clone(),
            mean: mean.iter().map(|&v| v as f32).collect(),
            scalars: stored(&plate.scalars),
            witnesses: BTreeSet::new(),
            charted: true,
            controls: None,
        }
    }

    /// Component scores of a plate's controls, a row per well.
    pub(super) fn scores(&self, plate: &PlateControls) -> Result<Vec<Vec<f64>>, MonitorError> {
        check_plate(plate, self.centre.len())?;
        let scaled = scaled(&plate.rows, &self.centre, &self.divisor);
        let map = Mat::from_fn(self.centre.len(), self.components.len(), |i, j| {
            f64::from(self.components[j][i])
        });
        let scores = project(&scaled, &vec![0.0; self.centre.len()], map.as_ref());
        Ok(scores
            .rows()
            .map(|row| row.iter().map(|&v| f64::from(v)).collect())
            .collect())
    }

    /// A disease vector in scaled features.
    pub(super) fn scaled_vector(&self, vector: &[f32]) -> Vec<f32> {
        vector
            .iter()
            .zip(&self.divisor)
            .map(|(x, &divisor)| if divisor == 0.0 { 0.0 } else { x / divisor })
            .collect()
    }

    pub(super) fn plates(&self) -> &[ReferencePlate] {
        &self.plates
    }

    pub(super) fn judged(&self) -> &[JudgedPlate] {
        &self.judged
    }

    fn take(&mut self, plate: &PlateControls) -> Result<(), MonitorError> {
        if self.plates.iter().any(|known| known.plate == plate.plate) {
            return Err(MonitorError::DuplicatePlate {
                plate: plate.plate.clone(),
            });
        }
        let accepted = self.reference_plate(plate, &self.scores(plate)?);
        self.plates.push(accepted);
        Ok(())
    }

    fn reference_plate(&self, plate: &PlateControls, scores: &[Vec<f64>]) -> ReferencePlate {
        ReferencePlate {
            plate: plate.plate.clone(),
            scores: scores
                .iter()
                .map(|row| row.iter().map(|&v| v as f32).collect())
                .collect(),
            scalars: stored(&plate.scalars),
            diseases: plate
                .diseases
                .iter()
                .map(|(name, vector)| (name.clone(), self.scaled_vector(vector)))
                .collect(),
        }
    }

    fn check_shape(&self) -> Result<(), String> {
        let (width, k) = (self.centre.len(), self.components.len());
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        if width == 0
            || k == 0
            || self.divisor.len() != width
            || !finite(&self.centre)
            || !finite(&self.divisor)
        {
            return Err("its features are incomplete".to_owned());
        }
        if self
            .components
            .iter()
            .any(|row| row.len() != width || !finite(row))
        {
            return Err("its components are incomplete".to_owned());
        }
        let kept = self.judged.iter().filter_map(|judged| judged.controls.as_ref());
        for plate in self.plates.iter().chain(kept) {
            let scores = plate.scores.iter().all(|row| row.len() == k && finite(row));
            let vectors = plate
                .diseases
                .values()
                .all(|row| row.len() == width && finite(row));
            if plate.scores.is_empty() || !scores || !vectors {
                return Err(format!("its plate {} is incomplete", plate.plate));
            }
        }
        if self.plates.len() < 3 {
            return Err(format!("it has {} plates", self.plates.len()));
        }
        match self
            .judged
            .iter()
            .find(|plate| plate.mean.len() != k || !finite(&plate.mean))
        {
            Some(plate) => Err(format!("its judged plate {} is incomplete", plate.plate)),
            None => Ok(()),
        }
    }
}

fn stored(scalars: &BTreeMap<String, f64>) -> BTreeMap<String, f32> {
    scalars
        .iter()
        .map(|(name, &value)| (name.clone(), value as f32))
        .collect()
}

fn check_plate(plate: &PlateControls, expected: usize) -> Result<(), MonitorError> {
    let found = plate.rows.width();
    if found == expected && expected > 0 {
        return Ok(());
    }
    let (plate, expected) = (plate.plate.clone(), expected.max(1));
    Err(MonitorError::Width {
        plate,
        expected,
        found,
    })
}

fn check_controls(plate: &PlateControls) -> Result<(), MonitorError> {
    if plate.controls() >= FEWEST_REFERENCE_CONTROLS {
        return Ok(());
    }
    Err(MonitorError::FewControls {
        plate: plate.plate.clone(),
        found: plate.controls(),
        needed: FEWEST_REFERENCE_CONTROLS,
    })
}
