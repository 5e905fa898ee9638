//! From p-values to q-values (SCIENCE 6.4, 6.5). An undefined p (`None` or NaN) gets no q and does not count.

/// Benjamini-Hochberg: `q_(i) = min_{j ≥ i} min(1, p_(j) · m / j)`, in the order given.
pub fn benjamini_hochberg(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(f64, usize)> = p
        .iter()
        .enumerate()
        .filter_map(|(i, p)| p.filter(|p| !p.is_nan()).map(|p| (p, i)))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let m = order.len() as f64;
    let mut q = vec![None; p.len()];
    let mut smallest = 1.0f64;
    for (rank, &(p, i)) in order.iter().enumerate().rev() {
        smallest = smallest.min(p * m / (rank + 1) as f64);
        q[i] = Some(smallest);
    }
    q
}

/// Two stages. First each group's smallest p, adjusted for the group's size (Šidák `1 − (1 − p)^m`), is corrected
/// over the groups by Benjamini-Hochberg; then p within each group. A row's q is the larger of the two, so that it
/// is significant only when its group is.
///
/// `group[i]` is the group of `p[i]`; groups are numbered from 0 without gaps.
pub fn hierarchical(p: &[Option<f64>], group: &[usize]) -> Vec<Option<f64>> {
    let groups = group.iter().max().map_or(0, |g| g + 1);
    let mut members = vec![Vec::new(); groups];
    for (i, &g) in group.iter().enumerate() {
        if p[i].is_some_and(|p| !p.is_nan()) {
            members[g].push(i);
        }
    }
    let first: Vec<Option<f64>> = members
        .iter()
        .map(|rows| {
            let smallest = rows.iter().filter_map(|&i| p[i]).min_by(f64::total_cmp)?;
            Some(1.0 - (1.0 - smallest).powf(rows.len() as f64))
        })
        .collect();
    let first = benjamini_hochberg(&first);
    let mut q = vec![None; p.len()];
    for (rows, first) in members.iter().zip(first) {
        let within = benjamini_hochberg(&rows.iter().map(|&i| p[i]).collect::<Vec<_>>());
        for (&row, within) in rows.iter().zip(within) {
            q[row] = within.zip(first).map(|(within, first)| within.max(first));
        }
    }
    q
}
