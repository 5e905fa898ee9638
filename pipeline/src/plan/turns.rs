//! Turns: which run's plate is planned next, where several runs wait in the batch lane.
//!
//! What the status topic says of plates enters, in its order; the run whose turn it is leaves. Runs that wait get tasks in
//! proportion to their screens' weights: each carries how many tasks it was given per weight, and the one with the fewest is
//! next (start-time fair queueing: Goyal, Vin and Cheng, IEEE/ACM Transactions on Networking 5, 1997). A run that begins to
//! wait is set level with those that do, so it neither pays for having been idle nor is paid for it.
//!
//! Every planner reads the same topic, so all of them find the same run to be next, though its plates may be another's to plan.

use std::collections::{BTreeMap, HashSet};

use wellspring_workloads::words::Barcode;

use crate::events::RunId;
use crate::runs::Course;

/// What is known of the runs' shares.
#[derive(Debug, Default)]
pub struct Turns {
    runs: BTreeMap<RunId, Share>,
}

#[derive(Debug)]
struct Share {
    /// Its screen's.
    weight: u32,
    /// Plates that wait to be planned.
    waiting: HashSet<Barcode>,
    /// Tasks planned per weight, as far as they count.
    given: f64,
    /// Whether an operator has it wait.
    paused: bool,
    /// Whether others go on without it until it is heard of again.
    passed_over: bool,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1,
            waiting: HashSet::new(),
            given: 0.0,
            paused: false,
            passed_over: false,
        }
    }
}

impl Share {
    fn waits(&self) -> bool {
        !self.waiting.is_empty() && !self.paused && !self.passed_over
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A run's that has a plate here.
    Here(RunId),
    /// A run's that has none here: another planner has it, or it is on its way.
    Elsewhere(RunId),
}

impl Turns {
    /// A run's screen has this weight.
    pub fn weigh(&mut self, run: &RunId, weight: u32) {
        self.runs.entry(run.clone()).or_default().weight = weight.max(1);
    }

    /// A plate of the run waits to be planned.
    pub fn queued(&mut self, run: &RunId, plate: &Barcode) {
        let level = self.level();
        let share = self.runs.entry(run.clone()).or_default();
        if share.waiting.is_empty() {
            share.given = share.given.max(level.unwrap_or(0.0));
        }
        share.passed_over = false;
        share.waiting.insert(plate.clone());
    }

    /// An operator's word to a run is this now.
    pub fn steered(&mut self, run: &RunId, course: Course) {
        let level = self.level();
        let share = self.runs.entry(run.clone()).or_default();
        match course {
            Course::Open if share.paused => share.given = share.given.max(level.unwrap_or(0.0)),
            Course::Open | Course::Paused => {}
            Course::Cancelled => share.waiting.clear(),
        }
        share.paused = course == Course::Paused;
    }

    /// What the runs that wait have got, of them that which has the fewest.
    fn level(&self) -> Option<f64> {
        let waiting = self.runs.values().filter(|share| share.waits());
        waiting.map(|share| share.given).min_by(f64::total_cmp)
    }

    /// A plate of the run was planned, with so many tasks.
    pub fn planned(&mut self, run: &RunId, plate: &Barcode, tasks: u32) {
        // Live plates have no turns and are nobody's share of the batch lane.
        if let Some(share) = self.runs.get_mut(run)
            && share.waiting.remove(plate)
        {
            share.given += f64::from(tasks) / f64::from(share.weight);
            share.passed_over = false;
        }
    }

    /// Others go on without the run until it is heard of again.
    pub fn pass_over(&mut self, run: &RunId) {
        if let Some(share) = self.runs.get_mut(run) {
            share.passed_over = true;
        }
    }

    /// Whose turn it is, among the runs that wait; `here` are those with a plate in this process. `None`: of nobody that is
    /// known to wait.
    pub fn next(&self, here: &[&RunId]) -> Option<Turn> {
        let waits = |run: &RunId, share: &Share| here.contains(&run) || share.waits();
        let (run, _) = self
            .runs
            .iter()
            .filter(|(run, share)| waits(run, share))
            .min_by(|(_, one), (_, other)| one.given.total_cmp(&other.given))?;
        let turn = match here.contains(&run) {
            true => Turn::Here(run.clone()),
            false => Turn::Elsewhere(run.clone()),
        };
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn plate(number: usize) -> Barcode {
        format!("P{number}").parse().unwrap()
    }

    fn queue(turns: &mut Turns, run: &str, count: usize) {
        for number in 0..count {
            turns.queued(&run.to_owned(), &plate(number));
        }
    }

    /// Plans `count` plates of what waits, `tasks` each, and says how many each run got.
    fn plan(
        turns: &mut Turns,
        left: &mut HashMap<String, usize>,
        count: usize,
        tasks: u32,
    ) -> HashMap<String, usize> {
        let mut got = HashMap::new();
        for _ in 0..count {
            let here: Vec<RunId> = left
                .iter()
                .filter(|(_, left)| **left > 0)
                .map(|(run, _)| run.clone())
                .collect();
            let Some(Turn::Here(run)) = turns.next(&here.iter().collect::<Vec<_>>()) else {
                break;
            };
            let waiting = left.get_mut(&run).unwrap();
            *waiting -= 1;
            turns.planned(&run, &plate(*waiting), tasks);
            *got.entry(run).or_default() += 1;
        }
        got
    }

    #[test]
    fn a_run_that_comes_later_shares_from_then_on() {
        let mut turns = Turns::default();
        let mut left = HashMap::from([("first".to_owned(), 1_000)]);
        queue(&mut turns, "first", 1_000);
        plan(&mut turns, &mut left, 100, 384);
        queue(&mut turns, "second", 1_000);
        left.insert("second".to_owned(), 1_000);
        let got = plan(&mut turns, &mut left, 100, 384);
        assert_eq!((got["first"], got["second"]), (50, 50));
    }

    #[test]
    fn what_a_run_left_behind_gives_nobody_a_start() {
        let mut turns = Turns::default();
        let mut left = HashMap::from([("first".to_owned(), 1_000)]);
        // Plates of these were never planned: one run was cancelled, one waits for an operator, one is not heard of.
        for gone in ["cancelled", "paused", "silent"] {
            queue(&mut turns, gone, 10);
        }
        turns.steered(&"cancelled".to_owned(), Course::Cancelled);
        turns.steered(&"paused".to_owned(), Course::Paused);
        turns.pass_over(&"silent".to_owned());
        queue(&mut turns, "first", 1_000);
        plan(&mut turns, &mut left, 100, 384);
        queue(&mut turns, "second", 1_000);
        left.insert("second".to_owned(), 1_000);
        let got = plan(&mut turns, &mut left, 100, 384);
        assert_eq!((got["first"], got["second"]), (50, 50));
        turns.steered(&"paused".to_owned(), Course::Open);
        left.insert("paused".to_owned(), 10);
        let got = plan(&mut turns, &mut left, 6, 384);
        assert_eq!((got["first"], got["second"], got["paused"]), (2, 2, 2));
    }

    #[test]
    fn a_run_elsewhere_is_waited_for_until_it_is_passed_over() {
        let (here, there) = ("here".to_owned(), "there".to_owned());
        let mut turns = Turns::default();
        queue(&mut turns, "here", 4);
        queue(&mut turns, "there", 2);
        assert_eq!(turns.next(&[&here]), Some(Turn::Here(here.clone())));
        turns.planned(&here, &plate(0), 384);
        assert_eq!(turns.next(&[&here]), Some(Turn::Elsewhere(there.clone())));
        turns.steered(&there, Course::Paused);
        assert_eq!(turns.next(&[&here]), Some(Turn::Here(here.clone())), "paused");
        turns.steered(&there, Course::Open);
        assert_eq!(
            turns.next(&[&here]),
            Some(Turn::Here(here.clone())),
            "level since"
        );
        turns.planned(&here, &plate(1), 384);
        assert_eq!(turns.next(&[&here]), Some(Turn::Elsewhere(there.clone())));
        turns.pass_over(&there);
        assert_eq!(turns.next(&[&here]), Some(Turn::Here(here.clone())));
        turns.planned(&here, &plate(2), 384);
        turns.planned(&there, &plate(0), 384);
        assert_eq!(
            turns.next(&[&here]),
            Some(Turn::Elsewhere(there.clone())),
            "heard of again"
        );
        turns.planned(&there, &plate(1), 384);
        assert_eq!(turns.next(&[&here]), Some(Turn::Here(here.clone())));
        assert_eq!(Turns::default().next(&[&here]), None);
    }

    proptest! {
        /// Of runs that wait all the time, each gets its weight's part of the tasks, but for one plate.
        #[test]
        fn shares_are_as_weights(weights in proptest::collection::vec(1u32..9, 2..5), tasks in 1u32..4_000) {
            let mut turns = Turns::default();
            let mut left = HashMap::new();
            for (number, weight) in weights.iter().enumerate() {
                let run = format!("run-{number}");
                turns.weigh(&run, *weight);
                queue(&mut turns, &run, 600);
                left.insert(run, 600);
            }
            let got = plan(&mut turns, &mut left, 500, tasks);
            let all: u32 = weights.iter().sum();
            for (number, weight) in weights.iter().enumerate() {
                let due = 500.0 * f64::from(*weight) / f64::from(all);
                let found = got.get(&format!("run-{number}")).copied().unwrap_or(0) as f64;
                prop_assert!((found - due).abs() <= weights.len() as f64, "{found} plates, {due} are due");
            }
        }
    }
}
