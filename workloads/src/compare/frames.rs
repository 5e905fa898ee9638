//! The space in which wells are compared. A plate's raw profiles enter, rows in that space leave (SCIENCE 5.7).
//!
//! What needs more than one plate was fitted beforehand ([`Frame::fit`]); what is per plate is fitted as the plate is
//! framed. A plate that cannot be framed gives a note that says why.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use rayon::prelude::*;

use super::axis::Centre;
use super::engine::Sorted;
use super::harmonised::Harmonised;
use super::outliers::UsualControls;
use super::percentile::Percentiles;
use super::scale::Scaler;
use super::scaling::Scaling;
use super::{CompareError, ComparisonSettings, FitOn, Normalise, Note, NoteKind, Question};
use crate::align::{FittedTransform, PlateRows};
use crate::matrix::FeatureMatrix;
use crate::position::{PositionError, WellPositionMeans};
use crate::profile::{Role, WellProfile};
use crate::select::Selection;
use crate::words::WellPosition;

/// Fewest wells of a fit of which one can be held out.
const FEWEST_HELD_OUT: usize = 4;
/// Fewest reference wells of a plate that can be aligned: one has no spread.
pub(super) const FEWEST_ALIGNED: usize = 2;

/// A plate's wells as they are compared.
pub(super) struct Framed {
    /// One row per well, in the wells' order.
    pub(super) rows: Vec<Vec<f64>>,
    /// The same wells in the aligned space, where the screen has one.
    pub(super) aligned: Option<Vec<Vec<f64>>>,
    /// How the plate's columns were scaled.
    pub(super) scaling: Option<Scaling>,
    /// On how many wells.
    pub(super) fitted: usize,
    /// Which wells are outliers among the controls; `None` where the screen's controls are too few to tell.
    pub(super) outliers: Option<Vec<bool>>,
    /// The first column without spread where it was scaled, counted among all columns of the profiles, and its name.
    pub(super) first_flat: Option<(usize, String)>,
}

/// The space in which the wells of a screen are compared: all that its plates have in common. [`Frame::fit`] makes it,
/// [`super::stream()`] takes it.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Per place in the order of reading: divisors of columns that are flat on the plate, from the other plates.
    pub(super) repairs: BTreeMap<usize, Vec<(usize, f64)>>,
    pub(super) transform: Option<FittedTransform>,
    /// In place of `transform`, where wells are aligned all at once.
    pub(super) harmonised: Option<Harmonised>,
    /// What well positions have in common, in units of scaled profiles, where it is taken out.
    pub(super) positions: Option<WellPositionMeans>,
    /// The columns that are compared, where not all are.
    pub(super) selection: Option<Selection>,
    /// What is usual among the screen's controls.
    pub(super) usual: Option<UsualControls>,
    /// Names of all columns; none where the caller gave none.
    pub(super) features: Vec<String>,
    pub(super) notes: Vec<Note>,
}

impl Frame {
    /// The alignment, where the screen has one: save it with [`FittedTransform::to_json`], name it by its hash.
    pub fn transform(&self) -> Option<&FittedTransform> {
        self.transform.as_ref()
    }

    /// The columns that are compared and why the others are not, where columns were selected.
    pub fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// The profiles of the plate at `place` before any scaling: without what their well positions have in common, of the
    /// columns that are compared; all of one width.
    ///
    /// # Errors
    /// A plate with wells in a position that the correction was not fitted on.
    pub(super) fn raw_rows(
        &self,
        place: usize,
        wells: &[&WellProfile],
        settings: &ComparisonSettings,
    ) -> Result<FeatureMatrix, PositionError> {
        let mut rows = match self.selection.as_ref().map(Selection::kept) {
            None => raw_rows(wells),
            Some(kept) => {
                let mut rows = FeatureMatrix::zeros(wells.len(), kept.len());
                for (i, well) in wells.iter().enumerate() {
                    for (value, &column) in rows.row_mut(i).iter_mut().zip(kept) {
                        *value = well.values[column];
                    }
                }
                rows
            }
        };
        if let Some(positions) = &self.positions {
            let unit = self.unit(place, &rows, wells, settings);
            let wells: Vec<WellPosition> = wells.iter().map(|well| well.well).collect();
            let divisors = unit.as_ref().map(|unit| unit.scale.as_slice());
            positions.subtract_scaled(&mut rows, &wells, divisors)?;
        }
        Ok(rows)
    }

    /// Of the plates at `places`, those with the reference wells that alignment needs and with wells that differ: each with
    /// its place, its wells, and its profiles before any scaling. The others are named where they are scored.
    pub(super) fn alignable<'s, 'w>(
        &self,
        places: Range<usize>,
        sorted: &'s [Sorted<'w>],
        settings: &ComparisonSettings,
    ) -> Result<Vec<Alignable<'s, 'w>>, CompareError> {
        sorted
            .par_iter()
            .zip(places)
            .map(|(wells, place)| (place, wells, Placed::of(wells)))
            .filter(|(_, _, placed)| placed.controls.len() >= FEWEST_ALIGNED)
            .map(|(place, wells, placed)| {
                let raw = self.raw_rows(place, wells, settings)?;
                Ok(differ(&raw).then_some(Alignable {
                    place,
                    wells,
                    placed,
                    raw,
                }))
            })
            .filter_map(Result::transpose)
            .collect()
    }

    /// How the columns of a plate are scaled, where they are: the unit in which well positions are compared between
    /// plates. Ranks have none; theirs is the SD.
    pub(super) fn unit(
        &self,
        place: usize,
        rows: &FeatureMatrix,
        wells: &[&WellProfile],
        settings: &ComparisonSettings,
    ) -> Option<Scaler> {
        let normalise = match settings.normalise {
            Normalise::Percentile => Normalise::Standardise,
            other => other,
        };
        let on: Vec<usize> = fitted_wells(wells, settings.fit_on).collect();
        let all: Vec<usize> = (0..wells.len()).collect();
        match self.scaling(place, rows, &on, normalise, &spread(rows, &all, normalise))? {
            Scaling::Linear(scaler) => Some(scaler),
            Scaling::Percentile(_) => None,
        }
    }

    /// How the columns of a plate are scaled by its wells `on`: flat ones as on other plates, and none by much less than
    /// its spread over all wells.
    fn scaling(
        &self,
        place: usize,
        rows: &FeatureMatrix,
        on: &[usize],
        normalise: Normalise,
        spread: &Option<Scaler>,
    ) -> Option<Scaling> {
        let mut scaler = match fit_scaling(rows, on, normalise)? {
            Scaling::Linear(scaler) => scaler,
            ranks => return Some(ranks),
        };
        for &(column, divisor) in self.repairs.get(&place).into_iter().flatten() {
            scaler.scale[column] = divisor;
        }
        Some(Scaling::Linear(match spread {
            Some(spread) => scaler.floored(spread),
            None => scaler,
        }))
    }

    /// The rows of the plate at `place` in the order of reading, or why there are none.
    pub(super) fn frame(
        &self,
        place: usize,
        wells: &[&WellProfile],
        settings: &ComparisonSettings,
    ) -> Result<Framed, Note> {
        let raw = self
            .raw_rows(place, wells, settings)
            .map_err(|error| unscored(wells, error))?;
        let outliers = self.usual.as_ref().map(|usual| usual.outliers(wells, &raw));
        let far = outliers.as_deref().unwrap_or_default();
        // Outliers whose side is centred without them do not set the units either: they would leave the features that they
        // happen to spare, and the axis with these few.
        let on = without_many(far, fitted_wells(wells, settings.fit_on));
        let of_role = |role| (0..wells.len()).filter(move |&i| wells[i].treatment.role == role);
        let mut usable = without_many(far, of_role(Role::Reference));
        usable.extend(without_many(far, of_role(Role::Phenotype)));
        usable.extend(of_role(Role::Treated));
        usable.sort_unstable();
        let spread = spread(&raw, &usable, settings.normalise);
        let fitted = |on: &[usize]| self.scaling(place, &raw, on, settings.normalise, &spread);
        let scaling = fitted(&on);
        // Where the wells of the fit are also what treatments are compared with, each is scaled by the others: scaled
        // by itself it looks nearer to them than any other well. Of treatments without effect 12 to 15 % had p < 0.05
        // in made activity screens with 48 reference wells a plate.
        let hold_out = settings.question != Question::Rescue
            && settings.fit_on == FitOn::Reference
            && on.len() >= FEWEST_HELD_OUT;
        let rows = (0..raw.len())
            .into_par_iter()
            .map(|i| {
                let own = if hold_out && wells[i].treatment.role == Role::Reference {
                    let others: Vec<usize> = on.iter().copied().filter(|&other| other != i).collect();
                    fitted(&others)
                } else {
                    None
                };
                match own.as_ref().or(scaling.as_ref()) {
                    Some(scaling) => scaling.apply(raw.row(i)),
                    None => raw.row(i).iter().map(|&v| f64::from(v)).collect(),
                }
            })
            .collect();
        let aligned = match (&self.transform, &self.harmonised) {
            // A plate without reference wells is not scored, in any space; plates.rs says so.
            _ if reference(wells) == 0 => None,
            (Some(transform), _) => Some(aligned(transform, &raw, wells)?),
            (None, Some(harmonised)) => Some(moved(harmonised.plate(place), wells)?),
            (None, None) => None,
        };
        Ok(Framed {
            rows,
            aligned,
            first_flat: scaling.as_ref().and_then(|scaling| {
                let column = *scaling.flat_columns().first()?;
                let kept = self.selection.as_ref().map(Selection::kept);
                let column = kept.map_or(Some(column), |kept| kept.get(column).copied())?;
                let name = self.features.get(column);
                Some((column, name.map_or_else(|| column.to_string(), String::clone)))
            }),
            scaling,
            fitted: on.len(),
            outliers,
        })
    }
}

/// Why the wells of a plate are not scored.
fn unscored(wells: &[&WellProfile], why: impl Display) -> Note {
    Note {
        plate: wells.first().map(|well| well.plate.clone()),
        ..Note::of_screen(
            NoteKind::NotAligned,
            format!("{why}; its {} wells were not scored", wells.len()),
        )
    }
}

/// The wells of a plate as Harmony moved them.
fn moved(plate: Option<&FeatureMatrix>, wells: &[&WellProfile]) -> Result<Vec<Vec<f64>>, Note> {
    let plate = plate.filter(|rows| rows.len() == wells.len());
    let Some(rows) = plate else {
        let name = wells.first().map(|well| &well.plate);
        let name = name.map(ToString::to_string).unwrap_or_default();
        return Err(unscored(
            wells,
            format!(
                "plate {name} was not aligned: that needs {FEWEST_ALIGNED} reference wells, and wells that differ"
            ),
        ));
    };
    Ok(wide(rows))
}

fn wide(rows: &FeatureMatrix) -> Vec<Vec<f64>> {
    let wide = |row: &[f32]| row.iter().map(|&value| f64::from(value)).collect();
    rows.rows().map(wide).collect()
}

fn aligned(
    transform: &FittedTransform,
    raw: &FeatureMatrix,
    wells: &[&WellProfile],
) -> Result<Vec<Vec<f64>>, Note> {
    let placed = Placed::of(wells);
    if let (Some(rows), true) = (
        placed.rows(raw),
        placed.controls.len() < FEWEST_ALIGNED && transform.needs_controls(),
    ) {
        let found = placed.controls.len();
        let why = format!(
            "plate {} has {found} reference well where alignment needs {FEWEST_ALIGNED}",
            rows.plate
        );
        return Err(unscored(wells, why));
    }
    let Some(rows) = placed.rows(raw) else {
        return Ok(Vec::new());
    };
    let aligned = transform
        .apply_held_out(&rows)
        .map_err(|error| unscored(wells, error))?;
    Ok(wide(&aligned))
}

/// A plate that alignment can be fitted on.
pub(super) struct Alignable<'s, 'w> {
    /// In the order of reading.
    pub(super) place: usize,
    pub(super) wells: &'s [&'w WellProfile],
    placed: Placed<'w>,
    raw: FeatureMatrix,
}

impl Alignable<'_, '_> {
    /// `None` without wells.
    pub(super) fn rows(&self) -> Option<PlateRows<'_>> {
        self.placed.rows(&self.raw)
    }
}

/// Where the wells of a plate are, and which of them alignment is fitted on.
struct Placed<'w> {
    first: Option<&'w WellProfile>,
    wells: Vec<WellPosition>,
    controls: Vec<usize>,
}

impl<'w> Placed<'w> {
    fn of(wells: &[&'w WellProfile]) -> Self {
        let is_reference = |i: &usize| wells[*i].treatment.role == Role::Reference;
        Self {
            first: wells.first().copied(),
            wells: wells.iter().map(|well| well.well).collect(),
            controls: (0..wells.len()).filter(is_reference).collect(),
        }
    }

    /// `None` without wells.
    fn rows<'a>(&'a self, rows: &'a FeatureMatrix) -> Option<PlateRows<'a>> {
        Some(PlateRows {
            plate: &self.first?.plate,
            wells: &self.wells,
            rows,
            controls: &self.controls,
        })
    }
}

/// The profiles of a plate as they came; all of one width.
pub(super) fn raw_rows(wells: &[&WellProfile]) -> FeatureMatrix {
    let width = wells.first().map_or(0, |well| well.values.len());
    let mut rows = FeatureMatrix::zeros(wells.len(), width);
    for (i, well) in wells.iter().enumerate() {
        rows.row_mut(i).copy_from_slice(&well.values);
    }
    rows
}

/// Whether any two rows do.
fn differ(rows: &FeatureMatrix) -> bool {
    let first = rows.rows().next();
    first.is_some_and(|first| rows.rows().any(|row| row != first))
}

fn reference(wells: &[&WellProfile]) -> usize {
    fitted_wells(wells, FitOn::Reference).count()
}

/// The wells of a plate that scaling is fitted on, by their places.
pub(super) fn fitted_wells(wells: &[&WellProfile], fit_on: FitOn) -> impl Iterator<Item = usize> {
    (0..wells.len()).filter(move |&i| fit_on == FitOn::All || wells[i].treatment.role == Role::Reference)
}

/// Wells by their places, without those that are `far` where these are too many for a mean ([`Centre::with`]).
fn without_many(far: &[bool], wells: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut wells: Vec<usize> = wells.collect();
    let is_far = |i: &usize| far.get(*i) == Some(&true);
    if Centre::with(wells.iter().filter(|i| is_far(i)).count(), wells.len()).is_trimmed() {
        wells.retain(|i| !is_far(i));
    }
    wells
}

/// The spread of a plate's columns over its wells `of`, where they are divided by one.
fn spread(rows: &FeatureMatrix, of: &[usize], normalise: Normalise) -> Option<Scaler> {
    matches!(normalise, Normalise::Standardise | Normalise::RobustMad)
        .then(|| Scaler::standardise(&of.iter().map(|&i| rows.row(i)).collect::<Vec<_>>()))
}

/// Fits how columns are scaled on the rows `on`.
pub(super) fn fit_scaling(rows: &FeatureMatrix, on: &[usize], normalise: Normalise) -> Option<Scaling> {
    let rows: Vec<&[f32]> = on.iter().map(|&i| rows.row(i)).collect();
    if rows.is_empty() {
        return None;
    }
    match normalise {
        Normalise::None => None,
        Normalise::Standardise => Some(Scaler::standardise(&rows).into()),
        Normalise::RobustMad => Some(Scaler::robust(&rows).into()),
        Normalise::Percentile => Some(Scaling::Percentile(Percentiles::fit(&rows))),
    }
}
