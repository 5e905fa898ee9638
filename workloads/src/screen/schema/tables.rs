//! The tables of a screen file, key by key; `[comparison]` and `[monitor]` are in `comparison.rs`.

use serde_json::{Value, json};

use super::form::{
    Key, either, key, list, list_of, needed, number, or_else, pattern, table, text, whole, word, yes_or_no,
};
use crate::screen::{
    Declump, DeviceChoice, EngineChoice, LayoutChoice, ModelSettings, NucleiThreshold, QualitySettings,
    Reply, ResizeMethod, ResourceSettings, StepKind, Tiling, ZStack,
};

/// Plate barcodes and channels: no path separator, no control character.
fn name() -> Value {
    pattern(r"^(?=.*\S)[^/\\\u0000-\u001f\u007f]{1,200}$")
}

fn grey_level() -> Value {
    number(0.0..=65535.0)
}

/// One number for all channels, or one per channel.
fn per_channel() -> Value {
    either([grey_level(), list(&grey_level())])
}

/// Columns of the plate map and the values a selected row must have.
fn selector() -> Value {
    let value = json!({ "type": ["string", "number", "boolean"] });
    json!({
        "type": "object", "minProperties": 1,
        "additionalProperties": either([value.clone(), list_of(1, &value)]),
    })
}

pub(super) fn screen() -> Value {
    table([
        needed(
            "name",
            "1 to 64 lower-case letters, digits, '-' and '_'.",
            pattern("^[a-z0-9_-]{1,64}$"),
        ),
        key(
            "version",
            "Counts up where a screen is changed and submitted again under its name.",
            or_else(whole(1..=1_000_000), 1),
        ),
        key("description", "What it is about, for people.", text()),
    ])
}

pub(super) fn images() -> Value {
    let channel = table([
        needed("name", "The channel's name in results, such as DNA.", name()),
        key(
            "match",
            "What stands for it in file names, such as w1. Default: its name.",
            text(),
        ),
    ]);
    let channel = either([name(), channel]);
    table([
        needed(
            "store",
            "Folder or URI of the images, relative to this file.",
            text(),
        ),
        key(
            "layout",
            "How file names are read.",
            or_else(word(LayoutChoice::WORDS), LayoutChoice::default().word()),
        ),
        key(
            "pattern",
            "Regular expression with groups plate, well (or row and column), field, channel, plane.",
            text(),
        ),
        key(
            "plate",
            "The plate's barcode, where file names do not hold it.",
            name(),
        ),
        needed(
            "channels",
            "The channels in the order of the embedding.",
            list_of(1, &channel),
        ),
        key(
            "fields_per_well",
            "Default: the plate's most common count.",
            whole(1..=10_000),
        ),
        key(
            "deadline_minutes",
            "How long a plate that is still being imaged is waited for after the last that was heard of it. Default: a day.",
            whole(1..=100_000),
        ),
        key(
            "bit_depth",
            "True bits of the detector. Default: the file's.",
            json!({ "type": "integer", "enum": [8, 12, 14, 16] }),
        ),
        key(
            "z",
            "How a z stack becomes one plane.",
            or_else(word(ZStack::WORDS), ZStack::default().word()),
        ),
        key("plates", "The plates to include. Default: all.", list(&name())),
    ])
}

pub(super) fn profiles() -> Value {
    let texts = either([text(), list(&text())]);
    table([
        key(
            "features",
            "Feature columns: prefixes, or patterns with *.",
            texts.clone(),
        ),
        key("plate", "Columns that name the plate together.", texts),
        key("well", "The column of the well.", text()),
        key("site", "The column of the field of view.", text()),
        key("cell_count", "The column of cells per row.", text()),
        key("key", "The column shared with --metadata FILE.", text()),
    ])
}

pub(super) fn plate_map() -> Value {
    let columns = ["plate", "well", "compound", "dose", "disease"];
    let columns = table(columns.map(|column| key(column, "Its column, where the name is unusual.", text())));
    table([
        key(
            "file",
            "Text, workbook or the Gallery's barcode file, or its URI, relative to this file.",
            text(),
        ),
        key(
            "sheet",
            "The sheet of a workbook. Default: the first with anything on it.",
            text(),
        ),
        key(
            "external",
            "Metadata of compounds that the Gallery's maps are joined with. Default: external_metadata.tsv where it usually lies.",
            text(),
        ),
        key("columns", "Names of columns; usual ones are recognised.", columns),
        key(
            "compound",
            "The compound of every well with a dose, where the map has no such column.",
            text(),
        ),
        key(
            "disease",
            "The disease of every well but the reference, where the map has no such column.",
            text(),
        ),
        key("dose_unit", "Unit of the doses.", or_else(text(), "uM")),
    ])
}

pub(super) fn controls() -> Value {
    table([
        needed(
            "reference",
            "Wells that define 0: healthy, or untreated.",
            selector(),
        ),
        key(
            "phenotype",
            "Wells that define 1: diseased with vehicle, or the full response.",
            selector(),
        ),
        key(
            "exclude",
            "Wells left out.",
            either([selector(), list(&selector())]),
        ),
    ])
}

pub(super) fn preprocess() -> Value {
    let percent = || number(0.0..=100.0);
    let pair = json!({ "type": "array", "minItems": 2, "maxItems": 2, "items": percent() });
    let levels = table([
        needed(
            "low",
            "The grey level that becomes 0, one or one per channel.",
            per_channel(),
        ),
        needed(
            "high",
            "The grey level that becomes 1, one or one per channel.",
            per_channel(),
        ),
    ]);
    let method = || {
        key(
            "method",
            "How pixels are interpolated.",
            or_else(word(ResizeMethod::WORDS), ResizeMethod::default().word()),
        )
    };
    let top_hat = table([needed("top_hat", "Radius of the disk.", whole(1..=512))]);
    let gaussian = table([needed("gaussian", "Sigma of the blur.", number(0.1..=1_000.0))]);
    let ball = table([needed(
        "rolling_ball",
        "Radius of the ball, in grey levels too.",
        whole(1..=512),
    )]);
    let by_factor = table([
        needed("factor", "Of width and height.", number(0.01..=8.0)),
        method(),
    ]);
    let to_size = table([
        needed("width", "In pixels.", whole(1..=16_384)),
        needed("height", "In pixels.", whole(1..=16_384)),
        method(),
    ]);
    table([
        key(
            "illumination",
            "Path of .npy illumination functions with {channel} and, where plates differ, {plate}.",
            text(),
        ),
        key(
            "dark_field",
            "Path, as that of illumination, of .npy dark-fields in grey levels, which are subtracted first.",
            text(),
        ),
        key(
            "background",
            "What is subtracted: none, the image's percentile, grey levels, one or one per channel, or what is wider than objects, by \
             a radius or sigma in pixels.",
            or_else(
                either([
                    word(&["none", "percentile"]),
                    per_channel(),
                    top_hat,
                    gaussian,
                    ball,
                ]),
                "none",
            ),
        ),
        key(
            "background_percentile",
            "Of background = \"percentile\".",
            or_else(percent(), 1.0),
        ),
        key(
            "resize",
            "Before tiling: a factor, or a table of factor, or of width and height.",
            either([number(0.01..=8.0), by_factor, to_size]),
        ),
        key(
            "scaling",
            "How grey levels become 0 to 1: none, percentiles of each image or of the plate's controls, or levels.",
            or_else(either([word(&["none", "image", "controls"]), levels]), "image"),
        ),
        key(
            "percentiles",
            "Of scaling: low and high.",
            or_else(pair, json!([0.1, 99.9])),
        ),
        key(
            "tiling",
            "How a field larger than the network's input is cut.",
            or_else(word(Tiling::WORDS), Tiling::default().word()),
        ),
    ])
}

pub(super) fn quality() -> Value {
    let usual = QualitySettings::default();
    let percent = || number(0.0..=100.0);
    let contrast = || number(0.0..=1e6);
    let slope = || number(-100.0..=100.0);
    table([
        key(
            "enabled",
            "Whether gates fail fields.",
            or_else(yes_or_no(), usual.enabled),
        ),
        key(
            "saturated_percent_warn",
            "Percent of pixels at the ceiling above which a field is flagged.",
            or_else(percent(), usual.saturated_percent_warn),
        ),
        key(
            "saturated_percent_fail",
            "Percent of pixels at the ceiling above which a field fails.",
            or_else(percent(), usual.saturated_percent_fail),
        ),
        key(
            "contrast_warn",
            "(p99.9 - median) / MAD below which a field is flagged.",
            or_else(contrast(), usual.contrast_warn),
        ),
        key(
            "contrast_fail",
            "(p99.9 - median) / MAD below which a field is empty and fails.",
            or_else(contrast(), usual.contrast_fail),
        ),
        key(
            "slope_empty",
            "Power log-log slope of the nuclei channel above which a field is empty.",
            or_else(slope(), usual.slope_empty),
        ),
        key(
            "slope_blur",
            "Power log-log slope of the nuclei channel below which a field is blurred.",
            or_else(slope(), usual.slope_blur),
        ),
        key(
            "nuclei_channel",
            "The channel of the slope gates. Default: the one named DNA.",
            name(),
        ),
        key(
            "min_fields",
            "A well counts with so many passing fields.",
            or_else(whole(1..=10_000), usual.min_fields),
        ),
        key(
            "min_fields_percent",
            "A well also counts with this percent of its fields.",
            or_else(percent(), usual.min_fields_percent),
        ),
        key(
            "plate_failed_percent",
            "Percent of failed fields above which a plate is held back.",
            or_else(percent(), usual.plate_failed_percent),
        ),
        key(
            "control_failed_percent",
            "Percent of failed control fields above which a plate is held back.",
            or_else(percent(), usual.control_failed_percent),
        ),
    ])
}

pub(super) fn nuclei() -> Value {
    let diameter = || number(1.0..=10_000.0);
    table([
        key(
            "channel",
            "The channel that shows nuclei. Default: quality.nuclei_channel.",
            name(),
        ),
        key("min_diameter", "In pixels.", or_else(diameter(), 10.0)),
        key("max_diameter", "In pixels.", or_else(diameter(), 60.0)),
        key(
            "threshold",
            "Between background and nuclei.",
            or_else(word(NucleiThreshold::WORDS), NucleiThreshold::default().word()),
        ),
        key(
            "correction",
            "Factor on the threshold; above 1 finds less.",
            or_else(number(1e-3..=1e3), 1.0),
        ),
        key(
            "declump",
            "How nuclei that touch are parted.",
            or_else(word(Declump::WORDS), Declump::default().word()),
        ),
    ])
}

/// A model's name.
pub(super) fn model_name() -> Value {
    pattern("^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")
}

pub(super) fn model() -> Value {
    let usual = ModelSettings::default();
    table([
        key(
            "name",
            "As `wellspring models list` shows it.",
            or_else(model_name(), usual.name),
        ),
        key(
            "engine",
            "What runs it.",
            or_else(word(EngineChoice::WORDS), usual.engine.word()),
        ),
    ])
}

/// A time with its unit. The range is the reader's.
fn duration() -> Value {
    pattern(r"^\s*[0-9]+\s*(ms|s|m|min|h)\s*$")
}

/// Feature columns and what else a part of their names is.
fn identifier() -> Value {
    pattern("^[A-Za-z0-9_.-]{1,64}$")
}

pub(super) fn steps() -> Value {
    let columns = |least, about| needed("columns", about, list_of(least, &identifier()));
    let usual = or_else(word(&["field", "well"]), "field");
    let step = external(
        key("level", "What it is asked for one of.", usual),
        Some(columns(1, "The numbers it answers with.")),
    );
    let embed = table([
        needed("name", "Its name; feature columns are <name>_<i>.", identifier()),
        needed(
            "kind",
            "A network beside that of [model].",
            word(&[StepKind::Embed.word()]),
        ),
        needed("model", "As `wellspring models list` shows it.", model_name()),
        key(
            "engine",
            "What runs it.",
            or_else(word(EngineChoice::WORDS), EngineChoice::default().word()),
        ),
    ]);
    let of_plate = external(
        needed("level", "Asked once per plate.", word(&["plate"])),
        Some(columns(
            0,
            "The numbers it answers with for each well; none where it only takes note.",
        )),
    );
    let of_screen = external(
        needed(
            "level",
            "Asked once, when the results are written.",
            word(&["screen"]),
        ),
        None,
    );
    list(&either([step, embed, of_plate, of_screen]))
}

/// A step outside this program.
fn external(level: Key, columns: Option<Key>) -> Value {
    let topic = || pattern("^[A-Za-z0-9_.-]{1,249}$");
    let keys = [
        needed(
            "name",
            "Its name; feature columns are <name>_<column>.",
            identifier(),
        ),
        needed(
            "kind",
            "A program or service.",
            word(&[StepKind::External.word()]),
        ),
        level,
        key(
            "inputs",
            "What it is given: of a field images, quality, nuclei, embed, of a well aggregate, images, plate_map, of a \
             plate aggregate, plate_map, of the screen export, compare, aggregate; and other steps.",
            list_of(1, &text()),
        ),
        needed(
            "deadline",
            "How long one answer may take, such as \"30s\".",
            duration(),
        ),
        key(
            "attempts",
            "Before a field's failure goes to the retries topic, and another is final.",
            or_else(whole(1..=100), 3),
        ),
        key(
            "backoff",
            "Before the second attempt; doubled for each further one.",
            or_else(duration(), "1s"),
        ),
        key(
            "heartbeat",
            "How long nothing may be heard of a request.",
            duration(),
        ),
        key(
            "in_flight",
            "Requests at once; processes of a command.",
            or_else(whole(1..=1_024), 2),
        ),
        key(
            "command",
            "Program and arguments: requests are lines of JSON on its standard input. ./ is beside this file.",
            list_of(1, &text()),
        ),
        key(
            "url",
            "Where requests are POSTed.",
            pattern(r"^https?://[^\s/]\S*$"),
        ),
        key(
            "poll",
            "Between two questions for the answer of a 202.",
            or_else(duration(), "1s"),
        ),
        key(
            "reply",
            "How the answer of a 202 comes: asked for at its Location, or POSTed to the request's callback.",
            or_else(word(Reply::WORDS), Reply::default().word()),
        ),
        key("requests", "The topic of requests.", topic()),
        key("responses", "The topic of answers.", topic()),
    ];
    table(keys.into_iter().chain(columns))
}

pub(super) fn resources() -> Value {
    let usual = ResourceSettings::default();
    let threads = || whole(1..=1024);
    let bytes = either([whole(1 << 20..=1 << 40), pattern(r"^\s*[0-9]+\s*[KMGT]iB\s*$")]);
    table([
        key("decode_threads", "Default: from the machine.", threads()),
        key("engine_threads", "Default: from the machine.", threads()),
        key(
            "batch_size",
            "Images per batch.",
            or_else(whole(1..=4096), usual.batch_size),
        ),
        key(
            "in_flight_bytes",
            "Bytes of images in memory, such as \"256 MiB\". Default: from the machine.",
            bytes,
        ),
        key(
            "device",
            "Where kernels run.",
            or_else(word(DeviceChoice::WORDS), usual.device.word()),
        ),
        key(
            "weight",
            "Its part of the batch lane beside other screens: tasks in proportion.",
            or_else(whole(1..=1_000), usual.weight),
        ),
    ])
}

pub(super) fn output() -> Value {
    table([
        key("folder", "Of the results. Default: the command's.", text()),
        key(
            "report",
            "Whether report.html is written.",
            or_else(yes_or_no(), true),
        ),
    ])
}
