//! Connected components of a mask, by runs of pixels. Enters: a mask. Leaves: its runs, row after row, and the component
//! of each; components are numbered in the order of their first pixels. Cannot fail.
//!
//! On the CPU only: labelling is a union of a few ten thousand runs, which takes less time than one pass of a parallel
//! label propagation needs to read the image, and such passes must be repeated until nothing changes.
//! Source: He, Chao, Suzuki, IEEE Trans. Image Processing 17 (2008) 749 (run-based labelling).

/// Pixels `left..right` of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) row: u32,
    pub(crate) left: u32,
    pub(crate) right: u32,
}

/// Which pixels touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connectivity {
    /// Those with a common edge.
    Four,
    /// Those with a common edge or corner.
    Eight,
}

/// Runs of a mask and their components.
pub(crate) struct Components {
    pub(crate) runs: Vec<Run>,
    /// Component of each run, from 0.
    pub(crate) component: Vec<u32>,
    pub(crate) count: usize,
}

/// Components of the pixels equal to `value` (0 or 1).
pub(crate) fn components(mask: &[u8], width: usize, value: u8, connectivity: Connectivity) -> Components {
    let reach = u32::from(connectivity == Connectivity::Eight);
    let mut runs: Vec<Run> = Vec::new();
    let mut parent: Vec<u32> = Vec::new();
    let mut above = 0..0;
    for (y, row) in mask.chunks_exact(width).enumerate() {
        let start = runs.len();
        let mut x = 0;
        let mut other = above.start;
        loop {
            let left = find(row, x, value);
            if left == width {
                break;
            }
            x = find(row, left, value ^ 1);
            let run = Run {
                row: y as u32,
                left: left as u32,
                right: x as u32,
            };
            let number = runs.len() as u32;
            runs.push(run);
            parent.push(number);
            // Runs above that end before this one begins touch no later run either.
            while other < above.end && runs[other].right + reach <= run.left {
                other += 1;
            }
            let mut touching = other;
            while touching < above.end && runs[touching].left < run.right + reach {
                union(&mut parent, number, touching as u32);
                touching += 1;
            }
        }
        above = start..runs.len();
    }
    let mut count = 0;
    let mut component = vec![0u32; runs.len()];
    // A root is the first run of its component, so it is numbered before the others.
    for run in 0..runs.len() {
        let root = root(&mut parent, run as u32) as usize;
        if root == run {
            component[run] = count;
            count += 1;
        } else {
            component[run] = component[root];
        }
    }
    Components {
        runs,
        component,
        count: count as usize,
    }
}

impl Components {
    /// The runs of each component: `runs_of(order, offsets, c)` are the numbers `order[offsets[c]..offsets[c + 1]]`,
    /// ascending.
    pub(crate) fn grouped(&self) -> (Vec<u32>, Vec<usize>) {
        let mut offsets = vec![0usize; self.count + 1];
        for &c in &self.component {
            offsets[c as usize + 1] += 1;
        }
        for c in 0..self.count {
            offsets[c + 1] += offsets[c];
        }
        let mut next = offsets.clone();
        let mut order = vec![0u32; self.runs.len()];
        for (run, &c) in self.component.iter().enumerate() {
            order[next[c as usize]] = run as u32;
            next[c as usize] += 1;
        }
        (order, offsets)
    }
}

/// Fills holes: background that does not touch the border of the image, connected by edges.
pub(crate) fn fill_holes(mask: &mut [u8], width: usize) {
    let height = mask.len() / width;
    let background = components(mask, width, 0, Connectivity::Four);
    let mut open = vec![false; background.count];
    for (run, &c) in background.runs.iter().zip(&background.component) {
        let at_border =
            run.row == 0 || run.row as usize + 1 == height || run.left == 0 || run.right as usize == width;
        open[c as usize] |= at_border;
    }
    for (run, &c) in background.runs.iter().zip(&background.component) {
        if !open[c as usize] {
            let start = run.row as usize * width;
            mask[start + run.left as usize..start + run.right as usize].fill(1);
        }
    }
}

/// The first place from `from` on that holds `value`, or the end of the row. Eight pixels at a time.
fn find(row: &[u8], from: usize, value: u8) -> usize {
    let other = [value ^ 1; 8];
    let mut chunks = row[from..].chunks_exact(8);
    let mut at = from;
    for chunk in &mut chunks {
        if chunk != other {
            break;
        }
        at += 8;
    }
    row[at..]
        .iter()
        .position(|&v| v == value)
        .map_or(row.len(), |skip| at + skip)
}

fn root(parent: &mut [u32], mut run: u32) -> u32 {
    while parent[run as usize] != run {
        // Path halving.
        let next = parent[parent[run as usize] as usize];
        parent[run as usize] = next;
        run = next;
    }
    run
}

/// The smaller root becomes the root of both.
fn union(parent: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b) as usize] = a.min(b);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(mask: &[u8], width: usize, connectivity: Connectivity) -> Vec<u32> {
        let all = components(mask, width, 1, connectivity);
        let mut out = vec![0; mask.len()];
        for (run, c) in all.runs.iter().zip(&all.component) {
            let start = run.row as usize * width;
            out[start + run.left as usize..start + run.right as usize].fill(c + 1);
        }
        out
    }

    #[test]
    fn corners_join_by_eight_only() {
        let mask = [1, 0, 0, 1, 0, 1, 1, 0];
        assert_eq!(labels(&mask, 4, Connectivity::Four), [1, 0, 0, 2, 0, 3, 3, 0]);
        assert_eq!(labels(&mask, 4, Connectivity::Eight), [1, 0, 0, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn a_comb_is_one() {
        #[rustfmt::skip]
        let mask = [
            1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1,
            1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1,
        ];
        let out = labels(&mask, 12, Connectivity::Four);
        assert_eq!((out[0], out[2], out[4], out[11], out[35]), (1, 1, 1, 2, 3));
    }

    #[test]
    fn holes_are_filled_unless_open_to_the_border() {
        #[rustfmt::skip]
        let mut mask = [
            0, 1, 1, 1, 1, 0,
            0, 1, 0, 1, 0, 1,
            0, 1, 1, 1, 1, 1,
            0, 0, 0, 1, 0, 0,
        ];
        fill_holes(&mut mask, 6);
        // The gap at the top right is closed by a corner, which edges do not pass.
        assert_eq!(mask[8], 1);
        assert_eq!(mask[10], 1);
        assert_eq!((mask[0], mask[5], mask[22]), (0, 0, 0));
    }
}
