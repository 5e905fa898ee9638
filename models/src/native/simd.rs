//! Vectors of f32, so that each kernel is written once for all instruction sets.
//!
//! A kernel is a struct that implements [`Kernel`]; `Isa::run` calls it inside a function that is compiled for the
//! instruction set, and everything the kernel is made of is inlined there.

/// A vector of f32 and how a matrix tile is best cut for it.
///
/// Every method is `unsafe` because the processor must have the instructions; only `Isa::run` picks a type, and only
/// one that runs here.
pub(crate) trait Simd: Copy {
    /// Values per vector; divides 16.
    const LANES: usize;
    /// Most rows of a matrix tile, at most 8: with [`Simd::PANELS`], as many sums as the registers hold.
    const ROWS: usize;
    /// Most panels of 16 columns of a matrix tile.
    const PANELS: usize;
    /// Whether [`Simd::mul_add`] rounds once.
    const FUSED: bool;

    /// All lanes `value`.
    ///
    /// # Safety
    /// The processor has the instructions, as for every method here.
    unsafe fn splat(value: f32) -> Self;

    /// `LANES` values.
    ///
    /// # Safety
    /// `LANES` values may be read at `from`.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `n <= LANES` values; the other lanes are 0.
    ///
    /// # Safety
    /// `n` values may be read at `from`.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;

    /// Writes all lanes.
    ///
    /// # Safety
    /// `LANES` values may be written at `to`.
    unsafe fn store(self, to: *mut f32);

    /// Writes the first `n <= LANES` lanes.
    ///
    /// # Safety
    /// `n` values may be written at `to`.
    unsafe fn store_first(self, to: *mut f32, n: usize);

    /// Asks for the cache line at `at` ahead of its use. `at` need not be valid.
    fn prefetch(at: *const f32);

    /// `self * factor + sum`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;

    /// `self + other`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn add(self, other: Self) -> Self;

    /// `min(max(self, 0), 6)`; NaN stays NaN.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn relu6(self) -> Self;
}

/// Work to be done with the vectors of one instruction set.
pub(crate) trait Kernel {
    /// Does it.
    ///
    /// # Safety
    /// The processor has the instructions of `S`, and what the kernel itself asks for holds.
    unsafe fn run<S: Simd>(self);
}

/// Four values in plain Rust, which the compiler turns into the vectors of the target it builds for.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Simd for Plain {
    const LANES: usize = 4;
    const ROWS: usize = 2;
    const PANELS: usize = 1;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: four values may be read there.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: n values may be read there.
            *lane = unsafe { from.add(i).read_unaligned() };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four values may be written there.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: n values may be written there.
            unsafe { to.add(i).write_unaligned(*lane) };
        }
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        Self(std::array::from_fn(|i| {
            multiply_add::<Self>(self.0[i], factor.0[i], sum.0[i])
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn relu6(self) -> Self {
        Self(self.0.map(|x| x.clamp(0.0, 6.0)))
    }
}

/// `a * b + c` of single values, fused where the vectors of `S` fuse it.
#[inline(always)]
pub(crate) fn multiply_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FUSED { a.mul_add(b, c) } else { a * b + c }
}
