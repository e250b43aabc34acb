//! Which broker the client commands talk to, and what to say when it is not there.

use anyhow::Error;
use highwater_client::{Address, Client, ClientConfig, ClientError, ConnectError};

use crate::failure::Failure;

const VARIABLE: &str = "HIGHWATER_BOOTSTRAP";
const DEFAULT: &str = "127.0.0.1:9092";

/// Where the cluster is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BootstrapArgs {
    /// Broker to ask, HOST:PORT or kafka://HOST:PORT; several are separated by commas
    /// [env: HIGHWATER_BOOTSTRAP] [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
}

/// Where an address came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Flag,
    Environment,
    Default,
}

/// A cluster that the user named.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    addresses: Vec<Address>,
    origin: Origin,
}

impl BootstrapArgs {
    /// The flag wins over the environment, the environment over the default.
    pub(crate) fn resolve(&self) -> Result<Bootstrap, Failure> {
        self.resolve_with(std::env::var(VARIABLE).ok())
    }

    fn resolve_with(&self, variable: Option<String>) -> Result<Bootstrap, Failure> {
        let variable = variable.filter(|text| !text.is_empty());
        let (text, origin) = match (&self.bootstrap, variable) {
            (Some(text), _) => (text.clone(), Origin::Flag),
            (None, Some(text)) => (text, Origin::Environment),
            (None, None) => (DEFAULT.to_owned(), Origin::Default),
        };
        let addresses = Address::parse_list(&text)
            .map_err(|error| Failure::usage(format!("{} is no broker: {error}", origin.name())))?;
        Ok(Bootstrap { addresses, origin })
    }
}

impl Bootstrap {
    /// A client of this cluster.
    pub(crate) fn client(&self) -> Client {
        Client::new(ClientConfig::new(self.addresses.clone(), "highwater"))
    }

    /// The error, with the setting behind it and the way out.
    pub(crate) fn explain(&self, error: &ClientError) -> Error {
        let advice = match error {
            ClientError::Bootstrap(ConnectError::Dial { .. } | ConnectError::Timeout { .. }) => format!(
                "\n  the address comes from {}\n  start a broker here:   highwater serve\n  or name another one:   \
                 --bootstrap HOST:PORT",
                self.origin.name()
            ),
            ClientError::Bootstrap(ConnectError::Negotiate { .. }) => format!(
                "\n  the address comes from {}; is it the port of a Kafka broker without TLS?",
                self.origin.name()
            ),
            ClientError::Advertised { address, reached, .. } => format!(
                "\n  the broker's advertised address decides where clients go after the first contact\n  on a highwater \
                 broker: highwater serve --advertise {}:{}\n  or make {} resolvable here",
                reached.host, address.port, address.host
            ),
            _ => String::new(),
        };
        Failure::failed(format!("{error}{advice}")).into()
    }
}

impl Origin {
    const fn name(self) -> &'static str {
        match self {
            Self::Flag => "--bootstrap",
            Self::Environment => VARIABLE,
            Self::Default => "the default (neither --bootstrap nor HIGHWATER_BOOTSTRAP is set)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(flag: Option<&str>, variable: Option<&str>, expected: &str, origin: Origin) {
        let args = BootstrapArgs { bootstrap: flag.map(str::to_owned) };

        let bootstrap = args.resolve_with(variable.map(str::to_owned)).unwrap();

        assert_eq!(bootstrap.addresses, [expected.parse().unwrap()]);
        assert_eq!(bootstrap.origin, origin);
    }

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_default() {
        check(Some("kafka://a:1"), Some("b:2"), "a:1", Origin::Flag);
        check(None, Some("b:2"), "b:2", Origin::Environment);
        check(None, Some(""), "127.0.0.1:9092", Origin::Default);
        check(None, None, "127.0.0.1:9092", Origin::Default);
    }

    #[test]
    fn a_bad_address_is_said_with_the_setting_it_comes_from() {
        let args = BootstrapArgs { bootstrap: None };

        let error = args.resolve_with(Some("host:x".into())).unwrap_err();

        assert!(error.to_string().starts_with("HIGHWATER_BOOTSTRAP"), "{error}");
    }
}
