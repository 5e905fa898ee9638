//! The CPU path against reference outputs of the field's own tools, in `../shared/oracles`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap fails the test; skips are printed"
)]

#[path = "common/npy.rs"]
mod npy;

use npy::{folder, read as npy, words as u16s};
use wellspring_kernels::{
    Background, ChannelQuality, Device, DeviceChoice, Footprint, PercentileScale, RawImage, Recipe,
    ScaleRange, Step,
};

/// Agreement that the reference outputs promise, relative to the larger of 1e-3 and the value.
const TOLERANCE: f64 = 1e-6;

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// The eight reference fields as the channels of one image.
fn fields() -> Option<RawImage> {
    let (shape, descr, bytes) = npy("qc_images.npy")?;
    assert_eq!(descr, "<u2");
    Some(RawImage::new(shape[0], shape[1], shape[2], u16s(&bytes), 65535).unwrap())
}

fn compare_quality(device: &Device) {
    let Some(image) = fields() else { return };
    let quality = device.quality(&image).unwrap();
    let table = std::fs::read_to_string(folder().unwrap().join("qc_metrics.csv")).unwrap();
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let measure = |q: &ChannelQuality, name: &str| {
        Some(match name {
            "power_log_log_slope" => q.power_log_log_slope,
            "focus_score" => q.focus_score,
            "local_focus_20" => q.local_focus_20,
            "local_focus_50" => q.local_focus_50,
            "laplacian_var_raw" => q.laplacian_variance,
            "laplacian_var_over_mean2" => q.laplacian_variance_normalised,
            "percent_maximal" => q.percent_maximal,
            "percent_minimal" => q.percent_minimal,
            "percent_saturated_65535" => q.percent_saturated,
            "mean" => q.mean,
            "median" => q.median,
            "std" => q.std,
            "mad" => q.mad,
            "min" => q.min,
            "max" => q.max,
            "total" => q.total,
            "p001" => q.p001,
            "p01" => q.p01,
            "p50" => q.median,
            "p99" => q.p99,
            "p999" => q.p999,
            _ => return None,
        })
    };
    let mut compared = 0;
    for (q, line) in quality.iter().zip(lines) {
        let values: Vec<&str> = line.split(',').collect();
        for (name, value) in names.iter().zip(&values).skip(1) {
            let (Some(ours), Ok(theirs)) = (measure(q, name), value.parse::<f64>()) else {
                continue;
            };
            let gap = (ours - theirs).abs() / theirs.abs().max(1e-9);
            assert!(
                gap < TOLERANCE,
                "{} {name}: {ours} against {theirs}, gap {gap:e}",
                values[0]
            );
            compared += 1;
        }
        let empty = matches!(values[0], "empty" | "constant");
        assert_eq!(q.empty, empty, "{}: contrast {}", values[0], q.contrast);
    }
    assert_eq!(compared, 8 * 21);
}

fn compare_images(device: &Device) {
    let Some(image) = fields() else { return };
    let focus = RawImage::new(1, image.height(), image.width(), image.plane(0).to_vec(), 65535).unwrap();
    let scale = PercentileScale {
        range: ScaleRange::PerImage { lo: 0.1, hi: 99.9 },
        scale: 1.0,
        round: false,
    };
    let recipe = Recipe::new(vec![scale.into()], focus.shape()).unwrap();
    let (_, descr, bytes) = npy("norm_pct_0.1_99.9_focus.npy").unwrap();
    assert_eq!(descr, "<f4");
    let ours = device.run(&recipe, &focus).unwrap();
    for (i, (a, b)) in ours.data().iter().zip(f32s(&bytes)).enumerate() {
        assert!(f64::from((a - b).abs()) < TOLERANCE, "pixel {i}: {a} against {b}");
    }

    let corner: Vec<u16> = (0..128)
        .flat_map(|y| image.plane(0)[y * 320..y * 320 + 128].to_vec())
        .collect();
    let corner = RawImage::new(1, 128, 128, corner, 65535).unwrap();
    let hat = Step::from(Background::TopHat {
        footprint: Footprint::Disk,
        radius: 15,
    });
    let ours = device
        .run(&Recipe::new(vec![hat], corner.shape()).unwrap(), &corner)
        .unwrap();
    let (_, _, bytes) = npy("bg_tophat_disk15_focus128.npy").unwrap();
    let theirs: Vec<f32> = u16s(&bytes).into_iter().map(f32::from).collect();
    assert_eq!(ours.data(), theirs);
}

#[test]
fn quality_on_the_cpu_agrees_with_cellprofiler() {
    compare_quality(&Device::open(DeviceChoice::Cpu).unwrap());
}

#[test]
fn images_on_the_cpu_agree_with_the_reference() {
    compare_images(&Device::open(DeviceChoice::Cpu).unwrap());
}

#[test]
fn quality_and_images_on_an_adapter_agree_too() {
    let device = Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| panic!("{e}"));
    compare_quality(&device);
    compare_images(&device);
}
