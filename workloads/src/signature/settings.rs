//! Settings of the disease matrix. Numbers enter, checked numbers leave; a number out of range is an error.

use super::SignatureError;

/// Most control wells that a null may draw from: indices are kept in 32 bits, with room to spare.
const MOST_POOL_WELLS: usize = 1 << 20;

/// Which cells the compounds were given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TreatedCells {
    /// Those of the disease a well names (rescue screens); a well that names none, on a plate whose disease controls
    /// all name one, holds healthy cells.
    #[default]
    Diseased,
    /// Healthy ones, whatever disease a well names (response screens): effects begin at the reference wells.
    Healthy,
}

/// How effects are measured and nulls are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureSettings {
    /// Which cells the compounds were given to.
    pub treated: TreatedCells,
    /// Up to this many combinations of control wells are enumerated (SCIENCE 6.5).
    pub exact_combinations: u32,
    /// Draws otherwise; at least 1.
    pub draws: u32,
    /// Seed of the draws, and of the choice of control wells where there are more than `pool_wells`.
    pub seed: u64,
    /// Most control wells kept per origin (healthy, or a disease): bounds memory at `pool_wells * width * 4` bytes
    /// for each. At least 1.
    pub pool_wells: usize,
    /// Most bytes of effects that are held between plates; the others wait in the spool.
    pub held_bytes: usize,
    /// Effects scored at once, about: those of a compound are scored together. More are scored in two passes, in smaller
    /// blocks. At least 1.
    pub effects_at_once: usize,
    /// Whether p-values that few null values reach are taken from a fitted tail ([`super::tail`]), so that they can
    /// pass the correction for ten thousands of tests.
    pub tail: bool,
}

impl Default for SignatureSettings {
    fn default() -> Self {
        Self {
            treated: TreatedCells::default(),
            exact_combinations: 100_000,
            draws: 10_000,
            seed: 0,
            pool_wells: 1024,
            held_bytes: 16 << 20,
            effects_at_once: 1 << 16,
            tail: true,
        }
    }
}

impl SignatureSettings {
    /// # Errors
    /// [`SignatureError::Setting`] for the first number out of range.
    pub fn check(&self) -> Result<(), SignatureError> {
        if self.draws == 0 {
            return Err(SignatureError::Setting {
                setting: "draws",
                value: 0,
                expected: "at least 1",
            });
        }
        if !(1..=MOST_POOL_WELLS).contains(&self.pool_wells) {
            return Err(SignatureError::Setting {
                setting: "pool_wells",
                value: self.pool_wells as u64,
                expected: "1 to 1048576",
            });
        }
        Ok(())
    }
}
