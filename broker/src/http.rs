//! Plain HTTP/1.1 on the shared port: liveness, readiness, metrics, and a 404 that helps.
//!
//! `/livez` answers 200 while the process serves at all; `/readyz` answers 503 with the progress as JSON, a sentence
//! included, until every partition has recovered. Nothing here touches a disk or a partition's lock, so a hung disk does not freeze it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::broker::Broker;

/// How long a client may take to send its request's head.
const HEADER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves one HTTP connection until it closes or the broker stops.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &broker);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

fn respond(method: &Method, path: &str, broker: &Broker) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let sentence = format!("{method} is not served here; /livez, /readyz and /metrics answer to GET\n");
        return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, sentence);
    }
    match path {
        "/livez" => answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => {
            let progress = broker.progress();
            let status = if progress.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            answer(
                status,
                "application/json",
                progress.to_json(broker.metadata.read_only(), &broker.disk.reading()),
            )
        }
        "/metrics" => answer(StatusCode::OK, EXPOSITION, broker.render_metrics()),
        _ => answer(StatusCode::NOT_FOUND, TEXT, not_found(path)),
    }
}

fn not_found(path: &str) -> String {
    format!(
        "There is no {path} here. This is a Highwater broker: Kafka clients connect to this same port, and over HTTP \
         it serves /livez, /readyz and /metrics.\n"
    )
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
