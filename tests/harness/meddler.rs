//! A proxy between clients and a broker that loses answers, or lies like a broker that drops or doubles records.
//!
//! Requests stay in their order, and so do answers. It lives as long as the test process: its threads end with their
//! connections.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use highwater_protocol::{Request, RequestHeader, SIZE_PREFIX_BYTES, parse_request};

use super::wire::read_frame;

/// What the proxy does with a request.
pub(crate) enum Deed {
    /// Sends it to the broker and the answer back.
    Pass,
    /// Sends it to the broker, and closes the connection instead of answering.
    LoseAnswer,
    /// Answers with this frame; the broker never sees the request.
    Answer(Bytes),
}

/// What the proxy does with each request: the broker's address, the header, and what is asked for.
pub(crate) type Plan = dyn Fn(SocketAddr, &RequestHeader, &Request) -> anyhow::Result<Deed> + Send + Sync;

/// The proxy.
pub(crate) struct Meddler {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    plan: Box<Plan>,
    meddled: AtomicU64,
}

impl Meddler {
    /// Listens on a free port. Connections are closed until [`Self::forward_to`].
    pub(crate) fn bind(plan: Box<Plan>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { upstream: Mutex::default(), plan, meddled: AtomicU64::new(0) });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    // A connection that breaks is the clients' business; they open another.
                    let _ = serve(&stream, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names the broker behind the proxy.
    pub(crate) fn forward_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    /// How many requests it did not simply pass on.
    pub(crate) fn meddled(&self) -> u64 {
        self.shared.meddled.load(Ordering::Relaxed)
    }
}

fn serve(client: &TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let upstream = *shared.upstream.lock().unwrap_or_else(PoisonError::into_inner);
    let upstream = upstream.context("no broker yet")?;
    let broker = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (deeds, done) = mpsc::channel();
    thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let ended = requests(client, (&broker, upstream), shared, &deeds);
            drop(deeds);
            let _ = broker.shutdown(Shutdown::Write);
            ended
        });
        let answered = answers(client, &broker, shared, &done);
        let _ = client.shutdown(Shutdown::Both);
        let _ = broker.shutdown(Shutdown::Both);
        let asked = requests.join().unwrap_or_else(|_| bail!("the reader of requests panicked"));
        answered.and(asked)
    })
}

fn requests(
    mut client: &TcpStream,
    (mut broker, upstream): (&TcpStream, SocketAddr),
    shared: &Shared,
    deeds: &Sender<Deed>,
) -> anyhow::Result<()> {
    while let Some(frame) = read_frame(&mut client)? {
        let (header, request) = parse_request(Bytes::from(frame.clone()).slice(SIZE_PREFIX_BYTES..))?;
        let deed = match request {
            Ok(request) => (shared.plan)(upstream, &header, &request)?,
            Err(_) => Deed::Pass,
        };
        if !matches!(deed, Deed::Answer(_)) {
            broker.write_all(&frame)?;
        }
        deeds.send(deed)?;
    }
    Ok(())
}

/// Answers in the order of the requests.
fn answers(
    mut client: &TcpStream,
    mut broker: &TcpStream,
    shared: &Shared,
    deeds: &Receiver<Deed>,
) -> anyhow::Result<()> {
    while let Ok(deed) = deeds.recv() {
        if !matches!(deed, Deed::Pass) {
            shared.meddled.fetch_add(1, Ordering::Relaxed);
        }
        let answer = match deed {
            Deed::Answer(answer) => answer,
            Deed::Pass => Bytes::from(read_frame(&mut broker)?.context("the broker hung up")?),
            Deed::LoseAnswer => {
                read_frame(&mut broker)?;
                bail!("the answer is lost");
            }
        };
        client.write_all(&answer)?;
    }
    Ok(())
}
