//! What a walk past damage makes of a segment file: which batches are good, and what was lost between them.

use std::io::Write as _;
use std::ops::Range;

use highwater_record::{BatchBuilder, BatchHeader, Codec, HEADER_BYTES, LeaderEpoch, NewRecord, Offset};
use tempfile::NamedTempFile;

use super::support::{NOW, offset};
use crate::{Crcs, Damage, DamageKind, Piece, SalvageScan, Stretch};

/// Records of a batch.
const RECORDS: i64 = 10;
/// Batches of a file.
const BATCHES: i64 = 5;

/// Five batches of ten records; the values of each are longer than those of the one before.
fn batches() -> Vec<Vec<u8>> {
    (0..BATCHES).map(|number| batch(number * RECORDS, &[b'v'; 9][..number as usize])).collect()
}

fn batch(base: i64, value: &[u8]) -> Vec<u8> {
    let builder = BatchBuilder::new(Codec::None);
    let mut builder = builder.base_offset(offset(base)).leader_epoch(LeaderEpoch::ZERO);
    for _ in 0..RECORDS {
        builder.append(&NewRecord { timestamp: NOW, key: None, value: Some(value), headers: &[] }).unwrap();
    }
    builder.build().unwrap().into()
}

/// Where each batch begins, and where the last one ends.
fn starts(batches: &[Vec<u8>]) -> Vec<usize> {
    batches.iter().fold(vec![0], |mut starts, batch| {
        starts.push(starts.last().unwrap() + batch.len());
        starts
    })
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn pieces(bytes: &[u8], next_base: Option<i64>, crcs: Crcs) -> Vec<Piece> {
    let file = file(bytes);
    let scan = SalvageScan::open(file.path(), Offset::ZERO, next_base.map(offset), crcs).unwrap();
    scan.map(Result::unwrap).collect()
}

/// Base offsets of the good batches.
fn good(pieces: &[Piece]) -> Vec<i64> {
    let base = |piece: &Piece| match piece {
        Piece::Good(batch) => Some(batch.header.base_offset.get()),
        Piece::Damaged(_) => None,
    };
    pieces.iter().filter_map(base).collect()
}

fn damage(pieces: &[Piece]) -> Vec<Damage> {
    let damage = |piece: &Piece| match piece {
        Piece::Good(_) => None,
        Piece::Damaged(damage) => Some(*damage),
    };
    pieces.iter().filter_map(damage).collect()
}

/// The one damage that there is, as what it looks like, its positions and its offsets.
#[track_caller]
fn only(pieces: &[Piece]) -> (DamageKind, Range<u64>, Range<i64>) {
    let all = damage(pieces);
    let [damage] = all[..] else { panic!("{all:?}") };
    (damage.kind, damage.from_position..damage.to_position, damage.from.get()..damage.to.get())
}

#[test]
fn a_flipped_bit_costs_the_batch_it_hit_and_no_other() {
    let batches = batches();
    let (good_bytes, starts) = (batches.concat(), starts(&batches));
    let (start, end) = (starts[2], starts[3]);
    // No CRC covers the epoch, and nothing depends on it.
    for at in (start..end).filter(|at| !(start + 12..start + 16).contains(at)) {
        for bit in 0..8 {
            let mut bytes = good_bytes.clone();
            bytes[at] ^= 1 << bit;

            let found = pieces(&bytes, Some(50), Crcs::Compared);

            let lost = (DamageKind::Middle, start as u64..end as u64, 20..30);
            assert_eq!(
                (good(&found), only(&found)),
                (vec![0, 10, 30, 40], lost),
                "bit {bit} of {}",
                at - start
            );
        }
    }
}

#[test]
fn headers_alone_tell_of_a_wrong_length_or_offset() {
    let batches = batches();
    let (good_bytes, starts) = (batches.concat(), starts(&batches));
    let lost = (DamageKind::Middle, starts[2] as u64..starts[3] as u64, 20..30);
    for at in 0..12 {
        let mut bytes = good_bytes.clone();
        bytes[starts[2] + at] ^= 1;

        let found = pieces(&bytes, Some(50), Crcs::Left);

        assert_eq!((good(&found), only(&found)), (vec![0, 10, 30, 40], lost.clone()), "byte {at}");
    }
    let mut bytes = good_bytes;
    bytes[starts[3] - 1] ^= 1;
    assert_eq!(good(&pieces(&bytes, Some(50), Crcs::Left)), [0, 10, 20, 30, 40]);
}

#[test]
fn a_batch_that_is_gone_is_named_by_its_offsets() {
    let batches = batches();
    let starts = starts(&batches);
    let mut bytes = batches.concat();
    bytes[starts[1]..starts[3]].fill(0xaa);

    let found = pieces(&bytes, Some(50), Crcs::Compared);

    assert_eq!(good(&found), [0, 30, 40]);
    assert_eq!(only(&found), (DamageKind::Middle, starts[1] as u64..starts[3] as u64, 10..30));
}

#[test]
fn every_byte_belongs_to_one_piece_wherever_a_file_is_cut_or_hit() {
    let whole = batches().concat();
    for at in 0..whole.len() {
        for crcs in [Crcs::Compared, Crcs::Left] {
            let mut bytes = whole.clone();
            bytes[at] = !bytes[at];
            for (bytes, next_base) in [(&bytes[..], None), (&bytes[..], Some(50)), (&whole[..at], None)] {
                let mut end = 0;
                for piece in pieces(bytes, next_base, crcs) {
                    let (from, to) = match piece {
                        Piece::Good(batch) => {
                            (batch.position, batch.position + u64::from(batch.header.size_bytes))
                        }
                        Piece::Damaged(damage) => (damage.from_position, damage.to_position),
                    };
                    assert_eq!((from, from < to), (end, true), "byte {at}, {crcs:?}");
                    end = to;
                }
                assert_eq!(end, bytes.len() as u64, "byte {at}, {crcs:?}");
            }
        }
    }
}

#[test]
fn a_tail_is_told_from_damage() {
    let batches = batches();
    let (whole, starts) = (batches.concat(), starts(&batches));
    let (last, end) = (starts[4] as u64, whole.len() as u64);

    let torn = pieces(&whole[..whole.len() - 1], None, Crcs::Compared);
    assert_eq!(only(&torn), (DamageKind::TornTail, last..end - 1, 40..50));
    let shorter = pieces(&whole[..starts[4] + HEADER_BYTES - 1], None, Crcs::Compared);
    assert_eq!(only(&shorter), (DamageKind::TornTail, last..last + 60, 40..40));

    let zeros = [&whole[..], &[0; 300_000]].concat();
    let zero = pieces(&zeros, None, Crcs::Compared);
    assert_eq!(only(&zero), (DamageKind::ZeroTail, end..end + 300_000, 50..50));
    // A hole in the middle is no tail.
    let holed = [&whole[..starts[3]], &vec![0; starts[4] - starts[3]], &batches[4]].concat();
    assert_eq!(only(&pieces(&holed, None, Crcs::Compared)).0, DamageKind::Middle);

    let garbage = [&whole[..], &[7; 100]].concat();
    assert_eq!(only(&pieces(&garbage, None, Crcs::Compared)).0, DamageKind::Tail);

    let beyond = pieces(&whole, Some(30), Crcs::Compared);
    assert_eq!(good(&beyond), [0, 10, 20]);
    assert_eq!(only(&beyond), (DamageKind::Beyond, starts[3] as u64..end, 30..30));
}

#[test]
fn a_log_with_gaps_is_good_and_its_liars_are_found() {
    let batches: Vec<_> = [0, 30, 70, 120].into_iter().map(|base| batch(base, b"v")).collect();
    let (whole, starts) = (batches.concat(), starts(&batches));
    assert_eq!(good(&pieces(&whole, None, Crcs::Compared)), [0, 30, 70, 120]);

    for (base, lost) in [(90i64, 40..120), (35, 40..120)] {
        let mut bytes = whole.clone();
        bytes[starts[2]..starts[2] + 8].copy_from_slice(&base.to_be_bytes());
        let found = pieces(&bytes, None, Crcs::Compared);
        match base {
            // It may well be there.
            90 => assert_eq!(good(&found), [0, 30, 90, 120]),
            _ => assert_eq!(only(&found), (DamageKind::Middle, starts[2] as u64..starts[3] as u64, lost)),
        }
    }
    // One that is too large is told by what comes behind it, not taken for the only true one.
    let mut bytes = whole;
    bytes[starts[1]..starts[1] + 8].copy_from_slice(&115i64.to_be_bytes());
    let found = pieces(&bytes, None, Crcs::Compared);
    assert_eq!(good(&found), [0, 70, 120]);
    assert_eq!(only(&found).2, 10..70);
}

#[test]
fn a_batch_inside_a_record_is_not_taken_for_one_of_the_log() {
    let inner = batch(30, b"inner");
    let batches = [batch(0, b"v"), batch(10, &inner), batch(20, b"v")];
    let starts = starts(&batches);
    let mut bytes = batches.concat();
    *bytes[..starts[2]].last_mut().unwrap() ^= 1;

    let found = pieces(&bytes, None, Crcs::Compared);

    assert_eq!(good(&found), [0, 20]);
    assert_eq!(only(&found).1, starts[1] as u64..starts[2] as u64);
}

#[test]
fn stretches_find_what_the_whole_finds() {
    let batches = batches();
    let (mut bytes, starts) = (batches.concat(), starts(&batches));
    bytes[starts[2] - 1] ^= 1;
    let file = file(&bytes);
    let stretch = |from: usize, to: usize, is_followed| Stretch {
        bytes: starts[from] as u64..starts[to] as u64,
        offsets: offset(from as i64 * RECORDS)..offset(to as i64 * RECORDS),
        is_followed,
    };
    let walk = |stretch| SalvageScan::open_stretch(file.path(), stretch, Crcs::Compared).unwrap();

    let parts = walk(stretch(0, 2, true)).chain(walk(stretch(2, 5, false)));

    assert_eq!(parts.map(Result::unwrap).collect::<Vec<_>>(), pieces(&bytes, Some(50), Crcs::Compared));
}

#[test]
fn a_good_batch_can_be_read() {
    let bytes = batches().concat();
    let file = file(&bytes);
    for crcs in [Crcs::Compared, Crcs::Left] {
        let mut scan = SalvageScan::open(file.path(), Offset::ZERO, None, crcs).unwrap();
        let mut read = Vec::new();
        while let Some(piece) = scan.next() {
            let Piece::Good(batch) = piece.unwrap() else { panic!("damage") };
            let whole = scan.read(&batch).unwrap();
            assert_eq!(BatchHeader::parse(whole.bytes()).unwrap(), batch.header);
            read.extend_from_slice(whole.bytes());
        }
        assert_eq!(read, bytes);
    }
}
