//! DescribeLogDirs (35): the data directory, what lies in it, and how large its file system is.
//!
//! Versions: 1-4. Partitions that do not exist are left out, as Kafka does it. The size of a partition is that of its
//! segments, without their indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use highwater_protocol::wire::Str;

use crate::context::Context;
use crate::topics::Topic;

/// The sizes of a file system, in bytes; -1 if unknown.
#[derive(Clone, Copy)]
struct Volume {
    total: i64,
    usable: i64,
}

pub(crate) async fn handle(
    context: &Context<'_>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let broker = Arc::clone(context.broker);
    // The file system is asked, which may wait for a disk.
    let described = tokio::task::spawn_blocking(move || {
        let path = std::path::absolute(broker.data.path()).unwrap_or_else(|_| broker.data.path().to_owned());
        let volume = volume(&path);
        DescribeLogDirsResult {
            error_code: ErrorCode::None.code(),
            log_dir: Str::from(path.display().to_string()),
            topics: topics(&broker.topics.all(), request),
            total_bytes: volume.total,
            usable_bytes: volume.usable,
        }
    });
    match described.await {
        Ok(directory) => {
            DescribeLogDirsResponse { results: vec![directory], ..DescribeLogDirsResponse::default() }
        }
        Err(error) => {
            tracing::error!(%error, "describing the data directory panicked");
            let error_code = ErrorCode::UnknownServerError.code();
            DescribeLogDirsResponse { error_code, ..DescribeLogDirsResponse::default() }
        }
    }
}

/// The partitions that are asked for and exist.
fn topics(all: &[Arc<Topic>], request: DescribeLogDirsRequest) -> Vec<DescribeLogDirsTopic> {
    let asked = request.topics.map(|topics| {
        let mut asked: BTreeMap<Str, BTreeSet<i32>> = BTreeMap::new();
        for topic in topics {
            asked.entry(topic.topic).or_default().extend(topic.partitions);
        }
        asked
    });
    let mut described = Vec::new();
    for topic in all {
        let wanted = match &asked {
            None => None,
            Some(asked) => match asked.get(topic.name.as_str()) {
                Some(partitions) => Some(partitions),
                None => continue,
            },
        };
        let partitions: Vec<_> =
            partitions(topic, |index| wanted.is_none_or(|wanted| wanted.contains(&index))).collect();
        if !partitions.is_empty() {
            described.push(DescribeLogDirsTopic { name: Str::from(topic.name.as_str()), partitions });
        }
    }
    described
}

fn partitions(topic: &Topic, wanted: impl Fn(i32) -> bool) -> impl Iterator<Item = DescribeLogDirsPartition> {
    topic.partitions.iter().filter_map(move |partition| {
        let partition_index = partition.id().partition.get();
        let standing = partition.standing().ok().filter(|_| wanted(partition_index))?;
        let partition_size = i64::try_from(standing.size_bytes).unwrap_or(i64::MAX);
        Some(DescribeLogDirsPartition { partition_index, partition_size, ..Default::default() })
    })
}

fn volume(path: &Path) -> Volume {
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let bytes =
                |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).unwrap_or(i64::MAX);
            Volume { total: bytes(found.f_blocks), usable: bytes(found.f_bavail) }
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file system does not tell its size");
            Volume { total: -1, usable: -1 }
        }
    }
}
