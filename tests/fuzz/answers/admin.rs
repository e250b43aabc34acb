//! The error codes in the answers to administrators.

use anyhow::bail;
use highwater_protocol::ApiKey;
use highwater_protocol::api::{
    AlterClientQuotasResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    CreatePartitionsResponse, DeleteRecordsResponse, DescribeClientQuotasResponse, DescribeClusterResponse,
    DescribeConfigsResponse, DescribeLogDirsResponse, DescribeQuorumResponse,
    DescribeTopicPartitionsResponse, ElectLeadersResponse, IncrementalAlterConfigsResponse,
    ListConfigResourcesResponse, ListPartitionReassignmentsResponse, UpdateFeaturesResponse,
};

use super::Body;

/// Decodes the answer to its last byte; the error codes in it.
pub(super) fn codes_of(key: ApiKey, body: Body) -> anyhow::Result<Vec<i16>> {
    Ok(match key {
        ApiKey::DeleteRecords => {
            let response = body.decode::<DeleteRecordsResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).collect()
        }
        ApiKey::DescribeConfigs => {
            body.decode::<DescribeConfigsResponse>()?.results.iter().map(|result| result.error_code).collect()
        }
        ApiKey::AlterConfigs => {
            body.decode::<AlterConfigsResponse>()?.responses.iter().map(|one| one.error_code).collect()
        }
        ApiKey::DescribeLogDirs => {
            let response = body.decode::<DescribeLogDirsResponse>()?;
            let directories = response.results.iter().map(|directory| directory.error_code);
            directories.chain([response.error_code]).collect()
        }
        ApiKey::CreatePartitions => {
            body.decode::<CreatePartitionsResponse>()?.results.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::ElectLeaders => {
            let response = body.decode::<ElectLeadersResponse>()?;
            let partitions =
                response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
            partitions.map(|partition| partition.error_code).chain([response.error_code]).collect()
        }
        ApiKey::IncrementalAlterConfigs => {
            let response = body.decode::<IncrementalAlterConfigsResponse>()?;
            response.responses.iter().map(|one| one.error_code).collect()
        }
        ApiKey::AlterPartitionReassignments => {
            let response = body.decode::<AlterPartitionReassignmentsResponse>()?;
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).chain([response.error_code]).collect()
        }
        ApiKey::DescribeQuorum => {
            let response = body.decode::<DescribeQuorumResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).chain([response.error_code]).collect()
        }
        ApiKey::UpdateFeatures => {
            let response = body.decode::<UpdateFeaturesResponse>()?;
            response.results.iter().map(|one| one.error_code).chain([response.error_code]).collect()
        }
        ApiKey::DescribeTopicPartitions => {
            let response = body.decode::<DescribeTopicPartitionsResponse>()?;
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            let partitions = partitions.map(|partition| partition.error_code);
            partitions.chain(response.topics.iter().map(|topic| topic.error_code)).collect()
        }
        key => return code_of(key, body).map(|code| vec![code]),
    })
}

/// The same for answers with one error code for everything, or one per entity.
fn code_of(key: ApiKey, body: Body) -> anyhow::Result<i16> {
    Ok(match key {
        ApiKey::ListPartitionReassignments => body.decode::<ListPartitionReassignmentsResponse>()?.error_code,
        ApiKey::DescribeClientQuotas => body.decode::<DescribeClientQuotasResponse>()?.error_code,
        ApiKey::AlterClientQuotas => {
            let response = body.decode::<AlterClientQuotasResponse>()?;
            response.entries.iter().map(|entry| entry.error_code).find(|code| *code != 0).unwrap_or(0)
        }
        ApiKey::DescribeCluster => body.decode::<DescribeClusterResponse>()?.error_code,
        ApiKey::ListConfigResources => body.decode::<ListConfigResourcesResponse>()?.error_code,
        key => bail!("nothing here reads the answers of {key}"),
    })
}
