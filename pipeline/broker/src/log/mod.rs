//! The durable log of one partition: record batches stored unopened, in segment files.

pub(crate) mod batch;
pub(crate) mod partition;
pub(crate) mod producers;
pub(crate) mod recovery;
pub(crate) mod segment;

#[cfg(test)]
mod tests;
