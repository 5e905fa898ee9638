//! Reads the tables of a screen file.
//!
//! Text enters, a checked [`Screen`] leaves, or every problem of the file.

use toml::de::{DeTable, DeValue};

use super::nuclei::nuclei;
use super::read_added::steps;
use super::read_comparison::{check_dose_unit, comparison, monitor};
use super::read_steps::{preprocess, quality};
use super::table::{Report, Table, Value, place};
use super::*;
use crate::layout::{Layout, LayoutError};
use crate::words::Channel;

/// `models`: the names a model may have; none: any.
pub(super) fn read(text: &str, file_name: &str, models: &[&str]) -> Result<Screen, ScreenErrors> {
    let mut report = Report::default();
    if text.len() > MAX_SCREEN_BYTES {
        let (bytes, limit) = (text.len(), MAX_SCREEN_BYTES);
        report.add(0, ScreenProblem::TooLarge { bytes, limit });
        return Err(report.into_errors("", file_name));
    }
    let (document, syntax) = DeTable::parse_recoverable(text);
    let screen = screen(&mut report, document.get_ref(), models);
    if !syntax.is_empty() {
        let problem = |error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            let reason = error.message().to_owned();
            (at, ScreenProblem::Syntax { reason })
        };
        report.keep_certain(text, syntax.into_iter().map(problem).collect());
    }
    match screen {
        Some(screen) if report.is_empty() => Ok(screen),
        _ => Err(report.into_errors(text, file_name)),
    }
}

/// Line and column of the value of a dotted name, or of the innermost table of it that the text has.
pub(super) fn place_of(text: &str, name: &str) -> Option<(usize, usize)> {
    let (document, _) = DeTable::parse_recoverable(text);
    let (mut table, mut found) = (Some(document.get_ref()), None);
    for key in name.split('.') {
        let Some(value) = table.and_then(|table| table.get(key)) else {
            break;
        };
        found = Some(value.span().start);
        table = value.get_ref().as_table();
    }
    found.map(|at| place(text, at))
}

fn screen(report: &mut Report, document: &DeTable<'_>, models: &[&str]) -> Option<Screen> {
    let mut root = Table::root(document);
    let head = root.need(report, "screen", "a table with the screen's name");
    let head = report.table(head).map(|mut table| {
        let name = table.need(report, "name", "a short name, such as \"rescue-2026\"");
        let name = report.parsed::<ScreenName>(name);
        let version = table.get("version");
        let version = report.count(version, 1..=1_000_000).unwrap_or(1);
        let description = table.get("description");
        let description = report.text(description);
        table.finish(report);
        (name, version, description.unwrap_or_default())
    });
    let value = root.get("profiles");
    let profiles = report.table(value).map(|table| profiles_settings(report, table));
    let value = if profiles.is_some() {
        root.get("images")
    } else {
        root.need(
            report,
            "images",
            "a table with store and channels; or [profiles], for tables of features made elsewhere",
        )
    };
    let images = match (value, &profiles) {
        (None, Some(_)) => Some(ImagesSettings::default()),
        (value, _) => report
            .table(value)
            .and_then(|table| images_settings(report, table)),
    };
    let channels: &[ChannelSettings] = images.as_ref().map_or(&[], |images| &images.channels);

    let value = if profiles.is_some() {
        root.get("plate_map")
    } else {
        root.need(report, "plate_map", "a table with the plate map's file")
    };
    let plate_map = match (value, &profiles) {
        (None, Some(_)) => Some((Some(PlateMapSettings::default()), None)),
        (value, profiles) => report
            .table(value)
            .map(|table| plate_map_settings(report, table, profiles.is_none())),
    };
    let controls = root.need(report, "controls", "a table with reference and phenotype");
    // Of the settings of the comparison one decides what the controls must be.
    let activity = root.get("comparison").is_some_and(|value| {
        let table = value.value.as_table();
        let question = table.and_then(|table| table.get("question"));
        question.and_then(|question| question.get_ref().as_str()) == Some("activity")
    });
    let controls = report
        .table(controls)
        .map(|table| controls_settings(report, table, activity));

    let table = root.get("preprocess");
    let table = report.table(table);
    let preprocess = table.map(|table| preprocess(report, table, channels.len()));
    let table = root.get("quality");
    let table = report.table(table);
    let quality = quality(report, table, channels);
    let table = root.get("nuclei");
    let table = report.table(table);
    let nuclei = table.map(|table| nuclei(report, table, channels, &quality));
    let table = root.get("model");
    let model = report.table(table).map(|table| model(report, table, models));
    let value = root.get("comparison");
    let dose_unit = plate_map.as_ref().and_then(|(_, unit)| unit.as_deref());
    let comparison = comparison(report, value, dose_unit);
    let value = root.get("steps");
    let first = model
        .as_ref()
        .map_or_else(|| ModelSettings::default().name, |model| model.name.clone());
    let steps = steps(
        report,
        value,
        nuclei.is_some(),
        profiles.is_some(),
        &first,
        models,
    );
    let value = root.get("monitor");
    let monitor = monitor(report, value);
    let table = root.get("resources");
    let resources = report.table(table).map(|table| resources(report, table));
    let table = root.get("output");
    let output = report.table(table).map(|table| output(report, table));
    root.finish(report);

    let (name, version, description) = head?;
    let mut plate_map = plate_map?.0?;
    plate_map.dose_unit.clone_from(&comparison.dose_unit);
    Some(Screen {
        name: name?,
        version,
        description,
        images: images?,
        profiles,
        plate_map,
        controls: controls??,
        preprocess: preprocess.unwrap_or_default(),
        quality,
        nuclei: nuclei.flatten(),
        model: model.unwrap_or_default(),
        networks: steps.networks,
        steps: steps.external,
        comparison,
        monitor,
        resources: resources.unwrap_or_default(),
        output: output.unwrap_or_default(),
    })
}

fn images_settings(report: &mut Report, mut table: Table<'_>) -> Option<ImagesSettings> {
    let store = table.need(report, "store", "the folder or URI of the images");
    let store = report.text(store);
    let layout_value = table.get("layout");
    let chosen = report
        .word(layout_value.clone(), LayoutChoice::WORDS)
        .and_then(LayoutChoice::from_word);
    let plate = table.get("plate");
    let plate = report.parsed::<Barcode>(plate);
    let pattern_value = table.get("pattern");
    let pattern = report.text(pattern_value.clone());
    let layout = match (chosen, &pattern) {
        (None, Some(_)) => LayoutChoice::Pattern,
        (chosen, _) => chosen.unwrap_or_default(),
    };
    match (layout, &pattern, &pattern_value) {
        (LayoutChoice::Pattern, Some(pattern), Some(value)) => {
            if let Err(error) = Layout::from_pattern(pattern, None) {
                report.unusable(value, error);
            }
        }
        (LayoutChoice::Pattern, None, None) => {
            if let Some(value) = &layout_value {
                report.unusable(value, LayoutError::NoPattern);
            }
        }
        (_, Some(_), Some(value)) => {
            report.unusable(
                value,
                format!("not used by layout = \"{layout}\": leave one of the two out"),
            );
        }
        _ => {}
    }
    let remedy = "the channels in order, such as [\"DNA\", { name = \"ER\", match = \"w2\" }]";
    let channels = table
        .need(report, "channels", remedy)
        .and_then(|value| channels(report, value));
    let fields = table.get("fields_per_well");
    let fields_per_well = report.count(fields, 1..=10_000);
    let minutes = table.get("deadline_minutes");
    let deadline_minutes = report.count(minutes, 1..=100_000);
    let depth = table.get("bit_depth");
    let bit_depth = report
        .count(depth.clone(), 1..=16)
        .and_then(|bits| u8::try_from(bits).ok());
    if let (Some(bits), Some(value)) = (bit_depth, &depth)
        && ![8, 12, 14, 16].contains(&bits)
    {
        report.unusable(value, format!("{bits}: detectors have 8, 12, 14 or 16 bits"));
    }
    let z = table.get("z");
    let z = report.word(z, ZStack::WORDS).and_then(ZStack::from_word);
    let mut plates = Vec::new();
    if let Some(value) = table.get("plates") {
        match value.entries() {
            None => report.wrong_type(&value, "a list of barcodes"),
            Some(entries) => {
                for entry in entries {
                    if let Some(plate) = report.parsed::<Barcode>(Some(entry.clone())) {
                        if plates.contains(&plate) {
                            report.duplicate(&entry, &value.key, plate.as_str());
                        }
                        plates.push(plate);
                    }
                }
            }
        }
    }
    table.finish(report);
    Some(ImagesSettings {
        // Unread parts only matter for the checks of other tables; the report is not empty then.
        store: store.unwrap_or_default(),
        layout,
        pattern,
        plate,
        channels: channels?,
        fields_per_well,
        deadline_minutes,
        bit_depth,
        z: z.unwrap_or_default(),
        plates,
    })
}

fn channels(report: &mut Report, value: Value<'_>) -> Option<Vec<ChannelSettings>> {
    let Some(entries) = value.entries() else {
        report.wrong_type(&value, "a list of channels");
        return None;
    };
    if entries.is_empty() {
        report.unusable(&value, "empty: list at least one channel");
        return None;
    }
    let mut channels: Vec<ChannelSettings> = Vec::new();
    for entry in &entries {
        let (name, matches) = if entry.value.is_table() {
            let mut table = report.table(Some(entry.clone()))?;
            let name = table.need(report, "name", "the channel's name, such as \"DNA\"");
            let name = report.parsed::<Channel>(name);
            let matches = table.get("match");
            let matches = report.text(matches);
            table.finish(report);
            (name, matches)
        } else {
            (report.parsed::<Channel>(Some(entry.clone())), None)
        };
        let Some(name) = name else { continue };
        let matches = matches.unwrap_or_else(|| name.as_str().to_owned());
        if channels.iter().any(|other| other.name == name) {
            report.duplicate(entry, &value.key, name.as_str());
        } else if channels
            .iter()
            .any(|other| other.matches.eq_ignore_ascii_case(&matches))
        {
            report.duplicate(entry, &format!("{} (match)", value.key), &matches);
        }
        channels.push(ChannelSettings { name, matches });
    }
    (channels.len() == entries.len()).then_some(channels)
}

fn profiles_settings(report: &mut Report, mut table: Table<'_>) -> ProfilesSettings {
    let features = table.get("features");
    let features = texts(report, features);
    let plate = table.get("plate");
    let plate = texts(report, plate);
    let mut column = |key| {
        let value = table.get(key);
        report.text(value)
    };
    let settings = ProfilesSettings {
        features,
        plate,
        well: column("well"),
        site: column("site"),
        cell_count: column("cell_count"),
        key: column("key"),
    };
    table.finish(report);
    settings
}

/// A text or a list of texts.
fn texts(report: &mut Report, value: Option<Value<'_>>) -> Vec<String> {
    let entries = value.map(|value| value.entries().unwrap_or_else(|| vec![value]));
    let entries = entries.into_iter().flatten();
    entries.filter_map(|entry| report.text(Some(entry))).collect()
}

/// The settings, and the unit if the table gives one.
fn plate_map_settings(
    report: &mut Report,
    mut table: Table<'_>,
    file_needed: bool,
) -> (Option<PlateMapSettings>, Option<String>) {
    let file = if file_needed {
        let file = table.need(report, "file", "the plate map's CSV file or URI");
        report.text(file)
    } else {
        let file = table.get("file");
        Some(report.text(file).unwrap_or_default())
    };
    let value = table.get("columns");
    let columns = report.table(value).map(|mut table| {
        let mut column = |key| {
            let value = table.get(key);
            report.text(value)
        };
        let columns = PlateMapColumns {
            plate: column("plate"),
            well: column("well"),
            compound: column("compound"),
            dose: column("dose"),
            disease: column("disease"),
        };
        table.finish(report);
        columns
    });
    let mut constant = |key| {
        let value = table.get(key);
        report.text(value)
    };
    let compound = constant("compound");
    let disease = constant("disease");
    let unit_value = table.get("dose_unit");
    let unit = report.text(unit_value.clone());
    if let (Some(unit), Some(value)) = (&unit, &unit_value) {
        check_dose_unit(report, &value.key, value.at, unit);
    }
    let mut constant = |key| {
        let value = table.get(key);
        report.text(value)
    };
    let sheet = constant("sheet");
    let external = constant("external");
    table.finish(report);
    let settings = file.map(|file| PlateMapSettings {
        file,
        sheet,
        external,
        columns: columns.unwrap_or_default(),
        compound,
        disease,
        dose_unit: String::new(),
    });
    (settings, unit)
}

fn controls_settings(report: &mut Report, mut table: Table<'_>, activity: bool) -> Option<Controls> {
    let remedy = "the wells that define 0, such as { role = \"negative_control\" }";
    let reference = table
        .need(report, "reference", remedy)
        .and_then(|value| selector(report, value));
    let remedy = "the wells that define 1, such as { role = \"disease\" }; a screen with reference wells only sets \
                  comparison.question = \"activity\"";
    let phenotype = if activity {
        table.get("phenotype")
    } else {
        table.need(report, "phenotype", remedy)
    };
    let named = phenotype.is_some() || !activity;
    let phenotype = phenotype.and_then(|value| selector(report, value));
    if named && phenotype.is_none() {
        table.finish(report);
        return None;
    }
    let mut exclude = Vec::new();
    if let Some(value) = table.get("exclude") {
        let selectors = value.entries().unwrap_or_else(|| vec![value]);
        exclude = selectors
            .into_iter()
            .filter_map(|value| selector(report, value))
            .collect();
    }
    if let (Some(one), Some(other)) = (&reference, &phenotype)
        && one == other
    {
        let problem = ScreenProblem::Unusable {
            key: "controls".to_owned(),
            reason: "reference and phenotype select the same wells: they define the two ends of one axis"
                .to_owned(),
        };
        report.add(table.at(), problem);
    }
    table.finish(report);
    Some(Controls {
        reference: reference?,
        phenotype,
        exclude,
    })
}

fn selector(report: &mut Report, value: Value<'_>) -> Option<Selector> {
    let table = report.table(Some(value.clone()))?;
    let mut columns = std::collections::BTreeMap::new();
    for (column, value) in table.free() {
        let wanted = value.entries().unwrap_or_else(|| vec![value.clone()]);
        if wanted.is_empty() {
            report.unusable(&value, "an empty list: name at least one value");
        }
        let values: Vec<SelectorValue> = wanted
            .iter()
            .filter_map(|value| selector_value(report, value))
            .collect();
        columns.insert(column, values);
    }
    if columns.is_empty() {
        report.unusable(
            &value,
            "this selects every well: name a column of the plate map and its value",
        );
        return None;
    }
    Some(Selector(columns))
}

fn selector_value(report: &mut Report, value: &Value<'_>) -> Option<SelectorValue> {
    match (value.value, value.as_number()) {
        (DeValue::Boolean(flag), _) => return Some(SelectorValue::Bool(*flag)),
        (DeValue::String(text), _) => return Some(SelectorValue::Text(text.to_string())),
        (_, Some(number)) if number.is_finite() => return Some(SelectorValue::Number(number)),
        _ => report.wrong_type(
            value,
            "a string, a finite number, true, false, or a list of these",
        ),
    }
    None
}

fn model(report: &mut Report, mut table: Table<'_>, models: &[&str]) -> ModelSettings {
    let mut settings = ModelSettings::default();
    let value = table.get("name");
    if let (Some(name), Some(value)) = (report.text(value.clone()), &value) {
        model_name(report, value, &name, models);
        settings.name = name;
    }
    let value = table.get("engine");
    let engine = report
        .word(value, EngineChoice::WORDS)
        .and_then(EngineChoice::from_word);
    settings.engine = engine.unwrap_or_default();
    table.finish(report);
    settings
}

/// Reports a name that no model can have, or that none of `models` has.
pub(super) fn model_name(report: &mut Report, value: &Value<'_>, name: &str, models: &[&str]) {
    let usable = name.len() <= 64
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !usable {
        report.unusable(
            value,
            "a model's name has at most 64 letters, digits, '-', '_' and '.'",
        );
    } else if !models.is_empty() && !models.contains(&name) {
        report.unknown_word(&value.key, name, value.at, models);
    }
}

fn resources(report: &mut Report, mut table: Table<'_>) -> ResourceSettings {
    let default = ResourceSettings::default();
    let value = table.get("decode_threads");
    let decode_threads = report.count(value, 1..=1024);
    let value = table.get("engine_threads");
    let engine_threads = report.count(value, 1..=1024);
    let value = table.get("batch_size");
    let batch_size = report.count(value, 1..=4096).unwrap_or(default.batch_size);
    let value = table.get("in_flight_bytes");
    let in_flight_bytes = bytes(report, value);
    let value = table.get("device");
    let device = report
        .word(value, DeviceChoice::WORDS)
        .and_then(DeviceChoice::from_word);
    let value = table.get("weight");
    let weight = report.count(value, 1..=1_000).unwrap_or(default.weight);
    table.finish(report);
    ResourceSettings {
        decode_threads,
        engine_threads,
        batch_size,
        in_flight_bytes,
        device: device.unwrap_or_default(),
        weight,
    }
}

/// A number of bytes, or text such as `"256 MiB"`; 1 MiB to 1 TiB.
fn bytes(report: &mut Report, value: Option<Value<'_>>) -> Option<u64> {
    const RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
    let value = value?;
    let Some(text) = value.value.as_str() else {
        return report.whole(Some(value), RANGE);
    };
    let parsed = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]
        .into_iter()
        .find_map(|(unit, shift)| {
            let number: u64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            number
                .checked_mul(1 << shift)
                .filter(|bytes| RANGE.contains(bytes))
        });
    if parsed.is_none() {
        report.unusable(
            &value,
            format!("'{text}' is not 1 MiB to 1 TiB: write bytes, or \"256 MiB\" or \"2 GiB\""),
        );
    }
    parsed
}

fn output(report: &mut Report, mut table: Table<'_>) -> OutputSettings {
    let value = table.get("folder");
    let folder = report.text(value);
    let value = table.get("report");
    let html = report.boolean(value).unwrap_or(OutputSettings::default().report);
    table.finish(report);
    OutputSettings { folder, report: html }
}
