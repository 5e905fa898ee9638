//! The design of a simulated experiment: which compounds exist, and what each well of each plate was given.
//!
//! Checked settings enter; compounds with their true effects and wells with their true states leave. Nothing
//! fails: the check has made sure that everything fits.

use crate::words::WellPosition;

use super::settings::{CompoundClass, SimulationSettings};
use crate::random::{Random, hill};

// What a random stream is for; streams of different purpose never share a key.
const COMPOUNDS: u64 = 1;
const LAYOUT: u64 = 2;
const WELL: u64 = 3;

/// A compound and its true effects.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compound {
    pub(super) name: String,
    pub(super) class: CompoundClass,
    /// Per disease: the largest fraction of the way back to healthy.
    pub(super) emax: Vec<f64>,
    pub(super) ec50: f64,
    pub(super) hill: f64,
    pub(super) off_axis: f64,
}

impl Compound {
    fn response(&self, dose: f64) -> f64 {
        hill(dose, self.ec50, self.hill)
    }
}

/// What a well was given; numbers index diseases and compounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Content {
    Healthy,
    Disease(usize),
    Treated {
        compound: usize,
        disease: usize,
        dose: f64,
    },
}

/// A used well and its true state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WellPlan {
    pub(super) well: WellPosition,
    pub(super) content: Content,
    /// Position from 0 (healthy) to 1 (disease) that dose and compound give.
    pub(super) on_axis: f64,
    /// Distance off the axis that dose and compound give.
    pub(super) off_axis: f64,
    /// What this well's cells deviate from `on_axis` by, as a well.
    pub(super) deviation: f64,
    /// Relative deviation of the number of cells.
    pub(super) crowding: f64,
    /// How much of an edge well it is: 1 in the outermost row or column, then 0.35, then 0.
    pub(super) edge: f64,
}

impl WellPlan {
    /// The disease whose direction the well's position is measured along, where it has one.
    pub(super) fn disease(&self) -> Option<usize> {
        match self.content {
            Content::Healthy => None,
            Content::Disease(disease) | Content::Treated { disease, .. } => Some(disease),
        }
    }
}

/// The compounds given, then those made up.
pub(super) fn compounds(settings: &SimulationSettings) -> Vec<Compound> {
    let acts_on = |diseases: &[String], name: &String| diseases.is_empty() || diseases.contains(name);
    let mut all: Vec<Compound> = settings
        .compounds
        .iter()
        .map(|given| Compound {
            name: given.name.clone(),
            class: given.class,
            emax: settings
                .diseases
                .iter()
                .map(|disease| {
                    if acts_on(&given.diseases, &disease.name) {
                        given.emax
                    } else {
                        0.0
                    }
                })
                .collect(),
            ec50: given.ec50,
            hill: given.hill,
            off_axis: given.off_axis,
        })
        .collect();
    // Made-up EC50s lie within the tested doses (one decade where there is a single dose), so that curves show.
    let low = settings.doses.iter().copied().fold(f64::INFINITY, f64::min);
    let high = settings.doses.iter().copied().fold(0.0, f64::max);
    let made_up = [
        (CompoundClass::Rescue, "RES", settings.generated.rescue),
        (CompoundClass::Toxic, "TOX", settings.generated.toxic),
        (CompoundClass::Inactive, "INA", settings.generated.inactive),
    ];
    for (class, prefix, count) in made_up {
        for number in 0..count {
            let mut random = Random::keyed(&[settings.seed, COMPOUNDS, class as u64, u64::from(number)]);
            let between = random.between(0.3, 0.8);
            let ec50 = low * crate::random::exp(between * crate::random::ln(high / low));
            let slope = random.between(0.8, 2.0);
            let (emax, off_axis) = match class {
                CompoundClass::Rescue => (random.between(0.6, 1.0), 0.0),
                CompoundClass::Toxic => (0.0, random.between(1.0, 2.0)),
                CompoundClass::Inactive => (0.0, 0.0),
            };
            all.push(Compound {
                name: format!("{prefix}-{:03}", number + 1),
                class,
                emax: vec![emax; settings.diseases.len()],
                ec50,
                hill: slope,
                off_axis,
            });
        }
    }
    all
}

/// The used wells of every plate, each plate row by row.
pub(super) fn layout(settings: &SimulationSettings, compounds: &[Compound]) -> Vec<Vec<WellPlan>> {
    let mut treatments = Vec::new();
    for replicate in 0..u64::from(settings.replicates) {
        let first = treatments.len();
        for compound in 0..compounds.len() {
            for &dose in &settings.doses {
                for disease in 0..settings.diseases.len() {
                    treatments.push(Content::Treated {
                        compound,
                        disease,
                        dose,
                    });
                }
            }
        }
        // Where a replicate spans plates, doses of one compound should not all share a plate.
        Random::keyed(&[settings.seed, LAYOUT, 0, replicate]).shuffle(&mut treatments[first..]);
    }
    let plates = settings.plates as usize;
    (0..plates)
        .map(|plate| {
            let share = |plate: usize| (treatments.len() * plate).div_ceil(plates);
            plate_layout(
                settings,
                compounds,
                plate,
                &treatments[share(plate)..share(plate + 1)],
            )
        })
        .collect()
}

fn plate_layout(
    settings: &SimulationSettings,
    compounds: &[Compound],
    plate: usize,
    treatments: &[Content],
) -> Vec<WellPlan> {
    let (rows, columns) = if settings.wells == 96 { (8, 12) } else { (16, 24) };
    let wells = rows * columns;
    let mut random = Random::keyed(&[settings.seed, LAYOUT, 1, plate as u64]);
    let controls = control_sequence(settings, wells - treatments.len(), &mut random);

    // Controls: one in each of equally long stretches of the plate read column by column, so that they lie in
    // every part of it and not only in the outer columns. Treatments: shuffled over the rest.
    let mut contents: Vec<Option<Content>> = vec![None; wells];
    for (number, &control) in controls.iter().enumerate() {
        let start = number * wells / controls.len();
        let end = (number + 1) * wells / controls.len();
        contents[start + random.below((end - start) as u32) as usize] = Some(control);
    }
    let mut free: Vec<usize> = (0..wells).filter(|&i| contents[i].is_none()).collect();
    random.shuffle(&mut free);
    for (&at, &treatment) in free.iter().zip(treatments) {
        contents[at] = Some(treatment);
    }

    let mut plans: Vec<WellPlan> = contents
        .into_iter()
        .enumerate()
        .filter_map(|(at, content)| {
            let (row, column) = (at % rows, at / rows);
            let well = WellPosition::new(row as u8 + 1, column as u8 + 1)?;
            let distance = row.min(rows - 1 - row).min(column).min(columns - 1 - column);
            Some(well_plan(settings, compounds, plate, well, content?, distance))
        })
        .collect();
    plans.sort_by_key(|plan| plan.well);
    plans
}

/// The controls of a plate in the order in which they are spread: kinds evenly interleaved.
fn control_sequence(settings: &SimulationSettings, room: usize, random: &mut Random) -> Vec<Content> {
    let mut counts = vec![settings.healthy_wells as usize];
    counts.resize(1 + settings.diseases.len(), settings.disease_wells as usize);
    if settings.fill_with_controls {
        let kinds = counts.len();
        let spare = room - counts.iter().sum::<usize>();
        for extra in 0..spare {
            counts[extra % kinds] += 1;
        }
    }
    let mut placed: Vec<(f64, Content)> = Vec::new();
    for (kind, &count) in counts.iter().enumerate() {
        let content = if kind == 0 {
            Content::Healthy
        } else {
            Content::Disease(kind - 1)
        };
        // The jitter keeps two kinds of equal number from always lying in the same order.
        placed.extend((0..count).map(|i| ((i as f64 + random.uniform()) / count as f64, content)));
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    placed.into_iter().map(|(_, content)| content).collect()
}

fn well_plan(
    settings: &SimulationSettings,
    compounds: &[Compound],
    plate: usize,
    well: WellPosition,
    content: Content,
    distance: usize,
) -> WellPlan {
    let (on_axis, off_axis) = match content {
        Content::Healthy => (0.0, 0.0),
        Content::Disease(_) => (1.0, 0.0),
        Content::Treated {
            compound,
            disease,
            dose,
        } => {
            let compound = &compounds[compound];
            let response = compound.response(dose);
            (
                1.0 - compound.emax[disease] * response,
                compound.off_axis * response,
            )
        }
    };
    let mut random = Random::keyed(&[
        settings.seed,
        WELL,
        plate as u64,
        u64::from(well.row()),
        u64::from(well.column()),
    ]);
    WellPlan {
        well,
        content,
        on_axis,
        off_axis,
        deviation: settings.well_variability * random.normal(),
        crowding: 0.08 * random.normal(),
        edge: [1.0, 0.35].get(distance).copied().unwrap_or(0.0),
    }
}
