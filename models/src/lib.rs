//! Embedding engines and the cards that describe their models.
//!
//! A [`Batch`] of prepared grey images enters, [`Embeddings`] leave: row i belongs to item i. A [`ModelCard`]
//! states everything that fixes the numbers: the weights and their digest, the input contract, the channel and
//! tiling policy, the pooling and a canary image with the embedding it must give. [`open`] checks the weights
//! against the card and re-embeds the canary; an engine that does not reproduce it is never handed out.
//!
//! ```no_run
//! use wellspring_models::{Batch, EngineChoice, find_card, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let card = find_card("efficientnet-lite0").ok_or("no such model")?;
//! let mut engine = open(card, "efficientnet-lite0.safetensors", EngineChoice::Auto, 2)?;
//! let grey = vec![127.0; 224 * 224];
//! let embeddings = engine.embed(&Batch::new(1, 1, 224, 224, grey)?)?;
//! assert_eq!(embeddings.row(0).map(<[f32]>::len), Some(1280));
//! # Ok(())
//! # }
//! ```
//!
//! What can fail is listed in [`EngineError`], [`BatchError`], [`WeightsError`] and [`ConvertError`]. Nothing
//! here panics on bad input, and nothing here knows the network, the clock or the environment: reading a weights
//! file when a model opens is the only IO.

mod architecture;
mod batch;
mod canary;
mod card;
mod choice;
pub mod convert;
mod engine;
mod error;
mod gpu;
mod head;
#[cfg(feature = "libtorch")]
mod libtorch;
mod native;
#[cfg(feature = "onnx")]
mod onnx;
mod open;
mod prepare;
mod weights;

pub use architecture::{
    Architecture, BaseModel, HeadFit, HeadMap, HeadShape, Interpolation, MlpActivation, MlpBias, OnnxGraph,
    Positions, VitBlock, VitShape,
};
pub use batch::{Batch, BatchError, Embeddings};
pub use card::{
    Canary, CanaryImage, ChannelPolicy, EpsilonPlace, InputContract, KeyRule, ModelCard, Normalisation,
    Padding, Pooling, TilingPolicy, WeightsPackage, WeightsSource, cards, find_card, find_template,
    templates,
};
pub use choice::{EngineChoice, EngineKind, OnnxProvider, TorchDevice, check_engine};
pub use convert::{ConvertError, convert_checkpoint};
pub use engine::Engine;
pub use error::EngineError;
pub use gpu::{DeviceBatch, SharedGpu};
pub use head::{Base, HeadNames, HeadOut, HeadWeights};
pub use open::{
    complete, complete_bytes, complete_head, complete_head_bytes, file_digest, open, open_head, verify,
    verify_head,
};
pub use weights::{WeightsError, content_digest};
