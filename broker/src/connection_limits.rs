//! How many connections there may be, from one address and in all, and how fast they may come (design D11).
//!
//! Every limit is off unless it is configured, and then costs nothing. A count that is reached refuses the connection
//! (Kafka's `max.connections.per.ip`, KIP-308); a rate that is reached delays accepting (`max.connection.creation.rate`,
//! KIP-612), so that a storm waits outside and those who are connected are served. Knows no sockets and no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use crate::config::ConnectionLimits;

/// Who is connected.
pub(crate) struct Doorkeeper {
    limits: ConnectionLimits,
    state: Mutex<State>,
}

struct State {
    open: u32,
    by_address: HashMap<IpAddr, u32>,
    /// When the bucket of the rate will be full again: each connection moves it into the future.
    full_at: Option<Instant>,
}

/// One connection's place; given back when dropped.
pub(crate) struct Place {
    /// None while no count is limited.
    of: Option<(Arc<Doorkeeper>, IpAddr)>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum Refused {
    /// All places are taken.
    #[error("{max} connections are open, --max-connections allows no more")]
    Full { max: u32 },
    /// The address has its share.
    #[error("its address has {max} connections open, --max-connections-per-ip allows no more")]
    Address { max: u32 },
}

impl Doorkeeper {
    /// Nobody is connected yet.
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let state = State { open: 0, by_address: HashMap::new(), full_at: None };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    /// Takes a place for a connection from `address`.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let ConnectionLimits { total, per_ip, .. } = self.limits;
        if total.is_none() && per_ip.is_none() {
            return Ok(Place { of: None });
        }
        let mut state = self.state.lock();
        if let Some(max) = total.filter(|max| state.open >= *max) {
            return Err(Refused::Full { max });
        }
        // An IPv4 client on a dual-stack listener is the same client.
        let address = address.to_canonical();
        let from_address = state.by_address.get(&address).copied().unwrap_or(0);
        if let Some(max) = per_ip.filter(|max| from_address >= *max) {
            return Err(Refused::Address { max });
        }
        state.open += 1;
        state.by_address.insert(address, from_address + 1);
        Ok(Place { of: Some((Arc::clone(self), address)) })
    }

    /// Counts a connection that was accepted at `now` towards the rate; how long the next one should wait outside.
    /// One second's worth may come at once.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let rate = self.limits.rate?;
        let mut state = self.state.lock();
        let full_at = state.full_at.map_or(now, |at| at.max(now)) + Duration::from_secs(1) / rate;
        state.full_at = Some(full_at);
        let ahead = full_at.saturating_duration_since(now);
        ahead.checked_sub(Duration::from_secs(1)).filter(|pause| !pause.is_zero())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((keeper, address)) = &self.of else { return };
        let mut state = keeper.state.lock();
        state.open -= 1;
        if let Some(count) = state.by_address.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let limits = ConnectionLimits { total: Some(3), per_ip: Some(2), rate: None };
        let keeper = Doorkeeper::new(limits);
        let mut held = vec![keeper.admit(NEAR).unwrap(), keeper.admit(NEAR).unwrap()];

        assert_eq!(keeper.admit(NEAR).err(), Some(Refused::Address { max: 2 }));
        held.push(keeper.admit(FAR).unwrap());
        assert_eq!(keeper.admit(FAR).err(), Some(Refused::Full { max: 3 }));
        held.clear();

        assert!(keeper.admit(NEAR).is_ok());
        assert!(keeper.state.lock().by_address.is_empty(), "an address without connections is remembered");
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let keeper = Doorkeeper::new(ConnectionLimits::default());

        let places: Vec<_> = (0..10_000).map(|_| keeper.admit(NEAR)).collect();

        assert!(places.iter().all(Result::is_ok));
        assert_eq!(keeper.state.lock().open, 0);
        assert_eq!(keeper.pause(Instant::now()), None);
    }

    #[test]
    fn a_second_of_the_rate_comes_at_once_and_then_each_waits_its_turn() {
        let keeper = Doorkeeper::new(ConnectionLimits { rate: Some(100), ..ConnectionLimits::default() });
        let now = Instant::now();

        let burst = (0..100).filter(|_| keeper.pause(now).is_none()).count();

        assert_eq!(burst, 100);
        assert_eq!(keeper.pause(now), Some(Duration::from_millis(10)));
        assert_eq!(keeper.pause(now + Duration::from_millis(10)), Some(Duration::from_millis(10)));
        assert_eq!(keeper.pause(now + Duration::from_secs(5)), None);
    }
}
