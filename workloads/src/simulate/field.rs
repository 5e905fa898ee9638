//! One field of view before it is drawn: which cells lie where, and what goes wrong in it.
//!
//! Settings, a well's plan and a field number enter, a [`Scene`] leaves, nothing fails. The truth table and the
//! renderer both read scenes, so they cannot disagree.

use super::design::WellPlan;
use super::phenotype::{self, TRAITS, Traits};
use super::settings::{SimulationSettings, Stain};
use crate::random::{Random, exp};

const FIELD: u64 = 5;
const PLATE: u64 = 6;

/// A cell: where its nucleus is, in pixels, and what it looks like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) x: f32,
    pub(super) y: f32,
    /// Direction of the long axis, as (cosine, sine).
    pub(super) axis: (f32, f32),
    /// Where its textures begin, and what else must differ between cells of equal traits.
    pub(super) key: u64,
    /// Overall staining.
    pub(super) gain: f32,
    pub(super) traits: Traits,
}

/// A fibre or clump that fluoresces in every channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Debris {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) axis: (f32, f32),
    pub(super) half_length: f32,
    pub(super) half_width: f32,
    pub(super) brightness: f32,
}

/// A field's content.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    /// Key of the camera noise.
    pub(super) key: u64,
    pub(super) empty: bool,
    /// Radius of the defocus in pixels; 0 is in focus.
    pub(super) blur_radius: usize,
    pub(super) debris: Vec<Debris>,
    pub(super) cells: Vec<Cell>,
    /// Staining of each of [`Stain::ALL`] on this plate and well.
    pub(super) gains: [f32; 6],
    /// Background light, relative to typical.
    pub(super) background: f32,
}

impl Scene {
    pub(super) fn new(settings: &SimulationSettings, plate: usize, plan: &WellPlan, field: u32) -> Self {
        let artefacts = &settings.artefacts;
        let mut of_plate = Random::keyed(&[settings.seed, PLATE, plate as u64]);
        let mut random = Random::keyed(&[
            settings.seed,
            FIELD,
            plate as u64,
            u64::from(plan.well.row()),
            u64::from(plan.well.column()),
            u64::from(field),
        ]);
        let key = random.next();

        let edge = artefacts.edge_effect * plan.edge;
        let gains = std::array::from_fn(|_| {
            let plate_gain = exp(0.12 * artefacts.plate_effect * of_plate.normal());
            (plate_gain * exp(-0.06 * edge)) as f32
        });
        let background = exp(0.25 * artefacts.plate_effect * of_plate.normal()) * exp(0.15 * edge);
        let shift: [f64; TRAITS] =
            std::array::from_fn(|_| 0.08 * artefacts.plate_effect * of_plate.normal() - 0.02 * edge);

        // Drawn in a fixed order whether used or not, so that one artefact's strength does not move another.
        let empty = random.uniform() < artefacts.empty_fields;
        let out_of_focus = random.uniform() < artefacts.blur;
        let defocus = random.between(0.06, 0.12) * settings.cell_diameter;
        let dying = (0.4 * plan.off_axis).min(0.8);
        // Dying cells leave clumps: toxic wells hold more debris, as long as there is debris at all.
        let debris_rate = artefacts.debris * (1.0 + 2.0 * plan.off_axis);
        let has_debris = random.uniform() < debris_rate;
        let debris_count = 1 + random.below(3);
        let spread = random.normal();

        let mean = settings.cells_per_field * (1.0 - dying) * (1.0 + plan.crowding) * exp(-0.12 * edge);
        // Counts spread a little less than Poisson: cells seeded from one suspension keep their distance.
        let count = if empty {
            0.0
        } else {
            (mean + 0.8 * mean.max(0.0).sqrt() * spread).round().max(0.0)
        };
        let mut scene = Self {
            key,
            empty,
            blur_radius: if out_of_focus {
                (defocus.round() as usize).max(1)
            } else {
                0
            },
            debris: Vec::new(),
            cells: Vec::new(),
            gains,
            background: background as f32,
        };
        if has_debris {
            scene.debris = (0..debris_count).map(|_| debris(settings, &mut random)).collect();
        }
        scene.place_cells(settings, plan, &shift, count as usize, &mut random);
        scene
    }

    /// Nuclei centred inside the image.
    pub(super) fn cell_count(&self, settings: &SimulationSettings) -> usize {
        let (width, height) = (settings.width as f32, settings.height as f32);
        self.cells
            .iter()
            .filter(|cell| (0.0..width).contains(&cell.x) && (0.0..height).contains(&cell.y))
            .count()
    }

    /// Staining of a channel in this field.
    pub(super) fn gain(&self, stain: Stain) -> f32 {
        self.gains[stain as usize]
    }

    /// Dart throwing: a cell is placed where no other nucleus is within three quarters of a radius, and given up
    /// after twelve tries. The margin around the image lets cells be cut by its border, as they are in life.
    fn place_cells(
        &mut self,
        settings: &SimulationSettings,
        plan: &WellPlan,
        shift: &[f64; TRAITS],
        count: usize,
        random: &mut Random,
    ) {
        let (height, width) = (f64::from(settings.height), f64::from(settings.width));
        let margin = settings.cell_diameter * 0.4;
        let (tall, wide) = (height + 2.0 * margin, width + 2.0 * margin);
        let count = (count as f64 * tall * wide / (height * width)).round() as usize;
        let apart = (0.375 * settings.cell_diameter) as f32;
        let disease = plan.disease().unwrap_or(0);
        let direction = phenotype::direction(settings.seed, disease);
        let on = settings.diseases[disease].effect * (plan.on_axis + plan.deviation);
        for _ in 0..count {
            let place = (0..12).find_map(|_| {
                let x = (random.uniform() * wide - margin) as f32;
                let y = (random.uniform() * tall - margin) as f32;
                let free = self.cells.iter().all(|other| {
                    let (dx, dy) = (other.x - x, other.y - y);
                    dx * dx + dy * dy >= apart * apart
                });
                free.then_some((x, y))
            });
            let Some((x, y)) = place else { continue };
            let (cosine, sine) = random.direction();
            self.cells.push(Cell {
                x,
                y,
                axis: (cosine as f32, sine as f32),
                key: random.next(),
                gain: (1.0 + 0.13 * random.normal()).clamp(0.4, 1.8) as f32,
                traits: phenotype::traits(
                    on,
                    plan.off_axis,
                    &direction,
                    shift,
                    settings.cell_variability,
                    random,
                ),
            });
        }
    }
}

fn debris(settings: &SimulationSettings, random: &mut Random) -> Debris {
    let (cosine, sine) = random.direction();
    let unit = settings.cell_diameter;
    let fibre = random.uniform() < 0.5;
    let (length, width) = if fibre {
        (random.between(1.0, 3.0) * unit, random.between(0.04, 0.08) * unit)
    } else {
        let radius = random.between(0.35, 0.9) * unit;
        (radius * random.between(1.0, 1.6), radius)
    };
    Debris {
        x: (random.uniform() * f64::from(settings.width)) as f32,
        y: (random.uniform() * f64::from(settings.height)) as f32,
        axis: (cosine as f32, sine as f32),
        half_length: length as f32,
        half_width: width as f32,
        brightness: random.between(0.5, 1.5) as f32,
    }
}
