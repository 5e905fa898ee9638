//! Random numbers, and the few transcendental functions the plate generator needs, written out here.
//!
//! Keys enter, numbers leave, nothing fails. Only IEEE basic operations and integer arithmetic are used, so the
//! bytes of a simulated plate and the draws of a null depend neither on the version of a dependency nor on the
//! platform's mathematics library.

/// Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators": the SplitMix64 finaliser.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64. Streams with different keys are independent, so every plate, well and field has its own.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of a list of keys, such as `[seed, what, plate, well]`.
    pub(crate) fn keyed(keys: &[u64]) -> Self {
        let state = keys.iter().fold(GOLDEN, |state, &key| {
            mix(state.wrapping_add(GOLDEN) ^ mix(key.wrapping_add(GOLDEN)))
        });
        Self { state }
    }

    /// The stream of one number, as it is.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any of the 2^64 numbers.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n; n above 0. Multiply-shift: the bias is below n / 2^32.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// Uniform in 0..n, for any number of things; the bias of the multiply-shift is below n / 2^64.
    pub(crate) fn index(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Nearly normal, mean 0 and deviation 1, never beyond 6: the sum of twelve uniforms less 6 (Irwin-Hall).
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// A direction in the plane as (cosine, sine), by rejection.
    pub(crate) fn direction(&mut self) -> (f64, f64) {
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let square = x * x + y * y;
            if (0.01..=1.0).contains(&square) {
                let length = square.sqrt();
                return (x / length, y / length);
            }
        }
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u32 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// Natural logarithm of a positive normal number, to about 1e-12: mantissa by bits, then the atanh series.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let (mut sum, mut power) = (0.0, t);
    for odd in 0..10 {
        sum += power / f64::from(2 * odd + 1);
        power *= square;
    }
    2.0 * sum + exponent as f64 * std::f64::consts::LN_2
}

/// The exponential, clamped to arguments within 700 of 0, to about 1e-12: halve, Taylor, square.
pub(crate) fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let steps = (x / std::f64::consts::LN_2).round();
    let rest = x - steps * std::f64::consts::LN_2;
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..14 {
        term *= rest / f64::from(n);
        sum += term;
    }
    sum * f64::from_bits(((steps as i64 + 1023) as u64) << 52)
}

/// Hill response in [0, 1]: `dose^h / (ec50^h + dose^h)`, 0 at dose 0.
pub(crate) fn hill(dose: f64, ec50: f64, slope: f64) -> f64 {
    if dose <= 0.0 {
        return 0.0;
    }
    1.0 / (1.0 + exp(slope * (ln(ec50) - ln(dose))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // First outputs of the reference implementation for seed 1234567.
        let mut random = Random { state: 1_234_567 };
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn logarithm_and_exponential_agree_with_the_library() {
        for i in -60..60 {
            let x = f64::from(i) * 0.37;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-11, "exp {x}");
            assert!((ln(x.exp()) - x).abs() < 1e-10, "ln {x}");
        }
    }

    #[test]
    fn hill_is_half_at_its_ec50_and_zero_without_compound() {
        assert!((hill(3.0, 3.0, 1.7) - 0.5).abs() < 1e-12);
        assert_eq!(hill(0.0, 3.0, 1.7), 0.0);
        assert!((hill(10.0, 1.0, 1.0) - 10.0 / 11.0).abs() < 1e-10);
    }

    #[test]
    fn normals_have_mean_nought_and_deviation_one() {
        let mut random = Random::keyed(&[1, 2]);
        let draws: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }
}
