//! Quality measures against `../shared/oracles` beyond those of `oracles.rs`, and the flags of a batch.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use wellspring_kernels::{
    BatchMeasures, ChannelQuality, Defect, Device, DeviceChoice, FlagLimits, LEAST_FIELDS, QualityFlag,
    RawImage, batch_flags, illumination_cv, power_log_log_slope, radial_power,
};

mod support;

fn quality(image: &RawImage) -> Vec<ChannelQuality> {
    Device::open(DeviceChoice::Cpu).unwrap().quality(image).unwrap()
}

#[test]
fn spectral_power_by_radius_agrees_with_centrosome() {
    let Some((image, _)) = support::fields() else {
        return;
    };
    let expected = support::json("qc_radial_power_focus.json").unwrap();
    let plane = image.plane(0);
    let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / plane.len() as f64;
    let mut deviations: Vec<f64> = plane.iter().map(|&v| (f64::from(v) - mean).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let half = deviations.len() / 2;
    // The peer divides by this first.
    let scale = f64::midpoint(deviations[half - 1], deviations[half]);
    let ours = radial_power(&image, 0).unwrap();
    let (radii, power) = (
        expected["radii"].as_array().unwrap(),
        expected["power"].as_array().unwrap(),
    );
    assert_eq!(radii.len() + 2, ours.len());
    for (k, theirs) in radii.iter().zip(power) {
        let (ours, theirs) = (
            ours[k.as_u64().unwrap() as usize] / (scale * scale),
            theirs.as_f64().unwrap(),
        );
        assert!(
            (ours / theirs - 1.0).abs() < 1e-9,
            "radius {k}: {ours} against {theirs}"
        );
    }
}

#[test]
fn correlation_agrees_with_cellprofiler() {
    let Some((image, names)) = support::fields() else {
        return;
    };
    let table = std::fs::read_to_string(support::folder().unwrap().join("qc_metrics.csv")).unwrap();
    let mut lines = table.lines();
    let at = lines
        .next()
        .unwrap()
        .split(',')
        .position(|c| c == "cp_correlation_20")
        .unwrap();
    for ((q, name), line) in quality(&image).iter().zip(names).zip(lines) {
        let theirs: f64 = line.split(',').nth(at).unwrap().parse().unwrap();
        assert!(
            (q.correlation_20 - theirs).abs() < 1e-9,
            "{name}: {} against {theirs}",
            q.correlation_20
        );
    }
}

#[test]
fn variation_of_an_average_agrees_with_the_reference() {
    let Some((_, descr, bytes)) = support::npy("illum_avg.npy") else {
        return;
    };
    assert_eq!(descr, "<f8");
    let average: Vec<f32> = support::f64s(&bytes).into_iter().map(|v| v as f32).collect();
    let expected = support::json("image_report.json").unwrap()["illum"]["cv_avg_before"]
        .as_f64()
        .unwrap();
    assert!((illumination_cv(&average) / expected - 1.0).abs() < 1e-6);
    // A field of that light is uneven, one of even light is not.
    let (shape, _, bytes) = support::npy("illum_stack.npy").unwrap();
    let stack = RawImage::new(shape[0], shape[1], shape[2], support::u16s(&bytes), 65535).unwrap();
    let shaded = quality(&stack)
        .iter()
        .map(|q| q.illumination_cv)
        .fold(f64::INFINITY, f64::min);
    let (fields, names) = support::fields().unwrap();
    let even = quality(&fields)[names.iter().position(|n| *n == "focus").unwrap()].illumination_cv;
    assert!(shaded > 2.0 * even, "{shaded} {even}");
}

/// Twelve fields of the same cells in focus, each with noise and light of its own; the last is changed.
fn batch(spoil: impl Fn(&mut ChannelQuality)) -> Vec<ChannelQuality> {
    const SIDE: usize = 128;
    let random = |seed: u64| {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        }
    };
    let mut place = random(5);
    let cells: Vec<[f64; 3]> = (0..9)
        .map(|_| [place() * SIDE as f64, place() * SIDE as f64, 6.0 + 12.0 * place()])
        .collect();
    let plane = |seed: u64| {
        let mut noise = random(seed);
        let light = 2000.0 + 100.0 * (seed % 5) as f64;
        let pixel = |i: usize| {
            let (y, x) = ((i / SIDE) as f64, (i % SIDE) as f64);
            let inside = cells.iter().any(|[cy, cx, r]| (y - cy).hypot(x - cx) < *r);
            (300.0 + seed as f64 + 30.0 * noise() + if inside { light } else { 0.0 }) as u16
        };
        (0..SIDE * SIDE).map(pixel).collect::<Vec<u16>>()
    };
    let planes: Vec<Vec<u16>> = (1..=12).map(plane).collect();
    let mut fields = quality(&RawImage::from_planes(&planes, SIDE, SIDE, 65535).unwrap());
    spoil(&mut fields[11]);
    fields
}

fn flags(fields: &[ChannelQuality]) -> Vec<Vec<QualityFlag>> {
    let measures: Vec<BatchMeasures> = fields.iter().map(BatchMeasures::from).collect();
    batch_flags(&measures, &FlagLimits::default())
}

#[test]
fn each_defect_is_flagged_and_good_fields_are_not() {
    let good = flags(&batch(|_| {}));
    assert!(good.iter().all(Vec::is_empty), "{good:?}");
    type Spoil = fn(&mut ChannelQuality);
    let cases: [(Defect, bool, &str, Spoil); 4] = [
        (Defect::Blur, true, "z of PowerLogLogSlope", |q| {
            q.power_log_log_slope -= 3.0
        }),
        (Defect::Exposure, true, "z of MedianIntensity", |q| q.median = 0.0),
        (Defect::Exposure, true, "z of MedianIntensity", |q| {
            q.median *= 9.0
        }),
        (Defect::Debris, true, "z of MeanIntensity", |q| q.mean *= 5.0),
    ];
    for (defect, fails, metric, spoil) in cases {
        let flags = flags(&batch(spoil));
        assert!(flags[..11].iter().all(Vec::is_empty), "{metric}");
        let flag = flags[11].iter().find(|f| f.metric == metric);
        let flag = flag.unwrap_or_else(|| panic!("{metric}: {:?}", flags[11]));
        assert_eq!((flag.defect, flag.fails), (defect, fails), "{flag:?}");
    }
}

#[test]
fn what_was_not_measured_is_not_judged_and_judges_nothing() {
    let mut fields: Vec<BatchMeasures> = batch(|q| q.mean *= 5.0).iter().map(BatchMeasures::from).collect();
    let limits = FlagLimits::default();
    let whole = batch_flags(&fields, &limits);
    assert!(whole[11].iter().any(|flag| flag.defect == Defect::Debris));
    fields[0].mean = f64::NAN;
    let flags = batch_flags(&fields, &limits);
    assert!(flags[0].is_empty(), "{:?}", flags[0]);
    assert!(flags[11].iter().any(|flag| flag.defect == Defect::Debris));
    fields
        .iter_mut()
        .skip(LEAST_FIELDS - 1)
        .for_each(|q| q.mean = f64::INFINITY);
    let flags = batch_flags(&fields, &limits);
    assert!(
        flags
            .iter()
            .flatten()
            .all(|flag| flag.metric != "z of MeanIntensity")
    );
}

#[test]
fn few_fields_have_no_z() {
    let odd = batch(|q| q.mean *= 50.0);
    assert!(flags(&odd[12 - LEAST_FIELDS + 1..]).iter().all(Vec::is_empty));
    assert!(flags(&[]).is_empty());
}

#[test]
fn the_slope_by_itself_is_that_of_the_field() {
    let Some((image, _)) = support::fields() else {
        return;
    };
    for (c, q) in quality(&image).iter().enumerate() {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let slope = one.install(|| power_log_log_slope(&image, c)).unwrap();
        assert_eq!(slope.to_bits(), q.power_log_log_slope.to_bits());
    }
    let error = power_log_log_slope(&image, 8).unwrap_err().to_string();
    assert!(error.contains("channel") && error.contains('8'), "{error}");
    assert!(radial_power(&image, 9).is_err());
    let small = RawImage::new(1, 7, 99, vec![3; 693], 255).unwrap();
    assert_eq!(radial_power(&small, 0).unwrap(), Vec::<f64>::new());
}
