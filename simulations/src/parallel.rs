//! The same work on many things at once, without the results knowing it.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

/// What `work` makes of each item, in their order, on so many threads.
///
/// # Panics
/// With the panic of the work, whichever thread it was on.
pub(crate) fn map<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let items = Mutex::new(items.into_iter().enumerate());
    let next = || items.lock().expect("nothing panics while it holds the lock").next();
    let work = || {
        let mut results = Vec::new();
        while let Some((place, item)) = next() {
            results.push((place, work(item)));
        }
        results
    };
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for threads in [0, 1, 2, 3, 200] {
            let squares = map(threads, (0..100_u64).collect(), |n| n * n);
            assert!(squares.iter().copied().eq((0..100).map(|n| n * n)), "{threads} threads");
        }
        assert!(map(4, Vec::<u64>::new(), |n| n).is_empty());
    }

    #[test]
    fn a_panic_of_the_work_is_not_lost() {
        let panicked = std::panic::catch_unwind(|| map(3, vec![1, 2, 3, 4], |n| assert_ne!(n, 3)));
        assert!(panicked.is_err());
    }
}
