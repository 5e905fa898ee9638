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
    Pooling, VitBlock, VitShape, complete, convert_checkpoint, open, verify,
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
    let completed = complete(draft(&golden), &golden.weights, EngineChoice::Native).unwrap();
    assert_eq!(completed.weights, golden.card.weights);
    let (cosine, _) = compare(&completed.canary.embedding, &golden.card.canary.embedding);
    assert!(cosine > COSINE, "{cosine}");
    assert!(open(&completed, &golden.weights, EngineChoice::Auto, 1).is_ok());
}

/// The card of a golden as a user writes it: nothing filled in.
fn draft(golden: &Golden) -> ModelCard {
    let mut draft = golden.card.clone();
    draft.weights.content_sha256.clear();
    draft.canary.embedding.clear();
    draft
}

fn vit(card: &mut ModelCard) -> &mut VitShape {
    match &mut card.architecture {
        Architecture::Vit(shape) => shape,
        other => panic!("{other:?}"),
    }
}

/// A golden's tensors under other names or with other values: type, shape and bytes, by name.
type Tensors = std::collections::BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

fn changed(golden: &Golden, change: impl FnOnce(&mut Tensors)) -> tempfile::NamedTempFile {
    let bytes = std::fs::read(&golden.weights).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), tensor)
    };
    let mut tensors: Tensors = file.iter().map(of).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    let to = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(to.path(), safetensors::serialize(views, None).unwrap()).unwrap();
    to
}

#[test]
fn tensors_that_the_network_leaves_over_are_refused_by_name_when_it_is_added() {
    type Change = fn(&mut ModelCard);
    let left_over: [(&str, &str, Change); 3] = [
        ("timm", "blocks.1.attn.proj.bias", |card| vit(card).depth = 1),
        ("dinov2-registers", "register_tokens", |card| {
            vit(card).registers = 0;
            card.weights.keys.clear();
        }),
        ("dinov2-registers", "blocks.0.ls1.gamma", |card| {
            vit(card).layer_scale = false
        }),
    ];
    for (name, tensor, change) in left_over {
        let golden = Golden::small(name);
        let mut card = draft(&golden);
        change(&mut card);
        let text = complete(card, &golden.weights, EngineChoice::Native)
            .unwrap_err()
            .to_string();
        assert!(text.contains(tensor) && text.contains("weights.ignore"), "{text}");
        assert!(text.contains(&golden.weights.display().to_string()), "{text}");
    }
    // What the card lists may be there, whatever it holds; what is listed and used is used.
    let golden = Golden::small("timm");
    let with_head = changed(&golden, |tensors| {
        let nan = f32::NAN.to_le_bytes().to_vec();
        let nan = (safetensors::Dtype::F32, vec![1], nan);
        tensors.insert("head.weight".to_owned(), nan.clone());
        tensors.insert("blocks.0.num_batches_tracked".to_owned(), nan);
    });
    let error = complete(draft(&golden), with_head.path(), EngineChoice::Native).unwrap_err();
    assert!(error.to_string().contains("does not use 1 of"), "{error}");
    let mut card = draft(&golden);
    card.weights.ignore = vec!["head.*".to_owned(), "blocks.*".to_owned()];
    let card = complete(card, with_head.path(), EngineChoice::Native).unwrap();
    assert_eq!(card.canary.embedding.len(), golden.card.canary.embedding.len());
    let (cosine, _) = compare(&card.canary.embedding, &golden.card.canary.embedding);
    assert!(cosine > COSINE, "{cosine}");
}

#[test]
fn a_rule_that_leads_nowhere_is_refused() {
    let golden = Golden::small("dinov2-registers");
    let mut card = draft(&golden);
    card.weights.keys.push(wellspring_models::KeyRule {
        network: "cls_tokens".to_owned(),
        file: vec!["cls".to_owned()],
    });
    let error = complete(card, &golden.weights, EngineChoice::Native).unwrap_err();
    assert!(error.to_string().contains("the rule for 'cls_tokens'"), "{error}");
}

#[test]
fn names_under_a_prefix_are_told_with_the_rule_that_finds_them() {
    let golden = Golden::small("timm");
    let wrapped = changed(&golden, |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (format!("backbone.{name}"), tensor))
            .collect();
    });
    let mut card = draft(&golden);
    let text = complete(card.clone(), wrapped.path(), EngineChoice::Native)
        .unwrap_err()
        .to_string();
    let rule = r#""keys": [{"network": "*", "file": ["backbone.*"]}]"#;
    assert!(text.contains(rule), "{text}");
    card.weights.keys = vec![wellspring_models::KeyRule {
        network: "*".to_owned(),
        file: vec!["backbone.*".to_owned()],
    }];
    complete(card, wrapped.path(), EngineChoice::Native).unwrap();
}

#[test]
fn what_a_card_says_already_must_be_what_is_found() {
    let golden = Golden::small("timm");
    let complete = |change: &dyn Fn(&mut ModelCard)| {
        let mut card = golden.card.clone();
        change(&mut card);
        complete(card, &golden.weights, EngineChoice::Native)
    };
    // It stays as it is, also where rounding is another.
    assert_eq!(complete(&|_| {}).unwrap(), golden.card);
    let text = complete(&|card| card.weights.content_sha256 = "ab".repeat(32))
        .unwrap_err()
        .to_string();
    let own = &golden.card.weights.content_sha256;
    assert!(
        text.contains(own.as_str()) && text.contains(&"ab".repeat(32)) && text.contains("timm.safetensors"),
        "{text}"
    );
    for digest in [own.to_uppercase(), own[..12].to_owned(), "g".repeat(64)] {
        let error = complete(&|card| card.weights.content_sha256.clone_from(&digest)).unwrap_err();
        assert!(
            matches!(
                error,
                EngineError::Card {
                    field: "weights.content_sha256",
                    ..
                }
            ),
            "{error}"
        );
    }
    let error = complete(&|card| card.canary.embedding.truncate(3)).unwrap_err();
    assert!(
        error.to_string().contains("has 3 values") && error.to_string().contains("gives 24"),
        "{error}"
    );
    let error = complete(&|card| card.canary.embedding.iter_mut().for_each(|v| *v *= 1.01)).unwrap_err();
    assert!(matches!(error, EngineError::Canary { .. }), "{error}");
    let error = complete(&|card| card.version = " ".to_owned()).unwrap_err();
    assert!(
        matches!(error, EngineError::Card { field: "version", .. }),
        "{error}"
    );
    let mut kept = golden.card.clone();
    kept.canary.embedding.clear();
    let error = verify(&kept, &golden.weights).unwrap_err();
    assert!(error.to_string().contains("empty canary.embedding"), "{error}");
}

#[test]
fn weights_of_zeros_are_refused() {
    let golden = Golden::small("timm");
    let zeros = changed(&golden, |tensors| {
        tensors.values_mut().for_each(|(_, _, data)| data.fill(0));
    });
    let error = complete(draft(&golden), zeros.path(), EngineChoice::Native).unwrap_err();
    assert!(matches!(error, EngineError::Constant { .. }), "{error}");
}
