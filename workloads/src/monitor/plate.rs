//! The controls of one plate as drift monitoring sees them: profiles, scalars and disease vectors.
//!
//! All wells of a plate enter in any order; [`PlateControls`] leaves. Fails on wells that contradict each other and on
//! values that are not finite.

use std::collections::BTreeMap;

use super::MonitorError;
use crate::compare::axis;
use crate::compare::scale::Scaler;
use crate::compare::window::{median_in_place, robust_separation};
use crate::matrix::FeatureMatrix;
use crate::profile::{Role, WellProfile};
use crate::words::{Barcode, WellPosition};

/// What a phenotype is called where the screen names no disease.
const UNNAMED_DISEASE: &str = "phenotype";

/// The controls of one plate.
#[derive(Debug, Clone, PartialEq)]
pub struct PlateControls {
    pub(super) plate: Barcode,
    pub(super) wells: Vec<WellPosition>,
    /// Reference wells, row `i` for `wells[i]`, in order of position.
    pub(super) rows: FeatureMatrix,
    pub(super) scalars: BTreeMap<String, f64>,
    /// Phenotype mean less reference mean, in feature units.
    pub(super) diseases: BTreeMap<String, Vec<f32>>,
}

impl PlateControls {
    /// Takes the controls out of all wells of one plate.
    ///
    /// Scalars that follow from the wells are added to those `measured` elsewhere (such as the focus of a channel or
    /// the share of failed fields): `cell_count` (median of the reference wells), `embedding_norm` (their mean length),
    /// `z_prime:<disease>` (robust, leave-one-out, features standardised on the plate's reference wells) and
    /// `axis_length:<disease>` (in those units).
    ///
    /// # Errors
    /// [`MonitorError`] for no wells, wells of two plates, a well given twice, rows of two widths or a value that is
    /// not finite. A plate without reference wells is no error: it cannot be monitored, and its report says so.
    pub fn of(wells: &[&WellProfile], measured: BTreeMap<String, f64>) -> Result<Self, MonitorError> {
        let mut sorted = wells.to_vec();
        sorted.sort_by_key(|well| well.well);
        let first = sorted.first().ok_or(MonitorError::NoWells)?;
        check(&sorted)?;
        let side = |role: Role, disease: Option<&str>| -> Vec<&WellProfile> {
            let of_disease = |own: Option<&str>| own == disease || (role == Role::Reference && own.is_none());
            sorted
                .iter()
                .copied()
                .filter(|w| w.treatment.role == role && of_disease(w.treatment.disease.as_deref()))
                .collect()
        };
        let reference: Vec<&WellProfile> = sorted
            .iter()
            .copied()
            .filter(|w| w.treatment.role == Role::Reference)
            .collect();
        let width = first.values.len();
        let mut rows = FeatureMatrix::new(width);
        for well in &reference {
            rows.push(&well.values).map_err(|error| MonitorError::Width {
                plate: first.plate.clone(),
                expected: error.expected,
                found: error.found,
            })?;
        }
        let mut scalars = measured;
        scalars.retain(|_, value| value.is_finite());
        let mut counts: Vec<f64> = reference.iter().filter_map(|w| w.cell_count).collect();
        if let Some(count) = median_in_place(&mut counts) {
            scalars.insert("cell_count".to_owned(), count);
        }
        if !reference.is_empty() {
            let lengths: f64 = rows.rows().map(length).sum();
            scalars.insert("embedding_norm".to_owned(), lengths / rows.len() as f64);
        }
        let mut names: Vec<Option<&str>> = sorted
            .iter()
            .filter(|w| w.treatment.role == Role::Phenotype)
            .map(|w| w.treatment.disease.as_deref())
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut diseases = BTreeMap::new();
        for disease in names {
            let (healthy, ill) = (side(Role::Reference, disease), side(Role::Phenotype, disease));
            if healthy.is_empty() {
                continue;
            }
            let name = disease.unwrap_or(UNNAMED_DISEASE);
            let (ill_mean, healthy_mean) = (mean(&ill, width), mean(&healthy, width));
            let difference = ill_mean.iter().zip(&healthy_mean);
            diseases.insert(name.to_owned(), difference.map(|(d, h)| (d - h) as f32).collect());
            let (z_prime, length) = window(&sorted, &healthy, &ill);
            for (scalar, value) in [("z_prime", z_prime), ("axis_length", length)] {
                if let Some(value) = value {
                    scalars.insert(format!("{scalar}:{name}"), value);
                }
            }
        }
        Ok(Self {
            plate: first.plate.clone(),
            wells: reference.iter().map(|w| w.well).collect(),
            rows,
            scalars,
            diseases,
        })
    }

    /// The plate.
    pub fn plate(&self) -> &Barcode {
        &self.plate
    }

    /// Number of reference wells.
    pub fn controls(&self) -> usize {
        self.wells.len()
    }

    /// Scalars by name, such as `cell_count` and `z_prime:D1`.
    pub fn scalars(&self) -> &BTreeMap<String, f64> {
        &self.scalars
    }

    /// Robust leave-one-out Z′ of every disease of the plate that has one.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&str, f64)> {
        self.scalars
            .iter()
            .filter_map(|(name, &value)| Some((name.strip_prefix("z_prime:")?, value)))
    }
}

fn check(sorted: &[&WellProfile]) -> Result<(), MonitorError> {
    for pair in sorted.windows(2) {
        let [a, b] = pair else { continue };
        if a.plate != b.plate {
            let (plate, other) = (a.plate.clone(), b.plate.clone());
            return Err(MonitorError::MixedPlates { plate, other });
        }
        if a.well == b.well {
            let (plate, well) = (a.plate.clone(), a.well);
            return Err(MonitorError::DuplicateWell { plate, well });
        }
        if a.values.len() != b.values.len() {
            return Err(MonitorError::Width {
                plate: a.plate.clone(),
                expected: a.values.len(),
                found: b.values.len(),
            });
        }
    }
    for well in sorted {
        if let Some((column, &value)) = well.values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(MonitorError::NotFinite {
                plate: well.plate.clone(),
                well: well.well,
                column,
                value,
            });
        }
    }
    Ok(())
}

fn length(row: &[f32]) -> f64 {
    row.iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt()
}

fn mean(wells: &[&WellProfile], width: usize) -> Vec<f64> {
    let mut mean = vec![0.0; width];
    for well in wells {
        for (sum, &value) in mean.iter_mut().zip(&well.values) {
            *sum += f64::from(value);
        }
    }
    let n = wells.len().max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= n);
    mean
}

/// Robust Z′ of leave-one-out positions, and the length of the axis, in the space the comparison uses by default.
fn window(
    plate: &[&WellProfile],
    healthy: &[&WellProfile],
    ill: &[&WellProfile],
) -> (Option<f64>, Option<f64>) {
    let reference: Vec<&[f32]> = healthy.iter().map(|w| w.values.as_slice()).collect();
    let everything: Vec<&[f32]> = plate.iter().map(|w| w.values.as_slice()).collect();
    let scaler = Scaler::standardise(&reference).floored(&Scaler::standardise(&everything));
    let scaled =
        |wells: &[&WellProfile]| -> Vec<Vec<f64>> { wells.iter().map(|w| scaler.apply(&w.values)).collect() };
    let (healthy, ill) = (scaled(healthy), scaled(ill));
    let healthy: Vec<&[f64]> = healthy.iter().map(Vec::as_slice).collect();
    let ill: Vec<&[f64]> = ill.iter().map(Vec::as_slice).collect();
    let Some(controls) = axis::score_controls(&healthy, &ill, axis::Centres::default()) else {
        return (None, None);
    };
    let positions = |scores: &[axis::ControlScore]| -> Vec<f64> {
        scores
            .iter()
            .filter(|score| score.leave_one_out)
            .map(|score| score.position.on_axis)
            .collect()
    };
    let separation = robust_separation(&positions(&controls.phenotype), &positions(&controls.reference));
    (separation.z_prime, Some(controls.axis.length()))
}
