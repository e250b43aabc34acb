//! Where a partition's log should begin, by what its topic keeps.

use std::sync::Arc;

use highwater_record::{Offset, TimestampMs};
use highwater_storage::{AppendError, Retention};

use super::Partition;
use crate::config::Durability;
use crate::sync_scheduler::SyncScheduler;

impl Partition {
    /// Where the log should begin; `None` if that is where it begins. A log that is not open is opened only if it has more
    /// than is kept. Starts a new segment if the active one is old enough. Waits for the disk.
    pub(crate) fn retained_from(
        self: &Arc<Self>,
        retention: Retention,
        now: TimestampMs,
        scheduler: &SyncScheduler,
    ) -> Option<Offset> {
        if self.view_if_open().is_none() && !self.dormant.get()?.exceeds(retention, now) {
            return None;
        }
        let view = self.open_view().ok()?;
        let until = self.high_watermark();
        let start = self.with_log(|log| {
            log.roll_overdue(now)?;
            let start = log.retained_from(retention, until, now);
            if self.durability() == Durability::Os && log.has_sealed() {
                scheduler.request_filled(self);
            }
            start
        });
        match start? {
            Ok(start) => (start > view.log_start()).then_some(start),
            // It is about to be mended.
            Err(AppendError::Failed) => None,
            Err(error) => {
                tracing::warn!(partition = %self.id, %error, "cannot start the segment that lets old ones go; it is tried again");
                None
            }
        }
    }
}
