//! A map that is made when it is first needed and may be given up again.
//!
//! Readers load a pointer and take no lock. Whoever holds the map keeps it; the address range is gone when nobody does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;

use crate::map::SegmentMap;
use crate::pool::{FilePool, LetGo, Marks, Reopenable};

#[derive(Debug)]
pub(crate) struct MapSlot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Option<Arc<FilePool>>,
    map: ArcSwapOption<SegmentMap>,
    opening: Mutex<()>,
    /// There is no map to be had, and it is not asked for again.
    refused: AtomicBool,
    marks: Marks,
}

impl MapSlot {
    pub(crate) fn new(pool: Option<Arc<FilePool>>) -> Self {
        Self(Arc::new(Inner {
            pool,
            map: ArcSwapOption::empty(),
            opening: Mutex::new(()),
            refused: AtomicBool::new(false),
            marks: Marks::default(),
        }))
    }

    /// The map, made by `open` if there is none; `None` if there is none to be had.
    pub(crate) fn get(
        &self,
        open: impl FnOnce() -> io::Result<Option<SegmentMap>>,
    ) -> Guard<Option<Arc<SegmentMap>>> {
        let inner = &self.0;
        let map = inner.map.load();
        if map.is_some() {
            inner.marks.note_use();
            return map;
        }
        if inner.refused.load(Ordering::Relaxed) {
            return map;
        }
        let _one_at_a_time = inner.opening.lock();
        if inner.map.load().is_none() {
            if let Some(pool) = &inner.pool {
                pool.maps.admit(inner);
            }
            match open() {
                Ok(Some(map)) => inner.map.store(Some(Arc::new(map))),
                Ok(None) | Err(_) => inner.refuse(),
            }
        }
        inner.map.load()
    }
}

impl Inner {
    fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
        self.release();
    }

    fn release(&self) {
        if let Some(pool) = &self.pool {
            pool.maps.release();
        }
    }
}

impl Reopenable for Inner {
    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn let_go(&self) -> LetGo {
        let Some(_one_at_a_time) = self.opening.try_lock() else { return LetGo::InUse };
        if self.map.swap(None).is_some() { LetGo::Done } else { LetGo::Nothing }
    }

    fn sync_and_let_go(&self) -> LetGo {
        self.let_go()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.map.load().is_some() {
            self.release();
        }
    }
}
