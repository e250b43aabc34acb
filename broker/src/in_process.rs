//! A broker without sockets: frames go through decoding and dispatch, answers come back as bytes.
//!
//! For fuzzing and for tests that care about bytes and not about connections. Everything behind the socket is the
//! real thing: the data directory, the sync threads, the handlers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Broker;
use crate::config::Config;
use crate::context::Caller;
use crate::dispatch;
use crate::groups;
use crate::outbound::Piece;
use crate::recovery;
use crate::server::{self, RunError};
use crate::shutdown::Shutdown;

/// A running broker that listens nowhere.
pub struct InProcess {
    broker: Arc<Broker>,
}

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exchange {
    /// The answer, with its length prefix.
    Answer(Vec<u8>),
    /// Nothing is answered: a produce with acks=0.
    Silence,
    /// The connection would be closed, and why.
    Hangup(String),
}

impl InProcess {
    /// Opens and recovers a data directory.
    ///
    /// # Errors
    /// As [`crate::run`], but for the listeners.
    pub async fn open(config: Config) -> Result<Self, RunError> {
        let broker = tokio::task::spawn_blocking(move || {
            let broker = server::open(config, Shutdown::new())?;
            recovery::recover(&broker);
            Ok::<_, RunError>(broker)
        });
        let broker = broker.await??;
        tokio::spawn(groups::run_timers(Arc::clone(&broker)));
        Ok(Self { broker })
    }

    /// Sends one frame, without its length prefix, and waits for its answer.
    pub async fn exchange(&self, frame: Bytes) -> Exchange {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
        let caller = Caller { peer: here, local: here };
        let handled = async {
            let incoming = dispatch::parse(frame)?;
            match dispatch::handle(&self.broker, caller, incoming).await?.answer {
                Some(answer) => answer.resolve().await.map(Some),
                None => Ok(None),
            }
        };
        match handled.await {
            Ok(Some(pieces)) => match gather(&pieces) {
                Ok(bytes) => Exchange::Answer(bytes),
                Err(error) => Exchange::Hangup(error.to_string()),
            },
            Ok(None) => Exchange::Silence,
            Err(hangup) => Exchange::Hangup(hangup.to_string()),
        }
    }

    /// Stops cleanly.
    ///
    /// # Errors
    /// If the last appends cannot be made durable.
    pub async fn close(self) -> Result<(), RunError> {
        self.broker.shutdown.stop();
        tokio::task::spawn_blocking(move || recovery::close(&self.broker)).await?.map_err(RunError::LastSync)
    }
}

fn gather(pieces: &[Piece]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Memory(memory) => bytes.extend_from_slice(memory),
            Piece::File(range) => range.copy_to(&mut bytes)?,
        }
    }
    Ok(bytes)
}
