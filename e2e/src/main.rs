//! The program behind `cargo e2e`: it only starts the command line of the library.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    sluice_e2e::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!(
        "error: cargo e2e runs on Linux: use a machine or virtual machine with it, there for a cluster of yours too \
         (--context NAME --registry REGISTRY). To install Sluice on a cluster from here, see docs/install.md."
    );
    ExitCode::FAILURE
}
