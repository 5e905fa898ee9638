//! `convert`: raw integers to f32, and the pending point-wise operations of a chain written out. On the CPU it is the read
//! of [`crate::rows::Rows`] and costs nothing extra; on a GPU two 16-bit pixels travel in a word. Exact: every u16 is an
//! f32.

use crate::image::InputShape;
use crate::pixels::Pixels;
use crate::plan::Plan;

/// Name in plans.
pub(crate) const NAME: &str = "convert";
/// Shader source.
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// A raw image in a new buffer that the device layer fills, two pixels to a word, the even one in the low half.
pub(crate) fn packed(plan: &mut Plan, shape: InputShape) -> Pixels {
    let InputShape {
        channels,
        height,
        width,
    } = shape;
    let buffer = plan.buffer(NAME, (channels * height * width).div_ceil(2));
    Pixels::packed(buffer, [1, channels, height, width])
}

/// Writes `pixels` as floats.
pub(crate) fn plan(plan: &mut Plan, pixels: Pixels) -> Pixels {
    let shape = pixels.shape();
    let out = plan.buffer(NAME, shape.iter().product());
    let mut dispatch = pixels.dispatch(NAME, WGSL, "convert", Vec::new());
    dispatch.params = vec![shape[2] as u32 * shape[3] as u32];
    dispatch.writes = vec![(1, out)];
    plan.dispatch(dispatch);
    Pixels::float(out, shape)
}
