//! Which settings of the comparison give right calls. Screens with known answers are made (see
//! `tests/calibration/generator.rs`), compared with each candidate, and counted; a Markdown table leaves on stdout.
//!
//! `cargo run --release -p wellspring-workloads --example calibration [SEEDS]` (default 20 seeds per design).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for developers: a failure is a failed run, and the table is its output"
)]

#[path = "../tests/calibration/generator.rs"]
mod generator;

use generator::{Design, Screen, Truth, screen};
use wellspring_workloads::compare::{
    Call, ComparisonSettings, Correction, FitOn, Normalise, ScreenComparison, Thresholds, compare,
};

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
}

impl Tally {
    fn add(&mut self, screen: &Screen, result: &ScreenComparison) {
        let before = (self.found, self.toxic_found, self.false_hits + self.false_toxic);
        let (mut rescuers, mut toxic) = (0, 0);
        for compound in &result.compounds {
            let pair = (
                compound.disease.clone().unwrap(),
                compound.compound.clone().unwrap(),
            );
            match (screen.truth[&pair], compound.call) {
                (Truth::Rescue { .. }, Call::RescueHit) => self.found += 1,
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
        self.z_prime += windows.iter().sum::<f64>() / windows.len() as f64;
    }
}

fn candidates() -> Vec<(String, ComparisonSettings)> {
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

fn main() {
    let seeds: u64 = std::env::args().nth(1).map_or(20, |n| n.parse().unwrap());
    // Name, factors on disease length, rescue and toxicity, debris among controls and among treated wells.
    let designs = [
        ("as the oracle", 1.0, 1.0, 1.0, 6, 0),
        ("no debris", 1.0, 1.0, 1.0, 0, 0),
        ("weaker diseases", 0.75, 1.0, 1.0, 6, 0),
        ("very weak diseases", 0.5, 1.0, 1.0, 6, 0),
        ("stronger diseases", 1.5, 1.0, 1.0, 6, 0),
        ("weaker compounds", 1.0, 0.8, 0.7, 6, 0),
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
            "| settings | rescuers found | tops missed | false hits | toxic found | false toxic | false active | all calls right | robust Z' |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        let screens: Vec<Screen> = (1..=seeds)
            .map(|seed| screen(&Design { seed, ..design }))
            .collect();
        for (candidate, settings) in candidates() {
            let mut tally = Tally::default();
            for screen in &screens {
                tally.add(screen, &compare(&screen.profiles, &settings).unwrap());
            }
            tally.missed.sort_by(f64::total_cmp);
            println!(
                "| {candidate} | {} / {} | {} | {} | {} / {} | {} | {} | {} / {} | {:.2} |",
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
                tally.z_prime / tally.screens as f64,
            );
        }
    }
}
