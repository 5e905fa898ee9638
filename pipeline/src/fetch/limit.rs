//! The limit on bytes of images in memory, which the lanes of a worker share.
//!
//! A field waits here for its share before it is fetched, and gives it back when its pixels are gone. Shares are granted in the
//! order of their lane, live ones first, one in [`BATCH_SHARE`](crate::lanes::BATCH_SHARE) of the batch lane even so. Beside a
//! live lane the batch lane gets half at most, so that a live field finds room at once beside fetched fields of a rerun that
//! wait for their turn. Nothing fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Stage, StageError};
use crate::kafka::topics::Urgency;
use crate::lanes::Turns;

/// The limit. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct MemoryLimit {
    total: u64,
    /// What the batch lane may have of it.
    batch: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: u64,
    free_of_batch: u64,
    waiting: [VecDeque<Waiting>; 2],
    turns: Turns,
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    answer: oneshot::Sender<Share>,
}

/// What a field holds: of all, and of the batch lane's part.
#[derive(Debug, Clone, Copy)]
struct Asked {
    bytes: u64,
    of_batch: u64,
}

/// A field's share, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    asked: Asked,
    state: Arc<Mutex<State>>,
}

impl MemoryLimit {
    /// At most about `bytes` of images in memory, of fields of these lanes.
    pub fn new(bytes: u64, lanes: &[Urgency]) -> Self {
        let total = bytes.max(1);
        let batch = match lanes.contains(&Urgency::Live) {
            true => (total / 2).max(1),
            false => total,
        };
        let state = State {
            free: total,
            free_of_batch: batch,
            waiting: Default::default(),
            turns: Turns::default(),
        };
        Self {
            total,
            batch,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Waits for the share of a field. One that is larger than the whole limit takes all of it and goes alone.
    ///
    /// # Errors
    /// Never while the limit stands: nobody who waits is forgotten.
    pub async fn reserve(&self, urgency: Urgency, bytes: u64) -> Result<Share, StageError> {
        let asked = Asked {
            bytes: bytes.clamp(1, self.total),
            of_batch: match urgency {
                Urgency::Live => 0,
                Urgency::Batch => bytes.clamp(1, self.batch),
            },
        };
        let (answer, granted) = oneshot::channel();
        locked(&self.state).waiting[urgency as usize].push_back(Waiting { asked, answer });
        grant(&self.state);
        granted
            .await
            .map_err(|error| StageError::internal(Stage::Fetch, error))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        {
            let mut state = locked(&self.state);
            state.free += self.asked.bytes;
            state.free_of_batch += self.asked.of_batch;
        }
        grant(&self.state);
    }
}

/// Gives shares as long as who is next finds room.
fn grant(state: &Arc<Mutex<State>>) {
    loop {
        let next = locked(state).next();
        let Some(Waiting { asked, answer }) = next else {
            return;
        };
        // Who has stopped waiting gives it back at once, without the lock.
        let state = state.clone();
        let _gone = answer.send(Share { asked, state });
    }
}

impl State {
    /// Takes who is next from the queue, and its share from what is free.
    fn next(&mut self) -> Option<Waiting> {
        for urgency in self.turns.order() {
            let queue = &mut self.waiting[urgency as usize];
            let Some(Waiting { asked, .. }) = queue.front() else {
                continue;
            };
            // Small fields do not pass a large one for ever; but the batch lane's part holds up nobody else.
            if asked.bytes > self.free {
                return None;
            }
            if asked.of_batch <= self.free_of_batch {
                self.free -= asked.bytes;
                self.free_of_batch -= asked.of_batch;
                self.turns.took(urgency);
                return queue.pop_front();
            }
        }
        None
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// What a reservation has come to so far.
    fn poll(waiting: std::pin::Pin<&mut impl Future<Output = Result<Share, StageError>>>) -> Option<Share> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(share) => Some(share.unwrap()),
            Poll::Pending => None,
        }
    }

    fn both(bytes: u64) -> MemoryLimit {
        MemoryLimit::new(bytes, &Urgency::ALL)
    }

    #[test]
    fn a_live_field_finds_room_beside_a_full_batch_lane() {
        let limit = both(100);
        let first = poll(pin!(limit.reserve(Urgency::Batch, 30))).unwrap();
        let mut second = pin!(limit.reserve(Urgency::Batch, 30));
        assert!(poll(second.as_mut()).is_none(), "half of 100 is for two");
        let live = poll(pin!(limit.reserve(Urgency::Live, 70))).unwrap();
        drop(first);
        assert!(poll(second.as_mut()).is_some());
        drop(live);
        // By itself the batch lane has all.
        let alone = MemoryLimit::new(100, &[Urgency::Batch]);
        assert!(poll(pin!(alone.reserve(Urgency::Batch, 100))).is_some());
    }

    #[test]
    fn a_field_larger_than_the_limit_goes_alone_and_is_not_passed_by_small_ones() {
        for urgency in Urgency::ALL {
            let limit = both(100);
            let small = poll(pin!(limit.reserve(Urgency::Live, 10))).unwrap();
            let mut large = pin!(limit.reserve(urgency, 1_000));
            assert!(poll(large.as_mut()).is_none());
            let mut next = pin!(limit.reserve(urgency, 10));
            assert!(poll(next.as_mut()).is_none());
            drop(small);
            let large = poll(large.as_mut()).unwrap();
            assert!(poll(next.as_mut()).is_none());
            drop(large);
            assert!(poll(next.as_mut()).is_some());
        }
    }

    #[test]
    fn live_fields_get_room_first_and_one_in_sixteen_is_of_the_batch_lane() {
        let limit = both(1);
        let mut held = Some(poll(pin!(limit.reserve(Urgency::Live, 1))).unwrap());
        let mut waiting = Vec::new();
        for urgency in [Urgency::Batch; 3].into_iter().chain([Urgency::Live; 40]) {
            let mut share = Box::pin(limit.reserve(urgency, 1));
            assert!(poll(share.as_mut()).is_none());
            waiting.push((urgency, share));
        }
        let mut granted = String::new();
        for _ in 0..waiting.len() {
            held.take();
            let mut polled = waiting.iter_mut().enumerate();
            let (at, share) = polled
                .find_map(|(at, (_, share))| Some((at, poll(share.as_mut())?)))
                .unwrap();
            held = Some(share);
            let (urgency, _) = waiting.remove(at);
            granted.push(if urgency == Urgency::Live { 'L' } else { 'b' });
        }
        let sixteen = format!("{}b", "L".repeat(15));
        // The first one held was a live one too.
        assert_eq!(granted, format!("{}{sixteen}{}b", &sixteen[1..], "L".repeat(11)));
    }

    #[test]
    fn who_stops_waiting_holds_nothing() {
        let limit = both(10);
        let held = poll(pin!(limit.reserve(Urgency::Live, 10))).unwrap();
        {
            let mut gone = pin!(limit.reserve(Urgency::Live, 10));
            assert!(poll(gone.as_mut()).is_none());
        }
        drop(held);
        {
            // Granted, but never taken.
            let held = poll(pin!(limit.reserve(Urgency::Live, 10))).unwrap();
            let mut gone = pin!(limit.reserve(Urgency::Live, 10));
            assert!(poll(gone.as_mut()).is_none());
            drop(held);
        }
        assert!(poll(pin!(limit.reserve(Urgency::Live, 10))).is_some());
    }
}
