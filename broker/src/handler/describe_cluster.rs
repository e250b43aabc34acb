//! DescribeCluster (60): the id of the cluster and its one broker.
//!
//! Versions: 0-2. The broker is the controller too, and is asked for as a broker: there is no endpoint of controllers.
//! It is never fenced. Without authorization everyone may do everything.

use highwater_protocol::ErrorCode;
use highwater_protocol::api::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use highwater_protocol::wire::Str;

use super::CLUSTER_OPERATIONS;
use crate::broker::NODE_ID;
use crate::context::Context;
use crate::refusal::refuse;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(context: &Context<'_>, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let refusal = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => {
            let message = "this is an endpoint of brokers, controllers have none";
            Some(refuse(ErrorCode::MismatchedEndpointType, message))
        }
        other => {
            let message = format!("there is no type of endpoint with number {other}");
            Some(refuse(ErrorCode::UnsupportedEndpointType, message))
        }
    };
    if let Some(refusal) = refusal {
        let (error_code, error_message) = refusal.told();
        return DescribeClusterResponse { error_code, error_message, ..DescribeClusterResponse::default() };
    }
    let endpoint = context.endpoint();
    let broker = DescribeClusterBroker {
        broker_id: NODE_ID,
        host: Str::from(endpoint.host),
        port: endpoint.port.into(),
        rack: None,
        is_fenced: false,
    };
    let nothing_asked = DescribeClusterResponse::default().cluster_authorized_operations;
    let operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { nothing_asked };
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::from(context.broker.cluster_id.as_str()),
        controller_id: NODE_ID,
        brokers: vec![broker],
        cluster_authorized_operations: operations,
        ..DescribeClusterResponse::default()
    }
}
