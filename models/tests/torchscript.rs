//! The libtorch engine on a small module that `golden/make.py` traced. Needs a build with the feature `libtorch`:
//! `LIBTORCH="$(scripts/libtorch)" cargo test -p wellspring-models --features libtorch`.

#![cfg_attr(
    not(feature = "libtorch"),
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

use common::{compare, refused};
use safetensors::SafeTensors;
use wellspring_models::{
    Architecture, Batch, ChannelPolicy, EngineChoice, EngineError, ModelCard, Normalisation, TorchDevice,
    complete, file_digest, open, verify,
};

/// The module's card.
fn card() -> ModelCard {
    serde_json::from_str(include_str!("../golden/torchscript-mini.json")).unwrap()
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/torchscript-mini.pt")
}

/// libtorch on the processor.
const CPU: EngineChoice = EngineChoice::Libtorch {
    device: TorchDevice::Cpu,
    half: false,
};

#[test]
fn a_module_and_a_network_want_their_own_engines() {
    assert!(verify(&card(), module()).is_ok());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let timm: ModelCard = serde_json::from_str(include_str!("../golden/timm.json")).unwrap();
    let onnx: ModelCard = serde_json::from_str(include_str!("../golden/onnx-mini.json")).unwrap();
    for (card, file, choice, word) in [
        (&card(), module(), EngineChoice::Auto, "libtorch"),
        (&card(), module(), EngineChoice::Native, "libtorch"),
        (&timm, golden.join("timm.safetensors"), CPU, "native"),
        (
            &onnx,
            golden.join("onnx-mini.onnx"),
            CPU,
            "the engine onnx runs it",
        ),
    ] {
        let error = refused(open(card, file, choice, 1));
        let wrong = matches!(&error, EngineError::WrongEngine { .. });
        assert!(wrong && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn devices_have_words() {
    for (word, device) in [
        ("cpu", TorchDevice::Cpu),
        ("cuda", TorchDevice::Cuda(0)),
        ("cuda:3", TorchDevice::Cuda(3)),
    ] {
        assert_eq!(word.parse(), Ok(device));
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    for word in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
        assert!(word.parse::<TorchDevice>().is_err(), "{word}");
    }
}

#[cfg(not(feature = "libtorch"))]
#[test]
fn a_build_without_the_engine_says_how_to_get_it() {
    let error = refused(open(&card(), module(), CPU, 1));
    assert!(error.to_string().contains("--features libtorch"), "{error}");
}

#[cfg(feature = "libtorch")]
mod with_the_library {
    use super::*;

    /// Input images and PyTorch's embeddings of them.
    fn case() -> (Vec<f32>, Vec<f32>) {
        let bytes = include_bytes!("../golden/torchscript-mini.case.safetensors");
        let case = SafeTensors::deserialize(bytes).unwrap();
        let (input, output) = (case.tensor("input").unwrap(), case.tensor("output").unwrap());
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
    fn a_module_agrees_with_pytorch_in_batches_and_alone() {
        let (input, output) = case();
        for threads in [1, 2] {
            let mut engine = open(&card(), module(), CPU, threads).unwrap();
            assert_eq!(engine.device(), "cpu, libtorch");
            let all = engine.embed(&batch(&input)).unwrap();
            assert_eq!((all.items, all.width), (3, 10));
            for (item, image) in input.chunks_exact(32 * 24).enumerate() {
                let alone = engine.embed(&batch(image)).unwrap();
                for found in [all.row(item).unwrap(), alone.row(0).unwrap()] {
                    let (cosine, largest) = compare(found, &output[item * 10..][..10]);
                    assert!(cosine > 0.999_999 && largest < 1e-4, "{cosine} {largest}");
                }
            }
        }
    }

    #[test]
    fn empty_oversize_and_wrong_batches() {
        let mut engine = open(&card(), module(), CPU, 1).unwrap();
        let empty = engine.embed(&Batch::new(0, 1, 32, 24, vec![]).unwrap()).unwrap();
        assert_eq!((empty.items, empty.data.len()), (0, 0));
        let items = engine.max_items() + 1;
        let many = Batch::new(items, 1, 32, 24, vec![0.0; items * 768]).unwrap();
        let error = engine.embed(&many).unwrap_err();
        assert!(matches!(error, EngineError::Oversize { .. }), "{error}");
        let wrong = Batch::new(1, 3, 32, 24, vec![0.0; 3 * 768]).unwrap();
        let error = engine.embed(&wrong).unwrap_err();
        assert!(matches!(error, EngineError::WrongInput { .. }), "{error}");
        assert!(engine.embed(&batch(&case().0)).is_ok(), "the engine serves on");
    }

    #[test]
    fn engines_on_several_threads_do_not_disturb_each_other() {
        let (input, _) = case();
        let expected = open(&card(), module(), CPU, 1)
            .unwrap()
            .embed(&batch(&input))
            .unwrap();
        std::thread::scope(|scope| {
            for threads in 1..4 {
                // Opened here, run there: what holds for a thread of libtorch's must hold on the other.
                let mut engine = open(&card(), module(), CPU, threads).unwrap();
                let (input, expected) = (&input, &expected);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let found = engine.embed(&batch(input)).unwrap();
                        let (_, largest) = compare(&found.data, &expected.data);
                        assert!(largest < 1e-4, "{largest}");
                    }
                });
            }
        });
    }

    #[test]
    fn what_the_card_says_is_done_before_the_module() {
        let (input, output) = case();
        let embed = |mean: Vec<f32>| {
            let mut draft = card();
            draft.input.scale = 0.5;
            draft.input.normalisation = Normalisation::Fixed { mean, std: vec![0.5] };
            // That of the levels as they are is another one.
            draft.canary.embedding = Vec::new();
            let card = complete(draft, module(), CPU).unwrap();
            let mut engine = open(&card, module(), CPU, 1).unwrap();
            engine.embed(&batch(&input)).unwrap().data
        };
        // Halved and doubled again: the levels as they were.
        let (_, largest) = compare(&embed(vec![0.0]), &output);
        assert!(largest < 1e-4, "{largest}");
        // Shifts of single channels are felt, and each differently.
        let shifted = [0, 1, 2].map(|channel| {
            let mut mean = vec![0.0; 3];
            mean[channel] = 20.0;
            embed(mean)
        });
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            assert!(compare(&shifted[a], &output).1 > 1e-2);
            assert!(compare(&shifted[a], &shifted[b]).1 > 1e-2);
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let attempt = |change: &dyn Fn(&mut ModelCard)| {
            let mut card = card();
            change(&mut card);
            refused(open(&card, module(), CPU, 1))
        };
        let error = attempt(&|card| card.weights.content_sha256 = "0".repeat(64));
        assert!(matches!(error, EngineError::WrongDigest { .. }), "{error}");
        let error = attempt(&|card| card.canary.embedding[0] += 10.0);
        assert!(matches!(error, EngineError::Canary { .. }), "{error}");
        let error = attempt(&|card| card.embedding_width = 11);
        assert!(matches!(error, EngineError::WrongOutput { .. }), "{error}");
        let error = attempt(&|card| card.input.channels = 5);
        let run = matches!(error, EngineError::Libtorch { action: "run", .. });
        assert!(run, "{error}");
        let error = attempt(&|card| card.channel_policy = ChannelPolicy::FirstConvolution { channels: 5 });
        let policy = matches!(
            error,
            EngineError::Card {
                field: "channel_policy",
                ..
            }
        );
        assert!(policy, "{error}");
        let error = attempt(&|card| card.architecture = Architecture::EfficientnetLite0);
        assert!(matches!(error, EngineError::Weights { .. }), "{error}");
    }

    #[test]
    fn broken_modules_are_errors_at_every_length() {
        let whole = std::fs::read(module()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.pt");
        for length in [0, 1, 4, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut card = card();
            card.weights.content_sha256 = file_digest(&card, &whole[..length]).unwrap();
            let error = refused(open(&card, &path, CPU, 1));
            let opening = matches!(error, EngineError::Libtorch { action: "open", .. });
            assert!(opening, "{length}: {error}");
        }
    }

    #[test]
    fn an_absent_device_is_an_error_and_never_the_processor() {
        let on = |device, half| open(&card(), module(), EngineChoice::Libtorch { device, half }, 1);
        let error = refused(on(TorchDevice::Cuda(1000), false));
        let absent = matches!(
            &error,
            EngineError::Libtorch { device, action: "find" | "load CUDA for", .. } if device == "cuda:1000"
        );
        assert!(absent, "{error}");
        let error = refused(on(TorchDevice::Cpu, true));
        assert!(error.to_string().contains("--torch-half"), "{error}");
    }

    #[test]
    fn a_card_is_completed_from_its_module() {
        let mut draft = card();
        draft.weights.content_sha256.clear();
        draft.canary.embedding.clear();
        let completed = complete(draft, module(), CPU).unwrap();
        assert_eq!(completed.weights, card().weights);
        assert!(open(&completed, module(), CPU, 1).is_ok());
    }
}
