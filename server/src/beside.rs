//! Two things at once, without the results knowing it.

use std::panic::resume_unwind;
use std::thread::{self, Builder};

/// What both give: `beside` on a thread of its own, if the system has one, and `here` on this one.
///
/// # Panics
/// With the panic of either.
pub(crate) fn both<A: Send, B>(beside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let started = Builder::new().spawn_scoped(scope, &beside);
        let b = here();
        let a = match started {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => beside(),
        };
        (a, b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_a_panic_of_either_is_not_lost() {
        assert_eq!(both(|| 1, || "two"), (1, "two"));
        assert!(std::panic::catch_unwind(|| both(|| assert_eq!(1, 2), || ())).is_err());
        assert!(std::panic::catch_unwind(|| both(|| (), || assert_eq!(1, 2))).is_err());
    }
}
