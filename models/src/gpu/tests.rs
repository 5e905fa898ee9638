//! The golden transformers on the device, with subgroups and without, and what crosses the bus.

use std::path::Path;
use std::sync::atomic::Ordering;

use safetensors::SafeTensors;

use super::device::Gpu;
use super::{DeviceBatch, SharedGpu, WgpuEngine};
use crate::batch::{Batch, BatchError};
use crate::card::ModelCard;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::weights::Weights;

fn golden(name: &str) -> (ModelCard, Weights<'static>, Batch, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let card: ModelCard = serde_json::from_slice(&text).unwrap();
    let weights = Weights::read(&card, &folder.join(format!("{name}.safetensors"))).unwrap();
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
        for (subgroups, images) in [(true, true), (true, false), (false, false)] {
            let gpu = Gpu::open("gpu", false).unwrap().limited(subgroups, images);
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
        for subgroups in [true, false] {
            let gpu = Gpu::open("gpu", true).unwrap().limited(subgroups, false);
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
        let before = bus(&engine);
        let found = engine.embed(&batch).unwrap();
        let after = bus(&engine);
        assert_eq!(after.0 - before.0, batch.data().len() as u64 * 4, "{name}");
        assert_eq!(after.1, before.1, "{name}");
        assert_eq!(after.2 - before.2, found.data.len() as u64 * 4, "{name}");
        for (plan, _) in engine.plans.values() {
            assert_eq!(plan.dispatches(), dispatches, "{name}");
        }
    }
}

/// Bytes of images that went up, of anything else that did, and that came down.
fn bus(engine: &WgpuEngine) -> (u64, u64, u64) {
    let shared = engine.gpu.shared();
    let [up, parameters, down] =
        [&shared.up, &shared.parameters, &shared.down].map(|count| count.load(Ordering::Relaxed));
    (up, parameters, down)
}

/// A buffer on the device that begins with `values`, and is longer.
fn there(shared: &SharedGpu, values: &[f32]) -> wgpu::Buffer {
    let buffer = shared.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: values.len() as u64 * 4 + 256,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    shared
        .queue
        .write_buffer(&buffer, 0, bytemuck::cast_slice(values));
    buffer
}

#[test]
fn images_on_a_shared_device_give_the_same_and_do_not_cross_the_bus() {
    for name in ["timm", "apart", "per-channel"] {
        let (card, weights, batch, _) = golden(name);
        let shared = Gpu::open("gpu", false).unwrap().shared().clone();
        let mut engine = WgpuEngine::sharing(&card, &weights, shared.clone(), false).unwrap();
        assert!(Engine::gpu(&engine) == Some(&shared));
        let expected = engine.embed(&batch).unwrap();
        let (channels, height, width) = (batch.channels(), batch.height(), batch.width());
        // Eleven images in three buffers: submissions of eight, two and one, cut across buffers.
        let images: Vec<usize> = (0..11).map(|i| i % batch.items()).collect();
        let buffers: Vec<(wgpu::Buffer, usize)> = [&images[..3], &images[3..9], &images[9..]]
            .into_iter()
            .map(|images| {
                let levels: Vec<f32> = images
                    .iter()
                    .flat_map(|&i| batch.item(i).unwrap())
                    .copied()
                    .collect();
                (there(&shared, &levels), images.len())
            })
            .collect();
        let borrowed: Vec<_> = buffers.iter().map(|(buffer, items)| (buffer, *items)).collect();
        let whole = DeviceBatch::new(channels, height, width, &borrowed).unwrap();
        engine.embed_there(&whole).unwrap();
        let before = bus(&engine);
        let found = engine.embed_there(&whole).unwrap();
        let after = bus(&engine);
        for (row, &image) in found.rows().zip(&images) {
            assert_eq!(row, expected.row(image).unwrap(), "{name}");
        }
        assert_eq!((after.0, after.1), (before.0, before.1), "{name}");
        // One word more for each of the three submissions.
        assert_eq!(after.2 - before.2, (found.data.len() as u64 + 3) * 4, "{name}");
        // Any part of it.
        let part = engine.embed_there(&whole.part(2, 8)).unwrap();
        assert_eq!(part.data, found.data[2 * found.width..10 * found.width], "{name}");
        assert_eq!(engine.embed_there(&whole.part(11, 8)).unwrap().items, 0);

        // What is no grey level is told as where images go up.
        let per_item = channels * height * width;
        for value in [f32::NAN, f32::INFINITY, -0.6, 255.6, -f32::NAN, 1e30] {
            let mut levels = batch.item(0).unwrap().repeat(2);
            levels[per_item + 5] = value;
            levels[per_item + 9] = value;
            let buffer = there(&shared, &levels);
            let bad = [(borrowed[0].0, 3), (&buffer, 2)];
            let bad = DeviceBatch::new(channels, height, width, &bad).unwrap();
            let told = engine.embed_there(&bad).unwrap_err();
            let here = Batch::new(2, channels, height, width, levels).unwrap_err();
            let (EngineError::Batch(told), here) = (told, here) else {
                panic!("{value}")
            };
            let place = |error: &BatchError| match error {
                BatchError::NotFinite { item, offset, value } => (true, *item, *offset, value.to_bits()),
                BatchError::OutOfRange { item, offset, value } => (false, *item, *offset, value.to_bits()),
                other => panic!("{other}"),
            };
            let (finite, item, offset, bits) = place(&here);
            assert_eq!(place(&told), (finite, item + 3, offset, bits), "{value}");
        }
        for value in [-0.5, 255.5, 0.0, -0.0] {
            let mut levels = batch.item(0).unwrap().to_vec();
            levels[7] = value;
            let buffer = there(&shared, &levels);
            let good = DeviceBatch::new(channels, height, width, &[(&buffer, 1)]).unwrap();
            let there = engine.embed_there(&good).unwrap();
            let here = engine
                .embed(&Batch::new(1, channels, height, width, levels).unwrap())
                .unwrap();
            assert_eq!(there, here, "{value}");
        }
        // Too short a buffer.
        let error = DeviceBatch::new(channels, height, width, &[(borrowed[0].0, 9)]).unwrap_err();
        assert!(
            matches!(error, BatchError::WrongLength { items: 9, .. }),
            "{error}"
        );

        // A device that is lost is an error that says so, and nothing else.
        shared
            .fault
            .lock()
            .unwrap()
            .replace("device lost: in a test".into());
        let error = engine.embed_there(&whole).unwrap_err().to_string();
        assert!(error.contains("device lost: in a test"), "{error}");
        assert!(Engine::gpu(&engine).unwrap().is_lost());
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
