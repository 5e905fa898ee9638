//! Relations between perturbations: are known ones found again, who is near whom.
//!
//! Profiles enter by perturbation ([`perturbations`]) with a table of what is known ([`relations`]); recall of it
//! ([`mod@recall`]), neighbours ([`mod@neighbours`]) and how closely groups hold together ([`mod@clusters`]) leave. Formulas:
//! SCIENCE 7. Memory is the mean of each perturbation: cosines of all pairs are counted ([`ranks`]), never kept.
//! Fails where nothing can be compared, and says which names did not match.

pub mod clusters;
mod error;
pub mod neighbours;
pub mod perturbations;
pub mod ranks;
pub mod recall;
pub mod relations;

pub use clusters::{ClusterRow, clusters};
pub use error::RelateError;
use neighbours::nearest_rows;
pub use neighbours::{Neighbour, Neighbours, neighbours};
pub use perturbations::{PerturbationMeans, Perturbations};
pub use ranks::{Pairs, Rank};
pub use recall::{Recall, RecallAtK, recall, recall_at_k};
pub use relations::{Clusters, Relations};
