//! Serves probes, metrics and the status over HTTP. Nothing can be asked for here: that is what the socket is for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use ghostsync_core::{Error, ErrorKind, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::shared::Shared;

/// How long a client may take to send the head of its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins to listen; `:9108` is every address of the pod.
///
/// # Errors
/// `Invalid` for an address that is none, or that is in use.
pub(crate) async fn listen(address: &str) -> Result<TcpListener> {
    let bound = match address.strip_prefix(':') {
        // A pod has addresses of one family or of both.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|error| {
        let form = if error.kind() == std::io::ErrorKind::InvalidInput { "; write :PORT or ADDRESS:PORT" } else { "" };
        Error::new(ErrorKind::Invalid, format!("cannot listen on {address}: {error}{form}"))
    })
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, say: the next one may be luckier.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &shared);
                async { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // A client that goes away is none of our business.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Tells where it listens.
pub(crate) fn address(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "unknown".into(), |address: SocketAddr| address.to_string())
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    let now = shared.now();
    match request.uri().path() {
        // The loop, never the store: a store that is away is no reason to be killed.
        "/livez" if shared.heartbeat.is_alive(now) => text(StatusCode::OK, "alive\n".into()),
        "/livez" => text(StatusCode::SERVICE_UNAVAILABLE, "the loop is silent\n".into()),
        "/startupz" | "/readyz" => match shared.status(|status| (status.is_started, status.trouble.clone())) {
            (true, _) => text(StatusCode::OK, "started\n".into()),
            (false, trouble) => {
                let why = trouble.unwrap_or_else(|| "starting".into());
                text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
            }
        },
        "/metrics" => {
            let page = shared.status(|status| status.metrics(now));
            typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
        }
        "/status" => {
            let document = shared.status(|status| status.document(now));
            typed(StatusCode::OK, "application/json", format!("{document}\n"))
        }
        _ => text(StatusCode::NOT_FOUND, "/livez /startupz /readyz /metrics /status\n".into()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
