//! Many connections: those that claim, those that idle, and those that storm, while a producer goes on.
//!
//! The full count is `HIGHWATER_IDLE=10000`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use highwater_protocol::api::ApiVersionsRequest;
use highwater_protocol::encode_request;

use crate::harness::process::anonymous_bytes;
use crate::harness::served::Served;
use crate::harness::wait;

use super::batches::plain_batch;
use super::client::Connection;
use super::setting::{count, say};

const TOPIC: &str = "crowded";
const CLAIMS: usize = 1000;
/// What a connection claims to send: 100 MiB, the largest that is allowed.
const CLAIMED: [u8; 4] = (100_u32 << 20).to_be_bytes();
/// What the claims may cost together.
const CLAIMS_BYTES_MAX: u64 = 100 << 20;
const IDLE_BYTES_MAX: u64 = 20 << 10;

struct Crowd {
    served: Served,
    counter: u32,
}

impl Crowd {
    fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let served = Served::start(flags)?;
        served.connect()?.create_topic(TOPIC, 1, &[])?;
        Ok(Self { served, counter: 0 })
    }

    fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Sends `rounds` batches one after another; the longest that one took.
    fn produce(&mut self, connection: &mut Connection, rounds: u32) -> anyhow::Result<Duration> {
        let mut longest = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            let answer = connection.produce(TOPIC, 0, plain_batch(self.counter, 100))?;
            ensure!(answer.error_code == 0, "a good batch is refused: {answer:?}");
            self.counter += 1;
            longest = longest.max(began.elapsed());
        }
        Ok(longest)
    }

    fn bytes(&self) -> anyhow::Result<u64> {
        anonymous_bytes(self.served.broker.pid())
    }

    fn connections(&self) -> anyhow::Result<u64> {
        self.served.metric("highwater_connections")
    }
}

#[test]
fn a_thousand_connections_that_claim_100_mib_cost_what_they_send() -> anyhow::Result<()> {
    for sent_bytes in [1, 64 << 10] {
        let mut crowd = Crowd::start(&[])?;
        let mut producer = Connection::open(crowd.address())?;
        crowd.produce(&mut producer, 10)?;
        let before = crowd.bytes()?;

        let mut claims = Vec::new();
        for _ in 0..CLAIMS {
            let mut stream = TcpStream::connect(crowd.address())?;
            stream.write_all(&CLAIMED)?;
            stream.write_all(&vec![0; sent_bytes])?;
            claims.push(stream);
        }
        wait::until("the claims", || Ok(crowd.connections()? > CLAIMS as u64))?;
        // What is sent is held: when that much is there, all has been read.
        let held = (CLAIMS * sent_bytes) as u64 * 9 / 10;
        wait::until("what the claims sent", || Ok(crowd.bytes()? >= before + held))?;
        crowd.produce(&mut producer, 10)?;
        let grown = crowd.bytes()?.saturating_sub(before);

        say(&format!("{CLAIMS} claims of 100 MiB that send {sent_bytes} bytes cost {} KiB", grown >> 10));
        ensure!(grown < CLAIMS_BYTES_MAX, "{CLAIMS} claims that send {sent_bytes} bytes cost {grown} bytes");
    }
    Ok(())
}

#[test]
fn an_idle_connection_costs_less_than_20_kib() -> anyhow::Result<()> {
    let idle = count("HIGHWATER_IDLE", 1000)?;
    let mut crowd = Crowd::start(&[])?;
    let mut producer = Connection::open(crowd.address())?;
    crowd.produce(&mut producer, 10)?;
    let alone = crowd.produce(&mut producer, 200)?;
    let before = crowd.bytes()?;

    let mut connections = Vec::new();
    for _ in 0..idle {
        let mut connection = Connection::open(crowd.address())?;
        // Not merely open: it has had its turn, and keeps nothing of it.
        connection.call(0, &ApiVersionsRequest::default())?;
        connections.push(connection);
    }
    let crowded = crowd.produce(&mut producer, 200)?;
    let each = crowd.bytes()?.saturating_sub(before) / idle;

    say(&format!(
        "{idle} idle connections cost {each} bytes each; the slowest of 200 produces took {alone:?}, then {crowded:?}"
    ));
    ensure!(each <= IDLE_BYTES_MAX, "{idle} idle connections cost {each} bytes each");
    for connection in connections.iter_mut().step_by(97) {
        connection.call(0, &ApiVersionsRequest::default())?;
    }
    Ok(())
}

/// Whether the broker answers on a connection that was just made.
fn is_served(stream: &mut TcpStream) -> anyhow::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = encode_request(1, None, 0, &ApiVersionsRequest::default())?;
    // A connection that is closed at once may not even take the request.
    let answered = stream.write_all(&request).and_then(|()| stream.read_exact(&mut [0; 4]));
    match answered {
        Ok(()) => Ok(true),
        Err(error) if super::client::is_lost_connection(&error) => Ok(false),
        Err(error) => Err(error).context("wait for an answer or a hang-up"),
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_log_says_why() -> anyhow::Result<()> {
    for (flag, reason) in [
        ("--max-connections", "5 connections are open, --max-connections allows no more"),
        ("--max-connections-per-ip", "its address has 5 connections open"),
    ] {
        let mut crowd = Crowd::start(&[flag, "5"])?;
        let mut producer = Connection::open(crowd.address())?;
        crowd.produce(&mut producer, 1)?;
        // The connection that made the topic has left, or is about to.
        let mut held: Vec<TcpStream> = Vec::new();
        wait::until("four more connections", || {
            let mut stream = TcpStream::connect(crowd.address())?;
            if is_served(&mut stream)? {
                held.push(stream);
            }
            Ok(held.len() == 4)
        })?;

        for _ in 0..20 {
            ensure!(!is_served(&mut TcpStream::connect(crowd.address())?)?, "{flag} 5 serves a sixth");
        }

        crowd.produce(&mut producer, 10)?;
        ensure!(
            crowd.served.broker.log().contains(reason),
            "{reason:?} is missing in:\n{}",
            crowd.served.broker.log()
        );
        held.pop();
        wait::until("a place that was given back", || is_served(&mut TcpStream::connect(crowd.address())?))?;
    }
    Ok(())
}

#[test]
fn a_storm_of_connections_waits_outside_and_those_inside_are_served() -> anyhow::Result<()> {
    const RATE: u32 = 50;
    const STORM: u32 = 4 * RATE;
    let mut crowd = Crowd::start(&["--max-connection-rate", "50"])?;
    let address = crowd.address();
    let mut producer = Connection::open(address)?;
    crowd.produce(&mut producer, 1)?;
    let began = Instant::now();

    let storm = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> =
            (0..STORM).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        let served = streams.iter_mut().map(is_served).collect::<Result<Vec<_>, _>>()?;
        anyhow::Ok(served.into_iter().filter(|served| *served).count())
    });
    let (mut produced, mut longest) = (0, Duration::ZERO);
    while !storm.is_finished() {
        longest = longest.max(crowd.produce(&mut producer, 1)?);
        produced += 1;
    }
    let took = began.elapsed();

    let admitted = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))??;
    say(&format!(
        "{admitted} connections came in over {took:?}; meanwhile {produced} batches, the slowest {longest:?}"
    ));
    ensure!(admitted == STORM as usize, "{admitted} of {STORM} connections were served");
    // One second's worth comes at once; two more have come before.
    let least = Duration::from_secs(1) / RATE * (STORM - RATE - 2);
    ensure!(
        took >= least,
        "{STORM} connections came in over {took:?}, at {RATE} a second that takes {least:?}"
    );
    ensure!(longest < least, "somebody inside waited {longest:?}, as long as the storm");
    ensure!(
        crowd.served.broker.log().contains("--max-connection-rate"),
        "the log does not say why they wait"
    );
    Ok(())
}
