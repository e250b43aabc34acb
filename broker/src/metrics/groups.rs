//! What is counted of consumer groups.

use std::sync::LazyLock;
use std::time::Duration;

use highwater_group::{Counts, GroupState, Reason};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

static GROUPS: LazyLock<Groups> = LazyLock::new(Groups::register);

struct Groups {
    by_state: [(GroupState, Gauge); 4],
    members: Gauge,
    offsets: Gauge,
    rebalances: [Counter; Reason::ALL.len()],
    sessions_expired: Counter,
    offsets_expired: Counter,
    records: Counter,
    load: Gauge,
}

impl Groups {
    fn register() -> Self {
        describe_gauge!("highwater_groups", "Consumer groups, by state.");
        describe_gauge!("highwater_group_members", "Members of all consumer groups.");
        describe_gauge!("highwater_group_offsets", "Committed offsets, one per group and partition.");
        describe_counter!("highwater_group_rebalances_total", "Rebalances begun, by reason.");
        describe_counter!(
            "highwater_group_sessions_expired_total",
            "Members dropped because they were silent for their session timeout."
        );
        describe_counter!("highwater_group_offsets_expired_total", "Committed offsets that expired.");
        describe_counter!(
            "highwater_group_records_total",
            "Records appended for groups: commits, tombstones and the groups themselves."
        );
        describe_gauge!("highwater_groups_load_seconds", "How long the groups took to load at the start.");
        Self {
            by_state: [
                GroupState::Empty,
                GroupState::PreparingRebalance,
                GroupState::CompletingRebalance,
                GroupState::Stable,
            ]
            .map(|state| (state, gauge!("highwater_groups", "state" => state.name()))),
            members: gauge!("highwater_group_members"),
            offsets: gauge!("highwater_group_offsets"),
            rebalances: Reason::ALL
                .map(|reason| counter!("highwater_group_rebalances_total", "reason" => reason.name())),
            sessions_expired: counter!("highwater_group_sessions_expired_total"),
            offsets_expired: counter!("highwater_group_offsets_expired_total"),
            records: counter!("highwater_group_records_total"),
            load: gauge!("highwater_groups_load_seconds"),
        }
    }
}

/// Registers them.
pub(super) fn install() {
    LazyLock::force(&GROUPS);
}

/// What the groups of one partition are now, and what they were when this was told last.
pub(crate) fn count_groups(before: &Counts, after: &Counts) {
    let rebalances = after.rebalances.iter().zip(before.rebalances);
    for (counter, (after, before)) in GROUPS.rebalances.iter().zip(rebalances) {
        counter.increment(after.saturating_sub(before));
    }
    GROUPS.sessions_expired.increment(after.sessions_expired.saturating_sub(before.sessions_expired));
    GROUPS.offsets_expired.increment(after.offsets_expired.saturating_sub(before.offsets_expired));
}

/// What the groups of all partitions are now.
pub(crate) fn set_groups(partitions: &[Counts]) {
    let sum = |field: fn(&Counts) -> usize| partitions.iter().map(field).sum::<usize>() as f64;
    for (state, gauge) in &GROUPS.by_state {
        gauge.set(match state {
            GroupState::Empty => sum(|counts| counts.empty),
            GroupState::PreparingRebalance => sum(|counts| counts.preparing_rebalance),
            GroupState::CompletingRebalance => sum(|counts| counts.completing_rebalance),
            GroupState::Stable => sum(|counts| counts.stable),
        });
    }
    GROUPS.members.set(sum(|counts| counts.members));
    GROUPS.offsets.set(sum(|counts| counts.offsets));
}

/// Records of groups were appended.
pub(crate) fn count_group_records(records: usize) {
    GROUPS.records.increment(records as u64);
}

/// The groups of all partitions were loaded in `elapsed`.
pub(crate) fn observe_groups_load(elapsed: Duration) {
    GROUPS.load.set(elapsed.as_secs_f64());
}
