//! The files of a run's output folder, and tables made elsewhere.
//!
//! Rows enter, finished files leave: Parquet tables, JSON and JSON lines. Every file is written beside its place
//! under a `.partial` name and renamed when complete, so a file that exists under its own name is whole. The same
//! rows give the same bytes. Everything here blocks: call it from a blocking thread.

pub mod activity;
pub mod atomic;
pub mod cells;
pub mod drift;
pub mod dropped;
pub mod error;
mod features;
pub mod json;
pub mod parquet;
pub mod perturbations;
pub mod read;
pub mod residuals;
pub mod scores;
pub mod signatures;
pub mod tables;

pub use activity::ActivityTable;
pub use atomic::AtomicFile;
pub(crate) use atomic::remove_earlier;
pub use cells::{Cell, Cells, Column, ColumnKind, SharedText};
pub use drift::DriftTable;
pub use dropped::{DROPPED_FILE, write_dropped};
pub use error::{ReadError, WriteError};
pub use json::{JsonLines, write_json};
pub use parquet::{TableWriter, WrittenTable};
pub use perturbations::PerturbationTable;
pub use read::{
    Block, Blocks, FeatureColumns, PlaceError, ProfileFile, Role as ColumnRole, RoleNames, Roles, RowPlace,
};
pub use residuals::ResidualTable;
pub use scores::{ComparisonTables, CompoundTable, WellTable, WindowTable};
pub use signatures::SignatureTable;
pub use tables::{
    ComparisonTable, FeatureRow, FeatureTable, FieldQuality, ProfileTable, Provenance, QualityRow,
    QualityTable, feature_names,
};
