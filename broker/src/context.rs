//! Who asks: what a handler knows about a request besides its body.

use std::net::SocketAddr;
use std::sync::Arc;

use highwater_protocol::wire::Str;

use crate::broker::Broker;
use crate::config::Endpoint;

/// Who asks, and in which version.
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    /// The address that the client reached.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) version: i16,
    pub(crate) client_id: Option<Str>,
}

impl Context<'_> {
    /// The address that this client is told to connect to.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let reached = || Endpoint { host: self.local.ip().to_string(), port: self.local.port() };
        self.broker.config().advertise.clone().unwrap_or_else(reached)
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}
