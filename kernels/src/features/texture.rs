//! Haralick texture of an object in one channel (CellProfiler MeasureTexture). Enters: an object and its values on few
//! grey levels. Leaves: 13 features in four directions; all NaN if a direction has no pair of pixels, as the peer.
//!
//! Pairs of pixels of the object at a distance of `scale` pixels along a row, a diagonal down right, a column and a
//! diagonal down left, counted both ways round; a pixel of level 0 is background and takes no part. Logarithms are to
//! base 2; the variance of the difference is that of its histogram over the levels up to the object's largest. Sources:
//! Haralick, Shanmugam, Dinstein, IEEE Trans. SMC 3 (1973) 610; mahotas `haralick`, which CellProfiler calls.
//!
//! A dense table of pairs has 65,536 cells, of which an object of 300 pixels uses a few hundred: the cells it touches
//! are remembered, and read and cleared by that list. Counts are whole numbers.

use crate::features::object::Object;

/// Names of the features, in the order of [`Texture::measure`].
pub(crate) const NAMES: [&str; 13] = [
    "AngularSecondMoment",
    "Contrast",
    "Correlation",
    "Variance",
    "InverseDifferenceMoment",
    "SumAverage",
    "SumVariance",
    "SumEntropy",
    "Entropy",
    "DifferenceVariance",
    "DifferenceEntropy",
    "InfoMeas1",
    "InfoMeas2",
];

/// Steps down and right of each direction.
pub(crate) const DIRECTIONS: [(isize, isize); 4] = [(0, 1), (1, 1), (1, 0), (1, -1)];

/// Levels of grey, the most that fit a byte.
const LEVELS: usize = 256;

/// Counts below this find `n log2 n` in a table.
const TABLE: usize = 1024;

/// Room for one object, kept from one to the next.
pub(crate) struct Texture {
    /// Times each pair of levels (the lower in the low byte) was met.
    pairs: Vec<u32>,
    /// The pairs met.
    met: Vec<u16>,
    /// `n log2 n`.
    logs: Vec<f64>,
    /// Levels of the object and a margin of `scale` pixels of 0 around it.
    levels: Vec<u8>,
}

impl Default for Texture {
    fn default() -> Self {
        Self {
            pairs: vec![0; LEVELS * LEVELS],
            met: Vec::new(),
            logs: (0..TABLE).map(n_log_n).collect(),
            levels: Vec::new(),
        }
    }
}

fn n_log_n(n: usize) -> f64 {
    if n == 0 { 0.0 } else { n as f64 * (n as f64).log2() }
}

/// From grey levels to `count` levels of texture: the value on the scale of 0 to 1 rounded to a byte (half to even),
/// then spread over `count` levels and cut off.
pub(crate) fn level_table(scale: f64, count: usize) -> Vec<u8> {
    (0..=u16::MAX)
        .map(|v| {
            let byte = (f64::from(v) / scale * 255.0).round_ties_even().min(255.0);
            match count {
                LEVELS => byte as u8,
                _ => (byte / 255.0 * (count - 1) as f64) as u8,
            }
        })
        .collect()
}

impl Texture {
    /// The features of one direction after the other. `values` are the grey levels of the object's pixels.
    pub(crate) fn measure(
        &mut self,
        object: &Object,
        values: &[u16],
        table: &[u8],
        scale: usize,
        out: &mut Vec<f64>,
    ) {
        let (height, width) = (object.bounds.height(), object.bounds.width());
        // Pairs that leave the box meet the margin. None is needed below, where a pair begins at the upper pixel.
        let wide = width + 2 * scale;
        self.levels.clear();
        self.levels.resize(wide * (height + scale), 0);
        let mut largest = 0;
        for ((y, x), &v) in object.pixels().zip(values) {
            let level = table[usize::from(v)];
            largest = largest.max(level);
            self.levels[y * wide + scale + x] = level;
        }
        let start = out.len();
        for (down, right) in DIRECTIONS {
            let step = (down * wide as isize + right) * scale as isize;
            // Every direction leads forwards.
            let pairs = self.count(object, wide, scale, step.unsigned_abs());
            if pairs == 0 {
                out.truncate(start);
                out.resize(start + NAMES.len() * DIRECTIONS.len(), f64::NAN);
                return;
            }
            out.extend(self.features(pairs, usize::from(largest)));
        }
    }

    /// Counts the pairs `step` places apart.
    fn count(&mut self, object: &Object, wide: usize, margin: usize, step: usize) -> u64 {
        let mut total = 0;
        for span in &object.spans {
            let start = span.y * wide + margin + span.left;
            let from = &self.levels[start..][..span.right - span.left];
            let to = &self.levels[start + step..][..span.right - span.left];
            for (&a, &b) in from.iter().zip(to) {
                if a == 0 || b == 0 {
                    continue;
                }
                let pair = u16::from(a.min(b)) | u16::from(a.max(b)) << 8;
                let count = &mut self.pairs[usize::from(pair)];
                if *count == 0 {
                    self.met.push(pair);
                }
                *count += 1;
                total += 1;
            }
        }
        total
    }

    /// `n log2 n`.
    fn log(&self, n: u64) -> f64 {
        match self.logs.get(n as usize) {
            Some(&v) => v,
            None => n_log_n(n as usize),
        }
    }

    /// The features of the pairs counted, which are cleared.
    fn features(&mut self, pairs: u64, largest: usize) -> [f64; 13] {
        // Each pair is met both ways round.
        let total = 2 * pairs;
        let t = total as f64;
        let (mut single, mut sums, mut differences) = ([0u64; LEVELS], [0u64; 2 * LEVELS], [0u64; LEVELS]);
        let (mut squares, mut products, mut logs) = (0u64, 0u64, 0.0);
        let met = std::mem::take(&mut self.met);
        for &pair in &met {
            let n = u64::from(std::mem::take(&mut self.pairs[usize::from(pair)]));
            let (a, b) = (usize::from(pair & 255), usize::from(pair >> 8));
            single[a] += n;
            single[b] += n;
            sums[a + b] += 2 * n;
            differences[b - a] += 2 * n;
            products += 2 * n * (a * b) as u64;
            if a == b {
                squares += 4 * n * n;
                logs += self.log(2 * n);
            } else {
                squares += 2 * n * n;
                logs += 2.0 * self.log(n);
            }
        }
        self.met = met;
        self.met.clear();
        // -sum p log2 p = log2 T - (sum n log2 n) / T.
        let entropy_of = |logs: f64| t.log2() - logs / t;
        let entropy = |counts: &[u64]| entropy_of(counts.iter().map(|&n| self.log(n)).sum());
        let moment = |counts: &[u64], power: u32| -> u64 {
            let of = |(i, &n): (usize, &u64)| (i as u64).pow(power) * n;
            counts.iter().enumerate().map(of).sum()
        };
        // T^2 times the variance.
        let spread = |counts: &[u64]| {
            u128::from(total) * u128::from(moment(counts, 2)) - u128::from(moment(counts, 1)).pow(2)
        };
        let single_spread = spread(&single[..=largest]);
        let mean = moment(&single[..=largest], 1);
        let correlation = match single_spread {
            0 => 1.0,
            spread => {
                let with = i128::from(total) * i128::from(products) - i128::from(mean).pow(2);
                with as f64 / spread as f64
            }
        };
        let inverse: f64 = differences
            .iter()
            .enumerate()
            .map(|(k, &n)| n as f64 / (1.0 + (k * k) as f64))
            .sum();
        let width = (largest + 1) as f64;
        let difference_squares: f64 = differences.iter().map(|&n| (n as f64 / t).powi(2)).sum();
        let joint = entropy_of(logs);
        let of_one = entropy(&single[..=largest]);
        [
            squares as f64 / (t * t),
            moment(&differences, 2) as f64 / t,
            correlation,
            single_spread as f64 / (t * t),
            inverse / t,
            moment(&sums, 1) as f64 / t,
            spread(&sums) as f64 / (t * t),
            entropy(&sums),
            joint,
            difference_squares / width - 1.0 / (width * width),
            entropy(&differences),
            // Counted both ways round, both margins are alike, and the entropy of their product is twice that of one.
            if of_one > 0.0 {
                (joint - 2.0 * of_one) / of_one
            } else {
                joint - 2.0 * of_one
            },
            (1.0 - (-2.0 * (2.0 * of_one - joint)).exp()).max(0.0).sqrt(),
        ]
    }
}
