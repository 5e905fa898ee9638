//! The two lanes of a worker, live and batch, as one input.
//!
//! Work of both enters, in the order of its lane; live work leaves before batch work. One in [`BATCH_SHARE`] is of the batch
//! lane even so, so that a rerun goes on beside a microscope that never rests. What is given out already is not
//! called back: a live plate waits for as many fields of a rerun as are in the worker's stages.

use std::sync::Arc;

use crate::kafka::lane::{Inbound, Work};
use crate::kafka::topics::Urgency;
use crate::track::Tracked;

/// While live work waits, one in this many fields is of the batch lane.
pub const BATCH_SHARE: u32 = 16;

/// Work of one lane or of both.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<(Urgency, Work)>,
    /// Live fields since the last one of the batch lane.
    live: u32,
}

impl Lanes {
    /// Work of these lanes.
    pub fn new(mut lanes: Vec<(Urgency, Work)>) -> Self {
        lanes.sort_by_key(|(urgency, _)| *urgency);
        Self { lanes, live: 0 }
    }

    /// The next record; `None` when every lane has ended.
    pub async fn next(&mut self) -> Option<Tracked<Arc<Inbound>>> {
        loop {
            self.lanes
                .retain(|(_, work)| !(work.is_closed() && work.is_empty()));
            let batch_first = self.live >= BATCH_SHARE - 1;
            let mut order: Vec<&(Urgency, Work)> = self.lanes.iter().collect();
            if batch_first {
                order.reverse();
            }
            for (urgency, work) in order {
                if let Ok(next) = work.try_recv() {
                    self.live = match urgency {
                        Urgency::Live => self.live.saturating_add(1),
                        Urgency::Batch => 0,
                    };
                    return Some(next);
                }
            }
            // Nothing waits: whatever comes first is taken, and an end is looked at again.
            match &self.lanes[..] {
                [] => return None,
                [(_, only)] => {
                    if let Ok(next) = only.recv().await {
                        return Some(next);
                    }
                }
                [(_, first), (_, second), ..] => tokio::select! {
                    biased;
                    Ok(next) = first.recv() => return Some(next),
                    Ok(next) = second.recv() => return Some(next),
                    else => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_channel::{Sender, bounded};

    use super::*;
    use crate::track::tests::ticket;

    /// Both lanes with room for all that is sent, and the tickets' channel kept open.
    struct Both {
        lanes: Lanes,
        live: Sender<Tracked<Arc<Inbound>>>,
        batch: Sender<Tracked<Arc<Inbound>>>,
        settle: std::sync::mpsc::SyncSender<crate::track::Settled>,
        _settled: std::sync::mpsc::Receiver<crate::track::Settled>,
    }

    fn both() -> Both {
        let ((live, live_work), (batch, batch_work)) = (bounded(100), bounded(100));
        let (settle, _settled) = std::sync::mpsc::sync_channel(1_000);
        Both {
            lanes: Lanes::new(vec![(Urgency::Batch, batch_work), (Urgency::Live, live_work)]),
            live,
            batch,
            settle,
            _settled,
        }
    }

    impl Both {
        fn send(&self, to: &Sender<Tracked<Arc<Inbound>>>, key: &str, count: usize) {
            for _ in 0..count {
                let record = Inbound {
                    key: key.to_owned(),
                    ..Inbound::default()
                };
                let work = Tracked {
                    value: Arc::new(record),
                    ticket: ticket(&self.settle),
                };
                to.try_send(work).unwrap();
            }
        }

        async fn keys(&mut self, count: usize) -> Vec<String> {
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.push(self.lanes.next().await.unwrap().value.key.clone());
            }
            keys
        }
    }

    #[tokio::test]
    async fn live_work_goes_first_and_batch_work_goes_on_beside_it() {
        let mut both = both();
        both.send(&both.batch, "batch", 10);
        both.send(&both.live, "live", 60);
        let keys = both.keys(64).await;
        for (number, key) in keys.iter().enumerate() {
            let expected = if (number + 1) % 16 == 0 { "batch" } else { "live" };
            assert_eq!(key, expected, "{number}");
        }
        assert_eq!(both.keys(6).await, ["batch"; 6]);
    }

    #[tokio::test]
    async fn a_lane_that_ends_leaves_the_other() {
        for live_ends in [true, false] {
            let mut both = both();
            both.send(&both.live, "live", 1);
            both.send(&both.batch, "batch", 1);
            let ends = if live_ends { &both.live } else { &both.batch };
            ends.close();
            assert_eq!(both.keys(2).await, ["live", "batch"]);
            // What comes to the lane that is left is taken, and its end is the end.
            let (left, key) = if live_ends {
                (both.batch.clone(), "batch")
            } else {
                (both.live.clone(), "live")
            };
            both.send(&left, key, 1);
            assert_eq!(both.keys(1).await, [key]);
            left.close();
            assert!(both.lanes.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn work_that_comes_later_is_waited_for() {
        let mut both = both();
        let (batch, settle) = (both.batch.clone(), both.settle.clone());
        let sending = tokio::spawn(async move {
            tokio::task::yield_now().await;
            let work = Tracked {
                value: Arc::new(Inbound::default()),
                ticket: ticket(&settle),
            };
            batch.try_send(work).unwrap();
        });
        assert!(both.lanes.next().await.is_some());
        sending.await.unwrap();
    }
}
