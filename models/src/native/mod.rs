//! The native CPU engine: a layer graph in plain Rust with vector kernels where the processor has them. No external
//! library.
//!
//! Enters: batches of grey images. Leaves: embeddings. One image runs on one thread, in scratch memory that thread
//! keeps, so a row never depends on its neighbours or on the number of threads. Fails with [`EngineError`].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod depthwise;
mod efficientnet;
mod gemm;
mod graph;
mod isa;
mod layout;
#[cfg(test)]
mod naive_tests;

use std::sync::{Mutex, PoisonError};

use self::efficientnet::Sizes;
use self::graph::{Graph, Scratch};
use self::isa::Isa;
use crate::batch::{Batch, Embeddings};
use crate::card::{Architecture, ChannelPolicy, ModelCard, Padding, Pooling};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::weights::Weights;

/// Most images per batch: 50 MB of grey levels at 224 x 224.
const MAX_ITEMS: usize = 256;

/// The native CPU engine.
pub(crate) struct NativeEngine {
    card: ModelCard,
    device: String,
    isa: Isa,
    graph: Graph,
    /// One per thread.
    scratches: Vec<Scratch>,
    /// `None` where one thread is asked for: the caller's own does the work.
    pool: Option<rayon::ThreadPool>,
}

impl NativeEngine {
    /// Builds the network of `card` with the best instructions of this processor.
    pub(crate) fn new(card: &ModelCard, weights: &Weights, threads: usize) -> Result<Self, EngineError> {
        let wrap = |source| EngineError::Weights {
            model: card.name.clone(),
            path: weights.path().into(),
            source,
        };
        let sizes = match card.architecture {
            Architecture::EfficientnetLite0 => Sizes::lite0(),
        };
        check_card(card, &sizes)?;
        let tensors = weights.tensors().map_err(wrap)?;
        let graph = sizes
            .build(&tensors, card.input.height, card.input.width)
            .map_err(wrap)?;
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
            scratches: (0..threads.max(1)).map(|_| graph.scratch()).collect(),
            graph,
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
        let input = &self.card.input;
        if (batch.channels(), batch.height(), batch.width()) != (1, input.height, input.width) {
            return Err(EngineError::WrongInput {
                model: self.card.name.clone(),
                wanted_channels: 1,
                wanted_height: input.height,
                wanted_width: input.width,
                channels: batch.channels(),
                height: batch.height(),
                width: batch.width(),
            });
        }
        if batch.items() > MAX_ITEMS {
            return Err(EngineError::Oversize {
                model: self.card.name.clone(),
                items: batch.items(),
                limit: MAX_ITEMS,
            });
        }
        let width = self.card.embedding_width;
        let mut data = vec![0.0; batch.items() * width];
        let (scale, mean, std) = (input.scale, input.mean, input.std);
        let rows = Mutex::new(data.chunks_exact_mut(width).enumerate());
        let (graph, isa) = (&self.graph, self.isa);
        // Each thread takes the next image until none is left.
        let work = |scratch: &mut Scratch| {
            loop {
                let next = rows.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((item, row)) = next else { break };
                let Some(image) = batch.item(item) else { break };
                graph.run(isa, scratch, |i| (image[i] * scale - mean) / std, row);
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
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return Err(EngineError::NotFinite {
                model: self.card.name.clone(),
                item: at / width,
                offset: at % width,
                value: data[at],
            });
        }
        Ok(Embeddings {
            items: batch.items(),
            width,
            data,
        })
    }
}

/// Refuses a card that asks for what this engine does not do.
fn check_card(card: &ModelCard, sizes: &Sizes) -> Result<(), EngineError> {
    let refuse = |field, found: String, needs| {
        Err(EngineError::Card {
            model: card.name.clone(),
            field,
            found,
            needs,
        })
    };
    // Matches without a wildcard: a new policy must be thought about here.
    match (card.channel_policy, card.pooling, card.input.padding) {
        (ChannelPolicy::ReplicateAndConcatenate, Pooling::GlobalMean, Padding::TfSame) => {}
    }
    let input = &card.input;
    if input.channels != sizes.image_channels {
        return refuse(
            "input.channels",
            input.channels.to_string(),
            "the network has another number of inputs",
        );
    }
    if card.embedding_width != sizes.head {
        return refuse(
            "embedding_width",
            card.embedding_width.to_string(),
            "the network has another width",
        );
    }
    if !(32..=1024).contains(&input.height) || !(32..=1024).contains(&input.width) {
        let found = format!("{} x {}", input.height, input.width);
        return refuse(
            "input.height and input.width",
            found,
            "each must lie in 32..=1024",
        );
    }
    if !(input.scale.is_finite() && input.mean.is_finite() && input.std.is_finite() && input.std > 0.0) {
        let found = format!("scale {}, mean {}, std {}", input.scale, input.mean, input.std);
        return refuse("input", found, "all must be finite and std above 0");
    }
    Ok(())
}
