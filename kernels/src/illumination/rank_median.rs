//! Median of a disk, for whole grey levels: a histogram slides along each row, losing the left edge of the disk and
//! gaining the right one. Values are replaced by their rank among the distinct ones, so that the histogram is small; the
//! median moves by a few ranks from pixel to pixel, so it is followed, not searched.
//! Source: Huang, Yang and Tang, IEEE Trans. ASSP 27 (1979) 13.

use rayon::prelude::*;

/// Columns between medians whose counting is made fastest: the step of the usual reduction.
const STEP: usize = 4;

/// One count for every rank that a pixel can have: then none is out of bounds.
const BINS: usize = 1 << 16;

/// The median of the disk `dy^2 + dx^2 <= radius^2` around each pixel, clipped at the border: of n values the one of rank
/// `floor(n / 2)`, as scikit-image's `rank.median`. `plane` has `height * width` values; another length gives nothing.
pub fn rank_median(plane: &[u16], [height, width]: [usize; 2], radius: usize) -> Vec<u16> {
    let all = [height, width].map(|length| (0..length).collect());
    rank_median_at(plane, [height, width], radius, &all)
}

/// The medians at some rows and columns, both ascending.
pub(super) fn rank_median_at(
    plane: &[u16],
    [height, width]: [usize; 2],
    radius: usize,
    [rows, columns]: &[Vec<usize>; 2],
) -> Vec<u16> {
    if plane.len() != height * width || plane.is_empty() {
        return Vec::new();
    }
    let mut levels = plane.to_vec();
    levels.sort_unstable();
    levels.dedup();
    let mut rank_of = vec![0u16; usize::from(levels[levels.len() - 1]) + 1];
    for (rank, level) in levels.iter().enumerate() {
        rank_of[usize::from(*level)] = rank as u16;
    }
    let ranks: Vec<u16> = plane.iter().map(|v| rank_of[usize::from(*v)]).collect();
    let mut out = vec![0; rows.len() * columns.len()];
    out.par_chunks_mut(columns.len()).zip(rows).for_each_init(
        || Box::new([0; BINS]),
        |counts, (out, &y)| {
            counts[..levels.len()].fill(0);
            let chords: Vec<(usize, usize)> = (y.saturating_sub(radius)..(y + radius + 1).min(height))
                .map(|row| (row, (radius * radius - row.abs_diff(y).pow(2)).isqrt()))
                .collect();
            let mut window = Window {
                counts,
                below: 0,
                total: 0,
                median: 0,
            };
            for &(row, half) in &chords {
                window.add(&ranks[row * width..][..half.min(width)]);
            }
            // Away from the borders, and with the usual step from column to column, each chord gains as many ranks as it
            // loses: where these begin, if the window moved from column `radius` on.
            let ends: Vec<[usize; 2]> = chords
                .iter()
                .map(|(row, half)| [row * width + radius + 1 + half, row * width + radius - half])
                .collect();
            // The window was that of column `done - 1`, without what lies on its left.
            let mut done = 0;
            for (out, &x) in out.iter_mut().zip(columns) {
                if done > radius && x + 1 - done == STEP && x + radius < width {
                    window.step(&ranks, &ends, done - 1 - radius);
                } else {
                    for &(row, half) in &chords {
                        let line = &ranks[row * width..(row + 1) * width];
                        let gained = (done + half).min(width)..(x + half + 1).min(width);
                        let lost = done.saturating_sub(half + 1)..x.saturating_sub(half);
                        window.add(&line[gained]);
                        window.remove(&line[lost]);
                    }
                }
                done = x + 1;
                *out = levels[window.follow()];
            }
        },
    );
    out
}

/// Counts of the ranks inside the disk; `below` of them lie below `median`.
struct Window<'a> {
    counts: &'a mut [u32; BINS],
    below: u32,
    total: u32,
    median: u16,
}

impl Window<'_> {
    #[inline(always)]
    fn add(&mut self, ranks: &[u16]) {
        for rank in ranks {
            self.counts[usize::from(*rank)] += 1;
            self.below += u32::from(*rank < self.median);
        }
        self.total += ranks.len() as u32;
    }

    #[inline(always)]
    fn remove(&mut self, ranks: &[u16]) {
        for rank in ranks {
            self.counts[usize::from(*rank)] -= 1;
            self.below -= u32::from(*rank < self.median);
        }
        self.total -= ranks.len() as u32;
    }

    /// Moves all chords by `STEP` columns: they gain and lose the ranks that begin at `ends`, moved by `by`.
    #[inline(always)]
    fn step(&mut self, ranks: &[u16], ends: &[[usize; 2]], by: usize) {
        let mut below = [0i32; STEP];
        for [gained, lost] in ends {
            let (Some(gained), Some(lost)) = (
                ranks[gained + by..].first_chunk::<STEP>(),
                ranks[lost + by..].first_chunk::<STEP>(),
            ) else {
                continue;
            };
            for rank in gained {
                self.counts[usize::from(*rank)] += 1;
            }
            for rank in lost {
                self.counts[usize::from(*rank)] -= 1;
            }
            // Comparisons beside each other become one of vectors.
            for ((below, gained), lost) in below.iter_mut().zip(gained).zip(lost) {
                *below += i32::from(*gained < self.median) - i32::from(*lost < self.median);
            }
        }
        self.below = self.below.wrapping_add_signed(below.iter().sum());
    }

    /// Moves the median to rank `total / 2`.
    fn follow(&mut self) -> usize {
        let wanted = self.total / 2;
        while self.below > wanted {
            self.median -= 1;
            self.below -= self.counts[usize::from(self.median)];
        }
        while self.below + self.counts[usize::from(self.median)] <= wanted {
            self.below += self.counts[usize::from(self.median)];
            self.median += 1;
        }
        usize::from(self.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_sorting_every_disk() {
        let mut state = 5u64;
        for (height, width, radius, top) in [
            (1, 1, 3, 9),
            (1, 19, 2, 500),
            (17, 1, 4, 65535),
            (23, 31, 5, 40),
            (9, 8, 20, 65535),
        ] {
            let plane: Vec<u16> = (0..height * width)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as u16 % top
                })
                .collect();
            let found = rank_median(&plane, [height, width], radius);
            for y in 0..height {
                for x in 0..width {
                    let mut disk: Vec<u16> = (0..height * width)
                        .filter(|i| {
                            (i / width).abs_diff(y).pow(2) + (i % width).abs_diff(x).pow(2) <= radius * radius
                        })
                        .map(|i| plane[i])
                        .collect();
                    disk.sort_unstable();
                    assert_eq!(
                        found[y * width + x],
                        disk[disk.len() / 2],
                        "{height}x{width} r {radius} at {y} {x}"
                    );
                }
            }
        }
        assert!(rank_median(&[1, 2], [1, 3], 1).is_empty());
    }
}
