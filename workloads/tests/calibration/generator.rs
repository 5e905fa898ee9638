//! Screens with known answers, like the oracle screen (`../shared/oracles/README.md`, "Screen (synthetic)"). A
//! [`Design`] enters; well profiles and the truth about every compound x disease leave. Nothing fails.
//!
//! Six plates of 384 wells and three disease models, each the own disease of two plates: 48 healthy wells, 48 of the
//! own disease, 24 of each other one, and 40 compounds at 6 doses on the own disease, at random places. Features carry
//! a gain and a shift per plate, plate shifts along shared technical axes, row and column gradients, an edge effect,
//! well noise (independent and along shared axes) and gross outliers among the controls. Six compounds rescue one
//! disease each, three harm cells on all of them, the rest do nothing.
//!
//! Sizes were set so that noise, disease lengths, plate effects and gradients of the unit design equal those
//! measured on `embeddings_raw.npy`: noise norm 5.5, disease lengths 6.1, 5.2 and 4.3, plate shifts 7.3 (norm), log
//! gains 0.06 (SD), gradients 0.5 and edge effect 1.5 (norm).

use std::collections::BTreeMap;

use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

pub(crate) const DOSES: [f64; 6] = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
const PLATES: [&str; 6] = ["P1", "P2", "P3", "P4", "P5", "P6"];
const DISEASES: [&str; 3] = ["D1", "D2", "D3"];
/// Distance of each disease's mean from healthy.
const LENGTHS: [f64; 3] = [6.0, 5.0, 4.2];
const COMPOUNDS: usize = 40;
const ROWS: usize = 16;
const COLUMNS: usize = 24;

const NOISE: f64 = 0.27;
const NOISE_AXES: usize = 8;
const NOISE_ALONG: f64 = 0.6;
const FEATURE_MEAN: f64 = 1.0;
const PLATE_SHIFT: f64 = 0.35;
const PLATE_GAIN: f64 = 0.06;
const PLATE_ALONG: f64 = 0.7;
const GRADIENT: f64 = 0.5;
const EDGE: f64 = 1.5;
const OUTLIER: f64 = 40.0;
const CELLS: f64 = 850.0;

/// What may differ from the oracle screen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Design {
    pub(crate) seed: u64,
    /// Number of features.
    pub(crate) width: usize,
    /// Factor on the distance of the diseases from healthy; with less the assay window closes.
    pub(crate) disease: f64,
    /// Factor on what rescuers rescue at most (1: 0.7 to 1 of the disease).
    pub(crate) rescue: f64,
    /// Factor on how far toxic compounds move cells beside the disease axis.
    pub(crate) toxicity: f64,
    /// Gross outliers among all controls of the screen.
    pub(crate) control_outliers: usize,
    /// Gross outliers among all treated wells.
    pub(crate) treated_outliers: usize,
}

impl Design {
    /// The oracle screen with another seed.
    pub(crate) fn like_the_oracle(seed: u64) -> Self {
        Self {
            seed,
            width: 384,
            disease: 1.0,
            rescue: 1.0,
            toxicity: 1.0,
            control_outliers: 6,
            treated_outliers: 0,
        }
    }
}

/// What a compound does to a disease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Truth {
    /// Brings it back; `top` is the share at the highest dose.
    Rescue { top: f64 },
    /// Moves it beside the axis and loses cells.
    Toxic,
    /// Neither.
    Inactive,
}

/// A screen and its answers.
pub(crate) struct Screen {
    pub(crate) profiles: Vec<WellProfile>,
    /// By disease and compound.
    pub(crate) truth: BTreeMap<(String, String), Truth>,
    /// By compound: distance beside the axis at each of [`DOSES`].
    #[allow(dead_code, reason = "the tests that share this file ask for calls only")]
    pub(crate) beside: BTreeMap<String, [f64; 6]>,
}

struct Compound {
    name: String,
    /// Disease it rescues.
    target: Option<usize>,
    emax: f64,
    log10_ec50: f64,
    hill: f64,
    /// The effect beside the axis at full effect.
    off_axis: Vec<f64>,
    is_toxic: bool,
}

impl Compound {
    fn effect(&self, dose: f64) -> f64 {
        1.0 / (1.0 + 10f64.powf(self.hill * (self.log10_ec50 - dose.log10())))
    }
}

/// What every plate of the screen shares.
struct Biology {
    mean: Vec<f64>,
    diseases: Vec<Vec<f64>>,
    noise_axes: Vec<Vec<f64>>,
    technical: Vec<Vec<f64>>,
    compounds: Vec<Compound>,
}

/// Makes the screen of a design.
pub(crate) fn screen(design: &Design) -> Screen {
    let mut random = Random(design.seed);
    let biology = Biology::of(design, &mut random);
    let mut profiles = Vec::with_capacity(PLATES.len() * ROWS * COLUMNS);
    for (number, barcode) in PLATES.iter().enumerate() {
        plate(
            barcode,
            number % DISEASES.len(),
            &biology,
            &mut profiles,
            &mut random,
        );
    }
    spoil(&mut profiles, design.control_outliers, false, &mut random);
    spoil(&mut profiles, design.treated_outliers, true, &mut random);
    let truth = biology
        .compounds
        .iter()
        .flat_map(|compound| {
            DISEASES.iter().enumerate().map(move |(number, disease)| {
                let truth = if compound.is_toxic {
                    Truth::Toxic
                } else if compound.target == Some(number) {
                    Truth::Rescue {
                        top: compound.emax * compound.effect(DOSES[DOSES.len() - 1]),
                    }
                } else {
                    Truth::Inactive
                };
                (((*disease).to_owned(), compound.name.clone()), truth)
            })
        })
        .collect();
    let beside = biology
        .compounds
        .iter()
        .map(|compound| {
            let length = compound.off_axis.iter().map(|v| v * v).sum::<f64>().sqrt();
            let at = DOSES.map(|dose| length * compound.effect(dose));
            (compound.name.clone(), at)
        })
        .collect();
    Screen {
        profiles,
        truth,
        beside,
    }
}

impl Biology {
    fn of(design: &Design, random: &mut Random) -> Self {
        let width = design.width;
        let diseases = LENGTHS
            .iter()
            .map(|length| random.direction(width, length * design.disease))
            .collect();
        Self {
            mean: (0..width).map(|_| FEATURE_MEAN * random.normal()).collect(),
            diseases,
            noise_axes: (0..NOISE_AXES)
                .map(|_| random.direction(width, NOISE_ALONG))
                .collect(),
            technical: (0..3).map(|_| random.direction(width, 1.0)).collect(),
            compounds: compounds(design, random),
        }
    }
}

/// Two rescuers per disease, three toxic compounds and inactive ones, with the ranges of `compounds_truth.csv`.
fn compounds(design: &Design, random: &mut Random) -> Vec<Compound> {
    (0..COMPOUNDS)
        .map(|i| {
            let target = (i < 2 * DISEASES.len()).then_some(i / 2);
            let is_toxic = (6..9).contains(&i);
            let off_length = match target {
                Some(_) => 0.6,
                None if is_toxic => design.toxicity * random.between(8.0, 10.0),
                None => 0.0,
            };
            let (low, high) = if is_toxic { (0.5, 1.5) } else { (0.15, 1.2) };
            Compound {
                name: format!("C{:02}", i + 1),
                target,
                emax: design.rescue * random.between(0.7, 1.0),
                log10_ec50: random.between(f64::log10(low), f64::log10(high)),
                hill: random.between(1.0, 2.0),
                off_axis: random.direction(design.width, off_length),
                is_toxic,
            }
        })
        .collect()
}

/// The distortions of one plate.
struct Distortion {
    gain: Vec<f64>,
    shift: Vec<f64>,
    row: f64,
    column: f64,
    edge: f64,
}

impl Distortion {
    fn of(biology: &Biology, random: &mut Random) -> Self {
        let width = biology.mean.len();
        let mut shift: Vec<f64> = (0..width).map(|_| PLATE_SHIFT * random.normal()).collect();
        for axis in biology.noise_axes.iter().chain(&biology.technical) {
            let size = PLATE_ALONG * random.normal();
            add(&mut shift, axis, size);
        }
        Self {
            gain: (0..width).map(|_| (PLATE_GAIN * random.normal()).exp()).collect(),
            shift,
            row: GRADIENT * random.between(0.6, 1.4),
            column: GRADIENT * random.between(0.6, 1.4),
            edge: EDGE * random.between(0.8, 1.2),
        }
    }
}

/// A compound and its dose, where a well was given one.
type Given<'a> = Option<(&'a Compound, f64)>;

fn plate(barcode: &str, own: usize, biology: &Biology, out: &mut Vec<WellProfile>, random: &mut Random) {
    let distortion = Distortion::of(biology, random);
    let mut places: Vec<usize> = (0..ROWS * COLUMNS).collect();
    for i in (1..places.len()).rev() {
        places.swap(i, random.below(i + 1));
    }
    let mut wells: Vec<(Option<usize>, Given<'_>)> = vec![(None, None); 48];
    for disease in 0..DISEASES.len() {
        let count = if disease == own { 48 } else { 24 };
        wells.extend(std::iter::repeat_n((Some(disease), None), count));
    }
    for compound in &biology.compounds {
        wells.extend(DOSES.map(|dose| (Some(own), Some((compound, dose)))));
    }
    for ((disease, given), place) in wells.into_iter().zip(places) {
        let (row, column) = (place / COLUMNS, place % COLUMNS);
        let effect = given.map_or(0.0, |(compound, dose)| compound.effect(dose));
        let mut values = biology.mean.clone();
        if let Some(disease) = disease {
            let left = given
                .filter(|(compound, _)| compound.target == Some(disease))
                .map_or(1.0, |(compound, _)| 1.0 - compound.emax * effect);
            add(&mut values, &biology.diseases[disease], left);
        }
        if let Some((compound, _)) = given {
            add(&mut values, &compound.off_axis, effect);
        }
        for axis in &biology.noise_axes {
            add(&mut values, axis, random.normal());
        }
        let centred = |at: usize, n: usize| 2.0 * at as f64 / (n - 1) as f64 - 1.0;
        let at_edge = row == 0 || row == ROWS - 1 || column == 0 || column == COLUMNS - 1;
        let place = [
            distortion.row * centred(row, ROWS),
            distortion.column * centred(column, COLUMNS),
            if at_edge { distortion.edge } else { 0.0 },
        ];
        for (axis, size) in biology.technical.iter().zip(place) {
            add(&mut values, axis, size);
        }
        let values = values
            .iter()
            .zip(distortion.gain.iter().zip(&distortion.shift))
            .map(|(v, (gain, shift))| (gain * (v + NOISE * random.normal()) + shift) as f32)
            .collect();
        let sick = if disease.is_some() { 0.9 } else { 1.0 };
        let lost = match given {
            Some((compound, _)) if compound.is_toxic => 1.0 - 0.75 * effect,
            _ => 1.0,
        };
        let cells = CELLS * sick * lost * (1.0 + 0.12 * random.normal()).max(0.05);
        out.push(WellProfile {
            plate: barcode.parse().unwrap(),
            well: WellPosition::new(u8::try_from(row + 1).unwrap(), u8::try_from(column + 1).unwrap())
                .unwrap(),
            treatment: Treatment {
                role: match (disease, given) {
                    (None, _) => Role::Reference,
                    (Some(_), None) => Role::Phenotype,
                    (Some(_), Some(_)) => Role::Treated,
                },
                disease: disease.map(|d| DISEASES[d].to_owned()),
                compound: given.map(|(compound, _)| compound.name.clone()),
                dose: given.map(|(_, dose)| dose),
            },
            fields: 4,
            cell_count: Some(cells.round()),
            values,
        });
    }
}

/// Turns `count` wells (treated ones or controls) into gross outliers, as debris does.
fn spoil(profiles: &mut [WellProfile], count: usize, treated: bool, random: &mut Random) {
    let candidates: Vec<usize> = (0..profiles.len())
        .filter(|&i| (profiles[i].treatment.role == Role::Treated) == treated)
        .collect();
    for _ in 0..count {
        let i = candidates[random.below(candidates.len())];
        let debris = random.direction(profiles[i].values.len(), OUTLIER);
        for (value, debris) in profiles[i].values.iter_mut().zip(debris) {
            *value += debris as f32;
        }
    }
}

fn add(values: &mut [f64], axis: &[f64], size: f64) {
    for (value, axis) in values.iter_mut().zip(axis) {
        *value += size * axis;
    }
}

/// SplitMix64, and normal numbers by Box and Muller.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A random direction of the given length.
    fn direction(&mut self, width: usize, length: f64) -> Vec<f64> {
        let values: Vec<f64> = (0..width).map(|_| self.normal()).collect();
        let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.iter().map(|v| v * length / norm).collect()
    }
}
