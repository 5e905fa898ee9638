//! The one suite every engine passes. It is written over `dyn Engine`; a new engine joins by one line in `engines`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

mod common;

use std::path::Path;

use common::{
    Random, compare, lite0, lite2, naive_lite, random_lite, refused, shared, synthetic, to_safetensors,
};
use proptest::prelude::*;
use wellspring_models::{
    Batch, BatchError, Engine, EngineChoice, EngineError, ModelCard, Normalisation, WeightsError,
    content_digest, find_card, open, verify,
};

/// The engines under test that run networks of their own. Those that run graphs are in `onnx.rs`.
fn engines() -> [EngineChoice; 3] {
    let wgpu = EngineChoice::Wgpu {
        adapter: "gpu".to_owned(),
        half: false,
    };
    [EngineChoice::Auto, EngineChoice::Native, wgpu]
}

/// Least cosine with a reference, for engines that compute in f32.
const COSINE_F32: f64 = 0.9999;

/// Largest difference from the golden embeddings: PyTorch itself differs from them by 1.5e-5 (values reach about 6),
/// and they are written with six digits.
const GOLDEN_DIFFERENCE: f64 = 1e-4;

const PIXELS: usize = 224 * 224;

fn batch(images: &[&[f32]]) -> Batch {
    Batch::new(images.len(), 1, 224, 224, images.concat()).unwrap()
}

fn open_synthetic(choice: &EngineChoice, threads: usize) -> Box<dyn Engine> {
    open(&synthetic().card, &synthetic().path, choice.clone(), threads).unwrap()
}

fn images(seed: u64, n: usize) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    (0..n).map(|_| random.image(PIXELS)).collect()
}

#[test]
fn agrees_with_the_plain_forward_pass_on_random_weights() {
    let mut random = Random(3);
    let image = random.image(PIXELS);
    let expected = naive_lite(&synthetic().tensors, &lite0(), 224, &image);
    for choice in engines() {
        let mut engine = open_synthetic(&choice, 1);
        let found = engine.embed(&batch(&[&image])).unwrap();
        let (cosine, largest) = compare(found.row(0).unwrap(), &expected);
        assert!(
            cosine >= 0.999_999 && largest < 1e-3,
            "{choice:?}: cosine {cosine}, difference {largest}"
        );
    }
}

#[test]
fn sixteen_bit_floats_agree_within_a_thousandth() {
    let mut random = Random(3);
    let image = random.image(PIXELS);
    let expected = naive_lite(&synthetic().tensors, &lite0(), 224, &image);
    // Opening has compared the canary as strictly.
    let mut engine = open_synthetic(
        &EngineChoice::Wgpu {
            adapter: "gpu".to_owned(),
            half: true,
        },
        1,
    );
    assert!(engine.half_precision() && engine.device().ends_with(", f16"));
    let found = engine.embed(&batch(&[&image])).unwrap();
    let (cosine, _) = compare(found.row(0).unwrap(), &expected);
    assert!((0.999..0.999_999_9).contains(&cosine), "cosine {cosine}");
}

#[test]
fn a_wider_and_deeper_network_agrees_with_the_plain_forward_pass_too() {
    // Opening compares the canary with that of the plain forward pass, at an odd size of the last map.
    let tensors = random_lite(&lite2(), 17);
    let bytes = to_safetensors(&tensors);
    let mut card = find_card("efficientnet-lite2").unwrap().clone();
    card.weights.content_sha256 = content_digest(&bytes).unwrap();
    card.canary.embedding = naive_lite(&tensors, &lite2(), 260, &card.canary.image.render(260, 260, 0));
    let mut engine = try_open(&card, &bytes).unwrap();
    let image = card.canary.image.render(260, 260, 0);
    let found = engine.embed(&Batch::new(1, 1, 260, 260, image).unwrap()).unwrap();
    let (cosine, largest) = compare(&found.data, &card.canary.embedding);
    assert!(
        cosine >= 0.999_999 && largest < 1e-3,
        "cosine {cosine}, difference {largest}"
    );
}

/// The engine on the real weights, where they are present.
fn open_real(choice: &EngineChoice) -> Option<Box<dyn Engine>> {
    let weights = shared("data/weights/efficientnet_lite0/efficientnet_lite0_imagenet.safetensors")?;
    Some(
        open(
            find_card("efficientnet-lite0").unwrap(),
            weights,
            choice.clone(),
            1,
        )
        .unwrap(),
    )
}

/// The golden input: rows and columns 16..240 of a real field. The fields are 8-bit TIFFs with a palette, whose
/// indices are the grey levels; the strips are read as they lie in the file, because the decoder refuses palettes.
fn crop(path: &Path) -> Vec<f32> {
    use tiff::tags::Tag;
    let bytes = std::fs::read(path).unwrap();
    let mut decoder = tiff::decoder::Decoder::new(std::io::Cursor::new(&bytes)).unwrap();
    let width = decoder.dimensions().unwrap().0 as usize;
    assert_eq!(
        decoder.get_tag_u32(Tag::Compression).unwrap(),
        1,
        "{} is compressed",
        path.display()
    );
    let offsets = decoder.get_tag_u32_vec(Tag::StripOffsets).unwrap();
    let counts = decoder.get_tag_u32_vec(Tag::StripByteCounts).unwrap();
    let strips = offsets
        .iter()
        .zip(&counts)
        .map(|(&at, &n)| &bytes[at as usize..(at + n) as usize]);
    let pixels: Vec<u8> = strips.flatten().copied().collect();
    (16..240)
        .flat_map(|y| {
            pixels[y * width + 16..y * width + 240]
                .iter()
                .map(|&v| f32::from(v))
        })
        .collect()
}

#[test]
fn reproduces_the_golden_embeddings_of_real_fields() {
    let Some(goldens) = shared("data/weights/efficientnet_lite0/golden_embeddings.csv") else {
        return;
    };
    let Some(fields) = shared("data/transfluor/images") else {
        return;
    };
    let text = std::fs::read_to_string(goldens).unwrap();
    let mut checked = 0;
    for choice in engines() {
        let Some(mut engine) = open_real(&choice) else {
            return;
        };
        for line in text.lines().skip(1) {
            let (name, values) = line.split_once(',').unwrap();
            let expected: Vec<f32> = values.split(',').map(|v| v.parse().unwrap()).collect();
            let image = if name == "zeros_after_norm" {
                vec![127.0; PIXELS]
            } else {
                let field = name.split('_').next().unwrap();
                crop(&fields.join(format!("AS_09047_050428030001_{field}d2.TIF")))
            };
            let found = engine.embed(&batch(&[&image])).unwrap();
            let (cosine, largest) = compare(&found.data, &expected);
            println!("{choice:?} {name}: cosine {cosine:.9}, largest difference {largest:.2e}");
            assert!(
                cosine >= COSINE_F32 && largest <= GOLDEN_DIFFERENCE,
                "{name}: {cosine} {largest}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 3 * engines().len());
}

/// The tensors of the real weights.
fn real_tensors(path: &Path) -> common::Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let values = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect()
}

#[test]
fn the_canary_on_the_card_is_that_of_the_plain_forward_pass() {
    let Some(path) = shared("data/weights/efficientnet_lite0/efficientnet_lite0_imagenet.safetensors") else {
        return;
    };
    let canary = &find_card("efficientnet-lite0").unwrap().canary;
    let expected = naive_lite(
        &real_tensors(&path),
        &lite0(),
        224,
        &canary.image.render(224, 224, 0),
    );
    let (cosine, largest) = compare(&canary.embedding, &expected);
    assert!(
        cosine >= 0.999_999_9 && largest <= 1e-5,
        "cosine {cosine}, largest difference {largest}"
    );
}

#[test]
fn a_batch_equals_its_singles_whatever_the_threads() {
    let images = images(11, 5);
    let all: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    for choice in engines() {
        let mut one = open_synthetic(&choice, 1);
        let singles: Vec<f32> = all
            .iter()
            .flat_map(|image| one.embed(&batch(&[image])).unwrap().data)
            .collect();
        for threads in [0, 1, 2, 3] {
            let mut engine = open_synthetic(&choice, threads);
            let found = engine.embed(&batch(&all)).unwrap();
            assert_eq!((found.items, found.width), (5, 1280));
            assert!(
                found.data == singles,
                "{choice:?} with {threads} threads differs from singles"
            );
        }
    }
}

#[test]
fn rows_follow_the_order_of_items() {
    let images = images(12, 2);
    for choice in engines() {
        let mut engine = open_synthetic(&choice, 2);
        let forward = engine.embed(&batch(&[&images[0], &images[1]])).unwrap();
        let backward = engine.embed(&batch(&[&images[1], &images[0]])).unwrap();
        assert_eq!(forward.row(0), backward.row(1));
        assert_eq!(forward.row(1), backward.row(0));
        assert_ne!(forward.row(0), forward.row(1));
    }
}

#[test]
fn an_empty_batch_gives_empty_embeddings() {
    for choice in engines() {
        let found = open_synthetic(&choice, 2).embed(&batch(&[])).unwrap();
        assert_eq!((found.items, found.width, found.data.len()), (0, 1280, 0));
    }
}

#[test]
fn too_many_items_and_wrong_sizes_are_errors_and_the_engine_serves_on() {
    let image = vec![100.0; PIXELS];
    for choice in engines() {
        let mut engine = open_synthetic(&choice, 1);
        let items = engine.max_items() + 1;
        let large = Batch::new(items, 1, 224, 224, vec![0.0; items * PIXELS]).unwrap();
        assert!(matches!(engine.embed(&large), Err(EngineError::Oversize { items: n, .. }) if n == items));
        for (channels, height, width) in [(3, 224, 224), (1, 223, 224), (1, 224, 448), (0, 224, 224)] {
            let wrong = Batch::new(1, channels, height, width, vec![0.0; channels * height * width]).unwrap();
            assert!(matches!(
                engine.embed(&wrong),
                Err(EngineError::WrongInput { .. })
            ));
        }
        assert_eq!(engine.embed(&batch(&[&image])).unwrap().items, 1);
    }
}

#[test]
fn a_value_that_is_not_finite_never_reaches_an_engine() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = vec![0.0; 3 * PIXELS];
        data[PIXELS + 5] = bad;
        let error = Batch::new(3, 1, 224, 224, data).unwrap_err();
        assert!(
            matches!(
                error,
                BatchError::NotFinite {
                    item: 1,
                    offset: 5,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn says_what_it_is() {
    for choice in engines() {
        let engine = open_synthetic(&choice, 1);
        assert_eq!(engine.card(), &synthetic().card);
        let described = match choice {
            EngineChoice::Wgpu { .. } => engine.device().contains(", wgpu"),
            _ => engine.device().starts_with("cpu, native, "),
        };
        assert!(described, "{}", engine.device());
        assert!(engine.max_items() >= 32);
    }
}

#[test]
fn engines_on_several_threads_do_not_disturb_each_other() {
    let image = images(13, 1).remove(0);
    for choice in engines() {
        let expected = open_synthetic(&choice, 1).embed(&batch(&[&image])).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut engine = open_synthetic(&choice, 2);
                let (image, expected) = (&image, &expected);
                scope.spawn(move || {
                    for _ in 0..3 {
                        assert!(engine.embed(&batch(&[image, image])).unwrap().row(1) == expected.row(0));
                    }
                });
            }
        });
    }
}

/// Writes weights to a file of their own and tries to open them.
fn try_open(card: &ModelCard, bytes: &[u8]) -> Result<Box<dyn Engine>, EngineError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let opened = open(card, file.path(), EngineChoice::Native, 1);
    assert!(
        verify(card, file.path()).is_ok() || opened.is_err(),
        "what verify refuses, open refuses"
    );
    opened
}

#[test]
fn other_weights_are_refused_by_their_digest() {
    let model = synthetic();
    assert!(verify(&model.card, &model.path).is_ok());
    let mut bytes = model.bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = refused(try_open(&model.card, &bytes));
    assert!(matches!(error, EngineError::WrongDigest { .. }), "{error}");
    let absent = open(&model.card, "no/such/file", EngineChoice::Auto, 1);
    assert!(matches!(refused(absent), EngineError::Unreadable { .. }));
}

#[test]
fn truncated_weights_are_refused_at_every_length() {
    let model = synthetic();
    let header = 8 + u64::from_le_bytes(model.bytes[..8].try_into().unwrap()) as usize;
    for length in [
        0,
        1,
        7,
        8,
        9,
        header - 1,
        header,
        header + 1,
        model.bytes.len() - 1,
    ] {
        let error = refused(try_open(&model.card, &model.bytes[..length]));
        assert!(
            matches!(
                error,
                EngineError::Weights {
                    source: WeightsError::Malformed { .. },
                    ..
                }
            ),
            "{length}: {error}"
        );
    }
}

/// Mean and deviation of a card.
fn fixed(card: &mut ModelCard) -> (&mut Vec<f32>, &mut Vec<f32>) {
    match &mut card.input.normalisation {
        Normalisation::Fixed { mean, std } => (mean, std),
        other => panic!("{other:?}"),
    }
}

/// Changes the synthetic model, gives the card the new digest, and opens it.
fn tampered(change: impl FnOnce(&mut common::Tensors, &mut ModelCard)) -> EngineError {
    let (mut tensors, mut card) = (synthetic().tensors.clone(), synthetic().card.clone());
    change(&mut tensors, &mut card);
    let bytes = common::to_safetensors(&tensors);
    card.weights.content_sha256 = content_digest(&bytes).unwrap();
    refused(try_open(&card, &bytes))
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let name = "_blocks.3._project_conv.weight";
    let error = tampered(|t, _| {
        t.remove(name);
    });
    assert!(
        matches!(&error, EngineError::Weights { source: WeightsError::Missing { tensor, .. }, .. } if tensor == name)
    );
    let error = tampered(|t, _| t.get_mut(name).unwrap().0 = vec![144, 40, 1, 1]);
    assert!(
        matches!(
            error,
            EngineError::Weights {
                source: WeightsError::WrongShape { .. },
                ..
            }
        ),
        "{error}"
    );
    let error = tampered(|t, _| t.get_mut(name).unwrap().1[3] = f32::NAN);
    assert!(matches!(
        error,
        EngineError::Weights {
            source: WeightsError::BadValue { offset: 3, .. },
            ..
        }
    ));
    let error = tampered(|t, _| t.get_mut("_bn0.running_var").unwrap().1[1] = -1.0);
    assert!(matches!(
        error,
        EngineError::Weights {
            source: WeightsError::BadValue { offset: 1, .. },
            ..
        }
    ));
}

#[test]
fn a_model_that_misses_its_canary_is_refused() {
    // The right digest, other numbers: only the canary can tell.
    let error = tampered(|t, _| t.get_mut("_conv_head.weight").unwrap().1[..320 * 200].fill(0.0));
    assert!(matches!(error, EngineError::Canary { .. }), "{error}");
    // A wrong scale keeps the cosine at 1.
    let error = tampered(|_, card| card.canary.embedding.iter_mut().for_each(|v| *v *= 1.01));
    assert!(
        matches!(error, EngineError::Canary { cosine, .. } if cosine > 0.999_99),
        "{error}"
    );
    let error = tampered(|_, card| card.canary.embedding.fill(0.0));
    assert!(matches!(error, EngineError::Canary { .. }), "{error}");
    let error = tampered(|_, card| card.canary.embedding.truncate(1279));
    assert!(
        error.to_string().contains("has 1279 values") && error.to_string().contains("gives 1280"),
        "{error}"
    );
    let error = tampered(|_, card| card.canary.embedding.clear());
    assert!(
        matches!(error, EngineError::CanaryLength { card: 0, .. }),
        "{error}"
    );
    let error = tampered(|_, card| fixed(card).0[0] = 126.0);
    assert!(
        matches!(error, EngineError::Canary { .. } | EngineError::Card { .. }),
        "{error}"
    );
}

#[test]
fn a_card_that_contradicts_the_network_is_refused() {
    let error = tampered(|_, card| card.embedding_width = 1000);
    assert!(
        matches!(
            error,
            EngineError::Card {
                field: "embedding_width",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("1000, but the network has 1280"),
        "{error}"
    );
    type Change = fn(&mut Vec<f32>, &mut Vec<f32>);
    let changes: [(&str, Change); 4] = [
        ("mean", |mean, _| mean[0] = f32::NAN),
        ("std", |_, std| std[0] = 0.0),
        ("mean", |mean, _| mean.clear()),
        ("std", |_, std| std.push(1.0)),
    ];
    for (wanted, change) in changes {
        let error = tampered(|_, card| {
            let (mean, std) = fixed(card);
            change(mean, std);
        });
        assert!(
            matches!(
                &error,
                EngineError::Card { field, .. } if *field == format!("input.normalisation.fixed.{wanted}")
            ),
            "{error}"
        );
    }
    let error = tampered(|_, card| card.input.height = usize::MAX);
    assert!(matches!(error, EngineError::Card { .. }), "{error}");
}

/// A safetensors file with this header length, header and data.
fn file(length: u64, header: &[u8], data: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], header, data].concat()
}

#[test]
fn hostile_headers_are_refused_without_believing_them() {
    let headers = [
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551615]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"X99","shape":[4],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}"#,
        "[[[[[[[[[[[[[[[[[[[[[[[[",
        "{}",
        "\u{0}",
    ];
    for header in headers {
        let bytes = file(header.len() as u64, header.as_bytes(), &[0; 16]);
        let error = refused(try_open(&synthetic().card, &bytes));
        assert!(matches!(error, EngineError::Weights { .. }), "{header}: {error}");
    }
    for length in [0, 1 << 20, 1 << 40, u64::MAX - 7, u64::MAX] {
        assert!(
            content_digest(&file(length, b"{}", &[0; 16])).is_err(),
            "{length}"
        );
    }
    let deep = "[".repeat(200_000);
    assert!(content_digest(&file(deep.len() as u64, deep.as_bytes(), &[])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = content_digest(&bytes);
        let _ = content_digest(&file(bytes.len() as u64, &bytes, &[0; 8]));
    }

    #[test]
    fn a_damaged_header_is_refused_or_another_model(at in 0usize..25_000, byte in any::<u8>()) {
        let model = synthetic();
        let header = 8 + u64::from_le_bytes(model.bytes[..8].try_into().unwrap()) as usize;
        // The header with little data behind it: as quick as it is hostile.
        let mut bytes = model.bytes[..header].to_vec();
        let at = at % header;
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(content_digest(&bytes).is_err());
    }
}
