//! Treatments whose wells are still coming. Scored plates enter in the order of reading, finished series leave.
//!
//! A treatment is kept as sums, with some numbers per well, of which those of controls on many plates wait in the spool;
//! a plate's null controls are kept as long as a treatment on it is open. Fails where the spool does; a well whose series
//! is not in the design is returned to the caller.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::axis::{self, Position};
use super::design::{Design, Kind};
use super::finished::Finished;
use super::null::{self, Null, Plan, Pool};
use super::plates::{ScoredPlate, ScoredWell};
use super::pool::{Lie, PlateControls, Sample};
use super::scores::{Scores, Summary};
use super::spool::Spool;
use super::{Call, CompareError, Comparison, ComparisonSettings, NullFrom, Question};
use crate::words::{Barcode, WellPosition};

/// One well of a row: what dose curves are fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WellEffect {
    pub(super) plate: Barcode,
    pub(super) well: WellPosition,
    pub(super) effect: f64,
    pub(super) effect_mad: Option<f64>,
    pub(super) off_z: Option<f64>,
    pub(super) cell_ratio: Option<f64>,
}

/// A row before false discovery rates and calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) row: Comparison,
    /// By plate and well.
    pub(super) wells: Vec<WellEffect>,
    /// Smallest p-value the row's null can give; `None` without a null.
    pub(super) smallest_p: Option<f64>,
    /// The effect in question, which p-values are of.
    pub(super) effect: f64,
    /// Whether its null comes from the controls of the whole screen, and is not in it yet.
    pub(super) pooled: bool,
    /// `Σ k²/m` over its plates, with k of its wells and m null controls each.
    pub(super) shared: f64,
}

impl Row {
    /// How its wells lie, for a null from the controls of the whole screen.
    pub(super) fn lie(&self) -> Lie {
        Lie::new(self.row.n_wells, self.shared)
    }

    /// Takes p-values and excess from the row's null.
    pub(super) fn judge(&mut self, null: &Null, question: Question) {
        let (p_value, p_off) = null.p_values(self.effect, self.row.off_axis, question);
        self.row.p_value = Some(p_value);
        self.row.p_off = Some(p_off);
        let floor = null.off_axis.iter().map(|off| off * off).sum::<f64>() / null.off_axis.len() as f64;
        self.row.excess = Some((self.row.off_axis * self.row.off_axis - floor).max(0.0).sqrt());
        self.smallest_p = Some(null.smallest_p());
        self.pooled = false;
    }
}

/// What p-values are of: rescue, position on the axis, or distance from the reference.
pub(super) fn effect(position: Position, kind: Kind, question: Question) -> f64 {
    match (kind, question) {
        (_, Question::Activity) => position.off_axis,
        (Kind::Counter, _) | (_, Question::Response) => position.on_axis,
        (_, Question::Rescue) => position.rescue(),
    }
}

/// Null controls of a plate for a disease, leave-one-out.
pub(super) struct Controls {
    wells: Vec<WellPosition>,
    effects: Vec<f64>,
    scaled: Vec<Vec<f64>>,
}

impl Controls {
    fn of(wells: &[ScoredWell<'_>], kind: Kind, question: Question) -> Self {
        let usable = || wells.iter().filter(|well| well.leave_one_out);
        let mut scaled: Vec<Vec<f64>> = usable().map(|well| well.scaled.clone()).collect();
        if kind == Kind::Treated && question == Question::Rescue {
            apart(&mut scaled);
        }
        Self {
            wells: usable().map(|well| well.profile.well).collect(),
            effects: usable()
                .map(|well| effect(well.position, kind, question))
                .collect(),
            scaled,
        }
    }
}

/// Moves each row to where it lies from the mean of the others. Phenotype wells have a part in the direction that all
/// are measured beside, and lie nearer to it than a well that has none: with 16 of them on each of two plates, 19 % of
/// wells that did nothing had p < 0.05 beside the axis.
fn apart(rows: &mut [Vec<f64>]) {
    let all: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let (n, Some(centre)) = (rows.len() as f64, axis::mean(&all)) else {
        return;
    };
    if n < 2.0 {
        return;
    }
    for row in rows {
        for (value, centre) in row.iter_mut().zip(&centre) {
            *value = centre + n / (n - 1.0) * (*value - centre);
        }
    }
}

/// What is kept of a plate on a disease while treatments on it are open.
struct Panel {
    plate: Barcode,
    unit: Vec<f64>,
    null: Controls,
    /// Null of reference wells with a compound, where there are any.
    healthy: Option<Controls>,
}

/// Disease, whether of a counter-screen, wells on each plate.
type NullKey<'s> = (u32, bool, &'s [(usize, usize)]);

/// Place of the plate, disease.
type PanelId = (usize, u32);

#[derive(Default)]
struct OpenRow {
    wells: Vec<WellEffect>,
    n: usize,
    on_axis: f64,
    off_axis: f64,
    /// Sum of positions in the aligned space, where there is one.
    aligned: Option<f64>,
    off_z: Scores,
    effect_z: Scores,
    cell_ratio: (f64, usize),
    /// Sum of the wells' vectors; empty for controls.
    vector: Vec<f64>,
    /// Sum of the plates' directions, weighted by wells; only where the plates are not kept.
    unit: Vec<f64>,
    /// Wells on each plate, in the order of reading: what a null depends on.
    shape: Vec<(usize, usize)>,
    /// [`Row::shared`].
    shared: f64,
}

/// A row of which no more wells come.
struct Closing {
    dose: Option<u64>,
    open: OpenRow,
    off_z: Summary,
    effect_z: Summary,
}

impl Closing {
    fn of<S: Spool>(
        dose: Option<u64>,
        mut open: OpenRow,
        aside: &mut Finished<'_, S>,
    ) -> Result<Self, CompareError> {
        Ok(Self {
            dose,
            off_z: std::mem::take(&mut open.off_z).summary(aside)?,
            effect_z: std::mem::take(&mut open.effect_z).summary(aside)?,
            open,
        })
    }
}

/// Everything that is not finished.
pub(super) struct Open<'d> {
    design: &'d Design,
    settings: &'d ComparisonSettings,
    /// Per series, its doses as bits, which order like the numbers they are: no dose is negative.
    rows: BTreeMap<usize, BTreeMap<Option<u64>, OpenRow>>,
    panels: BTreeMap<PanelId, Panel>,
    /// Controls of the whole screen, of the diseases (and their counter-screens) whose rows need them.
    samples: BTreeMap<(u32, bool), Sample>,
}

impl<'d> Open<'d> {
    pub(super) fn new(design: &'d Design, settings: &'d ComparisonSettings) -> Self {
        let pooled = design.series().iter().filter(|series| {
            series.key().kind >= Kind::Treated && (settings.null_from == NullFrom::Screen || series.wide())
        });
        let samples = pooled
            .map(|series| {
                (
                    (series.key().disease, series.key().kind == Kind::Counter),
                    Sample::default(),
                )
            })
            .collect();
        Self {
            design,
            settings,
            rows: BTreeMap::new(),
            panels: BTreeMap::new(),
            samples,
        }
    }

    /// The controls of all plates, once all plates have been added.
    pub(super) fn into_samples(self) -> BTreeMap<(u32, bool), Sample> {
        self.samples
    }

    /// Takes the plate at `place`; a well outside the design comes back.
    pub(super) fn add(&mut self, place: usize, plate: &ScoredPlate<'_>) -> Result<(), WellPosition> {
        let sides = [
            (Kind::Reference, &plate.reference),
            (Kind::Phenotype, &plate.phenotype),
            (Kind::Treated, &plate.treated),
            (Kind::Counter, &plate.counter),
        ];
        let first = sides.iter().find_map(|(_, wells)| wells.first());
        let Some(disease) = self.design.disease_id(plate.disease) else {
            return first.map_or(Ok(()), |well| Err(well.profile.well));
        };
        let question = self.settings.question;
        let null = Controls::of(plate.null_wells(question), Kind::Treated, question);
        let healthy =
            (!plate.counter.is_empty()).then(|| Controls::of(&plate.reference, Kind::Counter, question));
        for (kind, wells) in sides {
            let controls = match (kind, &healthy) {
                (Kind::Counter, Some(healthy)) => healthy.wells.len(),
                _ => null.wells.len(),
            };
            for well in wells {
                self.add_well(place, disease, (kind, controls), plate, well)
                    .ok_or(well.profile.well)?;
            }
        }
        let of_sides = [(false, Some(&null)), (true, healthy.as_ref())];
        for (counter, controls) in of_sides {
            let sample = self.samples.get_mut(&(disease, counter));
            if let (Some(sample), Some(controls)) = (sample, controls) {
                let controls = PlateControls {
                    plate: plate.plate,
                    wells: &controls.wells,
                    effects: &controls.effects,
                    scaled: &controls.scaled,
                    unit: plate.unit(),
                };
                sample.add(&controls, self.settings.seed);
            }
        }
        if !(plate.treated.is_empty() && plate.counter.is_empty()) {
            let panel = Panel {
                plate: plate.plate.clone(),
                unit: plate.unit().to_vec(),
                null,
                healthy,
            };
            self.panels.insert((place, disease), panel);
        }
        Ok(())
    }

    /// `kind`: with the number of its null controls on the plate.
    fn add_well(
        &mut self,
        place: usize,
        disease: u32,
        (kind, controls): (Kind, usize),
        plate: &ScoredPlate<'_>,
        well: &ScoredWell<'_>,
    ) -> Option<()> {
        let treatment = &well.profile.treatment;
        let id = self.design.find(disease, kind, treatment.compound.as_deref())?;
        let series = &self.design.series()[id];
        // Adding 0 turns -0 into 0, whose bits differ.
        let dose = treatment.dose.map(|dose| (dose + 0.0).to_bits());
        let row = self.rows.entry(id).or_default().entry(dose).or_default();
        let question = self.settings.question;
        row.n += 1;
        row.on_axis += well.position.on_axis;
        row.off_axis += well.position.off_axis;
        if let Some(there) = well.elsewhere {
            *row.aligned.get_or_insert(0.0) += there.on_axis;
        }
        row.off_z.add(well.off_z);
        row.effect_z.add(well.effect_z);
        if let Some(ratio) = well.cell_ratio {
            row.cell_ratio.0 += ratio;
            row.cell_ratio.1 += 1;
        }
        let before = match row.shape.last_mut() {
            Some((last, wells)) if *last == place => {
                *wells += 1;
                *wells - 1
            }
            _ => {
                row.shape.push((place, 1));
                0
            }
        };
        // (k + 1)² - k², over the plate's controls.
        row.shared += (2 * before + 1) as f64 / controls.max(1) as f64;
        if kind >= Kind::Treated {
            sum(&mut row.vector, &well.scaled);
            if series.wide() {
                sum(&mut row.unit, plate.unit());
            }
        }
        // The phenotype's own doses are part of the curve in response screens, and only there.
        let on_a_curve = kind == Kind::Treated
            || (kind == Kind::Phenotype && question == Question::Response && treatment.dose.is_some());
        if on_a_curve {
            row.wells.push(WellEffect {
                plate: plate.plate.clone(),
                well: well.profile.well,
                effect: match question {
                    // Above what a reference well shows, so that a curve starts at 0.
                    Question::Activity => well.position.off_axis - 1.0,
                    _ => effect(well.position, kind, question),
                },
                effect_mad: well.effect_mad,
                off_z: well.off_z,
                cell_ratio: well.cell_ratio,
            });
        }
        Some(())
    }

    /// Puts what has become much aside: scores of controls that lie on every plate.
    pub(super) fn limit<S: Spool>(&mut self, aside: &mut Finished<'_, S>) -> Result<(), CompareError> {
        for row in self.rows.values_mut().flat_map(BTreeMap::values_mut) {
            row.off_z.limit(aside)?;
            row.effect_z.limit(aside)?;
        }
        Ok(())
    }

    /// Finishes series, each a list of rows by dose. A series without wells has none.
    pub(super) fn close<S: Spool>(
        &mut self,
        series: &[u32],
        aside: &mut Finished<'_, S>,
    ) -> Result<Vec<(usize, Vec<Row>)>, CompareError> {
        let mut closing: Vec<(usize, Vec<Closing>)> = Vec::with_capacity(series.len());
        for id in series.iter().map(|&id| id as usize) {
            let Some(rows) = self.rows.remove(&id) else {
                continue;
            };
            let rows = rows.into_iter().map(|(dose, row)| Closing::of(dose, row, aside));
            closing.push((id, rows.collect::<Result<_, _>>()?));
        }
        // A null depends on the disease and on how many wells lie on which plate; many rows share one.
        let mut nulls: BTreeMap<NullKey<'_>, Option<Null>> = BTreeMap::new();
        for (id, rows) in &closing {
            let key = self.design.series()[*id].key();
            if key.kind < Kind::Treated || self.pooled(*id) {
                continue;
            }
            for row in rows {
                nulls.insert((key.disease, key.kind == Kind::Counter, &row.open.shape), None);
            }
        }
        nulls
            .par_iter_mut()
            .for_each(|(&(disease, counter, shape), null)| *null = self.null(disease, counter, shape));
        let closed = closing.par_iter().map(|(id, rows)| {
            let key = self.design.series()[*id].key();
            let rows = rows
                .iter()
                .map(|closing| {
                    let mut row = self.row(*id, closing);
                    let shape = closing.open.shape.as_slice();
                    let null = nulls.get(&(key.disease, key.kind == Kind::Counter, shape));
                    // Control rows may have the same shape; they are no test.
                    let tested = key.kind >= Kind::Treated;
                    if let Some(null) = null.and_then(Option::as_ref).filter(|_| tested) {
                        row.judge(null, self.settings.question);
                    }
                    row
                })
                .collect();
            (*id, rows)
        });
        Ok(closed.collect())
    }

    /// Forgets the controls of plates that nothing needs after `place`.
    pub(super) fn forget(&mut self, place: usize) {
        let design = self.design;
        self.panels.retain(|&(at, _), _| design.needed_until(at) > place);
    }

    fn pooled(&self, series: usize) -> bool {
        self.settings.null_from == NullFrom::Screen || self.design.series()[series].wide()
    }

    fn null(&self, disease: u32, counter: bool, shape: &[(usize, usize)]) -> Option<Null> {
        let panels: Vec<(&Panel, &Controls, usize)> = shape
            .iter()
            .map(|&(place, wells)| {
                let panel = self.panels.get(&(place, disease))?;
                let controls = if counter {
                    panel.healthy.as_ref()?
                } else {
                    &panel.null
                };
                Some((panel, controls, wells))
            })
            .collect::<Option<_>>()?;
        let scaled: Vec<Vec<&[f64]>> = panels
            .iter()
            .map(|(_, controls, _)| controls.scaled.iter().map(Vec::as_slice).collect())
            .collect();
        let pools: Vec<Pool<'_>> = panels
            .iter()
            .zip(&scaled)
            .map(|((panel, controls, wells), scaled)| Pool {
                effects: &controls.effects,
                scaled,
                unit: &panel.unit,
                wells: *wells,
            })
            .collect();
        let counts: Vec<[u8; 8]> = shape
            .iter()
            .map(|&(_, wells)| (wells as u64).to_le_bytes())
            .collect();
        let name = self.design.disease(disease).unwrap_or_default();
        let side: &[u8] = if counter { b"counter" } else { b"" };
        let parts = panels.iter().zip(&counts).flat_map(|((panel, _, _), count)| {
            [panel.plate.as_str().as_bytes(), name.as_bytes(), count.as_slice()]
        });
        let parts = parts.chain((!side.is_empty()).then_some(side));
        null::build(&pools, plan(self.settings, parts))
    }

    fn row(&self, id: usize, closing: &Closing) -> Row {
        let Closing {
            dose,
            open,
            off_z,
            effect_z,
        } = closing;
        let series = &self.design.series()[id];
        let key = series.key();
        let question = self.settings.question;
        let n = open.n.max(1) as f64;
        let mean_off = open.off_axis / n;
        let off_axis = if key.kind >= Kind::Treated {
            self.vector_off_axis(key.disease, open).unwrap_or(mean_off)
        } else {
            mean_off
        };
        let position = Position {
            on_axis: open.on_axis / n,
            off_axis,
        };
        let on_an_axis = question != Question::Activity;
        // Distances and angles need both lengths in one space.
        let aligned = open.aligned.map(|sum| sum / n);
        let whole = Position {
            on_axis: aligned.unwrap_or(position.on_axis),
            off_axis,
        };
        Row {
            row: Comparison {
                disease: self.design.disease(key.disease).map(str::to_owned),
                compound: self.design.compound(key.compound).map(str::to_owned),
                dose: dose.map(f64::from_bits),
                dose_unit: self.settings.dose_unit.clone(),
                counter_screen: key.kind == Kind::Counter,
                n_wells: open.n,
                n_plates: open.shape.len(),
                on_axis: on_an_axis.then_some(position.on_axis),
                off_axis,
                aligned_on_axis: aligned.filter(|_| on_an_axis),
                excess: None,
                off_z: off_z.mean,
                off_z_support: off_z.lower_median,
                effect_z: effect_z.mean,
                effect_z_support: effect_z.lower_median,
                rescue: on_an_axis.then(|| position.rescue()),
                specificity: None,
                distance: whole.distance(),
                direction_cosine: match (key.kind, question) {
                    (_, Question::Activity) => None,
                    (Kind::Counter, _) | (_, Question::Response) => whole.cos_to_phenotype(),
                    (_, Question::Rescue) => whole.cos_to_rescue(),
                },
                cell_ratio: (open.cell_ratio.1 > 0).then(|| open.cell_ratio.0 / open.cell_ratio.1 as f64),
                p_value: None,
                q_value: None,
                p_off: None,
                q_off: None,
                map_q_value: None,
                call: match key.kind {
                    Kind::Reference => Call::Reference,
                    Kind::Phenotype => Call::Phenotype,
                    Kind::Treated | Kind::Counter => Call::Untested,
                },
            },
            wells: open.wells.clone(),
            smallest_p: None,
            effect: effect(position, key.kind, question),
            pooled: key.kind >= Kind::Treated && self.pooled(id),
            shared: open.shared,
        }
    }

    /// Off-axis length of the mean vector over wells, against the common direction of their plates' axes. Averaging
    /// before taking the length lowers the noise floor by the root of the replicates (SCIENCE 6.1).
    fn vector_off_axis(&self, disease: u32, open: &OpenRow) -> Option<f64> {
        let n = open.n as f64;
        let mean: Vec<f64> = open.vector.iter().map(|sum| sum / n).collect();
        let unit = if open.unit.is_empty() {
            let panels = open.shape.iter().map(|&(place, wells)| {
                let panel = self.panels.get(&(place, disease))?;
                Some((wells, panel.unit.as_slice()))
            });
            let units: Vec<(usize, &[f64])> = panels.collect::<Option<_>>()?;
            null::common_unit(units.into_iter())?
        } else {
            null::common_unit(std::iter::once((1, open.unit.as_slice())))?
        };
        Some(axis::position(&mean, &unit).off_axis)
    }
}

/// How nulls named by `parts` are built.
pub(super) fn plan<'p>(settings: &ComparisonSettings, parts: impl Iterator<Item = &'p [u8]>) -> Plan {
    Plan {
        exact_combinations: settings.thresholds.exact_combinations,
        draws: settings.thresholds.draws,
        seed: null::seed_for(settings.seed, parts),
    }
}

fn sum(total: &mut Vec<f64>, row: &[f64]) {
    if total.is_empty() {
        total.extend_from_slice(row);
    } else {
        total.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
