//! The search of one piece of a segment for `segment grep`: which batches are looked into, and what is handed over.
//!
//! What is found leaves as text in the style that is printed, in parts of [`TEXT_BYTES`], so that no batch is held for
//! long. With context, records around a match go along, and those at both ends of a piece: only who prints knows
//! what the piece beside it found.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Result;
use highwater_record::{Codec, HEADER_BYTES, MessageFormat, RecordsBuf};
use highwater_storage::{Damage, DamageKind, SalvageScan, ScanError, ScannedBatch};

use super::internal::{Decoder, Decoders};
use super::matcher::Matcher;
use super::parallel::Sink;
use super::pieces::Piece;
use super::progress::Progress;
use super::span::LIMITS;
use super::walk;
use crate::printer::Style;
use crate::record_view::{LogState, RecordView};

/// Text that is handed over at a time.
const TEXT_BYTES: usize = 64 << 10;

/// What is to be done to each piece.
pub(super) struct Search {
    pub(super) matcher: Matcher,
    pub(super) style: Style,
    /// How much context is wanted.
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) counts_only: bool,
    /// Compares every checksum.
    pub(super) verifies: bool,
    pub(super) decoders: Decoders,
    pub(super) progress: Option<Progress>,
}

/// What comes of a piece, in parts.
pub(super) enum Found {
    /// Records, printed ones and those around them.
    Text(Text),
    /// So many match.
    Count(u64),
    /// Something is damaged. Whether a good batch is known to follow.
    Damage { fault: String, is_followed: bool },
}

/// Records as text.
#[derive(Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Where each record ends, and whether it matches.
    pub(super) records: Vec<(usize, bool)>,
    /// Whether records were left out before the first.
    pub(super) is_apart: bool,
}

impl Search {
    /// Searches a piece.
    pub(super) fn piece(&self, piece: &Piece<'_>, sink: &Sink<Found>) -> Result<()> {
        // A clone has scratch memory of its own, which threads would otherwise pass around.
        let matcher = self.matcher.clone();
        let mut hunt = Hunt {
            search: self,
            matcher: &matcher,
            piece,
            decoder: self.decoders.of(&piece.files.topic),
            scan: piece.open()?,
            sink,
            text: Text::default(),
            count: 0,
            recent: VecDeque::new(),
            recent_records: 0,
            // The piece before may end with a match.
            after_left: self.after,
        };
        let _ = hunt.run()?;
        Ok(())
    }
}

/// The search of a piece.
struct Hunt<'a> {
    search: &'a Search,
    matcher: &'a Matcher,
    piece: &'a Piece<'a>,
    decoder: Option<Arc<Decoder>>,
    scan: SalvageScan,
    sink: &'a Sink<Found>,
    text: Text,
    count: u64,
    /// Batches without a match that the next match may want as context.
    recent: VecDeque<ScannedBatch>,
    recent_records: usize,
    /// Records after the last match that are wanted as context.
    after_left: usize,
}

impl Hunt<'_> {
    fn run(&mut self) -> Result<ControlFlow<()>> {
        while let Some(step) = self.scan.next() {
            let flow = match step? {
                highwater_storage::Piece::Damaged(damage) => self.damage(&damage),
                highwater_storage::Piece::Good(batch) => {
                    if let Some(progress) = &self.search.progress {
                        progress.add(batch.header.size_bytes.into());
                    }
                    if self.piece.range.stop.is_some_and(|stop| batch.header.base_offset >= stop) {
                        break;
                    }
                    let is_before = batch.header.last_offset() < self.piece.range.start;
                    if is_before || batch.header.attributes.is_control() {
                        continue;
                    }
                    self.batch(&batch)?
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        if self.search.counts_only {
            return Ok(self.sink.put(Found::Count(self.count)));
        }
        // The next piece may begin with a match.
        if self.emit_recent()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(if self.text.is_apart { self.put_text() } else { self.flush() })
    }

    fn damage(&mut self, damage: &Damage) -> ControlFlow<()> {
        let Damage { from_position, to_position, cause, kind, .. } = damage;
        if !walk::is_loss(damage) || walk::is_before(damage, &self.piece.range) {
            return ControlFlow::Continue(());
        }
        let fault = format!("position {from_position}: {cause} (bytes up to {to_position} are not searched)");
        self.say(Found::Damage { fault, is_followed: *kind == DamageKind::Middle })
    }

    /// Says what is wrong inside a batch.
    fn say_batch(&mut self, fault: String) -> ControlFlow<()> {
        self.say(Found::Damage { fault, is_followed: false })
    }

    /// In the order of what was found before.
    fn say(&mut self, damage: Found) -> ControlFlow<()> {
        if self.flush().is_break() {
            return ControlFlow::Break(());
        }
        self.sink.put(damage)
    }

    fn batch(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        let is_plain = batch.header.attributes.codec() == Some(Codec::None);
        if is_plain && !self.search.verifies {
            // In an entry of an old format the key begins sooner than a batch header would end.
            let records_at = if batch.format == MessageFormat::V2 { HEADER_BYTES } else { 0 };
            let bytes = self.scan.bytes(batch)?;
            if !self.matcher.may_match(bytes.get(records_at..).unwrap_or_default()) {
                return self.pass(batch);
            }
        }
        let buffer = match self.read(batch)? {
            Ok(buffer) => buffer,
            Err(fault) => return Ok(self.say_batch(fault)),
        };
        if !self.matcher.may_match(buffer.payload()) {
            return self.pass(batch);
        }
        let mut matching = Vec::new();
        for record in buffer.records() {
            match record {
                Ok(record) => matching.push(self.matcher.matches(&record)),
                Err(error) => return Ok(self.say_batch(format!("position {}: {error}", batch.position))),
            }
        }
        if !matching.contains(&true) {
            return self.pass(batch);
        }
        if self.search.before > 0 && self.emit_recent()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let after_last = matching.iter().rev().take_while(|matches| !**matches).count();
        self.after_left = self.search.after.saturating_sub(after_last);
        Ok(self.emit(batch, &buffer, &matching))
    }

    /// The records of a batch whose checksum holds, or what is wrong with it.
    fn read(&self, batch: &ScannedBatch) -> Result<Result<RecordsBuf, String>> {
        match self.scan.read(batch) {
            Ok(whole) => {
                Ok(whole.decompress(LIMITS).map_err(|error| format!("position {}: {error}", batch.position)))
            }
            Err(error @ ScanError::Fault { .. }) => Ok(Err(error.to_string())),
            Err(error @ ScanError::Io { .. }) => Err(error.into()),
        }
    }

    /// A batch without a match: it may be context.
    fn pass(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        let records = batch.header.record_count as usize;
        let has_context = self.search.before + self.search.after > 0;
        if self.search.counts_only || !has_context || records == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if self.after_left > 0 {
            self.after_left = self.after_left.saturating_sub(records);
            return self.emit_context(batch);
        }
        self.recent.push_back(*batch);
        self.recent_records += records;
        while let Some(first) = self.recent.front()
            && self.recent_records - first.header.record_count as usize >= self.search.before
        {
            self.recent_records -= first.header.record_count as usize;
            self.recent.pop_front();
            if self.flush().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.text.is_apart = true;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn emit_recent(&mut self) -> Result<ControlFlow<()>> {
        self.recent_records = 0;
        while let Some(batch) = self.recent.pop_front() {
            if self.emit_context(&batch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands over a batch without a match.
    fn emit_context(&mut self, batch: &ScannedBatch) -> Result<ControlFlow<()>> {
        Ok(match self.read(batch)? {
            Ok(buffer) => self.emit(batch, &buffer, &[]),
            Err(fault) => self.say_batch(fault),
        })
    }

    /// Hands over the records of a batch: those that match, and if there is context, all.
    fn emit(&mut self, batch: &ScannedBatch, buffer: &RecordsBuf, matching: &[bool]) -> ControlFlow<()> {
        let has_context = self.search.before + self.search.after > 0;
        let range = &self.piece.range;
        for (index, record) in buffer.records().enumerate() {
            let Ok(record) = record else { break };
            let matches = matching.get(index).is_some_and(|matches| *matches);
            let is_wanted =
                record.offset >= range.start && range.stop.is_none_or(|stop| record.offset < stop);
            if !is_wanted || !(matches || has_context) {
                continue;
            }
            self.count += u64::from(matches);
            if self.search.counts_only {
                continue;
            }
            let view = RecordView {
                topic: &self.piece.files.topic,
                partition: self.piece.files.partition,
                record: &record,
                batch: &batch.header,
                log: LogState {
                    start: self.piece.files.segments[0].base.get(),
                    last_stable: -1,
                    high_watermark: -1,
                },
                decoded: self.decoder.as_ref().and_then(|decoder| decoder.decode(&record, false)),
            };
            self.search.style.write(&mut self.text.bytes, &view, 0);
            self.text.records.push((self.text.bytes.len(), matches));
            if self.text.bytes.len() >= TEXT_BYTES && self.flush().is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if self.text.records.is_empty() {
            return ControlFlow::Continue(());
        }
        self.put_text()
    }

    fn put_text(&mut self) -> ControlFlow<()> {
        self.sink.put(Found::Text(std::mem::take(&mut self.text)))
    }
}
