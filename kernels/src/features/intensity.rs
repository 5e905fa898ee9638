//! Intensity of an object in one channel (CellProfiler MeasureObjectIntensity). Enters: its values, 0 to 65535. Leaves:
//! a value per name of [`NAMES`], intensities on the scale of [`Scale`]. Cannot fail: every measure is defined but for
//! the centre of mass of an object that is black all over, which is NaN.
//!
//! Quartiles lie at `(n - 1) q`, linear in between (numpy's default). StdIntensity is of the population, MADIntensity
//! `median |x - median|` without 1.4826, MassDisplacement the distance between the centroids with and without the
//! intensities as weights. The edge is the pixels with a neighbour of another label. Sums are of whole numbers.

use crate::features::object::Object;

/// What one grey level is worth: intensities run from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale(pub(crate) f64);

impl Scale {
    /// `value` grey levels.
    pub(crate) fn of(self, value: f64) -> f64 {
        value / self.0
    }
}

/// Names of what [`measure`] gives, without the channel.
pub(crate) const NAMES: [&str; 19] = [
    "Intensity_IntegratedIntensity",
    "Intensity_MeanIntensity",
    "Intensity_StdIntensity",
    "Intensity_MinIntensity",
    "Intensity_MaxIntensity",
    "Intensity_MassDisplacement",
    "Intensity_LowerQuartileIntensity",
    "Intensity_MedianIntensity",
    "Intensity_MADIntensity",
    "Intensity_UpperQuartileIntensity",
    "Location_CenterMassIntensity_X",
    "Location_CenterMassIntensity_Y",
    "Location_MaxIntensity_X",
    "Location_MaxIntensity_Y",
    "Intensity_IntegratedIntensityEdge",
    "Intensity_MeanIntensityEdge",
    "Intensity_StdIntensityEdge",
    "Intensity_MinIntensityEdge",
    "Intensity_MaxIntensityEdge",
];

/// Sums of whole grey levels.
#[derive(Default, Clone, Copy)]
struct Sums {
    count: u64,
    sum: u64,
    squares: u64,
    least: u16,
    most: u16,
}

impl Sums {
    fn of(values: impl Iterator<Item = u16>) -> Self {
        let start = Self {
            least: u16::MAX,
            ..Self::default()
        };
        values.fold(start, |s, v| Self {
            count: s.count + 1,
            sum: s.sum + u64::from(v),
            squares: s.squares + u64::from(v) * u64::from(v),
            least: s.least.min(v),
            most: s.most.max(v),
        })
    }

    /// Sum, mean, standard deviation, least and largest. Zeros of no pixel, as the peer.
    fn measures(&self, scale: Scale) -> [f64; 5] {
        if self.count == 0 {
            return [0.0; 5];
        }
        let n = self.count as f64;
        let spread = u128::from(self.count) * u128::from(self.squares) - u128::from(self.sum).pow(2);
        [
            self.sum as f64,
            self.sum as f64 / n,
            (spread as f64).sqrt() / n,
            f64::from(self.least),
            f64::from(self.most),
        ]
        .map(|v| scale.of(v))
    }
}

/// Values of [`NAMES`]. `edge` says which pixels are on the edge, in the order of `values`.
pub(crate) fn measure(object: &Object, values: &[u16], edge: &[bool], scale: Scale, out: &mut Vec<f64>) {
    let all = Sums::of(values.iter().copied());
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let quartile = |q: f64| scale.of(between(&sorted, q));
    // Twice the deviation from the median, which may lie between two grey levels, is a whole number.
    let twice = (2.0 * between(&sorted, 0.5)) as i64;
    let mut deviations: Vec<u32> = sorted
        .iter()
        .map(|&v| (2 * i64::from(v) - twice).unsigned_abs() as u32)
        .collect();
    deviations.sort_unstable();
    let mad = scale.of(between(&deviations, 0.5) / 2.0);

    let (mut rows, mut columns, mut y_sum, mut x_sum) = (0u64, 0u64, 0u64, 0u64);
    let (mut brightest, mut most) = ((0, 0), None);
    for ((y, x), &v) in object.pixels().zip(values) {
        rows += y as u64;
        columns += x as u64;
        y_sum += y as u64 * u64::from(v);
        x_sum += x as u64 * u64::from(v);
        if most.is_none_or(|m| v > m) {
            (brightest, most) = ((y, x), Some(v));
        }
    }
    let (n, sum) = (all.count as f64, all.sum as f64);
    let mass = (y_sum as f64 / sum, x_sum as f64 / sum);
    let displacement = (mass.0 - rows as f64 / n).hypot(mass.1 - columns as f64 / n);
    let (top, left) = (object.bounds.top as f64, object.bounds.left as f64);

    out.extend(all.measures(scale));
    out.extend([
        displacement,
        quartile(0.25),
        quartile(0.5),
        mad,
        quartile(0.75),
        mass.1 + left,
        mass.0 + top,
        brightest.1 as f64 + left,
        brightest.0 as f64 + top,
    ]);
    let at_edge = values.iter().zip(edge).filter(|(_, e)| **e).map(|(v, _)| *v);
    out.extend(Sums::of(at_edge).measures(scale));
}

/// Quantile `q` of sorted values, linear between two; 0 of none.
fn between<T: Copy + Into<f64>>(sorted: &[T], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = last as f64 * q;
    let low = at.floor() as usize;
    let (a, b) = (sorted[low].into(), sorted[(low + 1).min(last)].into());
    a + (b - a) * at.fract()
}
