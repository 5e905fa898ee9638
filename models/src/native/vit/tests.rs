//! The golden transformers on every instruction set of this processor; `tests/golden.rs` has the best one only.

use std::path::Path;

use safetensors::SafeTensors;

use crate::card::ModelCard;
use crate::native::isa::Isa;
use crate::native::network::Network;
use crate::weights::Weights;

#[test]
fn every_instruction_set_gives_the_same_transformer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for name in ["timm", "dinov2-registers", "apart", "per-channel"] {
        let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        let card: ModelCard = serde_json::from_slice(&text).unwrap();
        let weights = Weights::read(&card, &folder.join(format!("{name}.safetensors"))).unwrap();
        let network = Network::build(&card, &weights.tensors(&card.weights.keys).unwrap()).unwrap();
        let case = std::fs::read(folder.join(format!("{name}.case.safetensors"))).unwrap();
        let case = SafeTensors::deserialize(&case).unwrap();
        let (input, output) = (case.tensor("input").unwrap(), case.tensor("output").unwrap());
        let (channels, image) = (input.shape()[1], input.data().len() / input.shape()[0].max(1));
        let width = card.item_width(channels);
        for isa in Isa::available() {
            let mut scratch = network.scratch();
            for (item, pixels) in input.data().chunks_exact(image).enumerate() {
                let levels: Vec<f32> = pixels.iter().map(|&v| f32::from(v)).collect();
                let mut found = vec![0.0; width];
                network.run(isa, &mut scratch, &levels, channels, &mut found);
                let expected = output.data()[item * width * 4..].chunks_exact(4);
                for (f, bytes) in found.iter().zip(expected) {
                    let e = f32::from_le_bytes(bytes.try_into().unwrap());
                    assert!((f - e).abs() < 1e-4, "{name} item {item}, {isa:?}: {f} {e}");
                }
            }
        }
    }
}
