//! The command `skep`.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use skep_cli::{Own, main_with};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    main_with(Own::new())
}
