//! InitProducerId (22): a producer id and epoch for an idempotent producer.
//!
//! Versions: 0-5. Ids come from durable blocks and are never given out twice. Without a transactional id the answer is
//! always a new id with epoch 0, whatever id and epoch the request names. Transactional ids are refused until transactions exist, with the error
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
    fresh(context).await
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
                // Final: a producer that asks again and again would never say why it sends nothing.
                Ok(Err(error)) if error.code() == ErrorCode::PolicyViolation => {
                    // The answer has no field for it.
                    tracing::warn!(peer = %context.peer, "refused a producer id: {error}");
                    return refuse(error.code());
                }
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
