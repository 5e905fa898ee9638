//! Relations: against reference outputs in `../shared/oracles`, and on perturbations whose relations are known.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests outside test functions: a failure there is a failed test"
)]

#[path = "common/oracles.rs"]
mod files;

use wellspring_workloads::relate::clusters::kolmogorov_smirnov;
use wellspring_workloads::relate::ranks::{pair_cosines, ranks};
use wellspring_workloads::relate::recall::DEFAULT_THRESHOLDS;
use wellspring_workloads::relate::{
    Clusters, Pairs, PerturbationMeans, Perturbations, RelateError, Relations, clusters, neighbours, recall,
    recall_at_k,
};

/// The perturbation means of the oracle screen, in `f32`.
fn oracle_perturbations() -> Option<Perturbations> {
    let (rows, means) = (
        files::table("agg_pert_rows.csv")?,
        files::matrix("agg_pert_mean.npy")?,
    );
    let mut sums = PerturbationMeans::new();
    for (row, mean) in rows.iter().zip(&means) {
        let values: Vec<f32> = mean.iter().map(|&value| value as f32).collect();
        sums.push(&row["group"], "P1", &values).unwrap();
    }
    Some(sums.finish())
}

#[test]
fn cosines_equal_agg_pert_cosine() {
    let (Some(perturbations), Some(rows), Some(expected)) = (
        oracle_perturbations(),
        files::table("agg_pert_rows.csv"),
        files::matrix("agg_pert_cosine.npy"),
    ) else {
        return;
    };
    let place: Vec<usize> = rows
        .iter()
        .map(|row| perturbations.find(&row["group"]).unwrap())
        .collect();
    let n = rows.len();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).collect();
    let placed: Vec<(usize, usize)> = pairs.iter().map(|&(i, j)| (place[i], place[j])).collect();
    for (cosine, &(i, j)) in pair_cosines(&perturbations, &placed).iter().zip(&pairs) {
        files::close(*cosine, expected[i][j], 1e-6, "cosine");
    }
}

#[test]
fn recall_equals_efaar_recall_json() {
    let (Some(perturbations), Some(pairs), Some(path)) = (
        oracle_perturbations(),
        files::oracle("efaar_relationships.csv"),
        files::oracle("efaar_recall.json"),
    ) else {
        return;
    };
    let text = std::fs::read_to_string(pairs).unwrap();
    let relations = Relations::parse(&text, "efaar_relationships.csv").unwrap();
    let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = recall(&perturbations, &relations, &DEFAULT_THRESHOLDS).unwrap();
    for row in rows.iter().filter(|row| row.pairs == Pairs::All) {
        assert_eq!(row.null, expected["null_distribution_size"].as_u64().unwrap());
        assert_eq!(
            row.annotated as u64,
            expected["query_distribution_size"].as_u64().unwrap()
        );
        let name = format!("recall_{}_{}", row.low, row.high);
        assert_eq!(row.recall.unwrap(), expected[&name].as_f64().unwrap(), "{name}");
    }
    // All rows were given one plate: no pair is on two.
    let cross: Vec<_> = rows.iter().filter(|row| row.pairs == Pairs::CrossPlate).collect();
    assert_eq!(cross.len(), 2);
    assert!(cross.iter().all(|row| row.recall.is_none() && row.annotated == 0));
}

fn value(i: usize) -> f32 {
    let mut z = (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z >> 40) as f32) / (1u32 << 23) as f32 - 1.0
}

/// `n` perturbations of `width` features in groups of `group` that share a direction, two plates per perturbation of
/// `plates`.
fn grouped(n: usize, width: usize, group: usize, plates: usize) -> Perturbations {
    let mut sums = PerturbationMeans::new();
    for i in 0..n {
        for replicate in 0..2 {
            let values: Vec<f32> = (0..width)
                .map(|j| {
                    value(i / group * width + j + 1_000_000) + 0.5 * value((2 * i + replicate) * width + j)
                })
                .collect();
            sums.push(
                &format!("c{i:04}"),
                &format!("P{}", (i + 7 * replicate) % plates),
                &values,
            )
            .unwrap();
        }
    }
    sums.finish()
}

fn all_pairs(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect()
}

/// The histogram of SCIENCE 7 may be wrong by 1e-5 of the null; the resolved one is not wrong at all.
#[test]
fn ranks_equal_searching_in_the_sorted_cosines_of_all_pairs() {
    // More than one tile, and the last one narrow.
    let perturbations = grouped(530, 9, 5, 40);
    let pairs = all_pairs(530);
    let cosines = pair_cosines(&perturbations, &pairs);
    for which in [Pairs::All, Pairs::CrossPlate] {
        let mut null: Vec<f64> = pairs
            .iter()
            .zip(&cosines)
            .filter(|((a, b), _)| which == Pairs::All || !perturbations.share_a_plate(*a, *b))
            .map(|(_, &cosine)| cosine)
            .collect();
        null.sort_by(f64::total_cmp);
        let mut queries: Vec<f64> = cosines.iter().copied().step_by(97).collect();
        queries.extend([-1.0, 1.0, 0.0, 0.123_456]);
        for (query, rank) in queries.iter().zip(ranks(&perturbations, &queries, which)) {
            assert_eq!(rank.null, null.len() as u64);
            assert_eq!(rank.left, null.partition_point(|value| value < query) as u64);
            assert_eq!(rank.right, null.partition_point(|value| value <= query) as u64);
        }
    }
}

#[test]
fn the_same_ranks_on_any_number_of_threads() {
    let perturbations = grouped(600, 7, 3, 11);
    let pairs = all_pairs(600);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let cosines = pair_cosines(&perturbations, &pairs);
            let ranks = ranks(&perturbations, &cosines[..500], Pairs::CrossPlate);
            (
                cosines.iter().map(|cosine| cosine.to_bits()).collect::<Vec<_>>(),
                ranks,
            )
        })
    };
    assert_eq!(run(1), run(3));
}

fn known(perturbations: &Perturbations, group: usize) -> Relations {
    let mut relations = Relations::default();
    let names = perturbations.names();
    for (i, a) in names.iter().enumerate() {
        for (j, b) in names
            .iter()
            .enumerate()
            .filter(|(j, _)| *j < i && j / group == i / group)
        {
            relations.insert(a, b, if j % 2 == 0 { "even" } else { "odd" });
        }
    }
    relations
}

#[test]
fn what_belongs_together_is_recalled_and_chance_is_what_unrelated_pairs_give() {
    let perturbations = grouped(200, 40, 4, 200);
    let relations = known(&perturbations, 4);
    let rows = recall(&perturbations, &relations, &DEFAULT_THRESHOLDS).unwrap();
    // Two sources and both together, two thresholds, two kinds of pairs.
    assert_eq!(rows.len(), 12);
    for row in &rows {
        assert_eq!(row.recall, Some(1.0), "{row:?}");
        assert_eq!(row.recall_low, Some(0.0));
        assert!((row.chance - (row.low + 1.0 - row.high)).abs() < 1e-12);
    }
    assert_eq!(rows[4].source, None);
    assert_eq!(rows[4].annotated, 300);
    let at_k = recall_at_k(&perturbations, &relations, &[1, 3, 199]).unwrap();
    let all: Vec<f64> = at_k
        .iter()
        .filter(|row| row.source.is_none() && row.pairs == Pairs::All)
        .map(|row| row.recall.unwrap())
        .collect();
    assert_eq!(all, [1.0, 1.0, 1.0]);
    let chance = at_k
        .iter()
        .find(|row| row.source.is_none())
        .unwrap()
        .chance
        .unwrap();
    assert!((chance - 3.0 / 199.0).abs() < 1e-12);

    let mut unrelated = Relations::default();
    for i in 0..199 {
        for step in [31, 57, 83] {
            let (a, b) = (
                &perturbations.names()[i],
                &perturbations.names()[(i + step) % 200],
            );
            unrelated.insert(a, b, "none");
        }
    }
    for row in recall(&perturbations, &unrelated, &DEFAULT_THRESHOLDS).unwrap() {
        // 597 pairs: five standard errors.
        let error = 5.0 * (row.chance * (1.0 - row.chance) / 597.0).sqrt();
        assert!((row.recall.unwrap() - row.chance).abs() < error, "{row:?}");
    }
}

/// Plates add a direction of their own to every well, and relations are annotated between wells of one plate: without
/// exclusion the plate looks like biology.
#[test]
fn pairs_of_one_plate_are_left_out_where_only_the_plate_relates_them() {
    let mut sums = PerturbationMeans::new();
    let mut relations = Relations::default();
    for i in 0..120usize {
        let plate = i % 6;
        let values: Vec<f32> = (0..30)
            .map(|j| 2.0 * value(plate * 30 + j + 500_000) + value(i * 30 + j))
            .collect();
        sums.push(&format!("c{i:03}"), &format!("P{plate}"), &values)
            .unwrap();
        relations.insert(
            &format!("c{i:03}"),
            &format!("c{:03}", (i + 6) % 120),
            "same plate",
        );
        relations.insert(
            &format!("c{i:03}"),
            &format!("c{:03}", (i + 1) % 120),
            "other plate",
        );
    }
    let perturbations = sums.finish();
    let rows = recall(&perturbations, &relations, &DEFAULT_THRESHOLDS).unwrap();
    let find = |source: &str, pairs| {
        rows.iter()
            .find(|row| row.source.as_deref() == Some(source) && row.pairs == pairs && row.low == 0.1)
            .unwrap()
    };
    assert!(find("same plate", Pairs::All).recall.unwrap() > 0.5);
    assert_eq!(find("same plate", Pairs::CrossPlate).annotated, 0);
    assert_eq!(find("same plate", Pairs::CrossPlate).recall, None);
    assert_eq!(find("other plate", Pairs::CrossPlate).annotated, 120);
    let at_k = recall_at_k(&perturbations, &relations, &[5]).unwrap();
    let cross = at_k
        .iter()
        .find(|row| row.source.as_deref() == Some("same plate") && row.pairs == Pairs::CrossPlate)
        .unwrap();
    assert_eq!((cross.queries, cross.recall), (0, None));
    let near = neighbours(&perturbations, "c000", 4, Pairs::CrossPlate).unwrap();
    assert!(near.nearest.iter().all(|neighbour| !neighbour.same_plate));
    let near = neighbours(&perturbations, "c000", 4, Pairs::All).unwrap();
    assert!(near.nearest.iter().all(|neighbour| neighbour.same_plate));
}

#[test]
fn neighbours_are_in_order_and_their_percentiles_are_those_of_all_pairs() {
    let perturbations = grouped(60, 12, 3, 60);
    let found = neighbours(&perturbations, "c0030", 5, Pairs::All).unwrap();
    let mut names: Vec<&str> = found.nearest[..2].iter().map(|n| n.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["c0031", "c0032"]);
    assert!(found.nearest.is_sorted_by(|a, b| a.cosine >= b.cosine));
    assert!(found.opposite.is_sorted_by(|a, b| a.cosine <= b.cosine));
    assert!(
        found
            .nearest
            .iter()
            .chain(&found.opposite)
            .all(|n| n.name != "c0030")
    );
    let cosines = pair_cosines(&perturbations, &all_pairs(60));
    for neighbour in found.nearest.iter().chain(&found.opposite) {
        let below = cosines
            .iter()
            .filter(|&&cosine| cosine <= neighbour.cosine + 1e-12)
            .count();
        let share = below as f64 / cosines.len() as f64;
        assert!((neighbour.percentile - share).abs() < 1.5 / cosines.len() as f64);
    }
    let error = neighbours(&perturbations, "C003", 5, Pairs::All).unwrap_err();
    assert!(error.to_string().contains("the nearest name is 'c003"), "{error}");
}

#[test]
fn groups_hold_together_and_the_statistic_is_the_largest_distance() {
    let perturbations = grouped(120, 20, 12, 120);
    let text: String = perturbations
        .names()
        .iter()
        .enumerate()
        .map(|(i, name)| format!("{},{name}\nmixed{},{name}\n", i / 12, i % 10))
        .collect();
    let table = Clusters::parse(&format!("cluster,entity\n{text}few,c0001\nfew,c0002\n"), "c.csv").unwrap();
    let rows = clusters(&perturbations, &table, 10);
    assert_eq!(rows.len(), 20);
    for row in &rows {
        assert_eq!((row.members, row.others), (12, 108));
        if row.cluster.starts_with("mixed") {
            assert!(row.p_value > 1e-4, "{row:?}");
        } else {
            assert!(
                row.statistic > 0.9 && row.p_value < 1e-12 && row.within > row.between,
                "{row:?}"
            );
        }
    }
    // scipy.stats.ks_2samp([1, 2, 2, 3], [2, 3, 4]) has the statistic 5/12.
    let statistic = kolmogorov_smirnov(&[1.0, 2.0, 2.0, 3.0], &[2.0, 3.0, 4.0]);
    assert!((statistic - 5.0 / 12.0).abs() < 1e-12);
}

#[test]
fn tables_and_perturbations_that_do_not_fit_say_what_is_wrong() {
    let perturbations = grouped(30, 5, 2, 9);
    let relations = Relations::parse("entity1\tentity2\tsource\nx\ty\tS\ny\tx\tS\nx\tx\tS\n", "t").unwrap();
    assert_eq!(relations.len(), 1);
    let error = recall(&perturbations, &relations, &DEFAULT_THRESHOLDS).unwrap_err();
    assert!(
        error.to_string().contains("names 'x', the profiles have 'c0000'"),
        "{error}"
    );
    assert!(matches!(
        recall(&grouped(19, 5, 2, 9), &relations, &DEFAULT_THRESHOLDS),
        Err(RelateError::TooFew {
            found: 19,
            needed: 20
        })
    ));
    let some = known(&perturbations, 2);
    let error = recall(&perturbations, &some, &[(0.9, 0.1)]).unwrap_err();
    assert!(matches!(error, RelateError::Thresholds { .. }));
    let error = Relations::parse("gene,entity2\na,b\n", "pairs.csv").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("pairs.csv has no column 'entity1'; it has gene, entity2"),
        "{error}"
    );
    let error = Relations::parse("entity1,entity2\na,b\nc,\n", "pairs.csv").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("pairs.csv line 3: column 'entity2' is empty"),
        "{error}"
    );

    let mut sums = PerturbationMeans::new();
    sums.push("a", "P1", &[1.0, 2.0]).unwrap();
    sums.push("zero", "P1", &[1.0, -2.0]).unwrap();
    sums.push("zero", "P2", &[-1.0, 2.0]).unwrap();
    assert!(matches!(
        sums.push("b", "P1", &[1.0]),
        Err(RelateError::Width { .. })
    ));
    let error = sums.push("b", "P1", &[1.0, f32::INFINITY]).unwrap_err();
    assert!(
        error.to_string().contains("'b' plate P1 feature column 1 is inf"),
        "{error}"
    );
    let found = sums.finish();
    assert_eq!(
        (found.len(), found.without_direction()),
        (1, &["zero".to_owned()][..])
    );
}
