//! Control wells that lie far from the others of their kind on their plate (SCIENCE 6, 8): where they are many, means of
//! controls are trimmed ([`super::centre`]). Raw rows of plates enter, a flag per well leaves. Nothing fails: where there
//! are too few controls to know what is usual, no well is judged.
//!
//! The distance is that of SCIENCE 8, `D² = (x − μ)ᵀ Σ*⁻¹ (x − μ)` in principal components of controls with a
//! Ledoit-Wolf covariance, and an outlier lies beyond a quantile of χ². Drift asks whether a plate is like others;
//! here a well is compared with its own plate, so μ is the median of its kind (role and disease) there and a plate that
//! is shifted as a whole has no outliers. Σ* is of the screen's controls, because a plate has fewer than components, and
//! its outliers would hide in a covariance of its own. They would in the screen's as well, were it not fitted around
//! them: directions are those of rows brought to length 1 (Locantore et al. 1999, doi 10.1007/BF02595862), and the
//! covariance is that of the wells that lie within its own 0.975 quantile, with the factor that makes up for the others
//! (Rousseeuw and Van Driessen 1999, doi 10.1080/00401706.1999.10485670). Where the typical well of a kind lies further out
//! than χ² has it, as disease wells often do among healthy ones, the limit of that kind moves out with it.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use faer::Mat;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::centre::FEWEST_TRIMMED;
use super::design::Design;
use super::engine::{StreamError, checked};
use super::frames::Frame;
use super::scale::Scaler;
use super::window::{MAD_TO_SD, median_in_place};
use super::{ComparisonSettings, Normalise};
use crate::align::clusters::unit_rows;
use crate::align::pca::Pca;
use crate::linalg::project;
use crate::matrix::FeatureMatrix;
use crate::monitor::{Gaussian, chi_squared_limit};
use crate::profile::{Role, WellProfile};
use crate::words::Barcode;

/// Plates that are looked at, evenly over the screen: their number bounds time and memory.
const MOST_PLATES: usize = 16;
/// Wells that are looked at, of all these plates: 32 for each component.
const MOST_ROWS: usize = 512;
/// Components (SCIENCE 8: 16 to 32).
const COMPONENTS: usize = 16;
/// Wells that each component needs. In made screens of a plate with one outlier among 10 controls a component for every
/// fifth well missed it in a quarter of them, for every third in none.
const ROWS_PER_COMPONENT: usize = 3;
/// With fewer wells none is judged: of 8 wells 1 in 9 was an outlier by chance.
const FEWEST_ROWS: usize = 12;
/// A plate with fewer controls takes the unit of each feature from the others: the MAD of 16 is right to 29 %.
const FEWEST_FOR_UNIT: usize = 16;
/// An outlier lies where this share of the others does. It is 0.001 in SCIENCE 8, where it warns of drift. Here one outlier of
/// fewer than 20 wells trims their mean, and with 0.001 that happened by chance in 10 of 25 clean screens of four plates with
/// 16 wells a side and 24 features, with this in none. Debris lies far beyond: the six spoilt controls of the oracle screen at 180 to 400, this
/// limit at 58 with 16 components.
const OUTLIER_P: f64 = 1e-6;
/// The covariance is fitted without the share that lies furthest away.
const LEFT_OUT_P: f64 = 0.025;
/// Which wells are left out changes little after a few rounds.
const ROUNDS: usize = 8;

/// How controls of a screen differ from the others of their kind on their plate.
#[derive(Debug, Clone)]
pub(super) struct UsualControls {
    /// Unit of each feature, for plates with few controls; 0 leaves a feature out.
    units: Vec<f64>,
    /// Features x components.
    components: Mat<f64>,
    law: Gaussian,
    /// Of [`Gaussian::distance2`].
    limit: f64,
    /// Half of all controls lie within this.
    half: f64,
}

/// Controls of a plate, each less the median of its kind.
struct Residuals {
    /// Places among the plate's wells.
    wells: Vec<usize>,
    /// Wells of each kind, one kind after the other.
    kinds: Vec<usize>,
    rows: FeatureMatrix,
    /// Unit of each feature; `None` of too few wells.
    units: Vec<f64>,
}

impl Residuals {
    /// Of kinds with at least [`FEWEST_TRIMMED`] wells.
    fn of(wells: &[&WellProfile], raw: &FeatureMatrix) -> Self {
        let mut kinds: BTreeMap<(bool, Option<&str>), Vec<usize>> = BTreeMap::new();
        for (i, well) in wells.iter().enumerate() {
            if well.treatment.role != Role::Treated {
                let kind = (
                    well.treatment.role == Role::Reference,
                    well.treatment.disease.as_deref(),
                );
                kinds.entry(kind).or_default().push(i);
            }
        }
        kinds.retain(|_, wells| wells.len() >= FEWEST_TRIMMED);
        let count = kinds.values().map(Vec::len).sum();
        let mut rows = FeatureMatrix::zeros(count, raw.width());
        let mut at = Vec::with_capacity(count);
        for kind in kinds.values() {
            let of_kind: Vec<&[f32]> = kind.iter().map(|&i| raw.row(i)).collect();
            let middle = Scaler::median(&of_kind);
            for &i in kind {
                middle.apply_to(raw.row(i), rows.row_mut(at.len()));
                at.push(i);
            }
        }
        let all: Vec<&[f32]> = rows.rows().collect();
        // As profiles are scaled: no feature by much less than its SD, so that rare values do not stand out.
        let units = Scaler::robust(&all).floored(&Scaler::standardise(&all)).scale;
        Self {
            wells: at,
            kinds: kinds.values().map(Vec::len).collect(),
            rows,
            units,
        }
    }

    /// Divides by the plate's own units, or by those of the screen where its wells are few or a feature has none.
    fn scale(&mut self, of_screen: &[f64]) {
        let few = self.wells.len() < FEWEST_FOR_UNIT;
        for row in 0..self.rows.len() {
            let values = self.rows.row_mut(row).iter_mut();
            for (value, (&own, &of_screen)) in values.zip(self.units.iter().zip(of_screen)) {
                let unit = if few || own == 0.0 { of_screen } else { own };
                *value = if unit > 0.0 {
                    (f64::from(*value) / unit) as f32
                } else {
                    0.0
                };
            }
        }
    }

    /// Keeps so many rows, evenly.
    fn thin(&mut self, most: usize) {
        let n = self.rows.len();
        if n <= most {
            return;
        }
        let mut kept = FeatureMatrix::zeros(most, self.rows.width());
        for row in 0..most {
            kept.row_mut(row).copy_from_slice(self.rows.row(row * n / most));
        }
        self.rows = kept;
    }
}

impl UsualControls {
    /// Looks at the controls of some of the screen's plates, each read once. `None` where they are too few or do not
    /// differ, and where profiles are compared by ranks: no well lies far from the others there.
    pub(super) fn fit<W, E>(
        frame: &Frame,
        design: &Design,
        settings: &ComparisonSettings,
        width: &mut Option<usize>,
        read: &mut impl FnMut(&Barcode) -> Result<Vec<W>, E>,
    ) -> Result<Option<Self>, StreamError<E>>
    where
        W: Borrow<WellProfile>,
    {
        if settings.normalise == Normalise::Percentile {
            return Ok(None);
        }
        let reference = design.reference_wells();
        let usable: Vec<usize> = (0..reference.len())
            .filter(|&place| reference[place] > 0)
            .collect();
        let plates = usable.len().min(MOST_PLATES);
        let mut found = Vec::with_capacity(plates);
        for nth in 0..plates {
            let place = usable[nth * usable.len() / plates];
            let Some(plate) = design.plates().get(place) else {
                continue;
            };
            let loaded = [(plate, read(plate).map_err(StreamError::Caller)?)];
            for wells in checked(&loaded, width)? {
                // Why a plate has no rows is told where it is scored.
                let Ok(raw) = frame.raw_rows(place, &wells, settings) else {
                    continue;
                };
                let mut residuals = Residuals::of(&wells, &raw);
                residuals.thin(MOST_ROWS / plates);
                found.push(residuals);
            }
        }
        Ok(Self::of(found))
    }

    fn of(mut plates: Vec<Residuals>) -> Option<Self> {
        let width = plates.first()?.rows.width();
        // Of few features all directions count, also those in which most wells do not differ at all: there any other well
        // is infinitely far.
        if width < COMPONENTS {
            return None;
        }
        let units: Vec<f64> = (0..width)
            .map(|c| {
                let units = plates.iter().filter_map(|plate| plate.units.get(c).copied());
                let mut units: Vec<f64> = units.filter(|&unit| unit > 0.0).collect();
                median_in_place(&mut units).unwrap_or(0.0)
            })
            .collect();
        plates.iter_mut().for_each(|plate| plate.scale(&units));
        let rows = plates.iter().flat_map(|plate| plate.rows.rows());
        let rows = FeatureMatrix::from_rows(width, rows).ok()?;
        if rows.len() < FEWEST_ROWS {
            return None;
        }
        let directions = Pca::fit_rows(&unit_rows(&rows), COMPONENTS.min(rows.len() / ROWS_PER_COMPONENT));
        let components = directions.ok()?.loadings;
        let scores = scores(&rows, &components);
        let (law, spread) = usual(&scores)?;
        Some(Self {
            units,
            limit: chi_squared_limit(components.ncols(), OUTLIER_P) * spread,
            half: chi_squared_limit(components.ncols(), 0.5) * spread,
            components,
            law,
        })
    }

    /// Which wells of a plate are outliers among the controls; `raw`: its rows before any scaling.
    pub(super) fn outliers(&self, wells: &[&WellProfile], raw: &FeatureMatrix) -> Vec<bool> {
        let mut outliers = vec![false; wells.len()];
        let mut controls = Residuals::of(wells, raw);
        controls.scale(&self.units);
        let scores = scores(&controls.rows, &self.components);
        let distances: Vec<f64> = scores.iter().map(|row| self.law.distance2(row)).collect();
        let (mut wells, mut distances) = (controls.wells.as_slice(), distances.as_slice());
        for &n in &controls.kinds {
            let (of_kind, others) = distances.split_at(n);
            let (their_wells, other_wells) = wells.split_at(n);
            (wells, distances) = (other_wells, others);
            let middle = median_in_place(&mut of_kind.to_vec()).unwrap_or(0.0);
            let limit = self.limit * (middle / self.half).max(1.0);
            for (&well, &distance) in their_wells.iter().zip(of_kind) {
                outliers[well] = distance > limit;
            }
        }
        outliers
    }
}

fn scores(rows: &FeatureMatrix, components: &Mat<f64>) -> Vec<Vec<f64>> {
    let scores = project(rows, &vec![0.0; rows.width()], components.as_ref());
    let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect();
    scores.rows().map(wide).collect()
}

/// The law of the rows that are not far away, and by how much the covariance of all is larger than theirs. `None` where
/// they do not differ.
fn usual(rows: &[Vec<f64>]) -> Option<(Gaussian, f64)> {
    let k = rows.first()?.len();
    let limit = chi_squared_limit(k, LEFT_OUT_P);
    let within = |freedom: usize| ChiSquared::new(freedom as f64).map(|law| law.cdf(limit)).ok();
    // Tallis' factor: the variance of what lies within the limit, as a share of all.
    let share = within(k + 2)? / within(k)?;
    // At first each component by itself, by its MAD.
    let squares: Vec<f64> = (0..k)
        .filter_map(|c| {
            let mut column: Vec<f64> = rows.iter().map(|row| row[c].abs()).collect();
            let mad = MAD_TO_SD * median_in_place(&mut column)?;
            Some(mad * mad)
        })
        .collect();
    let distance = |row: &Vec<f64>| -> f64 {
        let terms = row.iter().zip(&squares).filter(|(_, square)| **square > 0.0);
        terms.map(|(value, square)| value * value / square).sum()
    };
    let mut kept = nearest(&rows.iter().map(distance).collect::<Vec<_>>(), limit);
    let mut law = None;
    for _ in 0..ROUNDS {
        let near: Vec<&[f64]> = kept.iter().map(|&i| rows[i].as_slice()).collect();
        let fitted = Gaussian::fit(&near).ok()?;
        let distances: Vec<f64> = rows.iter().map(|row| fitted.distance2(row) * share).collect();
        law = Some(fitted);
        let next = nearest(&distances, limit);
        if next == kept {
            break;
        }
        kept = next;
    }
    Some((law?, 1.0 / share))
}

/// The rows within the limit; the nearer half where these are fewer.
fn nearest(distances: &[f64], limit: f64) -> Vec<usize> {
    let half = distances.len().div_ceil(2);
    let mut order: Vec<usize> = (0..distances.len()).collect();
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(a.cmp(&b)));
    let within = order.partition_point(|&i| distances[i] <= limit);
    order.truncate(within.max(half));
    order.sort_unstable();
    order
}
