//! The golden transformers on the device, with subgroups and without, and what crosses the bus.

use std::path::Path;

use safetensors::SafeTensors;

use super::WgpuEngine;
use super::device::Gpu;
use crate::batch::Batch;
use crate::card::ModelCard;
use crate::engine::Engine;
use crate::weights::Weights;

fn golden(name: &str) -> (ModelCard, Weights, Batch, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let card: ModelCard = serde_json::from_slice(&text).unwrap();
    let weights = Weights::read(name, &folder.join(format!("{name}.safetensors"))).unwrap();
    let case = std::fs::read(folder.join(format!("{name}.case.safetensors"))).unwrap();
    let case = SafeTensors::deserialize(&case).unwrap();
    let (input, output) = (case.tensor("input").unwrap(), case.tensor("output").unwrap());
    let [items, channels, height, width] = input.shape().try_into().unwrap();
    let levels = input.data().iter().map(|&v| f32::from(v)).collect();
    let output = output
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    (
        card,
        weights,
        Batch::new(items, channels, height, width, levels).unwrap(),
        output,
    )
}

#[test]
fn every_kind_of_adapter_gives_the_same_transformer() {
    for name in ["timm", "dinov2-registers", "apart", "per-channel", "silu"] {
        let (card, weights, batch, expected) = golden(name);
        for plain in [false, true] {
            let gpu = Gpu::open("gpu", false).unwrap();
            let gpu = if plain { gpu.without_subgroups() } else { gpu };
            let mut engine = WgpuEngine::on(gpu, &card, &weights).unwrap();
            let found = engine.embed(&batch).unwrap();
            for (f, e) in found.data.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-4, "{name}, {}: {f} {e}", engine.device());
            }
        }
    }
}

#[test]
fn sixteen_bit_floats_give_the_same_transformer_within_a_thousandth() {
    for name in ["timm", "dinov2-registers", "apart", "per-channel", "silu"] {
        let (card, weights, batch, expected) = golden(name);
        for plain in [false, true] {
            let gpu = Gpu::open("gpu", true).unwrap();
            let gpu = if plain { gpu.without_subgroups() } else { gpu };
            let mut engine = WgpuEngine::on(gpu, &card, &weights).unwrap();
            assert!(engine.half_precision() && engine.device().ends_with(", f16"));
            let found = engine.embed(&batch).unwrap();
            let rows = found.data.chunks(found.width).zip(expected.chunks(found.width));
            let mut differs = false;
            for (f, e) in rows {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
                let cosine = dot(f, e) / (dot(f, f) * dot(e, e)).sqrt();
                assert!(cosine >= 0.999, "{name}, {}: cosine {cosine}", engine.device());
                differs |= f.iter().zip(e).any(|(f, e)| (f - e).abs() > 1e-4);
            }
            // Otherwise nothing was computed in 16 bits.
            assert!(differs, "{name}");
        }
    }
}

#[test]
fn a_weight_beyond_sixteen_bit_floats_is_an_error() {
    let mut gpu = Gpu::open("gpu", true).unwrap();
    let error = gpu.weights(&[1.0, 2.0, 70_000.0, 0.0]).unwrap_err();
    assert!(
        error.reason.contains("70000") && error.reason.contains("--wgpu-half"),
        "{error:?}"
    );
}

#[test]
fn only_pixels_go_up_and_only_embeddings_come_down() {
    for (name, dispatches) in [("timm", 18), ("apart", 19), ("per-channel", 23)] {
        let (card, weights, batch, _) = golden(name);
        let mut engine = WgpuEngine::on(Gpu::open("gpu", false).unwrap(), &card, &weights).unwrap();
        // The first batch of a size brings its parameters up.
        engine.embed(&batch).unwrap();
        let before = engine.gpu.traffic();
        let found = engine.embed(&batch).unwrap();
        let after = engine.gpu.traffic();
        assert_eq!(after.up - before.up, batch.data().len() as u64 * 4, "{name}");
        assert_eq!(after.down - before.down, found.data.len() as u64 * 4, "{name}");
        for (plan, _) in engine.plans.values() {
            assert_eq!(plan.dispatches(), dispatches, "{name}");
        }
    }
}

#[test]
fn an_absent_adapter_is_an_error_that_names_those_there_are() {
    let (card, weights, ..) = golden("timm");
    let error = match WgpuEngine::new(&card, &weights, "no such adapter", false) {
        Ok(_) => panic!("an adapter was found"),
        Err(error) => error.to_string(),
    };
    assert!(
        error.contains("no such adapter") && error.contains("this machine has"),
        "{error}"
    );
}
