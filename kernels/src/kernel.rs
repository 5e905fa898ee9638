//! The contract of a kernel: a name, a tolerance, typed parameters, an output shape, a CPU implementation (the
//! specification) and a shader plan. No kernel touches the graphics library; the device layer runs plans.

use std::fmt;
use std::ops::Range;

use crate::error::KernelError;
use crate::image::RawImage;
use crate::pixels::Pixels;
use crate::plan::{BufferId, Plan};
use crate::registry::Step;
use crate::rows::Rows;

/// Items, channels, height, width of the data between two steps.
pub type Shape = [usize; 4];

/// How far the GPU result may lie from the CPU result, per element:
/// `|gpu - cpu| <= absolute + relative * |cpu|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Absolute part, in units of the output.
    pub absolute: f32,
    /// Relative part.
    pub relative: f32,
    /// Why it is not zero.
    pub why: &'static str,
}

impl Tolerance {
    /// Bit-equal results (copies and integer arithmetic).
    pub const EXACT: Tolerance = Tolerance {
        absolute: 0.0,
        relative: 0.0,
        why: "copies and integer sums are exact",
    };

    /// Whether `gpu` is close enough to `cpu`. NaN agrees with NaN, infinities only with themselves.
    pub fn accepts(&self, cpu: f32, gpu: f32) -> bool {
        if cpu == gpu || (cpu.is_nan() && gpu.is_nan()) {
            return true;
        }
        (gpu - cpu).abs() <= self.absolute + self.relative * cpu.abs() && cpu.is_finite()
    }
}

/// A step that turns pixels into pixels.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// Name in the registry, in recipes and in messages.
    fn name(&self) -> &'static str;
    /// Allowed gap between the two implementations.
    fn tolerance(&self) -> Tolerance;
    /// Checks the parameters against the input shape and gives the output shape.
    ///
    /// # Errors
    /// Names this kernel, the parameter and the value.
    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError>;
    /// The specification. Called only with a shape that [`Kernel::output_shape`] accepted.
    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a>;
    /// The same on a GPU: adds dispatches to `plan`, or an operation to the pixels.
    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels;
    /// Percentiles of its input that a point-wise kernel scales by. Those of neighbouring kernels are found in one pass
    /// over the image.
    fn percentiles(&self) -> Vec<f64> {
        Vec::new()
    }
    /// Whether it only appends an operation that keeps the order of a plane's pixels, so that percentiles wanted after
    /// it can be found before it.
    fn keeps_order(&self) -> bool {
        false
    }
    /// The same kernel for channel `c` alone, so that the channels of an image too large for a device can be run one
    /// after the other; `None` where channels depend on each other.
    fn channel(&self, c: usize) -> Option<Step>;
    /// The same kernel for the rows `rows` alone, and how many rows beside a cut it gets wrong, so that planes too large for a
    /// device can be run in strips; `None` where a result depends on rows far away, or the number of rows changes.
    fn strip(&self, _rows: Range<usize>) -> Option<(Step, usize)> {
        None
    }
}

/// A kernel that reduces a raw image to exact integer tallies.
pub trait Measure: Send + Sync {
    /// Name in the registry.
    fn name(&self) -> &'static str;
    /// The specification.
    fn cpu(&self, image: &RawImage) -> Vec<u64>;
    /// Adds the dispatches; `packed` holds two pixels per word.
    fn plan(&self, plan: &mut Plan, packed: BufferId, image: &RawImage) -> BufferId;
    /// Turns the words read back into the same tallies as [`Measure::cpu`].
    fn finish(&self, words: &[u32], image: &RawImage) -> Vec<u64>;
}

/// `values[0]` for all channels or `values[c]`; checks length and finiteness.
pub(crate) fn check_per_channel(
    kernel: &'static str,
    parameter: &'static str,
    values: impl ExactSizeIterator<Item = f64>,
    channels: usize,
    expected: &'static str,
    ok: impl Fn(f64) -> bool,
) -> Result<(), KernelError> {
    let got = values.len();
    if got != 1 && got != channels {
        return Err(KernelError::Channels {
            kernel,
            parameter,
            got,
            channels,
        });
    }
    for (i, v) in values.enumerate() {
        if !ok(v) {
            return Err(KernelError::Parameter {
                kernel,
                parameter,
                value: format!("{v} (entry {i})"),
                expected,
            });
        }
    }
    Ok(())
}

/// The part of a checked per-channel list that channel `c` needs.
pub(crate) fn of_channel<T: Copy>(values: &[T], c: usize) -> Vec<T> {
    values
        .get(if values.len() == 1 { 0 } else { c })
        .copied()
        .into_iter()
        .collect()
}

/// The value of a checked per-channel list for channel `c`.
pub(crate) fn per_channel<T: Copy + Default>(values: &[T], c: usize) -> T {
    values
        .get(if values.len() == 1 { 0 } else { c })
        .copied()
        .unwrap_or_default()
}
