//! `moments`: exact first and second moments of the Laplacian of raw pixels.
//!
//! Laplacian: `up + down + left + right - 4 centre` with mirrored borders (the edge pixel is not repeated; an axis
//! of one pixel mirrors onto itself). Leaves per channel: its sum (two's complement) and its sum of squares, as
//! integers, from which the variance follows without rounding. `|Laplacian| < 2^18`, so the shader adds the squares
//! in three 9-bit parts that cannot overflow 32 bits within a workgroup. Both forms are exact.
//! Source: variance of the Laplacian as a focus measure, Pech-Pacheco et al., ICPR 2000.

use crate::image::RawImage;
use crate::kernel::Measure;
use crate::plan::{BufferId, Dispatch, Plan};

mod cpu;

pub(crate) const NAME: &str = "moments";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Pixels that one workgroup sums: 2^13 parts below 2^18 stay below 2^31.
const BLOCK: usize = 1 << 13;

/// The registry entry.
#[derive(Debug, Clone, Copy)]
pub struct MomentsKernel;

/// Laplacian variance (population) from the tallies of one channel.
pub(crate) fn variance(tallies: &[u64], count: usize) -> f64 {
    let &[sum, squares] = tallies else { return 0.0 };
    let (sum, n) = (i128::from(sum as i64), count as i128);
    // n * squares - sum^2 is exact below 2^127 for any image that fits in memory.
    (n * i128::from(squares) - sum * sum) as f64 / (count as f64 * count as f64)
}

/// `n^2` times the Laplacian variance of a plane, exact.
pub(crate) fn spread(plane: &[u16], height: usize, width: usize) -> u128 {
    let [sum, squares] = cpu::laplacian(plane, height, width);
    let sum = i128::from(sum as i64);
    (plane.len() as u128 * u128::from(squares)).saturating_sub((sum * sum) as u128)
}

impl Measure for MomentsKernel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu(&self, image: &RawImage) -> Vec<u64> {
        (0..image.channels())
            .flat_map(|c| cpu::laplacian(image.plane(c), image.height(), image.width()))
            .collect()
    }

    fn plan(&self, plan: &mut Plan, packed: BufferId, image: &RawImage) -> BufferId {
        let blocks = image.plane_len().div_ceil(BLOCK);
        let out = plan.buffer(NAME, image.channels() * blocks * 4);
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry: "moments",
            params: vec![image.height() as u32, image.width() as u32],
            pixels: None,
            pixels_rarely: false,
            later: None,
            reads: vec![(1, packed)],
            writes: vec![(2, out)],
            groups: [blocks as u32, image.channels() as u32, 1],
        });
        out
    }

    fn finish(&self, words: &[u32], image: &RawImage) -> Vec<u64> {
        let blocks = image.plane_len().div_ceil(BLOCK);
        let mut out = Vec::with_capacity(image.channels() * 2);
        for channel in words.chunks(blocks * 4) {
            let (mut sum, mut squares) = (0i64, 0u64);
            for part in channel.chunks_exact(4) {
                sum += i64::from(part[0] as i32);
                let [high, cross, low] = [part[1], part[2], part[3]].map(u64::from);
                squares += (high << 18) + (cross << 10) + low;
            }
            out.extend([sum as u64, squares]);
        }
        out
    }
}
