//! The settings of a simulation: what a person writes.
//!
//! Settings enter as a serde value with defaults for everything; `check` says whether they can be built.

use serde::{Deserialize, Serialize};

/// What a channel shows; the name is the channel's name in every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stain {
    /// Nuclei.
    #[serde(rename = "DNA")]
    Dna,
    /// Endoplasmic reticulum: cytoplasm, densest around the nucleus.
    #[serde(rename = "ER")]
    Er,
    /// Nucleoli and cytoplasmic RNA.
    #[serde(rename = "RNA")]
    Rna,
    /// Actin, Golgi and plasma membrane: cell edges, fibres and a spot beside the nucleus.
    #[serde(rename = "AGP")]
    Agp,
    /// Mitochondria: bright threads and grains in the cytoplasm.
    Mito,
    /// Transmitted light: grey background, bright edges, dark interiors.
    Brightfield,
}

impl Stain {
    /// Every stain, in the order in which a microscope numbers them.
    pub const ALL: [Self; 6] = [
        Self::Dna,
        Self::Er,
        Self::Rna,
        Self::Agp,
        Self::Mito,
        Self::Brightfield,
    ];

    /// The channel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dna => "DNA",
            Self::Er => "ER",
            Self::Rna => "RNA",
            Self::Agp => "AGP",
            Self::Mito => "Mito",
            Self::Brightfield => "Brightfield",
        }
    }
}

/// A disease model: cells whose morphology is shifted from healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiseaseModel {
    /// The state's name in the plate map; not `healthy`.
    pub name: String,
    /// Size of the shift: 1 is a clear phenotype, 0.3 a weak one, 0 none. 0 to 2.
    #[serde(default = "one")]
    pub effect: f64,
}

/// What a compound does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompoundClass {
    /// Moves diseased cells back towards healthy.
    Rescue,
    /// Moves cells off the axis: fewer, rounder cells with small bright nuclei.
    Toxic,
    /// Does nothing.
    Inactive,
}

impl CompoundClass {
    /// The name in the truth table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rescue => "rescue",
            Self::Toxic => "toxic",
            Self::Inactive => "inactive",
        }
    }
}

/// A compound given by the user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompoundSettings {
    /// The compound's name; not `DMSO`.
    pub name: String,
    /// What it does.
    pub class: CompoundClass,
    /// Largest fraction of the way from disease to healthy, 0 to 1. Only a rescue compound has one.
    #[serde(default)]
    pub emax: f64,
    /// Dose of half the effect, in the unit of `doses`.
    #[serde(default = "one")]
    pub ec50: f64,
    /// Hill slope, 0.2 to 8.
    #[serde(default = "one")]
    pub hill: f64,
    /// Length of the off-axis effect at high dose, in units of the disease effect, 0 to 3. 0 for inactive.
    #[serde(default)]
    pub off_axis: f64,
    /// Diseases it acts on; empty means all. The off-axis effect does not depend on the disease.
    #[serde(default)]
    pub diseases: Vec<String>,
}

fn one() -> f64 {
    1.0
}

/// How many compounds of each class to make up, besides those given one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratedCompounds {
    /// Rescue compounds, named `RES-001` and so on, with emax 0.6 to 1.
    pub rescue: u32,
    /// Toxic compounds, named `TOX-001` and so on.
    pub toxic: u32,
    /// Inactive compounds, named `INA-001` and so on.
    pub inactive: u32,
}

/// Strengths of what goes wrong on the way from cells to pixels. Zero switches each one off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Artefacts {
    /// Fraction of light lost in the corners of a field, 0 to 0.9.
    pub vignetting: f64,
    /// Camera noise: 1 is a typical sCMOS camera at these exposures, 0 to 10.
    pub noise: f64,
    /// Probability that a field is out of focus, 0 to 1.
    pub blur: f64,
    /// Probability that a field holds debris (fibres, clumps), 0 to 1.
    pub debris: f64,
    /// Probability that a field holds no cells, 0 to 1.
    pub empty_fields: f64,
    /// Differences in staining, background and cell state between plates: 1 is typical, 0 to 5.
    pub plate_effect: f64,
    /// Fewer and dimmer cells in the outer rows and columns: 1 is typical, 0 to 3.
    pub edge_effect: f64,
}

impl Default for Artefacts {
    fn default() -> Self {
        Self {
            vignetting: 0.3,
            noise: 1.0,
            blur: 0.01,
            debris: 0.02,
            empty_fields: 0.01,
            plate_effect: 1.0,
            edge_effect: 1.0,
        }
    }
}

/// Everything a simulation is made from. The same settings give the same bytes on every machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulationSettings {
    /// Seed of everything random.
    pub seed: u64,
    /// Start of every barcode: plate 3 of `SIM` is `SIM0003`.
    pub name: String,
    /// Number of plates, 1 to 9999.
    pub plates: u32,
    /// Wells on a plate: 96 or 384.
    pub wells: u32,
    /// Fields of view per well, 1 to 100.
    pub fields: u32,
    /// Channels, 1 to 6, each once; the first is `w1`.
    pub channels: Vec<Stain>,
    /// Field height in pixels, 32 to 4096.
    pub height: u32,
    /// Field width in pixels, 32 to 4096.
    pub width: u32,
    /// Bits per pixel of the camera: 12 or 16. Pixels are always stored in 16.
    pub bit_depth: u32,
    /// Mean number of cells in a field of a healthy, central well.
    pub cells_per_field: f64,
    /// Typical cell diameter in pixels, 12 to 400.
    pub cell_diameter: f64,
    /// Spread of cell states within a well, in units of the disease effect, 0 to 1.
    pub cell_variability: f64,
    /// Spread of well means around their true position, in units of the disease effect, 0 to 1.
    pub well_variability: f64,
    /// Disease models; every compound is tested on every one.
    pub diseases: Vec<DiseaseModel>,
    /// Compounds given one by one.
    pub compounds: Vec<CompoundSettings>,
    /// Compounds made up.
    pub generated: GeneratedCompounds,
    /// Doses, above 0, each once, in the screen's unit.
    pub doses: Vec<f64>,
    /// Wells per compound, dose and disease over all plates. Replicate 1 of everything comes first, so with as
    /// many plates as replicates each plate holds one complete replicate.
    pub replicates: u32,
    /// Healthy vehicle wells on each plate.
    pub healthy_wells: u32,
    /// Disease vehicle wells on each plate, for each disease.
    pub disease_wells: u32,
    /// Whether wells left over become further controls (shared evenly); otherwise they stay unused and have no
    /// images.
    pub fill_with_controls: bool,
    /// What goes wrong.
    pub artefacts: Artefacts,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            name: "SIM".to_owned(),
            plates: 1,
            wells: 384,
            fields: 9,
            channels: Stain::ALL[..5].to_vec(),
            height: 1080,
            width: 1080,
            bit_depth: 16,
            cells_per_field: 110.0,
            cell_diameter: 76.0,
            cell_variability: 0.3,
            well_variability: 0.08,
            diseases: vec![DiseaseModel {
                name: "disease".to_owned(),
                effect: 1.0,
            }],
            compounds: Vec::new(),
            generated: GeneratedCompounds {
                rescue: 4,
                toxic: 4,
                inactive: 32,
            },
            doses: vec![0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
            replicates: 1,
            healthy_wells: 32,
            disease_wells: 32,
            fill_with_controls: true,
            artefacts: Artefacts::default(),
        }
    }
}

impl SimulationSettings {
    /// The demonstration screen: two 96-well plates, 2 fields of 288x288 in 3 channels (1152 images, one 224 tile
    /// each). On each plate 20 healthy and 20 disease wells and one replicate of 14 compounds at 4 doses.
    pub fn demo() -> Self {
        let compound = |name: &str, class, emax, ec50, off_axis| CompoundSettings {
            name: name.to_owned(),
            class,
            emax,
            ec50,
            hill: 1.5,
            off_axis,
            diseases: Vec::new(),
        };
        Self {
            seed: 20,
            name: "DEMO".to_owned(),
            plates: 2,
            wells: 96,
            fields: 3,
            channels: vec![Stain::Dna, Stain::Agp, Stain::Mito],
            height: 288,
            width: 288,
            cells_per_field: 26.0,
            cell_diameter: 48.0,
            compounds: vec![
                compound("rescuer-strong", CompoundClass::Rescue, 0.95, 0.8, 0.0),
                compound("rescuer-partial", CompoundClass::Rescue, 0.55, 1.5, 0.0),
                compound("toxicant", CompoundClass::Toxic, 0.0, 2.0, 1.8),
            ],
            generated: GeneratedCompounds {
                rescue: 0,
                toxic: 1,
                inactive: 4,
            },
            doses: vec![0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
            replicates: 2,
            healthy_wells: 20,
            disease_wells: 20,
            fill_with_controls: false,
            artefacts: Artefacts {
                blur: 0.005,
                debris: 0.01,
                empty_fields: 0.005,
                ..Artefacts::default()
            },
            ..Self::default()
        }
    }

    pub(super) fn compound_count(&self) -> u64 {
        let made_up = [
            self.generated.rescue,
            self.generated.toxic,
            self.generated.inactive,
        ];
        self.compounds.len() as u64 + made_up.into_iter().map(u64::from).sum::<u64>()
    }

    pub(super) fn controls_per_plate(&self) -> u64 {
        u64::from(self.healthy_wells) + u64::from(self.disease_wells) * self.diseases.len() as u64
    }

    pub(super) fn treated_wells(&self) -> u64 {
        self.compound_count()
            .saturating_mul(self.doses.len() as u64)
            .saturating_mul(self.diseases.len() as u64)
            .saturating_mul(u64::from(self.replicates))
    }
}
