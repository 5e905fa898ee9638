//! Weights files: header, tensors and what a small network makes of them, as when a model is added.

#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wellspring_models::{EngineChoice, ModelCard, complete, content_digest};

/// With nothing filled in, so that files which are not the golden one are looked at too.
static CARD: LazyLock<ModelCard> = LazyLock::new(|| {
    let mut card: ModelCard = serde_json::from_str(include_str!("../../golden/timm.json")).unwrap();
    card.weights.content_sha256.clear();
    card.canary.embedding.clear();
    card
});

fuzz_target!(|input: &[u8]| {
    if content_digest(input).is_err() {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    let _whatever = complete(CARD.clone(), file.path(), EngineChoice::Native);
});
