//! A proxy between clients and a broker that keeps every frame.
//!
//! The broker is started with the proxy's address as its advertised one, so that clients stay with the proxy.
//! It lives as long as the test process: its threads end with their connections.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::Context;

use super::wire::read_frame;

/// A request and its answer, each with its size prefix.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Key of the API.
    pub(crate) key: i16,
    /// Version of the API.
    pub(crate) version: i16,
    /// The request.
    pub(crate) request: Vec<u8>,
    /// The answer.
    pub(crate) response: Vec<u8>,
}

/// The proxy.
pub(crate) struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    upstream: OnceLock<SocketAddr>,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Shared {
    fn keep(&self, exchange: Exchange) {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
    }
}

/// Requests of one connection that are not answered yet, by correlation id.
type Pending = Mutex<HashMap<[u8; 4], Vec<u8>>>;

impl Recorder {
    /// Listens on a free port. Connections are refused until [`Self::forward_to`].
    pub(crate) fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // A connection that breaks is the clients' business; they open another.
                thread::spawn(move || connection(&stream, &shared));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names the broker behind the proxy, once.
    pub(crate) fn forward_to(&self, upstream: SocketAddr) {
        self.shared.upstream.get_or_init(|| upstream);
    }

    /// What was said since the last call.
    pub(crate) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.shared.exchanges.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn connection(client: &TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let upstream = shared.upstream.get().context("no broker yet")?;
    let broker = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let pending = Pending::default();
    thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let ended = requests(client, &broker, &pending);
            let _ = broker.shutdown(Shutdown::Both);
            ended
        });
        let answered = responses(client, &broker, &pending, shared);
        let _ = client.shutdown(Shutdown::Both);
        let asked = requests.join().unwrap_or_else(|_| anyhow::bail!("the reader of requests panicked"));
        answered.and(asked)
    })
}

fn requests(mut client: &TcpStream, mut broker: &TcpStream, pending: &Pending) -> anyhow::Result<()> {
    while let Some(frame) = read_frame(&mut client)? {
        let id = *frame.get(8..).and_then(|rest| rest.first_chunk()).context("a request has a header")?;
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, frame.clone());
        broker.write_all(&frame)?;
    }
    Ok(())
}

fn responses(
    mut client: &TcpStream,
    mut broker: &TcpStream,
    pending: &Pending,
    shared: &Shared,
) -> anyhow::Result<()> {
    while let Some(response) = read_frame(&mut broker)? {
        client.write_all(&response)?;
        let id = response.get(4..).and_then(|rest| rest.first_chunk()).context("an answer has a header")?;
        let request = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let request = request.context("an answer to a request that was asked")?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        shared.keep(Exchange { key: number(4), version: number(6), request, response });
    }
    Ok(())
}
