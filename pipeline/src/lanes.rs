//! The two lanes of a worker, live and batch, as one input.
//!
//! Work of both enters, in the order of its lane; live work leaves before batch work. One in [`BATCH_SHARE`] is of the batch
//! lane even so, so that a rerun goes on beside a microscope that never rests. The lanes meet when fields are fetched: what is
//! given out already is not called back, so a live field waits for what of a rerun is in the stages after that.

use async_channel::{Receiver, Sender};

use crate::kafka::topics::Urgency;

/// While live work waits, one in this many fields is of the batch lane.
pub const BATCH_SHARE: u32 = 16;

/// Whose turn it is where work of both lanes waits.
#[derive(Debug, Default)]
pub struct Turns {
    /// Live fields since the last one of the batch lane.
    live: u32,
}

impl Turns {
    /// The lanes, the one whose turn it is first.
    pub fn order(&self) -> [Urgency; 2] {
        match self.live < BATCH_SHARE - 1 {
            true => [Urgency::Live, Urgency::Batch],
            false => [Urgency::Batch, Urgency::Live],
        }
    }

    /// One of this lane was taken.
    pub fn took(&mut self, urgency: Urgency) {
        self.live = match urgency {
            Urgency::Live => self.live.saturating_add(1),
            Urgency::Batch => 0,
        };
    }
}

/// Work of one lane or of both.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Vec<(Urgency, Receiver<T>)>,
    turns: Turns,
}

impl<T> Lanes<T> {
    /// Work of these lanes.
    pub fn new(mut lanes: Vec<(Urgency, Receiver<T>)>) -> Self {
        lanes.sort_by_key(|(urgency, _)| *urgency);
        Self {
            lanes,
            turns: Turns::default(),
        }
    }

    /// Hands on what comes, until every lane has ended or nobody takes it. What waits for room in the output waits in front of
    /// what comes later, so the output should be short.
    pub async fn join(mut self, output: Sender<T>) {
        while let Some(next) = self.next().await {
            if output.send(next).await.is_err() {
                return;
            }
        }
    }

    /// The next one; `None` when every lane has ended.
    async fn next(&mut self) -> Option<T> {
        loop {
            self.lanes
                .retain(|(_, work)| !(work.is_closed() && work.is_empty()));
            for urgency in self.turns.order() {
                let lane = self.lanes.iter().find(|(lane, _)| *lane == urgency);
                if let Some((_, work)) = lane
                    && let Ok(next) = work.try_recv()
                {
                    self.turns.took(urgency);
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
    use async_channel::bounded;

    use super::*;

    /// Both lanes with room for all that is sent.
    struct Both {
        lanes: Lanes<&'static str>,
        live: Sender<&'static str>,
        batch: Sender<&'static str>,
    }

    fn both() -> Both {
        let ((live, live_work), (batch, batch_work)) = (bounded(100), bounded(100));
        Both {
            lanes: Lanes::new(vec![(Urgency::Batch, batch_work), (Urgency::Live, live_work)]),
            live,
            batch,
        }
    }

    fn send(to: &Sender<&'static str>, work: &'static str, count: usize) {
        for _ in 0..count {
            to.try_send(work).unwrap();
        }
    }

    impl Both {
        async fn take(&mut self, count: usize) -> Vec<&'static str> {
            let mut taken = Vec::new();
            for _ in 0..count {
                taken.push(self.lanes.next().await.unwrap());
            }
            taken
        }
    }

    #[tokio::test]
    async fn live_work_goes_first_and_batch_work_goes_on_beside_it() {
        let mut both = both();
        send(&both.batch, "batch", 10);
        send(&both.live, "live", 60);
        for (number, taken) in both.take(64).await.into_iter().enumerate() {
            let expected = if (number + 1) % 16 == 0 { "batch" } else { "live" };
            assert_eq!(taken, expected, "{number}");
        }
        assert_eq!(both.take(6).await, ["batch"; 6]);
    }

    #[tokio::test]
    async fn a_lane_that_ends_leaves_the_other() {
        for live_ends in [true, false] {
            let mut both = both();
            send(&both.live, "live", 1);
            send(&both.batch, "batch", 1);
            let ends = if live_ends { &both.live } else { &both.batch };
            ends.close();
            assert_eq!(both.take(2).await, ["live", "batch"]);
            // What comes to the lane that is left is taken, and its end is the end.
            let (left, work) = if live_ends {
                (both.batch.clone(), "batch")
            } else {
                (both.live.clone(), "live")
            };
            send(&left, work, 1);
            assert_eq!(both.take(1).await, [work]);
            left.close();
            assert!(both.lanes.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn work_that_comes_later_is_waited_for() {
        let mut both = both();
        let batch = both.batch.clone();
        let sending = tokio::spawn(async move {
            tokio::task::yield_now().await;
            send(&batch, "batch", 1);
        });
        assert!(both.lanes.next().await.is_some());
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn live_work_passes_all_batch_work_but_what_the_output_holds() {
        let both = both();
        let (output, joined) = bounded(1);
        send(&both.batch, "batch", 10);
        let joining = tokio::spawn(both.lanes.join(output));
        // One waits in the output, the next for room in it.
        while both.batch.len() > 8 {
            tokio::task::yield_now().await;
        }
        send(&both.live, "live", 3);
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.push(joined.recv().await.unwrap());
        }
        assert_eq!(taken, ["batch", "batch", "live", "live", "live", "batch"]);
        drop(joined);
        // Nobody takes more.
        joining.await.unwrap();
    }
}
