//! Micro-batching: what is asked while the model is busy is answered together, and nothing ever waits for a batch to fill.
//!
//! There is at most one question for each connection, so the queue needs no limit of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use skep_learning::{LearnError, PredictError, Prediction, Predictor};
use tokio::sync::oneshot;

use super::metrics::Metrics;

/// What the model says of the rows of a question.
pub(super) type Answer = Result<Vec<Prediction>, PredictError>;

/// Rows that are answered together; a question with more is answered by itself.
const ROWS_AT_ONCE: usize = 64;

/// Threads that answer questions. They end when this is dropped, after the questions that are there.
pub(super) struct Batcher {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    questions: VecDeque<Question>,
    closed: bool,
}

struct Question {
    numbers: Vec<f32>,
    rows: usize,
    answer: oneshot::Sender<Answer>,
}

impl Batcher {
    /// Starts `threads` threads that share the parameters of `predictor`.
    ///
    /// # Errors
    /// [`std::io::Error`] when the system gives no thread.
    pub(super) fn start(
        predictor: &Predictor,
        threads: usize,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, std::io::Error> {
        let queue = Arc::new(Queue { state: Mutex::default(), asked: Condvar::new() });
        let mut batcher = Batcher { queue, threads: Vec::new() };
        for number in 0..threads {
            let predictor = predictor.share().map_err(|error: LearnError| std::io::Error::other(error))?;
            let (queue, metrics) = (batcher.queue.clone(), metrics.clone());
            let answering = thread::Builder::new()
                .name(format!("model-{number}"))
                .spawn(move || answer_all(&queue, predictor, &metrics))?;
            batcher.threads.push(answering);
        }
        Ok(batcher)
    }

    /// What the model says of `rows` rows of numbers; an error when it has stopped.
    pub(super) async fn ask(
        &self,
        numbers: Vec<f32>,
        rows: usize,
    ) -> Result<Answer, oneshot::error::RecvError> {
        let (answer, answered) = oneshot::channel();
        self.queue.lock().questions.push_back(Question { numbers, rows, answer });
        self.queue.asked.notify_one();
        answered.await
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.asked.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so, and its question has failed.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for questions, and takes those that are answered together; `None` at the end.
    fn take(&self) -> Option<Vec<Question>> {
        let mut state = self.lock();
        loop {
            if let Some(first) = state.questions.pop_front() {
                let mut rows = first.rows;
                let mut batch = vec![first];
                while let Some(next) = state.questions.pop_front_if(|next| rows + next.rows <= ROWS_AT_ONCE) {
                    rows += next.rows;
                    batch.push(next);
                }
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn answer_all(queue: &Queue, mut predictor: Predictor, metrics: &Metrics) {
    while let Some(mut batch) = queue.take() {
        // Whoever has hung up gets no answer.
        batch.retain(|question| !question.answer.is_closed());
        let rows = batch.iter().map(|question| question.rows).sum();
        if rows > 0 {
            metrics.answered(rows);
            answer(&mut predictor, batch);
        }
    }
}

fn answer(predictor: &mut Predictor, batch: Vec<Question>) {
    let together = batch.iter().flat_map(|question| &question.numbers).copied().collect();
    match predictor.predict(together) {
        Ok(predictions) => {
            let mut predictions = predictions.into_iter();
            for question in batch {
                let own = predictions.by_ref().take(question.rows).collect();
                let _ = question.answer.send(Ok(own));
            }
        }
        // An error belongs to one question, and the others are not to notice.
        Err(_) => {
            for Question { numbers, answer, .. } in batch {
                let _ = answer.send(predictor.predict(numbers));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_learning::{Architecture, ModelFile};

    use super::*;

    fn predictor() -> Predictor {
        let parameters = vec![10.0, -0.2, 30.0, 0.4, 0.0, 0.1];
        let model =
            ModelFile::new(Architecture::Softmax { inputs: 2, classes: 2 }, parameters, BTreeMap::new());
        Predictor::new(model.unwrap()).unwrap()
    }

    #[test]
    fn a_question_that_fails_leaves_the_others_of_its_batch_alone() {
        let ask = |numbers: Vec<f32>| {
            let (answer, answered) = oneshot::channel();
            (Question { rows: numbers.len() / 2, numbers, answer }, answered)
        };
        let (one, mut first) = ask(vec![1.0, 2.0]);
        let (two, mut second) = ask(vec![3e38, 3e38, 1.0, 1.0]);
        let (three, mut third) = ask(vec![1.0, 2.0, 5.0, 6.0]);
        answer(&mut predictor(), vec![one, two, three]);
        let first = first.try_recv().unwrap().unwrap();
        assert!(matches!(second.try_recv().unwrap(), Err(PredictError::NotFinite { row: 0 })));
        let third = third.try_recv().unwrap().unwrap();
        assert_eq!((first.len(), third.len()), (1, 2));
        assert_eq!(first[0], third[0]);
    }

    #[test]
    fn what_is_there_is_taken_together_up_to_the_limit() {
        let queue = Queue { state: Mutex::default(), asked: Condvar::new() };
        for rows in [40, 20, 10, 100, 1] {
            let (answer, _) = oneshot::channel();
            queue.lock().questions.push_back(Question { numbers: vec![], rows, answer });
        }
        queue.lock().closed = true;
        let mut taken = Vec::new();
        while let Some(batch) = queue.take() {
            taken.push(batch.iter().map(|question| question.rows).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![40, 20], vec![10], vec![100], vec![1]]);
    }

    #[tokio::test]
    async fn everybody_gets_an_answer_of_their_own() {
        let metrics = Arc::new(Metrics::default());
        let batcher = Arc::new(Batcher::start(&predictor(), 2, &metrics).unwrap());
        let asked: Vec<_> = (0..100)
            .map(|at| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.ask(vec![at as f32, 1.0], 1).await.unwrap().unwrap() })
            })
            .collect();
        for (at, answered) in asked.into_iter().enumerate() {
            assert_eq!(answered.await.unwrap(), predictor().predict(vec![at as f32, 1.0]).unwrap());
        }
    }
}
