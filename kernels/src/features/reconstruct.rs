//! Morphology of float images with the cross of 3 x 3 pixels and with discs. Enters: planes. Leaves: planes. Cannot
//! fail. Beyond the border there is nothing: it neither erodes nor dilates.

/// Erosion by the cross, into `out`.
pub(crate) fn erode_cross(image: &[f32], height: usize, width: usize, out: &mut [f32]) {
    let row = |y: usize| &image[y * width..(y + 1) * width];
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let here = row(y);
        let (up, down) = (row(y.saturating_sub(1)), row((y + 1).min(height - 1)));
        for (((o, a), b), c) in out.iter_mut().zip(up).zip(here).zip(down) {
            *o = a.min(*b).min(*c);
        }
        let last = width - 1;
        for (o, left) in out[1..].iter_mut().zip(here) {
            *o = o.min(*left);
        }
        for (o, right) in out[..last].iter_mut().zip(&here[1..]) {
            *o = o.min(*right);
        }
    }
}

/// Opening by the disc `dy^2 + dx^2 <= radius^2`.
pub(crate) fn open_disc(image: &[f32], height: usize, width: usize, radius: usize) -> Vec<f32> {
    let eroded = disc(image, height, width, radius, f32::INFINITY, f32::min);
    disc(&eroded, height, width, radius, f32::NEG_INFINITY, f32::max)
}

fn disc(
    image: &[f32],
    height: usize,
    width: usize,
    radius: usize,
    start: f32,
    pick: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    let mut out = vec![start; image.len()];
    for dy in 0..=radius {
        // Half the columns of the disc in this row.
        let half = ((radius * radius - dy * dy) as f64).sqrt() as usize;
        for y in 0..height {
            let line = &image[y * width..(y + 1) * width];
            let mut spread = line.to_vec();
            for dx in 1..=half.min(width - 1) {
                for (o, v) in spread[dx..].iter_mut().zip(line) {
                    *o = pick(*o, *v);
                }
                for (o, v) in spread.iter_mut().zip(&line[dx..]) {
                    *o = pick(*o, *v);
                }
            }
            let mut take = |to: usize| {
                for (o, v) in out[to * width..(to + 1) * width].iter_mut().zip(&spread) {
                    *o = pick(*o, *v);
                }
            };
            if y + dy < height {
                take(y + dy);
            }
            if dy > 0 && y >= dy {
                take(y - dy);
            }
        }
    }
    out
}

/// The bright components of a field at every level, as a tree: each pixel points to one of the component around its own,
/// at its own level or the next lower one. It is built once and then reconstructs under the field, from any marker, in
/// two passes. Source: Berger et al., Effective component tree computation, ICIP 2007; Salembier, Oliveras, Garrido, IEEE
/// Trans. Image Processing 7 (1998) 555.
pub(crate) struct ComponentTree {
    /// Pixels from the darkest to the brightest; a parent stands before its children.
    order: Vec<u32>,
    /// Parent of each pixel; the darkest is its own.
    parent: Vec<u32>,
}

impl ComponentTree {
    /// The tree of a field without NaN. Pixels touch by edges.
    pub(crate) fn of(field: &[f32], height: usize, width: usize) -> Self {
        let order = ascending(field);
        let mut parent: Vec<u32> = vec![0; field.len()];
        // The root of the part of the tree built so far; of pixels not yet met, none.
        const NONE: u32 = u32::MAX;
        let mut root = vec![NONE; field.len()];
        for &p in order.iter().rev() {
            let at = p as usize;
            (parent[at], root[at]) = (p, p);
            let (y, x) = (at / width, at % width);
            let mut join = |other: usize| {
                if root[other] == NONE {
                    return;
                }
                let top = find(&mut root, other as u32);
                if top != p {
                    (parent[top as usize], root[top as usize]) = (p, p);
                }
            };
            if x > 0 {
                join(at - 1);
            }
            if x + 1 < width {
                join(at + 1);
            }
            if y > 0 {
                join(at - width);
            }
            if y + 1 < height {
                join(at + width);
            }
        }
        // Each pixel points to the one pixel that stands for its component: the one whose own parent is darker.
        for &p in &order {
            let above = parent[p as usize];
            let next = parent[above as usize];
            if field[next as usize] == field[above as usize] {
                parent[p as usize] = next;
            }
        }
        Self { order, parent }
    }

    /// Reconstruction by dilation with the cross: `marker`, which lies at or below `field`, grows under `field` until
    /// nothing changes; in place. `field` is that of the tree. A pixel takes the highest level at which its component
    /// holds a marker as high (Vincent, IEEE Trans. Image Processing 2 (1993) 176).
    pub(crate) fn reconstruct(&self, field: &[f32], marker: &mut [f32]) {
        // The largest marker of each component, outwards from the brightest.
        for &p in self.order.iter().rev() {
            let above = self.parent[p as usize] as usize;
            marker[above] = marker[above].max(marker[p as usize]);
        }
        for &p in &self.order {
            let (at, above) = (p as usize, self.parent[p as usize] as usize);
            marker[at] = if at == above {
                marker[at].min(field[at])
            } else if field[at] == field[above] {
                marker[above]
            } else {
                marker[at].min(field[at]).max(marker[above])
            };
        }
    }
}

/// Pixels from the darkest to the brightest; of equals, the first first.
fn ascending(field: &[f32]) -> Vec<u32> {
    let key = |v: f32| {
        let bits = v.to_bits();
        // The bits of floats in ascending order: negative ones reversed and below the positive ones.
        if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
    };
    let mut keys: Vec<u64> = field
        .iter()
        .enumerate()
        .map(|(at, &v)| u64::from(key(v)) << 32 | at as u64)
        .collect();
    keys.sort_unstable();
    keys.into_iter().map(|k| k as u32).collect()
}

fn find(root: &mut [u32], mut at: u32) -> u32 {
    while root[at as usize] != at {
        // Path halving.
        let next = root[root[at as usize] as usize];
        root[at as usize] = next;
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The definition: dilate under the mask until nothing changes.
        #[test]
        fn reconstruction_equals_repeated_dilation((h, w, pairs) in (1usize..9, 1usize..9)
            .prop_flat_map(|(h, w)| (Just(h), Just(w), prop::collection::vec((0u8..9, 0u8..9), h * w)))) {
            let mask: Vec<f32> = pairs.iter().map(|p| f32::from(p.0)).collect();
            let marker: Vec<f32> = pairs.iter().map(|p| f32::from(p.0.min(p.1))).collect();
            let mut ours = marker.clone();
            ComponentTree::of(&mask, h, w).reconstruct(&mask, &mut ours);
            let mut slow = marker;
            loop {
                let before = slow.clone();
                for at in 0..h * w {
                    let (y, x) = (at / w, at % w);
                    for (other, v) in before.iter().enumerate() {
                        if (other / w).abs_diff(y) + (other % w).abs_diff(x) == 1 {
                            slow[at] = slow[at].max(*v).min(mask[at]);
                        }
                    }
                }
                if slow == before {
                    break;
                }
            }
            prop_assert_eq!(ours, slow);
        }

        /// The definition: the least value under the disc, then the largest.
        #[test]
        fn opening_equals_the_definition((h, w, values) in (1usize..9, 1usize..9)
            .prop_flat_map(|(h, w)| (Just(h), Just(w), prop::collection::vec(0u8..99, h * w))), radius in 0usize..4) {
            let image: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
            let slow = |image: &[f32], pick: fn(f32, f32) -> f32| -> Vec<f32> {
                (0..h * w).map(|at| {
                    (0..h * w).filter(|other| {
                        let (dy, dx) = ((other / w).abs_diff(at / w), (other % w).abs_diff(at % w));
                        dy * dy + dx * dx <= radius * radius
                    }).map(|other| image[other]).reduce(pick).unwrap()
                }).collect()
            };
            prop_assert_eq!(open_disc(&image, h, w, radius), slow(&slow(&image, f32::min), f32::max));
            if radius == 1 {
                let mut cross = vec![0.0; h * w];
                erode_cross(&image, h, w, &mut cross);
                prop_assert_eq!(cross, slow(&image, f32::min));
            }
        }
    }
}
