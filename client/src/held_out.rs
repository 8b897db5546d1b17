//! Examples of a client that nobody trains on, and that it measures models with.

use skep_learning::Subset;
use skep_privacy::prg::{Key, Prg, Purpose};
use skep_protocol::ClientId;
use skep_protocol::experiment::Task;

/// Which of a client's examples are held out, a function of the public seed and the client.
#[derive(Clone, Debug)]
pub struct HoldOut {
    part: f64,
    key: Key,
}

impl HoldOut {
    /// This part of every client's examples, between 0 and 1, where the public seed is `seed`.
    pub fn new(part: f64, seed: u64) -> Self {
        HoldOut { part, key: Key::from_seed(seed) }
    }

    /// As the task says, if it does.
    pub fn of(task: &Task) -> Option<Self> {
        task.asked.map(|asked| Self::new(asked.hold_out, task.seed))
    }

    /// How many of so many examples are held out: never all of them.
    pub fn count(&self, examples: usize) -> usize {
        ((self.part * examples as f64) as usize).min(examples.saturating_sub(1))
    }

    /// The examples to train on and those that are held out, each in the order they were in.
    pub fn divide(&self, client: ClientId, examples: &Subset) -> (Subset, Subset) {
        let mut prg = self.key.derive(Purpose::Data, 1, client.0).stream();
        // Of those that are left, each is as likely to be among those that are still wanted.
        let (mut left, mut wanted) = (examples.len(), self.count(examples.len()));
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for &row in examples.rows() {
            let chosen = uniform(&mut prg) * (left as f64) < wanted as f64;
            left -= 1;
            wanted -= usize::from(chosen);
            if chosen { &mut held_out } else { &mut train }.push(row);
        }
        let of = |rows| {
            Subset::new(examples.dataset().clone(), rows).expect("the rows of a subset are its data's")
        };
        (of(train), of(held_out))
    }
}

/// Uniform in [0, 1), with 53 bits.
pub fn uniform(prg: &mut Prg) -> f64 {
    (prg.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
