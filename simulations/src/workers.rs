//! Training on several threads, without the results knowing it.
//!
//! The engine asks for updates in the order of virtual time. Helpers work ahead on those that are due next, of a few the largest
//! first, so that no round ends with one of them alone at work; what no helper has begun, the engine computes itself. So a machine with one thread has no helper, nobody waits for a
//! helper that is busy with something else, and an update is the same whoever computed it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use skep_privacy::client_noise::Contribution;
use skep_privacy::sum::{Accumulator, SumError};
use skep_protocol::ClientId;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::Decline;

use crate::memory::ClientMemory;
use crate::network::Due;

/// What the engine asks of the clients' side: the seam between a round and what is learned in it.
pub(crate) trait Trainer: Sync {
    /// How many examples a client trains on.
    fn examples(&self, client: ClientId) -> u64;

    /// A client's update, a function of the job and of what was committed of the client before.
    fn train(&self, job: &Job) -> Result<Contribution, Decline>;

    /// A client's update is in the sum: the only thing that its later ones may depend on beside their jobs.
    fn committed(&self, client: ClientId, update: &Contribution) {
        let _ = (client, update);
    }

    /// What clients keep to themselves from round to round.
    fn memory(&self) -> ClientMemory {
        ClientMemory::default()
    }
}

/// One client, one plan, one base model.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) client: ClientId,
    pub(crate) plan: Arc<VerifiedPlan>,
    pub(crate) base: Arc<Vec<f32>>,
    /// What the update is multiplied by before it is bounded: 1 but for stale ones.
    pub(crate) weight: f64,
}

/// Training jobs and their results.
pub(crate) struct Workers<'a, T> {
    trainer: &'a T,
    /// Updates that may be begun or finished before the engine asks for them.
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// By helper.
    sums: Vec<Mutex<PartialSum>>,
}

#[derive(Default)]
struct State {
    /// With the examples of their clients.
    waiting: BTreeMap<Due, (u64, Job)>,
    running: BTreeSet<Due>,
    finished: BTreeMap<Due, thread::Result<Result<Made, Decline>>>,
    over: bool,
}

/// An update, and the number of the helper that has computed it, if one has.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) update: Contribution,
    helper: Option<usize>,
}

impl From<Contribution> for Made {
    fn from(update: Contribution) -> Self {
        Made { update, helper: None }
    }
}

/// What a helper has added up of its own updates, whose numbers are in its cache and in no other, and what it is yet to add.
#[derive(Default)]
struct PartialSum {
    waiting: Vec<Contribution>,
    sum: Option<Accumulator>,
    failed: Option<SumError>,
}

impl PartialSum {
    fn add_waiting(&mut self) {
        for update in self.waiting.drain(..) {
            let sum = self.sum.get_or_insert_with(|| Accumulator::new(*update.grid()));
            if let Err(error) = sum.add(&update) {
                self.failed = Some(error);
            }
        }
    }
}

impl<'a, T: Trainer> Workers<'a, T> {
    /// Runs `engine` beside `threads - 1` helpers, for updates of so many coordinates.
    pub(crate) fn with<R>(
        trainer: &'a T,
        threads: usize,
        dimension: usize,
        engine: impl FnOnce(&Self) -> R,
    ) -> R {
        let workers = Workers {
            trainer,
            ahead: (AHEAD_PER_THREAD * threads).max(AHEAD_COORDINATES / dimension.max(1)),
            state: Mutex::default(),
            changed: Condvar::new(),
            sums: (1..threads).map(|_| Mutex::default()).collect(),
        };
        thread::scope(|scope| {
            for helper in 0..workers.sums.len() {
                let workers = &workers;
                scope.spawn(move || workers.help(helper));
            }
            let _release_helpers = Dismissal(&workers);
            engine(&workers)
        })
    }

    /// Announces that an update will be taken, at `due` if all goes well.
    pub(crate) fn announce(&self, due: Due, job: Job) {
        let examples = self.trainer.examples(job.client);
        self.lock().waiting.insert(due, (examples, job));
        self.changed.notify_one();
    }

    /// Takes an announcement back.
    pub(crate) fn cancel(&self, due: Due) {
        let mut state = self.lock();
        state.waiting.remove(&due);
        state.running.remove(&due);
        state.finished.remove(&due);
        self.changed.notify_one();
    }

    /// The update that was announced for `due`; computes it unless a helper has begun to.
    ///
    /// # Panics
    /// With the panic of the training, whichever thread it ran on.
    pub(crate) fn take(&self, due: Due, job: &Job) -> Result<Made, Decline> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.finished.remove(&due) {
                self.changed.notify_one();
                return result.unwrap_or_else(|panic| resume_unwind(panic));
            }
            if !state.running.contains(&due) {
                state.waiting.remove(&due);
                drop(state);
                return self.trainer.train(job).map(Made::from);
            }
            state = match state.next(self.ahead) {
                Some((other, job)) => self.run(state, other, &job, None),
                None => self.wait(state),
            };
        }
    }

    /// Has the helper that has computed an update add it to the sum; gives back what none has, and the engine has to add.
    pub(crate) fn add(&self, made: Made) -> Option<Contribution> {
        match made.helper {
            None => Some(made.update),
            Some(helper) => {
                self.sum_of(helper).waiting.push(made.update);
                None
            }
        }
    }

    /// The sums of all helpers, which begin anew.
    ///
    /// # Errors
    /// [`SumError`] of an update that a helper was to add.
    pub(crate) fn sums(&self) -> Result<Vec<Accumulator>, SumError> {
        let mut sums = Vec::new();
        for helper in 0..self.sums.len() {
            let mut partial = std::mem::take(&mut *self.sum_of(helper));
            partial.add_waiting();
            if let Some(error) = partial.failed {
                return Err(error);
            }
            sums.extend(partial.sum);
        }
        Ok(sums)
    }

    fn sum_of(&self, helper: usize) -> MutexGuard<'_, PartialSum> {
        self.sums[helper].lock().expect("no thread panics while it holds the lock")
    }

    /// Works ahead of the engine until it is done.
    fn help(&self, helper: usize) {
        let mut state = self.lock();
        while !state.over {
            state = match state.next(self.ahead) {
                Some((due, job)) => self.run(state, due, &job, Some(helper)),
                None => self.wait(state),
            };
        }
    }

    fn run<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        due: Due,
        job: &Job,
        helper: Option<usize>,
    ) -> MutexGuard<'s, State> {
        drop(state);
        if let Some(helper) = helper {
            self.sum_of(helper).add_waiting();
        }
        let train = || self.trainer.train(job).map(|update| Made { update, helper });
        let result = catch_unwind(AssertUnwindSafe(train));
        let mut state = self.lock();
        if state.running.remove(&due) {
            state.finished.insert(due, result);
        }
        self.changed.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).expect("no thread panics while it holds the lock")
    }
}

impl State {
    /// Begins the largest of the jobs that are due next, if there is one and not too many are ahead.
    fn next(&mut self, ahead: usize) -> Option<(Due, Job)> {
        // The nearer the limit, the fewer there are to choose from: it is the engine that takes updates away, in their order.
        let left = ahead.saturating_sub(self.running.len() + self.finished.len());
        let next = self.waiting.iter().take(CHOICE.min(left)).map(|(due, (examples, _))| (*due, *examples));
        let (due, _) = next.reduce(|best, other| if other.1 > best.1 { other } else { best })?;
        let (_, job) = self.waiting.remove(&due)?;
        self.running.insert(due);
        Some((due, job))
    }
}

/// Sends the helpers home, also when the engine panics: otherwise they would wait for ever.
struct Dismissal<'w, 'a, T: Trainer>(&'w Workers<'a, T>);

impl<T: Trainer> Drop for Dismissal<'_, '_, T> {
    fn drop(&mut self) {
        // A poisoned lock is no obstacle: the flag is all that matters now.
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).over = true;
        self.0.changed.notify_all();
    }
}

/// Jobs of which the largest is begun first: as many as a large cohort has, few enough to look through them for each.
const CHOICE: usize = 64;
/// Enough that a helper need not wait for the engine between two jobs, few enough to bound the memory.
const AHEAD_PER_THREAD: usize = 4;
/// And more of small ones, 4 MiB in all: while the engine passes messages on, a helper computes many of them.
const AHEAD_COORDINATES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::network::Network;
    use crate::testing::{Fake, plan};

    /// Announces 40 jobs, takes them in order but for the tenth, which is taken back.
    fn results(threads: usize) -> Vec<Result<Contribution, Decline>> {
        let trainer = Fake::default();
        let plan = plan();
        Workers::with(&trainer, threads, AHEAD_COORDINATES, |workers| {
            let mut network = Network::new();
            let mut announced = Vec::new();
            for client in (0..40).map(ClientId) {
                let due = network.send(skep_protocol::Time::ZERO, ());
                let job = Job { client, plan: plan.clone(), base: Arc::new(vec![0.0; 650]), weight: 1.0 };
                workers.announce(due, job.clone());
                announced.push((due, job));
            }
            let (tenth, _) = announced.remove(10);
            workers.cancel(tenth);
            let taken = announced.iter().map(|(due, job)| workers.take(*due, job));
            taken.map(|made| made.map(|made| made.update)).collect()
        })
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let alone = results(1);
        assert_eq!(alone.len(), 39);
        assert!(alone.iter().all(Result::is_ok));
        for threads in 2..5 {
            assert_eq!(results(threads), alone);
        }
    }

    #[test]
    fn helpers_and_engine_add_up_every_update_once() {
        let plan = plan();
        let grid = plan.plan().grid().unwrap();
        let sum = |threads| {
            Workers::with(&Fake::default(), threads, AHEAD_COORDINATES, |workers| {
                let mut network = Network::new();
                let job = |client| Job {
                    client: ClientId(client),
                    plan: plan.clone(),
                    base: Arc::new(vec![0.0; 650]),
                    weight: 1.0,
                };
                let due: Vec<_> = (0..20).map(|_| network.send(skep_protocol::Time::ZERO, ())).collect();
                due.iter().zip(0..).for_each(|(&due, client)| workers.announce(due, job(client)));
                let (mut own, mut helped) = (Accumulator::new(grid), 0);
                for (&due, client) in due.iter().zip(0..) {
                    match workers.add(workers.take(due, &job(client)).unwrap()) {
                        Some(update) => own.add(&update).unwrap(),
                        None => helped += 1,
                    }
                }
                for sum in workers.sums().unwrap() {
                    own.merge(sum).unwrap();
                }
                assert!(workers.sums().unwrap().is_empty(), "they begin anew");
                assert!(threads > 1 || helped == 0);
                own.members()
            })
        };
        // What the sums are is the same model on any number of threads.
        assert_eq!([1, 2, 3].map(sum), [20; 3]);
    }

    struct Counted {
        begun: AtomicUsize,
        most: AtomicUsize,
    }

    impl Trainer for Counted {
        fn examples(&self, _: ClientId) -> u64 {
            1
        }

        fn train(&self, job: &Job) -> Result<Contribution, Decline> {
            self.most.fetch_max(self.begun.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            assert_ne!(job.client, ClientId(99), "this client's training panics");
            Err(Decline::TrainingFailed)
        }
    }

    #[test]
    fn helpers_work_ahead_only_so_far() {
        let trainer = Counted { begun: AtomicUsize::new(0), most: AtomicUsize::new(0) };
        let plan = plan();
        Workers::with(&trainer, 3, AHEAD_COORDINATES, |workers| {
            let mut network = Network::new();
            let job = Job { client: ClientId(0), plan, base: Arc::default(), weight: 1.0 };
            let due: Vec<_> = (0..100).map(|_| network.send(skep_protocol::Time::ZERO, ())).collect();
            due.iter().for_each(|&due| workers.announce(due, job.clone()));
            // Wait until the helpers have run into the limit.
            while trainer.begun.load(Ordering::SeqCst) < workers.ahead {
                thread::yield_now();
            }
            for &due in &due {
                assert_eq!(workers.take(due, &job).unwrap_err(), Decline::TrainingFailed);
                trainer.begun.fetch_sub(1, Ordering::SeqCst);
            }
        });
        // The engine has one more in hand.
        let ahead = 3 * AHEAD_PER_THREAD;
        assert!((ahead..=ahead + 1).contains(&trainer.most.into_inner()));
    }

    #[test]
    fn a_panic_in_training_reaches_the_engine_and_nobody_waits() {
        for threads in [1, 3] {
            let trainer = Counted { begun: AtomicUsize::new(0), most: AtomicUsize::new(0) };
            let engine = || {
                Workers::with(&trainer, threads, AHEAD_COORDINATES, |workers| {
                    let due = Network::new().send(skep_protocol::Time::ZERO, ());
                    let job = Job { client: ClientId(99), plan: plan(), base: Arc::default(), weight: 1.0 };
                    workers.announce(due, job.clone());
                    workers.take(due, &job).map(|made| made.update)
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(engine)).is_err());
        }
    }
}
