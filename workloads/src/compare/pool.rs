//! Nulls from the controls of all plates of a disease, for treatments on more plates than are held at once and for
//! screens that ask for them (SCIENCE 6.5). Scored controls pass by, a sample of fixed size stays, nulls leave.
//!
//! Which controls stay depends on their plate, well and the seed alone, so that the order of plates does not matter.
//! Nothing fails; without two controls there is no null.

use super::axis::{dot, norm};
use super::null::{self, Null, Plan, Pool};
use crate::random::Random;
use crate::words::{Barcode, WellPosition};

/// Controls kept for each disease: their mean vectors are drawn with a relative error of the spread near 1/sqrt(2n),
/// 4 %, in 0.8 MB at 384 features.
const KEPT: usize = 256;

/// A group of more wells than this share of the sample is drawn with replacement: without it, the spread of its mean
/// would come out too small by the share drawn.
const SMALL_SHARE: usize = 16;

struct Control {
    priority: u64,
    effect: f64,
    scaled: Vec<f64>,
}

/// A sample of the null controls of one disease, and the mean of all of them.
#[derive(Default)]
pub(super) struct Sample {
    kept: Vec<Control>,
    unit: Vec<f64>,
    effects: f64,
    seen: f64,
    /// Sum of the controls' variances, in units of a well's.
    variances: f64,
}

/// How a group's wells lie: all that its null depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lie {
    /// Its wells.
    pub(super) wells: usize,
    /// What its wells share: `Σ k²/m` over plates with k of them and m controls, per well, in steps of 1/64.
    shared: u32,
}

/// Steps of [`Lie::shared`] per unit: the spread of a null is right within 1 %, and few groups need one of their own.
const STEPS: f64 = 64.0;

impl Lie {
    /// Of a group of `wells`, with `shared` over its plates.
    pub(super) fn new(wells: usize, shared: f64) -> Self {
        let steps = (shared / wells.max(1) as f64 * STEPS).round();
        Self {
            wells,
            shared: steps as u32,
        }
    }
}

/// The null controls of a plate, for a disease.
pub(super) struct PlateControls<'a> {
    pub(super) plate: &'a Barcode,
    pub(super) wells: &'a [WellPosition],
    pub(super) effects: &'a [f64],
    pub(super) scaled: &'a [Vec<f64>],
    pub(super) unit: &'a [f64],
}

impl Sample {
    /// Takes a plate's controls into account.
    pub(super) fn add(&mut self, controls: &PlateControls<'_>, seed: u64) {
        self.unit.resize(controls.unit.len(), 0.0);
        for (sum, u) in self.unit.iter_mut().zip(controls.unit) {
            *sum += u;
        }
        for ((&well, &effect), scaled) in controls.wells.iter().zip(controls.effects).zip(controls.scaled) {
            self.effects += effect;
            self.seen += 1.0;
            let others = controls.wells.len() as f64 - 1.0;
            self.variances += if others > 0.0 { 1.0 + 1.0 / others } else { 1.0 };
            let place = [well.row(), well.column()];
            let parts = [controls.plate.as_str().as_bytes(), place.as_slice()];
            // FNV alone mixes its last bytes little: neighbouring wells would be kept or lost together.
            let priority = Random::seeded(null::seed_for(seed, parts.into_iter())).next();
            if self.kept.len() == KEPT && self.kept.last().is_some_and(|last| priority >= last.priority) {
                continue;
            }
            let at = self.kept.partition_point(|kept| kept.priority < priority);
            let scaled = scaled.clone();
            let control = Control {
                priority,
                effect,
                scaled,
            };
            self.kept.insert(at, control);
            self.kept.truncate(KEPT);
        }
    }

    /// The null of the mean of a group. `None` with fewer than two controls.
    ///
    /// The mean of n wells, k of them on a plate with m controls, lies around the means of these controls with a
    /// variance of `1/n + Σ k²/m / n²`, in units of a well's: wells of one plate share the error of its controls. Means
    /// of n leave-one-out controls of different plates vary by that of one of them, `m/(m-1)`, divided by n, and are
    /// spread out to the group's.
    pub(super) fn null(&self, lie: Lie, plan: Plan) -> Option<Null> {
        let mut null = self.null_of_strangers(lie.wells, plan)?;
        let variance = 1.0 + f64::from(lie.shared) / STEPS;
        let theirs = self.variances / self.seen;
        let factor = (variance / theirs).sqrt();
        if factor > 1.0 {
            let mean = self.effects / self.seen;
            for effect in &mut null.effects {
                *effect = mean + factor * (*effect - mean);
            }
            null.off_axis.iter_mut().for_each(|off| *off *= factor);
        }
        Some(null)
    }

    /// The null of the mean of so many wells of different plates.
    fn null_of_strangers(&self, wells: usize, plan: Plan) -> Option<Null> {
        let n = self.kept.len();
        if n < 2 || wells == 0 {
            return None;
        }
        let length = norm(&self.unit);
        // Where there is no axis (all units are zero) everything lies beside it.
        let unit: Vec<f64> = self
            .unit
            .iter()
            .map(|u| if length > 0.0 { u / length } else { 0.0 })
            .collect();
        let effects: Vec<f64> = self.kept.iter().map(|control| control.effect).collect();
        if wells * SMALL_SHARE <= n {
            let scaled: Vec<&[f64]> = self
                .kept
                .iter()
                .map(|control| control.scaled.as_slice())
                .collect();
            let pool = Pool {
                effects: &effects,
                scaled: &scaled,
                unit: &unit,
                wells,
            };
            return null::build(&[pool], plan);
        }
        Some(self.bootstrap(&effects, &unit, wells, plan))
    }

    /// Means of `wells` controls drawn with replacement. Around the mean of all controls, not of the sample, whose
    /// own error would be larger than the spread of a mean of many wells.
    fn bootstrap(&self, effects: &[f64], unit: &[f64], wells: usize, plan: Plan) -> Null {
        let n = self.kept.len();
        let sample_mean = effects.iter().sum::<f64>() / n as f64;
        let true_mean = self.effects / self.seen;
        // Beside the axis the mean of leave-one-out controls is zero but for noise.
        let mut beside: Vec<Vec<f64>> = self
            .kept
            .iter()
            .map(|control| {
                let along = dot(&control.scaled, unit);
                control
                    .scaled
                    .iter()
                    .zip(unit)
                    .map(|(x, u)| x - along * u)
                    .collect()
            })
            .collect();
        let rows: Vec<&[f64]> = beside.iter().map(Vec::as_slice).collect();
        if let Some(mean) = super::axis::mean(&rows) {
            for row in &mut beside {
                row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m);
            }
        }
        let mut gram = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let product = dot(&beside[i], &beside[j]);
                gram[i * n + j] = product;
                gram[j * n + i] = product;
            }
        }
        let mut random = Random::seeded(plan.seed);
        let mut counts = vec![0.0f64; n];
        let (mut means, mut off_axis) = (Vec::new(), Vec::new());
        for _ in 0..plan.draws {
            counts.fill(0.0);
            for _ in 0..wells {
                counts[random.index(n)] += 1.0;
            }
            means.push(dot(&counts, effects) / wells as f64 - sample_mean + true_mean);
            let square: f64 = counts
                .iter()
                .zip(gram.chunks_exact(n))
                .filter(|(count, _)| **count > 0.0)
                .map(|(count, row)| count * dot(&counts, row))
                .sum();
            off_axis.push(square.max(0.0).sqrt() / wells as f64);
        }
        means.sort_unstable_by(f64::total_cmp);
        off_axis.sort_unstable_by(f64::total_cmp);
        Null {
            effects: means,
            off_axis,
            exact: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Controls of unit spread around 1 on the axis, in 20 dimensions.
    fn sample(plates: u8, reverse: bool) -> Sample {
        let mut random = Random::seeded(3);
        let mut unit = vec![0.0; 20];
        unit[0] = 1.0;
        let mut normal = || (0..12).map(|_| random.index(1000) as f64 / 1000.0).sum::<f64>() - 6.0;
        let mut made = Vec::new();
        for plate in 0..plates {
            let wells: Vec<WellPosition> = (1..=24)
                .filter_map(|column| WellPosition::new(1, column))
                .collect();
            let scaled: Vec<Vec<f64>> = wells
                .iter()
                .map(|_| {
                    (0..20)
                        .map(|i| normal() + if i == 0 { 1.0 } else { 0.0 })
                        .collect()
                })
                .collect();
            made.push((format!("P{plate}").parse::<Barcode>().unwrap(), wells, scaled));
        }
        if reverse {
            made.reverse();
        }
        let mut sample = Sample::default();
        for (plate, wells, scaled) in &made {
            let effects: Vec<f64> = scaled.iter().map(|x| 1.0 - x[0]).collect();
            let controls = PlateControls {
                plate,
                wells,
                effects: &effects,
                scaled,
                unit: &unit,
            };
            sample.add(&controls, 5);
        }
        sample
    }

    const PLAN: Plan = Plan {
        exact_combinations: 1000,
        draws: 4000,
        seed: 9,
    };

    #[test]
    fn the_null_of_a_mean_of_many_wells_is_as_narrow_as_that_mean() {
        let sample = sample(40, false);
        assert_eq!(sample.kept.len(), KEPT);
        for (wells, on_a_plate) in [(4u32, 1u32), (100, 1), (2000, 1), (100, 24), (2000, 48)] {
            // 24 controls on every plate.
            let shared = f64::from(wells * on_a_plate) / 24.0;
            let wells = wells as usize;
            let null = sample.null(Lie::new(wells, shared), PLAN).unwrap();
            assert!(!null.exact);
            let n = null.effects.len() as f64;
            let mean = null.effects.iter().sum::<f64>() / n;
            let sd = (null.effects.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            // The made controls vary as single wells do; wells that share a plate's controls vary more.
            let together = (1.0 + f64::from(on_a_plate) / 24.0).sqrt();
            let expected = together / (wells as f64).sqrt();
            assert!((sd / expected - 1.0).abs() < 0.15, "{wells}: {sd} {expected}");
            assert!(mean.abs() < 0.1, "{mean}");
            let off = null.off_axis[null.off_axis.len() / 2];
            let beside = 19f64.sqrt() * expected;
            assert!((off / beside - 1.0).abs() < 0.15, "{wells}: {off} {beside}");
        }
    }

    #[test]
    fn the_order_of_plates_does_not_choose_the_controls() {
        let priorities = |s: &Sample| s.kept.iter().map(|c| c.priority).collect::<Vec<_>>();
        assert_eq!(priorities(&sample(20, false)), priorities(&sample(20, true)));
    }
}
