//! Telling everyone that the broker stops.

use tokio::sync::watch;

/// The side that says stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Sender<bool>);

/// The side that listens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Shutdown {
    /// Nothing is stopping yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Says stop, once and for all.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// A listener.
    pub(crate) fn listen(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }
}

impl Stopping {
    /// Whether the broker stops already.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when the broker stops.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the broker is gone already, which is a stop as well.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}
