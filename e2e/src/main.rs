//! The program behind `cargo e2e`: it only starts the command line of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_e2e::cli::main()
}
