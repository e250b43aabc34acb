//! When to try again: pauses that double, until a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause. A leader election or a restart takes longer, a lost race does not.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pauses of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    /// Pauses that end at `deadline`.
    pub(crate) const fn until(deadline: Instant) -> Self {
        Self { deadline, pause: PAUSE_FIRST }
    }

    /// Waits before the next attempt. False, at once, if it would begin after the deadline.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause > self.deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
