//! Byte rates of clients: which quota holds for whom, and who has used up how much of it.
//!
//! Quotas belong to entities, a user, a client id or a pair of them, each by name or by default, and are resolved as
//! Kafka resolves them (`ClientQuotaManager`). Each client that a quota holds for has a bucket of its own: what it sends
//! or reads is taken out, the rate fills it up again, and while it is overdrawn the client has to wait (KIP-219: it is
//! answered at once and not read from meanwhile). One second's worth may be used at once, where Kafka averages over its
//! last ten; over half a minute both come to the same.
//!
//! Knows no protocol, no connection and no clock. While no quota is set, asking costs one load.

mod bucket;
mod entity;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use bucket::{Buckets, Scope};
pub(crate) use entity::{CLIENT_ID, Entity, IP, Limits, Part, USER};

/// The user of every client: there is no authentication yet (Kafka: `KafkaPrincipal.ANONYMOUS`).
pub(crate) const ANONYMOUS: &str = "ANONYMOUS";
/// A fetch takes no more at once than this many seconds' worth of its quota (Kafka: its window of ten seconds).
const FETCH_SECONDS_MAX: u64 = 10;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// Produce requests.
    Produced,
    /// Fetch responses.
    Consumed,
}

/// What a client may fetch now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Allowance {
    /// At most so many bytes at once.
    Bytes(u32),
    /// Nothing for so long.
    Wait(Duration),
}

/// Every quota, and the buckets of those who have one.
#[derive(Default)]
pub(crate) struct Quotas {
    /// Whether there is any quota.
    active: AtomicBool,
    limits: RwLock<BTreeMap<Entity, Limits>>,
    produced: Mutex<Buckets>,
    consumed: Mutex<Buckets>,
}

impl Quotas {
    /// The quotas that the metadata holds.
    pub(crate) fn new(limits: BTreeMap<Entity, Limits>) -> Self {
        let quotas = Self::default();
        quotas.replace(limits);
        quotas
    }

    /// Puts other quotas in the place of all there are. Whoever is overdrawn stays so, unless its rate is another one now.
    pub(crate) fn replace(&self, limits: BTreeMap<Entity, Limits>) {
        let active = !limits.is_empty();
        *self.limits.write() = limits;
        // Nothing hangs on the order: a request beside the change may meet the old quotas or the new ones.
        self.active.store(active, Ordering::Relaxed);
    }

    /// Whether there is any quota.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Every entity that has a quota.
    pub(crate) fn all(&self) -> BTreeMap<Entity, Limits> {
        self.limits.read().clone()
    }

    /// Takes `bytes` from what this client may produce or consume; how long it has to wait afterwards.
    pub(crate) fn charge(
        &self,
        client_id: &str,
        direction: Direction,
        bytes: u64,
        now: Instant,
    ) -> Option<Duration> {
        let (scope, rate) = self.limit(client_id, direction)?;
        self.buckets(direction).lock().charge(scope, rate, bytes, now)
    }

    /// What this client may fetch at `now`, where the broker allows `bytes_max`.
    pub(crate) fn allowance(&self, client_id: &str, bytes_max: u32, now: Instant) -> Allowance {
        let Some((scope, rate)) = self.limit(client_id, Direction::Consumed) else {
            return Allowance::Bytes(bytes_max);
        };
        if let Some(wait) = self.consumed.lock().charge(scope, rate, 0, now) {
            return Allowance::Wait(wait);
        }
        let most = u32::try_from(rate.saturating_mul(FETCH_SECONDS_MAX)).unwrap_or(u32::MAX);
        Allowance::Bytes(bytes_max.min(most))
    }

    const fn buckets(&self, direction: Direction) -> &Mutex<Buckets> {
        match direction {
            Direction::Produced => &self.produced,
            Direction::Consumed => &self.consumed,
        }
    }

    /// The quota that holds for this client, in bytes a second, and whom it shares it with.
    fn limit<'a>(&self, client_id: &'a str, direction: Direction) -> Option<(Scope<'a>, u64)> {
        resolve(&self.limits.read(), ANONYMOUS, client_id, direction)
    }
}

/// The first quota in the order of `ClientQuotaManager`: a pair before a user before a client id, and within each a
/// name before the default. Whoever meets a default has it alone.
fn resolve<'a>(
    limits: &BTreeMap<Entity, Limits>,
    user: &'a str,
    client_id: &'a str,
    direction: Direction,
) -> Option<(Scope<'a>, u64)> {
    let (named_user, named_client) = (Part::named(user), Part::named(client_id));
    let users = [Some(&named_user), Some(&Part::Default)];
    let clients = [Some(&named_client), Some(&Part::Default)];
    let pairs = users.into_iter().flat_map(|user| {
        let of_user = clients.into_iter().map(move |client| (user, client));
        of_user.chain([(user, None)])
    });
    let all = pairs.chain(clients.into_iter().map(|client| (None, client)));
    for (user_part, client_part) in all {
        let entity = Entity { user: user_part.cloned(), client_id: client_part.cloned() };
        if let Some(rate) = limits.get(&entity).and_then(|limits| limits.rate(direction)) {
            let scope = Scope { user: user_part.map(|_| user), client_id: client_part.map(|_| client_id) };
            return Some((scope, rate));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<Part>, client_id: Option<Part>) -> Entity {
        Entity { user, client_id }
    }

    fn produced(rate: u64) -> Limits {
        Limits { produced: Some(rate), consumed: None }
    }

    #[test]
    fn the_most_specific_quota_holds() {
        let (ann, web) = (|| Some(Part::named("ann")), || Some(Part::named("web")));
        let default = || Some(Part::Default);
        // From the least to the most specific: each one added takes over.
        let order = [
            entity(None, default()),
            entity(None, web()),
            entity(default(), None),
            entity(default(), default()),
            entity(default(), web()),
            entity(ann(), None),
            entity(ann(), default()),
            entity(ann(), web()),
        ];
        let mut limits = BTreeMap::new();
        for (rate, entity) in (1..).zip(order) {
            limits.insert(entity, produced(rate));
            let found = resolve(&limits, "ann", "web", Direction::Produced);
            assert_eq!(found.map(|(_, rate)| rate), Some(rate));
        }

        let of = |user, client| resolve(&limits, user, client, Direction::Produced).map(|(_, rate)| rate);
        assert_eq!(of("ann", "other"), Some(7));
        assert_eq!(of("bob", "web"), Some(5));
        assert_eq!(of("bob", "other"), Some(4));
        assert_eq!(resolve(&limits, "ann", "web", Direction::Consumed), None);
    }

    #[test]
    fn a_quota_for_the_other_direction_is_passed_over() {
        let limits = BTreeMap::from([
            (entity(None, Some(Part::named("web"))), Limits { produced: None, consumed: Some(5) }),
            (entity(None, Some(Part::Default)), produced(7)),
        ]);

        let found = resolve(&limits, ANONYMOUS, "web", Direction::Produced);

        assert_eq!(found.map(|(_, rate)| rate), Some(7));
    }

    #[test]
    fn each_client_of_a_default_has_a_bucket_and_all_clients_of_a_user_share_one() {
        let by_client = Quotas::new(BTreeMap::from([(entity(None, Some(Part::Default)), produced(1000))]));
        let by_user = Quotas::new(BTreeMap::from([(entity(Some(Part::Default), None), produced(1000))]));
        let now = Instant::now();
        let charge = |quotas: &Quotas, client| quotas.charge(client, Direction::Produced, 3000, now);

        for quotas in [&by_client, &by_user] {
            assert_eq!(charge(quotas, "first"), Some(Duration::from_secs(2)));
        }

        assert_eq!(charge(&by_client, "second"), Some(Duration::from_secs(2)));
        assert_eq!(charge(&by_user, "second"), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_fetch_waits_while_its_bucket_is_overdrawn_and_takes_ten_seconds_worth_at_most() {
        let limits = Limits { produced: None, consumed: Some(1000) };
        let quotas = Quotas::new(BTreeMap::from([(entity(None, Some(Part::named("web"))), limits)]));
        let now = Instant::now();

        assert_eq!(quotas.allowance("web", 1 << 20, now), Allowance::Bytes(10_000));
        assert_eq!(quotas.allowance("other", 1 << 20, now), Allowance::Bytes(1 << 20));
        quotas.charge("web", Direction::Consumed, 1500, now);

        assert_eq!(quotas.allowance("web", 1 << 20, now), Allowance::Wait(Duration::from_millis(500)));
        let later = now + Duration::from_millis(500);
        assert_eq!(quotas.allowance("web", 1 << 20, later), Allowance::Bytes(10_000));
    }

    #[test]
    fn without_quotas_nobody_waits() {
        let now = Instant::now();
        let quotas = Quotas::default();
        assert_eq!(quotas.charge("web", Direction::Produced, u64::MAX, now), None);
        assert!(!quotas.is_active());

        quotas.replace(BTreeMap::from([(entity(None, Some(Part::Default)), produced(10))]));
        assert!(quotas.charge("web", Direction::Produced, 1000, now).is_some());
        assert!(quotas.is_active());

        quotas.replace(BTreeMap::new());
        assert_eq!(quotas.charge("web", Direction::Produced, 1000, now), None);
        assert!(!quotas.is_active());
    }

    #[test]
    fn a_change_forgives_those_alone_whose_rate_changed() {
        let now = Instant::now();
        let named = |name| entity(None, Some(Part::named(name)));
        let limits = BTreeMap::from([(named("web"), produced(10)), (named("batch"), produced(10))]);
        let quotas = Quotas::new(limits.clone());
        let wait = |name| quotas.charge(name, Direction::Produced, 0, now);
        for name in ["web", "batch"] {
            assert!(quotas.charge(name, Direction::Produced, 1000, now).is_some());
        }

        quotas.replace(limits.clone());
        assert_eq!(
            (wait("web"), wait("batch")),
            (Some(Duration::from_secs(99)), Some(Duration::from_secs(99)))
        );
        quotas.replace(limits.into_iter().chain([(named("web"), produced(20))]).collect());

        assert_eq!((wait("web"), wait("batch")), (None, Some(Duration::from_secs(99))));
    }
}
