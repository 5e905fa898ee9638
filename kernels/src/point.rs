//! Point-wise operations: one pixel in, one pixel out, with four numbers per plane and perhaps a map of the field.
//! They are what is fused: kernels append them to [`crate::rows::Rows`] on the CPU and to [`crate::pixels::Pixels`] on
//! a GPU, and the next kernel that needs neighbours or sums reads through all of them.
//! Enters: a row or a pixel. Leaves: the same, changed. NaN becomes 0 in every operation. Cannot fail.

/// A point-wise function in both forms.
#[derive(Debug)]
pub(crate) struct PointFn {
    /// Kernel it belongs to.
    pub(crate) kernel: &'static str,
    /// Name of `fn name(x: f32, p: vec4<f32>, m: f32) -> f32` in `source`.
    pub(crate) function: &'static str,
    /// WGSL that defines it; it may use what `pixels/prelude.wgsl` defines.
    pub(crate) source: &'static str,
    /// Whether it reads the map.
    pub(crate) map: bool,
    /// Non-decreasing and the same for every pixel of a plane, so that the k-th smallest value of the output is the
    /// function of the k-th smallest value of the input.
    pub(crate) monotone: bool,
    /// The specification: a row, the numbers of its plane, and the map beside the row (empty without one).
    pub(crate) cpu: fn(&mut [f32], [f32; 4], &[f32]),
    /// The same from raw pixels, for functions that usually come first: it spares a pass over the row.
    pub(crate) cpu_raw: Option<RawRow>,
}

/// Raw pixels, where their floats go, the numbers of the plane, and the map.
pub(crate) type RawRow = fn(&[u16], &mut [f32], [f32; 4], &[f32]);

/// `v` where it is positive, else 0; NaN gives 0.
#[inline(always)]
pub(crate) fn positive(v: f32) -> f32 {
    if v > 0.0 { v } else { 0.0 }
}

/// `v` where it is finite, else 0.
#[inline(always)]
pub(crate) fn finite(v: f32) -> f32 {
    if v.abs() <= f32::MAX { v } else { 0.0 }
}
