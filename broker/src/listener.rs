//! Listeners: binding, accepting, and finding out from the first bytes what a connection speaks (design D9).
//!
//! A Kafka frame starts with a length below 128 MiB, so its first byte is small; HTTP starts with ASCII and TLS with
//! 0x16. What is not served here gets a sentence that says what to change. Connections that die without a word are
//! found out by the system (keepalive, user timeout). Knows no message of either protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::config::{Config, Listen};
use crate::connection_limits::Doorkeeper;
use crate::log_limit::note;
use crate::shutdown::Stopping;
use crate::{connection, http};

/// Where a broker listens without `--listen`.
const PORT_DEFAULT: u16 = 9092;
/// How long a client may stay silent after it connected.
const FIRST_BYTE_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that is silent for this long is probed.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// A peer that confirms nothing, or takes nothing, for this long is given up (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why the broker cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A plaintext listener without authentication that others could reach.
    #[error(
        "refusing to listen on {address}: the listener is plaintext, has no authentication and is not loopback; \
         listen on 127.0.0.1, or pass --insecure-allow-remote if everyone who can reach it may read and write"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has the port: stop it, or pass --listen 127.0.0.1:0 for a free one"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        _ => "",
    }
}

/// Binds every configured address.
pub(crate) fn bind(config: &Config) -> Result<Vec<TcpListener>, ListenError> {
    match &config.listen {
        Listen::Loopback => {
            let mut listeners = vec![bind_one(SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT)))?];
            // A machine without IPv6 is fine: the second loopback address is a convenience.
            listeners.extend(bind_one(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], PORT_DEFAULT))).ok());
            Ok(listeners)
        }
        Listen::Exactly(addresses) => addresses
            .iter()
            .map(|address| {
                if !address.ip().is_loopback() && !config.insecure_allow_remote {
                    return Err(ListenError::Remote { address: *address });
                }
                bind_one(*address)
            })
            .collect(),
    }
}

fn bind_one(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restarted broker takes its port back from connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| ListenError::Bind { address, source })
}

/// Accepts until the broker stops, then waits for the connections to finish.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Doorkeeper>, broker: Arc<Broker>) {
    let mut connections = JoinSet::new();
    let mut stopping = broker.stopping();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    match door.admit(peer.ip()) {
                        Ok(place) => {
                            let broker = Arc::clone(&broker);
                            connections.spawn(async move {
                                let _place = place;
                                greet(stream, peer, broker).await;
                            });
                        }
                        Err(reason) => {
                            crate::metrics::count_refused_by_limit();
                            note(|dropped| tracing::warn!(%peer, dropped, "refused a connection: {reason}"));
                        }
                    }
                    wait_outside(&door, &mut stopping).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopping.stopped() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Holds up accepting while connections come faster than the limit.
async fn wait_outside(door: &Doorkeeper, stopping: &mut Stopping) {
    let Some(pause) = door.pause(Instant::now()) else { return };
    note(|dropped| {
        tracing::warn!(
            dropped,
            "connections come faster than --max-connection-rate allows: the next ones wait"
        );
    });
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stopping.stopped() => {}
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speaks {
    Kafka,
    Http1,
    Http2,
    Tls,
    Unknown(u8),
}

fn speaks(first: &[u8]) -> Speaks {
    match first {
        [0..=0x07, ..] => Speaks::Kafka,
        [0x16, ..] => Speaks::Tls,
        [b'P', b'R', b'I', ..] => Speaks::Http2,
        [b'A'..=b'Z', ..] => Speaks::Http1,
        [other, ..] => Speaks::Unknown(*other),
        [] => Speaks::Unknown(0),
    }
}

async fn greet(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%peer, %error, "cannot set the options of a socket");
    }
    let mut first = [0; 3];
    let mut stopping = broker.stopping();
    let length = tokio::select! {
        peeked = tokio::time::timeout(FIRST_BYTE_DEADLINE, stream.peek(&mut first)) => match peeked {
            Ok(Ok(length)) if length > 0 => length,
            Ok(_) => return,
            Err(_) => {
                tracing::debug!(%peer, "closed a connection that said nothing");
                return;
            }
        },
        () = stopping.stopped() => return,
    };
    let _connected = crate::metrics::connected();
    match speaks(&first[..length]) {
        Speaks::Kafka => connection::serve(stream, peer, broker).await,
        Speaks::Http1 => http::serve(stream, peer, broker).await,
        Speaks::Http2 => {
            refuse(stream, peer, HTTP2_GOAWAY, "HTTP/2 (gRPC); this version serves Kafka and HTTP/1.1").await
        }
        Speaks::Tls => {
            refuse(
                stream,
                peer,
                TLS_ALERT,
                "TLS; this listener is plaintext: set security.protocol=PLAINTEXT",
            )
            .await
        }
        Speaks::Unknown(byte) => {
            note(|dropped| {
                tracing::warn!(
                    %peer, first_byte = byte, dropped, "closed a connection that speaks neither Kafka nor HTTP"
                );
            });
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Small answers must not wait for a delayed acknowledgement of the peer.
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_AFTER / 6);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// A fatal `handshake_failure` alert (RFC 8446 section 6), so that a TLS client fails at once and says so.
const TLS_ALERT: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28];
/// Empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED (RFC 9113 sections 6.5 and 6.8) and a sentence as debug data.
const HTTP2_GOAWAY: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
\x00\x00\x41\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0d\
gRPC is not served yet; this port speaks Kafka and HTTP/1";

async fn refuse(mut stream: TcpStream, peer: SocketAddr, answer: &'static [u8], sentence: &'static str) {
    note(|dropped| tracing::warn!(%peer, dropped, "refused a connection that speaks {sentence}"));
    crate::metrics::count_refused_protocol();
    if let Err(error) = stream.write_all(answer).await {
        tracing::debug!(%peer, %error, "the refused client left before the answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        assert_eq!(speaks(&[0, 0, 0]), Speaks::Kafka);
        assert_eq!(speaks(&[6, 0x40, 0]), Speaks::Kafka);
        assert_eq!(speaks(b"GET"), Speaks::Http1);
        assert_eq!(speaks(b"PRI"), Speaks::Http2);
        assert_eq!(speaks(b"POS"), Speaks::Http1);
        assert_eq!(speaks(&[0x16, 3, 1]), Speaks::Tls);
        assert_eq!(speaks(&[0xff]), Speaks::Unknown(0xff));
    }

    #[test]
    fn the_http2_refusal_is_two_whole_frames() {
        let length = |at: usize| usize::from(HTTP2_GOAWAY[at + 2]);
        let settings = 9 + length(0);

        assert_eq!(HTTP2_GOAWAY.len(), settings + 9 + length(settings));
    }
}
