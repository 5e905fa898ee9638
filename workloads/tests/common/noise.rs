//! Seeded noise for made-up wells. A test target takes it by `#[path = "common/noise.rs"] mod noise;`.

#![allow(
    dead_code,
    reason = "shared by several test targets, each of which uses a part"
)]

/// A generator: the same seed gives the same numbers.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// From 0 to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Close to normal: the sum of twelve uniforms.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
