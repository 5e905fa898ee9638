//! From a position on the disease axis and a distance off it to the traits of one cell.
//!
//! Positions and a random stream enter, [`Traits`] leave, nothing fails. At effect 1 the disease makes nuclei
//! smaller, longer and dimmer, cytoplasm coarser, ER and mitochondria gather around the nucleus, cell edges
//! brighter and cells longer. Off the axis cells round up and shrink, with small bright nuclei (pyknosis): a
//! direction that shares little with the axis, and where it does (nuclear size), points away from healthy.

use crate::random::Random;

/// Number of traits that move along a disease axis.
pub(super) const TRAITS: usize = 8;

const AXIS: u64 = 4;

/// What one cell looks like. Lengths are relative to a typical healthy cell, the rest are mixing weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traits {
    pub(super) nucleus_radius: f32,
    pub(super) nucleus_stretch: f32,
    pub(super) dna: f32,
    /// Weight of the coarse cytoplasm texture against the fine one, 0 to 1.
    pub(super) coarse: f32,
    /// How far the ER is gathered at the nucleus, 0 to 1.
    pub(super) er_gather: f32,
    /// How far mitochondria are gathered at the nucleus, 0 to 1.
    pub(super) mito_gather: f32,
    pub(super) agp_edge: f32,
    pub(super) cell_radius: f32,
    pub(super) cell_stretch: f32,
    /// Amplitude of the outline's lobes, relative to the radius.
    pub(super) lobes: f32,
}

/// How strongly a disease moves each trait. The first disease moves all alike; every further one has its own
/// pattern, with about a third of the traits moving the other way.
pub(super) fn direction(seed: u64, disease: usize) -> [f64; TRAITS] {
    if disease == 0 {
        return [1.0; TRAITS];
    }
    let mut random = Random::keyed(&[seed, AXIS, disease as u64]);
    std::array::from_fn(|_| {
        let size = random.between(0.4, 1.3);
        if random.uniform() < 0.35 { -size } else { size }
    })
}

/// One cell's traits at position `on` (0 healthy, 1 a disease of effect 1) and distance `off`, with spread
/// `variability` around them; `shift` is what the plate adds to each trait.
pub(super) fn traits(
    on: f64,
    off: f64,
    direction: &[f64; TRAITS],
    shift: &[f64; TRAITS],
    variability: f64,
    random: &mut Random,
) -> Traits {
    // Half the spread is one state shared by all traits of the cell, half is each trait's own.
    let state = on + variability * random.normal();
    let moved: [f64; TRAITS] =
        std::array::from_fn(|i| state * direction[i] + shift[i] + variability * random.normal());
    // Cells differ in how soon they die; the effect levels off.
    let off = off * (1.0 + 0.4 * random.normal()).clamp(0.0, 2.0);
    let dying = (off / (0.6 + 0.5 * off)).min(1.3);
    let alive = (1.0 - dying).max(0.0);
    let size = 1.0 + 0.09 * random.normal();
    let single = |value: f64, low: f64, high: f64| value.clamp(low, high) as f32;
    Traits {
        nucleus_radius: single(size * (1.0 - 0.15 * moved[0]) * (1.0 - 0.3 * dying), 0.35, 1.8),
        nucleus_stretch: single(1.15 + 0.22 * moved[1] * alive, 1.0, 2.0),
        dna: single(
            (1.0 - 0.2 * moved[2]) * (1.0 + 0.9 * dying) * (1.0 + 0.1 * random.normal()),
            0.25,
            2.6,
        ),
        coarse: single(0.2 + 0.45 * moved[3], 0.0, 1.0),
        er_gather: single(0.2 + 0.45 * moved[4], 0.0, 1.0),
        mito_gather: single(0.15 + 0.5 * moved[5], 0.0, 1.0),
        agp_edge: single((0.4 + 0.5 * moved[6]) * (1.0 - 0.5 * dying), 0.05, 2.0),
        cell_radius: single(size * (1.0 - 0.42 * dying), 0.4, 1.6),
        cell_stretch: single(1.12 + 0.3 * moved[7] * alive, 1.0, 2.2),
        lobes: single((0.1 + 0.05 * moved[7]) * alive, 0.0, 0.22),
    }
}
