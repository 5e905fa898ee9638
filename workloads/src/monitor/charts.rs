//! The charts of every component and scalar of a reference, over the plates judged by it.
//!
//! A reference with its remembered plates enters and is replayed; each plate that follows gives a row per chart.

use std::collections::{BTreeMap, BTreeSet};

use super::baseline::Baseline;
use super::chart::{Chart, cusum_limit, standing};
use super::judge::{quiet, signal_if};
use super::reference::{DriftReference, JudgedPlate};
use super::report::{Detector, DriftRow, kind};
use crate::words::Barcode;

/// The charts of all components and scalars.
#[derive(Clone)]
pub(super) struct Charts {
    /// Name, values of the reference plates, chart.
    quantities: Vec<(String, Vec<f64>, Chart)>,
    /// How many quantities of its kind are charted.
    of_kind: BTreeMap<String, usize>,
    witnesses_before: BTreeSet<String>,
}

impl Charts {
    /// Charts after the plates judged before, without those that are judged again.
    pub(super) fn after(reference: &DriftReference, baseline: &Baseline, again: &BTreeSet<&Barcode>) -> Self {
        let components = (0..baseline.columns.len()).map(|j| {
            let values = baseline.means.iter().map(|mean| mean[j]).collect();
            (format!("pc{}", j + 1), values, Chart::default())
        });
        let scalars = baseline
            .scalars
            .iter()
            .map(|(name, values)| (name.clone(), values.clone(), Chart::default()));
        let quantities: Vec<(String, Vec<f64>, Chart)> = components.chain(scalars).collect();
        let mut of_kind: BTreeMap<String, usize> = BTreeMap::new();
        for (name, _, _) in &quantities {
            *of_kind.entry(kind(name).to_owned()).or_default() += 1;
        }
        let mut charts = Self {
            quantities,
            of_kind,
            witnesses_before: BTreeSet::new(),
        };
        // Charts are replayed up to the first plate that is judged again.
        for judged in reference
            .judged()
            .iter()
            .take_while(|judged| !again.contains(&judged.plate))
        {
            if judged.charted {
                charts.push(judged);
            }
            charts.witnesses_before.clone_from(&judged.witnesses);
        }
        charts
    }

    /// What was beyond its limit on the plate before the first one judged now.
    pub(super) fn witnesses_before(&self) -> &BTreeSet<String> {
        &self.witnesses_before
    }

    /// Takes the next plate; gives where its charts stand.
    pub(super) fn push(&mut self, plate: &JudgedPlate) -> Vec<DriftRow> {
        let mut rows = Vec::new();
        for (place, (name, reference, chart)) in self.quantities.iter_mut().enumerate() {
            let value = match plate.mean.get(place) {
                Some(value) => Some(value),
                None => plate.scalars.get(name),
            };
            let Some(standing) = value.and_then(|&value| standing(reference, f64::from(value))) else {
                continue;
            };
            chart.push(standing.score);
            let charts = self.of_kind.get(kind(name)).copied().unwrap_or(1);
            let (ewma_limit, cusum_limit) = (chart.ewma_limit(charts), cusum_limit(charts));
            let both = [
                (Detector::Ewma, chart.ewma, ewma_limit),
                (Detector::Cusum, chart.cusum(), cusum_limit),
            ];
            rows.extend(both.map(|(detector, statistic, limit)| DriftRow {
                quantity: Some(name.clone()),
                severity: signal_if(statistic.abs() > limit),
                ..quiet(detector, statistic, limit)
            }));
        }
        rows
    }
}
