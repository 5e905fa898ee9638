//! What the tests of the whole binary share: the weights, simulated plates, running and reading results.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it skips"
)]
#![allow(dead_code, reason = "no test program uses all of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything; a test that meets it has failed, not slowed down.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A folder with verified weights: the user's cache, else one filled from `../shared`. `None`, with a plain word,
/// where there are no weights at all; `scripts/test` fetches them.
pub(crate) fn models() -> Option<PathBuf> {
    let folder = wellspring::model_store::models_folder().ok()?;
    let card = wellspring_models::find_card("efficientnet-lite0")?;
    if wellspring_models::verify(card, wellspring::model_store::weights_path(&folder, card)).is_ok() {
        return Some(folder);
    }
    let shared = shared("data/weights/efficientnet_lite0/efficientnet_lite0_imagenet.safetensors")?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("models");
    wellspring::model_store::pull(card, &folder, Some(&shared)).unwrap();
    Some(folder)
}

/// A file beside the project; `None`, with a plain word, in a clone without it.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path);
    if !path.exists() {
        println!("skipped: ../shared not present");
        return None;
    }
    Some(path)
}

/// A Kafka made for tests, as `scripts/test` starts it; `None`, with a plain word, where there is none.
pub(crate) fn apache_kafka() -> Option<String> {
    let address = std::env::var("WELLSPRING_TEST_KAFKA")
        .ok()
        .filter(|a| !a.is_empty());
    if address.is_none() {
        println!("skipped: no Apache Kafka; set WELLSPRING_TEST_KAFKA to what `scripts/kafka start` prints");
    }
    address
}

pub(crate) fn wellspring(models: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring"));
    command
        .env("WELLSPRING_MODELS", models)
        .env_remove("WELLSPRING_KAFKA")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Simulated plates in `folder`: one 96-well plate unless `settings` says otherwise.
pub(crate) fn simulate(folder: &Path, settings: &str) {
    let file = folder.join("settings.toml");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(&file, settings).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wellspring"))
        .args(["--quiet", "simulate", "--out"])
        .arg(folder.join("plates"))
        .arg("--settings")
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One plate of 96 wells, two fields each, one or two channels, quick to embed.
pub(crate) fn small_plate(channels: &str) -> String {
    format!(
        "seed = 5\nname = \"SMALL\"\nplates = 1\nwells = 96\nfields = 2\nchannels = [{channels}]\n\
         height = 240\nwidth = 240\ncells_per_field = 20.0\ncell_diameter = 48.0\ndoses = [0.1, 1.0, 5.0, 20.0]\n\
         replicates = 1\nhealthy_wells = 16\ndisease_wells = 16\nfill_with_controls = true\n\
         [generated]\nrescue = 1\ntoxic = 1\ninactive = 6\n\
         [artefacts]\nblur = 0.0\ndebris = 0.0\nempty_fields = 0.0\n"
    )
}

/// One plate of 24 wells with one field each, both controls among them, quick to run; and the folder that holds its screen.
pub(crate) fn few_wells(folder: &Path, channels: &str) -> PathBuf {
    simulate(folder, &small_plate(channels).replace("fields = 2", "fields = 1"));
    let plates = folder.join("plates");
    let map = plates.join("platemap.csv");
    let rows = std::fs::read_to_string(&map).unwrap();
    let kept = |well: &str| ["01", "02", "03"].contains(&&well[1..]);
    let few: Vec<&str> = rows
        .lines()
        .filter(|row| row.starts_with("plate,") || row.split(',').nth(1).is_some_and(kept))
        .collect();
    std::fs::write(&map, few.join("\n")).unwrap();
    for image in std::fs::read_dir(plates.join("images/SMALL0001")).unwrap() {
        let image = image.unwrap();
        let name = image.file_name().into_string().unwrap();
        if !name.split('_').nth(1).is_some_and(kept) {
            std::fs::remove_file(image.path()).unwrap();
        }
    }
    plates
}

/// Runs a screen with `--json`; the exit code and the closing line.
pub(crate) fn run_json(command: &mut Command) -> (i32, Value) {
    let output = command.output().unwrap();
    let line = last_line(&output);
    let value = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!(
            "no JSON line ({error}): {line}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (output.status.code().unwrap_or(-1), value)
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}

/// The dead letters of a run.
pub(crate) fn dead_letters(out: &Path) -> Vec<Value> {
    std::fs::read_to_string(out.join("dead-letters.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The rows of `comparisons.parquet` as JSON objects.
pub(crate) fn comparisons(out: &Path) -> Vec<Value> {
    rows_of(&out.join("comparisons.parquet"))
}

/// The rows of a table as JSON objects.
pub(crate) fn rows_of(table: &Path) -> Vec<Value> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let value = |field: &Field| match field {
        Field::Str(text) => Value::from(text.as_str()),
        Field::Double(number) => Value::from(*number),
        Field::Float(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::Null => Value::Null,
        other => panic!("a column of an unexpected type: {other}"),
    };
    let file = std::fs::File::open(table).unwrap();
    SerializedFileReader::new(file)
        .unwrap()
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            row.get_column_iter()
                .map(|(name, field)| (name.clone(), value(field)))
                .collect::<serde_json::Map<_, _>>()
        })
        .map(Value::Object)
        .collect()
}

/// A child process that dies with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Waits for a condition; fails the test when it does not come.
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes(condition), "waited in vain for {what}");
}

/// Whether a condition comes while the patience lasts.
pub(crate) fn comes(mut condition: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= give_up {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

/// A broker of its own, and its address.
pub(crate) fn start_broker(models: &Path, data: &Path) -> (Running, String) {
    start_broker_at(models, data, "127.0.0.1:0")
}

/// A broker that listens at `address`.
pub(crate) fn start_broker_at(models: &Path, data: &Path, address: &str) -> (Running, String) {
    let mut command = wellspring(models);
    command.args(["broker", "--listen", address, "--data"]).arg(data);
    listening(&mut command)
}

/// Starts a broker, and gives the address at which it says to listen.
pub(crate) fn listening(command: &mut Command) -> (Running, String) {
    let mut child = Running(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let bootstrap = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap_or_else(|| panic!("{line}"))
        .to_owned();
    (child, bootstrap)
}
