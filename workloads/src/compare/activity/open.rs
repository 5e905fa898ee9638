//! Treatments whose wells are still coming. Plates enter in the order of reading; complete treatments are measured and
//! put aside, their consensus leaves. Fails where the spool or the sink does.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::super::design::{Design, Kind};
use super::super::engine::{Sink, StreamError};
use super::super::finished::Finished;
use super::super::multiple::{Counts, Stages};
use super::super::spool::{Place, Spool};
use super::super::{CompareError, ComparisonSettings};
use super::chance::{Chance, ControlSet, Shape};
use super::finish::{p_by_level, stages};
use super::measure::{Measured, measure, of_compound};
use super::plate::{Direction, PlateEffects, Well};
use super::{MOST_WELLS, POOL_WELLS};
use crate::replicate::map::{MapSettings, Nulls, p_values};
use crate::slots::Slots;

/// Controls kept of a disease whose treatments lie on more plates than are held at once.
const KEPT_CONTROLS: usize = 128;
/// Treatments measured at a time.
const CHUNK: usize = 256;

/// The wells of a compound at a dose.
#[derive(Debug, Default)]
pub(super) struct OpenDose {
    /// By plate and well while they are not too many, those of smallest priority otherwise.
    pub(super) wells: Vec<Well>,
    /// Sum of all rows, once there are more than are kept.
    pub(super) sum: Option<Vec<f64>>,
    pub(super) n_wells: usize,
    pub(super) n_plates: usize,
    last_plate: Option<usize>,
}

impl OpenDose {
    fn add(&mut self, well: Well) {
        self.n_wells += 1;
        if self.last_plate != Some(well.place) {
            self.last_plate = Some(well.place);
            self.n_plates += 1;
        }
        if self.wells.len() < MOST_WELLS {
            self.wells.push(well);
            return;
        }
        let wells = &self.wells;
        let sum = self.sum.get_or_insert_with(|| {
            let mut sum = vec![0.0; well.row.values.len()];
            wells.iter().for_each(|well| add_row(&mut sum, &well.row));
            sum
        });
        add_row(sum, &well.row);
        let largest = (0..self.wells.len()).max_by_key(|&i| self.wells[i].priority);
        if let Some(at) = largest.filter(|&at| well.priority < self.wells[at].priority) {
            self.wells.remove(at);
            self.wells.push(well);
        }
    }
}

/// The wells of a compound on a disease.
#[derive(Debug, Default)]
pub(super) struct OpenTreatment {
    pub(super) doses: BTreeMap<Option<u64>, OpenDose>,
    pub(super) n_plates: usize,
    last_plate: Option<usize>,
}

fn add_row(sum: &mut [f64], row: &Direction) {
    sum.iter_mut()
        .zip(&row.values)
        .for_each(|(sum, &value)| *sum += f64::from(value));
}

/// A bounded number of things, those of smallest priority. Of two with one priority, one is kept.
#[derive(Debug)]
pub(super) struct Smallest<T> {
    pub(super) kept: BTreeMap<u64, T>,
    most: usize,
}

impl<T> Smallest<T> {
    fn new(most: usize) -> Self {
        Self {
            kept: BTreeMap::new(),
            most,
        }
    }

    /// Gives what is not kept any more, where `thing` took its place.
    fn offer(&mut self, priority: u64, thing: impl FnOnce() -> T) -> Option<T> {
        if self.kept.len() >= self.most
            && self
                .kept
                .last_key_value()
                .is_some_and(|(&last, _)| priority >= last)
        {
            return None;
        }
        let before = self.kept.insert(priority, thing());
        if self.kept.len() > self.most {
            return self.kept.pop_last().map(|(_, last)| last);
        }
        before
    }
}

/// A treated well of the sample that percent replicating is judged by: its series, its dose, the slot of its row.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) series: usize,
    pub(super) dose: Option<u64>,
    pub(super) row: u32,
}

/// Everything that is not finished.
pub(crate) struct Activities<'d> {
    pub(super) design: &'d Design,
    pub(super) settings: &'d ComparisonSettings,
    open: BTreeMap<usize, OpenTreatment>,
    /// Controls of plates with open treatments.
    controls: BTreeMap<(usize, u32), Vec<Direction>>,
    /// Controls of the diseases that have treatments on more plates than are held.
    samples: BTreeMap<u32, Smallest<Direction>>,
    pub(super) pool: Smallest<Pooled>,
    pub(super) pool_rows: Slots,
    nulls: Nulls,
    /// Per series of the design, its measured treatment; no place where it has none.
    pub(super) waiting: Vec<Place>,
    /// p of the mean average precision of rows of one dose, and of compounds.
    pub(super) tests: [Counts; 2],
    /// Rows of one dose, and compounds, by their number of measured wells.
    pub(super) sizes: [BTreeMap<usize, u64>; 2],
}

impl<'d> Activities<'d> {
    pub(crate) fn new(design: &'d Design, settings: &'d ComparisonSettings) -> Self {
        let wide = design
            .series()
            .iter()
            .filter(|series| series.key().kind == Kind::Treated && series.wide());
        Self {
            samples: wide
                .map(|series| (series.key().disease, Smallest::new(KEPT_CONTROLS)))
                .collect(),
            waiting: vec![Place::NONE; design.series().len()],
            design,
            settings,
            open: BTreeMap::new(),
            controls: BTreeMap::new(),
            pool: Smallest::new(POOL_WELLS),
            // One more than are kept: the new one comes before the last goes.
            pool_rows: Slots::new(POOL_WELLS + 1),
            nulls: Nulls::default(),
            tests: Default::default(),
            sizes: Default::default(),
        }
    }

    /// Takes the plate at `place`. Wells outside the design are passed over: the caller refuses them.
    pub(crate) fn add(&mut self, place: usize, effects: Vec<PlateEffects>) {
        for of_disease in effects {
            let Some(disease) = self.design.disease_id(of_disease.disease.as_deref()) else {
                continue;
            };
            if let Some(sample) = self.samples.get_mut(&disease) {
                for (&priority, control) in of_disease.priorities.iter().zip(&of_disease.controls) {
                    sample.offer(priority, || control.clone());
                }
            }
            for treated in of_disease.treated {
                let compound = treated.compound.as_deref();
                let Some(series) = self.design.find(disease, Kind::Treated, compound) else {
                    continue;
                };
                let well = treated.well;
                let rows = &mut self.pool_rows;
                let gone = self.pool.offer(well.priority, || Pooled {
                    series,
                    dose: treated.dose,
                    row: rows.put(well.row.values.iter().copied()),
                });
                if let Some(gone) = gone {
                    rows.forget(gone.row);
                }
                let open = self.open.entry(series).or_default();
                if open.last_plate != Some(place) {
                    open.last_plate = Some(place);
                    open.n_plates += 1;
                }
                open.doses.entry(treated.dose).or_default().add(well);
            }
            self.controls.insert((place, disease), of_disease.controls);
        }
    }

    /// Measures complete treatments and puts them aside, in the order given.
    pub(crate) fn close<S: Spool, K: Sink>(
        &mut self,
        series: &[u32],
        aside: &mut Finished<'_, S>,
        sink: &mut K,
    ) -> Result<(), StreamError<K::Error>> {
        for chunk in series.chunks(CHUNK) {
            let closing: Vec<(usize, OpenTreatment)> = chunk
                .iter()
                .map(|&id| id as usize)
                .filter_map(|id| Some((id, self.open.remove(&id)?)))
                .collect();
            let chances = self.chances(&closing);
            let (design, settings) = (self.design, self.settings);
            let mut measured: Vec<Measured> = closing
                .par_iter()
                .map(|(id, treatment)| measure(*id, treatment, &chances, design, settings))
                .collect::<Result<_, CompareError>>()?;
            self.judge(&mut measured);
            for treatment in measured {
                for profile in treatment.profiles {
                    sink.perturbation(profile).map_err(StreamError::Caller)?;
                }
                for row in &treatment.rows {
                    let size = &mut self.sizes[usize::from(row.level == super::Level::Compound)];
                    *size.entry(row.n_measured).or_default() += 1;
                }
                let (doses, of_compound) = p_by_level(&treatment.rows);
                let [of_doses, of_compounds] = &mut self.tests;
                stages(settings).count(&doses, of_doses);
                Stages::One.count(&of_compound, of_compounds);
                self.waiting[treatment.series] = aside.aside(&treatment.rows)?;
            }
        }
        Ok(())
    }

    /// Forgets the controls of plates that nothing needs after `place`.
    pub(crate) fn forget(&mut self, place: usize) {
        let design = self.design;
        self.controls
            .retain(|&(at, _), _| design.needed_until(at) > place);
    }

    /// What control wells give, for every set of plates that a treatment lies on.
    fn chances(&self, closing: &[(usize, OpenTreatment)]) -> BTreeMap<ControlSet, Chance> {
        let mut sets: BTreeMap<ControlSet, BTreeSet<Shape>> = BTreeMap::new();
        for (id, OpenTreatment { doses, .. }) in closing {
            let set = ControlSet::of(&self.design.series()[*id], doses);
            let of_doses = doses.values().map(|dose| dose.wells.iter().collect());
            let shapes = of_doses.chain([of_compound(doses)]);
            let shapes: Vec<Shape> = shapes.map(|wells: Vec<&Well>| set.shape(&wells)).collect();
            sets.entry(set).or_default().extend(shapes);
        }
        sets.into_par_iter()
            .map(|(set, shapes)| {
                let plates = set.plates.as_ref().map(|plates| {
                    let held = plates.iter().filter_map(|&place| {
                        let controls = self.controls.get(&(place, set.disease))?;
                        Some((place, controls.as_slice()))
                    });
                    held.collect()
                });
                let sample = self.samples.get(&set.disease);
                let sample = sample.map(|sample| sample.kept.values().collect());
                let chance = Chance::of(
                    plates,
                    sample.unwrap_or_default(),
                    &shapes,
                    set.disease,
                    self.settings,
                );
                (set, chance)
            })
            .collect()
    }

    /// p of the mean average precisions.
    fn judge(&mut self, measured: &mut [Measured]) {
        let groups: Vec<(&[(u32, u32)], f64)> = measured
            .iter()
            .flat_map(|treatment| treatment.rows.iter().zip(&treatment.pairs))
            .filter_map(|(row, pairs)| Some((pairs.as_slice(), row.mean_average_precision?)))
            .collect();
        let settings = MapSettings {
            draws: self.settings.thresholds.draws,
            seed: self.settings.seed,
            rule: self.settings.activity.rule(),
            ..MapSettings::default()
        };
        let mut found = p_values(&groups, settings, &mut self.nulls).into_iter();
        for row in measured.iter_mut().flat_map(|treatment| &mut treatment.rows) {
            if row.mean_average_precision.is_some() {
                row.p_value = found.next().map(|(p, _)| p);
                row.below_p = row.p_value.map(|p| p < self.settings.thresholds.q);
            }
        }
    }
}
