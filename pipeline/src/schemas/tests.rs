use std::path::PathBuf;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::SchemaCompatibility;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use serde_json::{Value, json};
use wellspring_workloads::screen::Screen;

use super::published::{parse, texts};
use super::*;

const SCREEN: &str = r#"
    [screen]
    name = "sample"
    [images]
    store = "/plates"
    layout = "imagexpress"
    channels = [{ name = "DNA", match = "w1" }, { name = "AGP", match = "w2" }]
    [plate_map]
    file = "/plates/platemap.csv"
    [controls]
    reference = { cell_line = "WT" }
    phenotype = { cell_line = "NF1" }
"#;

/// The embedding 0, 0.5, -1.25 in base64.
const EMBEDDING: &str = "AAAAAAAAAD8AAKC/";

/// Records of every kind, as the JSON of the types writes them: with and without what may be absent.
fn samples(topic: Topic) -> Vec<Value> {
    let screen = Screen::parse(SCREEN, "sample.toml").unwrap();
    let curve = json!({
        "measure": "rescue", "model": "hill",
        "parameters": {"bottom": 0.0, "top": 0.9, "log10_ec50": -0.1, "hill": 1.2, "log10_loss_ec50": null, "loss_hill": null},
        "ec50": 0.8, "censoring": "none", "ac50": 0.79, "log10_ec50_se": 0.05, "ec50_low": 0.6, "ec50_high": null,
        "cutoff_dose": 0.2, "hit_call": 0.99, "spearman": 1.0, "trend_p": 0.001, "top": 0.9, "monotone": true,
        "aic": {"zero": 3.5, "constant": 2.5, "hill": -4.0, "gain_loss": null}, "sse": 0.02, "tested": [0.1, 20.0],
        "points": [{"plate": "P", "well": "B02", "dose": 0.1, "value": 0.05, "masked": false}],
    });
    match topic.records() {
        Topic::Plates | Topic::BatchPlates => vec![
            json!({"plate": "BR00117006"}),
            json!({"plate": "BR00117006", "run": "sample-01234567"}),
            json!({"plate": "BR00117006", "run": "sample-01234567", "lane": "batch"}),
            json!({"plate": "BR00117006", "progress": {}}),
            json!({"plate": "BR00117006", "progress": {"wells": ["A01", "P24"], "fields_expected": 3456,
                   "deadline_ms": 1_764_000_000_000u64}}),
            json!({"plate": "BR00117006", "run": "sample-01234567", "progress": {"passed_ms": 1_764_000_000_000u64}}),
            json!({"plate": "BR00117006", "run": "sample-01234567", "lane": "batch", "taken_over": {"from": "sample-76543210",
                "fields": [{"well": "A01", "fields": [1, 9]}], "shading": "0123456789ab"}}),
        ],
        Topic::Tasks | Topic::BatchTasks => {
            let task = json!({
                "run": "r", "plate": "P", "well": "A01", "field": 3,
                "images": [{"channel": "DNA", "planes": [{"path": "P/é_w1.tif", "bytes": 5_000_000_000u64}]}],
            });
            let mut scaled = task.clone();
            scaled["scaling"] = json!([[0.125, 0.5], [0.0, 1.0]]);
            let mut paged = task.clone();
            paged["images"][0]["planes"][0]["page"] = json!(7);
            let mut of_stack = task.clone();
            of_stack["images"][0]["planes"][0]["z"] = json!(3);
            let mut versioned = task.clone();
            versioned["images"][0]["planes"][0]["version"] = json!("d41d8cd98f00b204e9800998ecf8427e-2");
            vec![task, scaled, paged, of_stack, versioned]
        }
        Topic::Features => vec![
            json!({
                "run": "r", "plate": "P", "well": "AF48", "field": 4_294_967_295u32, "model": "m-1", "tiles": 4,
                "passed": false,
                "quality": [{"channel": "DNA", "measures": [["PowerLogLogSlope", -2.25], ["PercentMaximal", 0.0]],
                             "flags": ["PowerLogLogSlope -2.25 below -2.0"]}],
                "embedding": EMBEDDING,
            }),
            json!({
                "run": "r", "plate": "P", "well": "A01", "field": 1, "model": "m-1", "tiles": 4, "passed": true,
                "quality": [{"channel": "DNA", "measures": [], "flags": [], "uri": "s3://plates/P/P_A01_s1_w1.tif"}],
                "embedding": EMBEDDING,
            }),
            json!({
                "run": "r", "plate": "P", "well": "A01", "field": 0, "model": "m-1", "tiles": 1, "passed": true,
                "quality": [], "embedding": "",
            }),
        ],
        Topic::Profiles => {
            vec![json!({"run": "r", "plate": "P", "well": "A01", "fields": 9, "embedding": EMBEDDING})]
        }
        Topic::Comparisons => vec![
            json!({
                "level": "dose", "run": "r", "disease": "NF1", "compound": "c", "dose": 0.1, "dose_unit": "uM",
                "counter_screen": false, "n_wells": 2, "n_plates": 1, "on_axis": 0.25, "off_axis": 0.5, "aligned_on_axis": null,
                "excess": 0.1, "off_z": 1.0, "off_z_support": 0.5, "effect_z": 4.0, "effect_z_support": 3.0, "rescue": 0.75,
                "specificity": null, "distance": 0.6, "direction_cosine": 0.9, "cell_ratio": null, "p_value": 0.001,
                "q_value": 0.01, "p_off": 1.0, "q_off": 1.0, "map_q_value": 0.02, "call": "rescue_hit",
            }),
            json!({
                "level": "compound", "run": "r", "disease": "NF1", "compound": null, "call": "inactive", "rank": 3, "score": 0.1,
                "n_doses": 4, "best_dose": 5.0, "best_rescue": 0.1, "best_specificity": null, "best_off_z": 0.2,
                "best_cell_ratio": 1.0, "top": 0.9, "min_q": 0.5, "max_off_z": 0.3, "min_cell_ratio": 0.9, "toxic_dose": null,
                "therapeutic_window": null, "best_effect_z_support": 0.4, "best_model_specificity": -0.1, "best_map_q_value": 0.03, "curve": curve, "off_curve": curve,
                "cell_curve": null,
            }),
        ],
        Topic::Retries => Vec::new(),
        Topic::DeadLetters => vec![
            json!({
                "id": "0123", "run": null, "class": "bad_event", "stage": "plan", "plate": null, "well": null, "field": null,
                "fields_lost": 0, "message": "m", "origin": {"topic": "t", "partition": 3, "offset": 12, "key": "P"},
                "attempt": 3, "worker": "w", "original": "e30=", "original_bytes": 2, "time_ms": 1_764_000_000_000u64,
            }),
            json!({
                "id": "4567", "run": "r", "class": "bad_image", "stage": "decode", "plate": "P", "well": "A01", "field": 1,
                "fields_lost": 1, "message": "m", "origin": {"topic": "t", "partition": 0, "offset": 0}, "time_ms": 1,
            }),
            json!({
                "id": "89ab", "run": "r", "class": "external", "stage": "external", "plate": "P", "well": null, "field": null,
                "step": "lims", "fields_lost": 0, "message": "m", "origin": {"topic": "", "partition": -1, "offset": -1},
                "attempt": 3, "worker": "w", "original": "e30=", "original_bytes": 2, "time_ms": 1,
            }),
        ],
        Topic::Status => vec![
            json!({"status": "run_submitted", "run": "r", "screen": screen, "plates": ["P", "Q"], "time_ms": 5,
                   "model": {"name": "m", "version": "1", "weights_sha256": "ab", "card_sha256": "cd"}}),
            json!({"status": "plate_planned", "run": "r", "plate": "P", "fields_expected": 4, "fields_planned": 3,
                   "dead_letters": 1, "shading": "0123456789ab"}),
            json!({"status": "plate_profiled", "run": "r", "plate": "P", "held": "11 % of its fields failed", "content": "0a1b"}),
            json!({"status": "plate_released", "run": "r", "plate": "P", "time_ms": 7}),
            json!({"status": "comparisons_published", "run": "r", "records": 5000, "content": "2c3d"}),
            json!({"status": "letters_resolved", "run": "r", "plates": ["P"], "action": "retried", "offsets": [3, 5],
                   "time_ms": 6}),
            json!({"status": "run_finished", "run": "r", "fields_done": 3, "fields_failed": 1}),
            json!({"status": "run_finished", "run": "r", "fields_done": 3, "fields_failed": 1, "no_comparison": "no wells"}),
            json!({"status": "plate_queued", "run": "r", "plate": "P"}),
            json!({"status": "run_steered", "run": "r", "action": "paused", "time_ms": 7}),
            json!({"status": "plate_steered", "run": "r", "plate": "P", "action": "cancelled", "time_ms": 7}),
            json!({"status": "plate_imaging", "run": "r", "plate": "P", "planned": []}),
            json!({"status": "plate_imaging", "run": "r", "plate": "P", "planned": [{"well": "A01", "fields": [1, 2]}],
                   "wells": ["A01"], "fields_expected": 4, "deadline_said": false, "deadline_ms": 1_764_000_000_000u64, "shading": "0123456789ab",
                   "waits": "scaling by the plate's controls"}),
            json!({"status": "plate_planned", "run": "r", "plate": "P", "fields_expected": 4, "fields_planned": 3,
                   "dead_letters": 1, "incomplete": "1 of 4 fields never came"}),
            json!({"status": "plate_planned", "run": "r", "plate": "P", "fields_expected": 4, "fields_planned": 4,
                   "dead_letters": 0, "remarks": ["plate P: 1 image files whose names are not phenix names: P/x.tif"]}),
        ],
    }
}

/// The sample as the types of today write it in JSON: they may have got fields since.
fn as_json(topic: Topic, sample: &Value) -> Value {
    let json = Schemas::default().to_json(topic, sample.to_string().as_bytes());
    serde_json::from_slice(&json.unwrap()).unwrap()
}

fn as_avro(topic: Topic, sample: &Value) -> Vec<u8> {
    fn through<E: DeserializeOwned + Serialize>(topic: Topic, sample: &Value) -> Vec<u8> {
        encode(topic, &serde_json::from_value::<E>(sample.clone()).unwrap()).unwrap()
    }
    match topic {
        Topic::Plates | Topic::BatchPlates => through::<PlateReady>(topic, sample),
        Topic::Tasks | Topic::BatchTasks => through::<FieldTask>(topic, sample),
        Topic::Features => through::<FieldFeatures>(topic, sample),
        Topic::Profiles => through::<WellRecord>(topic, sample),
        Topic::Comparisons => through::<ComparisonRecord>(topic, sample),
        Topic::Retries => unreachable!(),
        Topic::DeadLetters => through::<DeadLetter>(topic, sample),
        Topic::Status => through::<Status>(topic, sample),
    }
}

/// Whether everything in `part` is in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.iter().all(|(name, value)| holds(&whole[name], value)),
        Value::Null => true,
        other => whole == other,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// The one that keeps schemas and types in step: a field that a type has and its schema lacks is an error of writing.
#[test]
fn every_event_survives_avro_as_it_survives_json() {
    for topic in Topic::ALL {
        for sample in samples(topic) {
            let json = as_json(topic, &sample);
            let avro = as_avro(topic, &sample);
            let back = Schemas::default().to_json(topic, &avro).unwrap();
            let back: Value = serde_json::from_slice(&back).unwrap();
            assert_eq!(back, json, "{topic:?}");
            // Nothing of the sample is lost on the way.
            assert!(holds(&back, &sample), "{topic:?}: {back}");
        }
    }
}

#[test]
fn the_library_reads_what_we_write_and_we_read_what_it_writes() {
    for topic in Topic::ALL {
        let Some(text) = texts(topic).last() else { continue };
        let schema = parse(text).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        for sample in samples(topic) {
            let ours = as_avro(topic, &sample);
            let mut datum = &ours[SINGLE_OBJECT_HEADER..];
            let value = reader.read_value(&mut datum).unwrap();
            assert!(datum.is_empty(), "{topic:?}");
            let theirs = writer.write_value_to_vec(value).unwrap();
            assert_eq!(theirs, ours[SINGLE_OBJECT_HEADER..], "{topic:?}");
        }
    }
}

#[test]
fn the_folder_holds_every_version_and_no_other() {
    let mut expected: Vec<String> = Topic::ALL
        .into_iter()
        .filter(|topic| topic.records() == *topic)
        .flat_map(|topic| {
            (1..=texts(topic).len()).map(move |version| format!("{}.v{version}.avsc", topic.suffix()))
        })
        .collect();
    expected.sort();
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".avsc"))
        .collect();
    found.sort();
    assert_eq!(found, expected);
    for topic in Topic::ALL {
        for (text, version) in texts(topic).iter().zip(1..) {
            let file = folder().join(format!("{}.v{version}.avsc", topic.records().suffix()));
            assert_eq!(&std::fs::read_to_string(file).unwrap(), text);
        }
    }
}

/// Records of every version lie in `pipeline/schemas/records`, one a line: the JSON, and the record in hexadecimal.
/// With `WELLSPRING_BLESS=1` those of the newest versions are written.
#[test]
fn records_of_every_version_are_still_read() {
    let unhex = |text: &str| -> Vec<u8> {
        let digits: Vec<char> = text.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    };
    for topic in Topic::ALL {
        for version in 1..=texts(topic).len() {
            let file = folder().join(format!("records/{}.v{version}.tsv", topic.records().suffix()));
            if version == texts(topic).len() && std::env::var_os("WELLSPRING_BLESS").is_some() {
                let line = |sample: &Value| format!("{}\t{sample}\n", hex(&as_avro(topic, sample)));
                let lines: String = samples(topic).iter().map(line).collect();
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, lines).unwrap();
            }
            let lines =
                std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} is missing", file.display()));
            assert!(!lines.is_empty());
            for line in lines.lines() {
                let (record, json) = line.split_once('\t').unwrap();
                let record = unhex(record);
                // What was released keeps its fingerprint: the schema has not been changed since.
                assert_eq!(
                    record[2..10],
                    versions(topic).unwrap()[version - 1].fingerprint,
                    "{topic:?}"
                );
                let read = Schemas::default().to_json(topic, &record).unwrap();
                let read: Value = serde_json::from_slice(&read).unwrap();
                let json: Value = serde_json::from_str(json).unwrap();
                assert_eq!(read, as_json(topic, &json), "{topic:?}");
            }
        }
    }
}

#[test]
fn every_version_reads_every_other() {
    for topic in Topic::ALL {
        let all: Vec<_> = texts(topic).iter().map(|text| parse(text).unwrap()).collect();
        for one in &all {
            for other in &all {
                SchemaCompatibility::mutual_read(one, other).unwrap();
            }
        }
    }
}

/// The other direction of the rule above, with a version that is not there yet: what a newer program adds is passed
/// over, and what an older one did not have gets its default.
#[test]
fn fields_that_come_and_go_are_no_hindrance() {
    let write = |schema: &str, value: &Value| {
        let shape = shape::Shape::of(&parse(schema).unwrap()).unwrap();
        (encode::to_vec(&shape, value).unwrap(), shape)
    };
    let newer = r#"{"type": "record", "name": "PlateReady", "fields": [
        {"name": "microscope", "type": {"type": "map", "values": ["null", "double"]}},
        {"name": "plate", "type": "string"},
        {"name": "seen", "type": {"type": "array", "items": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}},
        {"name": "count", "type": ["null", "long"], "default": null}]}"#;
    let fields = json!({"microscope": {"x": 1.5, "y": null}, "plate": "P", "seen": ["B"]});
    let (bytes, shape) = write(newer, &fields);
    let read: PlateReady = decode::from_slice(&shape, &bytes).unwrap();
    assert_eq!((read.plate.as_str(), read.run), ("P", None));

    let older = r#"{"type": "record", "name": "Status", "fields": [
        {"name": "status", "type": "string"}, {"name": "run", "type": "string"}, {"name": "plate", "type": "string"},
        {"name": "fields_expected", "type": "int"}, {"name": "fields_planned", "type": "int"},
        {"name": "dead_letters", "type": "int"}]}"#;
    let mut planned = samples(Topic::Status)[1].clone();
    // What this older version did not have; the others keep their order.
    planned.as_object_mut().unwrap().retain(|key, _| key != "shading");
    let (bytes, shape) = write(older, &planned);
    let read: Status = decode::from_slice(&shape, &bytes).unwrap();
    assert!(matches!(read, Status::PlatePlanned { dead_letters: 1, .. }));
}

#[test]
fn in_json_a_misspelt_key_is_refused_and_a_structured_cloud_event_is_read() {
    let schemas = Schemas::default();
    let read = |event: Value| schemas.read::<PlateReady>(Topic::Plates, event.to_string().as_bytes());
    for (event, said) in [
        (json!({"plate": "P", "progres": {}}), "did you mean 'progress'?"),
        (
            json!({"plate": "P", "progress": {"wels": ["A01"]}}),
            "unknown field `wels`",
        ),
    ] {
        let Err(Unreadable::Json { source }) = read(event) else {
            panic!("it was read");
        };
        assert!(source.to_string().contains(said), "{source}");
    }
    // What else a microscope says of a plate is passed over.
    assert!(read(json!({"plate": "P", "session": "x", "line": 3, "objective": {"na": 0.75}})).is_ok());
    let event = json!({"specversion": "1.0", "id": "7", "source": "/scheduler", "type": "wellspring.plate-ready.v1",
        "data": {"plate": "P", "run": "r"}});
    assert_eq!(read(event).unwrap().run.as_deref(), Some("r"));
}

#[test]
fn a_type_that_its_schema_does_not_describe_is_an_error_that_names_the_field() {
    let more = json!({"plate": "P", "colour": "blue"});
    let error = encode(Topic::Plates, &more).unwrap_err();
    assert_eq!(
        error,
        SchemaError::NoSuchField {
            record: "wellspring.PlateReady".to_owned(),
            field: "colour".to_owned()
        }
    );
    let less = json!({"run": "r"});
    let error = encode(Topic::Plates, &less).unwrap_err().to_string();
    assert!(error.contains("'plate'"), "{error}");
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let schemas = Schemas::default();
    let message = |topic: Topic, value: &[u8]| {
        let error = schemas.read::<FieldFeatures>(topic, value).unwrap_err();
        let origin = Origin {
            topic: "lab.features".to_owned(),
            partition: 3,
            offset: 17,
            key: String::new(),
        };
        let error = error.at(Stage::Source, origin);
        assert_eq!(error.domain, Domain::Input);
        let message = error.chain();
        assert!(
            message.contains("offset 17 of lab.features, partition 3"),
            "{message}"
        );
        message
    };
    let mut unknown = as_avro(Topic::Features, &samples(Topic::Features)[0]);
    unknown[2] ^= 1;
    let text = message(Topic::Features, &unknown);
    assert!(text.contains("fingerprint") && text.contains("upgrade"), "{text}");
    let text = message(Topic::Features, &[0, 0, 0, 0, 9, 1, 2]);
    assert!(
        text.contains("id 9") && text.contains("--schema-registry"),
        "{text}"
    );
    let text = message(Topic::Features, b"");
    assert!(text.contains("no value"), "{text}");
    let text = message(Topic::Features, b"\xff\xfe");
    assert!(text.contains("neither Avro nor readable JSON"), "{text}");
    let text = message(Topic::Features, br#"{"run":"r"}"#);
    assert!(text.contains("missing field"), "{text}");
    // Of another topic: its fingerprint is none of this one's.
    let text = message(Topic::Tasks, &as_avro(Topic::Plates, &samples(Topic::Plates)[0]));
    assert!(text.contains("fingerprint"), "{text}");
}

#[test]
fn a_value_cut_short_anywhere_is_an_error() {
    for topic in Topic::ALL {
        for sample in samples(topic) {
            let whole = as_avro(topic, &sample);
            for end in 1..whole.len() {
                assert!(
                    Schemas::default().to_json(topic, &whole[..end]).is_err(),
                    "{topic:?} {end}"
                );
            }
            let longer = [&whole[..], &[0]].concat();
            let error = Schemas::default().to_json(topic, &longer).unwrap_err();
            assert!(crate::error::chain(&error).contains("1 bytes follow"), "{error}");
        }
    }
}

#[test]
fn json_is_written_where_it_is_asked_for() {
    let schemas = Schemas::new(Format::Json, None).unwrap();
    for topic in Topic::ALL {
        for sample in samples(topic) {
            let avro = as_avro(topic, &sample);
            let framed = schemas.frame(topic, "lab.topic", &avro).unwrap();
            assert_eq!(framed.content_type, "application/json");
            let written: Value = serde_json::from_slice(&framed.value).unwrap();
            assert_eq!(written, as_json(topic, &sample));
        }
    }
}

#[test]
fn bytes_that_are_passed_on_stay_as_they_are() {
    let schemas = Schemas::default();
    let framed = |value| schemas.frame(Topic::Plates, "lab.plates", value).unwrap();
    assert_eq!(framed(b"{\"pl").value, b"{\"pl".as_slice());
    assert_eq!(framed(b"{\"pl").content_type, "application/json");
    assert_eq!(framed(b"\0\0\0\0\x01\x02").content_type, "application/avro");
    let avro = as_avro(Topic::Plates, &samples(Topic::Plates)[0]);
    assert_eq!(framed(&avro).value, avro);
    assert_eq!(
        framed(&avro).schema.as_deref(),
        Some("urn:wellspring:schema:plates:4")
    );
}

proptest! {
    /// Any bytes, on any topic: an event or an error, never a panic or an endless loop.
    #[test]
    fn any_bytes_give_an_event_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        topic in proptest::sample::select(Topic::ALL.to_vec()),
        headed in any::<bool>(),
    ) {
        let mut value = Vec::new();
        if headed {
            value.extend(SINGLE_OBJECT);
            value.extend(versions(topic).unwrap().first().map_or([0; 8], |version| version.fingerprint));
        }
        value.extend(bytes);
        let _either = Schemas::default().to_json(topic, &value);
    }

    /// Numbers of every size come back.
    #[test]
    fn numbers_come_back(field in any::<u32>(), bytes in 0..=i64::MAX as u64, values in proptest::collection::vec(any::<f32>(), 0..50)) {
        let task = json!({"run": "r", "plate": "P", "well": "A01", "field": field,
            "images": [{"channel": "D", "planes": [{"path": "p", "bytes": bytes}]}]});
        let task: FieldTask = serde_json::from_value(task).unwrap();
        let read: FieldTask = Schemas::default().read(Topic::Tasks, &encode(Topic::Tasks, &task).unwrap()).unwrap();
        prop_assert_eq!(read, task);
        let profile = WellRecord {
            run: "r".to_owned(),
            plate: "P".parse().unwrap(),
            well: "A01".parse().unwrap(),
            fields: 1,
            embedding: values.clone(),
        };
        let read: WellRecord = Schemas::default().read(Topic::Profiles, &encode(Topic::Profiles, &profile).unwrap()).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read.embedding), bits(&values));
    }
}
