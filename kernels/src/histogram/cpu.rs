//! CPU form of `histogram`: four sub-histograms, so that equal neighbours do not wait for each other's store.

/// Counts of each value up to the largest present.
pub(super) fn count(pixels: &[u16]) -> Vec<u32> {
    let bins = usize::from(pixels.iter().copied().max().unwrap_or(0)) + 1;
    let mut counts = vec![0u32; bins * 4];
    let (a, rest) = counts.split_at_mut(bins);
    let (b, rest) = rest.split_at_mut(bins);
    let (c, d) = rest.split_at_mut(bins);
    let mut quads = pixels.chunks_exact(4);
    for q in &mut quads {
        a[usize::from(q[0])] += 1;
        b[usize::from(q[1])] += 1;
        c[usize::from(q[2])] += 1;
        d[usize::from(q[3])] += 1;
    }
    for &p in quads.remainder() {
        a[usize::from(p)] += 1;
    }
    for i in 0..bins {
        a[i] += b[i] + c[i] + d[i];
    }
    counts.truncate(bins);
    counts
}
