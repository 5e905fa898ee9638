//! Every compound against every disease: which signatures it reverses or resembles, over all models of the screen and
//! not only the one it was tested on.
//!
//! Aligned wells enter plate by plate ([`gather`]); effects are summed (`effects`), put aside once complete (`complete`)
//! and their vectors wait in a spool (`rows`). One column of scores per disease leaves through a callback
//! ([`mod@score`]), with p from control wells ([`tail`]) and q, short lists of the best ([`top`]), and how far an effect is
//! one on its own disease alone ([`specificity`]).
//! Formulas: SCIENCE 6.1, 6.2, 6.5. Fails on plates that contradict each other and where no disease has controls.

mod complete;
mod effects;
mod error;
pub mod gather;
mod null;
mod reservoir;
mod rows;
pub mod score;
mod settings;
pub mod specificity;
pub mod tail;
pub mod top;
pub mod vectors;

pub use effects::{Effect, Effects};
pub use error::SignatureError;
pub use gather::{LeftOut, Origin, Signature, SignatureGatherer, SignatureScreen};
pub use rows::EffectVectors;
pub use score::{SignatureColumn, score};
pub use settings::{SignatureSettings, TreatedCells};
pub use specificity::Specificity;
pub use top::{Match, RankBy, TopMatches};
pub use vectors::Vectors;
