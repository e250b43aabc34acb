//! Damage: what hostile, broken and unlucky clients do to a frame.

use highwater_record::{CRC_START, HEADER_BYTES, crc32c};

use super::seeds::Seeds;
use crate::faults::random::Random;

/// Where the CRC of a batch stands.
const CRC_AT: usize = CRC_START - 4;
/// Numbers at which something changes.
const EDGES: [i64; 14] = [
    0,
    1,
    -1,
    -2,
    0x7f,
    0x80,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX,
    i64::MIN,
    1 << 40,
];
/// A frame never grows beyond this by mutation.
const BYTES_MAX: usize = 16 << 10;

/// A frame made of a seed, damaged or, now and then, as it was; or of nothing but chance.
pub(crate) fn hostile(random: &mut Random, seeds: &Seeds) -> Vec<u8> {
    match random.below(32) {
        0 => (0..random.below(200)).map(|_| random.byte()).collect(),
        1 => seeds.any(random).bytes.clone(),
        2..=8 => damaged_batch(random, seeds),
        _ => damaged(random, seeds),
    }
}

/// A frame whose bytes are damaged in one to four places.
fn damaged(random: &mut Random, seeds: &Seeds) -> Vec<u8> {
    let mut bytes = seeds.any(random).bytes.clone();
    for _ in 0..=random.below(4) {
        damage(random, &mut bytes);
        if random.below(16) == 0 {
            let other = &seeds.any(random).bytes;
            let (head, tail) = (random.below(bytes.len() as u64 + 1), random.index(other.len()));
            bytes.truncate(head as usize);
            bytes.extend_from_slice(&other[tail..]);
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// A produce request that is whole but for its batch, whose checksum is made to hold: what is behind the checksum
/// must not trust it.
fn damaged_batch(random: &mut Random, seeds: &Seeds) -> Vec<u8> {
    let frame = seeds.with_batch(random);
    let range = frame.batch.clone().expect("the frame has a batch");
    let mut bytes = frame.bytes.clone();
    let batch = &mut bytes[range];
    for _ in 0..=random.below(3) {
        // The length stays: another one would only move the end of the batch.
        let at = if random.below(3) == 0 { 0 } else { HEADER_BYTES };
        overwrite(random, &mut batch[at..]);
    }
    let crc = crc32c(&batch[CRC_START..]);
    batch[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(random.byte());
    }
    let at = random.index(bytes.len());
    let length = 1 + random.index(bytes.len() - at).min(64);
    match random.below(10) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..at + length)),
        2 => {
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
        3 => {
            let noise: Vec<u8> = (0..length).map(|_| random.byte()).collect();
            bytes.splice(at..at, noise);
        }
        4 => {
            // The longest number that a compact length can be, and one that is too long.
            let longest = [0xff, 0xff, 0xff, 0xff, 0x0f];
            bytes.splice(at..at, longest.into_iter().chain((random.below(2) == 0).then_some(0xff)));
        }
        5 if bytes.len() >= 4 => {
            // Another API or version in front of the same body.
            bytes[1] = random.below(80) as u8;
            bytes[3] = random.below(20) as u8;
        }
        _ => overwrite(random, bytes),
    }
}

/// Writes a bit, a byte or a number over what is there.
fn overwrite(random: &mut Random, bytes: &mut [u8]) {
    let at = random.index(bytes.len());
    let edge = random.choose(&EDGES).to_be_bytes();
    let width = match random.below(5) {
        0 => {
            bytes[at] ^= 1 << random.below(8);
            return;
        }
        1 => {
            bytes[at] = random.byte();
            return;
        }
        2 => 2,
        3 => 4,
        _ => 8,
    };
    let end = (at + width).min(bytes.len());
    bytes[at..end].copy_from_slice(&edge[8 - (end - at)..]);
}
