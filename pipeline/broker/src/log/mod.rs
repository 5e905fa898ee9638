//! The durable log of one partition: record batches stored unopened, in segment files.

pub(crate) mod batch;
pub(crate) mod cleaning;
pub(crate) mod compact;
pub(crate) mod partition;
pub(crate) mod producers;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod segment;

#[cfg(test)]
mod tests;
