//! Masks: one byte per pixel, 1 for foreground. Enters: grey values and a threshold, or a mask. Leaves: a mask.

use rayon::prelude::*;

/// Rows per parallel task.
const BAND: usize = 64;

/// Pixels above `threshold`.
pub(crate) fn above(pixels: &[u16], threshold: f64) -> Vec<u8> {
    // Integers above t are those above floor(t).
    let mut mask = vec![0u8; pixels.len()];
    let limit = threshold.floor();
    if limit >= f64::from(u16::MAX) {
        return mask;
    }
    if limit < 0.0 {
        mask.fill(1);
        return mask;
    }
    let limit = limit as u16;
    mask.par_chunks_mut(1 << 16)
        .zip(pixels.par_chunks(1 << 16))
        .for_each(|(mask, pixels)| {
            for (m, &p) in mask.iter_mut().zip(pixels) {
                *m = u8::from(p > limit);
            }
        });
    mask
}

/// Opening with the cross of 3 x 3 pixels: removes what is one or two pixels wide. Beyond the border counts as
/// foreground when eroding, so that an object cut off by the border keeps its edge.
pub(crate) fn open(mask: &[u8], height: usize, width: usize) -> Vec<u8> {
    let eroded = cross(mask, height, width, 1, |a, b| a & b);
    cross(&eroded, height, width, 0, |a, b| a | b)
}

/// Joins each pixel with its four neighbours; beyond the border is `outside`.
fn cross(
    mask: &[u8],
    height: usize,
    width: usize,
    outside: u8,
    join: impl Fn(u8, u8) -> u8 + Sync,
) -> Vec<u8> {
    let mut out = vec![0u8; mask.len()];
    let beyond = vec![outside; width];
    let row = |y: usize| &mask[y * width..(y + 1) * width];
    out.par_chunks_mut(width * BAND)
        .enumerate()
        .for_each(|(band, out)| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let y = band * BAND + i;
                let here = row(y);
                let up = if y > 0 { row(y - 1) } else { &beyond };
                let down = if y + 1 < height { row(y + 1) } else { &beyond };
                for (((o, &a), &b), &c) in out.iter_mut().zip(up).zip(here).zip(down) {
                    *o = join(join(a, b), c);
                }
                let last = width - 1;
                for (o, &left) in out[1..].iter_mut().zip(here) {
                    *o = join(*o, left);
                }
                for (o, &right) in out[..last].iter_mut().zip(&here[1..]) {
                    *o = join(*o, right);
                }
                out[0] = join(out[0], outside);
                out[last] = join(out[last], outside);
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_outside_the_range() {
        assert_eq!(above(&[0, 5, 65535], -0.5), [1, 1, 1]);
        assert_eq!(above(&[0, 5, 65535], 4.9), [0, 1, 1]);
        assert_eq!(above(&[0, 5, 65535], 5.0), [0, 0, 1]);
        assert_eq!(above(&[0, 5, 65535], 65535.0), [0, 0, 0]);
    }

    #[test]
    fn opening_removes_points_and_keeps_crosses_and_edges() {
        let point = [0, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(open(&point, 3, 3), [0; 9]);
        let cross = [0, 1, 0, 1, 1, 1, 0, 1, 0];
        assert_eq!(open(&cross, 3, 3), cross);
        assert_eq!(open(&[1; 6], 2, 3), [1; 6]);
        assert_eq!(open(&[1], 1, 1), [1]);
    }
}
