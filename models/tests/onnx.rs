//! The ONNX Runtime engine on a small graph that `golden/make.py` wrote. Needs a build with the feature `onnx` and the
//! library: `WELLSPRING_ONNXRUNTIME`, or where `scripts/onnxruntime` puts it. Says so and skips where it is absent.

#![cfg_attr(
    not(feature = "onnx"),
    allow(
        dead_code,
        unused_imports,
        reason = "without the engine only its refusal is tested"
    )
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{compare, refused, runtime};
use safetensors::SafeTensors;
use wellspring_models::{
    Architecture, Batch, ChannelPolicy, EngineChoice, EngineError, ModelCard, Normalisation, OnnxProvider,
    complete, open, verify,
};

/// The graph's card.
fn card() -> ModelCard {
    serde_json::from_str(include_str!("../golden/onnx-mini.json")).unwrap()
}

fn graph() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/onnx-mini.onnx")
}

#[test]
fn a_graph_and_a_network_want_their_own_engines() {
    assert!(verify(&card(), graph()).is_ok());
    for choice in [EngineChoice::Auto, EngineChoice::Native] {
        let error = refused(open(&card(), graph(), choice, 1));
        assert!(matches!(&error, EngineError::WrongEngine { .. }), "{error}");
        assert!(error.to_string().contains("the engine onnx runs it"), "{error}");
    }
    let timm: ModelCard = serde_json::from_str(include_str!("../golden/timm.json")).unwrap();
    let choice = EngineChoice::OnnxRuntime {
        library: "no/such/library".into(),
        provider: OnnxProvider::Cpu,
    };
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/timm.safetensors");
    let error = refused(open(&timm, weights, choice, 1));
    assert!(matches!(&error, EngineError::WrongEngine { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "timm is a network of Wellspring's own layers: the engines native and wgpu run it; onnx runs ONNX files"
    );
}

#[cfg(not(feature = "onnx"))]
#[test]
fn a_build_without_the_engine_says_how_to_get_it() {
    let choice = EngineChoice::OnnxRuntime {
        library: "libonnxruntime.so".into(),
        provider: OnnxProvider::Cpu,
    };
    let error = refused(open(&card(), graph(), choice, 1));
    assert!(error.to_string().contains("--features onnx"), "{error}");
}

#[cfg(feature = "onnx")]
mod with_the_runtime {
    use super::*;

    /// Input images and PyTorch's embeddings of them.
    fn case() -> (Vec<f32>, Vec<f32>) {
        let case = SafeTensors::deserialize(include_bytes!("../golden/onnx-mini.case.safetensors")).unwrap();
        let input = case.tensor("input").unwrap();
        let output = case.tensor("output").unwrap();
        let output = output.data().chunks_exact(4);
        (
            input.data().iter().map(|&v| f32::from(v)).collect(),
            output
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        )
    }

    fn batch(images: &[f32]) -> Batch {
        Batch::new(images.len() / (32 * 24), 1, 32, 24, images.to_vec()).unwrap()
    }

    #[test]
    fn a_graph_agrees_with_pytorch_in_batches_and_alone() {
        let Some(choice) = runtime() else { return };
        let (input, output) = case();
        let mut engine = open(&card(), graph(), choice.clone(), 1).unwrap();
        assert_eq!(engine.device(), "cpu, onnxruntime");
        let all = engine.embed(&batch(&input)).unwrap();
        assert_eq!((all.items, all.width), (3, 10));
        for (item, image) in input.chunks_exact(32 * 24).enumerate() {
            let alone = engine.embed(&batch(image)).unwrap();
            for found in [all.row(item).unwrap(), alone.row(0).unwrap()] {
                let (cosine, largest) = compare(found, &output[item * 10..][..10]);
                assert!(cosine > 0.999_999 && largest < 1e-4, "{cosine} {largest}");
            }
        }
        let empty = engine.embed(&Batch::new(0, 1, 32, 24, vec![]).unwrap()).unwrap();
        assert_eq!((empty.items, empty.data.len()), (0, 0));
        let many = Batch::new(
            engine.max_items() + 1,
            1,
            32,
            24,
            vec![0.0; (engine.max_items() + 1) * 768],
        );
        let error = engine.embed(&many.unwrap()).unwrap_err();
        assert!(matches!(error, EngineError::Oversize { .. }), "{error}");
        let wrong = Batch::new(1, 3, 32, 24, vec![0.0; 3 * 768]).unwrap();
        assert!(matches!(
            engine.embed(&wrong),
            Err(EngineError::WrongInput { .. })
        ));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut engine = open(&card(), graph(), choice.clone(), 1).unwrap();
                let (input, expected) = (&input, &all);
                scope.spawn(move || assert_eq!(&engine.embed(&batch(input)).unwrap(), expected));
            }
        });
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let Some(choice) = runtime() else { return };
        let attempt = |change: &dyn Fn(&mut ModelCard)| {
            let mut card = card();
            change(&mut card);
            refused(open(&card, graph(), choice.clone(), 1))
        };
        let error = attempt(&|card| card.weights.content_sha256 = "0".repeat(64));
        assert!(matches!(error, EngineError::WrongDigest { .. }), "{error}");
        let error = attempt(&|card| card.canary.embedding[0] += 1.0);
        assert!(matches!(error, EngineError::Canary { .. }), "{error}");
        let error = attempt(&|card| card.embedding_width = 11);
        assert!(matches!(error, EngineError::WrongOutput { .. }), "{error}");
        let error = attempt(&|card| card.input.height = 40);
        assert!(
            matches!(error, EngineError::Onnx { action: "run", .. }),
            "{error}"
        );
        let error = attempt(&|card| {
            card.input.normalisation = Normalisation::Fixed {
                mean: vec![0.0; 2],
                std: vec![1.0],
            };
        });
        assert!(matches!(error, EngineError::Card { .. }), "{error}");
        let error = attempt(&|card| card.channel_policy = ChannelPolicy::FirstConvolution { channels: 5 });
        assert!(
            matches!(
                error,
                EngineError::Card {
                    field: "channel_policy",
                    ..
                }
            ),
            "{error}"
        );
        for (field, name) in [("architecture.input", "output"), ("architecture.output", "input")] {
            let error = attempt(&|card| {
                if let Architecture::Onnx(ends) = &mut card.architecture {
                    let end = if name == "output" {
                        &mut ends.input
                    } else {
                        &mut ends.output
                    };
                    *end = "nothing".to_owned();
                }
            });
            assert!(
                matches!(&error, EngineError::Card { field: found, .. } if *found == field),
                "{error}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.onnx");
        std::fs::write(&broken, b"no graph").unwrap();
        let mut draft = card();
        draft.weights.content_sha256.clear();
        draft.canary.embedding.clear();
        let error = complete(draft, &broken, choice.clone()).unwrap_err();
        assert!(
            matches!(error, EngineError::Onnx { action: "open", .. }),
            "{error}"
        );
        // A provider that the library lacks is an error, not the processor.
        let EngineChoice::OnnxRuntime { library, .. } = choice else {
            return;
        };
        let absent = EngineChoice::OnnxRuntime {
            library,
            provider: OnnxProvider::DirectMl,
        };
        let error = refused(open(&card(), graph(), absent, 1));
        assert!(
            matches!(
                error,
                EngineError::Onnx {
                    provider: "directml",
                    ..
                }
            ),
            "{error}"
        );
        let elsewhere = EngineChoice::OnnxRuntime {
            library: "no/such/library".into(),
            provider: OnnxProvider::Cpu,
        };
        let error = refused(open(&card(), graph(), elsewhere, 1));
        assert!(matches!(error, EngineError::Runtime { .. }), "{error}");
    }

    #[test]
    fn a_card_is_completed_from_its_graph() {
        let Some(choice) = runtime() else { return };
        let mut draft = card();
        draft.weights.content_sha256.clear();
        draft.canary.embedding.clear();
        let completed = complete(draft, graph(), choice.clone()).unwrap();
        assert_eq!(completed.weights, card().weights);
        assert!(open(&completed, graph(), choice, 1).is_ok());
    }
}
