//! `convert`: raw integers to f32. On the CPU it is the read of [`crate::rows::Rows`] and costs nothing extra; on the
//! GPU it unpacks two 16-bit pixels per word. Exact: every u16 is an f32.

use crate::image::RawImage;
use crate::plan::{BufferId, Dispatch, Plan, groups_for};

/// Name in plans.
pub(crate) const NAME: &str = "convert";
/// Shader source.
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Packs pixels two to a word, the even one in the low half; the device layer uploads this.
pub(crate) fn packed_words(image: &RawImage) -> usize {
    image.pixels().len().div_ceil(2)
}

/// Unpacks `packed` to f32.
pub(crate) fn plan(plan: &mut Plan, packed: BufferId, count: usize) -> BufferId {
    let out = plan.buffer(NAME, count);
    plan.dispatch(Dispatch {
        kernel: NAME,
        source: WGSL,
        entry: "convert",
        params: vec![count as u32],
        bindings: vec![(1, packed), (2, out)],
        groups: [groups_for(count), 1, 1],
    });
    out
}
