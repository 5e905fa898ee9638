//! Company: the lanes of one worker. A record that may be deadly must be alone in all of them, or an innocent one would
//! be blamed for what another lane's record did.
//!
//! A lane that begins a record takes a permit first and then looks whether another lane is alone; a lane that wants to be
//! alone says so first and then looks at the others' permits. So one of the two sees the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// The lanes that share the stages behind them.
#[derive(Debug, Clone, Default)]
pub struct Company {
    lanes: Arc<Mutex<Vec<InFlight>>>,
    /// The lane that is alone, counted from 1; 0 for none.
    alone: Arc<AtomicUsize>,
}

/// What a lane has in flight: the permits that are missing of its limit.
#[derive(Debug)]
struct InFlight {
    permits: Arc<Semaphore>,
    limit: usize,
}

impl Company {
    /// Takes a lane in: its permits, and how many there are.
    pub(super) fn join(&self, in_flight: Arc<Semaphore>, limit: usize) -> Seat {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(InFlight {
            permits: in_flight,
            limit,
        });
        Seat {
            company: self.clone(),
            number: lanes.len(),
        }
    }
}

/// One lane's place in its company.
#[derive(Debug)]
pub(super) struct Seat {
    company: Company,
    /// From 1.
    number: usize,
}

impl Seat {
    /// Whether another lane is alone, or wants to be: nothing may be begun.
    pub(super) fn is_kept_out(&self) -> bool {
        let alone = self.company.alone.load(Ordering::SeqCst);
        alone != 0 && alone != self.number
    }

    /// Keeps the other lanes from beginning anything, until the solitude is dropped; `None` where another lane does so.
    pub(super) fn keep_others_out(&self) -> Option<Solitude> {
        let alone = &self.company.alone;
        alone
            .compare_exchange(0, self.number, Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| Solitude(alone.clone()))
    }

    /// Whether the other lanes have nothing in flight.
    pub(super) fn others_are_idle(&self) -> bool {
        let lanes = self.company.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = (1..)
            .zip(lanes.iter())
            .filter(|(number, _)| *number != self.number);
        others.all(|(_, lane)| lane.permits.available_permits() == lane.limit)
    }
}

/// While it lives, the other lanes begin nothing.
#[derive(Debug)]
pub(super) struct Solitude(Arc<AtomicUsize>);

impl Drop for Solitude {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lane_is_alone_once_the_others_are_idle() {
        let company = Company::default();
        let lane = |limit: usize| {
            let in_flight = Arc::new(Semaphore::new(limit));
            (company.join(in_flight.clone(), limit), in_flight)
        };
        let ((first, _), (second, of_second)) = (lane(4), lane(2));
        let at_work = of_second.clone().try_acquire_owned().unwrap();
        assert!(!first.others_are_idle() && second.others_are_idle());
        let solitude = first.keep_others_out().unwrap();
        assert!(second.is_kept_out() && !first.is_kept_out());
        assert!(second.keep_others_out().is_none());
        drop(at_work);
        assert!(first.others_are_idle());
        drop(solitude);
        assert!(!second.is_kept_out());
        assert!(second.keep_others_out().is_some());
    }
}
