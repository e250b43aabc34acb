//! A broker on data of its own, as most specs need one: stopped or killed, it starts again on the same data.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::broker::{Broker, Options};
use super::metrics;
use crate::faults::client::Connection;

/// A broker and its directory, which goes with it.
pub(crate) struct Served {
    pub(crate) broker: Broker,
    // Behind the broker: it is gone before its files are.
    directory: TempDir,
}

impl Served {
    /// Starts a broker with these flags.
    pub(crate) fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        let broker = Broker::start(Options::new(&directory.path().join("data")).flags(flags))?;
        Ok(Self { broker, directory })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.broker.address()
    }

    /// The directory that its data directory is in.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(self.address())?)
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<u64> {
        metrics::metric(self.address(), name)
    }

    /// Stops the broker and starts it again.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.broker.terminate()?;
        self.broker.restart()
    }

    /// kill -9, and starts it again.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.broker.kill()?;
        self.broker.restart()
    }

    /// Stops the broker and starts it again with other flags.
    pub(crate) fn restart_with(&mut self, flags: &[&str]) -> anyhow::Result<()> {
        self.broker.terminate()?;
        self.broker = Broker::start(Options::new(self.broker.data()).flags(flags))?;
        Ok(())
    }
}
