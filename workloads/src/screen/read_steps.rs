//! Reads `[preprocess]` and `[quality]`.

use super::table::{Report, Table, Value};
use super::{
    Background, ChannelSettings, PreprocessSettings, QualitySettings, Resize, ResizeMethod, ResizeTo,
    Scaling, Tiling,
};
use crate::words::Channel;

/// Grey levels of a 16-bit detector.
const GREY: std::ops::RangeInclusive<f64> = 0.0..=65535.0;
const PERCENT: std::ops::RangeInclusive<f64> = 0.0..=100.0;

pub(super) fn preprocess(report: &mut Report, mut table: Table<'_>, channels: usize) -> PreprocessSettings {
    let default = PreprocessSettings::default();
    let value = table.get("illumination");
    let illumination = template(report, value, channels);
    let value = table.get("dark_field");
    let dark_field = template(report, value, channels);
    let percent_value = table.get("background_percentile");
    let percent = report.number(percent_value.clone(), PERCENT);
    let value = table.get("background");
    let is_said = value.is_some();
    let background = value.and_then(|value| background(report, value, percent, channels));
    let is_unused = match &background {
        Some(Background::Percentile { .. }) => false,
        Some(_) => true,
        None => !is_said,
    };
    if let (Some(value), true) = (percent_value, is_unused) {
        report.unusable(&value, "not used without background = \"percentile\"");
    }
    let value = table.get("resize");
    let resize = value.and_then(|value| resize(report, value));
    let percentiles_value = table.get("percentiles");
    let percentiles = percentiles_value
        .clone()
        .and_then(|value| ordered_pair(report, value))
        .unwrap_or((0.1, 99.9));
    let value = table.get("scaling");
    let scaling = match value {
        Some(value) => scaling(report, value, percentiles, channels),
        None => Some(Scaling::Image {
            low: percentiles.0,
            high: percentiles.1,
        }),
    };
    if let (Some(value), Some(Scaling::None | Scaling::Fixed { .. })) = (percentiles_value, &scaling) {
        report.unusable(&value, "not used with this scaling, which takes no percentiles");
    }
    let value = table.get("tiling");
    let tiling = report.word(value, Tiling::WORDS).and_then(Tiling::from_word);
    table.finish(report);
    PreprocessSettings {
        illumination,
        dark_field,
        background: background.unwrap_or(default.background),
        resize,
        scaling: scaling.unwrap_or(default.scaling),
        tiling: tiling.unwrap_or_default(),
    }
}

/// The path of a plane for every channel.
fn template(report: &mut Report, value: Option<Value<'_>>, channels: usize) -> Option<String> {
    let template = report.text(value.clone())?;
    if let Some(value) = &value {
        template_words(report, value, &template, channels);
    }
    Some(template)
}

fn template_words(report: &mut Report, value: &Value<'_>, template: &str, channels: usize) {
    let mut rest = template;
    while let Some((_, tail)) = rest.split_once('{') {
        let (word, tail) = tail.split_once('}').unwrap_or((tail, ""));
        if !["channel", "plate"].contains(&word) {
            let word = format!("{{{word}}}");
            report.unknown_word(&value.key, &word, value.at, &["{channel}", "{plate}"]);
        }
        rest = tail;
    }
    if channels > 1 && !template.contains("{channel}") {
        report.unusable(
            value,
            "one function for several channels: put {channel} into the path",
        );
    }
}

fn background(
    report: &mut Report,
    value: Value<'_>,
    percent: Option<f64>,
    channels: usize,
) -> Option<Background> {
    if value.value.is_table() {
        return wide_background(report, value);
    }
    if value.value.is_str() {
        let others = "grey levels, { top_hat = RADIUS }, { gaussian = SIGMA }, { rolling_ball = RADIUS }";
        return Some(match report.word_or(&value, &["none", "percentile"], others)? {
            "percentile" => Background::Percentile {
                percent: percent.unwrap_or(1.0),
            },
            _ => Background::None,
        });
    }
    let levels = report.per_channel(Some(value), channels, GREY)?;
    Some(Background::Constant { levels })
}

/// A table of one key: what is wider than objects is background.
fn wide_background(report: &mut Report, value: Value<'_>) -> Option<Background> {
    const RADIUS: std::ops::RangeInclusive<u32> = 1..=512;
    let mut table = report.table(Some(value.clone()))?;
    let [top_hat, gaussian, ball] = ["top_hat", "gaussian", "rolling_ball"].map(|key| table.get(key));
    table.finish(report);
    match (top_hat, gaussian, ball) {
        (Some(radius), None, None) => {
            let radius = report.count(Some(radius), RADIUS)?;
            Some(Background::TopHat { radius })
        }
        (None, Some(sigma), None) => {
            let sigma = report.number(Some(sigma), 0.1..=1_000.0)?;
            Some(Background::Gaussian { sigma })
        }
        (None, None, Some(radius)) => {
            let radius = report.count(Some(radius), RADIUS)?;
            Some(Background::RollingBall { radius })
        }
        _ => {
            report.unusable(
                &value,
                "give one of top_hat, gaussian and rolling_ball, with its radius or sigma in pixels",
            );
            None
        }
    }
}

fn scaling(
    report: &mut Report,
    value: Value<'_>,
    (low, high): (f64, f64),
    channels: usize,
) -> Option<Scaling> {
    if !value.value.is_table() {
        let words = ["none", "image", "controls"];
        return Some(
            match report.word_or(&value, &words, "{ low = LEVEL, high = LEVEL }")? {
                "image" => Scaling::Image { low, high },
                "controls" => Scaling::Controls { low, high },
                _ => Scaling::None,
            },
        );
    }
    let mut table = report.table(Some(value.clone()))?;
    let low = table.need(
        report,
        "low",
        "the grey level that becomes 0, one or one per channel",
    );
    let low = report.per_channel(low, channels, GREY);
    let high = table.need(
        report,
        "high",
        "the grey level that becomes 1, one or one per channel",
    );
    let high = report.per_channel(high, channels, GREY);
    table.finish(report);
    let (low, high) = (low?, high?);
    if low.iter().zip(&high).any(|(low, high)| low >= high) {
        report.unusable(&value, "low must lie below high in every channel");
        return None;
    }
    Some(Scaling::Fixed { low, high })
}

/// `[low, high]` in percent.
fn ordered_pair(report: &mut Report, value: Value<'_>) -> Option<(f64, f64)> {
    let entries = value.entries().unwrap_or_default();
    let [low, high] = entries.as_slice() else {
        report.wrong_type(&value, "two percentiles, such as [0.1, 99.9]");
        return None;
    };
    let low = report.number(Some(low.clone()), PERCENT);
    let high = report.number(Some(high.clone()), PERCENT);
    let (low, high) = (low?, high?);
    if low >= high {
        report.unusable(&value, "the first percentile must lie below the second");
        return None;
    }
    Some((low, high))
}

/// A factor, `[width, height]`, or a table of `factor` or `width` and `height`, and `method`.
fn resize(report: &mut Report, value: Value<'_>) -> Option<Resize> {
    const FACTOR: std::ops::RangeInclusive<f64> = 0.01..=8.0;
    const SIDE: std::ops::RangeInclusive<u32> = 1..=16_384;
    if value.as_number().is_some() {
        let to = ResizeTo::Factor(report.number(Some(value), FACTOR)?);
        let method = ResizeMethod::default();
        return Some(Resize { to, method });
    }
    let mut table = report.table(Some(value.clone()))?;
    let factor = table.get("factor");
    let width = table.get("width");
    let height = table.get("height");
    let method = table.get("method");
    let method = report
        .word(method, ResizeMethod::WORDS)
        .and_then(ResizeMethod::from_word);
    let to = match (factor, width, height) {
        (Some(factor), None, None) => report.number(Some(factor), FACTOR).map(ResizeTo::Factor),
        (None, Some(width), Some(height)) => {
            let width = report.count(Some(width), SIDE);
            let height = report.count(Some(height), SIDE);
            width
                .zip(height)
                .map(|(width, height)| ResizeTo::Size { width, height })
        }
        _ => {
            report.unusable(&value, "give either factor, or both width and height");
            None
        }
    };
    table.finish(report);
    let method = method.unwrap_or_default();
    to.map(|to| Resize { to, method })
}

pub(super) fn quality(
    report: &mut Report,
    table: Option<Table<'_>>,
    channels: &[ChannelSettings],
) -> QualitySettings {
    let mut settings = QualitySettings::default();
    let named = |name: &str| {
        channels
            .iter()
            .map(|channel| &channel.name)
            .find(|channel| channel.as_str() == name)
            .cloned()
    };
    settings.nuclei_channel = named("DNA");
    let Some(mut table) = table else { return settings };
    let value = table.get("enabled");
    settings.enabled = report.boolean(value).unwrap_or(settings.enabled);
    let numbers = [
        (
            "saturated_percent_warn",
            &mut settings.saturated_percent_warn,
            PERCENT,
        ),
        (
            "saturated_percent_fail",
            &mut settings.saturated_percent_fail,
            PERCENT,
        ),
        ("contrast_warn", &mut settings.contrast_warn, 0.0..=1e6),
        ("contrast_fail", &mut settings.contrast_fail, 0.0..=1e6),
        ("slope_empty", &mut settings.slope_empty, -100.0..=100.0),
        ("slope_blur", &mut settings.slope_blur, -100.0..=100.0),
        ("min_fields_percent", &mut settings.min_fields_percent, PERCENT),
        (
            "plate_failed_percent",
            &mut settings.plate_failed_percent,
            PERCENT,
        ),
        (
            "control_failed_percent",
            &mut settings.control_failed_percent,
            PERCENT,
        ),
    ];
    for (key, setting, range) in numbers {
        let value = table.get(key);
        *setting = report.number(value, range).unwrap_or(*setting);
    }
    // A field that fails is beyond what a person is warned of.
    let QualitySettings {
        contrast_warn,
        contrast_fail,
        saturated_percent_warn: saturated_warn,
        saturated_percent_fail: saturated_fail,
        slope_empty,
        slope_blur,
        ..
    } = settings;
    // Whoever says only when a field fails need not say when it is warned of.
    for (keys, either, wrong, why) in [
        (
            ["contrast_warn", "contrast_fail"],
            false,
            contrast_warn < contrast_fail,
            format!(
                "contrast_warn ({contrast_warn}) lies below contrast_fail ({contrast_fail}): nothing would be warned of"
            ),
        ),
        (
            ["saturated_percent_warn", "saturated_percent_fail"],
            false,
            saturated_warn > saturated_fail,
            format!(
                "saturated_percent_warn ({saturated_warn}) lies above saturated_percent_fail ({saturated_fail}): nothing would \
                 be warned of"
            ),
        ),
        (
            ["slope_empty", "slope_blur"],
            true,
            slope_empty <= slope_blur,
            format!(
                "slope_empty ({slope_empty}) must lie above slope_blur ({slope_blur}): every field would fail"
            ),
        ),
    ] {
        let [first, second] = keys.map(|key| table.get(key));
        let is_meant = either || first.is_some() && second.is_some();
        if let (true, Some(value)) = (wrong && is_meant, first.or(second)) {
            report.unusable(&value, why);
        }
    }
    let value = table.get("min_fields");
    settings.min_fields = report.count(value, 1..=10_000).unwrap_or(settings.min_fields);
    if let Some(value) = table.get("nuclei_channel")
        && let Some(channel) = report.parsed::<Channel>(Some(value.clone()))
    {
        settings.nuclei_channel = named(channel.as_str());
        if settings.nuclei_channel.is_none() && !channels.is_empty() {
            let known: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
            report.unknown_word(&value.key, channel.as_str(), value.at, &known);
        }
    }
    table.finish(report);
    settings
}
