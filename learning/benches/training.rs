//! Cost of local training: `cargo bench -p skep-learning`.
//!
//! Prints microseconds a step for small models and the seconds that the clients of a whole
//! federation take on one and on two threads, with the allocator that the `skep` command uses. Medians of 5.

use std::time::Instant;

use skep_learning::{
    Activation, Alpha, Architecture, Batch, Learner, NativeLearner, Scheme, Subset, Training, Turn, digits,
    partition,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let softmax = Architecture::Softmax { inputs: digits::PIXELS, classes: digits::CLASSES };
    let mlp = Architecture::Mlp {
        inputs: digits::PIXELS,
        hidden: vec![64],
        classes: digits::CLASSES,
        activation: Activation::Relu,
    };
    let split = digits::load();
    let fourteen = Subset::new(split.train.dataset().clone(), (0..14).collect());
    let fourteen = fourteen.expect("the digits have more than 14 rows");
    for (name, architecture) in [("softmax 64-10", &softmax), ("mlp 64-64-10", &mlp)] {
        println!("{name}, 14 rows: {:.1} us a step", step(architecture, &fourteen) * 1e6);
    }
    for threads in [1, 2] {
        let seconds = federation(&softmax, threads);
        println!("softmax 64-10, 100 clients, 5 epochs, 60 rounds, {threads} threads: {seconds:.2} s");
    }
    let zeros = vec![0.0; softmax.parameter_count()];
    let mut learner = NativeLearner::new(softmax).expect("64-10 is a valid shape");
    let evaluation = median(|| {
        learner.evaluate(&zeros, &split.test).expect("the digits fit");
    });
    println!("evaluation on 359 rows: {:.0} us", evaluation * 1e6);
}

/// Seconds of one step of full-batch training.
fn step(architecture: &Architecture, data: &Subset) -> f64 {
    let steps = 2000;
    let training = Training::new(0.1, steps, Batch::Full).expect("valid");
    let mut learner = NativeLearner::new(architecture.clone()).expect("valid");
    let initial = architecture.initial_parameters([1; 32]).expect("valid");
    let seconds = median(|| {
        learner.train(&initial, data, &training, Turn::new([0; 32])).expect("the digits fit");
    });
    seconds / f64::from(steps)
}

/// Seconds that all clients train in 60 rounds, every thread with a learner of its own.
fn federation(architecture: &Architecture, threads: usize) -> f64 {
    let alpha = Alpha::new(0.3).expect("valid");
    let train = digits::load().train;
    let partition = partition(&train, 100, Scheme::Dirichlet { alpha }, [1; 32]).expect("valid");
    let training = Training::new(2.0, 5, Batch::Full).expect("valid");
    let initial = architecture.initial_parameters([1; 32]).expect("valid");
    let train_share = |thread: usize| {
        let mut learner = NativeLearner::new(architecture.clone()).expect("valid");
        for _ in 0..60 {
            for client in partition.clients.iter().skip(thread).step_by(threads) {
                learner.train(&initial, client, &training, Turn::new([0; 32])).expect("the digits fit");
            }
        }
    };
    median(|| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let train_share = &train_share;
                scope.spawn(move || train_share(thread));
            }
        });
    })
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut seconds = [0.0; 5];
    for second in &mut seconds {
        let start = Instant::now();
        work();
        *second = start.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    seconds[2]
}
