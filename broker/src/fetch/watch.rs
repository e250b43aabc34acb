//! Where partitions tell fetches that something moved.
//!
//! A fetch, or the session that outlives it, is one [`Watch`], registered once at each of its partitions. A partition
//! whose high watermark moves marks its registration and credits the bytes; the fetch looks at marked partitions only
//! and wakes when its bytes are there, not at each append. Knows no protocol and reads nothing.
//!
//! Invariants: (1) a mark is set after what it speaks of is visible, and taken back before it is looked at, so that
//! nothing that moved stays unmarked and unread; (2) bytes may be credited and counted both, so that a wake is a
//! reason to count again and never an answer by itself.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Mutex, Ordering};

/// What the partitions of one fetch or session report to.
#[derive(Default)]
pub(crate) struct Watch {
    lacking_bytes: AtomicI64,
    /// Something other than bytes came: a partition is gone, or was cut.
    disturbed: AtomicBool,
    /// Counts how often it was armed. Whoever waits for an earlier turn waits in vain.
    turn: AtomicU64,
    marked: Mutex<Vec<u32>>,
    signal: Notify,
}

/// One arming of a [`Watch`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Turn(u64);

impl Watch {
    /// Begins to wait for `bytes`. What was credited before does not count, and who waited before is woken.
    pub(crate) fn arm(&self, bytes: u64) -> Turn {
        let turn = self.turn.fetch_add(1, Ordering::AcqRel) + 1;
        self.disturbed.store(false, Ordering::Release);
        self.lacking_bytes.store(signed(bytes), Ordering::Release);
        self.signal.notify_waiters();
        Turn(turn)
    }

    /// Counts `bytes` that can be read; wakes the fetch when nothing is lacking any more.
    pub(crate) fn credit(&self, bytes: u64) {
        let bytes = signed(bytes);
        let before = self.lacking_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > 0 && before <= bytes {
            self.signal.notify_waiters();
        }
    }

    /// Completes when nothing is lacking any more, something else came up, or `turn` is over.
    pub(crate) async fn woken(&self, turn: Turn) {
        loop {
            // Made before the question is asked, so that what comes in between wakes it.
            let signalled = self.signal.notified();
            if self.is_due(turn) {
                return;
            }
            signalled.await;
        }
    }

    fn is_due(&self, turn: Turn) -> bool {
        self.turn.load(Ordering::Acquire) != turn.0
            || self.disturbed.load(Ordering::Acquire)
            || self.lacking_bytes.load(Ordering::Acquire) <= 0
    }

    /// The slots that were marked since they were asked for last, in no order and some more than once.
    pub(crate) fn take_marked(&self) -> Vec<u32> {
        std::mem::take(&mut *self.marked.lock())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 2)
}

/// A watch at one partition.
pub(crate) struct Registration {
    watch: Arc<Watch>,
    /// What the watch knows the partition by.
    slot: u32,
    marked: AtomicBool,
    /// What this partition can still contribute to an answer.
    room_bytes: AtomicU64,
}

impl Registration {
    /// A registration that is not marked.
    pub(crate) fn new(watch: &Arc<Watch>, slot: u32, room_bytes: u64) -> Arc<Self> {
        let (marked, room_bytes) = (AtomicBool::new(false), AtomicU64::new(room_bytes));
        Arc::new(Self { watch: Arc::clone(watch), slot, marked, room_bytes })
    }

    /// Takes the mark back; from here on the next move marks again.
    pub(crate) fn unmark(&self) {
        self.marked.swap(false, Ordering::AcqRel);
    }

    /// Says how much the partition can contribute beyond what was counted.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.room_bytes.store(bytes, Ordering::Release);
    }

    fn mark(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            self.watch.marked.lock().push(self.slot);
        }
    }

    fn credit(&self, bytes: u64) {
        self.mark();
        let take = |room: u64| Some(room - bytes.min(room));
        let taken = self.room_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let credit = bytes.min(taken.unwrap_or(0));
        if credit > 0 {
            self.watch.credit(credit);
        }
    }

    fn disturb(&self) {
        self.mark();
        self.watch.disturbed.store(true, Ordering::Release);
        self.watch.signal.notify_waiters();
    }
}

/// Those who watch one partition.
#[derive(Default)]
pub(crate) struct Watchers {
    registered: Mutex<Vec<Arc<Registration>>>,
}

impl Watchers {
    /// Lets a registration know what moves.
    pub(crate) fn enter(&self, registration: &Arc<Registration>) {
        self.registered.lock().push(Arc::clone(registration));
    }

    /// Takes it out again.
    pub(crate) fn leave(&self, registration: &Arc<Registration>) {
        let mut registered = self.registered.lock();
        if let Some(at) = registered.iter().position(|other| Arc::ptr_eq(other, registration)) {
            registered.swap_remove(at);
        }
    }

    /// Marks the partition and credits `bytes` newly below the high watermark.
    pub(crate) fn credit(&self, bytes: u64) {
        self.registered.lock().iter().for_each(|registration| registration.credit(bytes));
    }

    /// Marks the partition and wakes every parked fetch: what it said before may not hold any more.
    pub(crate) fn disturb(&self) {
        self.registered.lock().iter().for_each(|registration| registration.disturb());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether whoever waits for `turn` would go on.
    fn wakes(watch: &Watch, turn: Turn) -> bool {
        let woken = std::pin::pin!(watch.woken(turn));
        woken.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    fn watched(room_bytes: u64) -> (Arc<Watch>, Watchers, Arc<Registration>) {
        let (watch, watchers) = (Arc::new(Watch::default()), Watchers::default());
        let registration = Registration::new(&watch, 7, room_bytes);
        watchers.enter(&registration);
        (watch, watchers, registration)
    }

    #[test]
    fn a_fetch_wakes_when_its_bytes_are_there_and_not_before() {
        let (watch, watchers, _) = watched(u64::MAX);
        let turn = watch.arm(1000);

        for _ in 0..9 {
            watchers.credit(100);
        }
        assert!(!wakes(&watch, turn));
        watchers.credit(100);

        assert!(wakes(&watch, turn));
    }

    #[tokio::test]
    async fn a_fetch_that_waits_is_told() {
        let (watch, watchers, _) = watched(u64::MAX);
        let turn = watch.arm(10);
        let waiting = tokio::spawn({
            let watch = Arc::clone(&watch);
            async move { watch.woken(turn).await }
        });
        tokio::task::yield_now().await;

        watchers.credit(10);

        waiting.await.unwrap();
    }

    #[test]
    fn a_partition_credits_no_more_than_it_can_contribute() {
        let (watch, small, _) = watched(600);
        let large = Watchers::default();
        large.enter(&Registration::new(&watch, 8, 600));
        let turn = watch.arm(1000);

        small.credit(5000);
        assert!(!wakes(&watch, turn));
        large.credit(400);

        assert!(wakes(&watch, turn));
    }

    #[test]
    fn what_was_credited_before_does_not_count() {
        let (watch, watchers, _) = watched(u64::MAX);
        watch.arm(10);
        watchers.credit(10);

        let turn = watch.arm(10);

        assert!(!wakes(&watch, turn));
    }

    #[test]
    fn a_partition_is_marked_once_however_often_it_moves() {
        let (watch, watchers, registration) = watched(0);

        watchers.credit(1);
        watchers.credit(1);
        assert_eq!(watch.take_marked(), [7]);
        // Taken from the list and not looked at yet: what moves now is seen when it is.
        watchers.credit(1);
        assert_eq!(watch.take_marked(), [0; 0]);

        registration.unmark();
        watchers.credit(1);

        assert_eq!(watch.take_marked(), [7]);
    }

    #[test]
    fn a_disturbance_wakes_whatever_is_lacking() {
        let (watch, watchers, _) = watched(u64::MAX);
        let turn = watch.arm(1000);

        watchers.disturb();

        assert!(wakes(&watch, turn));
        assert_eq!(watch.take_marked(), [7]);
    }

    #[test]
    fn a_later_turn_ends_the_wait_of_an_earlier_one() {
        let (watch, ..) = watched(u64::MAX);
        let earlier = watch.arm(1000);

        let later = watch.arm(1000);

        assert!(wakes(&watch, earlier));
        assert!(!wakes(&watch, later));
    }

    #[test]
    fn a_watch_that_left_hears_no_more() {
        let (watch, watchers, registration) = watched(u64::MAX);
        let turn = watch.arm(1);

        watchers.leave(&registration);
        watchers.credit(10);

        assert!(!wakes(&watch, turn));
        assert_eq!(watch.take_marked(), [0; 0]);
    }
}

#[cfg(all(test, highwater_loom))]
mod models {
    use loom::sync::Arc as Shared;
    use loom::thread;

    use super::*;
    use crate::sync::check;

    struct Place {
        watch: Arc<Watch>,
        watchers: Watchers,
        registration: Arc<Registration>,
        watermark: Mutex<u64>,
    }

    impl Place {
        fn new() -> Self {
            let (watch, watchers) = (Arc::new(Watch::default()), Watchers::default());
            let registration = Registration::new(&watch, 7, u64::MAX);
            watchers.enter(&registration);
            Self { watch, watchers, registration, watermark: Mutex::new(0) }
        }

        /// As `Partition::advance`.
        fn advance(&self) {
            *self.watermark.lock() += 1;
            self.watchers.credit(1);
        }

        /// The control: what is credited cannot be seen yet.
        fn advance_too_late(&self) {
            self.watchers.credit(1);
            *self.watermark.lock() += 1;
        }
    }

    /// A fetch for a byte: as `handler::fetch::run`, it reads, counts what it has read, and waits. One byte that comes at
    /// once, since loom lets two changes that race with a store forget it, which memory does not.
    fn a_fetch_for_a_byte(advance: fn(&Place)) {
        let place = Shared::new(Place::new());
        let writer = thread::spawn({
            let place = Shared::clone(&place);
            move || advance(&place)
        });
        let turn = place.watch.arm(1);
        let seen = *place.watermark.lock();
        place.watch.credit(seen);
        writer.join().unwrap();

        assert!(seen == 1 || place.watch.is_due(turn), "it has read nothing and sleeps");
    }

    #[test]
    fn a_parked_fetch_is_due_when_its_bytes_are_there() {
        check(|| a_fetch_for_a_byte(Place::advance));
    }

    #[test]
    #[should_panic(expected = "read nothing and sleeps")]
    fn control_bytes_that_are_credited_before_they_are_visible_leave_a_fetch_asleep() {
        check(|| a_fetch_for_a_byte(Place::advance_too_late));
    }

    /// A session looks at marked partitions only, once, while the watermark moves.
    fn a_session_looks_at_what_is_marked(advance: fn(&Place)) {
        let place = Shared::new(Place::new());
        let writer = thread::spawn({
            let place = Shared::clone(&place);
            move || advance(&place)
        });
        let mut seen = 0;
        let mut look = || {
            if !place.watch.take_marked().is_empty() {
                place.registration.unmark();
                seen = *place.watermark.lock();
            }
        };
        look();
        writer.join().unwrap();
        look();

        assert_eq!(seen, 1, "it moved and is not marked");
    }

    #[test]
    fn what_moved_is_marked_until_it_is_looked_at() {
        check(|| a_session_looks_at_what_is_marked(Place::advance));
    }

    #[test]
    #[should_panic(expected = "moved and is not marked")]
    fn control_a_mark_that_is_set_too_early_is_lost() {
        check(|| a_session_looks_at_what_is_marked(Place::advance_too_late));
    }
}
