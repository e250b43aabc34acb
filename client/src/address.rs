//! Where a broker is reached: host and port.
//!
//! A host may be a name, an IPv4 address or an IPv6 address in brackets. Names are resolved when they are dialled.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The port of a Kafka broker if none is given.
pub const DEFAULT_PORT: u16 = 9092;

/// Host and port of a broker.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Text that is not the address of a broker.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AddressError {
    /// Nothing where a host is expected.
    #[error("{text:?} names no host; write HOST:PORT, for example 127.0.0.1:9092")]
    NoHost {
        /// The refused text.
        text: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("{port:?} in {text:?} is not a port between 1 and 65535")]
    Port {
        /// The refused text.
        text: String,
        /// What stands for the port.
        port: String,
    },
    /// A scheme that is not Kafka's.
    #[error("{scheme:?} in {text:?} is not supported; write HOST:PORT or kafka://HOST:PORT")]
    Scheme {
        /// The refused text.
        text: String,
        /// What stands before `://`.
        scheme: String,
    },
}

impl Address {
    /// A list of addresses separated by commas, each as [`Address::from_str`] takes it.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, AddressError> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }
}

/// Takes `HOST`, `HOST:PORT` and `[IPV6]:PORT`, each also after `kafka://`.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let authority = match text.split_once("://") {
            None | Some(("kafka", _)) => text.strip_prefix("kafka://").unwrap_or(text),
            Some((scheme, _)) => {
                return Err(AddressError::Scheme { text: text.into(), scheme: scheme.into() });
            }
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) =
                    rest.split_once(']').ok_or_else(|| AddressError::NoHost { text: text.into() })?;
                (host, rest.strip_prefix(':'))
            }
            // More than one colon without brackets is a bare IPv6 address.
            None if authority.matches(':').count() > 1 => (authority, None),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(AddressError::NoHost { text: text.into() });
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| AddressError::Port { text: text.into(), port: port.into() })?,
        };
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
    }

    #[test]
    fn every_common_spelling_is_read() {
        check("localhost:9092", "localhost:9092");
        check("localhost", "localhost:9092");
        check("kafka://broker-1:19092", "broker-1:19092");
        check("kafka://broker-1/", "broker-1:9092");
        check("[::1]:9092", "[::1]:9092");
        check("::1", "[::1]:9092");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_sentence() {
        for text in ["", ":9092", "kafka://", "host:0", "host:70000", "host:x", "http://host:80", "[::1"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        let list = Address::parse_list("a:1, b:2").unwrap();

        assert_eq!(list, ["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
        assert!(Address::parse_list("a:1,").is_err());
    }
}
