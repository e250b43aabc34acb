//! InitProducerId (22): a producer id and epoch for an idempotent producer.
//!
//! Versions: 0-5. Ids come from durable blocks and are never given out twice. A known id may raise its epoch
//! (KIP-360); the log fences older epochs. Transactional ids are refused until transactions exist, with the error
//! that makes every client stop at once instead of retrying.

use std::sync::Arc;

use highwater_protocol::ErrorCode;
use highwater_protocol::api::{InitProducerIdRequest, InitProducerIdResponse};

use crate::context::Context;

pub(crate) async fn handle(context: &Context<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    if let Some(id) = &request.transactional_id {
        tracing::warn!(
            transactional_id = id.as_str(),
            "refused a transactional producer: transactions are not built yet"
        );
        return refuse(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    match (request.producer_id, request.producer_epoch) {
        (-1, -1) => fresh(context).await,
        (id @ 0.., epoch @ 0..) if epoch < i16::MAX => InitProducerIdResponse {
            producer_id: id,
            producer_epoch: epoch + 1,
            ..InitProducerIdResponse::default()
        },
        // An exhausted epoch gets a new id, as Kafka's coordinator does it.
        (0.., 0..) => fresh(context).await,
        _ => refuse(ErrorCode::InvalidRequest),
    }
}

async fn fresh(context: &Context<'_>) -> InitProducerIdResponse {
    let broker = context.broker;
    let id = match broker.producer_ids.at_hand() {
        Some(id) => id,
        None => {
            let broker = Arc::clone(broker);
            let taken = tokio::task::spawn_blocking(move || broker.producer_ids.take(&broker.metadata)).await;
            match taken {
                Ok(Ok(id)) => id,
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot take a block of producer ids");
                    return refuse(ErrorCode::CoordinatorNotAvailable);
                }
                Err(error) => {
                    tracing::error!(%error, "taking a block of producer ids panicked");
                    return refuse(ErrorCode::UnknownServerError);
                }
            }
        }
    };
    InitProducerIdResponse { producer_id: id.get(), producer_epoch: 0, ..InitProducerIdResponse::default() }
}

fn refuse(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}
