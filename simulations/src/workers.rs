//! Training on several threads, without the results knowing it.
//!
//! The engine asks for updates in the order of virtual time. Helpers work ahead on those that are due next, of a few the largest
//! first, so that no round ends with one of them alone at work; what no helper has begun, the engine computes itself. So a
//! machine with one thread has no helper, nobody waits for a helper that is busy with something else, and an update is the same
//! whoever computed it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

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
    /// Updates that are added up together.
    together: usize,
    state: Mutex<State>,
    /// Helpers wait for it.
    work: Condvar,
    /// The engine waits for it.
    made: Condvar,
    /// Changes whenever helpers may have something to do.
    news: AtomicU64,
    /// Whether the processors are needed by others than helpers.
    away: AtomicBool,
    /// Of the engine, then by helper.
    sums: Vec<PartialSum>,
}

#[derive(Default)]
struct State {
    /// With the examples of their clients.
    waiting: BTreeMap<Due, (u64, Job)>,
    running: BTreeSet<Due>,
    finished: BTreeMap<Due, thread::Result<Result<Made, Decline>>>,
    /// Helpers that sleep until somebody wakes them.
    asleep: usize,
    engine_waits: bool,
    over: bool,
}

/// An update, and whose sum it belongs to: the thread's that has computed it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) update: Contribution,
    thread: usize,
}

impl From<Contribution> for Made {
    fn from(update: Contribution) -> Self {
        Made { update, thread: ENGINE }
    }
}

/// What a thread has added up of its own updates, whose numbers are in its cache and in no other, and what it is yet to add.
///
/// Whoever holds both locks took that of the sum first, and nobody holds the other for long.
struct PartialSum {
    sum: Mutex<Result<Option<Accumulator>, SumError>>,
    waiting: Mutex<Vec<Contribution>>,
}

impl Default for PartialSum {
    fn default() -> Self {
        Self { sum: Mutex::new(Ok(None)), waiting: Mutex::default() }
    }
}

impl PartialSum {
    /// Has an update added; how many are waiting for that.
    fn push(&self, update: Contribution) -> usize {
        let mut waiting = self.waiting.lock().expect(UNPOISONED);
        waiting.push(update);
        waiting.len()
    }

    /// Adds what is waiting if there are so many; the sum.
    fn add_waiting(&self, least: usize) -> MutexGuard<'_, Result<Option<Accumulator>, SumError>> {
        let mut sum = self.sum.lock().expect(UNPOISONED);
        let waiting = {
            let mut waiting = self.waiting.lock().expect(UNPOISONED);
            if waiting.len() >= least { std::mem::take(&mut *waiting) } else { Vec::new() }
        };
        if let (Ok(so_far), Some(first)) = (&mut *sum, waiting.first()) {
            let so_far = so_far.get_or_insert_with(|| Accumulator::new(*first.grid()));
            if let Err(error) = so_far.add_all(&waiting) {
                *sum = Err(error);
            }
        }
        sum
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
            together: if dimension <= TOGETHER_COORDINATES { TOGETHER } else { 1 },
            state: Mutex::default(),
            work: Condvar::new(),
            made: Condvar::new(),
            news: AtomicU64::new(0),
            away: AtomicBool::new(false),
            sums: (0..threads.max(1)).map(|_| PartialSum::default()).collect(),
        };
        thread::scope(|scope| {
            for helper in 1..workers.sums.len() {
                let workers = &workers;
                scope.spawn(move || workers.help(helper));
            }
            let _release_helpers = Dismissal(&workers);
            engine(&workers)
        })
    }

    /// Announces updates that will be taken, each at its time if all goes well.
    pub(crate) fn announce(&self, jobs: impl IntoIterator<Item = (Due, Job)>) {
        let examples = |job: &Job| self.trainer.examples(job.client);
        let mut state = self.lock();
        state.waiting.extend(jobs.into_iter().map(|(due, job)| (due, (examples(&job), job))));
        self.wake(state);
    }

    /// Sends helpers that have nothing to do to sleep at once, until there is more: others need their processors.
    pub(crate) fn make_way(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// Takes an announcement back.
    pub(crate) fn cancel(&self, due: Due) {
        let mut state = self.lock();
        state.waiting.remove(&due);
        state.running.remove(&due);
        state.finished.remove(&due);
        self.wake(state);
    }

    /// The update that was announced for `due`; computes it unless a helper has begun to.
    ///
    /// # Panics
    /// With the panic of the training, whichever thread it ran on.
    pub(crate) fn take(&self, due: Due, job: &Job) -> Result<Made, Decline> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.finished.remove(&due) {
                self.wake(state);
                return result.unwrap_or_else(|panic| resume_unwind(panic));
            }
            if !state.running.contains(&due) {
                state.waiting.remove(&due);
                drop(state);
                return self.trainer.train(job).map(Made::from);
            }
            state = match state.next(self.ahead) {
                Some((other, job)) => self.run(state, other, &job, ENGINE),
                None => {
                    state.engine_waits = true;
                    self.made.wait(state).expect(UNPOISONED)
                }
            };
        }
    }

    /// Has an update added to the sum of the thread that has computed it.
    pub(crate) fn add(&self, made: Made) {
        let sum = &self.sums[made.thread];
        let waiting = sum.push(made.update);
        if made.thread == ENGINE {
            drop(sum.add_waiting(self.together));
        } else if waiting == self.together {
            // A helper that looks around for work adds them.
            self.news.fetch_add(1, Ordering::Release);
        }
    }

    /// The sums of all threads, which begin anew.
    ///
    /// # Errors
    /// [`SumError`] of an update that was to be added.
    pub(crate) fn sums(&self) -> Result<Vec<Accumulator>, SumError> {
        let take = |partial: &PartialSum| std::mem::replace(&mut *partial.add_waiting(1), Ok(None));
        self.sums.iter().filter_map(|partial| take(partial).transpose()).collect()
    }

    /// Works ahead of the engine until it is done.
    fn help(&self, helper: usize) {
        let mut state = self.lock();
        while !state.over {
            state = match state.next(self.ahead) {
                Some((due, job)) => self.run(state, due, &job, helper),
                None => self.rest(state, helper),
            };
        }
    }

    /// Looks around for work for a while, then sleeps until there is some: to wake somebody up takes as long as a small job.
    fn rest<'s>(&'s self, state: MutexGuard<'s, State>, helper: usize) -> MutexGuard<'s, State> {
        let seen = self.news.load(Ordering::Acquire);
        drop(state);
        drop(self.sums[helper].add_waiting(self.together));
        let began = Instant::now();
        while began.elapsed() < LOOKING_AROUND && !self.away.load(Ordering::Relaxed) {
            for _ in 0..LOOKS {
                if self.news.load(Ordering::Acquire) != seen {
                    return self.lock();
                }
                std::hint::spin_loop();
            }
        }
        let mut state = self.lock();
        if self.news.load(Ordering::Acquire) != seen {
            return state;
        }
        state.asleep += 1;
        let mut state = self.work.wait(state).expect(UNPOISONED);
        state.asleep -= 1;
        state
    }

    /// Lets helpers know if there is work, and wakes no more of them than there is work for.
    fn wake(&self, state: MutexGuard<'_, State>) {
        let room = self.ahead.saturating_sub(state.running.len() + state.finished.len());
        let (wanted, asleep) = (room.min(state.waiting.len()), state.asleep);
        if wanted > 0 {
            self.away.store(false, Ordering::Relaxed);
            self.news.fetch_add(1, Ordering::Release);
        }
        drop(state);
        (0..wanted.min(asleep)).for_each(|_| self.work.notify_one());
    }

    fn run<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        due: Due,
        job: &Job,
        thread: usize,
    ) -> MutexGuard<'s, State> {
        drop(state);
        drop(self.sums[thread].add_waiting(self.together));
        let train = || self.trainer.train(job).map(|update| Made { update, thread });
        let result = catch_unwind(AssertUnwindSafe(train));
        let mut state = self.lock();
        if state.running.remove(&due) {
            state.finished.insert(due, result);
        }
        if std::mem::take(&mut state.engine_waits) {
            self.made.notify_one();
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
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
        self.0.news.fetch_add(1, Ordering::Release);
        self.0.work.notify_all();
    }
}

/// Jobs of which the largest is begun first: as many as a large cohort has, few enough to look through them for each.
const CHOICE: usize = 64;
/// The thread that passes messages on, among those that add up.
const ENGINE: usize = 0;
const UNPOISONED: &str = "no thread panics while it holds the lock";
/// Enough that a helper need not wait for the engine between two jobs, few enough to bound the memory.
const AHEAD_PER_THREAD: usize = 4;
/// And more of small ones, 8 MiB in all: while the engine passes messages on, a helper computes many of them.
const AHEAD_COORDINATES: usize = 1 << 21;
/// Updates that are added up together, and how long one may be for so many to stay in the second cache.
const TOGETHER: usize = 4;
const TOGETHER_COORDINATES: usize = 1 << 16;
/// As long as the server's part of a round of some milliseconds, in which a helper had better stay awake.
const LOOKING_AROUND: Duration = Duration::from_micros(700);
/// Looks between two at the clock.
const LOOKS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

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
                workers.announce([(due, job.clone())]);
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
                workers.announce(due.iter().zip(0..).map(|(&due, client)| (due, job(client))));
                for (&due, client) in due.iter().zip(0..) {
                    workers.add(workers.take(due, &job(client)).unwrap());
                }
                let mut sum = Accumulator::new(grid);
                for part in workers.sums().unwrap() {
                    sum.merge(part).unwrap();
                }
                assert!(workers.sums().unwrap().is_empty(), "they begin anew");
                sum.members()
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
            workers.announce(due.iter().map(|&due| (due, job.clone())));
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
                    workers.announce([(due, job.clone())]);
                    workers.take(due, &job).map(|made| made.update)
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(engine)).is_err());
        }
    }
}
