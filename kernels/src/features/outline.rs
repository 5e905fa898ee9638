//! Outlines: how long the edge of an object is, how many holes it has. Enters: an object. Leaves: lengths in pixels and
//! counts. Cannot fail.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI, SQRT_2};

use crate::features::object::Object;

/// Length of the inner edge of four-connected pixels: each of them counts 1, the root of 2 or their mean by how its
/// neighbours on the edge lie. Source: Benkrid, Crookes, Benkrid 2000; scikit-image `perimeter`.
pub(crate) fn perimeter(object: &Object) -> f64 {
    let wide = object.wide();
    let mask = &object.mask;
    let mut edge = vec![0u8; mask.len()];
    for (y, x) in object.pixels() {
        let at = object.place(y, x);
        edge[at] = 1 - (mask[at - 1] & mask[at + 1] & mask[at - wide] & mask[at + wide]);
    }
    let (mut straight, mut slanted, mut between) = (0u32, 0u32, 0u32);
    for (y, x) in object.pixels() {
        let at = object.place(y, x);
        if edge[at] == 0 {
            continue;
        }
        let sides = edge[at - 1] + edge[at + 1] + edge[at - wide] + edge[at + wide];
        let corners = edge[at - wide - 1] + edge[at - wide + 1] + edge[at + wide - 1] + edge[at + wide + 1];
        match 1 + 2 * sides + 10 * corners {
            5 | 7 | 15 | 17 | 25 | 27 => straight += 1,
            21 | 33 => slanted += 1,
            13 | 23 => between += 1,
            _ => {}
        }
    }
    f64::from(straight) + f64::from(slanted) * SQRT_2 + f64::from(between) * (1.0 + SQRT_2) / 2.0
}

/// Patterns of two by two pixels: entry `b` counts those whose pixels are set as the bits of `b`, 1 for the lower
/// right, 2 for the upper right, 4 for the lower left, 8 for the upper left.
pub(crate) fn quads(object: &Object) -> [u64; 16] {
    let wide = object.wide();
    let mut counts = [0u64; 16];
    for (above, below) in object
        .mask
        .chunks_exact(wide)
        .zip(object.mask[wide..].chunks_exact(wide))
    {
        for (a, b) in above.windows(2).zip(below.windows(2)) {
            counts[usize::from(b[1] | a[1] << 1 | b[0] << 2 | a[0] << 3)] += 1;
        }
    }
    counts
}

/// Crofton's estimate of the perimeter from lines in four directions. Source: Crofton 1868; scikit-image
/// `perimeter_crofton`.
pub(crate) fn crofton(quads: &[u64; 16]) -> f64 {
    let straight = FRAC_PI_4 * (1.0 + 1.0 / SQRT_2);
    let slanted = PI / (4.0 * SQRT_2);
    let weights = [
        0.0,
        straight,
        slanted,
        PI / (2.0 * SQRT_2),
        0.0,
        straight,
        0.0,
        slanted,
        FRAC_PI_4,
        FRAC_PI_2,
        slanted,
        slanted,
        FRAC_PI_4,
        FRAC_PI_2,
        0.0,
        0.0,
    ];
    quads.iter().zip(weights).map(|(&n, w)| n as f64 * w).sum()
}

/// Pieces less holes: pieces touch by edges and corners, holes by edges. Source: Gray, IEEE Trans. Computers 20 (1971)
/// 551.
pub(crate) fn euler(quads: &[u64; 16]) -> f64 {
    let one = quads[1] + quads[2] + quads[4] + quads[8];
    let three = quads[7] + quads[11] + quads[13] + quads[14];
    let diagonal = quads[6] + quads[9];
    (one as f64 - three as f64 - 2.0 * diagonal as f64) / 4.0
}

/// Area with holes filled: background that is cut off from beyond the box, touching by edges and corners (scipy
/// `binary_fill_holes` as scikit-image calls it).
pub(crate) fn filled_area(object: &Object) -> usize {
    let wide = object.wide();
    let mut seen = object.mask.clone();
    let high = seen.len() / wide;
    // The frame around the box is background in one piece.
    let mut open = vec![0usize];
    seen[0] = 1;
    let mut background = 1;
    while let Some(at) = open.pop() {
        let (y, x) = (at / wide, at % wide);
        for row in y.saturating_sub(1)..(y + 2).min(high) {
            for column in x.saturating_sub(1)..(x + 2).min(wide) {
                let other = row * wide + column;
                if seen[other] == 0 {
                    seen[other] = 1;
                    background += 1;
                    open.push(other);
                }
            }
        }
    }
    seen.len() - background
}
