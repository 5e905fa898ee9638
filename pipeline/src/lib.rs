//! Wellspring: high-content screening from plate-ready event to comparison.
//!
//! The files follow the flow: [`plan`], [`fetch`], [`decode`], [`preprocess`], [`quality`], [`embed`],
//! [`external`], [`publish`], [`collect`], [`compare`]; [`topology`] wires them with bounded channels. [`events`] has every record on Kafka,
//! [`fields`] every edge between two stages, [`track`] the acknowledgement that travels with the work. Only
//! [`kafka`] knows rdkafka, only [`store`] object storage. `ARCHITECTURE.md` has the picture.

pub mod aside;
pub mod clock;
pub mod collect;
pub mod collector;
pub mod compare;
pub mod dead_letters;
pub mod decode;
pub mod diff;
pub mod drift;
pub mod embed;
pub mod error;
pub mod events;
pub mod external;
pub mod failpoint;
pub mod failures;
pub mod fetch;
pub mod fields;
pub mod finish;
pub mod gpu;
pub mod heads;
pub mod http;
pub mod identity;
pub mod ids;
pub mod kafka;
pub mod lanes;
pub mod memory;
pub mod model_cards;
pub mod model_store;
pub mod npy;
pub mod pages;
pub mod pipelines;
pub mod plan;
pub mod plates;
pub mod preprocess;
pub mod publish;
pub mod quality;
pub mod replay;
pub mod report;
pub mod rerun;
pub mod resolve;
pub mod results;
pub mod retries;
pub mod runs;
pub mod schemas;
pub mod scratch;
pub mod shading;
pub mod steer;
pub mod store;
pub mod submit;
pub mod topology;
pub mod track;
pub mod transforms;
pub mod unanswered;
pub mod watch;
pub mod wells;
pub mod zarr;
