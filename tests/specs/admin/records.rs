//! Records that are deleted: the log begins later, and stays there.

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use highwater_protocol::api::fetch::{FetchPartition, FetchRequest, FetchTopic};

use super::{Admin, named};
use crate::faults::batches::plain_batch;

impl Admin {
    /// A broker whose topic `t` has one partition with that many batches of one record.
    fn with_records(count: u32, value_bytes: usize) -> anyhow::Result<Self> {
        let mut admin = Self::with_topic(1)?;
        admin.append(count, value_bytes)?;
        Ok(admin)
    }

    fn append(&mut self, count: u32, value_bytes: usize) -> anyhow::Result<()> {
        for counter in 0..count {
            assert_eq!(self.connection.produce("t", 0, plain_batch(counter, value_bytes))?.error_code, 0);
        }
        Ok(())
    }

    /// Asks to delete what is below each offset of these partitions; the low watermarks, or why not.
    fn delete(&mut self, topic: &str, offsets: &[(i32, i64)]) -> anyhow::Result<Vec<Result<i64, ErrorCode>>> {
        let partitions = offsets
            .iter()
            .map(|(partition_index, offset)| DeleteRecordsPartition {
                partition_index: *partition_index,
                offset: *offset,
            })
            .collect();
        let topic = DeleteRecordsTopic { name: topic.into(), partitions };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
        let response = self.connection.call(2, &request)?;
        let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(answers
            .map(|answer| match named(answer.error_code) {
                ErrorCode::None => Ok(answer.low_watermark),
                code => {
                    assert_eq!(answer.low_watermark, -1);
                    Err(code)
                }
            })
            .collect())
    }

    /// What a fetch from `fetch_offset` on is answered: a code, the log's start, how many bytes.
    fn fetch(&mut self, fetch_offset: i64) -> anyhow::Result<(ErrorCode, i64, usize)> {
        let partition =
            FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
        let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
        let request = FetchRequest { max_bytes: 1 << 20, topics: vec![topic], ..FetchRequest::default() };
        let response = self.connection.call(11, &request)?;
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let data = data.context("the answer names the partition")?;
        Ok((
            named(data.error_code),
            data.log_start_offset,
            data.records.bytes().map_or(0, |bytes| bytes.len()),
        ))
    }
}

#[test]
fn deleted_records_are_below_the_log_from_now_on() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;

    assert_eq!(admin.delete("t", &[(0, 3)])?, [Ok(3)]);

    assert_eq!(admin.earliest("t")?, 3);
    assert_eq!(admin.fetch(2)?.0, ErrorCode::OffsetOutOfRange);
    let (code, start, bytes) = admin.fetch(3)?;
    assert_eq!((code, start), (ErrorCode::None, 3));
    assert!(bytes > 0);
    // Nothing comes back by asking for less.
    assert_eq!(admin.delete("t", &[(0, 1)])?, [Ok(3)]);
    assert_eq!(admin.earliest("t")?, 3);
    Ok(())
}

#[test]
fn minus_one_deletes_up_to_the_high_watermark_and_appends_go_on() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;

    assert_eq!(admin.delete("t", &[(0, -1)])?, [Ok(5)]);

    assert_eq!(admin.fetch(5)?, (ErrorCode::None, 5, 0));
    admin.append(1, 100)?;
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(6));
    assert!(admin.fetch(5)?.2 > 0);
    Ok(())
}

#[test]
fn what_is_beyond_the_high_watermark_or_not_there_is_refused() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;

    let answers = admin.delete("t", &[(0, 6), (0, -2), (0, i64::MIN), (0, i64::MAX), (7, 0), (-1, 0)])?;

    let out = Err(ErrorCode::OffsetOutOfRange);
    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(answers, [out, out, out, out, unknown, unknown]);
    assert_eq!(admin.delete("absent", &[(0, 0)])?, [unknown]);
    assert_eq!(admin.delete("a/b", &[(0, 0)])?, [unknown]);
    assert_eq!(admin.earliest("t")?, 0);
    Ok(())
}

#[test]
fn whole_segments_below_the_start_are_removed() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    admin.connection.create_topic("t", 1, &[("segment.bytes", "1048576")])?;
    admin.append(6, 400_000)?;
    assert_eq!(admin.segments()?, 3);

    assert_eq!(admin.delete("t", &[(0, 4)])?, [Ok(4)]);

    assert_eq!(admin.segments()?, 1);
    assert!(admin.fetch(4)?.2 > 400_000);
    Ok(())
}

#[test]
fn a_partition_that_is_named_a_thousand_times_is_moved_once() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;
    let moves = |admin: &Admin| admin.served.broker.log().matches("deleted records").count();

    assert_eq!(admin.delete("t", &[(0, 3); 1000])?, vec![Ok(3); 1000]);
    assert_eq!(moves(&admin), 1);

    assert_eq!(admin.delete("t", &[(0, 3), (0, 1)])?, [Ok(3), Ok(3)]);
    assert_eq!(moves(&admin), 1);
    Ok(())
}

#[test]
fn a_kill_brings_nothing_back() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;
    assert_eq!(admin.delete("t", &[(0, 3)])?, [Ok(3)]);

    admin.served.kill()?;
    admin.reconnect()?;

    assert_eq!(admin.earliest("t")?, 3);
    assert_eq!(admin.fetch(2)?.0, ErrorCode::OffsetOutOfRange);
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(5));
    Ok(())
}

#[test]
fn a_start_without_the_checkpoint_file_brings_nothing_back() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;
    // The furthest of several counts, whatever their order.
    assert_eq!(admin.delete("t", &[(0, 4), (0, 2)])?, [Ok(4), Ok(4)]);
    admin.served.broker.terminate()?;
    std::fs::remove_file(admin.served.broker.data().join("checkpoint"))?;

    admin.served.broker.restart()?;
    admin.reconnect()?;

    assert_eq!(admin.earliest("t")?, 4);
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(5));
    Ok(())
}

#[test]
fn a_topic_that_is_created_again_begins_at_zero() -> anyhow::Result<()> {
    let mut admin = Admin::with_records(5, 100)?;
    assert_eq!(admin.delete("t", &[(0, 3)])?, [Ok(3)]);
    admin.connection.delete_topic("t")?;

    admin.connection.create_topic("t", 1, &[])?;
    admin.append(1, 100)?;
    admin.served.restart()?;
    admin.reconnect()?;

    assert_eq!(admin.earliest("t")?, 0);
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(1));
    Ok(())
}
