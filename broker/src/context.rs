//! Who asks: what a handler knows about a request besides its body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::wire::Str;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::config::Endpoint;
use crate::quotas::{Allowance, Direction, Quotas};

/// Who asks, and in which version.
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    /// The address that the client reached.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) version: i16,
    pub(crate) client_id: Option<Str>,
    /// Size of the request's frame without the length prefix.
    pub(crate) request_bytes: usize,
}

impl Context<'_> {
    /// The address that this client is told to connect to.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let reached = || Endpoint { host: self.local.ip().to_string(), port: self.local.port() };
        self.broker.config().advertise.clone().unwrap_or_else(reached)
    }

    /// The quotas, if there are any: without them not even the clock is looked at.
    fn quotas(&self) -> Option<&Quotas> {
        Some(&self.broker.quotas).filter(|quotas| quotas.is_active())
    }

    fn client_id(&self) -> &str {
        self.client_id.as_ref().map_or("", Str::as_str)
    }

    /// Takes bytes from this client's quota; how long it has to wait if that was more than it had.
    pub(crate) fn charge(&self, direction: Direction, bytes: u64) -> Option<Duration> {
        self.quotas()?.charge(self.client_id(), direction, bytes, Instant::now())
    }

    /// What this client may fetch now, of `bytes_max` at most.
    pub(crate) fn fetch_allowance(&self, bytes_max: u32) -> Allowance {
        let unlimited = Allowance::Bytes(bytes_max);
        self.quotas()
            .map_or(unlimited, |quotas| quotas.allowance(self.client_id(), bytes_max, Instant::now()))
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// A wait in the milliseconds of `throttle_time_ms`, rounded up: who comes back too early waits again.
pub(crate) fn throttle_time_ms(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}
