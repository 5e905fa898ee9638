//! Exact Euclidean distance to the background. Enters: a mask. Leaves: the square of the distance from each foreground
//! pixel to the nearest background pixel, in whole pixels squared. Cannot fail.
//!
//! Source: Meijster, Roerdink, Hesselink, A general algorithm for computing distance transforms in linear time (2000):
//! distances along columns, then the lower envelope of parabolas along rows. No parabola from beyond the background
//! pixels that bound a run reaches into it, so each run of foreground is a problem of its own.

/// Room for [`squared`], kept from one object to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Distance to the background along the column, per pixel.
    columns: Vec<i64>,
    /// The parabola that is lowest from `from` on.
    lowest: Vec<(usize, usize)>,
}

/// Squares of distances, into `out`. Beyond the image there is nothing, unless no pixel is background: then beyond the
/// image is.
pub(crate) fn squared(mask: &[u8], height: usize, width: usize, scratch: &mut Scratch, out: &mut Vec<u32>) {
    out.clear();
    out.resize(mask.len(), 0);
    if !mask.contains(&0) {
        beyond_the_border(height, width, out);
        return;
    }
    // Farther than any pixel of the image.
    let far = (height + width) as i64;
    let columns = &mut scratch.columns;
    columns.clear();
    columns.resize(mask.len(), 0);
    for (x, &m) in mask[..width].iter().enumerate() {
        columns[x] = i64::from(m) * far;
    }
    for y in 1..height {
        let (above, here) = columns.split_at_mut(y * width);
        let above = &above[(y - 1) * width..];
        for ((c, a), &m) in here.iter_mut().zip(above).zip(&mask[y * width..(y + 1) * width]) {
            *c = i64::from(m) * (a + 1).min(far);
        }
    }
    for y in (0..height - 1).rev() {
        let (here, below) = columns.split_at_mut((y + 1) * width);
        for (c, b) in here[y * width..].iter_mut().zip(below) {
            *c = (*c).min(*b + 1);
        }
    }
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let here = y * width..(y + 1) * width;
        let (mask, columns) = (&mask[here.clone()], &columns[here]);
        let mut x = 0;
        while let Some(skip) = mask[x..].iter().position(|&m| m != 0) {
            let left = x + skip;
            x = left + mask[left..].iter().take_while(|&&m| m != 0).count();
            // With the background pixels on both sides, where there are any.
            let (from, to) = (left.saturating_sub(1), (x + 1).min(width));
            envelope(&columns[from..to], &mut scratch.lowest, &mut out[from..to]);
        }
    }
}

/// `out[x] = min over i of (x - i)^2 + g[i]^2`.
fn envelope(g: &[i64], lowest: &mut Vec<(usize, usize)>, out: &mut [u32]) {
    let height = |x: usize, i: usize| {
        let d = x as i64 - i as i64;
        d * d + g[i] * g[i]
    };
    lowest.clear();
    lowest.push((0, 0));
    for u in 1..g.len() {
        while lowest
            .last()
            .is_some_and(|&(from, i)| height(from, i) > height(from, u))
        {
            lowest.pop();
        }
        match lowest.last() {
            None => lowest.push((0, u)),
            Some(&(_, i)) => {
                // The first place where u is lower than i; squares may differ by less than their distance.
                let (a, b) = (i as i64, u as i64);
                let meet = (b * b - a * a + g[u] * g[u] - g[i] * g[i]).div_euclid(2 * (b - a)) + 1;
                if (meet as usize) < g.len() {
                    lowest.push((meet as usize, u));
                }
            }
        }
    }
    let mut parabolas = lowest.iter().rev().peekable();
    for (x, out) in out.iter_mut().enumerate().rev() {
        while let Some(&&(from, i)) = parabolas.peek() {
            if from <= x {
                *out = height(x, i).min(i64::from(u32::MAX)) as u32;
                break;
            }
            parabolas.next();
        }
    }
}

/// Distances of an image of foreground alone to the first pixel beyond its border.
fn beyond_the_border(height: usize, width: usize, out: &mut [u32]) {
    for (y, row) in out.chunks_exact_mut(width).enumerate() {
        for (x, out) in row.iter_mut().enumerate() {
            let d = (y + 1).min(height - y).min(x + 1).min(width - x) as u64;
            *out = (d * d).min(u64::from(u32::MAX)) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The definition, pixel by pixel.
        #[test]
        fn equals_the_definition((h, w, mask) in (1usize..14, 1usize..14)
            .prop_flat_map(|(h, w)| (Just(h), Just(w), prop::collection::vec(0u8..=8, h * w)))) {
            let mask: Vec<u8> = mask.iter().map(|&v| u8::from(v > 1)).collect();
            prop_assume!(mask.contains(&0));
            let mut out = Vec::new();
            squared(&mask, h, w, &mut Scratch::default(), &mut out);
            for (at, &got) in out.iter().enumerate() {
                let (y, x) = ((at / w) as i64, (at % w) as i64);
                let nearest = mask.iter().enumerate().filter(|(_, m)| **m == 0).map(|(i, _)| {
                    let (dy, dx) = ((i / w) as i64 - y, (i % w) as i64 - x);
                    dy * dy + dx * dx
                }).min().unwrap_or(0);
                prop_assert_eq!(i64::from(got), nearest, "pixel {}", at);
            }
        }
    }

    #[test]
    fn foreground_alone_is_measured_to_the_border() {
        let mut out = Vec::new();
        squared(&[1; 15], 3, 5, &mut Scratch::default(), &mut out);
        assert_eq!(out, [1, 1, 1, 1, 1, 1, 4, 4, 4, 1, 1, 1, 1, 1, 1]);
    }
}
