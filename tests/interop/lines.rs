//! A log of 100,000 lines made of 5,000 genuine ones.
//!
//! `data/system.log.gz` holds lines of a Debian machine: of dpkg, apt's terminal, update-alternatives and the
//! kernel, as they were written, carriage returns and UTF-8 included; lines that name hosts are left out. They
//! are repeated, each behind its number, so that all lines differ and none is empty: kcat cannot send an empty
//! one. Some are made long by joining many, some get bytes that are not UTF-8.

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::read::GzDecoder;

/// How many lines there are.
pub(crate) const COUNT: usize = 100_000;

/// Every so many lines one is made of [`JOINED`] genuine ones.
const LONG_EVERY: usize = 1_009;
const JOINED: usize = 500;

/// Every so many lines one ends in every byte but the newline.
const BYTES_EVERY: usize = 503;

/// The lines, without their newlines.
pub(crate) fn lines() -> &'static [Vec<u8>] {
    static LINES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    LINES.get_or_init(|| {
        let genuine = genuine();
        (0..COUNT).map(|number| line(&genuine, number)).collect()
    })
}

/// The lines of `partition` of `partitions`, to which line numbers are dealt in turn.
pub(crate) fn of_partition(partition: usize, partitions: usize) -> impl Iterator<Item = &'static [u8]> {
    lines().iter().skip(partition).step_by(partitions).map(Vec::as_slice)
}

/// One file for each of `partitions`, in `directory`, that together hold every line.
pub(crate) fn files(directory: &Path, partitions: usize) -> anyhow::Result<Vec<PathBuf>> {
    (0..partitions)
        .map(|partition| {
            let path = directory.join(format!("lines-{partition}-of-{partitions}"));
            let mut file = BufWriter::new(fs::File::create(&path)?);
            for line in of_partition(partition, partitions) {
                file.write_all(line)?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            Ok(path)
        })
        .collect()
}

fn genuine() -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(&include_bytes!("data/system.log.gz")[..])
        .read_to_end(&mut text)
        .expect("the fixture is a gzip file");
    text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn line(genuine: &[Vec<u8>], number: usize) -> Vec<u8> {
    let mut line = format!("{number:06} ").into_bytes();
    let joined = if number % LONG_EVERY == LONG_EVERY - 1 { JOINED } else { 1 };
    for one in genuine.iter().cycle().skip(number % genuine.len()).take(joined) {
        line.extend_from_slice(one);
    }
    if number % BYTES_EVERY == BYTES_EVERY - 1 {
        line.extend((0..=u8::MAX).filter(|byte| *byte != b'\n'));
    }
    line
}

#[test]
fn the_lines_are_many_distinct_and_odd() {
    let distinct: std::collections::HashSet<_> = lines().iter().collect();
    assert_eq!(distinct.len(), COUNT);
    assert!(lines().iter().any(|line| line.len() > 20_000), "there are long lines");
    assert!(lines().iter().any(|line| std::str::from_utf8(line).is_err()), "there are bytes beyond UTF-8");
    assert!(lines().iter().all(|line| !line.is_empty() && !line.contains(&b'\n')));
}
