//! Kernels and networks on one graphics device: what crosses its bus for a field, the same numbers as with every other
//! pairing of devices, and fields whose tiles were lost with the device.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{few_wells, wait_for};
use wellspring::decode::Stack;
use wellspring::embed::{EngineSettings, embed_tiles, open_engine};
use wellspring::events::{FieldFeatures, FieldTask};
use wellspring::fetch::MemoryLimit;
use wellspring::fields::{Decoded, Field};
use wellspring::gpu::Tiles;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::tail::{Polled, Tail};
use wellspring::kafka::topics::{Topic, Urgency, create_missing};
use wellspring::model_store::choose_models_folder;
use wellspring::runs::{Run, Runs};
use wellspring::shading::Shading;
use wellspring::topology::{WorkerSettings, planner, retrier, worker};
use wellspring::{model_cards, preprocess, quality, submit};
use wellspring_broker::EmbeddedBroker;
use wellspring_kernels::{Device, DeviceChoice, RawImage};
use wellspring_models::{EngineChoice, ModelCard, TorchDevice};
use wellspring_workloads::screen::{self, Screen};
use wellspring_workloads::words::FieldId;

/// A folder of models with two small networks, which see tiles of different sizes.
fn models(folder: &Path) -> PathBuf {
    let models = folder.join("models");
    // The same for every test of this program.
    choose_models_folder(&models);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
    for name in ["timm", "dinov2-registers"] {
        let text = std::fs::read(golden.join(format!("{name}.json"))).unwrap();
        let draft: ModelCard = serde_json::from_slice(&text).unwrap();
        let weights = golden.join(format!("{name}.safetensors"));
        model_cards::add(&models, draft, &weights, EngineChoice::Native).unwrap();
    }
    models
}

fn settings(models: &Path, engine: screen::EngineChoice) -> EngineSettings {
    EngineSettings {
        models_folder: models.to_owned(),
        choice: Some(engine),
        adapter: "gpu".into(),
        wgpu_half: false,
        onnx: EngineChoice::Auto,
        libtorch: EngineChoice::Libtorch {
            device: TorchDevice::Cpu,
            half: false,
        },
        threads: 1,
        batch_items: 8,
        must_open: true,
    }
}

/// A screen of `folder` with the small networks, opened.
fn run_of(folder: &Path, networks: &str) -> Run {
    let text = std::fs::read_to_string(folder.join("screen.toml")).unwrap();
    let more = "[preprocess]\ntiling = \"centre\"\n[quality]\nenabled = false\n";
    let mut screen = Screen::parse(&format!("{text}\n{networks}\n{more}"), "screen.toml").unwrap();
    screen.resolve_paths(&folder.to_string_lossy());
    Run::open(screen).unwrap()
}

const ONE: &str = "[model]\nname = \"timm\"";
const TWO: &str =
    "[model]\nname = \"timm\"\n[[steps]]\nname = \"second\"\nkind = \"embed\"\nmodel = \"dinov2-registers\"";

fn field_of(run: &Arc<Run>) -> FieldId {
    FieldId {
        plate: "SMALL0001".parse().unwrap(),
        well: "A01".parse().unwrap(),
        field: u32::try_from(run.networks.len()).unwrap(),
    }
}

fn decoded(run: &Arc<Run>) -> Decoded {
    let (height, width) = (241, 243);
    let pixels = (0..2 * height * width)
        .map(|i| (i * 7919 % 4001) as u16)
        .collect();
    let task = FieldTask {
        run: run.id.clone(),
        field: field_of(run),
        images: Vec::new(),
        scaling: None,
        shading: None,
    };
    Decoded {
        field: Field {
            task: Arc::new(task),
            run: Arc::clone(run),
            memory: futures::executor::block_on(MemoryLimit::new(1, &Urgency::ALL).reserve(Urgency::Live, 1))
                .unwrap(),
            changed: Vec::new(),
        },
        image: RawImage::new(2, height, width, pixels, 4095).unwrap(),
        stacks: vec![
            Stack {
                planes: 1,
                taken: None,
                index: 0
            };
            2
        ],
        shading: Shading::default(),
    }
}

/// What came of a field.
struct Found {
    /// By network.
    embeddings: Vec<Vec<f32>>,
    measures: Vec<(String, f64)>,
    /// Of each size of tiles, whether they were on the device.
    there: Vec<bool>,
}

fn through_the_stages(run: &Arc<Run>, device: &Device, engine: &EngineSettings) -> Found {
    let mut engines: Vec<_> = run
        .networks
        .iter()
        .map(|network| open_engine(network, device, engine).unwrap())
        .collect();
    let mut last = None;
    // The first field brings up what all others need too.
    for _ in 0..2 {
        let before = device.bus();
        let prepared = preprocess::preprocess(device, engine, decoded(run)).unwrap();
        let pixels = prepared.image.pixels().len() as u64 * 2;
        let measured = quality::measure(device, prepared).unwrap();
        let counted = device.bus();
        let mut embeddings = Vec::new();
        for (network, engine) in run.networks.iter().zip(&mut engines) {
            let tiles = &measured.tiles[network.tiles];
            embeddings.extend(embed_tiles(engine.as_mut(), &[tiles]).unwrap());
        }
        let there = measured
            .tiles
            .iter()
            .map(|tiles| matches!(tiles, Tiles::OnDevice(_)))
            .collect::<Vec<_>>();
        let measures = measured.quality.into_iter().flat_map(|quality| quality.measures);
        let bytes = before.zip(counted).zip(device.bus());
        last = Some((embeddings, measures.collect(), there, pixels, bytes));
    }
    let (embeddings, measures, there, pixels, bytes) = last.unwrap();
    if let Some(((before, counted), after)) = bytes {
        // Whoever computes the networks: the kernels see the pixels once.
        assert_eq!(counted.up - before.up, pixels);
        if there.iter().all(|there| *there) {
            assert_eq!(after.up, counted.up, "tiles went up");
            // For each of two channels the counts of grey levels come down and four words for every 8,192 pixels, then
            // embeddings, with one word for each network's images.
            let blocks = (pixels / 2 / 2).div_ceil(8192);
            assert_eq!(counted.down - before.down, 2 * (65_536 * 4 + blocks * 16));
            let values: usize = embeddings.iter().map(Vec::len).sum();
            let words = (values + run.networks.len()) as u64 * 4;
            assert_eq!(after.down - counted.down, words);
            // Sizes and tables of the resizing: little beside the pixels.
            assert!(
                (after.parameters - before.parameters) * 20 < pixels,
                "{after:?} {before:?}"
            );
        }
    }
    Found {
        embeddings,
        measures,
        there,
    }
}

#[test]
fn on_one_device_pixels_go_up_once_and_tiles_stay_and_every_pairing_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let models = models(folder.path());
    let plates = few_wells(folder.path(), "\"DNA\", \"AGP\"");
    let gpu = Device::open(DeviceChoice::Gpu).unwrap_or_else(|e| panic!("{e}"));
    let cpu = Device::open(DeviceChoice::Cpu).unwrap();
    for networks in [ONE, TWO] {
        let run = Arc::new(run_of(&plates, networks));
        let native = settings(&models, screen::EngineChoice::Native);
        let wgpu = settings(&models, screen::EngineChoice::Wgpu);
        let expected = through_the_stages(&run, &cpu, &native);
        for (device, engine, stays) in [(&cpu, &wgpu, false), (&gpu, &native, false), (&gpu, &wgpu, true)] {
            let found = through_the_stages(&run, device, engine);
            let there = found.there;
            assert!(there.iter().all(|there| *there == stays) && there.len() == run.tile_sizes.len());
            assert_eq!(found.measures, expected.measures);
            let expected = expected.embeddings.iter().flatten();
            for (found, expected) in found.embeddings.iter().flatten().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{found} {expected}");
            }
        }
        // Where one network of a size is elsewhere, its tiles are in the processor's memory, for all.
        let mut run = run_of(&plates, TWO);
        run.networks[1].engine = screen::EngineChoice::Native;
        run.networks[0].engine = screen::EngineChoice::Wgpu;
        let own = EngineSettings {
            choice: None,
            ..wgpu.clone()
        };
        let sizes = run.tile_sizes.len();
        let there = through_the_stages(&Arc::new(run), &gpu, &own).there;
        assert_eq!(
            there,
            if sizes == 1 {
                vec![false]
            } else {
                vec![true, false]
            }
        );
    }
    a_lost_device_costs_time_and_no_field(&models, &plates);
}

/// Called by the test above, which makes models and plates.
fn a_lost_device_costs_time_and_no_field(models: &Path, plates: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime
        .block_on(EmbeddedBroker::start(folder.path(), "127.0.0.1:0"))
        .unwrap();
    let embed = |prefix: &str, device: Device, losses: usize| {
        let mut kafka = KafkaSettings::new(broker.bootstrap(), prefix, prefix);
        kafka.retry_delays = vec![Duration::from_millis(200); 8];
        runtime.block_on(create_missing(&kafka)).unwrap();
        let run = run_of(plates, ONE);
        let plate = ["SMALL0001".parse().unwrap()];
        submit::submit(&kafka, &run, &plate, Urgency::Live, runtime.handle()).unwrap();
        let runs = Runs::follow(&kafka).unwrap();
        let device = Arc::new(device);
        let settings = WorkerSettings {
            decode_threads: 1,
            preprocess_threads: 1,
            engine: settings(models, screen::EngineChoice::Wgpu),
            in_flight_fields: 64,
            in_flight_bytes: 64 << 20,
            lanes: vec![Urgency::Live],
            until_drained: false,
            commands: false,
            callbacks: None,
        };
        let handle = runtime.handle();
        let mut roles = vec![
            planner(&kafka, runs.clone(), Urgency::Live, handle).unwrap(),
            worker(&kafka, runs.clone(), &device, &settings, handle).unwrap(),
            retrier(&kafka, handle).unwrap(),
        ];
        let mut tail = Tail::open(&kafka, &[Topic::Features]).unwrap();
        let mut embeddings = BTreeMap::new();
        let mut lost = 0;
        wait_for("24 fields", || {
            if let Polled::Record(record) = tail.poll(Duration::from_millis(20)).unwrap() {
                let features: FieldFeatures = record.read().unwrap();
                let before = embeddings.insert(features.field.to_string(), features.embedding);
                assert!(before.is_none(), "{}", features.field);
            }
            // After the first fields, so that engines are open, and again while the device is new.
            if lost < losses && embeddings.len() > 2 * lost {
                device.lose();
                lost += 1;
            }
            if roles.iter().any(wellspring::topology::Role::ended) {
                let ended = roles.drain(..).map(|role| {
                    (role.stopper())();
                    role.join()
                });
                panic!("a role ended: {:?}", ended.collect::<Vec<_>>());
            }
            embeddings.len() == 24
        });
        assert_eq!(lost, losses);
        for role in roles {
            (role.stopper())();
            role.join().unwrap();
        }
        runs.stop();
        embeddings
    };
    let gpu = || Device::open(DeviceChoice::Gpu).unwrap();
    let expected = embed("whole", gpu(), 0);
    let found = embed("lost", gpu(), 6);
    assert_eq!(found, expected);
    runtime.block_on(broker.shutdown()).unwrap();
}
