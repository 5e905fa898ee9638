//! What is planted in a simulated plate can be measured in its pixels, without any network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;

use wellspring_workloads::simulate::{
    Artefacts, FieldImage, GeneratedCompounds, Simulation, SimulationSettings,
};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

/// Pixels above half way between background and the 99.5th percentile, and their mean height above background.
fn bright(plane: &[u16]) -> (f64, f64) {
    let mut sorted = plane.to_vec();
    sorted.sort_unstable();
    let background = f64::from(sorted[sorted.len() / 4]);
    let top = f64::from(sorted[sorted.len() * 995 / 1000]);
    let threshold = 0.5 * (background + top);
    let above: Vec<f64> = plane
        .iter()
        .map(|&count| f64::from(count))
        .filter(|&count| count > threshold)
        .collect();
    (
        above.len() as f64,
        above.iter().sum::<f64>() / above.len().max(1) as f64 - background,
    )
}

/// Spread of a plane relative to its mean, above background.
fn contrast(plane: &[u16]) -> f64 {
    let mut sorted: Vec<f64> = plane.iter().map(|&count| f64::from(count)).collect();
    sorted.sort_by(f64::total_cmp);
    let background = sorted[sorted.len() / 20];
    let mean = sorted.iter().map(|count| count - background).sum::<f64>() / sorted.len() as f64;
    let variance = sorted
        .iter()
        .map(|count| (count - background - mean).powi(2))
        .sum::<f64>()
        / sorted.len() as f64;
    variance.sqrt() / mean
}

struct Well {
    role: String,
    compound: String,
    dose: f64,
    cells: f64,
    /// Nuclear pixels per true cell, then how uneven the cytoplasm channels are.
    nuclear_area: f64,
    nuclear_light: f64,
    agp: f64,
    mito: f64,
}

fn measure(simulation: &Simulation) -> Vec<Well> {
    let truth = simulation.truth_wells_csv();
    let mut reader = csv::Reader::from_reader(truth.as_bytes());
    let fields = simulation.settings().fields;
    reader
        .deserialize()
        .map(|row| {
            let row: BTreeMap<String, String> = row.unwrap();
            let plate: Barcode = row["plate"].parse().unwrap();
            let well: WellPosition = row["well"].parse().unwrap();
            let images: Vec<FieldImage> = (1..=fields)
                .map(|field| {
                    simulation
                        .render(&FieldId {
                            plate: plate.clone(),
                            well,
                            field,
                        })
                        .unwrap()
                })
                .collect();
            let cells: f64 = row["cell_count"].parse().unwrap();
            let nuclei: Vec<(f64, f64)> = images.iter().map(|image| bright(&image.pixels[0])).collect();
            let mean =
                |of: &dyn Fn(&FieldImage) -> f64| images.iter().map(of).sum::<f64>() / f64::from(fields);
            Well {
                role: row["role"].clone(),
                compound: row["compound"].clone(),
                dose: row["dose"].parse().unwrap(),
                cells,
                nuclear_area: nuclei.iter().map(|n| n.0).sum::<f64>() / cells,
                nuclear_light: nuclei.iter().map(|n| n.1).sum::<f64>() / f64::from(fields),
                agp: mean(&|image| contrast(&image.pixels[1])),
                mito: mean(&|image| contrast(&image.pixels[2])),
            }
        })
        .collect()
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (square / (values.len() - 1) as f64).sqrt())
}

fn plate() -> SimulationSettings {
    SimulationSettings {
        plates: 1,
        replicates: 1,
        generated: GeneratedCompounds::default(),
        doses: vec![0.1, 1.0, 5.0, 20.0],
        // Enough light and cells for a simple statistic; a network needs less.
        fields: 3,
        artefacts: Artefacts {
            blur: 0.0,
            debris: 0.0,
            empty_fields: 0.0,
            ..Artefacts::default()
        },
        ..SimulationSettings::demo()
    }
}

#[test]
fn healthy_and_disease_wells_differ_clearly_but_not_absurdly_and_doses_lie_in_order() {
    let simulation = Simulation::new(plate()).unwrap();
    let wells = measure(&simulation);
    let of = |keep: &dyn Fn(&Well) -> bool, value: &dyn Fn(&Well) -> f64| -> Vec<f64> {
        wells.iter().filter(|well| keep(well)).map(value).collect()
    };
    let healthy = |well: &Well| well.role == "healthy";
    let disease = |well: &Well| well.role == "disease";

    // The axis: three statistics, each weighted by how many deviations it separates the controls.
    let statistics: [&dyn Fn(&Well) -> f64; 3] = [&|w| w.nuclear_area, &|w| w.nuclear_light, &|w| w.agp];
    let weights: Vec<(f64, f64)> = statistics
        .iter()
        .map(|statistic| {
            let (a, sa) = mean_and_deviation(&of(&healthy, statistic));
            let (b, sb) = mean_and_deviation(&of(&disease, statistic));
            (a, (b - a) / (sa * sa + sb * sb))
        })
        .collect();
    let raw = |well: &Well| {
        statistics
            .iter()
            .zip(&weights)
            .map(|(statistic, (zero, weight))| (statistic(well) - zero) * weight)
            .sum::<f64>()
    };
    let (full, _) = mean_and_deviation(&of(&disease, &raw));
    let on_axis = |well: &Well| raw(well) / full;

    let (a, sa) = mean_and_deviation(&of(&healthy, &on_axis));
    let (b, sb) = mean_and_deviation(&of(&disease, &on_axis));
    let z_prime = 1.0 - 3.0 * (sa + sb) / (b - a).abs();
    println!("Z' of the simple statistic: {z_prime:.2}");
    assert!((0.0..0.85).contains(&z_prime), "Z' {z_prime}");

    let series = |compound: &str, value: &dyn Fn(&Well) -> f64| -> Vec<f64> {
        let mut points: Vec<(f64, f64)> = wells
            .iter()
            .filter(|well| well.compound == compound)
            .map(|well| (well.dose, value(well)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.into_iter().map(|point| point.1).collect()
    };
    let rescued = series("rescuer-strong", &on_axis);
    println!("rescuer-strong on the axis: {rescued:.2?}");
    assert!(rescued[0] > 0.65 && rescued[3] < 0.35, "{rescued:?}");
    // Neighbouring doses may swap by no more than three deviations of a difference of two wells.
    let slack = 3.0 * (sa * sa + sb * sb).sqrt();
    assert!(
        rescued.windows(2).all(|pair| pair[1] < pair[0] + slack),
        "{rescued:?} {slack}"
    );

    // Toxicity: fewer cells with brighter nuclei. At the top dose too few are left to fill the percentile.
    let (cells, light) = (
        series("toxicant", &|w| w.cells),
        series("toxicant", &|w| w.nuclear_light),
    );
    println!("toxicant cells {cells:?} nuclear light {light:.0?}");
    assert!(cells[3] < 0.6 * cells[0] && light[2] > 1.3 * light[0]);
    let ((a, _), (b, _)) = (
        mean_and_deviation(&of(&healthy, &|w| w.mito)),
        mean_and_deviation(&of(&disease, &|w| w.mito)),
    );
    assert!((a / b - 1.0).abs() > 0.02, "mitochondria differ too: {a} {b}");
}

#[test]
fn artefacts_do_to_the_pixels_what_their_names_say() {
    let with = |change: &dyn Fn(&mut SimulationSettings)| {
        let mut settings = plate();
        settings.artefacts = Artefacts {
            vignetting: 0.0,
            noise: 0.0,
            plate_effect: 0.0,
            edge_effect: 0.0,
            ..settings.artefacts
        };
        change(&mut settings);
        let simulation = Simulation::new(settings).unwrap();
        let ids: Vec<FieldId> = simulation.field_ids().step_by(20).take(8).collect();
        ids.iter()
            .map(|id| simulation.render(id).unwrap())
            .collect::<Vec<_>>()
    };
    let plain = with(&|_| ());
    let mean = |images: &[FieldImage], of: &dyn Fn(&[u16]) -> f64| {
        images.iter().map(|image| of(&image.pixels[0])).sum::<f64>() / images.len() as f64
    };
    let corner = |plane: &[u16]| f64::from(plane.iter().take(20).copied().min().unwrap());
    let empty = with(&|s| s.artefacts.empty_fields = 1.0);
    for image in &empty {
        for plane in &image.pixels {
            assert!(
                plane.iter().all(|&count| count == plane[0]),
                "an empty field without noise is flat"
            );
        }
    }
    let vignetted = with(&|s| {
        s.artefacts.empty_fields = 1.0;
        s.artefacts.vignetting = 0.5;
    });
    assert!(mean(&vignetted, &corner) < 0.8 * mean(&empty, &corner));
    // Sharpness: mean absolute difference of neighbours.
    let sharpness = |plane: &[u16]| {
        plane
            .windows(2)
            .map(|pair| f64::from(pair[0].abs_diff(pair[1])))
            .sum::<f64>()
            / plane.len() as f64
    };
    assert!(mean(&with(&|s| s.artefacts.blur = 1.0), &sharpness) < 0.7 * mean(&plain, &sharpness));
    assert!(mean(&with(&|s| s.artefacts.noise = 2.0), &sharpness) > 1.5 * mean(&plain, &sharpness));
    let total = |plane: &[u16]| plane.iter().map(|&count| f64::from(count)).sum::<f64>() / plane.len() as f64;
    assert!(mean(&with(&|s| s.artefacts.debris = 1.0), &total) > 1.1 * mean(&plain, &total));
    let plate_effect = with(&|s| s.artefacts.plate_effect = 3.0);
    assert!((mean(&plate_effect, &total) / mean(&plain, &total) - 1.0).abs() > 0.01);
}
