//! Heads on every engine: served as the formula says, on their base and on no other. ONNX files and TorchScript modules as
//! bases need builds with the features `onnx` and `libtorch`, see `onnx.rs` and `torchscript.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{Random, compare, refused};
use wellspring_models::{
    Architecture, Base, BaseModel, Batch, ChannelPolicy, EngineChoice, EngineError, HeadFit, HeadMap,
    HeadNames, HeadOut, HeadShape, HeadWeights, ModelCard, Pooling, TorchDevice, WeightsError, complete_head,
    content_digest, open, open_head, verify, verify_head,
};

const CHANNELS: usize = 3;

/// A small network of random weights, as the golden files have it.
struct Network {
    card: ModelCard,
    weights: PathBuf,
    /// What runs it; all give the same, to rounding.
    engines: Vec<EngineChoice>,
}

impl Network {
    fn golden(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        Self {
            card: serde_json::from_slice(&text).unwrap(),
            weights: folder.join(format!("{name}.safetensors")),
            engines: vec![
                EngineChoice::Native,
                EngineChoice::Wgpu {
                    adapter: "gpu".to_owned(),
                    half: false,
                },
            ],
        }
    }

    /// A network that one engine alone runs.
    fn of_library(file: &str, card: &str, engine: EngineChoice) -> Self {
        Self {
            card: serde_json::from_str(card).unwrap(),
            weights: Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file),
            engines: vec![engine],
        }
    }

    fn base(&self) -> Base<'_> {
        Base {
            card: &self.card,
            weights: &self.weights,
        }
    }
}

/// One of each kind: on a network of single channels and on channel-agnostic ones with and without a mean over channels.
fn heads() -> Vec<(Network, HeadMap)> {
    let classes = |n: usize| (0..n).map(|i| format!("class {i}")).collect();
    let mut heads = vec![
        (
            Network::golden("timm"),
            HeadMap::WhitenedFeatures { components: 5 },
        ),
        (
            Network::golden("timm"),
            HeadMap::WhitenedComponents { components: 4 },
        ),
        (
            Network::golden("per-channel"),
            HeadMap::Classes { names: classes(2) },
        ),
    ];
    if cfg!(feature = "onnx")
        && let Some(engine) = common::runtime()
    {
        let card = include_str!("../golden/onnx-mini.json");
        let network = Network::of_library("onnx-mini.onnx", card, engine);
        heads.push((network, HeadMap::WhitenedFeatures { components: 5 }));
    }
    if cfg!(feature = "libtorch") {
        let card = include_str!("../golden/torchscript-mini.json");
        let engine = EngineChoice::Libtorch {
            device: TorchDevice::Cpu,
            half: false,
        };
        let network = Network::of_library("torchscript-mini.pt", card, engine);
        heads.push((network, HeadMap::Classes { names: classes(3) }));
    }
    heads
}

struct Head {
    card: ModelCard,
    numbers: HeadWeights,
    weights: PathBuf,
    _folder: tempfile::TempDir,
}

/// Names of the channels.
fn channels() -> Vec<String> {
    ["DNA", "ER", "AGP"].map(str::to_owned).to_vec()
}

fn head(network: &Network, map: HeadMap) -> Head {
    let base = &network.card;
    let features = base.image_width(CHANNELS).unwrap();
    let (rows, width) = match &map {
        HeadMap::WhitenedComponents { components } => (*components, *components),
        HeadMap::WhitenedFeatures { components } => (*components, features),
        HeadMap::Classes { names } => (names.len(), names.len()),
        _ => panic!("a kind without a test"),
    };
    let mut random = Random(5);
    let mut numbers =
        |n: usize, centre: f32| (0..n).map(|_| centre + random.spread(0.3)).collect::<Vec<f32>>();
    let numbers = HeadWeights {
        mean: numbers(features, 0.1),
        gain: numbers(features, 1.0),
        directions: numbers(rows * features, 0.0),
        out: match &map {
            HeadMap::WhitenedFeatures { .. } => HeadOut::Features {
                gains: numbers(rows, 0.5),
                floor: 0.7,
            },
            _ => HeadOut::Directions {
                bias: numbers(rows, 0.2),
            },
        },
        names: HeadNames {
            channels: channels(),
            classes: match &map {
                HeadMap::Classes { names } => names.clone(),
                _ => Vec::new(),
            },
        },
    };
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("head.safetensors");
    std::fs::write(&weights, numbers.to_safetensors().unwrap()).unwrap();
    let mut draft = base.clone();
    draft.name = "head".to_owned();
    draft.weights.keys.clear();
    draft.weights.content_sha256.clear();
    draft.canary.embedding.clear();
    draft.channel_policy = ChannelPolicy::Fitted { channels: CHANNELS };
    draft.pooling = Pooling::Head;
    draft.embedding_width = width;
    draft.architecture = Architecture::Head(Box::new(HeadShape {
        base: BaseModel {
            name: base.name.clone(),
            version: base.version.clone(),
            content_sha256: base.weights.content_sha256.clone(),
        },
        channels: channels(),
        map,
        fit: HeadFit {
            from: "a test".to_owned(),
            method: "none".to_owned(),
            controls: "none".to_owned(),
            plates: 1,
            wells: 16,
            shrinkage: None,
            ridge: None,
            held_out: None,
            balanced_accuracy: None,
        },
    }));
    let card = complete_head(draft, &weights, network.base(), network.engines[0].clone()).unwrap();
    // A card is read back as it was written.
    let text = serde_json::to_string(&card).unwrap();
    assert_eq!(serde_json::from_str::<ModelCard>(&text).unwrap(), card);
    Head {
        card,
        numbers,
        weights,
        _folder: folder,
    }
}

fn images(card: &ModelCard, items: usize) -> Vec<f32> {
    Random(9).image(items * CHANNELS * card.input.height * card.input.width)
}

fn batch(card: &ModelCard, items: usize, data: &[f32]) -> Batch {
    Batch::new(
        items,
        CHANNELS,
        card.input.height,
        card.input.width,
        data.to_vec(),
    )
    .unwrap()
}

/// What the base alone makes of an image, its channels side by side.
fn by_base(network: &Network, image: &[f32]) -> Vec<f32> {
    let card = &network.card;
    let (channels, items) = card.items_for(CHANNELS).unwrap();
    let mut engine = open(card, &network.weights, network.engines[0].clone(), 1).unwrap();
    let (height, width) = (card.input.height, card.input.width);
    let batch = Batch::new(items, channels, height, width, image.to_vec()).unwrap();
    engine.embed(&batch).unwrap().data
}

/// The formula, in the order in which it is written.
fn by_formula(numbers: &HeadWeights, x: &[f32]) -> Vec<f32> {
    let features = x.len();
    let z: Vec<f64> = (0..features)
        .map(|j| (f64::from(x[j]) - f64::from(numbers.mean[j])) * f64::from(numbers.gain[j]))
        .collect();
    let rows = numbers.directions.len() / features;
    let entry = |k: usize, j: usize| f64::from(numbers.directions[k * features + j]);
    let s: Vec<f64> = (0..rows)
        .map(|k| (0..features).map(|j| entry(k, j) * z[j]).sum())
        .collect();
    match &numbers.out {
        HeadOut::Directions { bias } => (0..rows).map(|k| (s[k] + f64::from(bias[k])) as f32).collect(),
        HeadOut::Features { gains, floor } => (0..features)
            .map(|j| {
                let back: f64 = (0..rows).map(|k| entry(k, j) * f64::from(gains[k]) * s[k]).sum();
                (f64::from(*floor) * z[j] + back) as f32
            })
            .collect(),
    }
}

#[test]
fn a_head_makes_of_its_base_what_the_formula_says_on_every_engine() {
    for (network, map) in heads() {
        let head = head(&network, map);
        let data = images(&head.card, 3);
        let per_image = data.len() / 3;
        for choice in &network.engines {
            let mut engine = open_head(&head.card, &head.weights, network.base(), choice.clone(), 2).unwrap();
            let all = engine.embed(&batch(&head.card, 3, &data)).unwrap();
            assert_eq!((all.items, all.width), (3, head.card.embedding_width));
            for (item, image) in data.chunks_exact(per_image).enumerate() {
                let expected = by_formula(&head.numbers, &by_base(&network, image));
                let (cosine, largest) = compare(all.row(item).unwrap(), &expected);
                assert!(
                    cosine >= 0.9999 && largest < 1e-3,
                    "{choice:?} {cosine} {largest}"
                );
                let single = engine.embed(&batch(&head.card, 1, image)).unwrap();
                let (cosine, largest) = compare(single.row(0).unwrap(), all.row(item).unwrap());
                // A library may round otherwise for another size of batch.
                let exact = matches!(choice, EngineChoice::Native | EngineChoice::Wgpu { .. });
                assert!(!exact || single.row(0) == all.row(item), "{choice:?}");
                assert!(
                    cosine > 0.999_999 && largest < 1e-4,
                    "{choice:?} {cosine} {largest}"
                );
            }
        }
    }
}

#[test]
fn a_head_keeps_the_contract_of_an_engine() {
    let (network, map) = heads().remove(0);
    let head = head(&network, map);
    let mut engine = open_head(&head.card, &head.weights, network.base(), EngineChoice::Auto, 1).unwrap();
    assert_eq!(engine.card(), &head.card);
    let empty = engine.embed(&batch(&head.card, 0, &[])).unwrap();
    assert_eq!((empty.items, empty.data.len()), (0, 0));
    let (height, width) = (head.card.input.height, head.card.input.width);
    let two = Batch::new(1, 2, height, width, vec![1.0; 2 * height * width]).unwrap();
    let error = engine.embed(&two).unwrap_err();
    assert!(
        matches!(error, EngineError::WrongInput { channels: 2, .. }),
        "{error}"
    );
    let most = engine.max_items();
    let too_many = vec![1.0; (most + 1) * CHANNELS * height * width];
    let error = engine.embed(&batch(&head.card, most + 1, &too_many)).unwrap_err();
    assert!(
        matches!(error, EngineError::Oversize { limit, .. } if limit == most),
        "{error}"
    );
    assert_eq!(head.card.image_width(CHANNELS), Some(head.card.embedding_width));
    assert_eq!(head.card.image_width(2), None);
    verify(&head.card, &head.weights).unwrap();
}

fn tampered(change: impl FnOnce(&mut Network, &mut Head)) -> EngineError {
    let (mut network, map) = heads().remove(0);
    let mut head = head(&network, map);
    change(&mut network, &mut head);
    refused(open_head(
        &head.card,
        &head.weights,
        network.base(),
        EngineChoice::Native,
        1,
    ))
}

fn shape(card: &mut ModelCard) -> &mut HeadShape {
    match &mut card.architecture {
        Architecture::Head(shape) => shape,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_that_carries_the_digest_of_other_numbers_is_refused() {
    let (network, map) = heads().remove(0);
    let head = head(&network, map);
    let complete = |version: String| {
        let mut card = head.card.clone();
        card.version = version;
        complete_head(card, &head.weights, network.base(), EngineChoice::Native)
    };
    complete(format!("1-{:.8}", head.card.weights.content_sha256)).unwrap();
    complete("2".to_owned()).unwrap();
    let error = complete("1-00000000".to_owned()).unwrap_err();
    assert!(
        matches!(&error, EngineError::OtherVersion { .. }) && error.to_string().contains("1-00000000"),
        "{error}"
    );
}

#[test]
fn another_base_is_refused_by_what_differs() {
    let error = tampered(|_, head| shape(&mut head.card).base.content_sha256 = "00".repeat(32));
    assert!(
        matches!(
            &error,
            EngineError::OtherBase {
                field: "content_sha256",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("fit-head"), "{error}");
    let error = tampered(|network, _| network.card.version = "2".to_owned());
    assert!(
        matches!(&error, EngineError::OtherBase { field: "version", .. }),
        "{error}"
    );
    let error = tampered(|network, _| *network = Network::golden("per-channel"));
    assert!(
        matches!(&error, EngineError::OtherBase { field: "name", .. }),
        "{error}"
    );
    let error = tampered(|network, _| network.weights = Network::golden("per-channel").weights);
    assert!(matches!(&error, EngineError::WrongDigest { .. }), "{error}");
    let error = tampered(|network, head| {
        (network.card, network.weights) = (head.card.clone(), head.weights.clone());
    });
    assert!(
        matches!(
            &error,
            EngineError::Card {
                field: "architecture.head.base",
                ..
            }
        ),
        "{error}"
    );

    let (network, map) = heads().remove(0);
    let head = head(&network, map);
    let error = refused(open(&head.card, &head.weights, EngineChoice::Native, 1));
    assert!(matches!(&error, EngineError::NoBase { .. }), "{error}");
}

#[test]
fn a_card_or_weights_that_do_not_fit_are_refused() {
    for (field, change) in [
        ("input", (|card| card.input.scale *= 2.0) as fn(&mut ModelCard)),
        ("channel_policy", |card| {
            card.channel_policy = ChannelPolicy::ReplicateAndConcatenate
        }),
        ("channel_policy", |card| {
            card.channel_policy = ChannelPolicy::Fitted { channels: 0 }
        }),
        ("pooling", |card| card.pooling = Pooling::ClassToken),
        ("embedding_width", |card| card.embedding_width += 1),
    ] {
        let error = tampered(|_, head| change(&mut head.card));
        assert!(
            matches!(&error, EngineError::Card { field: found, .. } if *found == field),
            "{field}: {error}"
        );
    }
    let error = tampered(|_, head| std::fs::write(&head.weights, b"short").unwrap());
    assert!(
        matches!(
            &error,
            EngineError::Weights {
                source: WeightsError::Malformed { .. },
                ..
            }
        ),
        "{error}"
    );
    let rewritten = |head: &mut Head| {
        let bytes = head.numbers.to_safetensors().unwrap();
        head.card.weights.content_sha256 = content_digest(&bytes).unwrap();
        std::fs::write(&head.weights, bytes).unwrap();
    };
    let error = tampered(|_, head| {
        head.numbers.mean[3] = f32::NAN;
        rewritten(head);
    });
    assert!(
        matches!(
            &error,
            EngineError::Weights {
                source: WeightsError::BadValue { offset: 3, .. },
                ..
            }
        ),
        "{error}"
    );
    let error = tampered(|_, head| {
        let features = head.numbers.mean.len();
        head.numbers.directions.truncate(4 * features);
        if let HeadOut::Features { gains, .. } = &mut head.numbers.out {
            gains.pop();
        }
        rewritten(head);
    });
    assert!(
        matches!(
            &error,
            EngineError::Weights {
                source: WeightsError::WrongShape { .. },
                ..
            }
        ),
        "{error}"
    );
    for rename in [
        (|shape| shape.channels.swap(0, 1)) as fn(&mut HeadShape),
        |shape| shape.channels.clear(),
    ] {
        let error = tampered(|_, head| rename(shape_of(&mut head.card)));
        assert!(
            matches!(
                &error,
                EngineError::Weights {
                    source: WeightsError::OtherNames {
                        tensor: "channels",
                        ..
                    },
                    ..
                }
            ),
            "{error}"
        );
    }
    let error = tampered(|_, head| {
        shape_of(&mut head.card).channels.pop();
        head.numbers.names.channels.pop();
        rewritten(head);
    });
    assert!(
        matches!(
            &error,
            EngineError::Card {
                field: "architecture.head.channels",
                ..
            }
        ),
        "{error}"
    );
    let error = tampered(|_, head| {
        head.numbers.mean.iter_mut().for_each(|mean| *mean += 1.0);
        rewritten(head);
    });
    assert!(matches!(&error, EngineError::Canary { .. }), "{error}");
}

fn shape_of(card: &mut ModelCard) -> &mut HeadShape {
    match &mut card.architecture {
        Architecture::Head(shape) => shape,
        other => panic!("{other:?}"),
    }
}

#[test]
fn heads_that_differ_by_names_alone_have_digests_of_their_own() {
    let (network, map) = heads().remove(2);
    let mut made = head(&network, map);
    let before = made.card.weights.content_sha256.clone();
    assert_eq!(
        content_digest(&made.numbers.to_safetensors().unwrap()),
        Ok(before.clone())
    );
    made.numbers.names.classes[0] = "another".to_owned();
    let classes = content_digest(&made.numbers.to_safetensors().unwrap()).unwrap();
    made.numbers.names.channels.reverse();
    let channels = content_digest(&made.numbers.to_safetensors().unwrap()).unwrap();
    assert!(classes != before && channels != classes && channels != before);

    // A card whose classes were renamed by hand is not verified.
    let mut card = made.card.clone();
    assert!(verify_head(&card, &made.weights, &network.card).is_ok());
    if let HeadMap::Classes { names } = &mut shape_of(&mut card).map {
        names.swap(0, 1);
    }
    let error = verify_head(&card, &made.weights, &network.card).unwrap_err();
    assert!(error.to_string().contains("head"), "{error}");
    assert!(
        matches!(
            &error,
            EngineError::Weights {
                source: WeightsError::OtherNames {
                    tensor: "classes",
                    ..
                },
                ..
            }
        ),
        "{error}"
    );
}
