//! The native CPU engine: a layer graph in plain Rust with vector kernels where the processor has them. No external
//! library.
//!
//! Enters: batches of grey images. Leaves: embeddings. One image runs on one thread, in scratch memory that thread
//! keeps, so a row never depends on its neighbours or on the number of threads. Fails with [`EngineError`].

pub(crate) mod attention;
pub(crate) mod depthwise;
mod efficientnet;
mod elementwise;
pub(crate) mod gemm;
pub(crate) mod graph;
mod isa;
pub(crate) mod layout;
#[cfg(test)]
mod naive_tests;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod network;
mod simd;
pub(crate) mod vit;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::{Mutex, PoisonError};

use self::isa::Isa;
use self::network::{Network, NetworkScratch};
use crate::batch::{Batch, Embeddings};
use crate::card::ModelCard;
use crate::engine::{Engine, check_batch, embeddings};
use crate::error::EngineError;
use crate::prepare::BuildError;
use crate::weights::Weights;

/// Most images per batch: 50 MB of grey levels at 224 x 224.
const MAX_ITEMS: usize = 256;

/// The native CPU engine.
pub(crate) struct NativeEngine {
    card: ModelCard,
    device: String,
    isa: Isa,
    network: Network,
    /// One per thread.
    scratches: Vec<NetworkScratch>,
    /// `None` where one thread is asked for: the caller's own does the work.
    pool: Option<rayon::ThreadPool>,
}

impl NativeEngine {
    /// Builds the network of `card` with the best instructions of this processor.
    pub(crate) fn new(card: &ModelCard, weights: &Weights<'_>, threads: usize) -> Result<Self, EngineError> {
        let wrap = |error: BuildError| error.of(card, weights.path());
        let tensors = weights
            .tensors(&card.weights.keys)
            .map_err(|error| wrap(error.into()))?;
        let network = Network::build(card, &tensors).map_err(wrap)?;
        let pool = if threads > 1 {
            let builder = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("embed-native-{index}"));
            Some(builder.build().map_err(|source| EngineError::Threads {
                model: card.name.clone(),
                threads,
                source,
            })?)
        } else {
            None
        };
        let isa = Isa::best();
        Ok(Self {
            card: card.clone(),
            device: format!("cpu, native, {}", isa.name()),
            isa,
            scratches: (0..threads.max(1)).map(|_| network.scratch()).collect(),
            network,
            pool,
        })
    }
}

impl Engine for NativeEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn max_items(&self) -> usize {
        MAX_ITEMS
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, MAX_ITEMS, batch.into())?;
        let channels = batch.channels();
        let width = self.card.item_width(channels);
        let mut data = vec![0.0; batch.items() * width];
        let rows = Mutex::new(data.chunks_exact_mut(width).enumerate());
        let (network, isa) = (&self.network, self.isa);
        // Each thread takes the next image until none is left.
        let work = |scratch: &mut NetworkScratch| {
            loop {
                let next = rows.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((item, row)) = next else { break };
                let Some(image) = batch.item(item) else { break };
                network.run(isa, scratch, image, channels, row);
            }
        };
        match &self.pool {
            None => self.scratches.iter_mut().take(1).for_each(work),
            Some(pool) => pool.scope(|scope| {
                for scratch in &mut self.scratches {
                    scope.spawn(|_| work(scratch));
                }
            }),
        }
        embeddings(&self.card, batch.items(), width, data)
    }
}
