//! What is under way in virtual time, in the order in which it happens.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use skep_protocol::Time;

/// When something happens; ties in time are broken by which was sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    /// The time.
    pub(crate) at: Time,
    /// Its place among all that was ever sent.
    sequence: u64,
}

/// Everything that was sent and has not arrived.
///
/// The order of arrival depends on times and on the order of sending alone, never on threads or addresses.
#[derive(Debug)]
pub(crate) struct Network<E> {
    under_way: BinaryHeap<UnderWay<E>>,
    sent: u64,
}

#[derive(Debug)]
struct UnderWay<E> {
    due: Due,
    event: E,
}

impl<E> Network<E> {
    /// An idle network.
    pub(crate) fn new() -> Self {
        Network { under_way: BinaryHeap::new(), sent: 0 }
    }

    /// Sends something that arrives at `at`.
    pub(crate) fn send(&mut self, at: Time, event: E) -> Due {
        let due = self.reserve(at);
        self.under_way.push(UnderWay { due, event });
        due
    }

    /// A place at `at` in the order of arrivals, for something that does not travel.
    pub(crate) fn reserve(&mut self, at: Time) -> Due {
        let due = Due { at, sequence: self.sent };
        self.sent += 1;
        due
    }

    /// When the next thing arrives.
    pub(crate) fn next_arrival(&self) -> Option<Time> {
        self.under_way.peek().map(|next| next.due.at)
    }

    /// What is under way, in the order in which it arrives.
    pub(crate) fn in_order(&self) -> Vec<(Time, &E)> {
        let mut under_way: Vec<_> = self.under_way.iter().collect();
        under_way.sort_by_key(|next| next.due);
        under_way.into_iter().map(|next| (next.due.at, &next.event)).collect()
    }

    /// Forgets what is under way. Sequence numbers go on, so that no two things are ever due alike.
    pub(crate) fn clear(&mut self) {
        self.under_way.clear();
    }

    /// What arrives next.
    pub(crate) fn receive(&mut self) -> Option<(Due, E)> {
        self.under_way.pop().map(|next| (next.due, next.event))
    }
}

/// A heap yields its greatest element, which is the one due first.
impl<E> Ord for UnderWay<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl<E> PartialOrd for UnderWay<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for UnderWay<E> {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl<E> Eq for UnderWay<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_by_time_and_ties_in_the_order_of_sending() {
        let mut network = Network::new();
        for (at, name) in [(5, "late"), (2, "first of two"), (2, "second of two"), (0, "now")] {
            network.send(Time::from_millis(at), name);
        }
        assert_eq!(network.next_arrival(), Some(Time::ZERO));
        let arrived: Vec<_> = std::iter::from_fn(|| network.receive()).map(|(_, name)| name).collect();
        assert_eq!(arrived, ["now", "first of two", "second of two", "late"]);
        assert_eq!(network.next_arrival(), None);
    }
}
