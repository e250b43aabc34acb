//! The numbers that a broker tells about itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// The value of a metric without labels, from `/metrics`.
pub(crate) fn metric(broker: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let page = get(broker, "/metrics")?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no {name} in:\n{page}"))?;
    value.parse().with_context(|| format!("{name} is {value:?}"))
}

/// Asks whether the broker is alive.
pub(crate) fn livez(broker: SocketAddr) -> anyhow::Result<()> {
    get(broker, "/livez").map(drop)
}

/// What the broker answers to a GET, head included.
pub(crate) fn get(broker: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path} answers {answer:?}");
    Ok(answer)
}
