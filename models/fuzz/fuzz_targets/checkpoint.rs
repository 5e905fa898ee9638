//! PyTorch checkpoints, zipped and of the old form: the pickle, and the tensors it names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wellspring_models::{content_digest, convert_checkpoint};

fuzz_target!(|input: &[u8]| {
    // What is converted is a whole file.
    if let Ok(converted) = convert_checkpoint(input) {
        content_digest(&converted).unwrap();
    }
});
