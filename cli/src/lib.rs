//! The command `skep`.

pub mod experiment_file;
