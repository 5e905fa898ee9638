//! The plan of a screen as text: what is read, done to it, compared, and written.

use std::fmt::Write as _;

use super::graph::Level;
use super::{Background, ResizeTo, Scaling, Screen, ZStack};
use crate::monitor::DriftAction;

pub(super) fn plan_text(screen: &Screen) -> String {
    let mut plan = Plan(String::new());
    plan.heading(&format!("Screen {}", screen.name));
    if screen.version > 1 {
        plan.line("version", &screen.version.to_string());
    }
    if !screen.description.is_empty() {
        plan.line("about", &screen.description);
    }
    plan.line("hash", &screen.hash());
    read(&mut plan, screen);
    if !screen.is_of_profiles() {
        steps(&mut plan, screen);
    }
    compare(&mut plan, screen);

    plan.heading("Writes");
    plan.line(
        "folder",
        screen
            .output
            .folder
            .as_deref()
            .unwrap_or("chosen by the command (--out)"),
    );
    plan.line(
        "tables",
        if screen.is_of_profiles() {
            "comparisons, compounds, wells, windows (Parquet), run.json"
        } else {
            "features, profiles, comparisons, compounds, wells, windows, quality (Parquet), dead-letters.jsonl, run.json"
        },
    );
    plan.line(
        "report",
        if screen.output.report {
            "report.html"
        } else {
            "none"
        },
    );

    plan.heading("Resources");
    let threads = |count: Option<u32>| count.map_or("from the machine".to_owned(), |count| count.to_string());
    let resources = &screen.resources;
    plan.line("device", resources.device.word());
    plan.line("decode threads", &threads(resources.decode_threads));
    plan.line("engine threads", &threads(resources.engine_threads));
    plan.line("batch", &format!("{} images", resources.batch_size));
    let in_flight = resources
        .in_flight_bytes
        .map_or("from the machine".to_owned(), |bytes| {
            format!("at most {:.0} MiB of images", bytes as f64 / f64::from(1 << 20))
        });
    plan.line("in flight", &in_flight);
    if resources.weight != 1 {
        plan.line("weight", &format!("{} in the batch lane", resources.weight));
    }
    plan.0
}

struct Plan(String);

impl Plan {
    fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn line(&mut self, what: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {what:<16} {text}");
    }
}

fn read(plan: &mut Plan, screen: &Screen) {
    plan.heading("Reads");
    if screen.is_of_profiles() {
        plan.line(
            "images",
            "none: tables are given to `wellspring compare --features`",
        );
    } else {
        images(plan, screen);
    }
    plate_map(plan, screen);
}

fn images(plan: &mut Plan, screen: &Screen) {
    let images = &screen.images;
    plan.line("images", &images.store);
    let layout = match &images.pattern {
        Some(pattern) => format!("{} {pattern}", images.layout),
        None => images.layout.to_string(),
    };
    plan.line("layout", &layout);
    let channels: Vec<String> = images
        .channels
        .iter()
        .map(|channel| format!("{} ('{}' in names)", channel.name, channel.matches))
        .collect();
    plan.line("channels", &channels.join(", "));
    let fields = images.fields_per_well;
    let fields = fields.map_or("the plate's most common count".to_owned(), |count| {
        count.to_string()
    });
    plan.line("fields per well", &fields);
    if let Some(minutes) = images.deadline_minutes {
        plan.line("still imaging", &format!("waited for {minutes} minutes"));
    }
    let bits = images
        .bit_depth
        .map_or("as the file".to_owned(), |bits| format!("{bits} bits"));
    plan.line("detector", &bits);
    let z = match images.z {
        ZStack::Max => "maximum projection",
        ZStack::BestFocus => "the sharpest slice",
    };
    plan.line("z stacks", z);
    let plates: Vec<&str> = images.plates.iter().map(|plate| plate.as_str()).collect();
    plan.line(
        "plates",
        &if plates.is_empty() {
            "all found".to_owned()
        } else {
            plates.join(", ")
        },
    );
}

fn plate_map(plan: &mut Plan, screen: &Screen) {
    let map = &screen.plate_map;
    plan.line(
        "plate map",
        if map.file.is_empty() {
            "the tables' own columns, or --platemap or --metadata of `wellspring compare`"
        } else {
            &map.file
        },
    );
    let columns = [
        ("plate", &map.columns.plate),
        ("well", &map.columns.well),
        ("compound", &map.columns.compound),
        ("dose", &map.columns.dose),
        ("disease", &map.columns.disease),
    ];
    for (role, column) in columns {
        if let Some(column) = column {
            plan.line("", &format!("{role} from column '{column}'"));
        }
    }
    for (role, constant) in [("compound", &map.compound), ("disease", &map.disease)] {
        if let Some(constant) = constant {
            plan.line(
                "",
                &format!("{role} is '{constant}' where the map has no such column"),
            );
        }
    }
    plan.line("dose unit", &map.dose_unit);
}

fn steps(plan: &mut Plan, screen: &Screen) {
    let steps = &screen.preprocess;
    plan.heading("Steps, per field of view");
    if let Some(dark_field) = &steps.dark_field {
        plan.line("dark-field", dark_field);
    }
    plan.line("illumination", steps.illumination.as_deref().unwrap_or("none"));
    let background = match &steps.background {
        Background::None => "none".to_owned(),
        Background::Percentile { percent } => format!("minus percentile {percent} of each image"),
        Background::Constant { levels } => format!("minus {levels:?} grey levels, one per channel"),
        Background::TopHat { radius } => format!("white top-hat by a disk of radius {radius}"),
        Background::Gaussian { sigma } => format!("minus the image blurred with sigma {sigma}"),
        Background::RollingBall { radius } => format!("minus a rolling ball of radius {radius}"),
    };
    plan.line("background", &background);
    let resize = steps.resize.map_or("none".to_owned(), |resize| match resize.to {
        ResizeTo::Factor(factor) => format!("x{factor}, {}", resize.method),
        ResizeTo::Size { width, height } => format!("to {width} x {height}, {}", resize.method),
    });
    plan.line("resize", &resize);
    let scaling = match &steps.scaling {
        Scaling::None => "division by the detector's ceiling".to_owned(),
        Scaling::Image { low, high } => format!("percentiles {low} and {high} of each image and channel"),
        Scaling::Controls { low, high } => {
            format!("percentiles {low} and {high} of the plate's control wells")
        }
        Scaling::Fixed { low, high } => format!("grey levels {low:?} to {high:?}, one per channel"),
    };
    plan.line("scaling", &scaling);
    plan.line(
        "tiling",
        &format!("{}, at the size of the model card", steps.tiling),
    );

    let quality = &screen.quality;
    if quality.enabled {
        let fails = format!(
            "a field fails above {}% saturated, below contrast {}",
            quality.saturated_percent_fail, quality.contrast_fail
        );
        plan.line("quality", &fails);
        if let Some(channel) = &quality.nuclei_channel {
            let slope = format!(
                "in {channel} also with a log-log slope above {} (empty) or below {} (blur)",
                quality.slope_empty, quality.slope_blur
            );
            plan.line("", &slope);
        }
        let wells = format!(
            "a well counts with {} passing fields, or {}% of them",
            quality.min_fields, quality.min_fields_percent
        );
        plan.line("", &wells);
        let plates = format!(
            "a plate is held back above {}% failed fields, or {}% of its controls'",
            quality.plate_failed_percent, quality.control_failed_percent
        );
        plan.line("", &plates);
    } else {
        plan.line("quality", "measured, nothing fails");
    }
    if let Some(nuclei) = &screen.nuclei {
        let text = format!(
            "counted in {}: {} to {} pixels wide, threshold {} x {}, parted by {}",
            nuclei.channel,
            nuclei.min_diameter,
            nuclei.max_diameter,
            nuclei.threshold,
            nuclei.correction,
            nuclei.declump
        );
        plan.line("nuclei", &text);
    }
    plan.line(
        "embed",
        &format!("{}, engine {}", screen.model.name, screen.model.engine),
    );
    for step in &screen.networks {
        plan.line(
            &step.name,
            &format!("embed with {}, engine {}", step.model, step.engine),
        );
    }
    for step in &screen.steps {
        let seconds = |ms: u64| ms as f64 / 1e3;
        let answers = match step.columns.as_slice() {
            [] => "takes note".to_owned(),
            columns => columns.join(", "),
        };
        let of = match step.level {
            Level::Field => String::new(),
            Level::Screen => ", once for the screen".to_owned(),
            level => format!(", once per {level}"),
        };
        let text = format!(
            "{answers} of {}{of}, by {}",
            step.inputs.join(", "),
            step.service.describe()
        );
        plan.line(&step.name, &text);
        let text = format!(
            "an answer within {} s; {} attempts, from {} s apart; {} requests at once",
            seconds(step.deadline_ms),
            step.attempts,
            seconds(step.backoff_ms),
            step.in_flight
        );
        plan.line("", &text);
    }
}

fn compare(plan: &mut Plan, screen: &Screen) {
    plan.heading("Compares");
    plan.line("0 (reference)", &screen.controls.reference.to_string());
    if let Some(phenotype) = &screen.controls.phenotype {
        plan.line("1 (phenotype)", &phenotype.to_string());
    }
    for selector in &screen.controls.exclude {
        plan.line("leaves out", &selector.to_string());
    }
    let monitor = &screen.monitor;
    if monitor.enabled {
        let judge = match monitor.reference.as_str() {
            "" => format!("the first {} plates", monitor.reference_plates),
            file => file.to_owned(),
        };
        let action = match monitor.action {
            DriftAction::Note => "an alert is noted",
            DriftAction::Quarantine => "an alert quarantines its plate",
        };
        plan.line("control drift", &format!("judged by {judge}; {action}"));
    }
    // The settings type belongs to the comparison: shown as it is, so that a new setting appears here by itself.
    if let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(&screen.comparison) {
        for (name, value) in settings {
            match value {
                serde_json::Value::Object(inner) => {
                    let inner: Vec<String> = inner
                        .iter()
                        .map(|(name, value)| format!("{name} {value}"))
                        .collect();
                    plan.line(&name, &inner.join(", "));
                }
                serde_json::Value::String(text) => plan.line(&name, &text),
                other => plan.line(&name, &other.to_string()),
            }
        }
    }
}
