//! Marker watershed. Enters: a field, a mask and markers. Leaves: a basin for every pixel of the mask that a marker
//! reaches. Cannot fail.
//!
//! Pixels are flooded from the highest down, of equals the one reached first, each into the basin it was reached from;
//! pixels touch by edges and corners. Sources: Soille and Ansoult 1990; scikit-image `watershed`, whose order of
//! flooding this is; CellProfiler IdentifyPrimaryObjects, whose connectivity this is.
//!
//! On the CPU only: the flood is an order of pixels, one after the other, and what is flooded is a few hundred pixels
//! per clump; clumps run in parallel.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The basin of each pixel, from 1 for the first marker; 0 outside the mask.
pub(crate) fn watershed(
    field: &[f32],
    mask: &[u8],
    height: usize,
    width: usize,
    markers: &[usize],
) -> Vec<u32> {
    let mut basins = vec![0u32; mask.len()];
    let mut queue = BinaryHeap::with_capacity(mask.len());
    let mut age = 0u64;
    let mut push = |queue: &mut BinaryHeap<_>, at: usize| {
        queue.push(Reverse((u64::from(depth(field[at])) << 32 | age, at)));
        age += 1;
    };
    for (number, &at) in markers.iter().enumerate() {
        basins[at] = number as u32 + 1;
        push(&mut queue, at);
    }
    while let Some(Reverse((_, at))) = queue.pop() {
        let (y, x) = (at / width, at % width);
        for row in y.saturating_sub(1)..(y + 2).min(height) {
            for column in x.saturating_sub(1)..(x + 2).min(width) {
                let other = row * width + column;
                if mask[other] != 0 && basins[other] == 0 {
                    basins[other] = basins[at];
                    push(&mut queue, other);
                }
            }
        }
    }
    basins
}

/// A number that is smaller the higher the field is.
fn depth(height: f32) -> u32 {
    let bits = height.to_bits();
    // The bits of floats in ascending order: negative ones reversed and below the positive ones.
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_reverses_the_order_of_floats() {
        let heights = [f32::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-30, 3.0, f32::INFINITY];
        assert!(
            heights
                .windows(2)
                .all(|w| depth(w[0]) > depth(w[1]) || w[0] == w[1])
        );
    }

    #[test]
    fn basins_meet_in_the_valley() {
        let field = [1.0, 3.0, 2.0, 1.0, 2.5, 4.0, 0.5];
        assert_eq!(watershed(&field, &[1; 7], 1, 7, &[5, 1]), [2, 2, 2, 1, 1, 1, 1]);
        assert_eq!(
            watershed(&field, &[1, 1, 1, 0, 1, 1, 1], 1, 7, &[1]),
            [1, 1, 1, 0, 0, 0, 0]
        );
    }
}
