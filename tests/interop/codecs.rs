//! A file of log lines goes in through each client in each codec, and comes out of each client as it was.
//!
//! Three producers, five codecs, three consumers: 45 reads of 100,000 lines. Topics have one partition or three
//! in turn, so that every client and every codec meets both.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use highwater_record::{BatchHeader, Codec};

use super::lines;
use crate::harness::broker::{Broker, Options};
use crate::harness::clients::Client;
use crate::harness::dump_log::segment_files;
use crate::harness::skip::or_skip;
use crate::harness::wire::create_topic;

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn lines_survive_every_client_uncompressed() -> anyhow::Result<()> {
    lines_survive(Codec::None)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn lines_survive_every_client_in_gzip() -> anyhow::Result<()> {
    lines_survive(Codec::Gzip)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn lines_survive_every_client_in_snappy() -> anyhow::Result<()> {
    lines_survive(Codec::Snappy)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn lines_survive_every_client_in_lz4() -> anyhow::Result<()> {
    lines_survive(Codec::Lz4)
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn lines_survive_every_client_in_zstd() -> anyhow::Result<()> {
    lines_survive(Codec::Zstd)
}

fn lines_survive(codec: Codec) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for client in Client::ALL {
        clients.extend(or_skip(client.install())?.map(|()| client));
    }
    let dir = tempfile::tempdir()?;
    let broker = Broker::start(Options::new(&dir.path().join("data")))?;
    for (place, producer) in Client::ALL.into_iter().enumerate() {
        if !clients.contains(&producer) {
            continue;
        }
        let partitions = if (place + codec as usize).is_multiple_of(2) { 1 } else { 3 };
        let topic = format!("{}-{codec}", producer.name());
        create_topic(broker.address(), &topic, partitions)?;

        let files = lines::files(dir.path(), partitions)?;
        producer.produce(&broker.bootstrap(), &codec.to_string(), &topic, &files)?;

        batches_are_in(codec, broker.data(), &topic, partitions)?;
        for consumer in &clients {
            let directory = dir.path().join(format!("{topic}-to-{}", consumer.name()));
            let read = consumer.consume(&broker.bootstrap(), &topic, partitions, &directory)?;
            let context = || format!("{topic} read by {} from {partitions} partitions", consumer.name());
            for (partition, bytes) in read.iter().enumerate() {
                same_lines(bytes, partition, partitions).with_context(context)?;
            }
            fs::remove_dir_all(directory)?;
        }
    }
    Ok(())
}

/// Compares lines of `<offset> <value>` with what was put into the partition.
fn same_lines(read: &[u8], partition: usize, partitions: usize) -> anyhow::Result<()> {
    let mut rest = read;
    for (offset, line) in lines::of_partition(partition, partitions).enumerate() {
        let expected = [format!("{offset} ").as_bytes(), line, b"\n"].concat();
        let Some(after) = rest.strip_prefix(expected.as_slice()) else {
            let found = String::from_utf8_lossy(&rest[..rest.len().min(expected.len())]).into_owned();
            let expected = String::from_utf8_lossy(&expected);
            anyhow::bail!("partition {partition} has {found:?} where {expected:?} belongs");
        };
        rest = after;
    }
    ensure!(rest.is_empty(), "partition {partition} goes on: {:?}", String::from_utf8_lossy(rest));
    Ok(())
}

/// Clients leave out compression in silence if they think that the broker cannot read it, and rightly where it
/// would make a small batch larger: nearly all records must lie in batches of `codec`.
fn batches_are_in(codec: Codec, data: &Path, topic: &str, partitions: usize) -> anyhow::Result<()> {
    let (mut all, mut compressed) = (0, 0);
    for partition in 0..partitions {
        for file in segment_files(&data.join(format!("{topic}-{partition}")), &["log"])? {
            let bytes = fs::read(&file)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest)?;
                all += header.record_count;
                if header.attributes.codec() == Some(codec) {
                    compressed += header.record_count;
                }
                rest = rest.get(header.size_bytes as usize..).context("the last batch is whole")?;
            }
        }
    }
    let floor = if codec == Codec::None { all } else { all / 100 * 98 };
    ensure!(all as usize == lines::COUNT, "{topic} holds {all} records");
    ensure!(compressed >= floor, "{compressed} of {all} records of {topic} are in {codec}");
    Ok(())
}
