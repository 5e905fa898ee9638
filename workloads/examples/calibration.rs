//! Which settings of the comparison give right calls. Screens with known answers are made (see
//! `tests/calibration/generator.rs`), compared with each candidate, and counted; Markdown tables leave on stdout.
//!
//! `cargo run --release -p wellspring-workloads --example calibration [SEEDS [TABLE]]` (default 20 seeds per design).
//! TABLE is `scaling` (how plates are scaled, and corrections), `align` (alignment) or `activity` (alignment, with the
//! untreated disease wells as the reference).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for developers: a failure is a failed run, and the table is its output"
)]

#[path = "../tests/calibration/generator.rs"]
mod generator;

use generator::{DOSES, Design, Screen, Truth, screen};
use wellspring_workloads::align::sphere::SphereMethod;
use wellspring_workloads::compare::{
    Align, AlignmentSettings, Call, ComparisonSettings, Correction, FitOn, Normalise, Question,
    ScreenComparison, Thresholds, compare,
};
use wellspring_workloads::profile::Role;

/// Counts over all screens of a design.
#[derive(Default, Clone)]
struct Tally {
    rescuers: usize,
    found: usize,
    /// Pairs called a hit that rescue nothing.
    false_hits: usize,
    toxic: usize,
    toxic_found: usize,
    false_toxic: usize,
    false_active: usize,
    /// Screens whose calls are all right.
    perfect: usize,
    screens: usize,
    z_prime: f64,
    missed: Vec<f64>,
    /// Sums of the correlation of off-axis lengths and z with the truth.
    off_axis: f64,
    off_z: f64,
    /// Rows that do nothing beside the axis, and those of them with a p-value below 0.05 there.
    idle: usize,
    idle_low: usize,
}

impl Tally {
    fn add(&mut self, screen: &Screen, result: &ScreenComparison, question: Question) {
        let before = (self.found, self.toxic_found, self.false_hits + self.false_toxic);
        let (mut rescuers, mut toxic) = (0, 0);
        for compound in &result.compounds {
            let pair = (
                compound.disease.clone().unwrap(),
                compound.compound.clone().unwrap(),
            );
            let found = match question {
                Question::Activity => matches!(compound.call, Call::Active | Call::Toxic),
                Question::Rescue | Question::Response => compound.call == Call::RescueHit,
            };
            match (screen.truth[&pair], compound.call) {
                (Truth::Rescue { .. }, _) if found => self.found += 1,
                (Truth::Toxic, Call::Toxic) => self.toxic_found += 1,
                (_, Call::RescueHit) => self.false_hits += 1,
                (_, Call::Toxic) => self.false_toxic += 1,
                (Truth::Inactive, Call::Active) => self.false_active += 1,
                (Truth::Rescue { top }, _) => self.missed.push(top),
                _ => {}
            }
            match screen.truth[&pair] {
                Truth::Rescue { .. } => rescuers += 1,
                Truth::Toxic => toxic += 1,
                Truth::Inactive => {}
            }
        }
        self.rescuers += rescuers;
        self.toxic += toxic;
        self.screens += 1;
        let right = self.found - before.0 == rescuers
            && self.toxic_found - before.1 == toxic
            && self.false_hits + self.false_toxic == before.2;
        self.perfect += usize::from(right);
        let windows: Vec<f64> = result.windows.iter().filter_map(|w| w.robust_z_prime).collect();
        self.z_prime += windows.iter().sum::<f64>() / windows.len().max(1) as f64;
        let mut rows = Vec::new();
        for row in &result.rows {
            let (Some(compound), Some(dose)) = (&row.compound, row.dose) else {
                continue;
            };
            let at = DOSES.iter().position(|&d| d == dose).unwrap();
            let beside = screen.beside[compound][at];
            rows.push((beside, row.off_axis, row.off_z.unwrap_or(0.0)));
            let pair = (row.disease.clone().unwrap(), compound.clone());
            if screen.truth[&pair] == Truth::Inactive {
                self.idle += 1;
                self.idle_low += usize::from(row.p_off.is_some_and(|p| p < 0.05));
            }
        }
        self.off_axis += correlation(rows.iter().map(|row| (row.0, row.1)));
        self.off_z += correlation(rows.iter().map(|row| (row.0, row.2)));
    }
}

fn correlation(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let n = pairs.clone().count() as f64;
    let mean = pairs
        .clone()
        .fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x / n, sum.1 + y / n));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean.0, y - mean.1);
        (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
    }
    xy / (xx * yy).sqrt()
}

fn scalings() -> Vec<(String, ComparisonSettings)> {
    let mut candidates = Vec::new();
    for correction in [Correction::Bh, Correction::Hierarchical] {
        for (name, normalise, fit_on) in [
            ("none", Normalise::None, FitOn::Reference),
            (
                "standardise on reference",
                Normalise::Standardise,
                FitOn::Reference,
            ),
            ("standardise on all", Normalise::Standardise, FitOn::All),
            ("robust_mad on reference", Normalise::RobustMad, FitOn::Reference),
            ("robust_mad on all", Normalise::RobustMad, FitOn::All),
        ] {
            candidates.push((
                format!("{name}, {correction:?}"),
                ComparisonSettings {
                    normalise,
                    fit_on,
                    correction,
                    ..ComparisonSettings::default()
                },
            ));
        }
    }
    // What supports a hit: the effect of its wells, or that they find each other among the controls.
    for (name, replicate_z, replicate_map_q) in [
        ("effect z", 3.0, 0.0),
        ("effect z or mAP q < 0.1", 3.0, 0.1),
        ("mAP q < 0.1", 1e9, 0.1),
        ("nothing asked", 0.0, 1.0),
    ] {
        let settings = ComparisonSettings::default();
        candidates.push((
            format!("standardise on reference, Bh, supported by {name}"),
            ComparisonSettings {
                thresholds: Thresholds {
                    replicate_z,
                    replicate_map_q,
                    ..settings.thresholds.clone()
                },
                ..settings
            },
        ));
    }
    candidates
}

fn alignments() -> Vec<(String, ComparisonSettings)> {
    let mut candidates = Vec::new();
    for normalise in [Normalise::Standardise, Normalise::None] {
        let mut push = |name: &str, align, alignment| {
            let settings = ComparisonSettings {
                normalise,
                align,
                alignment,
                ..ComparisonSettings::default()
            };
            candidates.push((format!("{name}, normalise {normalise:?}"), settings));
        };
        let default = AlignmentSettings::default();
        push("none", Align::None, default);
        for components in [32, 128] {
            let alignment = AlignmentSettings {
                components,
                ..default
            };
            push(&format!("tvn {components}"), Align::Tvn, alignment);
        }
        push("pca 128", Align::Pca, default);
        for epsilon in [0.1, 1.0] {
            let alignment = AlignmentSettings {
                sphere: SphereMethod::Eigen,
                epsilon,
                ..default
            };
            push(&format!("sphere eigen {epsilon}"), Align::Sphere, alignment);
        }
    }
    candidates
}

/// The untreated disease wells become the reference; what was healthy or is of another disease goes.
fn ask_for_activity(screen: &mut Screen) {
    let own = |well: &wellspring_workloads::profile::WellProfile| {
        let number: usize = well.plate.as_str()[1..].parse().unwrap();
        well.treatment.disease == Some(format!("D{}", (number - 1) % 3 + 1))
    };
    screen.profiles.retain(own);
    for well in &mut screen.profiles {
        if well.treatment.role == Role::Phenotype {
            well.treatment.role = Role::Reference;
        }
    }
}

fn main() {
    let seeds: u64 = std::env::args().nth(1).map_or(20, |n| n.parse().unwrap());
    let table = std::env::args().nth(2).unwrap_or_else(|| "scaling".to_owned());
    let question = match table.as_str() {
        "activity" => Question::Activity,
        _ => Question::Rescue,
    };
    let candidates = match table.as_str() {
        "scaling" => scalings(),
        "align" | "activity" => alignments(),
        other => panic!("no table {other}: scaling, align or activity"),
    };
    // Name, factors on disease length, rescue and toxicity, debris among controls and among treated wells.
    let designs = [
        ("as the oracle", 1.0, 1.0, 1.0, 6, 0),
        ("no debris", 1.0, 1.0, 1.0, 0, 0),
        ("weaker diseases", 0.75, 1.0, 1.0, 6, 0),
        ("very weak diseases", 0.5, 1.0, 1.0, 6, 0),
        ("stronger diseases", 1.5, 1.0, 1.0, 6, 0),
        ("weaker compounds", 1.0, 0.8, 0.7, 6, 0),
        ("less toxic compounds", 1.0, 1.0, 0.35, 6, 0),
        ("weak compounds and diseases", 0.7, 0.8, 0.5, 6, 0),
        ("debris in 24 controls and 24 treated wells", 1.0, 1.0, 1.0, 24, 24),
    ]
    .map(|(name, disease, rescue, toxicity, control_outliers, treated_outliers)| {
        let name = format!("{name}: disease x {disease}, rescue x {rescue}, toxicity x {toxicity}, debris in {control_outliers} controls and {treated_outliers} treated wells");
        (name, Design { disease, rescue, toxicity, control_outliers, treated_outliers, ..Design::like_the_oracle(0) })
    });
    for (name, design) in designs {
        println!("\n### {name}: {seeds} screens\n");
        println!(
            "| settings | rescuers found | tops missed | false hits | toxic found | false toxic | false active | all calls right | robust Z' | off-axis, truth: r | off z, truth: r | idle p_off < 0.05 |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        let screens: Vec<Screen> = (1..=seeds)
            .map(|seed| screen(&Design { seed, ..design }))
            .map(|mut screen| {
                if question == Question::Activity {
                    ask_for_activity(&mut screen);
                }
                screen
            })
            .collect();
        for (candidate, settings) in &candidates {
            let settings = ComparisonSettings {
                question,
                ..settings.clone()
            };
            let mut tally = Tally::default();
            for screen in &screens {
                tally.add(screen, &compare(&screen.profiles, &settings).unwrap(), question);
            }
            tally.missed.sort_by(f64::total_cmp);
            let screens = tally.screens as f64;
            println!(
                "| {candidate} | {} / {} | {} | {} | {} / {} | {} | {} | {} / {} | {:.2} | {:.2} | {:.2} | {:.3} |",
                tally.found,
                tally.rescuers,
                tally
                    .missed
                    .iter()
                    .rev()
                    .take(4)
                    .map(|t| format!("{t:.2}"))
                    .collect::<Vec<_>>()
                    .join(" "),
                tally.false_hits,
                tally.toxic_found,
                tally.toxic,
                tally.false_toxic,
                tally.false_active,
                tally.perfect,
                tally.screens,
                tally.z_prime / screens,
                tally.off_axis / screens,
                tally.off_z / screens,
                tally.idle_low as f64 / tally.idle.max(1) as f64,
            );
        }
    }
}
