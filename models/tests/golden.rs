//! The transformers against PyTorch: random weights, inputs and outputs that `golden/make.py` wrote. The small ones are
//! committed; where `WELLSPRING_GOLDENS` names a folder (`make.py --full DIR`), those of the published sizes are checked
//! too.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

mod common;

use std::path::{Path, PathBuf};

use common::compare;
use safetensors::SafeTensors;
use wellspring_models::{
    Architecture, Batch, ChannelPolicy, Engine, EngineChoice, EngineError, MlpActivation, MlpBias, ModelCard,
    Pooling, VitBlock, VitShape, complete, convert_checkpoint, open,
};

/// Largest difference from PyTorch relative to the largest value of the embedding: both round in f32, over sums of up to
/// 3072 terms.
const DIFFERENCE: f64 = 2e-5;

/// The same for shaders: their exponential and their error function are approximations to a few units of the last place.
const DIFFERENCE_OF_SHADERS: f64 = 1e-4;

/// The engines that run these networks.
fn engines() -> [EngineChoice; 2] {
    let wgpu = EngineChoice::Wgpu {
        adapter: "gpu".to_owned(),
        half: false,
    };
    [EngineChoice::Native, wgpu]
}

/// Least cosine with PyTorch.
const COSINE: f64 = 0.999_999;

/// A golden model, its weights as safetensors, and what PyTorch makes of an input.
struct Golden {
    card: ModelCard,
    weights: PathBuf,
    /// Items, channels, rows, columns.
    shape: [usize; 4],
    input: Vec<f32>,
    output: Vec<f32>,
    _folder: tempfile::TempDir,
}

impl Golden {
    fn read(folder: &Path, name: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let checkpoint = folder.join(format!("{name}.pt"));
        let weights = if checkpoint.exists() {
            let path = own.path().join("weights.safetensors");
            let bytes = std::fs::read(checkpoint).unwrap();
            std::fs::write(&path, convert_checkpoint(&bytes).unwrap()).unwrap();
            path
        } else {
            folder.join(format!("{name}.safetensors"))
        };
        let case = std::fs::read(folder.join(format!("{name}.case.safetensors"))).unwrap();
        let case = SafeTensors::deserialize(&case).unwrap();
        let (input, output) = (case.tensor("input").unwrap(), case.tensor("output").unwrap());
        let floats = |data: &[u8]| {
            data.chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        };
        Self {
            card: serde_json::from_str(&text).unwrap(),
            weights,
            shape: input.shape().try_into().unwrap(),
            input: input.data().iter().map(|&v| f32::from(v)).collect(),
            output: floats(output.data()),
            _folder: own,
        }
    }

    fn small(name: &str) -> Self {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"), name)
    }

    fn open(&self, threads: usize) -> Result<Box<dyn Engine>, EngineError> {
        self.open_on(&EngineChoice::Native, threads)
    }

    fn open_on(&self, choice: &EngineChoice, threads: usize) -> Result<Box<dyn Engine>, EngineError> {
        open(&self.card, &self.weights, choice.clone(), threads)
    }

    fn batch(&self, items: std::ops::Range<usize>) -> Batch {
        let [_, channels, height, width] = self.shape;
        let one = channels * height * width;
        let data = self.input[items.start * one..items.end * one].to_vec();
        Batch::new(items.len(), channels, height, width, data).unwrap()
    }

    fn shape_mut(&mut self) -> &mut VitShape {
        match &mut self.card.architecture {
            Architecture::Vit(shape) => shape,
            other => panic!("{other:?}"),
        }
    }
}

const SMALL: [&str; 7] = [
    "timm",
    "dinov2-registers",
    "dino",
    "apart",
    "openphenom-layout",
    "per-channel",
    "silu",
];

fn agrees(golden: &Golden, choice: &EngineChoice) {
    let name = &golden.card.name;
    let allowed = match choice {
        EngineChoice::Wgpu { .. } => DIFFERENCE_OF_SHADERS,
        _ => DIFFERENCE,
    };
    // Opening checks the canary, which PyTorch embedded too.
    let mut engine = golden.open_on(choice, 1).unwrap();
    let [items, channels, ..] = golden.shape;
    let found = engine.embed(&golden.batch(0..items)).unwrap();
    assert_eq!(found.width, golden.card.item_width(channels), "{name}");
    assert_eq!(found.data.len(), golden.output.len(), "{name}");
    for (item, expected) in golden.output.chunks_exact(found.width).enumerate() {
        let (cosine, largest) = compare(found.row(item).unwrap(), expected);
        let size = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
        println!(
            "{name}, {}, item {item}: cosine {cosine:.9}, largest difference {largest:.2e} of {size:.2}",
            engine.device()
        );
        assert!(
            cosine >= COSINE && largest <= allowed * f64::from(size),
            "{name}, {choice:?}, item {item}: cosine {cosine}, difference {largest} of {size}"
        );
    }
}

#[test]
fn small_networks_agree_with_pytorch() {
    for name in SMALL {
        for choice in engines() {
            agrees(&Golden::small(name), &choice);
        }
    }
}

#[test]
fn networks_of_published_sizes_agree_with_pytorch() {
    let Some(folder) = std::env::var_os("WELLSPRING_GOLDENS") else {
        println!("skipped: WELLSPRING_GOLDENS names no folder that golden/make.py --full wrote");
        return;
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            for choice in engines() {
                agrees(&Golden::read(Path::new(&folder), name), &choice);
            }
            checked += 1;
        }
    }
    assert!(checked > 0, "{} holds no golden", Path::new(&folder).display());
}

#[test]
fn a_batch_equals_its_singles_whatever_the_threads() {
    for (name, choice) in SMALL
        .iter()
        .flat_map(|name| engines().map(|choice| (name, choice)))
    {
        let golden = Golden::small(name);
        let items = golden.shape[0];
        let mut one = golden.open_on(&choice, 1).unwrap();
        let singles: Vec<f32> = (0..items)
            .flat_map(|i| one.embed(&golden.batch(i..i + 1)).unwrap().data)
            .collect();
        for threads in [1, 2, 3] {
            let found = golden
                .open_on(&choice, threads)
                .unwrap()
                .embed(&golden.batch(0..items))
                .unwrap();
            assert!(
                found.data == singles,
                "{name}, {choice:?} with {threads} threads differs from singles"
            );
        }
    }
}

#[test]
fn a_channel_agnostic_network_takes_any_number_of_channels_in_turn() {
    for choice in engines() {
        takes_any_number_of_channels(&choice);
    }
}

fn takes_any_number_of_channels(choice: &EngineChoice) {
    let golden = Golden::small("per-channel");
    let mut engine = golden.open_on(choice, 1).unwrap();
    let (plane, width) = (32 * 32, golden.card.embedding_width);
    let four = engine.embed(&golden.batch(0..1)).unwrap();
    for channels in [1, 3, 2, 4] {
        let data = golden.input[..channels * plane].to_vec();
        let found = engine
            .embed(&Batch::new(1, channels, 32, 32, data).unwrap())
            .unwrap();
        assert_eq!(found.width, channels * width);
        // What a larger image left in the scratch memory must not show: the whole one is as it was.
        assert_eq!(found.data == four.data, channels == 4);
    }
    for channels in [0, 5] {
        let batch = Batch::new(1, channels, 32, 32, vec![1.0; channels * plane]).unwrap();
        let error = engine.embed(&batch).unwrap_err();
        assert!(matches!(error, EngineError::WrongInput { .. }), "{error}");
        assert!(error.to_string().contains("1 to 4 x 32 x 32"), "{error}");
    }
    assert_eq!(golden.card.items_for(3), Some((3, 1)));
    assert_eq!(golden.card.items_for(5), None);
    assert_eq!(golden.card.image_width(3), Some(3 * width));
}

#[test]
fn a_constant_channel_is_the_same_at_every_level() {
    // Self-standardisation: a constant plane becomes zeros.
    let golden = Golden::small("openphenom-layout");
    for choice in engines() {
        let mut engine = golden.open_on(&choice, 1).unwrap();
        let mut embed = |level: f32| {
            let batch = Batch::new(1, 1, 32, 32, vec![level; 32 * 32]).unwrap();
            engine.embed(&batch).unwrap().data
        };
        assert_eq!(embed(0.0), embed(255.0), "{choice:?}");
    }
}

/// What is done to a golden.
type Change = fn(&mut Golden);

/// The error of a golden whose card was changed.
fn refused(name: &str, change: impl FnOnce(&mut Golden)) -> EngineError {
    let mut golden = Golden::small(name);
    change(&mut golden);
    match golden.open(1) {
        Ok(_) => panic!("{name} opened"),
        Err(error) => error,
    }
}

#[test]
fn the_canary_tells_a_network_that_is_put_together_otherwise() {
    let wrong: [(&str, Change); 6] = [
        ("openphenom-layout", |g| {
            g.shape_mut().block = VitBlock::ParallelScaling(MlpBias::First);
        }),
        ("timm", |g| g.shape_mut().heads = 2),
        ("timm", |g| g.shape_mut().final_norm = false),
        ("dinov2-registers", |g| g.shape_mut().layer_scale = false),
        ("dinov2-registers", |g| g.shape_mut().depth = 1),
        ("timm", |g| g.card.pooling = Pooling::PatchMean),
    ];
    for (name, change) in wrong {
        let error = refused(name, change);
        assert!(matches!(error, EngineError::Canary { .. }), "{name}: {error}");
    }
}

#[test]
fn the_canary_tells_one_activation_from_another() {
    let error = refused("silu", |g| g.shape_mut().activation = MlpActivation::Gelu);
    assert!(matches!(error, EngineError::Canary { .. }), "{error}");
}

#[test]
fn a_card_that_contradicts_its_transformer_is_refused_by_field() {
    let wrong: [(&str, &str, Change); 11] = [
        ("architecture.heads", "timm", |g| g.shape_mut().heads = 5),
        ("architecture.heads", "timm", |g| g.shape_mut().heads = 0),
        ("architecture", "timm", |g| g.shape_mut().width = usize::MAX),
        ("architecture", "timm", |g| g.shape_mut().depth = usize::MAX),
        ("architecture.norm_epsilon", "timm", |g| {
            g.shape_mut().norm_epsilon = f32::NAN
        }),
        ("input.height and input.width", "timm", |g| {
            g.shape_mut().patch = 0
        }),
        ("input.height and input.width", "timm", |g| {
            g.card.input.height = 33
        }),
        ("pooling", "timm", |g| {
            g.card.pooling = Pooling::PatchMeanPerChannel
        }),
        ("pooling", "timm", |g| g.card.pooling = Pooling::GlobalMean),
        ("embedding_width", "timm", |g| g.card.embedding_width = 48),
        ("channel_policy", "apart", |g| {
            g.card.channel_policy = ChannelPolicy::FirstConvolution { channels: 0 };
        }),
    ];
    for (wanted, name, change) in wrong {
        let error = refused(name, change);
        assert!(
            matches!(&error, EngineError::Card { field, .. } if *field == wanted),
            "{wanted}: {error}"
        );
    }
    let error = refused("timm", |g| g.shape_mut().registers = 4);
    assert!(error.to_string().contains("reg_token is missing"), "{error}");
    let error = refused("timm", |g| g.shape_mut().mlp_width = 41);
    assert!(
        error.to_string().contains("blocks.0.mlp.fc1.weight has shape"),
        "{error}"
    );
}

#[test]
fn a_card_is_completed_from_its_weights() {
    let golden = Golden::small("dinov2-registers");
    let mut draft = golden.card.clone();
    draft.weights.content_sha256.clear();
    draft.canary.embedding.clear();
    let completed = complete(draft, &golden.weights, EngineChoice::Native).unwrap();
    assert_eq!(completed.weights, golden.card.weights);
    let (cosine, _) = compare(&completed.canary.embedding, &golden.card.canary.embedding);
    assert!(cosine > COSINE, "{cosine}");
    assert!(open(&completed, &golden.weights, EngineChoice::Auto, 1).is_ok());
}
