//! What a repair of one partition would do: which bytes stay, which offsets are lost, which indexes are written anew.
//!
//! Reads only. A batch that holds together stays byte for byte, at its offset. In the place of offsets that are lost
//! stands a batch without records, so that those that are left follow each other and consumers step over the loss.
//! Offsets that nobody misses, as compaction leaves them, are no loss. A tail that was never complete is dropped, up to
//! what the broker is known to have synced. No CRC covers a base offset: where neither the batch before nor the one behind
//! is good, that of a good batch is believed unless it is absurd.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use highwater_record::{BatchHeader, Offset};
use highwater_storage::{Crcs, Damage, DamageKind, EpochBook, Piece, SalvageScan, ScannedBatch};

use super::super::files::{PartitionFiles, SegmentFile};
use super::super::index::IndexState;
use super::super::index_check::IndexChecks;

/// What is done about damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::segment) enum Policy {
    /// Bad batches are left out, what follows them stays.
    Skip,
    /// The log ends before the first of them, as Kafka's recovery does it.
    Truncate,
    /// Segments stay as they are.
    IndexesOnly,
}

/// The repair of one partition.
#[derive(Debug)]
pub(in crate::segment) struct Plan {
    pub(in crate::segment) dir: PathBuf,
    pub(in crate::segment) topic: String,
    pub(in crate::segment) partition: i32,
    pub(in crate::segment) segments: Vec<SegmentPlan>,
    /// Offsets that are lost, in order.
    pub(in crate::segment) losses: Vec<Loss>,
    pub(in crate::segment) epochs: EpochBook,
    /// What is there instead of an epoch file that cannot be used.
    pub(in crate::segment) epochs_wrong: bool,
}

/// The repair of one segment.
#[derive(Debug)]
pub(in crate::segment) struct SegmentPlan {
    pub(in crate::segment) file: SegmentFile,
    pub(in crate::segment) bytes: u64,
    /// Where the batches of the last segment end, if nothing but zeros follows them: room that was allocated ahead. It
    /// is no damage, and stays unless the file is written anew for another reason.
    zeros_from: Option<u64>,
    /// What the file becomes, in order.
    pub(in crate::segment) parts: Vec<Part>,
    pub(in crate::segment) kept_records: u64,
    pub(in crate::segment) kept_bytes: u64,
    pub(in crate::segment) end: Offset,
    /// A batch that stays has a timestamp; format 0 has none, and Kafka kept no time index for it.
    is_timed: bool,
    /// The first batch that stays.
    first: Option<BatchHeader>,
    /// The offset index and the time index.
    pub(in crate::segment) indexes: [IndexState; 2],
    /// All of it goes, since the log ends before.
    pub(in crate::segment) goes: bool,
}

/// A part of a segment as it will be.
#[derive(Clone, Debug)]
pub(in crate::segment) enum Part {
    /// Bytes of the file as it is.
    Kept(Range<u64>),
    /// A batch without records for offsets that are lost, in the epoch and time of the batch beside them.
    Empty { offsets: Range<Offset>, like: Option<BatchHeader> },
}

/// Bytes that do not stay, and the offsets that they cost.
#[derive(Clone, Debug)]
pub(in crate::segment) struct Loss {
    /// Base offset of the segment.
    pub(in crate::segment) segment: Offset,
    pub(in crate::segment) path: PathBuf,
    pub(in crate::segment) bytes: Range<u64>,
    /// Empty where bytes go that hold no offset of their own.
    pub(in crate::segment) offsets: Range<Offset>,
    /// An empty batch stands for them, so that nothing is given these offsets again.
    pub(in crate::segment) filled: bool,
    pub(in crate::segment) action: &'static str,
    pub(in crate::segment) cause: String,
}

impl SegmentPlan {
    /// Whether the `.log` file becomes another one.
    pub(in crate::segment) fn is_rewritten(&self) -> bool {
        let end = self.zeros_from.unwrap_or(self.bytes);
        match self.parts.as_slice() {
            [] => end > 0,
            [Part::Kept(all)] => *all != (0..end),
            _ => true,
        }
    }

    /// Whether indexes are written anew.
    pub(in crate::segment) fn is_reindexed(&self) -> bool {
        self.is_rewritten() || self.indexes.iter().any(|state| *state != IndexState::Good)
    }
}

impl Plan {
    /// Whether there is something to do.
    pub(in crate::segment) fn is_due(&self) -> bool {
        self.epochs_wrong || self.segments.iter().any(|segment| segment.goes || segment.is_reindexed())
    }

    /// Whether a `.log` file changes.
    pub(in crate::segment) fn changes_segments(&self) -> bool {
        self.segments.iter().any(|segment| segment.goes || segment.is_rewritten())
    }
}

/// Plans the repair of a partition. Everything below `synced` was there once, as far as the broker knows.
pub(in crate::segment) fn plan(files: &PartitionFiles, policy: Policy, synced: Offset) -> Result<Plan> {
    let dir = files.segments.first().and_then(|first| first.path.parent()).unwrap_or(Path::new("/"));
    let mut plan = Plan {
        dir: dir.to_owned(),
        topic: files.topic.clone(),
        partition: files.partition,
        segments: Vec::new(),
        losses: Vec::new(),
        epochs: EpochBook::default(),
        epochs_wrong: false,
    };
    let mut walk =
        Walk { policy, last: None, open: false, ended: false, is_compacted: dir.join("compacted").exists() };
    for file in &files.segments {
        let segment =
            walk.segment(file, &mut plan).with_context(|| format!("read {}", file.path.display()))?;
        plan.segments.push(segment);
    }
    if policy != Policy::IndexesOnly {
        walk.reach(&mut plan, synced);
        Walk::fill(&mut plan);
    }
    let stored = std::fs::read_to_string(dir.join("leader-epoch-checkpoint"));
    let is_changed = |text: &String| !plan.epochs.agrees_with(text);
    let is_damaged = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
    // Of some segments alone nobody can tell the epochs of the log.
    let is_whole =
        super::super::files::find(dir)?.iter().all(|all| all.segments.len() == files.segments.len());
    plan.epochs_wrong =
        is_whole && plan.epochs.text().is_some() && stored.as_ref().map_or_else(is_damaged, is_changed);
    Ok(plan)
}

/// Offsets that an empty batch can stand for, which is also how far off a batch may be that nothing vouches for.
const OFFSETS_MAX: i64 = i32::MAX as i64;

/// Whether a batch is too far off, in a place where no other would say so: no CRC covers its base offset.
fn is_absurd(header: &BatchHeader, end: Offset) -> bool {
    header.base_offset.get().saturating_sub(end.get()) > OFFSETS_MAX
}

/// What is known between segments.
struct Walk {
    policy: Policy,
    /// The last good batch.
    last: Option<BatchHeader>,
    /// The last loss is of damage, and what comes next says which offsets it cost.
    open: bool,
    /// The log ends here; segments after it go.
    ended: bool,
    /// Gaps are what compaction leaves.
    is_compacted: bool,
}

impl Walk {
    fn segment(&mut self, file: &SegmentFile, plan: &mut Plan) -> Result<SegmentPlan> {
        let scan = SalvageScan::open(&file.path, file.base, file.next_base, Crcs::Compared)?;
        let mut segment = SegmentPlan {
            file: file.clone(),
            bytes: scan.end_position(),
            zeros_from: None,
            parts: Vec::new(),
            kept_records: 0,
            kept_bytes: 0,
            end: file.base,
            is_timed: false,
            first: None,
            indexes: [IndexState::Good; 2],
            goes: self.ended,
        };
        let mut indexes = IndexChecks::open(file)?;
        let mut pieces = scan.peekable();
        while let Some(piece) = pieces.next() {
            let is_last = file.next_base.is_none() && pieces.peek().is_none();
            match piece? {
                Piece::Good(_) if self.ended => {}
                Piece::Good(batch) if is_last && is_absurd(&batch.header, segment.end) => {
                    self.doubt(&batch, &segment, plan);
                }
                Piece::Good(batch) => {
                    self.close(batch.header.base_offset, &mut segment, plan);
                    self.note(&batch.header, &segment);
                    plan.epochs.add(&batch.header);
                    segment.keep(batch.position, &batch.header);
                    indexes.batch(&batch)?;
                    self.last = Some(batch.header);
                }
                // Indexes lead past it.
                Piece::Damaged(_) if self.policy == Policy::IndexesOnly => {}
                Piece::Damaged(damage) => {
                    indexes.damage(&damage)?;
                    if damage.kind == DamageKind::ZeroTail && file.next_base.is_none() && !self.open {
                        segment.zeros_from = Some(damage.from_position);
                        continue;
                    }
                    self.damage(&damage, &segment, plan);
                }
            }
        }
        if self.ended {
            self.cut(&segment, plan);
            return Ok(segment);
        }
        if self.policy == Policy::IndexesOnly {
            segment.parts = vec![Part::Kept(0..segment.bytes)];
        }
        segment.indexes = indexes.finish(segment.end)?;
        if !segment.is_timed && segment.indexes[1] == IndexState::Missing {
            segment.indexes[1] = IndexState::Good;
        }
        if self.policy != Policy::IndexesOnly
            && let Some(next) = file.next_base
        {
            self.close(next, &mut segment, plan);
            self.gap(&mut segment, next, plan);
        }
        Ok(segment)
    }

    /// Sees by a batch whether the log is compacted.
    fn note(&mut self, header: &BatchHeader, segment: &SegmentPlan) {
        let is_thin = header.record_count > 0 && header.record_count <= header.last_offset_delta;
        let is_behind_gap =
            header.base_offset > segment.end && !matches!(segment.parts.last(), Some(Part::Empty { .. }));
        self.is_compacted |= is_thin || is_behind_gap || header.attributes.has_delete_horizon();
    }

    fn damage(&mut self, damage: &Damage, segment: &SegmentPlan, plan: &mut Plan) {
        let path = segment.file.path.clone();
        if self.ended {
            return;
        }
        let bytes = damage.from_position..damage.to_position;
        let is_tail = matches!(damage.kind, DamageKind::Tail | DamageKind::TornTail | DamageKind::ZeroTail);
        if self.policy == Policy::Truncate {
            self.ended = true;
        }
        let action = match damage.kind {
            _ if self.ended => "truncate",
            DamageKind::Beyond => "drop what the next segment has",
            _ if is_tail => "drop tail",
            _ => "skip",
        };
        // What a damaged header claims is told, unless it is absurd; what comes next decides.
        let claimed = Some(damage.to).filter(|to| to.get() - segment.end.get() <= OFFSETS_MAX);
        let offsets = segment.end..claimed.unwrap_or_default().max(segment.end);
        let (base, cause) = (segment.file.base, damage.cause.to_string());
        if self.open
            && let Some(before) = plan.losses.last_mut()
        {
            // Both cost the same offsets, which are told once.
            before.offsets.end = before.offsets.start;
        }
        plan.losses.push(Loss { segment: base, path, bytes, offsets, filled: false, action, cause });
        self.open = !self.ended;
    }

    /// Takes note of a last batch that is too far off for what is before it.
    fn doubt(&mut self, batch: &ScannedBatch, segment: &SegmentPlan, plan: &mut Plan) {
        let end = batch.position + u64::from(batch.header.size_bytes);
        plan.losses.push(Loss {
            segment: segment.file.base,
            path: segment.file.path.clone(),
            bytes: batch.position..end,
            offsets: segment.end..segment.end,
            filled: false,
            action: "drop tail",
            cause: format!(
                "base offset is {}, the batch before ends at {}, and nothing follows it",
                batch.header.base_offset, segment.end
            ),
        });
    }

    /// Ends the damage that is open: the offsets up to `to` are lost, and an empty batch stands for them.
    fn close(&mut self, to: Offset, segment: &mut SegmentPlan, plan: &mut Plan) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let offsets = segment.end..to.max(segment.end);
        let Some(loss) = plan.losses.last_mut() else { return };
        loss.offsets = offsets.clone();
        loss.filled = segment.bridge(offsets, self.last);
    }

    /// What a segment loses because the log ends in it or before it.
    fn cut(&self, segment: &SegmentPlan, plan: &mut Plan) {
        if segment.goes {
            plan.losses.push(Loss {
                segment: segment.file.base,
                path: segment.file.path.clone(),
                bytes: 0..segment.bytes,
                offsets: segment.file.base..segment.file.next_base.unwrap_or(segment.file.base),
                filled: false,
                action: "remove",
                cause: "the log ends before it".to_owned(),
            });
        } else if let Some(loss) = plan.losses.last_mut() {
            loss.bytes.end = segment.bytes;
            loss.offsets.end = loss.offsets.end.max(segment.file.next_base.unwrap_or(loss.offsets.end));
        }
    }

    /// Offsets between the end of a segment and the next one, of which there are no bytes.
    fn gap(&self, segment: &mut SegmentPlan, next: Offset, plan: &mut Plan) {
        if segment.end >= next || self.is_compacted {
            return;
        }
        let offsets = segment.end..next;
        let cause = format!("the file ends at offset {}, the next segment begins at {next}", segment.end);
        if !segment.bridge(offsets.clone(), self.last) {
            return;
        }
        plan.losses.push(Loss {
            segment: segment.file.base,
            path: segment.file.path.clone(),
            bytes: segment.bytes..segment.bytes,
            offsets,
            filled: true,
            action: "fill",
            cause,
        });
    }

    /// Bridges from the end to what was synced.
    fn reach(&self, plan: &mut Plan, synced: Offset) {
        let ends_early = plan.segments.last().is_some_and(|last| !last.goes && last.end < synced);
        if ends_early
            && !self.ended
            && let Some(last) = plan.segments.last_mut()
        {
            let offsets = last.end..synced;
            let end = last.end;
            if !last.bridge(offsets.clone(), self.last) {
                return;
            }
            let open = plan.losses.last_mut().filter(|loss| loss.segment == last.file.base && !loss.filled);
            match open {
                Some(loss) => (loss.offsets, loss.filled) = (offsets, true),
                None => plan.losses.push(Loss {
                    segment: last.file.base,
                    path: last.file.path.clone(),
                    bytes: last.bytes..last.bytes,
                    offsets,
                    filled: true,
                    action: "fill",
                    cause: format!("the log ends at offset {}, it was synced up to {synced}", end),
                }),
            }
        }
    }

    /// Gives the batches without records something beside them to be like.
    fn fill(plan: &mut Plan) {
        // Before the first good batch there is only one behind. Without any there is nothing to step over.
        let first = plan.segments.iter().find_map(|segment| segment.first);
        for segment in &mut plan.segments {
            segment.parts.retain_mut(|part| match part {
                Part::Empty { like, .. } => {
                    *like = like.or(first);
                    like.is_some()
                }
                Part::Kept(_) => true,
            });
        }
        plan.losses.iter_mut().for_each(|loss| loss.filled &= first.is_some());
    }
}

impl SegmentPlan {
    /// Puts an empty batch in the place of offsets, or leaves a gap if they are more than one can stand for: whatever a
    /// damaged header says, it makes no work without bound.
    fn bridge(&mut self, offsets: Range<Offset>, like: Option<BatchHeader>) -> bool {
        let count = offsets.end.get().saturating_sub(offsets.start.get());
        let is_bridged = (1..=OFFSETS_MAX).contains(&count);
        if is_bridged {
            self.end = offsets.end;
            self.parts.push(Part::Empty { offsets, like });
        }
        is_bridged
    }

    fn keep(&mut self, position: u64, header: &BatchHeader) {
        let end = position + u64::from(header.size_bytes);
        match self.parts.last_mut() {
            Some(Part::Kept(range)) if range.end == position => range.end = end,
            _ => self.parts.push(Part::Kept(position..end)),
        }
        self.first.get_or_insert(*header);
        self.is_timed |= header.max_timestamp.0 >= 0;
        self.kept_bytes += u64::from(header.size_bytes);
        self.kept_records += u64::from(header.record_count);
        self.end = header.next_offset();
    }
}
