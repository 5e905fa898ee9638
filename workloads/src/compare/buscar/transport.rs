//! Exact optimal transport between two sets of points of equal weight. Points enter, the squared 2-Wasserstein distance
//! leaves (what `ot.emd2` over `ot.dist` gives). Nothing fails; an empty side gives 0.
//!
//! The transport problem is solved by shortest augmenting paths over the dense matrix of costs, with prices that keep
//! every reduced cost at least 0 (Edmonds and Karp 1972; Ahuja, Magnanti and Orlin 1993, 9.7). Weights are whole numbers,
//! so the end is exact.

/// Mean squared distance of the best plan that moves `from` onto `to`; rows of one width.
pub fn squared_wasserstein(from: &[Vec<f64>], to: &[Vec<f64>]) -> f64 {
    let (n, m) = (from.len(), to.len());
    if n == 0 || m == 0 {
        return 0.0;
    }
    let mut cost = Vec::with_capacity(n * m);
    for a in from {
        cost.extend(to.iter().map(|b| squared_distance(a, b)));
    }
    let shared = greatest_common_divisor(n, m);
    let mut plan = Plan::new(&cost, n, m, (m / shared, n / shared));
    plan.solve();
    let units = (n * (m / shared)) as f64;
    plan.flow
        .iter()
        .zip(&cost)
        .map(|(&flow, cost)| f64::from(flow) * cost)
        .sum::<f64>()
        / units
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn greatest_common_divisor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

struct Plan<'a> {
    cost: &'a [f64],
    n: usize,
    m: usize,
    /// Units that each source still has, and that each sink still takes.
    supply: Vec<u32>,
    demand: Vec<u32>,
    /// Units from source i to sink j at `i * m + j`.
    flow: Vec<u32>,
    /// `cost + source_price − sink_price` is at least 0 everywhere, and 0 where there is flow.
    source_price: Vec<f64>,
    sink_price: Vec<f64>,
}

/// The shortest paths from the sources with supply.
struct Search {
    source_distance: Vec<f64>,
    sink_distance: Vec<f64>,
    /// Sink before a source on its path; `None` at a path's beginning.
    before_source: Vec<Option<usize>>,
    before_sink: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new(cost: &'a [f64], n: usize, m: usize, (supply, demand): (usize, usize)) -> Self {
        let whole = |units: usize| u32::try_from(units).unwrap_or(u32::MAX);
        Self {
            cost,
            n,
            m,
            supply: vec![whole(supply); n],
            demand: vec![whole(demand); m],
            flow: vec![0; n * m],
            source_price: vec![0.0; n],
            sink_price: vec![0.0; m],
        }
    }

    fn reduced(&self, source: usize, sink: usize) -> f64 {
        (self.cost[source * self.m + sink] + self.source_price[source] - self.sink_price[sink]).max(0.0)
    }

    fn solve(&mut self) {
        for source in 0..self.n {
            while self.supply[source] > 0 {
                let Some((sink, search)) = self.shortest_path(source) else {
                    return;
                };
                self.reprice(&search, search.sink_distance[sink]);
                self.push(source, sink, &search);
            }
        }
    }

    /// Dijkstra's search from a source to the nearest sink with demand; distances beyond it are not final.
    fn shortest_path(&self, start: usize) -> Option<(usize, Search)> {
        let mut search = Search {
            source_distance: vec![f64::INFINITY; self.n],
            sink_distance: vec![f64::INFINITY; self.m],
            before_source: vec![None; self.n],
            before_sink: vec![start; self.m],
        };
        let mut done = vec![false; self.m];
        search.source_distance[start] = 0.0;
        let mut frontier = vec![start];
        loop {
            for source in frontier.drain(..) {
                let so_far = search.source_distance[source];
                for (sink, _) in done.iter().enumerate().filter(|(_, done)| !**done) {
                    let distance = so_far + self.reduced(source, sink);
                    if distance < search.sink_distance[sink] {
                        search.sink_distance[sink] = distance;
                        search.before_sink[sink] = source;
                    }
                }
            }
            let nearest = (0..self.m)
                .filter(|&sink| !done[sink])
                .min_by(|&a, &b| search.sink_distance[a].total_cmp(&search.sink_distance[b]))?;
            if self.demand[nearest] > 0 {
                return Some((nearest, search));
            }
            done[nearest] = true;
            // Back along flow, whose reduced cost is 0.
            for source in 0..self.n {
                if self.flow[source * self.m + nearest] > 0 && search.source_distance[source].is_infinite() {
                    search.source_distance[source] = search.sink_distance[nearest];
                    search.before_source[source] = Some(nearest);
                    frontier.push(source);
                }
            }
        }
    }

    fn reprice(&mut self, search: &Search, length: f64) {
        for (price, distance) in self.source_price.iter_mut().zip(&search.source_distance) {
            *price += distance.min(length);
        }
        for (price, distance) in self.sink_price.iter_mut().zip(&search.sink_distance) {
            *price += distance.min(length);
        }
    }

    /// Moves as many units along the path as it carries.
    fn push(&mut self, start: usize, end: usize, search: &Search) {
        let mut units = self.supply[start].min(self.demand[end]);
        let mut sink = end;
        while let Some(before) = search.before_source[search.before_sink[sink]] {
            units = units.min(self.flow[search.before_sink[sink] * self.m + before]);
            sink = before;
        }
        let mut sink = end;
        loop {
            let source = search.before_sink[sink];
            self.flow[source * self.m + sink] += units;
            let Some(before) = search.before_source[source] else {
                break;
            };
            self.flow[source * self.m + before] -= units;
            sink = before;
        }
        self.supply[start] -= units;
        self.demand[end] -= units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|&v| vec![v]).collect()
    }

    /// On a line the best plan keeps the order: every point is repeated until both sides have as many, then sorted.
    fn on_a_line(a: &[f64], b: &[f64]) -> f64 {
        let spread = |values: &[f64], times: usize| {
            let mut all: Vec<f64> = values
                .iter()
                .flat_map(|&v| std::iter::repeat_n(v, times))
                .collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (x, y) = (spread(a, b.len()), spread(b, a.len()));
        x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / x.len() as f64
    }

    #[test]
    fn plans_on_a_line_keep_the_order() {
        let value = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) % 1000) / 100.0;
        for (n, m) in [(1, 1), (1, 5), (4, 6), (7, 7), (12, 48), (31, 17)] {
            let a: Vec<f64> = (0..n).map(|i| value(i + 1)).collect();
            let b: Vec<f64> = (0..m).map(|i| value(i + 1000) + 2.0).collect();
            let (ours, expected) = (squared_wasserstein(&line(&a), &line(&b)), on_a_line(&a, &b));
            assert!(
                (ours - expected).abs() < 1e-9 * (1.0 + expected),
                "{n} {m}: {ours} {expected}"
            );
        }
        assert_eq!(squared_wasserstein(&[], &line(&[1.0])), 0.0);
    }
}
