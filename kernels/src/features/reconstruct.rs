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

/// Reconstruction by dilation with the cross: `marker`, which lies at or below `mask`, grows under `mask` until nothing
/// changes; in place. Source: Vincent, IEEE Trans. Image Processing 2 (1993) 176, the hybrid of sweeps and a queue.
pub(crate) fn reconstruct(marker: &mut [f32], mask: &[f32], height: usize, width: usize) {
    for y in 0..height {
        let (above, here) = marker.split_at_mut(y * width);
        let here = &mut here[..width];
        if y > 0 {
            for (m, a) in here.iter_mut().zip(&above[(y - 1) * width..]) {
                *m = m.max(*a);
            }
        }
        let mut left = f32::NEG_INFINITY;
        for (m, limit) in here.iter_mut().zip(&mask[y * width..]) {
            left = m.max(left).min(*limit);
            *m = left;
        }
    }
    let mut queue = Vec::new();
    for y in (0..height).rev() {
        let (here, below) = marker.split_at_mut((y + 1) * width);
        let here = &mut here[y * width..];
        let limits = &mask[y * width..(y + 1) * width];
        if y + 1 < height {
            for (m, b) in here.iter_mut().zip(&*below) {
                *m = m.max(*b);
            }
        }
        let mut right = f32::NEG_INFINITY;
        for x in (0..width).rev() {
            right = here[x].max(right).min(limits[x]);
            here[x] = right;
        }
        // What can still grow to the right or down was swept before its neighbour rose.
        for x in 0..width {
            let v = here[x];
            let grows = |other: f32, limit: f32| other < v && other < limit;
            if (x + 1 < width && grows(here[x + 1], limits[x + 1]))
                || (y + 1 < height && grows(below[x], mask[(y + 1) * width + x]))
            {
                queue.push(y * width + x);
            }
        }
    }
    while let Some(at) = queue.pop() {
        let (y, x, v) = (at / width, at % width, marker[at]);
        let mut grow = |other: usize| {
            if marker[other] < v && marker[other] < mask[other] {
                marker[other] = v.min(mask[other]);
                queue.push(other);
            }
        };
        if x > 0 {
            grow(at - 1);
        }
        if x + 1 < width {
            grow(at + 1);
        }
        if y > 0 {
            grow(at - width);
        }
        if y + 1 < height {
            grow(at + width);
        }
    }
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
            reconstruct(&mut ours, &mask, h, w);
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
