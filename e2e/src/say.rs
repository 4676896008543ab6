//! What the program says on its standard output. A reader that has seen enough, such as `head`, ends
//! it quietly, as it ends other programs: it must never panic on a closed pipe.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::{ExitStatus, exit};

/// SIGPIPE, and the exit code by which a shell tells it.
const SIGPIPE: i32 = 13;

/// Prints one line, as `println!` does.
macro_rules! say {
    ($($what:tt)*) => { $crate::say::line(format_args!($($what)*)) };
}
pub(crate) use say;

/// Prints one line, whole.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => over(),
        Err(error) => {
            eprintln!("error: writing to the standard output: {error}");
            exit(1);
        }
    }
}

/// Ends the program if what it ran found nobody reading.
pub(crate) fn heard(status: ExitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    if status.signal() == Some(SIGPIPE) {
        over();
    }
    status
}

fn over() -> ! {
    exit(128 + SIGPIPE)
}
