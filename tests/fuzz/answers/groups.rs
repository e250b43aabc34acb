//! The error codes in answers of the APIs of consumer groups.

use anyhow::bail;
use highwater_protocol::ApiKey;
use highwater_protocol::api::{
    DeleteGroupsResponse, DescribeGroupsResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
    ListGroupsResponse, OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse, SyncGroupResponse,
};

use super::Body;

/// Decodes the answer to its last byte; the error codes in it.
pub(super) fn codes_of(key: ApiKey, body: Body) -> anyhow::Result<Vec<i16>> {
    Ok(match key {
        ApiKey::OffsetCommit => {
            let response = body.decode::<OffsetCommitResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).collect()
        }
        ApiKey::OffsetFetch => offset_fetch(&body.decode()?),
        ApiKey::JoinGroup => vec![body.decode::<JoinGroupResponse>()?.error_code],
        ApiKey::Heartbeat => vec![body.decode::<HeartbeatResponse>()?.error_code],
        ApiKey::LeaveGroup => {
            let response = body.decode::<LeaveGroupResponse>()?;
            let members = response.members.iter().map(|member| member.error_code);
            members.chain([response.error_code]).collect()
        }
        ApiKey::SyncGroup => vec![body.decode::<SyncGroupResponse>()?.error_code],
        ApiKey::DescribeGroups => {
            body.decode::<DescribeGroupsResponse>()?.groups.iter().map(|group| group.error_code).collect()
        }
        ApiKey::ListGroups => vec![body.decode::<ListGroupsResponse>()?.error_code],
        ApiKey::DeleteGroups => {
            body.decode::<DeleteGroupsResponse>()?.results.iter().map(|group| group.error_code).collect()
        }
        ApiKey::OffsetDelete => {
            let response = body.decode::<OffsetDeleteResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).chain([response.error_code]).collect()
        }
        _ => bail!("{key} is not of the APIs of groups"),
    })
}

fn offset_fetch(response: &OffsetFetchResponse) -> Vec<i16> {
    let old = response.topics.iter().flat_map(|topic| &topic.partitions);
    let new = response.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
    let partitions =
        old.map(|partition| partition.error_code).chain(new.map(|partition| partition.error_code));
    let groups = response.groups.iter().map(|group| group.error_code);
    partitions.chain(groups).chain([response.error_code]).collect()
}
