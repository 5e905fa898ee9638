//! Fitting an alignment over plates that need not be in memory together.
//!
//! Plates enter, in as many passes as there are steps fitted on all of them; a [`FittedTransform`] leaves. Between
//! passes only means and scatters are held, and the rows of a step whose wells are fewer than its features. The same
//! plates in the same order give the same bytes. It fails where a step cannot be fitted, and names step and plate.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::error::AlignError;
use super::moments::Moments;
use super::pca::Pca;
use super::sphere::Sphering;
use super::step::{PlateRows, Step};
use super::transform::{FittedPlate, FittedStep, FittedTransform, Projection};
use super::tvn::Tvn;
use crate::matrix::FeatureMatrix;
use crate::words::Barcode;

/// Values that the scatters of plates in work may take together: 128 MiB.
const SCATTER_VALUES: usize = 1 << 24;
/// Plates in work at most.
const MOST_PLATES: usize = 16;

/// Fits the steps on plates in memory. They are taken in the order of their barcodes; rows in the order given.
///
/// # Errors
/// [`AlignError`] that names step and plate.
pub fn fit(
    plates: &[PlateRows<'_>],
    features: &[String],
    steps: &[Step],
) -> Result<FittedTransform, AlignError> {
    let mut sorted = plates.to_vec();
    sorted.sort_by_key(|plate| plate.plate);
    let mut fitter = Fitter::new(features, steps)?;
    while fitter.needs_pass() {
        fitter.add(&sorted)?;
        fitter.end_pass()?;
    }
    Ok(fitter.finish())
}

/// Fits step after step: while [`Fitter::needs_pass`], give every plate to [`Fitter::add`] and call
/// [`Fitter::end_pass`].
#[derive(Debug)]
pub struct Fitter {
    fitted: FittedTransform,
    /// Steps not yet fitted, the next one first.
    open: Vec<Step>,
    gathered: Gathered,
    plates: BTreeMap<Barcode, FittedPlate>,
}

impl Fitter {
    /// `features`: the columns' names.
    ///
    /// # Errors
    /// [`AlignError::Setting`] for a step out of range.
    pub fn new(features: &[String], steps: &[Step]) -> Result<Self, AlignError> {
        for step in steps {
            step.check()?;
        }
        let mut fitter = Self {
            fitted: FittedTransform {
                features: features.to_vec(),
                fitted_on: Vec::new(),
                steps: Vec::new(),
            },
            open: steps.to_vec(),
            gathered: Gathered::default(),
            plates: BTreeMap::new(),
        };
        fitter.take_steps_of_a_plate();
        Ok(fitter)
    }

    /// Whether the plates must be given (again).
    pub fn needs_pass(&self) -> bool {
        !self.open.is_empty()
    }

    /// Adds plates to the pass, several at a time in parallel. Every pass takes the same plates in the same order.
    ///
    /// # Errors
    /// [`AlignError`] that names the plate.
    pub fn add(&mut self, plates: &[PlateRows<'_>]) -> Result<(), AlignError> {
        let Some(step) = self.open.first() else {
            return Ok(());
        };
        let all_wells = matches!(step, Step::Pca { .. });
        for plate in plates {
            self.record(plate)?;
        }
        let (fitted, gathered) = (&self.fitted, &mut self.gathered);
        for plates in plates.chunks(MOST_PLATES) {
            let portions: Vec<FeatureMatrix> = plates
                .par_iter()
                .map(|plate| {
                    let rows = fitted.apply(plate)?;
                    Ok(if all_wells {
                        rows
                    } else {
                        rows.select(plate.controls)
                    })
                })
                .collect::<Result<_, AlignError>>()?;
            gathered.add(portions, all_wells);
        }
        Ok(())
    }

    /// Fits the step of this pass.
    ///
    /// # Errors
    /// [`AlignError::Screen`] that names the step.
    pub fn end_pass(&mut self) -> Result<(), AlignError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let step = self.open.remove(0);
        let gathered = std::mem::take(&mut self.gathered);
        let plates = std::mem::take(&mut self.plates);
        self.fitted.fitted_on = plates.into_values().collect();
        let fitted = self.fit_step(step, gathered);
        self.fitted
            .steps
            .push(fitted.map_err(|source| AlignError::Screen {
                step: step.name(),
                source: Box::new(source),
            })?);
        self.take_steps_of_a_plate();
        Ok(())
    }

    /// The fitted steps, after the last pass.
    pub fn finish(self) -> FittedTransform {
        self.fitted
    }

    fn record(&mut self, plate: &PlateRows<'_>) -> Result<(), AlignError> {
        plate.check(&self.fitted.features)?;
        let fitted = FittedPlate {
            plate: plate.plate.clone(),
            wells: plate.rows.len(),
            controls: plate
                .controls
                .iter()
                .map(|&control| plate.wells[control])
                .collect(),
        };
        match self.plates.insert(plate.plate.clone(), fitted) {
            None => Ok(()),
            Some(twice) => Err(AlignError::DuplicatePlate { plate: twice.plate }),
        }
    }

    /// Steps of which nothing is fitted on all plates need no pass.
    fn take_steps_of_a_plate(&mut self) {
        while let Some(&step) = self.open.first() {
            let step = match step {
                Step::Scale { method, on } => FittedStep::Scale { method, on },
                Step::Coral(settings) if !settings.recolour => FittedStep::Coral {
                    settings,
                    colouring: None,
                },
                _ => return,
            };
            self.fitted.steps.push(step);
            self.open.remove(0);
        }
    }

    fn fit_step(&self, step: Step, gathered: Gathered) -> Result<FittedStep, AlignError> {
        let width = self.fitted.width();
        let (projection, centre, map) = match step {
            Step::Scale { method, on } => return Ok(FittedStep::Scale { method, on }),
            Step::Coral(settings) => {
                let colouring = Some(settings.colouring(&gathered.moments(width))?);
                return Ok(FittedStep::Coral { settings, colouring });
            }
            Step::Pca { components } => {
                let pca = gathered.pca(width, components)?;
                (Projection::Pca, pca.mean, pca.loadings)
            }
            Step::Tvn => {
                let tvn = Tvn::fit(&gathered.moments(width))?;
                (Projection::Tvn, tvn.centre, tvn.map)
            }
            Step::Sphere(settings) => {
                let projected = self
                    .fitted
                    .steps
                    .iter()
                    .any(|step| matches!(step, FittedStep::Project { .. }));
                let names = if projected { &[][..] } else { &self.fitted.features };
                let sphering = Sphering::fit(&gathered.moments(width), names, settings)?;
                (Projection::Sphere, sphering.centre, sphering.map)
            }
        };
        Ok(FittedStep::Project {
            projection,
            centre,
            map,
        })
    }
}

/// The wells of a pass: their rows while these are fewer than the features, then their moments.
#[derive(Debug, Default)]
struct Gathered {
    held: Vec<FeatureMatrix>,
    moments: Option<Moments>,
}

impl Gathered {
    /// Adds plates, one by one: what leaves does not depend on how many come at a time.
    fn add(&mut self, plates: Vec<FeatureMatrix>, hold: bool) {
        let rows = |plates: &[FeatureMatrix]| plates.iter().map(FeatureMatrix::len).sum::<usize>();
        let width = plates.first().map_or(0, FeatureMatrix::width);
        if hold && self.moments.is_none() && rows(&self.held) + rows(&plates) < width {
            self.held.extend(plates);
            return;
        }
        for plates in [std::mem::take(&mut self.held), plates] {
            for plates in plates.chunks(plates_at_once(width)) {
                let moments: Vec<Moments> = plates.par_iter().map(Moments::of).collect();
                for moments in moments {
                    self.moments
                        .get_or_insert_with(|| Moments::new(width))
                        .merge(&moments);
                }
            }
        }
    }

    fn moments(self, width: usize) -> Moments {
        self.moments.unwrap_or_else(|| Moments::new(width))
    }

    fn pca(mut self, width: usize, components: usize) -> Result<Pca, AlignError> {
        if self.moments.is_some() {
            return Pca::fit(&self.moments(width), components);
        }
        let mut rows = FeatureMatrix::new(width);
        for row in std::mem::take(&mut self.held)
            .iter()
            .flat_map(FeatureMatrix::rows)
        {
            rows.push(row).map_err(|error| AlignError::Width {
                expected: error.expected,
                found: error.found,
            })?;
        }
        Pca::fit_rows(&rows, components)
    }
}

fn plates_at_once(width: usize) -> usize {
    (SCATTER_VALUES / (width * width).max(1)).clamp(1, MOST_PLATES)
}
