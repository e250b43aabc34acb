//! One connection: versions, pipelining, faults.

use std::time::Duration;

use highwater_client::{CallError, ConnectError, Connection, ConnectionConfig, Fault};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::api_versions::ApiVersion;
use highwater_protocol::api::{
    ApiVersionsResponse, FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest,
};

use crate::peer::{Stage, connection_config};

async fn open(stage: &Stage) -> Result<Connection, ConnectError> {
    Connection::open(stage.address(), connection_config()).await
}

fn cluster(id: &str) -> MetadataResponse {
    MetadataResponse { cluster_id: Some(id.into()), ..MetadataResponse::default() }
}

#[tokio::test]
async fn an_older_broker_is_asked_again_in_the_version_that_it_names() {
    let stage = Stage::new().await;
    let peer = async {
        let mut peer = stage.accept().await;
        let (first, _) = peer.read().await.unwrap();
        assert_eq!(first.api_version, 4);
        let mut refusal = ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 2 }],
            ..ApiVersionsResponse::default()
        };
        peer.answer_in(&first, 0, &refusal).await;
        let (second, _) = peer.read().await.unwrap();
        assert_eq!(second.api_version, 2);
        // Kafka 2.1.
        let listed = |api_key, max_version| ApiVersion { api_key, min_version: 0, max_version };
        refusal.error_code = 0;
        refusal.api_keys = vec![listed(0, 7), listed(1, 10), listed(3, 7), listed(18, 2)];
        peer.answer(&second, &refusal).await;
        peer
    };
    let (connection, _peer) = tokio::join!(open(&stage), peer);
    let connection = connection.unwrap();

    assert_eq!(connection.version::<ProduceRequest>(12).unwrap(), 7);
    assert_eq!(connection.version::<FetchRequest>(9).unwrap(), 9);
    let missing = connection.version::<highwater_protocol::api::CreateTopicsRequest>(i16::MAX);
    assert!(matches!(missing, Err(CallError::NoVersion { theirs: None, .. })), "{missing:?}");
}

#[tokio::test]
async fn requests_in_flight_get_their_own_answers() {
    let stage = Stage::new().await;
    let (connection, mut peer) = tokio::join!(open(&stage), stage.accept_negotiated());
    let connection = connection.unwrap();

    let mut pending = Vec::new();
    for _ in 0..5 {
        pending.push(connection.start(&MetadataRequest::default(), 12, Duration::ZERO).await.unwrap());
    }
    let mut headers = Vec::new();
    for _ in 0..5 {
        headers.push(peer.read().await.unwrap().0);
    }
    for (index, header) in headers.iter().enumerate() {
        peer.answer(header, &cluster(&index.to_string())).await;
    }

    for (index, pending) in pending.into_iter().enumerate() {
        let answer = pending.wait().await.unwrap();
        assert_eq!(answer.cluster_id.as_deref(), Some(index.to_string().as_str()));
    }
}

#[tokio::test]
async fn an_answer_out_of_turn_ends_the_connection() {
    let stage = Stage::new().await;
    let (connection, mut peer) = tokio::join!(open(&stage), stage.accept_negotiated());
    let connection = connection.unwrap();

    let first = connection.start(&MetadataRequest::default(), 12, Duration::ZERO).await.unwrap();
    let second = connection.start(&MetadataRequest::default(), 12, Duration::ZERO).await.unwrap();
    peer.read().await.unwrap();
    let (later, _) = peer.read().await.unwrap();
    peer.answer(&later, &cluster("x")).await;

    for pending in [first, second] {
        let error = pending.wait().await.unwrap_err();
        assert!(
            matches!(error, CallError::Broken { fault: Fault::Correlation { expected: 1, actual: 2 }, .. }),
            "{error}"
        );
    }
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_cut_connection_fails_what_is_in_flight_and_what_follows() {
    let stage = Stage::new().await;
    let (connection, mut peer) = tokio::join!(open(&stage), stage.accept_negotiated());
    let connection = connection.unwrap();

    let pending = connection.start(&MetadataRequest::default(), 12, Duration::ZERO).await.unwrap();
    peer.read().await.unwrap();
    drop(peer);

    let error = pending.wait().await.unwrap_err();
    assert!(matches!(error, CallError::Broken { fault: Fault::Closed, .. }), "{error}");
    assert!(error.is_retriable());
    assert!(connection.is_closed());
    let later = connection.call(&MetadataRequest::default(), 12, Duration::ZERO).await;
    assert!(matches!(later, Err(CallError::Broken { .. })), "{later:?}");
}

#[tokio::test]
async fn a_frame_beyond_the_limit_is_not_read() {
    let stage = Stage::new().await;
    let (connection, mut peer) = tokio::join!(open(&stage), stage.accept_negotiated());
    let connection = connection.unwrap();

    let pending = connection.start(&MetadataRequest::default(), 12, Duration::ZERO).await.unwrap();
    peer.read().await.unwrap();
    peer.write(&i32::MAX.to_be_bytes()).await;

    let error = pending.wait().await.unwrap_err().to_string();
    assert!(error.ends_with("frame of 2147483647 bytes exceeds the limit of 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn another_protocol_is_named() {
    let stage = Stage::new().await;
    let peer = async {
        let mut peer = stage.accept().await;
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer
    };
    let (refused, _peer) = tokio::join!(open(&stage), peer);

    let error = refused.unwrap_err().to_string();
    assert!(error.contains("answers with HTTP"), "{error}");
}

#[tokio::test]
async fn a_silent_broker_is_given_up() {
    let stage = Stage::new().await;
    let config = ConnectionConfig { request_timeout: Duration::from_millis(20), ..connection_config() };
    let (connection, _peer) =
        tokio::join!(Connection::open(stage.address(), config), stage.accept_negotiated());
    let connection = connection.unwrap();

    let silent = connection.call(&MetadataRequest::default(), 12, Duration::ZERO).await;

    assert!(matches!(silent, Err(CallError::Timeout { .. })), "{silent:?}");
}
