//! From p-values to q-values (SCIENCE 6.4, 6.5). An undefined p (`None` or NaN) gets no q and does not count.

/// Benjamini-Hochberg: `q_(i) = min_{j ≥ i} min(1, p_(j) · m / j)`, in the order given. Holds for independent and
/// positively dependent tests.
pub fn benjamini_hochberg(p: &[Option<f64>]) -> Vec<Option<f64>> {
    step_up(p, |_| 1.0)
}

/// Benjamini-Yekutieli: the same with `m · Σ_{i ≤ m} 1/i` in place of m. Holds for any dependence.
pub fn benjamini_yekutieli(p: &[Option<f64>]) -> Vec<Option<f64>> {
    step_up(p, |m| (1..=m).map(|i| 1.0 / i as f64).sum())
}

/// Bonferroni: `min(1, m · p)`, a bound on the chance of any false call.
pub fn bonferroni(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let m = p.iter().flatten().filter(|p| !p.is_nan()).count() as f64;
    p.iter()
        .map(|p| p.filter(|p| !p.is_nan()).map(|p| (p * m).min(1.0)))
        .collect()
}

/// `factor(m)` multiplies every p.
fn step_up(p: &[Option<f64>], factor: impl Fn(usize) -> f64) -> Vec<Option<f64>> {
    let mut order: Vec<(f64, usize)> = p
        .iter()
        .enumerate()
        .filter_map(|(i, p)| p.filter(|p| !p.is_nan()).map(|p| (p, i)))
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let m = order.len() as f64 * factor(order.len());
    let mut q = vec![None; p.len()];
    let mut smallest = 1.0f64;
    for (rank, &(p, i)) in order.iter().enumerate().rev() {
        smallest = smallest.min(p * m / (rank + 1) as f64);
        q[i] = Some(smallest);
    }
    q
}

/// p-values that are counted as they pass, for Benjamini-Hochberg without holding them: empirical p-values are few
/// different ones, and equal p have equal q.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Distinct ones by size with their numbers, and after `counted` more as they come.
    p: Vec<(f64, u64)>,
    counted: usize,
}

/// The q of every p that was counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Corrected(Vec<(f64, f64)>);

/// p-values that are gathered before equal ones are put together.
const GATHERED: usize = 4096;

impl Counts {
    /// Takes a p-value.
    pub(crate) fn add(&mut self, p: f64) {
        if p.is_nan() {
            return;
        }
        self.p.push((p, 1));
        if self.p.len() >= GATHERED.max(2 * self.counted) {
            self.count();
        }
    }

    fn count(&mut self) {
        self.p.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        self.p.dedup_by(|next, kept| {
            let same = next.0.total_cmp(&kept.0).is_eq();
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        self.counted = self.p.len();
    }

    /// Benjamini-Hochberg over all of them: the numbers of [`benjamini_hochberg`].
    pub(crate) fn corrected(mut self) -> Corrected {
        self.count();
        let mut rank = self.p.iter().map(|(_, count)| count).sum::<u64>();
        let m = rank as f64;
        let mut smallest = 1.0f64;
        let mut q = Vec::with_capacity(self.p.len());
        for (p, count) in self.p.into_iter().rev() {
            smallest = smallest.min(p * m / rank as f64);
            rank -= count;
            q.push((p, smallest));
        }
        q.reverse();
        Corrected(q)
    }
}

impl Corrected {
    /// The q of a p that was counted; `None` of any other.
    pub(crate) fn q(&self, p: f64) -> Option<f64> {
        let at = self.0.binary_search_by(|(known, _)| known.total_cmp(&p)).ok()?;
        self.0.get(at).map(|(_, q)| *q)
    }
}

/// How p-values are corrected that pass group by group, such as the doses of a compound: counted as they pass, looked up
/// when they come again. The numbers are those of the functions named, to the last bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stages {
    /// [`benjamini_hochberg`] over all rows, whatever their group.
    One,
    /// [`hierarchical`].
    Two,
    /// [`copairs_hierarchical`].
    Copairs {
        /// The `stage1_q` at which groups pass.
        level: f64,
    },
}

impl Stages {
    /// Counts what the first stage corrects.
    pub(crate) fn count(self, group: &[Option<f64>], counts: &mut Counts) {
        match self {
            Self::One => group.iter().flatten().for_each(|&p| counts.add(p)),
            Self::Two | Self::Copairs { .. } => self.of_group(group).into_iter().for_each(|p| counts.add(p)),
        }
    }

    /// The q of each row of a group, with what was made of the counts of all.
    pub(crate) fn q(self, group: &[Option<f64>], corrected: &Corrected) -> Vec<Option<f64>> {
        if self == Self::One {
            return group.iter().map(|p| p.and_then(|p| corrected.q(p))).collect();
        }
        let first = self.of_group(group).and_then(|p| corrected.q(p));
        let both = |within: f64, first: f64| match self {
            Self::Copairs { level } if first > level => 1.0,
            Self::Copairs { .. } => within,
            Self::One | Self::Two => within.max(first),
        };
        let within = benjamini_hochberg(group).into_iter();
        within
            .map(|within| within.zip(first).map(|(within, first)| both(within, first)))
            .collect()
    }

    fn of_group(self, group: &[Option<f64>]) -> Option<f64> {
        let p = group.iter().copied().flatten().filter(|p| !p.is_nan());
        match self {
            Self::Copairs { .. } => p.min_by(f64::total_cmp),
            Self::One | Self::Two => of_group(p),
        }
    }
}

/// Two stages. First each group's smallest p, adjusted for the group's size (Šidák `1 − (1 − p)^m`), is corrected
/// over the groups by Benjamini-Hochberg; then p within each group. A row's q is the larger of the two, so that it
/// is significant only when its group is.
///
/// `group[i]` is the group of `p[i]`; groups are numbered from 0 without gaps.
pub fn hierarchical(p: &[Option<f64>], group: &[usize]) -> Vec<Option<f64>> {
    let members = members(p, group);
    let first: Vec<Option<f64>> = members
        .iter()
        .map(|rows| of_group(rows.iter().filter_map(|&row| p[row])))
        .collect();
    let first = benjamini_hochberg(&first);
    let mut q = vec![None; p.len()];
    for (rows, first) in members.iter().zip(first) {
        for (&row, within) in rows.iter().zip(within(p, rows)) {
            q[row] = within.zip(first).map(|(within, first)| within.max(first));
        }
    }
    q
}

/// The first stage's p of a group: its smallest, adjusted for its size. `None` of an empty group.
fn of_group(p: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut smallest, mut size) = (None, 0u32);
    for p in p.filter(|p| !p.is_nan()) {
        smallest = Some(smallest.map_or(p, |least: f64| least.min(p)));
        size += 1;
    }
    Some(1.0 - (1.0 - smallest?).powf(f64::from(size)))
}

/// What copairs' hierarchical correction says of one p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// The smallest p of its group, as it is.
    pub stage1_p: Option<f64>,
    /// That p corrected over the groups by Benjamini-Hochberg.
    pub stage1_q: Option<f64>,
    /// Whether the group goes on to the second stage.
    pub passes: bool,
    /// Benjamini-Hochberg within the group; 1 where it does not go on.
    pub q: Option<f64>,
}

/// The two stages of copairs 0.5.5 (`hierarchical_fdr.py`), for comparison with published tables: the smallest p of a
/// group is *not* adjusted for the group's size, so that large groups pass more easily. Groups pass at
/// `stage1_q <= level`. Otherwise as [`hierarchical`].
pub fn copairs_hierarchical(p: &[Option<f64>], group: &[usize], level: f64) -> Vec<Family> {
    let members = members(p, group);
    let first: Vec<Option<f64>> = members.iter().map(|rows| smallest(p, rows)).collect();
    let corrected = benjamini_hochberg(&first);
    let mut families: Vec<Family> = group
        .iter()
        .map(|&g| Family {
            stage1_p: first[g],
            stage1_q: corrected[g],
            passes: corrected[g].is_some_and(|q| q <= level),
            q: None,
        })
        .collect();
    for rows in &members {
        for (&row, within) in rows.iter().zip(within(p, rows)) {
            families[row].q = if families[row].passes { within } else { Some(1.0) };
        }
    }
    families
}

/// The rows of each group that have a p.
fn members(p: &[Option<f64>], group: &[usize]) -> Vec<Vec<usize>> {
    let groups = group.iter().max().map_or(0, |g| g + 1);
    let mut members = vec![Vec::new(); groups];
    for (i, &g) in group.iter().enumerate() {
        if p[i].is_some_and(|p| !p.is_nan()) {
            members[g].push(i);
        }
    }
    members
}

fn smallest(p: &[Option<f64>], rows: &[usize]) -> Option<f64> {
    rows.iter().filter_map(|&i| p[i]).min_by(f64::total_cmp)
}

fn within(p: &[Option<f64>], rows: &[usize]) -> Vec<Option<f64>> {
    benjamini_hochberg(&rows.iter().map(|&i| p[i]).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counted_p_values_get_the_same_q_to_the_last_bit(
            p in proptest::collection::vec(proptest::option::of(0u16..2000), 0..6000),
        ) {
            let p: Vec<Option<f64>> = p.iter().map(|p| p.map(|p| (1.0 + f64::from(p)) / 2001.0)).collect();
            let mut counts = Counts::default();
            p.iter().flatten().for_each(|p| counts.add(*p));
            let corrected = counts.corrected();
            for (p, q) in p.iter().zip(benjamini_hochberg(&p)) {
                let counted = p.and_then(|p| corrected.q(p));
                prop_assert_eq!(counted.map(f64::to_bits), q.map(f64::to_bits));
            }
            prop_assert_eq!(corrected.q(0.00001), None);
        }

        #[test]
        fn groups_that_pass_one_by_one_get_the_same_q_to_the_last_bit(
            groups in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of(0u16..300), 0..6),
                1..200,
            ),
        ) {
            let groups: Vec<Vec<Option<f64>>> = groups
                .iter()
                .map(|group| group.iter().map(|p| p.map(|p| (1.0 + f64::from(p)) / 301.0)).collect())
                .collect();
            let p: Vec<Option<f64>> = groups.iter().flatten().copied().collect();
            let of: Vec<usize> = groups
                .iter()
                .enumerate()
                .flat_map(|(number, group)| std::iter::repeat_n(number, group.len()))
                .collect();
            for (stages, expected) in [
                (Stages::One, benjamini_hochberg(&p)),
                (Stages::Two, hierarchical(&p, &of)),
                (
                    Stages::Copairs { level: 0.3 },
                    copairs_hierarchical(&p, &of, 0.3).into_iter().map(|family| family.q).collect(),
                ),
            ] {
                let mut counts = Counts::default();
                groups.iter().for_each(|group| stages.count(group, &mut counts));
                let corrected = counts.corrected();
                let q: Vec<Option<f64>> =
                    groups.iter().flat_map(|group| stages.q(group, &corrected)).collect();
                let bits = |q: &[Option<f64>]| q.iter().map(|q| q.map(f64::to_bits)).collect::<Vec<_>>();
                prop_assert_eq!(bits(&q), bits(&expected));
            }
        }
    }
}
