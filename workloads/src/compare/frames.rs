//! The space in which wells are compared. A plate's raw profiles enter, rows in that space leave (SCIENCE 5.7).
//!
//! What needs more than one plate is fitted beforehand, plate by plate, and kept in [`Fitted`]; what is per plate is
//! fitted as the plate is scored. Nothing fails.

use std::collections::BTreeMap;

use super::scale::Scaler;
use super::{ComparisonSettings, FitOn, Normalise};
use crate::profile::{Role, WellProfile};

/// A plate's wells as they are compared.
pub(super) struct Framed {
    /// One row per well, in the wells' order.
    pub(super) rows: Vec<Vec<f64>>,
    /// The same wells in the aligned space, where the screen has one.
    pub(super) aligned: Option<Vec<Vec<f64>>>,
    /// How the plate's columns were scaled.
    pub(super) scaler: Option<Scaler>,
}

/// What the plates of a screen have in common.
#[derive(Default)]
pub(super) struct Fitted {
    /// Per place in the order of reading: divisors of columns that are flat on the plate, from the other plates.
    repairs: BTreeMap<usize, Vec<(usize, f64)>>,
}

/// Whether plates must be read once before they are scored.
pub(super) fn needs_a_pass(settings: &ComparisonSettings) -> bool {
    settings.normalise == Normalise::RobustMad
}

/// Collects what the plates have in common. Memory: one divisor per plate and feature, while it collects.
#[derive(Default)]
pub(super) struct Fitting {
    scalers: Vec<Option<Scaler>>,
}

impl Fitting {
    /// What [`Fitting::add`] needs of the next plate in the order of reading; may run in parallel.
    pub(super) fn measure(wells: &[&WellProfile], settings: &ComparisonSettings) -> Option<Scaler> {
        let scaler = fit_scaler(wells, settings)?;
        Some(Scaler {
            centre: Vec::new(),
            ..scaler
        })
    }

    /// Takes the plates one after the other.
    pub(super) fn add(&mut self, scaler: Option<Scaler>) {
        self.scalers.push(scaler);
    }

    pub(super) fn finish(self) -> Fitted {
        let mut repairs = BTreeMap::new();
        for (place, scaler) in self.scalers.iter().enumerate() {
            let Some(scaler) = scaler.as_ref().filter(|scaler| !scaler.flat_columns.is_empty()) else {
                continue;
            };
            let others: Vec<&Scaler> = self
                .scalers
                .iter()
                .enumerate()
                .filter(|&(other, _)| other != place)
                .filter_map(|(_, other)| other.as_ref())
                .collect();
            let mut repaired = scaler.clone();
            repaired.repair(&others);
            let columns = scaler.flat_columns.iter();
            repairs.insert(
                place,
                columns.map(|&column| (column, repaired.scale[column])).collect(),
            );
        }
        Fitted { repairs }
    }
}

impl Fitted {
    /// The rows of the plate at `place` in the order of reading.
    pub(super) fn frame(
        &self,
        place: usize,
        wells: &[&WellProfile],
        settings: &ComparisonSettings,
    ) -> Framed {
        let scaler = fit_scaler(wells, settings).map(|mut scaler| {
            for &(column, divisor) in self.repairs.get(&place).into_iter().flatten() {
                scaler.scale[column] = divisor;
            }
            scaler.floored(&fit_wells(wells, FitOn::All))
        });
        let rows = wells
            .iter()
            .map(|well| match &scaler {
                Some(scaler) => scaler.apply(&well.values),
                None => well.values.iter().map(|&v| f64::from(v)).collect(),
            })
            .collect();
        Framed {
            rows,
            aligned: None,
            scaler,
        }
    }
}

/// The wells of a plate that scaling is fitted on.
pub(super) fn fit_wells<'w>(wells: &[&'w WellProfile], fit_on: FitOn) -> Vec<&'w [f32]> {
    wells
        .iter()
        .filter(|w| fit_on == FitOn::All || w.treatment.role == Role::Reference)
        .map(|w| w.values.as_slice())
        .collect()
}

fn fit_scaler(wells: &[&WellProfile], settings: &ComparisonSettings) -> Option<Scaler> {
    let rows = fit_wells(wells, settings.fit_on);
    if rows.is_empty() {
        return None;
    }
    match settings.normalise {
        Normalise::None => None,
        Normalise::Standardise => Some(Scaler::standardise(&rows)),
        Normalise::RobustMad => Some(Scaler::robust(&rows)),
    }
}
