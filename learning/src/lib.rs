//! What a federation learns: models and their local training, data sets, partitions over
//! clients, metrics and model files.
//!
//! Parameters cross the edge of this crate as flat `&[f32]` in the layout that
//! [`Architecture::segments`] documents; no tensor type does. The crate knows no client, round,
//! privacy mechanism or socket, reads no clock and no generator of the system: every random choice
//! is derived from a 32-byte key that the caller passes in.

mod architecture;
mod augment;
mod burn_learner;
mod classes;
pub mod csv;
mod dataset;
mod descent;
pub mod digits;
mod errors;
mod floor;
pub mod idx;
pub mod images;
mod initialization;
pub mod inspect;
mod interface;
mod kernel;
mod layer;
mod learner;
mod metrics;
mod model_file;
mod native;
pub mod ngram;
pub mod npy;
pub mod onnx;
mod optimizer;
pub mod own;
pub mod parquet;
mod partition;
mod pixels;
mod predictor;
pub mod pretrained;
mod residual;
pub mod scrub;
pub mod seal;
mod skew;
mod source;
mod split;
mod standardization;
pub mod table;
mod target;
pub mod text;
pub mod torch;
mod training;
mod tuned_learner;
pub mod tuning;
mod unlabelled;
pub mod workload;

pub use architecture::{
    Activation, Architecture, ArchitectureError, LayerSummary, MAX_CLASSES, MAX_HIDDEN_LAYERS,
    MAX_PARAMETERS, Segment,
};
pub use augment::Augmentation;
pub use burn_learner::{BurnLearner, BurnModel};
pub use classes::Classes;
pub use dataset::{Dataset, DatasetError, Owners, Subset};
pub use errors::Errors;
pub use floor::exercise;
pub use initialization::InitialWeights;
pub use interface::{ExampleError, Input, Interface, InterfaceError};
pub use layer::{Block, Layer, LayerFault, MAX_WIDTH, NormPlace, Shape};
pub use learner::{ExamplePrivacy, LearnError, Learner, TrainReport, Turn};
pub use metrics::{
    Average, BINS, Bin, Calibration, ClassScores, Classification, Confusion, Evaluation, MAX_RANKED, Scored,
    Scores,
};
pub use model_file::{ModelFile, ModelFileError, TensorFault, canonical_bytes};
pub use native::NativeLearner;
pub use optimizer::{Optimizer, OptimizerError};
pub use partition::{Alpha, Partition, PartitionError, Scheme, partition};
pub use pixels::{Scaling, ScalingError};
pub use predictor::{PredictError, Prediction, Predictor};
pub use skew::{LabelSkew, Spread};
pub use source::open as open_data;
pub use split::Split;
pub use standardization::{Standardization, StandardizationError, StandardizationFault};
pub use target::{Loss, Target, TargetFault};
pub use training::{Batch, Training, TrainingError};
pub use tuned_learner::TunedLearner;
pub use tuning::{Coordinates, Lora, Tuning, TuningError};
pub use unlabelled::{Unlabelled, UnlabelledError};
