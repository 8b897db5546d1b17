//! The command `skep` with a network and a file format of one's own; docs/own-model.md walks through it.

mod network;
mod svmlight;

use std::process::ExitCode;

use burn::tensor::Device;
use mimalloc::MiMalloc;
use skep_cli::{Own, main_with};

use crate::network::Residual;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let own = Own::new().burn_model("residual", device(), Residual::new).format("svmlight", svmlight::read);
    main_with(own)
}

/// Where the network is computed: the one place to change for another of burn's devices.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(not(feature = "cuda"))]
    Device::flex()
}
