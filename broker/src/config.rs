//! The checked configuration of one broker. Parsing of flags and files happens in the `highwater` binary; what
//! arrives here is already typed, and a value that cannot work is refused with a sentence, never rewritten.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::disk::DiskReserve;
use crate::memory::{self, MemoryOrigin, MemorySize};

/// When an acknowledgement may be sent (design D4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// After the record is on stable storage. The default.
    Fsync,
    /// After the record is written; what is written reaches stable storage at least this often.
    Interval(Duration),
    /// After the record is written; the operating system decides when it reaches stable storage.
    Os,
}

/// Text that names no durability.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("durability is {0:?}; it must be `fsync`, `interval=<milliseconds>` with 1 to 3600000, or `os`")]
pub struct DurabilityError(String);

impl FromStr for Durability {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, DurabilityError> {
        let refuse = || DurabilityError(text.to_owned());
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => {
                let ms = text.strip_prefix("interval=").and_then(|ms| ms.parse::<u64>().ok());
                let ms = ms.filter(|ms| (1..=3_600_000).contains(ms)).ok_or_else(refuse)?;
                Ok(Self::Interval(Duration::from_millis(ms)))
            }
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fsync => f.write_str("fsync"),
            Self::Interval(every) => write!(f, "interval={}", every.as_millis()),
            Self::Os => f.write_str("os"),
        }
    }
}

/// A host and a port as clients are told them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Text that is no `HOST:PORT`.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{0:?} is not HOST:PORT, for example broker.example.org:9092 or [::1]:9092")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = || EndpointError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let host =
            host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']')).ok_or_else(refuse)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Which addresses to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    /// 127.0.0.1:9092 and, where it binds, `[::1]:9092`.
    Loopback,
    /// Exactly these.
    Exactly(Vec<SocketAddr>),
}

/// Limits on connections; each is off without a value.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// Connections at once. Default: no limit.
    pub total: Option<u32>,
    /// Connections at once from one address. Default: no limit.
    pub per_ip: Option<u32>,
    /// New connections a second; at least 1. Default: no limit.
    pub rate: Option<u32>,
}

/// Everything a broker needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory that holds all data. Created if absent.
    pub data: PathBuf,
    /// Addresses to bind.
    pub listen: Listen,
    /// Address told to clients. Default: the one that the client reached.
    pub advertise: Option<Endpoint>,
    /// Allows a plaintext listener without authentication on an address that is not loopback.
    pub insecure_allow_remote: bool,
    /// Durability of topics that do not set their own. Default: `fsync`.
    pub durability: Durability,
    /// Whether Metadata and Produce for an unknown topic create it. Default: true.
    pub auto_create_topics: bool,
    /// Partitions of topics created without a count. Default: 1.
    pub partitions_default: u32,
    /// Whether a `replication.factor` or `min.insync.replicas` above 1 is accepted and served by the one replica
    /// there is. Default: true.
    pub accept_replication_as_one: bool,
    /// What requests, answers and the broker itself may hold in memory. Default: a quarter of what the machine or the
    /// control group has, at least 64 MiB.
    pub memory: MemorySize,
    /// Where that comes from, for the log.
    pub memory_origin: MemoryOrigin,
    /// How much of the disk clients' records leave free. Default: 1 GiB or 5 % of the file system, whichever is less.
    pub disk_reserve: Option<DiskReserve>,
    /// Largest Kafka request, in bytes, if the memory budget has room for it. Default: 100 MiB
    /// (`socket.request.max.bytes`).
    pub request_bytes_max: u32,
    /// Largest number of bytes in one fetch response. Default: 55 MiB (`fetch.max.bytes`).
    pub fetch_bytes_max: u32,
    /// Largest number of partitions on this broker. Default: 20000.
    pub partitions_max: u32,
    /// Largest number of partitions that one request may create. Default: 1000.
    pub partitions_per_request_max: u32,
    /// How long a group without members waits for more of them before its first rebalance completes; whole
    /// milliseconds. Default: 3 s (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// How long after a roll a log under `os` is synced. Default: 30 s, by when Linux has written most of it by itself
    /// (`vm.dirty_expire_centisecs`).
    pub filled_sync_delay: Duration,
    /// How often partitions are looked through for what is too old or too much. Default: 5 minutes
    /// (`log.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// Limits on connections. Default: none.
    pub connections: ConnectionLimits,
}

impl Config {
    /// A configuration with every default, for `data`.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            listen: Listen::Loopback,
            advertise: None,
            insecure_allow_remote: false,
            durability: Durability::Fsync,
            auto_create_topics: true,
            partitions_default: 1,
            accept_replication_as_one: true,
            memory: memory::default_budget(),
            memory_origin: MemoryOrigin::Default,
            disk_reserve: None,
            request_bytes_max: 100 * 1024 * 1024,
            fetch_bytes_max: 55 * 1024 * 1024,
            partitions_max: 20_000,
            partitions_per_request_max: 1000,
            initial_rebalance_delay: Duration::from_secs(3),
            filled_sync_delay: Duration::from_secs(30),
            retention_check_interval: Duration::from_secs(5 * 60),
            connections: ConnectionLimits::default(),
        }
    }

    /// The largest Kafka request that can be received, in bytes.
    pub(crate) fn frame_bytes_max(&self) -> u32 {
        memory::frame_bytes_max(self.memory, self.request_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_reads_back_from_its_text() {
        for text in ["fsync", "os", "interval=250"] {
            assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
        }
        for text in ["", "interval", "interval=0", "interval=-1", "interval=3600001", "always"] {
            assert!(text.parse::<Durability>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_advertised_address_needs_a_host_and_a_port() {
        let v6: Endpoint = "[::1]:9092".parse().unwrap();

        assert_eq!(v6, Endpoint { host: "::1".to_owned(), port: 9092 });
        for text in ["localhost", ":9092", "host:0", "host:99999", "[::1:9092", "a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was accepted");
        }
    }
}
