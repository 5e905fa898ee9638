//! Quality: measures of every channel, the gates for blur, saturation and empty fields, and the count of nuclei.
//!
//! A [`Prepared`] field enters, a [`Measured`] one leaves; its pixels end here. A field that fails a gate is embedded
//! all the same, so that the gate can be judged later, but it is left out of its well's profile. What fails: nothing
//! but the device itself.

use wellspring_kernels::{ChannelQuality, Device, RawImage, nuclei};
use wellspring_workloads::screen::{Declump, NucleiSettings, NucleiThreshold, QualitySettings};
use wellspring_workloads::words::Channel;

use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ChannelMeasures, FieldFeatures};
use crate::fields::{Measured, Prepared};

/// The stage: one field.
pub fn measure(device: &Device, prepared: Prepared) -> Result<Measured, StageError> {
    let Prepared {
        field,
        image,
        loaded,
        stacks,
        tiles,
    } = prepared;
    let measured = device
        .quality_loaded(&image, loaded.as_ref())
        .map_err(|error| StageError::of_kernel(Stage::Quality, error))?;
    drop(loaded);
    let settings = &field.run.screen.quality;
    let nuclei = field.run.screen.nuclei.as_ref();
    let mut passed = true;
    let quality = measured
        .iter()
        .zip(&field.run.screen.images.channels)
        .enumerate()
        .map(|(index, (quality, channel))| {
            let flags = flags(Gated::of(quality), &channel.name, settings);
            passed &= !settings.enabled || !flags.iter().any(|flag| flag.fails);
            let measures = MEASURES.map(|(name, value)| (name.to_owned(), value(quality)));
            let mut measures = measures.to_vec();
            if let Some(nuclei) = nuclei.filter(|nuclei| nuclei.channel == channel.name) {
                measures.push((NUCLEI.to_owned(), count(&image, index, nuclei)?));
            }
            if let Some(stack) = stacks.get(index).filter(|stack| stack.planes > 1) {
                measures.push((PLANES.to_owned(), stack.planes.into()));
                measures.extend(stack.taken.map(|plane| (FOCUS_PLANE.to_owned(), plane.into())));
            }
            let changed = field.changed.iter().filter(|(of, _)| *of == channel.name);
            let changed = changed.map(|(_, text)| text.clone());
            let taken = stacks.get(index).map_or(0, |stack| stack.index);
            let planes = field.task.images.get(index).map(|images| &images.planes);
            let image = planes.and_then(|planes| planes.get(taken).or_else(|| planes.first()));
            Ok(ChannelMeasures {
                channel: channel.name.clone(),
                measures,
                flags: flags.into_iter().map(|flag| flag.text).chain(changed).collect(),
                uri: image.map(|image| field.run.store.address(&image.path)),
            })
        })
        .collect::<Result<_, StageError>>()?;
    Ok(Measured {
        field,
        tiles,
        quality,
        passed,
    })
}

/// The measure of the nuclei channel that counts them, by CellProfiler's name.
pub const NUCLEI: &str = "Count_Nuclei";

/// The measure of a channel with a z stack that counts its planes.
pub const PLANES: &str = "Planes";
/// The number of the plane that was taken of a channel's z stack, where it was one.
pub const FOCUS_PLANE: &str = "FocusPlane";
/// What is recorded of z stacks, in the order of the table's columns.
pub const OF_STACKS: [&str; 2] = [PLANES, FOCUS_PLANE];

/// Nuclei in a channel.
fn count(image: &RawImage, channel: usize, settings: &NucleiSettings) -> Result<f64, StageError> {
    let settings = nuclei::NucleiSettings {
        min_diameter: settings.min_diameter,
        max_diameter: settings.max_diameter,
        threshold: match settings.threshold {
            NucleiThreshold::Auto => nuclei::ThresholdMethod::Auto,
            NucleiThreshold::Li => nuclei::ThresholdMethod::Li,
            NucleiThreshold::Otsu => nuclei::ThresholdMethod::Otsu,
            NucleiThreshold::RobustBackground => nuclei::ThresholdMethod::RobustBackground,
        },
        correction: settings.correction,
        declump: match settings.declump {
            Declump::Shape => nuclei::Declump::Shape,
            Declump::Intensity => nuclei::Declump::Intensity,
            Declump::None => nuclei::Declump::None,
        },
        ..nuclei::NucleiSettings::default()
    };
    let found = nuclei::segment(image, channel, &settings);
    let found =
        found.map_err(|error| StageError::input(Stage::Quality, FailureClass::Configuration, error))?;
    Ok(found.labels.count() as f64)
}

/// A measure: its name and where it is found.
type Measure = (&'static str, fn(&ChannelQuality) -> f64);

/// The measures that are published, by CellProfiler's names where it has them.
pub const MEASURES: [Measure; 20] = [
    ("PowerLogLogSlope", |q| q.power_log_log_slope),
    ("PercentMaximal", |q| q.percent_maximal),
    ("PercentMinimal", |q| q.percent_minimal),
    ("PercentSaturated", |q| q.percent_saturated),
    ("MeanIntensity", |q| q.mean),
    ("MedianIntensity", |q| q.median),
    ("StdIntensity", |q| q.std),
    ("MADIntensity", |q| q.mad),
    ("MinIntensity", |q| q.min),
    ("MaxIntensity", |q| q.max),
    ("TotalIntensity", |q| q.total),
    ("Percentile0.1", |q| q.p001),
    ("Percentile1", |q| q.p01),
    ("Percentile99", |q| q.p99),
    ("Percentile99.9", |q| q.p999),
    ("FocusScore", |q| q.focus_score),
    ("LocalFocusScore_20", |q| q.local_focus_20),
    ("LocalFocusScore_50", |q| q.local_focus_50),
    ("LaplacianVariance", |q| q.laplacian_variance),
    ("Contrast", |q| q.contrast),
];

/// Judges measures that were made before by other gates: flags that are no gate's stay. What was not measured fails nothing.
pub fn judge_again(features: &mut FieldFeatures, settings: &QualitySettings) {
    features.passed = true;
    for channel in &mut features.quality {
        let measure = |name: &str| {
            let found = channel.measures.iter().find(|(of, _)| of == name);
            found.map_or(f64::NAN, |(_, value)| *value)
        };
        let gated = Gated {
            saturated: measure("PercentSaturated"),
            contrast: measure("Contrast"),
            slope: measure("PowerLogLogSlope"),
            tail: tail([
                measure("Percentile1"),
                measure("MedianIntensity"),
                measure("Percentile99"),
            ]),
        };
        let flags = flags(gated, &channel.channel, settings);
        features.passed &= !settings.enabled || !flags.iter().any(|flag| flag.fails);
        let of_gate = |text: &String| {
            let name = text.split_once(": ").map(|(name, _)| name);
            name.is_some_and(|name| GATES.contains(&name))
        };
        channel.flags.retain(|text| !of_gate(text));
        channel.flags.splice(..0, flags.into_iter().map(|flag| flag.text));
    }
}

/// What a gate looks at.
#[derive(Debug, Clone, Copy)]
struct Gated {
    saturated: f64,
    contrast: f64,
    slope: f64,
    /// How far the brightest hundredth lies above the median, beside how far the darkest lies below.
    tail: f64,
}

/// Noise alone, and light that falls off to the corners, have no longer tail above the median than below: a field with one has
/// something in it, though its contrast be low because cells cover more than half of it.
const TAIL_OF_NOISE: f64 = 1.2;

fn tail([p01, median, p99]: [f64; 3]) -> f64 {
    (p99 - median) / (median - p01)
}

impl Gated {
    fn of(quality: &ChannelQuality) -> Self {
        Self {
            saturated: quality.percent_saturated,
            contrast: quality.contrast,
            slope: quality.power_log_log_slope,
            tail: tail([quality.p01, quality.median, quality.p99]),
        }
    }
}

/// What a gate finds, as flags begin.
const GATES: [&str; 5] = [SATURATED, NEARLY_SATURATED, EMPTY, NEARLY_EMPTY, BLURRED];
const SATURATED: &str = "saturated";
const NEARLY_SATURATED: &str = "nearly saturated";
const EMPTY: &str = "empty";
const NEARLY_EMPTY: &str = "nearly empty";
const BLURRED: &str = "blurred";

struct Flag {
    text: String,
    fails: bool,
}

/// The flags a channel raises, each with metric, value and limit.
fn flags(gated: Gated, channel: &Channel, settings: &QualitySettings) -> Vec<Flag> {
    let Gated {
        saturated,
        contrast,
        slope,
        tail,
    } = gated;
    // Cells that crowd a field leave it little background to stand out from.
    let contrast_below = |limit| contrast < limit && (tail.is_nan() || tail < TAIL_OF_NOISE);
    let mut flags = Vec::new();
    let mut flag = |name: &str, fails, metric: &str, value: f64, sign, limit: f64| {
        flags.push(Flag {
            text: format!("{name}: {metric} {value:.3} {sign} {limit}"),
            fails,
        });
    };
    if saturated > settings.saturated_percent_fail {
        flag(
            SATURATED,
            true,
            "percent saturated",
            saturated,
            '>',
            settings.saturated_percent_fail,
        );
    } else if saturated > settings.saturated_percent_warn {
        flag(
            NEARLY_SATURATED,
            false,
            "percent saturated",
            saturated,
            '>',
            settings.saturated_percent_warn,
        );
    }
    if contrast_below(settings.contrast_fail) {
        flag(EMPTY, true, "contrast", contrast, '<', settings.contrast_fail);
    } else if contrast_below(settings.contrast_warn) {
        flag(
            NEARLY_EMPTY,
            false,
            "contrast",
            contrast,
            '<',
            settings.contrast_warn,
        );
    }
    if settings.nuclei_channel.as_ref() == Some(channel) {
        if slope > settings.slope_empty {
            flag(
                EMPTY,
                true,
                "power log-log slope",
                slope,
                '>',
                settings.slope_empty,
            );
        } else if slope < settings.slope_blur {
            flag(
                BLURRED,
                true,
                "power log-log slope",
                slope,
                '<',
                settings.slope_blur,
            );
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(saturated: f64) -> FieldFeatures {
        serde_json::from_value(serde_json::json!({
            "run": "r", "plate": "P", "well": "A01", "field": 1, "model": "m", "tiles": 1, "passed": true, "embedding": "AACAPw==",
            "quality": [{"channel": "DNA", "flags": ["nearly saturated: percent saturated 0.500 > 0.25", "changed: written again"],
                "measures": [["PercentSaturated", saturated], ["Contrast", 20.0], ["PowerLogLogSlope", -1.0]]}],
        }))
        .unwrap()
    }

    fn judged(settings: &QualitySettings, mut features: FieldFeatures) -> (bool, Vec<String>) {
        judge_again(&mut features, settings);
        (features.passed, features.quality.remove(0).flags)
    }

    #[test]
    fn measures_are_judged_by_other_gates_as_if_they_had_been_there() {
        let settings = QualitySettings::default();
        let (changed, warned) = (
            "changed: written again",
            "nearly saturated: percent saturated 0.500 > 0.25",
        );
        assert_eq!(
            judged(&settings, features(0.5)),
            (true, vec![warned.to_owned(), changed.to_owned()])
        );
        let strict = QualitySettings {
            saturated_percent_fail: 0.4,
            ..settings.clone()
        };
        let failed = "saturated: percent saturated 0.500 > 0.4";
        let flags = vec![failed.to_owned(), changed.to_owned()];
        assert_eq!(judged(&strict, features(0.5)), (false, flags.clone()));
        let off = QualitySettings {
            enabled: false,
            ..strict
        };
        assert_eq!(judged(&off, features(0.5)), (true, flags));
        assert_eq!(judged(&settings, features(0.1)), (true, vec![changed.to_owned()]));
        // What was not measured is not judged.
        let mut unmeasured = features(9.0);
        unmeasured.quality[0].measures.clear();
        assert_eq!(judged(&settings, unmeasured), (true, vec![changed.to_owned()]));
    }

    /// Fields of cells that cover 30, 60 and 90 % of it, and fields of none with noise and light that falls off by 0, 20 and 40 %.
    #[test]
    fn a_crowded_field_is_not_an_empty_one() {
        const SIDE: usize = 96;
        let plane = |cover: f64, falls: f64| -> Vec<u16> {
            let mut state = 7_u64;
            let mut random = move || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f64 / (1_u64 << 24) as f64
            };
            let pixel = |i: usize| {
                let (y, x) = ((i / SIDE) as f64, (i % SIDE) as f64);
                // Domes side by side, each of which fills its share of a square of 16 pixels.
                let radius = 16.0 * (cover / std::f64::consts::PI).sqrt();
                let from_centre = (y % 16.0 - 7.5).hypot(x % 16.0 - 7.5) / radius.max(0.1);
                let cell = 2_000.0 * (1.0 - from_centre * from_centre).max(0.0);
                let half = SIDE as f64 / 2.0;
                let light = 1.0 - falls * ((y - half).powi(2) + (x - half).powi(2)) / (2.0 * half * half);
                let noise = 20.0 * ((0..12).map(|_| random()).sum::<f64>() - 6.0);
                ((500.0 + cell) * light + noise).round() as u16
            };
            (0..SIDE * SIDE).map(pixel).collect()
        };
        let given = [
            (0.3, 0.2),
            (0.6, 0.2),
            (0.9, 0.2),
            (0.0, 0.0),
            (0.0, 0.2),
            (0.0, 0.4),
        ];
        let planes: Vec<Vec<u16>> = given.iter().map(|(cover, falls)| plane(*cover, *falls)).collect();
        let image = RawImage::from_planes(&planes, SIDE, SIDE, u16::MAX).unwrap();
        let device = Device::open(wellspring_kernels::DeviceChoice::Cpu).unwrap();
        let (dna, settings) = ("DNA".parse().unwrap(), QualitySettings::default());
        for ((cover, falls), quality) in given.iter().zip(device.quality(&image).unwrap()) {
            let flags = flags(Gated::of(&quality), &dna, &settings);
            let is_empty = flags
                .iter()
                .any(|flag| flag.fails && flag.text.starts_with(EMPTY));
            assert_eq!(
                is_empty,
                *cover == 0.0,
                "{cover} {falls}: contrast {}",
                quality.contrast
            );
        }
    }

    /// The reference fields of `../shared/oracles` (8 of 256 x 320 pixels) fail the gates of their names with the limits that
    /// screens have by default.
    #[test]
    fn the_reference_fields_raise_the_flags_of_their_names() {
        const SHAPE: [usize; 3] = [8, 256, 320];
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles/qc_images.npy");
        let Ok(bytes) = std::fs::read(path) else {
            eprintln!("skipped: ../shared not present");
            return;
        };
        let data = &bytes[bytes.len() - 2 * SHAPE.iter().product::<usize>()..];
        let pixels = data
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        let image = RawImage::new(SHAPE[0], SHAPE[1], SHAPE[2], pixels, u16::MAX).unwrap();
        let device = Device::open(wellspring_kernels::DeviceChoice::Cpu).unwrap();
        let dna: Channel = "DNA".parse().unwrap();
        let settings = QualitySettings {
            nuclei_channel: Some(dna.clone()),
            ..QualitySettings::default()
        };
        let names = [
            "focus",
            "blur2",
            "blur6",
            "saturated",
            "empty",
            "debris",
            "dim",
            "constant",
        ];
        for (name, quality) in names.iter().zip(device.quality(&image).unwrap()) {
            let flags = flags(Gated::of(&quality), &dna, &settings);
            let fails = |word: &str| flags.iter().any(|flag| flag.fails && flag.text.starts_with(word));
            match *name {
                "blur6" => assert!(fails("blurred"), "{name}"),
                "empty" | "constant" => assert!(fails("empty"), "{name}"),
                "saturated" => assert!(fails("saturated"), "{name}"),
                "focus" | "blur2" | "dim" => assert!(flags.iter().all(|flag| !flag.fails), "{name}"),
                _ => {}
            }
        }
    }
}
