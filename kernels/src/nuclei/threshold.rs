//! Thresholds between background and objects. Enters: exact counts of grey values. Leaves: a grey value; pixels above
//! it are foreground. `None` where an image has a single value and nothing can be told apart.

use crate::histogram::Histogram;

/// Otsu's number of classes, that of scikit-image and CellProfiler.
const OTSU_BINS: usize = 256;

/// Part of the darkest and of the brightest pixels that the robust background leaves out.
const OUTLIERS: f64 = 0.05;

/// Standard deviations of the background that its threshold lies above its mean.
const DEVIATIONS: f64 = 2.0;

/// More rounds than Li's iteration ever takes: it converges by a factor in each.
const LI_ROUNDS: usize = 1000;

/// Values with their counts, and how many pixels and how much grey lie at or below each.
struct Cumulative {
    values: Vec<u16>,
    pixels: Vec<u64>,
    grey: Vec<u64>,
}

impl Cumulative {
    fn of(histogram: &Histogram) -> Self {
        let (mut values, mut pixels, mut grey) = (Vec::new(), Vec::new(), Vec::new());
        let (mut n, mut sum) = (0, 0);
        for (v, count) in histogram.entries() {
            n += count;
            sum += count * u64::from(v);
            values.push(v);
            pixels.push(n);
            grey.push(sum);
        }
        Self { values, pixels, grey }
    }
}

/// Minimum cross-entropy: the fixed point of `t = (b - f) / (ln b - ln f)`, with `b` and `f` the mean grey value at and
/// below, and above, `t`, all counted from the smallest value. Starts at the mean and ends when `t` moves by at most
/// `tolerance` grey values. Source: Li and Tam, Pattern Recognition Letters 19 (1998) 771; scikit-image
/// `threshold_li`; CellProfiler's tolerance is half a step of its 16-bit scale.
pub(crate) fn li(histogram: &Histogram, tolerance: f64) -> Option<f64> {
    let all = Cumulative::of(histogram);
    let (&low, &n, &sum) = (all.values.first()?, all.pixels.last()?, all.grey.last()?);
    if all.values.len() < 2 {
        return None;
    }
    let low = f64::from(low);
    let mean = |grey: u64, pixels: u64| grey as f64 / pixels as f64 - low;
    let mut next = mean(sum, n);
    for _ in 0..LI_ROUNDS {
        let now = next;
        // At least the smallest value lies at or below the mean of all, and the largest above.
        let below = all.values.partition_point(|&v| f64::from(v) - low <= now);
        let (pixels, grey) = (*all.pixels.get(below.checked_sub(1)?)?, *all.grey.get(below - 1)?);
        if pixels == n {
            break;
        }
        let (back, fore) = (mean(grey, pixels), mean(sum - grey, n - pixels));
        if back <= 0.0 {
            break;
        }
        next = (back - fore) / (back.ln() - fore.ln());
        if (next - now).abs() <= tolerance {
            break;
        }
    }
    Some(next + low)
}

/// Otsu: the border that parts 256 equal classes between the smallest and the largest value so that the variance
/// between the two sides is largest; the centre of the class below it. Source: Otsu, IEEE Trans. SMC 9 (1979) 62;
/// scikit-image `threshold_otsu`.
pub(crate) fn otsu(histogram: &Histogram) -> Option<f64> {
    let (low, high) = (histogram.entries().next()?.0, histogram.entries().next_back()?.0);
    let (low, range) = (f64::from(low), f64::from(high) - f64::from(low));
    if range <= 0.0 {
        return None;
    }
    let mut bins = [0u64; OTSU_BINS];
    for (v, count) in histogram.entries() {
        let bin = (f64::from(v) - low) / range * OTSU_BINS as f64;
        bins[(bin as usize).min(OTSU_BINS - 1)] += count;
    }
    let total: u64 = bins.iter().sum();
    let weighted: f64 = bins.iter().enumerate().map(|(i, &n)| i as f64 * n as f64).sum();
    let (mut n, mut sum) = (0u64, 0.0);
    let (mut best, mut at) = (-1.0, 0);
    for (i, &count) in bins.iter().enumerate().take(OTSU_BINS - 1) {
        n += count;
        sum += i as f64 * count as f64;
        let rest = total - n;
        if n == 0 || rest == 0 {
            continue;
        }
        let between = sum / n as f64 - (weighted - sum) / rest as f64;
        let variance = n as f64 * rest as f64 * between * between;
        if variance > best {
            (best, at) = (variance, i);
        }
    }
    Some(low + range * (at as f64 + 0.5) / OTSU_BINS as f64)
}

/// Mean plus two population standard deviations of the pixels left when the darkest and the brightest 5 % are dropped.
/// Source: CellProfiler and centrosome `get_robust_background_threshold`.
pub(crate) fn robust_background(histogram: &Histogram) -> Option<f64> {
    let n = histogram.total();
    let (low, high) = (histogram.entries().next()?.0, histogram.entries().next_back()?.0);
    if n < 3 || low == high {
        return None;
    }
    let chop = (n as f64 * OUTLIERS).round_ties_even() as u64;
    // The peer drops nothing if the lower part rounds to nothing; then the upper part does too.
    let kept = chop..n - chop;
    let (mut below, mut count, mut sum, mut squares) = (0u64, 0u64, 0u128, 0u128);
    for (v, c) in histogram.entries() {
        let here = (below + c).min(kept.end).saturating_sub(below.max(kept.start));
        below += c;
        count += here;
        sum += u128::from(v) * u128::from(here);
        squares += u128::from(v) * u128::from(v) * u128::from(here);
    }
    let mean = sum as f64 / count as f64;
    let variance = (u128::from(count) * squares - sum * sum) as f64 / (count as f64 * count as f64);
    Some(mean + DEVIATIONS * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_levels_are_parted_and_one_is_not() {
        let two = Histogram::of(&[&[100u16; 70][..], &[900; 30]].concat());
        for t in [li(&two, 0.5), otsu(&two)] {
            let t = t.unwrap();
            assert!((100.0..900.0).contains(&t), "{t}");
        }
        // The middle 90 of 100: 65 at 100 and 25 at 900.
        let (mean, var) = (29_000.0 / 90.0, 800.0f64.powi(2) * 65.0 * 25.0 / 8100.0);
        assert!((robust_background(&two).unwrap() - (mean + 2.0 * f64::sqrt(var))).abs() < 1e-9);
        let one = Histogram::of(&[7; 9]);
        assert_eq!(
            (li(&one, 0.5), otsu(&one), robust_background(&one)),
            (None, None, None)
        );
        let none = Histogram::new();
        assert_eq!(
            (li(&none, 0.5), otsu(&none), robust_background(&none)),
            (None, None, None)
        );
    }
}
