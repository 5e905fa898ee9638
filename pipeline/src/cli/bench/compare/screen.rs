//! The whole comparison of a made-up rescue screen, in wells per second.

use anyhow::Context;
use wellspring_workloads::compare::{ComparisonSettings, compare};
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::words::WellPosition;

use crate::cli::bench::{Line, Printer, Random, seconds};

/// Doses of every compound.
const DOSES: [f64; 6] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
/// Reference wells of a plate, and as many phenotype wells.
const CONTROLS: usize = 32;
/// Plates of the screen; each holds one replicate.
const PLATES: usize = 4;
/// Values of a profile.
const FEATURES: usize = 1280;

pub(super) fn measure(printer: &mut Printer) -> anyhow::Result<()> {
    let profiles = profiles(PLATES, FEATURES)?;
    let settings = ComparisonSettings::default();
    let time = seconds(|| compare(&profiles, &settings).map(drop))?;
    let work = format!("{PLATES} plates of 384 wells, {FEATURES} features");
    printer.push(Line::new(
        "compare",
        work,
        profiles.len() as f64 / time,
        "wells/s",
    ))
}

/// Wells on a random axis with noise: controls at 0 and 1, compounds that move along it with the dose.
fn profiles(plates: usize, features: usize) -> anyhow::Result<Vec<WellProfile>> {
    let mut random = Random(11);
    let axis: Vec<f64> = (0..features).map(|_| random.unit() - 0.5).collect();
    let mut profiles = Vec::with_capacity(plates * 384);
    for plate in 1..=plates {
        let barcode = format!("BENCH{plate:04}").parse()?;
        for index in 0..384usize {
            let (row, column) = (index / 24 + 1, index % 24 + 1);
            let well =
                WellPosition::new(row as u8, column as u8).context("a 384-well plate has 16 rows of 24")?;
            let treated = index.saturating_sub(2 * CONTROLS);
            let (compound, dose) = (treated / DOSES.len(), DOSES[treated % DOSES.len()]);
            let (role, position) = match index {
                i if i < CONTROLS => (Role::Reference, 0.0),
                i if i < 2 * CONTROLS => (Role::Phenotype, 1.0),
                _ if compound % 4 == 0 => (Role::Treated, 1.0 / (1.0 + dose)),
                _ => (Role::Treated, 1.0),
            };
            let control = role != Role::Treated;
            let treatment = Treatment {
                role,
                disease: (role != Role::Reference).then(|| "disease".to_owned()),
                compound: Some(if control {
                    "DMSO".to_owned()
                } else {
                    format!("C{compound:03}")
                }),
                dose: Some(if control { 0.0 } else { dose }),
            };
            let value =
                |along: &f64, random: &mut Random| (along * position + 0.2 * (random.unit() - 0.5)) as f32;
            let values = axis.iter().map(|along| value(along, &mut random)).collect();
            let plate = Clone::clone(&barcode);
            profiles.push(WellProfile {
                plate,
                well,
                treatment,
                fields: 1,
                cell_count: None,
                values,
            });
        }
    }
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_made_up_screen_can_be_compared() {
        let profiles = super::profiles(1, 16).unwrap();
        assert_eq!(profiles.len(), 384);
        let comparison =
            wellspring_workloads::compare::compare(&profiles, &super::ComparisonSettings::default()).unwrap();
        assert_eq!(comparison.compounds.len(), 54);
        assert_eq!(
            comparison.compounds[0].compound.as_deref().map(|name| &name[..1]),
            Some("C")
        );
    }
}
