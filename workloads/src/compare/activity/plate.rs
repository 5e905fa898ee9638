//! One plate, moved to its origin: scored wells and their rows enter, treated wells and controls leave, each treated well
//! with how far the controls of its plate are from it. Nothing fails.

use super::super::axis::Centre;
use super::super::plates::ScoredPlate;
use super::super::{ComparisonSettings, null};
use crate::profile::WellProfile;
use crate::random::Random;
use crate::replicate::grit::Spread;
use crate::signature::vectors::{dot, products};
use crate::words::{Barcode, WellPosition};

/// A row in `f32`, with what similarities need of it.
#[derive(Debug, Clone)]
pub(super) struct Direction {
    pub(super) values: Box<[f32]>,
    /// Length; 0 where it has no direction.
    pub(super) length: f64,
    /// Sum of its values.
    pub(super) sum: f64,
}

impl Direction {
    fn of(values: Box<[f32]>) -> Self {
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let square = dot(&wide, &wide);
        Self {
            values,
            length: if square.is_finite() { square.sqrt() } else { 0.0 },
            sum: wide.iter().sum(),
        }
    }

    fn centred_length(&self) -> f64 {
        let n = self.values.len() as f64;
        (self.length * self.length - self.sum * self.sum / n)
            .max(0.0)
            .sqrt()
    }
}

/// Cosine of two rows from their inner product; `None` where one has no direction.
pub(super) fn cosine(product: f64, a: &Direction, b: &Direction) -> Option<f64> {
    let lengths = a.length * b.length;
    (lengths > 0.0).then(|| (product / lengths).clamp(-1.0, 1.0))
}

/// Pearson's correlation of two rows from their inner product; `None` where one is constant.
pub(super) fn correlation(product: f64, a: &Direction, b: &Direction) -> Option<f64> {
    // A centred length below this share of the whole one is rounding of a constant row.
    const CONSTANT: f64 = 1e-6;
    let varies = |row: &Direction, centred: f64| centred > CONSTANT * row.length;
    let (x, y) = (a.centred_length(), b.centred_length());
    let n = a.values.len() as f64;
    (varies(a, x) && varies(b, y)).then(|| ((product - a.sum * b.sum / n) / (x * y)).clamp(-1.0, 1.0))
}

/// Inner products of every row of `a` with every row of `b`: `out[j * a.len() + i]`.
pub(super) fn inner(a: &[&Direction], b: &[&Direction]) -> Vec<f64> {
    let width = a.first().or(b.first()).map_or(0, |row| row.values.len());
    let wide = |rows: &[&Direction]| -> Vec<f64> {
        rows.iter()
            .flat_map(|row| row.values.iter().map(|&v| f64::from(v)))
            .collect()
    };
    let mut out = vec![0.0; a.len() * b.len()];
    products(&wide(a), &wide(b), width, &mut out);
    out
}

/// A treated well.
#[derive(Debug, Clone)]
pub(super) struct Treated {
    pub(super) compound: Option<String>,
    pub(super) dose: Option<u64>,
    pub(super) well: Well,
}

/// A treated well's row, and its plate's controls as it sees them.
#[derive(Debug, Clone)]
pub(super) struct Well {
    /// Place of its plate in the order of reading.
    pub(super) place: usize,
    pub(super) position: WellPosition,
    /// Which of too many wells stay: the smallest.
    pub(super) priority: u64,
    pub(super) row: Direction,
    /// Distances (1 − cosine) of the controls, ascending, as they are ranked.
    pub(super) negatives: Box<[f32]>,
    /// Correlations with the controls.
    pub(super) spread: Option<Spread>,
}

/// A plate's wells on one disease, from their origin.
#[derive(Debug)]
pub(crate) struct PlateEffects {
    pub(super) disease: Option<String>,
    pub(super) treated: Vec<Treated>,
    pub(super) controls: Vec<Direction>,
    /// By control, which of too many stay.
    pub(super) priorities: Vec<u64>,
}

/// The effects on a plate, one entry for each of its diseases. `wells` by position, with their `rows`.
pub(crate) fn effects(
    place: usize,
    wells: &[&WellProfile],
    rows: &[Vec<f64>],
    panels: &[ScoredPlate<'_>],
    settings: &ComparisonSettings,
) -> Vec<PlateEffects> {
    let row_of = |profile: &WellProfile| -> Option<&[f64]> {
        let at = wells.binary_search_by_key(&profile.well, |well| well.well).ok()?;
        rows.get(at).map(Vec::as_slice)
    };
    panels
        .iter()
        .map(|panel| {
            let origin = panel.null_wells(settings.question);
            let controls: Vec<(&WellProfile, &[f64])> = origin
                .iter()
                .filter_map(|well| Some((well.profile, row_of(well.profile)?)))
                .collect();
            let treated: Vec<(&WellProfile, &[f64])> = panel
                .treated
                .iter()
                .filter_map(|well| Some((well.profile, row_of(well.profile)?)))
                .collect();
            let centre = panel.null_centre(settings.question);
            of_disease(place, panel, &controls, centre, &treated, settings.seed)
        })
        .collect()
}

fn of_disease(
    place: usize,
    panel: &ScoredPlate<'_>,
    controls: &[(&WellProfile, &[f64])],
    centre: Centre,
    treated: &[(&WellProfile, &[f64])],
    seed: u64,
) -> PlateEffects {
    let mut effects = PlateEffects {
        disease: panel.disease.map(str::to_owned),
        treated: Vec::with_capacity(treated.len()),
        controls: Vec::with_capacity(controls.len()),
        priorities: Vec::with_capacity(controls.len()),
    };
    let rows: Vec<&[f64]> = controls.iter().map(|(_, row)| *row).collect();
    // Without controls there is no origin, and nothing to say.
    let (Some(origin), false) = (centre.of(&rows), treated.is_empty()) else {
        return effects;
    };
    let moved = |row: &[f64]| -> Direction {
        Direction::of(row.iter().zip(&origin).map(|(x, o)| (x - o) as f32).collect())
    };
    for (profile, row) in controls {
        effects.controls.push(moved(row));
        effects.priorities.push(priority(panel.plate, profile.well, seed));
    }
    let moved: Vec<Direction> = treated.iter().map(|(_, row)| moved(row)).collect();
    let against: Vec<&Direction> = effects.controls.iter().collect();
    let products = inner(&against, &moved.iter().collect::<Vec<_>>());
    for (((profile, _), row), products) in treated
        .iter()
        .zip(moved)
        .zip(products.chunks_exact(against.len()))
    {
        let pairs = || products.iter().zip(&against);
        let mut negatives: Vec<f32> = pairs()
            .filter_map(|(&product, control)| cosine(product, &row, control))
            .map(|cosine| 1.0f32 - cosine as f32)
            .collect();
        negatives.sort_unstable_by(f32::total_cmp);
        let correlations: Vec<f64> = pairs()
            .filter_map(|(&product, control)| correlation(product, &row, control))
            .collect();
        effects.treated.push(Treated {
            compound: profile.treatment.compound.clone(),
            // Adding 0 turns -0 into 0, whose bits differ.
            dose: profile.treatment.dose.map(|dose| (dose + 0.0).to_bits()),
            well: Well {
                place,
                position: profile.well,
                priority: priority(panel.plate, profile.well, seed),
                row,
                negatives: negatives.into_boxed_slice(),
                // Of one control there is no spread.
                spread: (correlations.len() > 1)
                    .then(|| Spread::of(&correlations))
                    .flatten(),
            },
        });
    }
    effects
}

/// A number of plate, well and seed alone.
fn priority(plate: &Barcode, well: WellPosition, seed: u64) -> u64 {
    let at = [well.row(), well.column()];
    let parts = [plate.as_str().as_bytes(), at.as_slice()];
    // FNV alone mixes its last bytes little: neighbouring wells would be kept or lost together.
    Random::seeded(null::seed_for(seed, parts.into_iter())).next()
}
