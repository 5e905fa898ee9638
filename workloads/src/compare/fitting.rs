//! What the plates of a screen have in common, fitted in passes over them.
//!
//! Plates are read once per pass and forgotten; means and scatters of the features are all that stays, one divisor per
//! plate and feature where scaling is robust, and a bounded sample where columns are selected ([`super::selecting`]):
//! memory does not grow with the wells. The same plates give the same
//! bytes, in any order and on any number of threads. Fails where a plate cannot be read, profiles contradict each
//! other, or the alignment that was asked for cannot be fitted.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use rayon::prelude::*;

use super::design::Design;
use super::engine::{StreamError, batches, checked};
use super::frames::{Alignable, FEWEST_ALIGNED, Frame, fitted_wells, raw_rows};
use super::harmonised::Harmonised;
use super::outliers::UsualControls;
use super::scale::Scaler;
use super::{
    Align, CompareError, ComparisonSettings, Normalise, Note, NoteKind, Question, Select, selecting,
};
use crate::align::{AlignError, FittedTransform, Fitter};
use crate::matrix::FeatureMatrix;
use crate::position::{FEWEST_PLATES, WellPositionFitter, WellPositionMeans};
use crate::profile::WellProfile;
use crate::select::Selection;
use crate::words::Barcode;

/// Whitening is fitted on at least this many times as many reference wells as there are components: with fewer, the
/// directions that they happen not to span count as noise-free, and wells that lie there as far away.
const WELLS_PER_COMPONENT: usize = 2;
/// Fewest components of an alignment that was asked for.
const FEWEST_COMPONENTS: usize = 2;
/// Fewest components of one that was not: what it leaves out would be missed.
const FEWEST_UNASKED: usize = 32;
/// Largest matrix that is decomposed unasked (the lesser of features and wells): a few seconds.
const WIDEST_UNASKED: usize = 2048;

impl Frame {
    /// Fits the space that `settings` ask for. `features`: the columns' names. `earlier`: an alignment fitted before,
    /// which is used as it is; `settings.align` is not looked at then.
    ///
    /// `read` as of [`super::stream()`]; it is called for some plates to learn what is usual among controls, and then for each
    /// plate once per pass of what is fitted over plates.
    ///
    /// # Errors
    /// [`StreamError::Caller`] with what `read` failed with; [`StreamError::Compare`] where settings are out of range,
    /// profiles contradict each other, features are not those of `earlier`, or there are too few wells for the
    /// alignment.
    pub fn fit<W, E>(
        design: &Design,
        settings: &ComparisonSettings,
        features: &[String],
        earlier: Option<FittedTransform>,
        mut read: impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send,
    ) -> Result<Self, StreamError<E>>
    where
        W: Borrow<WellProfile> + Send + Sync,
        E: Send,
    {
        settings.check()?;
        let mut width = (!features.is_empty()).then_some(features.len());
        let mut frame = Self {
            features: features.to_vec(),
            ..Self::default()
        };
        if settings.normalise == Normalise::RobustMad {
            let mut scalers = Vec::new();
            batches(design, &mut read, |_, plates| {
                let sorted = checked(plates, &mut width)?;
                let spreads = |wells: &Vec<&WellProfile>| {
                    let on: Vec<usize> = fitted_wells(wells, settings.fit_on).collect();
                    let rows = raw_rows(wells);
                    let rows: Vec<&[f32]> = on.iter().map(|&i| rows.row(i)).collect();
                    (!rows.is_empty()).then(|| Scaler {
                        centre: Vec::new(),
                        ..Scaler::robust(&rows)
                    })
                };
                scalers.par_extend(sorted.par_iter().map(spreads));
                Ok(())
            })?;
            frame.repairs = repairs(&scalers);
        }
        if settings.well_position {
            frame.positions = Some(positions(&frame, design, settings, &mut width, &mut read)?);
        }
        let selected = match (settings.select, &earlier) {
            (Select::None, _) => None,
            (Select::Recommended, Some(transform)) => Some(Selection::named(features, transform.features())),
            (Select::Recommended, None) => Some(selecting::recommended(
                &frame, design, settings, features, &mut read,
            )?),
        };
        if let Some(selection) = selected {
            frame.notes.push(selecting::note(&selection, features.len()));
            frame.select(selection);
        }
        frame.usual = UsualControls::fit(&frame, design, settings, &mut width, &mut read)?;
        let kept = frame
            .selection
            .as_ref()
            .map(|selection| selection.names().to_vec());
        let features = kept.as_deref().unwrap_or(features);
        if let Some(transform) = earlier {
            transform.check_features(features).map_err(CompareError::from)?;
            frame.transform = Some(transform);
        } else {
            let (align, components, note) = possible(design, settings, features.len())?;
            frame.notes.extend(note);
            let steps = settings.steps(align, components);
            if steps.is_empty() {
                return Ok(frame);
            }
            let mut fitter = Fitter::new(features, &steps).map_err(CompareError::from)?;
            while fitter.needs_pass() {
                batches(design, &mut read, |places, plates| {
                    let sorted = checked(plates, &mut width)?;
                    let plates = frame.alignable(places, &sorted, settings)?;
                    let rows: Vec<_> = plates.iter().filter_map(Alignable::rows).collect();
                    fitter.add(&rows).map_err(CompareError::from)?;
                    Ok(())
                })?;
                fitter.end_pass().map_err(CompareError::from)?;
            }
            let transform = fitter.finish();
            if align == Align::Harmony {
                let moved = Harmonised::fit(&frame, &transform, design, settings, &mut read)?;
                frame.notes.push(moved.note.clone());
                frame.harmonised = Some(moved);
            } else {
                frame.transform = Some(transform);
            }
        }
        Ok(frame)
    }

    /// Compares on the columns of a selection from here on.
    fn select(&mut self, selection: Selection) {
        for divisors in self.repairs.values_mut() {
            *divisors = divisors
                .iter()
                .filter_map(|&(column, divisor)| {
                    Some((selection.kept().binary_search(&column).ok()?, divisor))
                })
                .collect();
        }
        if let Some(positions) = &mut self.positions {
            positions.select(selection.kept());
        }
        self.selection = Some(selection);
    }
}

/// What well positions have in common, of scaled profiles. Plates that cannot be scaled are not scored, and not looked at.
fn positions<W, E>(
    frame: &Frame,
    design: &Design,
    settings: &ComparisonSettings,
    width: &mut Option<usize>,
    read: &mut (impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send),
) -> Result<WellPositionMeans, StreamError<E>>
where
    W: Borrow<WellProfile> + Send + Sync,
    E: Send,
{
    let mut fitter = WellPositionFitter::default();
    batches(design, read, |places, plates| {
        let sorted = checked(plates, width)?;
        let scaled: Vec<Option<FeatureMatrix>> = sorted
            .par_iter()
            .zip(places)
            .map(|(wells, place)| {
                let mut rows = raw_rows(wells);
                if settings.normalise != Normalise::None {
                    let unit = frame.unit(place, &rows, wells, settings)?;
                    for (row, well) in wells.iter().enumerate() {
                        unit.apply_to(&well.values, rows.row_mut(row));
                    }
                }
                Some(rows)
            })
            .collect();
        for (wells, rows) in sorted.iter().zip(scaled) {
            let placed: Vec<_> = wells.iter().map(|well| (well.well, &well.treatment)).collect();
            if let Some(rows) = rows {
                fitter.add(&rows, &placed).map_err(CompareError::from)?;
            }
        }
        Ok(())
    })?;
    Ok(fitter.finish(FEWEST_PLATES).map_err(CompareError::from)?)
}

/// The alignment that is asked for and possible, its components, and a note where it is less than what was asked for.
fn possible(
    design: &Design,
    settings: &ComparisonSettings,
    width: usize,
) -> Result<(Align, usize, Option<Note>), CompareError> {
    let usable = design.reference_wells().iter().copied();
    let reference: usize = usable.clone().filter(|&wells| wells >= FEWEST_ALIGNED).sum();
    let asked = settings.alignment.components as usize;
    let most = reference / WELLS_PER_COMPONENT;
    let note = |text: String| Some(Note::of_screen(NoteKind::Alignment, text));
    let needed = match settings.align {
        Align::None => return Ok((Align::None, asked, None)),
        Align::Auto => {
            let lonely = usable.filter(|&wells| wells == 1).count();
            let why = if settings.question != Question::Rescue {
                return Ok((Align::None, asked, None));
            } else if most < FEWEST_UNASKED {
                format!(
                    "{reference} reference wells were there to fit it on, and {} are needed",
                    WELLS_PER_COMPONENT * FEWEST_UNASKED
                )
            } else if lonely > 0 {
                format!("{lonely} of the plates have one reference well only")
            } else if width.min(design.wells()) > WIDEST_UNASKED {
                format!(
                    "with {width} features it takes long and gigabytes of memory; ask for it with align = \"tvn\""
                )
            } else if asked <= most {
                return Ok((Align::Tvn, asked, None));
            } else {
                return Ok((Align::Tvn, most, None));
            };
            let text = format!(
                "off-axis lengths are those of the scaled features, without alignment over plates: {why}"
            );
            return Ok((Align::None, asked, note(text)));
        }
        Align::Tvn => WELLS_PER_COMPONENT * FEWEST_COMPONENTS,
        Align::Pca | Align::Sphere | Align::Harmony => FEWEST_ALIGNED,
    };
    if reference < needed {
        let found = reference;
        return Err(AlignError::FewControls { found, needed }.into());
    }
    if settings.align != Align::Tvn || asked <= most {
        return Ok((settings.align, asked, None));
    }
    let text = format!(
        "the aligned space has at most {most} components instead of {asked}: {reference} reference wells were there to \
         fit it on, and {WELLS_PER_COMPONENT} are needed per component; more reference wells, or align = \"none\", \
         keep more of the profiles"
    );
    Ok((Align::Tvn, most, note(text)))
}

/// What replaces the divisors of flat columns: the median divisor of the plates where they are not flat.
fn repairs(scalers: &[Option<Scaler>]) -> BTreeMap<usize, Vec<(usize, f64)>> {
    let mut repairs = BTreeMap::new();
    for (place, scaler) in scalers.iter().enumerate() {
        let Some(scaler) = scaler.as_ref().filter(|scaler| !scaler.flat_columns.is_empty()) else {
            continue;
        };
        let others: Vec<&Scaler> = scalers
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != place)
            .filter_map(|(_, other)| other.as_ref())
            .collect();
        let mut repaired = scaler.clone();
        repaired.repair(&others);
        let columns = &repaired.flat_columns;
        let divisors = columns.iter().map(|&column| (column, repaired.scale[column]));
        repairs.insert(place, divisors.collect());
    }
    repairs
}
