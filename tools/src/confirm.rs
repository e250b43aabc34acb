//! Asking before something is changed that cannot be changed back.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Asks on a terminal whether to `act`. Without one nobody can answer, so `--yes` has to. `spared` says what did not
/// happen if the answer is no.
pub(crate) fn confirm(act: &str, spared: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{spared}: stdin is no terminal to ask on, say --yes")));
    }
    let mut err = io::stderr().lock();
    // A terminal that takes no question gives no answer either.
    let _ = write!(err, "{act}? [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed(spared))
}

/// The same about rows. What could not be `shown` is not asked about.
pub(crate) fn confirm_shown(shown: &io::Result<()>, act: &str, spared: &str) -> Result<(), Failure> {
    match shown {
        Ok(()) => confirm(act, spared),
        Err(error) => Err(Failure::failed(format!("{spared}: {error}"))),
    }
}
