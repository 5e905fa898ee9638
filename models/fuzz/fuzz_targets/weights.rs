//! Weights files: header, tensors and what a small network makes of them, as when a model is added.

#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wellspring_models::{EngineChoice, ModelCard, complete, content_digest};

static CARD: LazyLock<ModelCard> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../golden/timm.json")).unwrap());

fuzz_target!(|input: &[u8]| {
    if content_digest(input).is_err() {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    let _whatever = complete(CARD.clone(), file.path(), EngineChoice::Native);
});
