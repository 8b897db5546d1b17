//! What a client is asked to do, in words for its owner, before it does it.

use std::fmt;

use skep_privacy::quantities::{Delta, Epsilon};
use skep_protocol::Round;
use skep_protocol::experiment::{ExamplePrivacy, Task};
use skep_protocol::plan::{Plan, Promise, Released};

/// What a signed plan asks of a client, and promises it.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The task's name.
    pub task: String,
    /// Parameters of its model.
    pub parameters: u64,
    /// The round, or the query after one.
    pub round: Round,
    /// Rounds in the schedule.
    pub rounds: u64,
    /// What is promised.
    pub promise: Promise,
    /// How the client hides its single examples by itself, where it does.
    pub examples: Option<ExamplePrivacy>,
    /// Bytes of the model that comes.
    pub bytes_down: u64,
    /// Bytes of the update that goes.
    pub bytes_up: u64,
}

impl Terms {
    /// The terms of `plan` for `task`.
    pub fn of(plan: &Plan, task: &Task) -> Self {
        let parameters = task.parameter_count().unwrap_or(0);
        Terms {
            task: task.name.clone(),
            parameters,
            round: plan.round,
            rounds: plan.rounds,
            promise: plan.promise,
            examples: task.training.example_privacy,
            bytes_down: parameters.saturating_mul(4),
            bytes_up: plan.upload_bytes(),
        }
    }

    /// Bytes of the whole round.
    pub fn bytes(&self) -> u64 {
        self.bytes_down.saturating_add(self.bytes_up)
    }

    /// The name of the trust mode, as in an experiment file.
    pub fn mode(&self) -> &'static str {
        match self.promise {
            Promise::None if self.examples.is_some() => "local, for single examples",
            Promise::None => "none",
            Promise::Central { .. } => "central",
            Promise::Distributed { .. } => "distributed",
            Promise::Local { .. } => "local",
        }
    }

    /// What recipients of the models can learn, this round included.
    pub fn against_recipients(&self) -> String {
        match (self.promise.claim(), &self.examples) {
            (None, Some(own)) => of_examples(own),
            (None, None) => "no epsilon: privacy is off".to_owned(),
            (Some(claim), _) => {
                let released = self.promise.masking().map_or(Released::Total, |masking| masking.released);
                let by = match released {
                    Released::Total => "",
                    Released::EachGroup => "; the model is made of the sum of each group, not of their total",
                };
                after_this_round(claim.epsilon_release, claim.delta) + by
            }
        }
    }

    /// What the server can learn, this round included.
    pub fn against_server(&self) -> String {
        let sees = match self.promise {
            Promise::None => "it sees your update",
            Promise::Central { masking: None, .. } => {
                "it sees your clipped update, and adds the noise itself"
            }
            Promise::Central { masking: Some(_), .. } => "it sees the sum, and adds the noise itself",
            Promise::Distributed { .. } => "it sees the noised sum",
            Promise::Local { .. } => "it sees your noised update",
        };
        match self.promise.claim().filter(|claim| claim.epsilon_server.is_finite()) {
            None if self.examples.is_some() => format!("{}; {sees}", self.against_recipients()),
            None => format!("no epsilon: {sees}"),
            Some(claim) => format!("{}; {sees}", after_this_round(claim.epsilon_server, claim.delta)),
        }
    }

    /// Whether these are the terms of another round of the same: only the round and what was spent so far differ.
    pub fn are_as(&self, earlier: &Terms) -> bool {
        let without_spending = |terms: &Terms| {
            let mut promise = terms.promise;
            if let Promise::Central { claim, .. }
            | Promise::Distributed { claim, .. }
            | Promise::Local { claim, .. } = &mut promise
            {
                claim.epsilon_release = Epsilon::ZERO;
                claim.epsilon_alone = Epsilon::ZERO;
                // Whether there is one is no matter of spending.
                if claim.epsilon_server.is_finite() {
                    claim.epsilon_server = Epsilon::ZERO;
                }
            }
            let kind = if terms.round.is_query() { Round(0).query() } else { Round(0) };
            Terms { round: kind, promise, ..terms.clone() }
        };
        without_spending(self) == without_spending(earlier)
    }
}

/// What holds against everybody else.
fn of_examples(own: &ExamplePrivacy) -> String {
    format!(
        "each of your examples at most epsilon {} at delta {} over all rounds, by your own noise; nothing of you as a whole",
        own.epsilon_limit, own.delta
    )
}

fn after_this_round(epsilon: Epsilon, delta: Delta) -> String {
    format!("epsilon {:.4} at delta {delta} after this round", epsilon.get())
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { task, parameters, round, rounds, bytes_down, bytes_up, .. } = self;
        let asked = if round.is_query() { "to say how good the model is of" } else { "to train" };
        writeln!(f, "asked {asked} \"{task}\", {parameters} parameters, {round} of {rounds}")?;
        writeln!(f, "  trust mode             {}", self.mode())?;
        writeln!(f, "  recipients of models   {}", self.against_recipients())?;
        writeln!(f, "  the server             {}", self.against_server())?;
        write!(f, "  bytes a round          {bytes_down} down, {bytes_up} up")
    }
}

#[cfg(test)]
mod tests {
    use skep_privacy::grid::{Grid, PublicGrid};
    use skep_privacy::prg::PrgId;
    use skep_privacy::quantities::Sampling;
    use skep_protocol::experiment::{Batch, Model, Training, Weighting};
    use skep_protocol::plan::{Closure, Cohort, Segment};
    use skep_protocol::{Digest, Span};

    use super::*;

    #[test]
    fn an_owner_whose_client_hides_single_examples_is_told_what_holds_for_them_and_that_nothing_else_does() {
        let own = ExamplePrivacy {
            clip_norm: 1.0,
            noise_multiplier: 2.0,
            delta: 1e-5,
            epsilon_limit: 3.0,
            rounds: 20,
        };
        let training = Training { example_privacy: Some(own), ..Training::plain(0.1, 1, Batch::Full) };
        let task = Task {
            name: "silos".into(),
            seed: 1,
            inputs: 4,
            classes: 2,
            model: Model::Softmax,
            training,
            tuning: None,
            encoding: None,
            asked: None,
        };
        let plan = Plan {
            task: task.digest(),
            round: Round(1),
            rounds: 20,
            base_model: Digest::of(b"model"),
            segments: vec![Segment { name: "output".into(), len: 10 }],
            encoding: Grid::from(PublicGrid::new(10, 4).unwrap()).encoding(),
            promise: Promise::None,
            sampling: Sampling::All,
            population: 4,
            cohort_max: 4,
            cohort: Cohort::default(),
            weighting: Weighting::Uniform,
            prg: PrgId::ChaCha20,
            closure: Closure::AllAnswered,
            min_updates: 1,
            deadline: Span::from_millis(1000),
        };
        let told = Terms::of(&plan, &task).to_string();
        let each = "each of your examples at most epsilon 3 at delta 0.00001 over all rounds, by your own noise; nothing of you as a whole";
        assert_eq!(told.matches(each).count(), 2, "{told}");
        assert!(
            told.contains("local, for single examples") && told.contains("it sees your update"),
            "{told}"
        );
        let open = Training { example_privacy: None, ..task.training };
        let told = Terms::of(&plan, &Task { training: open, ..task }).to_string();
        assert!(told.contains("no epsilon: privacy is off") && !told.contains("examples"), "{told}");
    }
}
